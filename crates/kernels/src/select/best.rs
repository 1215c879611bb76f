//! Where the largest or smallest elements are.

use crate::Ctx;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// Neighbouring lines that are looked through together.
const TOGETHER: usize = 64;

/// Elements that are worth a task of their own.
const GRAIN: usize = 16 * 1024;

/// Which element of a line is taken.
#[derive(Clone, Copy, Debug)]
pub struct Best {
    /// The largest; else the smallest. NaN is larger than all numbers.
    pub largest: bool,
    /// The last of equal ones; else the first.
    pub last: bool,
}

impl Best {
    #[inline(always)]
    fn beats(self, x: f32, other: f32) -> bool {
        let equal = self.last && (x == other || (x.is_nan() && other.is_nan()));
        let better = if self.largest {
            x > other || (x.is_nan() && !other.is_nan())
        } else {
            x < other || (!x.is_nan() && other.is_nan())
        };
        better || equal
    }
}

/// The place of the best of each line of `width` elements that lie `inner` apart: `y` has an element for
/// each line.
pub fn places_of_best(ctx: &Ctx, best: Best, x: &[f32], [width, inner]: [usize; 2], y: &mut [i64]) {
    assert_eq!(x.len(), y.len() * width, "there is a line for each output");
    if y.is_empty() {
        return;
    }
    assert!(
        width > 0 && y.len().is_multiple_of(inner),
        "lines have elements"
    );
    let parts = inner.div_ceil(TOGETHER);
    let shared = Shared::new(y);
    let grain = (GRAIN / (width * inner.min(TOGETHER))).max(1);
    ctx.threads()
        .parallel_ranges(shared.len() / inner * parts, grain, |range| {
            for at in range {
                let (outer, first) = (at / parts, at % parts * TOGETHER);
                let count = TOGETHER.min(inner - first);
                let from = outer * inner + first;
                let lines = Lines {
                    best,
                    x: &x[outer * inner * width + first..],
                    sizes: [width, inner],
                    // SAFETY: every part belongs to one task.
                    y: unsafe { shared.slice(from..from + count) },
                };
                dispatch(ctx.isa(), lines);
            }
        });
}

/// At most [`TOGETHER`] neighbouring lines.
struct Lines<'a> {
    best: Best,
    x: &'a [f32],
    /// Elements of a line, and how far they are apart.
    sizes: [usize; 2],
    y: &'a mut [i64],
}

impl Body for Lines<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let ([width, inner], n) = (self.sizes, self.y.len());
        let (mut most, mut places) = ([0f32; TOGETHER], [0i32; TOGETHER]);
        most[..n].copy_from_slice(&self.x[..n]);
        for place in 1..width {
            let x = &self.x[place * inner..][..n];
            let so_far = most.iter_mut().zip(&mut places);
            for (x, (most, at)) in x.iter().zip(so_far) {
                let beats = self.best.beats(*x, *most);
                *most = if beats { *x } else { *most };
                *at = if beats { place as i32 } else { *at };
            }
        }
        for (y, place) in self.y.iter_mut().zip(places) {
            *y = i64::from(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, contexts};

    #[test]
    fn places_are_those_that_a_search_finds() {
        let mut random = Random::new(71);
        for round in 0..60 {
            let (outer, width) = (random.below(4), 1 + random.below(20));
            let inner = random.pick(&[1, 2, 63, 64, 65, 130]);
            let best = Best {
                largest: round % 2 == 0,
                last: round % 3 == 0,
            };
            let values = [0.0, 1.0, -1.0, 2.0, f32::NAN, f32::INFINITY];
            let x: Vec<f32> = (0..outer * width * inner)
                .map(|_| random.pick(&values))
                .collect();
            let want: Vec<i64> = (0..outer * inner)
                .map(|line| {
                    let at = |i: usize| x[(line / inner * width + i) * inner + line % inner];
                    let rank = |x: f32| match x {
                        f32::INFINITY => f64::MAX / 2.0,
                        x if x.is_nan() => f64::MAX,
                        x => f64::from(x),
                    };
                    let key = |i: usize| match rank(at(i)) {
                        k if best.largest => k,
                        k => -k,
                    };
                    let most = (0..width).map(key).fold(f64::MIN, f64::max);
                    let mut found = (0..width).filter(|&i| key(i) == most);
                    let found = if best.last {
                        found.next_back()
                    } else {
                        found.next()
                    };
                    found.unwrap() as i64
                })
                .collect();
            for ctx in contexts() {
                let mut y = vec![-1; want.len()];
                places_of_best(&ctx, best, &x, [width, inner], &mut y);
                assert_eq!(y, want, "{best:?} {outer} {width} {inner}");
            }
        }
    }
}

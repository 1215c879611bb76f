//! Resampling along axes: every element of the result is a weighted sum of elements of its line.

use crate::arena::with_scratch;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;
use crate::{Ctx, activation::GRAIN};

/// For each element of the resampled axis, which elements of the input it adds, times what.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    /// Where the taps of each element end.
    ends: Vec<usize>,
    taps: Vec<(usize, f32)>,
}

impl Taps {
    /// Adds an element.
    pub fn push(&mut self, taps: impl IntoIterator<Item = (usize, f32)>) {
        self.taps.extend(taps);
        self.ends.push(self.taps.len());
    }

    /// Elements of the resampled axis.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn of(&self, i: usize) -> &[(usize, f32)] {
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.taps[start..self.ends[i]]
    }
}

/// Resamples `x`, row-major with lengths `dims`, along each of `axes` in turn.
///
/// # Panics
/// When `axes` is empty, an axis or a tap lies outside, or `y` has another size.
pub fn resample(ctx: &Ctx, x: &[f32], dims: &[usize], axes: &[(usize, Taps)], y: &mut [f32]) {
    let ((axis, taps), rest) = axes.split_first().expect("an axis to resample");
    let mut now = dims.to_vec();
    now[*axis] = taps.len();
    let size = [
        dims[..*axis].iter().product(),
        dims[*axis],
        dims[*axis + 1..].iter().product(),
    ];
    if rest.is_empty() {
        return along(ctx, x, size, taps, y);
    }
    with_scratch(now.iter().product(), |between: &mut [f32]| {
        along(ctx, x, size, taps, between);
        resample(ctx, between, &now, rest, y);
    });
}

fn along(ctx: &Ctx, x: &[f32], [outer, len, inner]: [usize; 3], taps: &Taps, y: &mut [f32]) {
    assert_eq!(
        (x.len(), y.len()),
        (outer * len * inner, outer * taps.len() * inner),
        "slices hold their shapes"
    );
    assert!(taps.taps.iter().all(|t| t.0 < len), "taps lie on the axis");
    if y.is_empty() {
        return;
    }
    let shared = Shared::new(y);
    let grain = (GRAIN / inner).max(1);
    ctx.threads()
        .parallel_ranges(outer * taps.len(), grain, |range| {
            // SAFETY: every row belongs to one task.
            let y = unsafe { shared.slice(range.start * inner..range.end * inner) };
            let rows = Rows {
                x,
                size: [len, inner],
                taps,
                first: range.start,
                y,
            };
            dispatch(ctx.isa(), rows);
        });
}

/// Rows of the result from `first` on, as many as fit `y`.
struct Rows<'a> {
    x: &'a [f32],
    /// Length of the axis, and elements of an index of it.
    size: [usize; 2],
    taps: &'a Taps,
    first: usize,
    y: &'a mut [f32],
}

impl Body for Rows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [len, inner] = self.size;
        for (i, y) in self.y.chunks_exact_mut(inner).enumerate() {
            let row = self.first + i;
            let (block, taps) = (
                row / self.taps.len() * len,
                self.taps.of(row % self.taps.len()),
            );
            let mut at = 0;
            while at < inner {
                let left = (inner - at).min(S::LANES);
                let mut sum = s.splat(0.0);
                for &(tap, weight) in taps {
                    let from = &self.x[(block + tap) * inner + at..][..left];
                    // SAFETY: the slice has that many elements.
                    let x = unsafe { s.load_up_to(from.as_ptr(), left) };
                    sum = s.fma(x, s.splat(weight), sum);
                }
                let to = y[at..][..left].as_mut_ptr();
                // SAFETY: as above.
                unsafe { s.store_up_to(to, sum, left) };
                at += left;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    #[test]
    fn each_element_is_the_sum_of_its_taps_on_both_axes() {
        let mut random = Random::new(71);
        for (outer, height, width, inner) in
            [(1, 1, 1, 1), (2, 3, 5, 7), (1, 9, 4, 33), (0, 2, 2, 3)]
        {
            let table = |random: &mut Random, len: usize| {
                let mut taps = Taps::default();
                for _ in 0..4 {
                    let count = 1 + random.below(3);
                    taps.push((0..count).map(|_| (random.below(len), random.float())));
                }
                taps
            };
            let (down, across) = (table(&mut random, height), table(&mut random, width));
            let x = random.floats(outer * height * width * inner);
            let mut want = Vec::new();
            for o in 0..outer * 16 * inner {
                let (c, ox, oy, n) = (
                    o % inner,
                    o / inner % 4,
                    o / (4 * inner) % 4,
                    o / (16 * inner),
                );
                let mut sum = 0.0;
                for &(iy, v) in down.of(oy) {
                    for &(ix, w) in across.of(ox) {
                        sum += v * w * x[((n * height + iy) * width + ix) * inner + c];
                    }
                }
                want.push(sum);
            }
            let axes = [(1, down), (2, across)];
            for ctx in contexts() {
                let mut y = vec![f32::NAN; want.len()];
                resample(&ctx, &x, &[outer, height, width, inner], &axes, &mut y);
                close(&y, &want, 1e-5, &format!("{:?}", ctx.isa()));
            }
        }
    }
}

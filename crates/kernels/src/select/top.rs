//! The largest or smallest elements of lines, in order, and where they are.

use crate::Ctx;
use crate::arena::with_scratch;
use crate::threads::Shared;

/// Elements that are worth a task of their own.
const GRAIN: usize = 4 * 1024;

/// Which elements of lines are taken.
#[derive(Clone, Copy, Debug)]
pub struct Top {
    /// How many.
    pub k: usize,
    /// The largest; else the smallest. NaN is larger than all numbers. Of equal ones the first come first.
    pub largest: bool,
}

impl Top {
    /// A number of which the smallest are those that are taken: the order of `x` above its place.
    #[inline(always)]
    fn key(self, x: f32, place: usize) -> u64 {
        // Both zeros are equal, and all NaN.
        let bits = (x + 0.0).to_bits();
        let sign = (bits as i32 >> 31) as u32;
        let order = match x.is_nan() {
            true => u32::MAX,
            false => bits ^ (sign | 1 << 31),
        };
        let order = if self.largest { !order } else { order };
        u64::from(order) << 32 | place as u64
    }

    /// Puts the keys of the elements that are taken in order at the front of `keys`.
    fn sort(self, keys: &mut [u64]) {
        if self.k < keys.len() {
            keys.select_nth_unstable(self.k);
        }
        keys[..self.k].sort_unstable();
    }
}

/// The elements that `top` takes of each line of `width` elements of `x` that lie `inner` apart, and their places:
/// lines of `top.k` in the same layout.
///
/// # Panics
/// When lines have fewer elements than are taken, or 2^32 or more.
pub fn top(
    ctx: &Ctx,
    top: Top,
    x: &[f32],
    [width, inner]: [usize; 2],
    (values, places): (&mut [f32], &mut [i64]),
) {
    assert_eq!(values.len(), places.len(), "as many values as places");
    assert!(
        top.k <= width && u32::try_from(width).is_ok(),
        "lines have what is taken"
    );
    if values.is_empty() {
        return;
    }
    let lines = values.len() / top.k;
    assert_eq!(x.len(), lines * width, "there is a line for each output");
    let (values, places) = (Shared::new(values), Shared::new(places));
    let grain = (GRAIN / width).max(1);
    ctx.threads().parallel_ranges(lines, grain, |range| {
        with_scratch(width, |keys: &mut [u64]| {
            for line in range {
                let (outer, column) = (line / inner, line % inner);
                let x = &x[outer * width * inner + column..];
                for (place, key) in keys.iter_mut().enumerate() {
                    *key = top.key(x[place * inner], place);
                }
                top.sort(keys);
                for (i, key) in keys[..top.k].iter().enumerate() {
                    let place = *key as u32 as usize;
                    let to = (outer * top.k + i) * inner + column;
                    // SAFETY: every line belongs to one task.
                    unsafe {
                        values.pointer(to).write(x[place * inner]);
                        places.pointer(to).write(place as i64);
                    }
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, contexts};

    #[test]
    fn elements_are_those_that_a_stable_sort_puts_first() {
        let mut random = Random::new(73);
        for round in 0..80 {
            let (outer, width) = (random.below(4), 1 + random.below(40));
            let inner = random.pick(&[1, 1, 2, 5]);
            let k = random.pick(&[0, 1, width / 2, width]).min(width);
            let largest = round % 2 == 0;
            let rare = [0.0, -0.0, 1.0, -1.0, f32::NAN, -f32::NAN, f32::INFINITY];
            let mut x = random.floats(outer * width * inner);
            x.iter_mut().for_each(|x| {
                if random.below(2) == 0 {
                    *x = random.pick(&rare);
                }
            });
            let mut want = vec![-1; outer * k * inner];
            for line in 0..outer * inner {
                let at = |i: usize| x[(line / inner * width + i) * inner + line % inner];
                let rank = |i: usize| match at(i) {
                    x if x.is_nan() => f64::MAX,
                    x => f64::from(x).min(f64::MAX / 2.0),
                };
                let mut order: Vec<usize> = (0..width).collect();
                order.sort_by(|&a, &b| match largest {
                    true => rank(b).partial_cmp(&rank(a)).unwrap(),
                    false => rank(a).partial_cmp(&rank(b)).unwrap(),
                });
                for (i, place) in order[..k].iter().enumerate() {
                    want[(line / inner * k + i) * inner + line % inner] = *place as i64;
                }
            }
            for ctx in contexts() {
                let (mut values, mut places) = (vec![9.0; want.len()], vec![-1; want.len()]);
                let of = Top { k, largest };
                top(&ctx, of, &x, [width, inner], (&mut values, &mut places));
                assert_eq!(places, want, "{of:?} {outer} {width} {inner}");
                for (i, value) in values.iter().enumerate() {
                    let (outer, column) = (i / (k * inner), i % inner);
                    let from = x[(outer * width + places[i] as usize) * inner + column];
                    assert_eq!(value.to_bits(), from.to_bits());
                }
            }
        }
    }
}

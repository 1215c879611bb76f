//! Sums that several threads add up, in parts of which the number does not depend on the threads.

use std::ops::Range;

use crate::Ctx;
use crate::arena::with_scratch;
use crate::simd::{Body, Simd, dispatch};

/// The most parts of a sum.
const MOST: usize = 16;

/// Numbers that the sums of all parts are together at most, where there is more than one.
const ROOM: usize = 1 << 20;

/// The parts of sums of `width` numbers over `rows` rows, of which `grain` are worth a part.
pub(crate) fn count(rows: usize, grain: usize, width: usize) -> usize {
    let most = MOST.min(ROOM / width.max(1)).max(1);
    (rows / grain.max(1)).clamp(1, most)
}

/// The rows of part `i` of `count`.
pub(crate) fn rows_of(i: usize, count: usize, rows: usize) -> Range<usize> {
    rows * i / count..rows * (i + 1) / count
}

/// Makes `sums` the sums over `rows` rows, of which `grain` are worth a part: `part` adds those of
/// some rows to numbers that are 0 at first. The parts are added in their order.
pub(crate) fn sum_in_parts(
    ctx: &Ctx,
    rows: usize,
    grain: usize,
    sums: &mut [f32],
    part: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let (width, count) = (sums.len(), count(rows, grain, sums.len()));
    if count == 1 {
        sums.fill(0.0);
        part(0..rows, sums);
        return;
    }
    with_scratch(count * width, |all: &mut [f32]| {
        ctx.threads().parallel_chunks(all, width, |i, own| {
            own.fill(0.0);
            part(rows_of(i, count, rows), own);
        });
        let (first, others) = all.split_at(width);
        sums.copy_from_slice(first);
        for other in others.chunks_exact(width.max(1)) {
            add_to(ctx, sums, other);
        }
    });
}

/// `sums += x`, element by element.
pub(crate) fn add_to(ctx: &Ctx, sums: &mut [f32], x: &[f32]) {
    assert_eq!(sums.len(), x.len(), "equal length");
    dispatch(ctx.isa(), Add { sums, x });
}

struct Add<'a> {
    sums: &'a mut [f32],
    x: &'a [f32],
}

impl Body for Add<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut at = 0;
        while at < self.x.len() {
            let n = (self.x.len() - at).min(S::LANES);
            // SAFETY: both slices have `n` elements from `at` on.
            unsafe {
                let to = self.sums.as_mut_ptr().add(at);
                let sum = s.add(
                    s.load_up_to(to, n),
                    s.load_up_to(self.x.as_ptr().add(at), n),
                );
                s.store_up_to(to, sum, n);
            }
            at += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::contexts;

    #[test]
    fn parts_cover_all_rows_once_in_order() {
        for ctx in contexts() {
            for rows in [0, 1, 7, 8, 100] {
                let mut sums = [9.0; 19];
                sum_in_parts(&ctx, rows, 3, &mut sums, |range, sums| {
                    for row in range {
                        sums.iter_mut().for_each(|s| *s += row as f32);
                    }
                });
                let want = (rows * rows.saturating_sub(1) / 2) as f32;
                assert_eq!(sums, [want; 19]);
            }
        }
    }

    #[test]
    fn wide_sums_have_one_part() {
        assert_eq!(count(1000, 1, ROOM), 1);
        assert_eq!(count(1000, 1, 10), MOST);
        assert_eq!(count(0, 1, 10), 1);
    }
}

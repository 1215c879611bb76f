//! Picking elements: rows by index, and one of two operands by a condition.

mod best;
mod top;

pub use best::{Best, places_of_best};
pub use top::{Top, top};

use std::ops::Range;

use smallvec::SmallVec;

use crate::Ctx;
use crate::parts::add_to;
use crate::threads::Shared;

/// Bytes that are worth a task of their own.
const GRAIN: usize = 64 * 1024;

/// For each of `outer` parts of `x` (each of `len` blocks of `block` bytes), the blocks at
/// `places`, in order.
///
/// # Panics
/// When a place is `len` or more.
pub fn take(ctx: &Ctx, x: &[u8], [len, block]: [usize; 2], places: &[usize], y: &mut [u8]) {
    if y.is_empty() {
        return;
    }
    let outer = x.len() / (len * block);
    assert_eq!(y.len(), outer * places.len() * block, "output size");
    let shared = Shared::new(y);
    let grain = (GRAIN / block).max(1);
    ctx.threads()
        .parallel_ranges(outer * places.len(), grain, |range: Range<usize>| {
            // SAFETY: every block belongs to one task.
            let y = unsafe { shared.slice(range.start * block..range.end * block) };
            match block {
                // Blocks of elements: their copies are no calls.
                1 => take_part(x, [len, 1], places, range.start, y),
                2 => take_part(x, [len, 2], places, range.start, y),
                4 => take_part(x, [len, 4], places, range.start, y),
                8 => take_part(x, [len, 8], places, range.start, y),
                _ => take_part(x, [len, block], places, range.start, y),
            }
        });
}

/// The blocks of [`take`] from block `first` of the result on, as many as fit `y`.
#[inline(always)]
fn take_part(x: &[u8], [len, block]: [usize; 2], places: &[usize], first: usize, y: &mut [u8]) {
    let (mut part, mut at) = (first / places.len() * len, first % places.len());
    for y in y.chunks_exact_mut(block) {
        let place = places[at];
        assert!(place < len, "places lie on the axis");
        y.copy_from_slice(&x[(part + place) * block..][..block]);
        at += 1;
        if at == places.len() {
            (at, part) = (0, part + len);
        }
    }
}

/// The gradient of [`take`] of floats: makes `dx` zeros, to which each block of `dy` is added at its
/// place, in order.
///
/// # Panics
/// When a place is `len` or more.
pub fn add_at(ctx: &Ctx, dy: &[f32], [len, block]: [usize; 2], places: &[usize], dx: &mut [f32]) {
    /// Elements of a block that are worth a task of their own: whole lines of a cache.
    const SHARE: usize = 64;
    if dx.is_empty() {
        return;
    }
    let outer = dx.len() / (len * block);
    assert_eq!(dy.len(), outer * places.len() * block, "gradient size");
    assert!(places.iter().all(|p| *p < len), "places lie on the axis");
    // Blocks at one place are added one after another: tasks share the elements of a block.
    let shares = block.div_ceil(SHARE).clamp(1, ctx.threads().count());
    let shared = Shared::new(dx);
    ctx.threads().parallel_for(outer * shares, |task| {
        let (part, share) = (task / shares, task % shares);
        let columns = block * share / shares..block * (share + 1) / shares;
        let of = |place: usize| {
            let at = (part * len + place) * block;
            // SAFETY: these elements of a block belong to one task, which holds one at a time.
            unsafe { shared.slice(at + columns.start..at + columns.end) }
        };
        (0..len).for_each(|place| of(place).fill(0.0));
        let blocks = dy[part * places.len() * block..].chunks_exact(block);
        for (dy, &place) in blocks.zip(places) {
            add_to(ctx, of(place), &dy[columns.clone()]);
        }
    });
}

/// An operand and the step of each axis of the result, in elements; 0 repeats.
#[derive(Clone, Copy, Debug)]
pub struct Stretched<'a> {
    /// The elements as bytes.
    pub data: &'a [u8],
    /// A step for each axis.
    pub steps: &'a [usize],
}

impl Stretched<'_> {
    fn fits(&self, dims: &[usize], size: usize) -> bool {
        let last = dims.iter().zip(self.steps).map(|(d, s)| (d - 1) * s);
        self.steps.len() == dims.len() && (last.sum::<usize>() + 1) * size <= self.data.len()
    }

    fn start(&self, index: &[usize]) -> usize {
        index.iter().zip(self.steps).map(|(i, s)| i * s).sum()
    }
}

/// Elements of `size` bytes of `a` where `condition` (a byte each) is not 0, else of `b`.
pub fn select(
    ctx: &Ctx,
    size: usize,
    dims: &[usize],
    condition: Stretched,
    [a, b]: [Stretched; 2],
    y: &mut [u8],
) {
    let count: usize = dims.iter().product();
    assert_eq!(y.len(), count * size, "output size");
    if count == 0 {
        return;
    }
    let fits = condition.fits(dims, 1) && a.fits(dims, size) && b.fits(dims, size);
    assert!(fits, "operands stretch to the result");
    let width = dims.last().copied().unwrap_or(1);
    let last = |s: &Stretched| s.steps.last().copied().unwrap_or(0);
    let steps = [last(&condition), last(&a), last(&b)];
    let shared = Shared::new(y);
    let grain = (GRAIN / (width * size)).max(1);
    ctx.threads()
        .parallel_ranges(count / width, grain, |range: Range<usize>| {
            let outer = &dims[..dims.len().saturating_sub(1)];
            let mut index: SmallVec<[usize; 6]> = outer.iter().map(|_| 0).collect();
            let mut rest = range.start;
            for (i, d) in index.iter_mut().zip(outer).rev() {
                (*i, rest) = (rest % d, rest / d);
            }
            for row in range {
                let starts = [condition.start(&index), a.start(&index), b.start(&index)];
                // SAFETY: every row belongs to one task.
                let y = unsafe { shared.slice(row * width * size..(row + 1) * width * size) };
                for (i, y) in y.chunks_exact_mut(size).enumerate() {
                    let from = if condition.data[starts[0] + i * steps[0]] != 0 {
                        &a.data[(starts[1] + i * steps[1]) * size..][..size]
                    } else {
                        &b.data[(starts[2] + i * steps[2]) * size..][..size]
                    };
                    y.copy_from_slice(from);
                }
                for (i, d) in index.iter_mut().zip(outer).rev() {
                    *i += 1;
                    if *i < *d {
                        break;
                    }
                    *i = 0;
                }
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::contexts;

    #[test]
    fn blocks_are_taken_from_every_part() {
        for ctx in contexts() {
            let mut y = [0; 8];
            take(
                &ctx,
                &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
                [3, 2],
                &[2, 0],
                &mut y,
            );
            assert_eq!(y, [4, 5, 0, 1, 10, 11, 6, 7]);
        }
    }

    #[test]
    fn blocks_are_added_at_their_places_in_every_part() {
        for ctx in contexts() {
            let mut dx = [9.0; 12];
            let dy = [
                1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0,
            ];
            add_at(&ctx, &dy, [3, 2], &[2, 0, 2], &mut dx);
            let want = [
                3.0, 4.0, 0.0, 0.0, 6.0, 8.0, 30.0, 40.0, 0.0, 0.0, 60.0, 80.0,
            ];
            assert_eq!(dx, want);
            let (wide, mut dx) = (vec![1.5; 3 * 200], vec![9.0; 2 * 200]);
            add_at(&ctx, &wide, [2, 200], &[1, 1, 1], &mut dx);
            assert!(dx[..200].iter().all(|x| *x == 0.0));
            assert!(dx[200..].iter().all(|x| *x == 4.5));
            add_at(&ctx, &[], [2, 200], &[], &mut dx);
            assert!(dx.iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn operands_repeat_along_axes_without_a_step() {
        for ctx in contexts() {
            let mut y = [0; 6];
            let of = |data, steps| Stretched { data, steps };
            let condition = of(&[1, 0, 1], &[0, 1]);
            let operands = [of(&[1, 2], &[1, 0]), of(&[9], &[0, 0])];
            select(&ctx, 1, &[2, 3], condition, operands, &mut y);
            assert_eq!(y, [1, 9, 1, 2, 9, 2]);
        }
    }
}

//! Copies that change the order of elements: permutations of axes, strided parts.

use std::ops::Range;

use smallvec::SmallVec;

use crate::Ctx;
use crate::activation::GRAIN;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

type Dims = SmallVec<[usize; 6]>;

/// Permutes the axes of a tensor of `size`-byte elements (1, 2, 4 or 8): axis `i` of the output
/// is axis `order[i]` of the input, whose shape is `dims`.
pub fn permute(ctx: &Ctx, size: usize, dims: &[usize], order: &[usize], x: &[u8], y: &mut [u8]) {
    assert_eq!(dims.len(), order.len(), "the order names every axis");
    let mut strides: Dims = dims.iter().map(|_| 1).collect();
    for i in (0..dims.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * dims[i + 1];
    }
    let shape: Dims = order.iter().map(|i| dims[*i]).collect();
    let strides: SmallVec<[isize; 6]> = order.iter().map(|i| strides[*i] as isize).collect();
    gather_strided(ctx, size, &shape, x, 0, &strides, y);
}

/// Copies a strided view of `size`-byte elements (1, 2, 4 or 8) to a dense tensor of `shape`:
/// element `(i, j, ...)` is `x[start + i * strides[0] + j * strides[1] + ...]`. A stride of 0
/// repeats, a negative one reverses.
pub fn gather_strided(
    ctx: &Ctx,
    size: usize,
    shape: &[usize],
    x: &[u8],
    start: usize,
    strides: &[isize],
    y: &mut [u8],
) {
    assert_eq!(shape.len(), strides.len(), "a stride for each axis");
    assert_eq!(
        y.len(),
        shape.iter().product::<usize>() * size,
        "output size"
    );
    if y.is_empty() {
        return;
    }
    let view = View::new(shape, strides, start);
    assert!(view.fits(x.len() / size), "the view lies in the input");
    match size {
        1 => view.copy::<1>(ctx, x, y),
        2 => view.copy::<2>(ctx, x, y),
        4 => view.copy::<4>(ctx, x, y),
        8 => view.copy::<8>(ctx, x, y),
        _ => panic!("elements have 1, 2, 4 or 8 bytes"),
    }
}

/// A view with neighbouring axes joined where they can be; it has at least one axis.
struct View {
    start: usize,
    axes: SmallVec<[(usize, isize); 6]>,
}

impl View {
    fn new(shape: &[usize], strides: &[isize], start: usize) -> Self {
        let mut axes: SmallVec<[(usize, isize); 6]> = SmallVec::new();
        for (n, stride) in shape.iter().copied().zip(strides.iter().copied()) {
            match axes.last_mut() {
                _ if n == 1 => {}
                Some((m, outer)) if *outer == stride * n as isize => {
                    (*m, *outer) = (*m * n, stride)
                }
                _ => axes.push((n, stride)),
            }
        }
        if axes.is_empty() {
            axes.push((1, 1));
        }
        Self { start, axes }
    }

    fn fits(&self, len: usize) -> bool {
        let (mut low, mut high) = (self.start as isize, self.start as isize);
        for (n, stride) in &self.axes {
            let reach = (*n as isize - 1) * stride;
            if reach < 0 {
                low += reach
            } else {
                high += reach
            }
        }
        low >= 0 && high < len as isize
    }

    /// Where row `i` of the axes before the last `inner` starts in the input.
    fn offset(&self, mut i: usize, inner: usize) -> isize {
        let mut at = self.start as isize;
        for (n, stride) in self.axes[..self.axes.len() - inner].iter().rev() {
            at += (i % n) as isize * stride;
            i /= n;
        }
        at
    }

    fn copy<const N: usize>(&self, ctx: &Ctx, x: &[u8], y: &mut [u8]) {
        let (x, y) = (x.as_chunks::<N>().0, y.as_chunks_mut::<N>().0);
        let last = self.axes[self.axes.len() - 1];
        let shared = Shared::new(y);
        // The axis that is dense in the input, if it is not the last: its block and the last
        // axis make a matrix that is transposed in squares.
        let dense = self
            .axes
            .iter()
            .position(|(n, stride)| *stride == 1 && *n > 1);
        match dense {
            Some(axis) if axis + 2 == self.axes.len() && matches!(last.0, 2..=4) => {
                let rows = self.axes[axis].0;
                let lines = Lines {
                    view: self,
                    x,
                    rows,
                };
                match last.0 {
                    2 => lines.interleave::<2>(ctx, shared),
                    3 => lines.interleave::<3>(ctx, shared),
                    _ => lines.interleave::<4>(ctx, shared),
                }
            }
            Some(axis) if axis + 2 == self.axes.len() => {
                let (rows, _) = self.axes[axis];
                let matrices = shared.len() / (rows * last.0);
                let bands = rows.div_ceil(SQUARE);
                ctx.threads().parallel_ranges(matrices * bands, 4, |range| {
                    for task in range {
                        let (matrix, band) = (task / bands, task % bands);
                        let rows_of = band * SQUARE..rows.min((band + 1) * SQUARE);
                        let to = matrix * rows * last.0 + rows_of.start * last.0;
                        // SAFETY: every band of rows belongs to one task.
                        let y = unsafe { shared.slice(to..to + rows_of.len() * last.0) };
                        transpose(x, self.offset(matrix, 2), last, rows_of, y);
                    }
                });
            }
            _ => {
                let rows = shared.len() / last.0;
                ctx.threads()
                    .parallel_ranges(rows, (16 * 1024 / last.0).max(1), |range| {
                        for row in range {
                            // SAFETY: every row belongs to one task.
                            let y = unsafe { shared.slice(row * last.0..(row + 1) * last.0) };
                            copy_row(x, self.offset(row, 1), last.1, y);
                        }
                    });
            }
        }
    }
}

/// Views that take one element of each of a few lines in turn, such as the colours of an image.
struct Lines<'a, const N: usize> {
    view: &'a View,
    x: &'a [[u8; N]],
    /// Elements of a line.
    rows: usize,
}

impl<const N: usize> Lines<'_, N> {
    fn interleave<const C: usize>(&self, ctx: &Ctx, y: Shared<[u8; N]>) {
        let (rows, stride) = (self.rows, self.view.axes[self.view.axes.len() - 1].1);
        let bands = rows.div_ceil(BAND);
        let grain = (GRAIN / (C * BAND)).max(1);
        let tasks = y.len() / (C * rows) * bands;
        ctx.threads().parallel_ranges(tasks, grain, |range| {
            for task in range {
                let (block, first) = (task / bands, task % bands * BAND);
                let count = BAND.min(rows - first);
                let from = self.view.offset(block, 2);
                let x = std::array::from_fn(|c| {
                    let at = (from + c as isize * stride) as usize + first;
                    &self.x[at..at + count]
                });
                let to = C * (block * rows + first);
                // SAFETY: every band belongs to one task.
                let y = unsafe { y.slice(to..to + C * count) };
                dispatch(ctx.isa(), Interleave::<N, C> { x, y });
            }
        });
    }
}

/// Elements of a line that are interleaved at a time.
const BAND: usize = 1024;

struct Interleave<'a, const N: usize, const C: usize> {
    /// Lines of one length.
    x: [&'a [[u8; N]]; C],
    y: &'a mut [[u8; N]],
}

impl<const N: usize, const C: usize> Body for Interleave<'_, N, C> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let y = self.y.as_chunks_mut::<C>().0;
        let x = self.x.map(|line| &line[..y.len()]);
        for (i, y) in y.iter_mut().enumerate() {
            for c in 0..C {
                y[c] = x[c][i];
            }
        }
    }
}

/// Sides of the squares in which a matrix is transposed.
const SQUARE: usize = 16;

/// Rows of a matrix that is dense along its rows in the input, from `from` on.
fn transpose<const N: usize>(
    x: &[[u8; N]],
    from: isize,
    (columns, stride): (usize, isize),
    rows: Range<usize>,
    y: &mut [[u8; N]],
) {
    let count = rows.len();
    let column = |i: usize| {
        let at = (from + i as isize * stride) as usize + rows.start;
        &x[at..at + count]
    };
    for first in (0..columns).step_by(SQUARE) {
        if count == SQUARE && first + SQUARE <= columns {
            // Where lines of `y` fall on the same few places of a cache, each is written at once.
            let mut square = [[[0; N]; SQUARE]; SQUARE];
            for i in 0..SQUARE {
                let x = &column(first + i)[..SQUARE];
                for (row, x) in square.iter_mut().zip(x) {
                    row[i] = *x;
                }
            }
            for (row, y) in square.iter().zip(y.chunks_exact_mut(columns)) {
                y[first..first + SQUARE].copy_from_slice(row);
            }
            continue;
        }
        for i in first..columns.min(first + SQUARE) {
            let x = column(i).iter().enumerate();
            x.for_each(|(row, x)| y[row * columns + i] = *x);
        }
    }
}

fn copy_row<const N: usize>(x: &[[u8; N]], from: isize, stride: isize, y: &mut [[u8; N]]) {
    match stride {
        0 => y.fill(x[from as usize]),
        1 => y.copy_from_slice(&x[from as usize..][..y.len()]),
        _ => {
            for (i, y) in y.iter_mut().enumerate() {
                *y = x[(from + i as isize * stride) as usize];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, contexts};

    #[test]
    fn permutations_put_every_element_in_its_place() {
        let mut random = Random::new(29);
        for round in 0..200 {
            let rank = random.below(5);
            let sizes = [1, 2, 3, 5, 16, 17, 33];
            let dims: Vec<usize> = (0..rank).map(|_| random.pick(&sizes[..7 - rank])).collect();
            let mut order: Vec<usize> = (0..rank).collect();
            (0..rank).for_each(|i| order.swap(i, random.below(rank)));
            let size = [1, 2, 4, 8][round % 4];
            let count: usize = dims.iter().product();
            let x = random.bytes(count * size);
            let shape: Vec<usize> = order.iter().map(|i| dims[*i]).collect();
            let mut want = vec![];
            for mut i in 0..count {
                let mut place = vec![0; rank];
                for axis in (0..rank).rev() {
                    place[order[axis]] = i % shape[axis];
                    i /= shape[axis];
                }
                let at = place.iter().zip(&dims).fold(0, |at, (p, d)| at * d + p);
                want.extend_from_slice(&x[at * size..][..size]);
            }
            for ctx in contexts() {
                let mut y = vec![0; count * size];
                permute(&ctx, size, &dims, &order, &x, &mut y);
                assert_eq!(y, want, "{dims:?} {order:?}");
            }
        }
    }

    #[test]
    fn views_repeat_and_reverse() {
        let (x, mut y) = ([1, 2, 3, 4, 5, 6], [0; 8]);
        let ctx = Ctx::serial();
        gather_strided(&ctx, 1, &[2, 2, 2], &x, 5, &[-2, 0, -1], &mut y);
        assert_eq!(y, [6, 5, 6, 5, 4, 3, 4, 3]);
        gather_strided(&ctx, 1, &[0, 4], &x, 0, &[9, 9], &mut []);
    }
}

//! How products of codes are cut into tiles, and what becomes of their sums.

use std::ops::Range;

use super::pack::PackedBits;
use crate::activation::Activation;
use crate::gemm::f32::{Put, Store};
use crate::simd::Simd;

/// What computes a tile.
pub(super) trait Shape<S: Simd> {
    /// The sums of `M` rows with `V` vectors of columns, two for each panel from `panel` on.
    ///
    /// # Safety
    /// The rows and panels are there.
    unsafe fn tile<const M: usize, const V: usize>(
        &self,
        s: S,
        rows: [usize; M],
        panel: usize,
    ) -> [[S::F; V]; M];
}

/// Where the sums of a part of a product go.
pub(super) struct Ends<'a> {
    pub b: &'a PackedBits,
    /// Rows of the part; the first is at the start of `store`.
    pub rows: usize,
    pub store: Store,
    pub c_stride: usize,
    pub then: Option<Activation>,
}

impl Ends<'_> {
    /// Stores the sums of the first `rows` of the rows from `row` on.
    ///
    /// # Safety
    /// These elements of C are there.
    #[inline(always)]
    unsafe fn put<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        sums: &[[S::F; V]; M],
        (row, rows, panel): (usize, usize, usize),
    ) {
        for half in 0..V / 2 {
            let (first, columns, vectors) = self.b.panels.panel(panel + half);
            for i in 0..rows {
                let at = (row + i) * self.c_stride + first;
                let [x, y] = [sums[i][2 * half], sums[i][2 * half + 1]];
                // SAFETY: the caller's promise.
                unsafe {
                    if vectors == 2 {
                        let last = columns - S::LANES;
                        self.store.put(s, [[x, y]], at, 0, first, last);
                    } else {
                        self.store.put(s, [[x]], at, 0, first, columns);
                    }
                }
            }
        }
    }
}

/// Computes and stores every tile of `panels`. Each element is the same sum in any tile.
#[inline(always)]
pub(super) fn each_tile<S: Simd>(s: S, to: &Ends, panels: Range<usize>, shape: &impl Shape<S>) {
    let mut panel = panels.start;
    while panel < panels.end {
        let mut row = 0;
        let two = to.rows == 1 && panel + 2 <= panels.end;
        while row < to.rows {
            let left = to.rows - row;
            let rows = match left {
                1 | 2 => left,
                _ if S::ROWS >= 8 && left > 4 => left.min(8),
                _ => left.min(4),
            };
            let place = (row, rows, panel);
            // SAFETY: the rows and panels are those of the part.
            unsafe {
                match rows {
                    1 if two => one::<S, 1, 4>(s, to, shape, place),
                    1 => one::<S, 1, 2>(s, to, shape, place),
                    2 => one::<S, 2, 2>(s, to, shape, place),
                    3 | 4 => one::<S, 4, 2>(s, to, shape, place),
                    _ if S::ROWS >= 8 => one::<S, 8, 2>(s, to, shape, place),
                    _ => {}
                }
            }
            row += rows;
        }
        panel += 1 + usize::from(two);
    }
    let Some(activation) = to.then else {
        return;
    };
    if panels.is_empty() {
        return;
    }
    let (first, _, _) = to.b.panels.panel(panels.start);
    let (last, columns, _) = to.b.panels.panel(panels.end - 1);
    for row in 0..to.rows {
        // SAFETY: these are the elements that were stored.
        unsafe {
            let at = row * to.c_stride + first;
            to.store.finish(s, activation, at, last + columns - first);
        }
    }
}

/// A tile of `M` rows, of which the last stands for those that are not there.
///
/// # Safety
/// The rows and panels are those of the part.
#[inline(always)]
unsafe fn one<S: Simd, const M: usize, const V: usize>(
    s: S,
    to: &Ends,
    shape: &impl Shape<S>,
    place: (usize, usize, usize),
) {
    let (row, rows, panel) = place;
    let mut all = [row; M];
    for (i, all) in all.iter_mut().enumerate() {
        *all = row + i.min(rows - 1);
    }
    // SAFETY: the caller's promise.
    unsafe {
        let sums = shape.tile::<M, V>(s, all, panel);
        to.put(s, &sums, place);
    }
}

/// Where the numbers of each vector of columns begin, two vectors a panel from `panel` on, of
/// which each has `steps` steps.
#[inline(always)]
pub(super) fn columns<T, const V: usize>(
    data: &[T],
    panel: usize,
    steps: usize,
    lanes: usize,
) -> [*const T; V] {
    let mut all = [data.as_ptr(); V];
    for (v, to) in all.iter_mut().enumerate() {
        let at = (panel + v / 2) * steps * 2 * lanes + v % 2 * lanes;
        *to = data[at.min(data.len())..].as_ptr();
    }
    all
}

//! Sums of the columns of a matrix: of its elements, or of what is made of them.

use std::ops::Range;

use super::{Reduce, larger};
use crate::Ctx;
use crate::parts::sum_in_parts;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// Elements of a part of a sum.
const PART: usize = 16 * 1024;

/// What is added up: `N` numbers of each element.
pub(crate) trait Terms<const N: usize>: Copy + Sync {
    /// The terms of `n <= LANES` elements from `at` on, which stand in column `c` and on.
    ///
    /// # Safety
    /// The elements and the columns are there.
    unsafe fn terms<S: Simd>(self, s: S, at: usize, c: usize, n: usize) -> [S::F; N];
}

/// The elements themselves.
#[derive(Clone, Copy)]
struct Plain<'a>(&'a [f32]);

impl Terms<1> for Plain<'_> {
    #[inline(always)]
    unsafe fn terms<S: Simd>(self, s: S, at: usize, _: usize, n: usize) -> [S::F; 1] {
        // SAFETY: the caller's promise.
        [unsafe { s.load_up_to(self.0.as_ptr().add(at), n) }]
    }
}

/// `sums[c] = Σ x[row, c]` over all rows of `x`, which are as long as `sums`.
pub fn column_sums(ctx: &Ctx, x: &[f32], sums: &mut [f32]) {
    let rows = x.len() / sums.len().max(1);
    assert_eq!(rows * sums.len(), x.len(), "rows fill the input");
    sum_terms(ctx, rows, Plain(x), sums);
}

/// The sums of `N` terms of each column over `rows` rows, `[N, columns]`.
pub(crate) fn sum_terms<const N: usize>(
    ctx: &Ctx,
    rows: usize,
    terms: impl Terms<N>,
    sums: &mut [f32],
) {
    let columns = sums.len() / N;
    assert_eq!(columns * N, sums.len(), "a number for each term and column");
    let grain = (PART / columns.max(1)).max(1);
    sum_in_parts(ctx, rows, grain, sums, |rows, sums| {
        let part = Part {
            rows,
            columns,
            terms,
            sums,
        };
        dispatch(ctx.isa(), part);
    });
}

/// Adds the terms of some rows.
struct Part<'a, T, const N: usize> {
    rows: Range<usize>,
    columns: usize,
    terms: T,
    sums: &'a mut [f32],
}

/// Rows that are added up before they join the sums.
const TOGETHER: usize = 8;

impl<T: Terms<N>, const N: usize> Body for Part<'_, T, N> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut row = self.rows.start;
        while row < self.rows.end {
            let count = if row + TOGETHER <= self.rows.end {
                TOGETHER
            } else {
                1
            };
            let mut c = 0;
            while c < self.columns {
                let n = (self.columns - c).min(S::LANES);
                // SAFETY: the rows lie in the matrix, and the sums have `N` rows of `columns`.
                unsafe {
                    let mut total = if count == TOGETHER {
                        self.eight(s, row, c, n)
                    } else {
                        self.terms.terms(s, row * self.columns + c, c, n)
                    };
                    for (i, total) in total.iter_mut().enumerate() {
                        let to = self.sums.as_ptr().add(i * self.columns + c).cast_mut();
                        *total = s.add(s.load_up_to(to, n), *total);
                        s.store_up_to(to, *total, n);
                    }
                }
                c += n;
            }
            row += count;
        }
    }
}

impl<T: Terms<N>, const N: usize> Part<'_, T, N> {
    /// The sums of the terms of eight rows, added in pairs.
    ///
    /// # Safety
    /// The rows and columns are there.
    #[inline(always)]
    unsafe fn eight<S: Simd>(&self, s: S, row: usize, c: usize, n: usize) -> [S::F; N] {
        let mut all = [[s.splat(0.0); N]; TOGETHER];
        for (i, terms) in all.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *terms = unsafe { self.terms.terms(s, (row + i) * self.columns + c, c, n) };
        }
        let mut count = TOGETHER;
        while count > 1 {
            count /= 2;
            for i in 0..count {
                for j in 0..N {
                    all[i][j] = s.add(all[i][j], all[i + count][j]);
                }
            }
        }
        all[0]
    }
}

/// One number for each column of each matrix of `rows` rows of `columns`, of which `x` has one
/// after the other.
pub fn reduce_columns(
    ctx: &Ctx,
    how: Reduce,
    x: &[f32],
    [rows, columns]: [usize; 2],
    y: &mut [f32],
) {
    let matrices = y.len() / columns.max(1);
    assert_eq!(
        (matrices * columns, matrices * rows * columns),
        (y.len(), x.len()),
        "a row for each matrix"
    );
    if matrices == 1 && how != Reduce::Max {
        column_sums(ctx, x, y);
        divide(how, rows, y);
        return;
    }
    let shared = Shared::new(y);
    let grain = (PART / (rows * columns).max(1)).max(1);
    ctx.threads().parallel_ranges(matrices, grain, |range| {
        for i in range {
            let x = &x[i * rows * columns..][..rows * columns];
            // SAFETY: every matrix belongs to one task.
            let y = unsafe { shared.slice(i * columns..(i + 1) * columns) };
            if how == Reduce::Max {
                y.fill(f32::NEG_INFINITY);
                for row in x.chunks_exact(columns) {
                    y.iter_mut().zip(row).for_each(|(y, x)| *y = larger(*y, *x));
                }
                continue;
            }
            y.fill(0.0);
            let part = Part {
                rows: 0..rows,
                columns,
                terms: Plain(x),
                sums: &mut *y,
            };
            dispatch(ctx.isa(), part);
            divide(how, rows, y);
        }
    });
}

fn divide(how: Reduce, rows: usize, y: &mut [f32]) {
    if how == Reduce::Mean {
        y.iter_mut().for_each(|y| *y /= rows as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    #[test]
    fn columns_are_added_up_whatever_their_number() {
        let mut random = Random::new(31);
        for columns in [1, 2, 7, 8, 10, 16, 17, 33, 300] {
            for rows in [0, 1, 7, 8, 9, 1000, 5000] {
                let x = random.floats(rows * columns);
                let mut want = vec![0f64; columns];
                for (i, x) in x.iter().enumerate() {
                    want[i % columns] += f64::from(*x);
                }
                let want: Vec<f32> = want.into_iter().map(|x| x as f32).collect();
                let mut last: Option<(crate::Isa, Vec<f32>)> = None;
                for ctx in contexts() {
                    let mut y = vec![9.0; columns];
                    column_sums(&ctx, &x, &mut y);
                    close(&y, &want, 1e-4, &format!("{rows} x {columns}"));
                    match &last {
                        Some((isa, one)) if *isa == ctx.isa() => assert_eq!(&y, one, "threads"),
                        _ => last = Some((ctx.isa(), y)),
                    }
                }
            }
        }
    }

    #[test]
    fn each_matrix_is_reduced_by_itself() {
        let x = [1.0, f32::NAN, 3.0, 4.0, -5.0, 6.0, 7.0, f32::INFINITY];
        for ctx in contexts() {
            let mut y = [0.0; 4];
            reduce_columns(&ctx, Reduce::Sum, &x, [2, 2], &mut y);
            assert!(y[0] == 4.0 && y[1].is_nan() && y[2] == 2.0 && y[3] == f32::INFINITY);
            reduce_columns(&ctx, Reduce::Max, &x, [2, 2], &mut y);
            assert!(y[0] == 3.0 && y[1].is_nan() && y[2] == 7.0 && y[3] == f32::INFINITY);
            let mut y = [0.0; 2];
            reduce_columns(&ctx, Reduce::Mean, &[1.0, 2.0, 5.0, 8.0], [2, 2], &mut y);
            assert_eq!(y, [3.0, 5.0]);
            reduce_columns(&ctx, Reduce::Max, &[1.0, 2.0, 5.0, 8.0], [2, 2], &mut y);
            assert_eq!(y, [5.0, 8.0]);
        }
    }
}

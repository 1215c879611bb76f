//! Tiles of sums on their way to C: bias, residual, bounds.

use crate::activation::Activation;
use crate::simd::Simd;

/// What takes tiles of sums.
pub(crate) trait Put<S: Simd>: Copy {
    /// Stores a tile of sums at `at` in C, rows `stride` apart, which belongs to `column` and
    /// on; the last vector of a row has `last` elements.
    ///
    /// # Safety
    /// These elements of C, bias and residual are there.
    unsafe fn put<const M: usize, const V: usize>(
        &self,
        s: S,
        sums: [[S::F; V]; M],
        at: usize,
        stride: usize,
        column: usize,
        last: usize,
    );

    /// Applies `activation` to `n` elements at `at`, where `put` did not.
    ///
    /// # Safety
    /// As for `put`.
    unsafe fn finish(&self, s: S, activation: Activation, at: usize, n: usize);
}

/// Where sums go in C, and what is added and cut off before.
#[derive(Clone, Copy)]
pub(crate) struct Store {
    pub(crate) c: *mut f32,
    pub(crate) bias: Option<*const f32>,
    pub(crate) residual: Option<*const f32>,
    pub(crate) bounds: (f32, f32),
}

impl<S: Simd> Put<S> for Store {
    #[inline(always)]
    unsafe fn finish(&self, _: S, activation: Activation, at: usize, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { activation.map(S::ISA, self.c.add(at), self.c.add(at), n) };
    }

    #[inline(always)]
    unsafe fn put<const M: usize, const V: usize>(
        &self,
        s: S,
        sums: [[S::F; V]; M],
        at: usize,
        stride: usize,
        column: usize,
        last: usize,
    ) {
        let mut sums = sums;
        // SAFETY: the caller's promise, which covers the whole tile.
        unsafe {
            if let Some(bias) = self.bias {
                add_bias(s, &mut sums, bias.add(column), last);
            }
            if let Some(residual) = self.residual {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let mut row = [s.splat(0.0); V];
                    load_row(s, &mut row, residual.add(at + i * stride), last);
                    for v in 0..V {
                        sums[v] = s.add(sums[v], row[v]);
                    }
                }
            }
            let (lo, hi) = (s.splat(self.bounds.0), s.splat(self.bounds.1));
            for sums in &mut sums {
                for sum in sums {
                    *sum = s.clamp(*sum, lo, hi);
                }
            }
            for i in 0..M {
                store_row(s, &sums[i], self.c.add(at + i * stride), last);
            }
        }
    }
}

/// Adds the numbers of the columns at `bias`, of which the last vector has `last`.
///
/// # Safety
/// They are readable.
#[inline(always)]
pub(super) unsafe fn add_bias<S: Simd, const M: usize, const V: usize>(
    s: S,
    sums: &mut [[S::F; V]; M],
    bias: *const f32,
    last: usize,
) {
    let mut row = [s.splat(0.0); V];
    // SAFETY: the caller's promise.
    unsafe { load_row(s, &mut row, bias, last) };
    for sums in sums {
        for v in 0..V {
            sums[v] = s.add(sums[v], row[v]);
        }
    }
}

/// Loads vectors, the last of them with `last` elements.
///
/// # Safety
/// They are readable at `p`.
#[inline(always)]
pub(crate) unsafe fn load_row<S: Simd, const V: usize>(
    s: S,
    row: &mut [S::F; V],
    p: *const f32,
    last: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for (v, to) in row.iter_mut().enumerate().take(V - 1) {
            *to = s.load(p.add(v * S::LANES));
        }
        let p = p.add((V - 1) * S::LANES);
        row[V - 1] = if last == S::LANES {
            s.load(p)
        } else {
            s.load_n(p, last)
        };
    }
}

/// Stores vectors, the last of them with `last` elements.
///
/// # Safety
/// They are writable at `p`.
#[inline(always)]
pub(crate) unsafe fn store_row<S: Simd, const V: usize>(
    s: S,
    row: &[S::F; V],
    p: *mut f32,
    last: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for (v, row) in row.iter().enumerate().take(V - 1) {
            s.store(p.add(v * S::LANES), *row);
        }
        let p = p.add((V - 1) * S::LANES);
        if last == S::LANES {
            s.store(p, row[V - 1])
        } else {
            s.store_n(p, row[V - 1], last)
        }
    }
}

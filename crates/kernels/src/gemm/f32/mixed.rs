//! Tiles of sums on their way to floats of either kind, on a CPU that rounds to BF16.

use half::bf16;

use super::store::{Put, add_bias, load_row, store_row};
use crate::activation::Activation;
use crate::floats::Floats;
use crate::simd::Simd;
use crate::simd::avx512::{Avx512, load_bf16, store_bf16};

/// The most elements of a tile.
const TILE: usize = 8 * 4 * Avx512::LANES;

/// Where elements are written.
#[derive(Clone, Copy)]
pub(crate) enum Written {
    F32(*mut f32),
    Bf16(*mut bf16),
}

/// Where elements are read.
#[derive(Clone, Copy)]
pub(crate) enum Read {
    F32(*const f32),
    Bf16(*const bf16),
}

impl Read {
    /// Element `at` and on.
    pub(crate) fn of(x: Floats, at: usize) -> Self {
        match x {
            Floats::F32(x) => Self::F32(x[at..].as_ptr()),
            Floats::Bf16(x) => Self::Bf16(x[at..].as_ptr()),
        }
    }
}

/// Where sums go in C, and what is done to them before. Its user has BF16.
#[derive(Clone, Copy)]
pub(crate) struct AnyStore {
    pub(super) c: Written,
    pub(super) bias: Option<*const f32>,
    pub(super) residual: Option<Read>,
    pub(super) activation: Activation,
}

impl AnyStore {
    /// Whether a function is applied that is quicker on many elements at once.
    fn is_long(&self) -> bool {
        self.activation.bounds().is_none()
    }

    /// Does to `height` rows of `V` vectors what is done before they are stored, where that is
    /// long.
    ///
    /// # Safety
    /// As for `put`; the rows lie at `sums` one after another.
    #[allow(clippy::too_many_arguments, reason = "a tile and its place")]
    #[inline(always)]
    pub(super) unsafe fn prepare<const V: usize>(
        &self,
        s: Avx512,
        sums: *mut f32,
        height: usize,
        at: usize,
        stride: usize,
        column: usize,
        last: usize,
    ) {
        if !self.is_long() {
            return;
        }
        let width = V * Avx512::LANES;
        // SAFETY: the caller's promise.
        unsafe {
            for i in 0..height {
                let to = sums.add(i * width);
                let mut row = [s.load_all::<V>(to)];
                self.add(s, &mut row, at + i * stride, stride, column, last);
                store_row(s, &row[0], to, Avx512::LANES);
            }
            self.activation.map(Avx512::ISA, sums, sums, height * width);
        }
    }

    /// What is left to do with rows that were prepared.
    #[inline(always)]
    pub(super) fn prepared(&self) -> Self {
        if !self.is_long() {
            return *self;
        }
        Self {
            bias: None,
            residual: None,
            activation: Activation::None,
            ..*self
        }
    }

    /// Adds bias and residual.
    ///
    /// # Safety
    /// As for `put`.
    #[inline(always)]
    unsafe fn add<const M: usize, const V: usize>(
        &self,
        s: Avx512,
        sums: &mut [[<Avx512 as Simd>::F; V]; M],
        at: usize,
        stride: usize,
        column: usize,
        last: usize,
    ) {
        // SAFETY: the caller's promise, which covers the whole tile.
        unsafe {
            if let Some(bias) = self.bias {
                add_bias(s, sums, bias.add(column), last);
            }
            if let Some(residual) = self.residual {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let mut row = [s.splat(0.0); V];
                    match residual {
                        Read::F32(r) => load_row(s, &mut row, r.add(at + i * stride), last),
                        Read::Bf16(r) => load_rounded(&mut row, r.add(at + i * stride), last),
                    }
                    for v in 0..V {
                        sums[v] = s.add(sums[v], row[v]);
                    }
                }
            }
        }
    }
}

impl Put<Avx512> for AnyStore {
    #[inline(always)]
    unsafe fn put<const M: usize, const V: usize>(
        &self,
        s: Avx512,
        sums: [[<Avx512 as Simd>::F; V]; M],
        at: usize,
        stride: usize,
        column: usize,
        last: usize,
    ) {
        let mut sums = sums;
        // SAFETY: the caller's promise, which covers the whole tile.
        unsafe {
            self.add(s, &mut sums, at, stride, column, last);
            if let Some((lo, hi)) = self.activation.bounds() {
                let (lo, hi) = (s.splat(lo), s.splat(hi));
                for sums in &mut sums {
                    for sum in sums {
                        *sum = s.clamp(*sum, lo, hi);
                    }
                }
            } else {
                apply(s, self.activation, &mut sums);
            }
            for (i, sums) in sums.iter().enumerate() {
                match self.c {
                    Written::F32(c) => store_row(s, sums, c.add(at + i * stride), last),
                    Written::Bf16(c) => store_rounded(sums, c.add(at + i * stride), last),
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn finish(&self, _: Avx512, _: Activation, _: usize, _: usize) {}
}

/// Applies a function to a tile.
#[inline(always)]
fn apply<const M: usize, const V: usize>(
    s: Avx512,
    activation: Activation,
    sums: &mut [[<Avx512 as Simd>::F; V]; M],
) {
    const { assert!(M * V * Avx512::LANES <= TILE) };
    let mut tile = [0f32; TILE];
    let p = tile.as_mut_ptr();
    // SAFETY: the tile has room for M rows of V vectors.
    unsafe {
        for (i, row) in sums.iter().enumerate() {
            store_row(s, row, p.add(i * V * Avx512::LANES), Avx512::LANES);
        }
        activation.map(Avx512::ISA, p, p, M * V * Avx512::LANES);
        for (i, row) in sums.iter_mut().enumerate() {
            load_row(s, row, p.add(i * V * Avx512::LANES), Avx512::LANES);
        }
    }
}

/// Loads vectors, the last of them with `last` elements.
///
/// # Safety
/// They are readable at `p`.
#[inline(always)]
unsafe fn load_rounded<const V: usize>(
    row: &mut [<Avx512 as Simd>::F; V],
    p: *const bf16,
    last: usize,
) {
    for (v, to) in row.iter_mut().enumerate() {
        let n = if v + 1 < V { Avx512::LANES } else { last };
        // SAFETY: the caller's promise.
        *to = unsafe { load_bf16(p.add(v * Avx512::LANES), n) };
    }
}

/// Stores vectors, the last of them with `last` elements.
///
/// # Safety
/// They are writable at `p`, and the CPU has BF16.
#[inline(always)]
unsafe fn store_rounded<const V: usize>(row: &[<Avx512 as Simd>::F; V], p: *mut bf16, last: usize) {
    for (v, x) in row.iter().enumerate() {
        let n = if v + 1 < V { Avx512::LANES } else { last };
        // SAFETY: the caller's promise.
        unsafe { store_bf16(p.add(v * Avx512::LANES), *x, n) };
    }
}

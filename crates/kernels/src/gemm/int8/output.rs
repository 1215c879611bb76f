//! What becomes of the sums of a byte product: stored as they are, as bytes, or as floats.

use crate::activation::Activation;
use crate::gemm::f32::{fits, load_row, store_row};
use crate::simd::{ByteRange, Simd};
use crate::threads::Shared;

/// From 32-bit sums to bytes: `clamp(round(sum * mult[c]) + zero, lo, hi)`, ties to even,
/// which is the arithmetic of ONNX Runtime's `QLinearConv`.
#[derive(Clone, Copy, Debug)]
pub struct Requant<'a> {
    /// `input scale * weight scale / output scale` of each column.
    pub mult: &'a [f32],
    /// Output zero point.
    pub zero: i32,
    /// Least output; at least that of the byte type, more where a Relu is fused.
    pub lo: i32,
    /// Largest output.
    pub hi: i32,
}

/// Where sums go.
#[derive(Debug)]
pub enum Output8<'a> {
    /// As they are.
    I32(&'a mut [i32]),
    /// To bytes of either signedness, by `lo` and `hi`.
    Bytes(&'a mut [u8], Requant<'a>),
    /// To floats: `act(sum * scale[c] + bias[c])`.
    F32 {
        /// The floats.
        y: &'a mut [f32],
        /// `input scale * weight scale` of each column.
        scale: &'a [f32],
        /// One number for each column.
        bias: Option<&'a [f32]>,
        /// The last thing that happens.
        activation: Activation,
    },
}

impl Output8<'_> {
    /// Elements of the output.
    #[allow(
        clippy::len_without_is_empty,
        reason = "an output is asked for its size alone"
    )]
    pub fn len(&self) -> usize {
        match self {
            Output8::I32(y) => y.len(),
            Output8::Bytes(y, _) => y.len(),
            Output8::F32 { y, .. } => y.len(),
        }
    }
}

enum Shared8<'a> {
    I32(Shared<'a, i32>),
    Bytes(Shared<'a, u8>, Requant<'a>),
    F32(Shared<'a, f32>, &'a [f32], Option<&'a [f32]>, Activation),
}

/// Where a byte product goes.
pub(crate) struct Target8<'a> {
    c: Shared8<'a>,
    pub(super) stride: usize,
}

impl<'a> Target8<'a> {
    /// Checks that the output and its numbers fit `rows` x `columns`.
    pub(crate) fn new(rows: usize, columns: usize, out: Output8<'a>, stride: usize) -> Self {
        assert!(
            stride >= columns || rows < 2,
            "rows of the output do not overlap"
        );
        let fit = |len: usize| assert!(fits(rows, columns, stride, len), "output has m rows");
        let c = match out {
            Output8::I32(c) => {
                fit(c.len());
                Shared8::I32(Shared::new(c))
            }
            Output8::Bytes(c, to) => {
                fit(c.len());
                assert_eq!(to.mult.len(), columns, "one multiplier for each column");
                assert!(
                    -128 <= to.lo && to.lo <= to.hi && to.hi <= 255,
                    "bounds of a byte"
                );
                Shared8::Bytes(Shared::new(c), to)
            }
            Output8::F32 {
                y,
                scale,
                bias,
                activation,
            } => {
                fit(y.len());
                assert_eq!(scale.len(), columns, "one scale for each column");
                assert!(
                    bias.is_none_or(|b| b.len() == columns),
                    "bias has n elements"
                );
                Shared8::F32(Shared::new(y), scale, bias, activation)
            }
        };
        Self { c, stride }
    }

    /// Stores from element `at` of the output, which belongs to column `offset`.
    pub(crate) fn store(&self, at: usize, offset: usize) -> Store8 {
        match &self.c {
            Shared8::I32(c) => Store8::I32(c.pointer(at)),
            Shared8::Bytes(c, to) => Store8::Bytes {
                c: c.pointer(at),
                mult: to.mult[offset..].as_ptr(),
                range: ByteRange {
                    zero: to.zero,
                    lo: to.lo,
                    hi: to.hi,
                },
            },
            Shared8::F32(c, scale, bias, activation) => Store8::F32 {
                c: c.pointer(at),
                scale: scale[offset..].as_ptr(),
                bias: bias.map(|bias| bias[offset..].as_ptr()),
                bounds: activation
                    .bounds()
                    .unwrap_or((f32::NEG_INFINITY, f32::INFINITY)),
                then: activation.bounds().is_none().then_some(*activation),
            },
        }
    }
}

/// Where sums go, for a kernel.
#[derive(Clone, Copy)]
pub(crate) enum Store8 {
    I32(*mut i32),
    Bytes {
        c: *mut u8,
        mult: *const f32,
        range: ByteRange,
    },
    F32 {
        c: *mut f32,
        scale: *const f32,
        bias: Option<*const f32>,
        bounds: (f32, f32),
        then: Option<Activation>,
    },
}

impl Store8 {
    /// Stores a tile of sums at `at` in the output, rows `stride` apart, which belongs to
    /// `column` and on; the last vector of a row has `last` elements.
    ///
    /// # Safety
    /// These elements of the output and of what belongs to columns are there.
    #[inline(always)]
    pub(crate) unsafe fn put<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        sums: [[S::I; V]; M],
        at: usize,
        stride: usize,
        column: usize,
        last: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match *self {
                Store8::I32(c) => {
                    for (i, row) in sums.into_iter().enumerate() {
                        for (v, sum) in row.into_iter().enumerate() {
                            let n = if v + 1 == V { last } else { S::LANES };
                            let lanes = s.lanes_i(sum);
                            let c = c.add(at + i * stride + v * S::LANES);
                            std::ptr::copy_nonoverlapping(lanes.as_ptr(), c, n);
                        }
                    }
                }
                Store8::Bytes { c, mult, range } => {
                    put_bytes(s, sums, c.add(at), stride, mult.add(column), range, last);
                }
                Store8::F32 {
                    c,
                    scale,
                    bias,
                    bounds,
                    ..
                } => {
                    let (mut scales, mut biases) = ([s.splat(0.0); V], [s.splat(0.0); V]);
                    load_row(s, &mut scales, scale.add(column), last);
                    if let Some(bias) = bias {
                        load_row(s, &mut biases, bias.add(column), last);
                    }
                    let (lo, hi) = (s.splat(bounds.0), s.splat(bounds.1));
                    for (i, row) in sums.into_iter().enumerate() {
                        let mut y = [s.splat(0.0); V];
                        for (v, y) in y.iter_mut().enumerate() {
                            let scaled = s.mul(s.to_float(row[v]), scales[v]);
                            *y = s.clamp(s.add(scaled, biases[v]), lo, hi);
                        }
                        store_row::<S, V>(s, &y, c.add(at + i * stride), last);
                    }
                }
            }
        }
    }

    /// Applies the activation that is left, if any, to `n` elements at `at`.
    ///
    /// # Safety
    /// As for `put`.
    #[inline(always)]
    pub(crate) unsafe fn finish<S: Simd>(&self, _: S, at: usize, n: usize) {
        if let Store8::F32 {
            c,
            then: Some(activation),
            ..
        } = *self
        {
            // SAFETY: the caller's promise.
            unsafe { activation.map(S::ISA, c.add(at), c.add(at), n) };
        }
    }
}

/// Stores a tile of bytes, rows `stride` apart; the last vector of a row has `last` elements.
///
/// # Safety
/// These bytes are writable at `c`, and as many multipliers readable at `mult`.
#[inline(always)]
unsafe fn put_bytes<S: Simd, const M: usize, const V: usize>(
    s: S,
    sums: [[S::I; V]; M],
    c: *mut u8,
    stride: usize,
    mult: *const f32,
    range: ByteRange,
    last: usize,
) {
    let mut mults = [s.splat(0.0); V];
    // SAFETY: the caller's promise.
    unsafe { load_row(s, &mut mults, mult, last) };
    if V == 2 && last == S::LANES {
        for pair in 0..M.div_ceil(2) {
            let (i, j) = (2 * pair, (2 * pair + 1).min(M - 1));
            let x = [
                [
                    s.mul(s.to_float(sums[i][0]), mults[0]),
                    s.mul(s.to_float(sums[i][V - 1]), mults[V - 1]),
                ],
                [
                    s.mul(s.to_float(sums[j][0]), mults[0]),
                    s.mul(s.to_float(sums[j][V - 1]), mults[V - 1]),
                ],
            ];
            // SAFETY: the caller's promise; the last of an odd number of rows is stored twice.
            unsafe { s.store_rounded([c.add(i * stride), c.add(j * stride)], x, range) };
        }
        return;
    }
    if S::ROUNDS_ROWS && V == 1 && last == S::LANES {
        for four in 0..M.div_ceil(4) {
            let (mut to, mut x) = ([c; 4], [s.splat(0.0); 4]);
            for (i, (to, x)) in to.iter_mut().zip(&mut x).enumerate() {
                let row = (4 * four + i).min(M - 1);
                *to = c.wrapping_add(row * stride);
                *x = s.mul(s.to_float(sums[row][0]), mults[0]);
            }
            // SAFETY: the caller's promise; the last row may be stored several times.
            unsafe { s.store_rounded_rows(to, x, range) };
        }
        return;
    }
    let lo = s.splat((range.lo - range.zero) as f32);
    let hi = s.splat((range.hi - range.zero) as f32);
    let zero = s.splat_i(range.zero);
    for (i, row) in sums.into_iter().enumerate() {
        for v in 0..V {
            let y = s.clamp(s.mul(s.to_float(row[v]), mults[v]), lo, hi);
            let y = s.add_i(s.to_int(y), zero);
            // SAFETY: the caller's promise.
            unsafe {
                let c = c.add(i * stride + v * S::LANES);
                if v + 1 < V || last == S::LANES {
                    s.store_bytes(c, y);
                } else {
                    s.store_bytes_n(c, y, last);
                }
            }
        }
    }
}

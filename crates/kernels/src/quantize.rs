//! From floats to quantised integers, back, and arithmetic between bytes.
//!
//! Rounding is to nearest, ties to even. What is out of range becomes the nearest end of the
//! range; NaN becomes the zero point.

use std::sync::{Mutex, PoisonError};

use crate::Ctx;
use crate::activation::GRAIN;
use crate::gemm::Bytes;
pub use crate::pool::Quant;
use crate::simd::{Body, ByteRange, MAX_LANES, Simd, dispatch};
use crate::threads::Shared;

mod linear;
mod softmax;
mod straight;

pub use linear::{Linear8, Side8};
pub use softmax::softmax8;
pub use straight::{Grids, bounded_gradient, dequantize_gradient, quantize_gradient};

/// `q = clamp(round(x / scale) + zero)`, to unsigned or signed bytes.
pub fn quantize8(ctx: &Ctx, x: &[f32], to: Quant, signed: bool, y: &mut [u8]) {
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(x.len(), GRAIN, |range| {
        // SAFETY: ranges of different tasks do not overlap.
        let y = unsafe { shared.slice(range.clone()) };
        dispatch(
            ctx.isa(),
            Quantize {
                x: &x[range],
                to,
                signed,
                y,
            },
        );
    });
}

/// Unsigned bytes of `x` over its own range with zero, and their scale and zero point, as ONNX
/// DynamicQuantizeLinear has them.
pub fn quantize8_dynamically(ctx: &Ctx, x: &[f32], y: &mut [u8]) -> Quant {
    let whole = Mutex::new((0f32, 0f32));
    ctx.threads().parallel_ranges(x.len(), GRAIN, |range| {
        let (low, high) = dispatch(ctx.isa(), Range(&x[range]));
        let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
        *whole = (whole.0.min(low), whole.1.max(high));
    });
    let (low, high) = *whole.lock().unwrap_or_else(PoisonError::into_inner);
    let scale = match (high - low) / 255.0 {
        0.0 => 1.0,
        scale => scale,
    };
    let zero = (-low / scale).clamp(0.0, 255.0).round_ties_even() as i32;
    let to = Quant { scale, zero };
    quantize8(ctx, x, to, false, y);
    to
}

/// `x = (q - zero) * scale`.
pub fn dequantize8(ctx: &Ctx, x: Bytes, from: Quant, y: &mut [f32]) {
    let (x, signed) = x.raw();
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(x.len(), GRAIN, |range| {
        // SAFETY: ranges of different tasks do not overlap.
        let y = unsafe { shared.slice(range.clone()) };
        dispatch(
            ctx.isa(),
            Dequantize {
                x: &x[range],
                from,
                signed,
                y,
            },
        );
    });
}

/// An integer type that numbers are quantised to.
pub trait Quantized: Copy {
    /// The integer nearest to `x`, which is in range or NaN-free out of it.
    fn from_rounded(x: f32) -> Self;
    /// Its value.
    fn to_i32(self) -> i32;
}

macro_rules! quantized {
    ($($t:ty)*) => {$(
        impl Quantized for $t {
            fn from_rounded(x: f32) -> Self {
                x as $t
            }
            fn to_i32(self) -> i32 {
                self as i32
            }
        }
    )*};
}
quantized!(u8 i8 u16 i16 i32);

/// [`quantize8`] for one element of any integer type.
pub fn quantize_one<T: Quantized>(x: f32, to: Quant) -> T {
    let x = if x.is_nan() { 0.0 } else { x };
    T::from_rounded((x / to.scale).round_ties_even() + to.zero as f32)
}

/// Quantises rows: element `i` by the row `i / inner % to.len()`. With `inner` 1 that is the
/// last axis, with the product of the following axes any other.
pub fn quantize_axis<T: Quantized>(x: &[f32], to: &[Quant], inner: usize, y: &mut [T]) {
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    for (i, (x, y)) in x
        .chunks(inner.max(1))
        .zip(y.chunks_mut(inner.max(1)))
        .enumerate()
    {
        let to = to[i % to.len()];
        x.iter().zip(y).for_each(|(x, y)| *y = quantize_one(*x, to));
    }
}

/// The reverse of [`quantize_axis`].
pub fn dequantize_axis<T: Quantized>(x: &[T], from: &[Quant], inner: usize, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    for (i, (x, y)) in x
        .chunks(inner.max(1))
        .zip(y.chunks_mut(inner.max(1)))
        .enumerate()
    {
        let from = from[i % from.len()];
        x.iter()
            .zip(y)
            .for_each(|(x, y)| *y = (x.to_i32() - from.zero) as f32 * from.scale);
    }
}

/// The table of a function between quantised bytes: entry `q` is the output for the input byte
/// with these bits.
pub fn table8(
    from: Quant,
    from_signed: bool,
    to: Quant,
    to_signed: bool,
    f: impl Fn(f32) -> f32,
) -> [u8; 256] {
    std::array::from_fn(|q| {
        let q = q as u8;
        let value = if from_signed {
            i32::from(q as i8)
        } else {
            i32::from(q)
        };
        let y = f((value - from.zero) as f32 * from.scale);
        if to_signed {
            quantize_one::<i8>(y, to) as u8
        } else {
            quantize_one::<u8>(y, to)
        }
    })
}

/// `y = table[x]` for every byte.
pub fn lookup8(ctx: &Ctx, x: &[u8], table: &[u8; 256], y: &mut [u8]) {
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(x.len(), GRAIN, |range| {
        // SAFETY: ranges of different tasks do not overlap.
        let y = unsafe { shared.slice(range.clone()) };
        x[range]
            .iter()
            .zip(y)
            .for_each(|(x, y)| *y = table[usize::from(*x)]);
    });
}

/// What is done to two quantised bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary8 {
    /// The sum of the real values.
    Add,
    /// Their product.
    Mul,
}

impl Binary8 {
    /// The result in real values.
    #[inline(always)]
    fn of<S: Simd>(self, s: S, a: S::F, b: S::F) -> S::F {
        match self {
            Binary8::Add => s.add(a, b),
            Binary8::Mul => s.mul(a, b),
        }
    }
}

/// `y = clamp(round((a op b) / scale) + zero, lo, hi)` of the real values of equally long
/// operands; `lo..=hi` lies in the range of one byte type.
#[allow(
    clippy::too_many_arguments,
    reason = "three operands with their quantisations"
)]
pub fn binary8(
    ctx: &Ctx,
    op: Binary8,
    (a, a_quant): (Bytes, Quant),
    (b, b_quant): (Bytes, Quant),
    y: &mut [u8],
    to: Quant,
    (lo, hi): (i32, i32),
) {
    let ((a, a_signed), (b, b_signed)) = (a.raw(), b.raw());
    assert!(
        a.len() == y.len() && b.len() == y.len(),
        "operands and result have equal length"
    );
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(a.len(), GRAIN, |range| {
        // SAFETY: ranges of different tasks do not overlap.
        let y = unsafe { shared.slice(range.clone()) };
        let (a, b) = (
            (&a[range.clone()], a_signed, a_quant),
            (&b[range], b_signed, b_quant),
        );
        dispatch(
            ctx.isa(),
            Pair {
                op,
                a,
                b,
                y,
                to,
                bounds: (lo, hi),
            },
        );
    });
}

/// `n` bytes at `p`.
///
/// # Safety
/// `n` bytes are readable at `p`, and `n` is at most `LANES`.
#[inline(always)]
unsafe fn integers<S: Simd>(s: S, p: *const u8, n: usize, signed: bool) -> S::I {
    let mut rest = [0; MAX_LANES];
    // SAFETY: the caller's promise; the array holds a vector.
    unsafe {
        let p = if n < S::LANES {
            std::ptr::copy_nonoverlapping(p, rest.as_mut_ptr(), n);
            rest.as_ptr()
        } else {
            p
        };
        if signed { s.load_i8(p) } else { s.load_u8(p) }
    }
}

/// The real values of `n` bytes at `p`.
///
/// # Safety
/// As for [`integers`].
#[inline(always)]
unsafe fn real<S: Simd>(s: S, p: *const u8, n: usize, signed: bool, from: Quant) -> S::F {
    // SAFETY: the caller's promise.
    let q = unsafe { integers(s, p, n, signed) };
    s.mul(
        s.to_float(s.add_i(q, s.splat_i(-from.zero))),
        s.splat(from.scale),
    )
}

/// How real values are quantised.
#[derive(Clone, Copy)]
struct Target {
    scale: f32,
    /// 1 / scale, where the quotient of every value is found by it.
    reciprocal: Option<f32>,
    zero: i32,
    bounds: (i32, i32),
}

impl Target {
    /// For values of magnitude `most` at most; `None`: for all values.
    fn new(to: Quant, bounds: (i32, i32), most: Option<f32>) -> Self {
        let tame = |x: f32| (1e-30..1e30).contains(&x);
        let most = most.filter(|&most| tame(to.scale) && tame(most / to.scale));
        Self {
            scale: to.scale,
            reciprocal: most.map(|_| 1.0 / to.scale),
            zero: to.zero,
            bounds,
        }
    }
}

/// `x / scale` of numbers that neither are nor come near infinity, correctly rounded: two steps
/// from the product with the rounded reciprocal (Markstein, "Computation of elementary functions
/// on the IBM RISC System/6000 processor", 1990, theorem 8.1). Division takes four times as long.
#[inline(always)]
fn quotient<S: Simd>(s: S, x: S::F, scale: f32, reciprocal: f32) -> S::F {
    if !S::FUSES {
        return s.div(x, s.splat(scale));
    }
    let (scale, reciprocal) = (s.splat(-scale), s.splat(reciprocal));
    let mut q = s.mul(x, reciprocal);
    for _ in 0..2 {
        q = s.fma(s.fma(q, scale, x), reciprocal, q);
    }
    q
}

/// Stores `n` quantised values at `p`.
///
/// # Safety
/// `n` bytes are writable at `p`, and `n` is at most `LANES`.
#[inline(always)]
unsafe fn put<S: Simd>(s: S, p: *mut u8, n: usize, x: S::F, to: &Target) {
    let zero = s.splat(0.0);
    let x = match to.reciprocal {
        Some(reciprocal) => quotient(s, x, to.scale, reciprocal),
        // Both halves turn NaN into 0, and one of them is 0 else.
        None => s.div(s.add(s.max(x, zero), s.min(x, zero)), s.splat(to.scale)),
    };
    let lo = s.splat((to.bounds.0 - to.zero) as f32);
    let hi = s.splat((to.bounds.1 - to.zero) as f32);
    let y = s.add_i(s.to_int(s.clamp(x, lo, hi)), s.splat_i(to.zero));
    // SAFETY: the caller's promise.
    unsafe {
        if n == S::LANES {
            s.store_bytes(p, y)
        } else {
            s.store_bytes_n(p, y, n)
        }
    }
}

/// The least and largest of the numbers and zero; NaN is passed over.
struct Range<'a>(&'a [f32]);

impl Body for Range<'_> {
    type Out = (f32, f32);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, f32) {
        const SUMS: usize = 4;
        let (mut low, mut high) = ([s.splat(0.0); SUMS], [s.splat(0.0); SUMS]);
        let mut blocks = self.0.chunks_exact(SUMS * S::LANES);
        for block in &mut blocks {
            for i in 0..SUMS {
                // SAFETY: the block has `SUMS` vectors.
                let x = unsafe { s.load(block.as_ptr().add(i * S::LANES)) };
                (low[i], high[i]) = (s.min(x, low[i]), s.max(x, high[i]));
            }
        }
        let (mut least, mut most) = (0f32, 0f32);
        for i in 0..SUMS {
            least = s.lanes(low[i]).into_iter().fold(least, f32::min);
            most = s.lanes(high[i]).into_iter().fold(most, f32::max);
        }
        for &x in blocks.remainder() {
            (least, most) = (least.min(x), most.max(x));
        }
        (least, most)
    }
}

struct Quantize<'a> {
    x: &'a [f32],
    to: Quant,
    signed: bool,
    y: &'a mut [u8],
}

impl Body for Quantize<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let bounds = if self.signed { (-128, 127) } else { (0, 255) };
        let to = Target::new(self.to, bounds, None);
        let mut at = 0;
        while at < self.x.len() {
            let n = (self.x.len() - at).min(S::LANES);
            // SAFETY: `n` elements from `at` on lie in both slices, of equal length.
            unsafe {
                let p = self.x.as_ptr().add(at);
                let x = if n == S::LANES {
                    s.load(p)
                } else {
                    s.load_n(p, n)
                };
                put(s, self.y.as_mut_ptr().add(at), n, x, &to);
            }
            at += n;
        }
    }
}

struct Dequantize<'a> {
    x: &'a [u8],
    from: Quant,
    signed: bool,
    y: &'a mut [f32],
}

impl Body for Dequantize<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut at = 0;
        while at < self.x.len() {
            let n = (self.x.len() - at).min(S::LANES);
            // SAFETY: `n` elements from `at` on lie in both slices, of equal length.
            unsafe {
                let y = real(s, self.x.as_ptr().add(at), n, self.signed, self.from);
                let p = self.y.as_mut_ptr().add(at);
                if n == S::LANES {
                    s.store(p, y)
                } else {
                    s.store_n(p, y, n)
                }
            }
            at += n;
        }
    }
}

struct Pair<'a> {
    op: Binary8,
    a: (&'a [u8], bool, Quant),
    b: (&'a [u8], bool, Quant),
    y: &'a mut [u8],
    to: Quant,
    bounds: (i32, i32),
}

impl Body for Pair<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ((a, a_signed, a_quant), (b, b_signed, b_quant)) = (self.a, self.b);
        let most = |q: Quant| 512.0 * q.scale;
        let most = match self.op {
            Binary8::Add => most(a_quant) + most(b_quant),
            Binary8::Mul => most(a_quant) * most(b_quant),
        };
        let to = Target::new(self.to, self.bounds, Some(most));
        let mut at = 0;
        if let Some(reciprocal) = to.reciprocal {
            let range = ByteRange {
                zero: to.zero,
                lo: to.bounds.0,
                hi: to.bounds.1,
            };
            while at + 4 * S::LANES <= a.len() {
                let mut x = [s.splat(0.0); 4];
                for (v, x) in x.iter_mut().enumerate() {
                    let at = at + v * S::LANES;
                    // SAFETY: four vectors from `at` on lie in both slices.
                    unsafe {
                        let a = real(s, a.as_ptr().add(at), S::LANES, a_signed, a_quant);
                        let b = real(s, b.as_ptr().add(at), S::LANES, b_signed, b_quant);
                        *x = quotient(s, self.op.of(s, a, b), to.scale, reciprocal);
                    }
                }
                let [x, x1, y, y1] = x;
                // SAFETY: as above, of the result.
                unsafe {
                    let p = self.y.as_mut_ptr().add(at);
                    s.store_rounded([p, p.add(2 * S::LANES)], [[x, x1], [y, y1]], range);
                }
                at += 4 * S::LANES;
            }
        }
        while at < a.len() {
            let n = (a.len() - at).min(S::LANES);
            // SAFETY: `n` elements from `at` on lie in all slices, of equal length.
            unsafe {
                let a = real(s, a.as_ptr().add(at), n, a_signed, a_quant);
                let b = real(s, b.as_ptr().add(at), n, b_signed, b_quant);
                put(s, self.y.as_mut_ptr().add(at), n, self.op.of(s, a, b), &to);
            }
            at += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, contexts};

    #[test]
    fn bytes_equal_the_scalar_definition() {
        let mut random = Random::new(19);
        for n in [0, 1, 7, 8, 15, 17, 100, 40_000] {
            let mut x: Vec<f32> = random.floats(n).iter().map(|x| x * 20.0).collect();
            let special = [
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                1e30,
                0.25,
                0.75,
                -0.25,
            ];
            x.iter_mut().zip(special).for_each(|(x, s)| *x = s);
            for (to, ctx) in [
                Quant {
                    scale: 0.1,
                    zero: 3,
                },
                Quant {
                    scale: 0.5,
                    zero: -128,
                },
            ]
            .into_iter()
            .flat_map(|q| contexts().into_iter().map(move |c| (q, c)))
            {
                let mut y = vec![1; n];
                quantize8(&ctx, &x, to, true, &mut y);
                let want: Vec<i8> = x.iter().map(|x| quantize_one(*x, to)).collect();
                assert_eq!(bytemuck::cast_slice::<u8, i8>(&y), want);
                let mut back = vec![1.0; n];
                dequantize8(&ctx, Bytes::U8(&y), to, &mut back);
                let mut plain = vec![1.0; n];
                dequantize_axis(&y, &[to], 1, &mut plain);
                assert_eq!(back, plain);
            }
        }
        assert_eq!(
            quantize_one::<u8>(
                f32::NAN,
                Quant {
                    scale: 1.0,
                    zero: 7
                }
            ),
            7
        );
        assert_eq!(
            quantize_one::<u16>(
                1e9,
                Quant {
                    scale: 1.0,
                    zero: 7
                }
            ),
            u16::MAX
        );
    }

    #[test]
    fn arithmetic_between_bytes_equals_the_scalar_definition() {
        let mut random = Random::new(23);
        let (qa, qb) = (
            Quant {
                scale: 0.03,
                zero: 12,
            },
            Quant {
                scale: 0.05,
                zero: -4,
            },
        );
        let to = Quant {
            scale: 0.07,
            zero: 100,
        };
        for n in [0, 1, 8, 9, 31, 1000] {
            let (a, b) = (random.bytes(n), random.signed(n));
            for (op, ctx) in [Binary8::Add, Binary8::Mul]
                .into_iter()
                .flat_map(|op| contexts().into_iter().map(move |c| (op, c)))
            {
                let mut y = vec![1; n];
                let (left, right) = ((Bytes::U8(&a), qa), (Bytes::I8(&b), qb));
                binary8(&ctx, op, left, right, &mut y, to, (100, 255));
                for i in 0..n {
                    let a = (i32::from(a[i]) - 12) as f32 * 0.03;
                    let b = (i32::from(b[i]) + 4) as f32 * 0.05;
                    let x = if op == Binary8::Add { a + b } else { a * b };
                    assert_eq!(y[i], quantize_one::<u8>(x, to).max(100));
                }
                let table = table8(qa, false, to, false, |x| x.max(0.0));
                lookup8(&ctx, &a, &table, &mut y);
                let relu = |a: u8| ((i32::from(a) - 12) as f32 * 0.03).max(0.0);
                assert!(
                    a.iter()
                        .zip(&y)
                        .all(|(a, y)| *y == quantize_one::<u8>(relu(*a), to))
                );
            }
        }
    }

    #[test]
    fn sums_and_products_of_all_bytes_are_rounded_as_quotients_are() {
        let all: Vec<u8> = (0..=255).collect();
        let a: Vec<u8> = (0..1 << 16).map(|i| all[i >> 8]).collect();
        let b: Vec<u8> = (0..1 << 16).map(|i| all[i & 255]).collect();
        for [sa, sb, sy] in [
            [0.1, 0.1, 0.2],
            [0.013, 0.5, 0.49],
            [1.0, 1.0, 3.0],
            [1e-3, 7e-4, 1e-20],
            [2e-31, 1e-32, 3e-31],
            [1e35, 1e36, 4e35],
        ] {
            let [qa, qb, to] =
                [(sa, 3), (sb, 250), (sy, 17)].map(|(scale, zero)| Quant { scale, zero });
            for (op, ctx) in [Binary8::Add, Binary8::Mul]
                .into_iter()
                .flat_map(|op| contexts().into_iter().map(move |c| (op, c)))
            {
                let mut y = vec![1; a.len()];
                let (left, right) = ((Bytes::U8(&a), qa), (Bytes::U8(&b), qb));
                binary8(&ctx, op, left, right, &mut y, to, (0, 255));
                for i in 0..a.len() {
                    let x = (i32::from(a[i]) - 3) as f32 * sa;
                    let z = (i32::from(b[i]) - 250) as f32 * sb;
                    let x = if op == Binary8::Add { x + z } else { x * z };
                    assert_eq!(y[i], quantize_one::<u8>(x, to), "{x} / {sy}");
                }
            }
        }
    }
}

//! Four lanes of portable Rust, which the compiler turns into whatever the base CPU has.

use super::Simd;
use crate::Isa;

/// Always available.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn zip<T: Copy, U: Copy, R: Copy + Default>(a: [T; 4], b: [U; 4], f: impl Fn(T, U) -> R) -> [R; 4] {
    let mut out = [R::default(); 4];
    for i in 0..4 {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// Ties to even by adding and taking away 2^23, which leaves no room for a fraction.
#[inline(always)]
fn round_even(x: f32) -> f32 {
    const BIG: f32 = 8_388_608.0;
    if x.abs() < BIG {
        ((x.abs() + BIG) - BIG).copysign(x)
    } else {
        x
    }
}

macro_rules! lanes {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            $body
        }
    )*};
}

impl Simd for Scalar {
    type F = [f32; 4];
    type I = [i32; 4];
    type Q = [f32; 4];
    const ISA: Isa = Isa::Generic;
    const LANES: usize = 4;
    const FUSES: bool = false;
    const ROWS: usize = 4;

    lanes! {
        splat(x: f32) -> Self::F = [x; 4];
        add(a: Self::F, b: Self::F) -> Self::F = zip(a, b, |a, b| a + b);
        sub(a: Self::F, b: Self::F) -> Self::F = zip(a, b, |a, b| a - b);
        mul(a: Self::F, b: Self::F) -> Self::F = zip(a, b, |a, b| a * b);
        div(a: Self::F, b: Self::F) -> Self::F = zip(a, b, |a, b| a / b);
        sqrt(a: Self::F) -> Self::F = a.map(f32::sqrt);
        fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F = Scalar.add(Scalar.mul(a, b), c);
        min(a: Self::F, b: Self::F) -> Self::F = zip(a, b, |a, b| if a < b { a } else { b });
        max(a: Self::F, b: Self::F) -> Self::F = zip(a, b, |a, b| if a > b { a } else { b });
        round(a: Self::F) -> Self::F = a.map(round_even);
        if_less(a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F =
            std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] });
        to_int(a: Self::F) -> Self::I = a.map(|a| round_even(a) as i32);
        to_float(a: Self::I) -> Self::F = a.map(|a| a as f32);
        bits(a: Self::F) -> Self::I = a.map(|a| a.to_bits() as i32);
        float_of(a: Self::I) -> Self::F = a.map(|a| f32::from_bits(a as u32));
        splat_i(x: i32) -> Self::I = [x; 4];
        add_i(a: Self::I, b: Self::I) -> Self::I = zip(a, b, i32::wrapping_add);
        mul_i(a: Self::I, b: Self::I) -> Self::I = zip(a, b, i32::wrapping_mul);
        and_i(a: Self::I, b: Self::I) -> Self::I = zip(a, b, |a, b| a & b);
        xor_i(a: Self::I, b: Self::I) -> Self::I = zip(a, b, |a, b| a ^ b);
        or_i(a: Self::I, b: Self::I) -> Self::I = zip(a, b, |a, b| a | b);
        byte_up(a: Self::I) -> Self::I = a.map(|a| a << 8);
        shift_down(a: Self::I, n: i32) -> Self::I = a.map(|a| (a as u32 >> n) as i32);
        to_exponent(a: Self::I) -> Self::I = a.map(|a| a << 23);
        dot_pairs(acc: Self::I, a: Self::I, b: Self::I) -> Self::I =
            std::array::from_fn(|i| {
                let low = i32::from(a[i] as i16) * i32::from(b[i] as i16);
                let high = (a[i] >> 16) * (b[i] >> 16);
                acc[i].wrapping_add(low).wrapping_add(high)
            });
        four_zeros() -> Self::Q = [0.0; 4];
    }
    super::memory! {
        load(p: *const f32) -> Self::F = p.cast::<Self::F>().read_unaligned();
        store(p: *mut f32, a: Self::F) = p.cast::<Self::F>().write_unaligned(a);
        load_i(p: *const i32) -> Self::I = p.cast::<Self::I>().read_unaligned();
        store_i(p: *mut i32, a: Self::I) = p.cast::<Self::I>().write_unaligned(a);
        load_u8(p: *const u8) -> Self::I = p.cast::<[u8; 4]>().read().map(i32::from);
        load_i8(p: *const u8) -> Self::I = p.cast::<[i8; 4]>().read().map(i32::from);
        store_bytes(p: *mut u8, a: Self::I) = p.cast::<[u8; 4]>().write(a.map(|a| a as u8));
        load_u8_pairs(p: *const u8) -> Self::I = {
            let bytes = p.cast::<[u8; 8]>().read();
            std::array::from_fn(|i| i32::from(bytes[2 * i]) | i32::from(bytes[2 * i + 1]) << 16)
        };
        load_i8_pairs(p: *const i8) -> Self::I = {
            let bytes = p.cast::<[i8; 8]>().read();
            std::array::from_fn(|i| {
                i32::from(bytes[2 * i]) & 0xffff | i32::from(bytes[2 * i + 1]) << 16
            })
        };
        interleave_u8(p: *const u8, q: *const u8) -> Self::I =
            zip(p.cast::<[u8; 4]>().read(), q.cast::<[u8; 4]>().read(), |p, q| {
                i32::from(p) | i32::from(q) << 16
            });
        four_fma(w: *const f32, x: f32, acc: Self::Q) -> Self::Q =
            Scalar.fma([x; 4], Scalar.load(w), acc);
        four_store(p: *mut f32, a: Self::Q) = Scalar.store(p, a);
    }
}

//! Conversion between floats of 32 and 16 bits.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::Ctx;
use crate::activation::GRAIN;
use crate::threads::Shared;

/// Rounds to IEEE half precision, ties to even; what is too large becomes infinite.
pub fn to_f16(ctx: &Ctx, x: &[f32], y: &mut [f16]) {
    each(ctx, x, y, |x, y| y.convert_from_f32_slice(x));
}

/// From IEEE half precision, exactly.
pub fn from_f16(ctx: &Ctx, x: &[f16], y: &mut [f32]) {
    each(ctx, x, y, |x, y| x.convert_to_f32_slice(y));
}

/// Rounds to bfloat16, ties to even.
pub fn to_bf16(ctx: &Ctx, x: &[f32], y: &mut [bf16]) {
    each(ctx, x, y, |x, y| y.convert_from_f32_slice(x));
}

/// From bfloat16, exactly.
pub fn from_bf16(ctx: &Ctx, x: &[bf16], y: &mut [f32]) {
    each(ctx, x, y, |x, y| x.convert_to_f32_slice(y));
}

fn each<A: Sync, B: Send>(ctx: &Ctx, x: &[A], y: &mut [B], f: impl Fn(&[A], &mut [B]) + Sync) {
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(x.len(), GRAIN, |range| {
        // SAFETY: ranges of different tasks do not overlap.
        f(&x[range.clone()], unsafe { shared.slice(range) });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::contexts;

    #[test]
    fn slices_equal_single_conversions() {
        let special = [
            0.0,
            -0.0,
            1.0,
            65519.0,
            65520.0,
            1e-8,
            6e-5,
            f32::INFINITY,
            0.333,
            -2.5,
        ];
        let x: Vec<f32> = (0..40_003)
            .map(|i| special[i % 10] * (1.0 + i as f32 * 1e-4))
            .collect();
        for ctx in contexts() {
            let (mut h, mut b) = (vec![f16::ZERO; x.len()], vec![bf16::ZERO; x.len()]);
            to_f16(&ctx, &x, &mut h);
            to_bf16(&ctx, &x, &mut b);
            let same = |i: usize| (h[i], b[i]) == (f16::from_f32(x[i]), bf16::from_f32(x[i]));
            assert!((0..x.len()).all(same));
            let (mut y, mut z) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            from_f16(&ctx, &h, &mut y);
            from_bf16(&ctx, &b, &mut z);
            assert!((0..x.len()).all(|i| y[i] == h[i].to_f32() && z[i] == b[i].to_f32()));
        }
    }
}

//! Conversion between f32 and floats of 8 bits, with one scale.

use crate::Ctx;
use crate::activation::GRAIN;
use crate::threads::Shared;

/// A float of 8 bits, as ONNX has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float8 {
    /// 3 bits of fraction, no infinity; up to 448.
    E4m3fn,
    /// 2 bits of fraction; up to 57344.
    E5m2,
}

impl Float8 {
    /// Bits of fraction, bias of the exponent, largest number and its code.
    const fn layout(self) -> (u32, u32, f32, u8) {
        match self {
            Self::E4m3fn => (3, 7, 448.0, 0x7e),
            Self::E5m2 => (2, 15, 57_344.0, 0x7b),
        }
    }
}

/// 2²³: added to a smaller number it rounds to an integer, ties to even.
const INTEGER: f32 = 8_388_608.0;

/// The code nearest to `x`, ties to even, saturating; NaN is 0x7f.
#[inline(always)]
fn code(x: f32, (fraction, bias, largest, most): (u32, u32, f32, u8)) -> u8 {
    let a = x.abs();
    let bits = a.to_bits();
    let shift = 23 - fraction;
    let nearest = (bits + (1 << (shift - 1)) - 1 + (bits >> shift & 1)) >> shift;
    let normal = nearest.wrapping_sub((127 - bias) << fraction);
    let step = f32::from_bits((127 + bias - 1 + fraction) << 23);
    let subnormal = (a * step + INTEGER).to_bits() & 0xff;
    let small = a < f32::from_bits((128 - bias) << 23);
    let code = if small { subnormal } else { normal };
    let code = if a >= largest { u32::from(most) } else { code };
    let code = if a.is_nan() {
        0x7f
    } else {
        code | x.to_bits() >> 24 & 0x80
    };
    code as u8
}

/// The codes of `x / scale`: to nearest, ties to even, saturating; NaN is 0x7f.
pub fn quantize_float8(ctx: &Ctx, x: &[f32], scale: f32, to: Float8, y: &mut [u8]) {
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(x.len(), GRAIN, |range| {
        // SAFETY: ranges of different tasks do not overlap.
        let y = unsafe { shared.slice(range.clone()) };
        let pairs = x[range].iter().zip(y);
        match to {
            Float8::E4m3fn => {
                pairs.for_each(|(x, y)| *y = code(x / scale, Float8::E4m3fn.layout()))
            }
            Float8::E5m2 => pairs.for_each(|(x, y)| *y = code(x / scale, Float8::E5m2.layout())),
        }
    });
}

/// `y = numbers[x]` for every code.
pub fn dequantize_float8(ctx: &Ctx, x: &[u8], numbers: &[f32; 256], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(x.len(), GRAIN, |range| {
        // SAFETY: ranges of different tasks do not overlap.
        let y = unsafe { shared.slice(range.clone()) };
        let pairs = x[range].iter().zip(y);
        pairs.for_each(|(x, y)| *y = numbers[usize::from(*x)]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::contexts;

    /// The numbers of the codes from 0 up to the largest, from their definition.
    fn positive(to: Float8) -> Vec<f32> {
        let (fraction, bias, _, most) = to.layout();
        let number = |code: u8| {
            let (e, f) = (
                i32::from(code >> fraction),
                i32::from(code) & ((1 << fraction) - 1),
            );
            let whole = if e > 0 { 1 << fraction } else { 0 };
            (whole + f) as f32 * 2f32.powi(e.max(1) - bias as i32 - fraction as i32)
        };
        (0..=most).map(number).collect()
    }

    fn codes(ctx: &Ctx, x: &[f32], scale: f32, to: Float8) -> Vec<u8> {
        let mut y = vec![0; x.len()];
        quantize_float8(ctx, x, scale, to, &mut y);
        y
    }

    #[test]
    fn numbers_between_two_codes_go_to_the_nearer_and_halves_to_the_even() {
        let ctx = &contexts()[0];
        for to in [Float8::E4m3fn, Float8::E5m2] {
            let numbers = positive(to);
            for (i, pair) in numbers.windows(2).enumerate() {
                let (low, high) = (i as u8, i as u8 + 1);
                let middle = (pair[0] + pair[1]) / 2.0;
                let x = [
                    pair[0],
                    middle.next_down(),
                    middle,
                    middle.next_up(),
                    pair[1],
                ];
                let even = if low % 2 == 0 { low } else { high };
                let expected = [low, low, even, high, high];
                assert_eq!(codes(ctx, &x, 1.0, to), expected, "{to:?} {x:?}");
                let negative = x.map(|x| -x);
                assert_eq!(codes(ctx, &negative, 1.0, to), expected.map(|c| c | 0x80));
            }
        }
    }

    #[test]
    fn what_is_too_large_saturates_and_nan_stays() {
        let x = [
            448.0,
            464.0,
            1e9,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MAX,
        ];
        let e4m3 = [0x7e, 0x7e, 0x7e, 0x7e, 0xfe, 0x7f, 0x7e];
        let x5 = x.map(|x| if x < 1e9 { x * 128.0 } else { x });
        for ctx in contexts() {
            assert_eq!(codes(&ctx, &x, 1.0, Float8::E4m3fn), e4m3);
            let e5m2 = [0x7b, 0x7b, 0x7b, 0x7b, 0xfb, 0x7f, 0x7b];
            assert_eq!(codes(&ctx, &x5, 1.0, Float8::E5m2), e5m2);
        }
    }

    #[test]
    fn every_task_does_its_part_and_the_scale_divides() {
        let numbers = positive(Float8::E4m3fn);
        let x: Vec<f32> = (0..70_001)
            .map(|i| 3.0 * numbers[i % numbers.len()])
            .collect();
        let table = std::array::from_fn(|i| numbers.get(i).map_or(0.0, |n| 3.0 * n));
        for ctx in contexts() {
            let y = codes(&ctx, &x, 3.0, Float8::E4m3fn);
            assert!((0..x.len()).all(|i| usize::from(y[i]) == i % numbers.len()));
            let mut back = vec![0.0; x.len()];
            dequantize_float8(&ctx, &y, &table, &mut back);
            assert_eq!(back, x);
        }
    }
}

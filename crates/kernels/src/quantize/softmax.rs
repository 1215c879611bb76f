//! Softmax of quantised rows, by a table of exponentials.

use super::Quant;
use crate::Ctx;
use crate::activation::GRAIN;
use crate::gemm::Bytes;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// Probabilities of rows of `width` bytes of scale `scale`, times the whole part of 1 / scale of
/// `to`, plus its zero point, as ONNX Runtime's QLinearSoftmax scales them; signed input gives
/// signed output. 1 / scale of `to` is finite.
///
/// # Panics
/// When input and output differ in length, or rows do not fill them.
pub fn softmax8(ctx: &Ctx, x: Bytes, scale: f32, width: usize, y: &mut [u8], to: Quant) {
    let (x, signed) = x.raw();
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    if y.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(width), "rows fill the input");
    // A byte is so many steps below the largest of its row.
    let table = std::array::from_fn(|i| (-(i as f64) * f64::from(scale)).exp());
    let shared = Shared::new(y);
    let grain = (GRAIN / width).max(1);
    ctx.threads()
        .parallel_ranges(shared.len() / width, grain, |range| {
            let range = range.start * width..range.end * width;
            // SAFETY: rows of different tasks do not overlap.
            let y = unsafe { shared.slice(range.clone()) };
            let rows = Rows {
                table: &table,
                x: &x[range],
                width,
                y,
                to,
                signed,
            };
            dispatch(ctx.isa(), rows);
        });
}

struct Rows<'a> {
    table: &'a [f64; 256],
    x: &'a [u8],
    width: usize,
    y: &'a mut [u8],
    to: Quant,
    signed: bool,
}

impl Body for Rows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let steps = f64::from((1.0 / self.to.scale).floor());
        let zero = f64::from(self.to.zero);
        let (flip, lo, hi) = if self.signed {
            (0x80, -128.0, 127.0)
        } else {
            (0, 0.0, 255.0)
        };
        let mut powers = vec![0f64; self.width];
        let rows = self.x.chunks_exact(self.width);
        for (x, y) in rows.zip(self.y.chunks_exact_mut(self.width)) {
            let mut most = 0;
            for x in x {
                most = u8::max(most, x ^ flip);
            }
            let mut sum = 0.0;
            for (power, x) in powers.iter_mut().zip(x) {
                *power = self.table[usize::from(most - (x ^ flip))];
                sum += *power;
            }
            for (power, y) in powers.iter().zip(y) {
                let p = (power * steps / sum).round_ties_even() + zero;
                *y = p.clamp(lo, hi) as i32 as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, contexts};

    #[test]
    fn rows_are_probabilities_of_their_numbers() {
        let mut random = Random::new(31);
        for width in [1, 2, 17, 300] {
            let x = random.signed(5 * width);
            for (to, ctx) in [(1.0 / 256.0, -128), (0.3, 5)]
                .into_iter()
                .flat_map(|to| contexts().into_iter().map(move |c| (to, c)))
            {
                let to = Quant {
                    scale: to.0,
                    zero: to.1,
                };
                let mut y = vec![1; x.len()];
                softmax8(&ctx, Bytes::I8(&x), 0.07, width, &mut y, to);
                for (x, y) in x.chunks(width).zip(y.chunks(width)) {
                    let scale = f64::from(0.07f32);
                    let e: Vec<f64> = x.iter().map(|&x| (f64::from(x) * scale).exp()).collect();
                    let sum: f64 = e.iter().sum();
                    for (e, y) in e.iter().zip(y) {
                        let p = e / sum * f64::from((1.0 / to.scale).floor());
                        let want = (p.round_ties_even() + f64::from(to.zero)).clamp(-128.0, 127.0);
                        assert!((want - f64::from(*y as i8)).abs() <= 1.0);
                        let apart = (p - p.trunc() - 0.5).abs();
                        assert!(apart < 1e-9 || want == f64::from(*y as i8));
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_nothing() {
        let to = Quant {
            scale: 1.0,
            zero: 0,
        };
        softmax8(&Ctx::serial(), Bytes::U8(&[]), 1.0, 0, &mut [], to);
    }
}

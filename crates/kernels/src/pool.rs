//! Pooling of channels-last images.

mod gradient;
mod largest;

pub use gradient::{average_pool_gradient, max_pool_gradient};

use std::ops::Range;

use half::bf16;

use crate::Ctx;
use crate::activation::GRAIN;
use crate::gemm::Bytes;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// Windows over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolGeometry {
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Steps of the output in the input.
    pub stride: [usize; 2],
    /// Rows above and columns left of the input.
    pub pad_begin: [usize; 2],
    /// Rows below and columns right of the input.
    pub pad_end: [usize; 2],
    /// Distance of window elements in the input.
    pub dilation: [usize; 2],
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output, however the caller rounds it.
    pub output: [usize; 2],
    /// Channels.
    pub channels: usize,
}

impl PoolGeometry {
    /// The window that is the whole image.
    pub fn global(input: [usize; 2], channels: usize) -> Self {
        Self {
            kernel: input,
            stride: [1, 1],
            pad_begin: [0, 0],
            pad_end: [0, 0],
            dilation: [1, 1],
            input,
            output: [1, 1],
            channels,
        }
    }

    /// The output size that ONNX gives: rounded down, or up with `ceil`, without windows that
    /// begin in the padding at the end.
    pub fn output_size(&self, ceil: bool) -> [usize; 2] {
        std::array::from_fn(|i| {
            let reach = self.dilation[i] * (self.kernel[i] - 1) + 1;
            let length = self.input[i] + self.pad_begin[i] + self.pad_end[i];
            let room = length.saturating_sub(reach);
            let mut size = room / self.stride[i] + 1;
            if ceil {
                size = room.div_ceil(self.stride[i]) + 1;
                if (size - 1) * self.stride[i] >= self.input[i] + self.pad_begin[i] {
                    size -= 1;
                }
            }
            if length < reach { 0 } else { size }
        })
    }

    /// The most elements of a window that can lie in the image.
    pub fn largest_window(&self) -> usize {
        let side = |i: usize| self.kernel[i].min(self.input[i]);
        side(0).saturating_mul(side(1))
    }

    /// The window elements inside of the image on axis `i` at `out`, and the input place of the
    /// first.
    fn window(&self, i: usize, out: usize) -> (Range<usize>, usize) {
        let from = out * self.stride[i];
        let first = self.pad_begin[i]
            .saturating_sub(from)
            .div_ceil(self.dilation[i]);
        let room = (self.input[i] + self.pad_begin[i]).saturating_sub(from);
        let end = room.div_ceil(self.dilation[i]).min(self.kernel[i]);
        let first = first.min(end);
        (
            first..end,
            (from + first * self.dilation[i]).saturating_sub(self.pad_begin[i]),
        )
    }

    /// Window elements at `out` that lie in the image or its padding.
    fn padded_count(&self, i: usize, out: usize) -> usize {
        let room = self.input[i] + self.pad_begin[i] + self.pad_end[i];
        let room = room.saturating_sub(out * self.stride[i]);
        room.div_ceil(self.dilation[i]).min(self.kernel[i])
    }

    /// Calls `visit` with the first element of each input pixel in the window of `pixel`.
    #[inline(always)]
    fn visit(&self, pixel: usize, mut visit: impl FnMut(usize)) {
        let ([oh, ow], [ih, iw]) = (self.output, self.input);
        let (rows, y) = self.window(0, pixel / ow % oh);
        let (columns, x) = self.window(1, pixel % ow);
        for row in 0..rows.len() {
            let line = pixel / (oh * ow) * ih + y + row * self.dilation[0];
            for column in 0..columns.len() {
                visit((line * iw + x + column * self.dilation[1]) * self.channels);
            }
        }
    }

    fn check(&self, batch: usize, x: usize, y: usize) -> usize {
        let pixels = batch * self.output[0] * self.output[1];
        assert!(
            self.stride.iter().chain(&self.dilation).all(|n| *n > 0),
            "steps are at least 1"
        );
        assert_eq!(
            x,
            batch * self.input[0] * self.input[1] * self.channels,
            "input size"
        );
        assert_eq!(y, pixels * self.channels, "output size");
        pixels
    }
}

/// An element that can be the largest of a window.
pub trait Largest: Copy + Send + Sync {
    /// What a window without elements gives.
    const LEAST: Self;
    /// The larger; NaN if either is.
    fn larger(self, other: Self) -> Self;
    /// The largest of each window by vectors, where there is a kernel for it.
    fn by_vectors(ctx: &Ctx, g: &PoolGeometry, x: &[Self], y: &mut [Self]) -> bool {
        let _ = (ctx, g, x, y);
        false
    }
}

impl Largest for f32 {
    const LEAST: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn larger(self, other: f32) -> f32 {
        if self > other || self.is_nan() {
            self
        } else {
            other
        }
    }
    fn by_vectors(ctx: &Ctx, g: &PoolGeometry, x: &[f32], y: &mut [f32]) -> bool {
        largest::of_windows(ctx, g, x, y)
    }
}

/// Rounding keeps the order: the largest of rounded numbers is the largest one, rounded.
impl Largest for bf16 {
    const LEAST: bf16 = bf16::NEG_INFINITY;
    #[inline(always)]
    fn larger(self, other: bf16) -> bf16 {
        if self > other || self.is_nan() {
            self
        } else {
            other
        }
    }
    #[cfg(target_arch = "x86_64")]
    fn by_vectors(ctx: &Ctx, g: &PoolGeometry, x: &[bf16], y: &mut [bf16]) -> bool {
        ctx.isa().multiplies_bf16() && largest::of_windows(ctx, g, x, y)
    }
}

impl Largest for u8 {
    const LEAST: u8 = 0;
    #[inline(always)]
    fn larger(self, other: u8) -> u8 {
        self.max(other)
    }
}

impl Largest for i8 {
    const LEAST: i8 = i8::MIN;
    #[inline(always)]
    fn larger(self, other: i8) -> i8 {
        self.max(other)
    }
}

/// The largest of each window; padding is never the largest.
pub fn max_pool<T: Largest>(ctx: &Ctx, g: &PoolGeometry, batch: usize, x: &[T], y: &mut [T]) {
    let pixels = g.check(batch, x.len(), y.len());
    if pixels == 0 || T::by_vectors(ctx, g, x, y) {
        return;
    }
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(pixels, grain(g), |range| {
        // SAFETY: pixels of different tasks do not overlap.
        let y = unsafe { shared.slice(range.start * g.channels..range.end * g.channels) };
        dispatch(ctx.isa(), MaxBlock { g, x, range, y });
    });
}

fn grain(g: &PoolGeometry) -> usize {
    (GRAIN / (g.kernel[0] * g.kernel[1] * g.channels).max(1)).max(1)
}

struct MaxBlock<'a, T> {
    g: &'a PoolGeometry,
    x: &'a [T],
    range: Range<usize>,
    y: &'a mut [T],
}

impl<T: Largest> Body for MaxBlock<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let channels = self.g.channels.max(1);
        for (pixel, y) in self.range.zip(self.y.chunks_exact_mut(channels)) {
            y.fill(T::LEAST);
            self.g.visit(pixel, |at| {
                for (y, x) in y.iter_mut().zip(&self.x[at..at + channels]) {
                    *y = x.larger(*y);
                }
            });
        }
    }
}

/// The mean of each window; with `include_pad`, padding counts as zeros.
pub fn average_pool(
    ctx: &Ctx,
    g: &PoolGeometry,
    batch: usize,
    include_pad: bool,
    x: &[f32],
    y: &mut [f32],
) {
    let pixels = g.check(batch, x.len(), y.len());
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(pixels, grain(g), |range| {
        // SAFETY: pixels of different tasks do not overlap.
        let y = unsafe { shared.slice(range.start * g.channels..range.end * g.channels) };
        dispatch(
            ctx.isa(),
            MeanBlock {
                g,
                x,
                range,
                include_pad,
                y,
            },
        );
    });
}

/// Elements that a mean divides by, given those in the image.
fn divisor(g: &PoolGeometry, pixel: usize, include_pad: bool) -> usize {
    let (oy, ox) = (pixel / g.output[1] % g.output[0], pixel % g.output[1]);
    if include_pad {
        g.padded_count(0, oy) * g.padded_count(1, ox)
    } else {
        g.window(0, oy).0.len() * g.window(1, ox).0.len()
    }
}

struct MeanBlock<'a> {
    g: &'a PoolGeometry,
    x: &'a [f32],
    range: Range<usize>,
    include_pad: bool,
    y: &'a mut [f32],
}

impl Body for MeanBlock<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let channels = self.g.channels.max(1);
        for (pixel, y) in self.range.zip(self.y.chunks_exact_mut(channels)) {
            y.fill(0.0);
            self.g.visit(pixel, |at| {
                for (y, x) in y.iter_mut().zip(&self.x[at..at + channels]) {
                    *y += x;
                }
            });
            let count = divisor(self.g, pixel, self.include_pad).max(1) as f32;
            y.iter_mut().for_each(|y| *y /= count);
        }
    }
}

/// Quantisation of bytes: `real = scale (q - zero)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quant {
    /// Real distance of neighbours.
    pub scale: f32,
    /// What stands for 0.
    pub zero: i32,
}

/// Bytes of a window whose sum stays in 32 bits.
pub const MOST_BYTES: usize = i32::MAX as usize / 255;

/// How means of bytes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means {
    /// Padding counts as zeros.
    pub include_pad: bool,
    /// The zero point is added before rounding, which decides where a mean lies halfway between
    /// two bytes.
    pub round_shifted: bool,
}

/// The mean of each window of bytes, brought from `from` to `to`; signed input gives signed
/// output. The sum of a window, which has at most [`MOST_BYTES`] in the image, is exact:
/// `clamp(round((sum - count zero) from.scale / (to.scale count)) + to.zero)`, ties to even.
#[allow(
    clippy::too_many_arguments,
    reason = "input, output and both quantisations"
)]
pub fn average_pool8(
    ctx: &Ctx,
    g: &PoolGeometry,
    batch: usize,
    means: Means,
    x: Bytes,
    from: Quant,
    y: &mut [u8],
    to: Quant,
) {
    let (x, signed) = x.raw();
    let pixels = g.check(batch, x.len(), y.len());
    let shared = Shared::new(y);
    ctx.threads().parallel_ranges(pixels, grain(g), |range| {
        // SAFETY: pixels of different tasks do not overlap.
        let y = unsafe { shared.slice(range.start * g.channels..range.end * g.channels) };
        dispatch(
            ctx.isa(),
            MeanBlock8 {
                g,
                x,
                range,
                means,
                signed,
                from,
                to,
                y,
            },
        );
    });
}

struct MeanBlock8<'a> {
    g: &'a PoolGeometry,
    x: &'a [u8],
    range: Range<usize>,
    means: Means,
    signed: bool,
    from: Quant,
    to: Quant,
    y: &'a mut [u8],
}

impl Body for MeanBlock8<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let channels = self.g.channels.max(1);
        let (flip, shift) = if self.signed { (0x80, 128) } else { (0, 0) };
        let (lo, hi) = if self.signed {
            (-128.0, 127.0)
        } else {
            (0.0, 255.0)
        };
        let mut sums = vec![0i32; channels];
        for (pixel, y) in self.range.zip(self.y.chunks_exact_mut(channels)) {
            let mut inside = 0;
            sums.fill(0);
            self.g.visit(pixel, |at| {
                inside += 1;
                for (sum, x) in sums.iter_mut().zip(&self.x[at..at + channels]) {
                    *sum += i32::from(x ^ flip);
                }
            });
            let count = divisor(self.g, pixel, self.means.include_pad).max(1);
            let offset = inside * (self.from.zero + shift);
            let factor = self.from.scale / (self.to.scale * count as f32);
            let zero = self.to.zero as f32;
            let (before, after) = if self.means.round_shifted {
                (zero, 0.0)
            } else {
                (0.0, zero)
            };
            for (y, sum) in y.iter_mut().zip(&sums) {
                let value = ((sum - offset) as f32 * factor + before).round_ties_even();
                *y = (value + after).clamp(lo, hi) as i32 as u8;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    pub(super) fn some(random: &mut Random) -> PoolGeometry {
        let mut g = PoolGeometry {
            kernel: [1 + random.below(3), 1 + random.below(3)],
            stride: [1 + random.below(2), 1 + random.below(3)],
            pad_begin: [0; 2],
            pad_end: [0; 2],
            dilation: [1 + random.below(2), 1],
            input: [5 + random.below(5), 5 + random.below(5)],
            output: [0; 2],
            channels: random.pick(&[1, 3, 8, 17, 33]),
        };
        g.pad_begin = g.kernel.map(|k| random.below(k));
        g.pad_end = g.kernel.map(|k| random.below(k));
        g.output = g.output_size(random.below(2) == 0);
        g
    }

    /// The values of a window, and how many places of it are image or padding.
    fn window(g: &PoolGeometry, x: &[f32], at: usize) -> (Vec<f32>, usize) {
        let (pixel, c) = (at / g.channels, at % g.channels);
        let (oy, ox) = (pixel / g.output[1] % g.output[0], pixel % g.output[1]);
        let image = pixel / (g.output[0] * g.output[1]);
        let (mut values, mut padded) = (vec![], 0);
        for i in 0..g.kernel[0] * g.kernel[1] {
            let y = oy * g.stride[0] + i / g.kernel[1] * g.dilation[0];
            let z = ox * g.stride[1] + i % g.kernel[1] * g.dilation[1];
            let end = |i: usize| g.input[i] + g.pad_begin[i] + g.pad_end[i];
            padded += usize::from(y < end(0) && z < end(1));
            let (y, z) = (
                y.wrapping_sub(g.pad_begin[0]),
                z.wrapping_sub(g.pad_begin[1]),
            );
            if y < g.input[0] && z < g.input[1] {
                values.push(x[((image * g.input[0] + y) * g.input[1] + z) * g.channels + c]);
            }
        }
        (values, padded)
    }

    #[test]
    fn pools_equal_their_definitions() {
        let mut random = Random::new(17);
        for round in 0..120 {
            let (g, include) = (some(&mut random), round % 2 == 0);
            let x = random.bytes(2 * g.input[0] * g.input[1] * g.channels);
            let fx: Vec<f32> = x.iter().map(|x| f32::from(*x)).collect();
            let sx: Vec<f32> = x.iter().map(|x| f32::from(*x as i8)).collect();
            let n = 2 * g.output[0] * g.output[1] * g.channels;
            let largest = |x: &[f32], i| window(&g, x, i).0.into_iter().fold(f32::MIN, f32::max);
            let mean = |x: &[f32], i: usize, zero: f32| {
                let (values, padded) = window(&g, x, i);
                let count = if include { padded } else { values.len() };
                (
                    values.iter().map(|x| x - zero).sum::<f32>(),
                    count.max(1) as f32,
                )
            };
            let (from, to) = (
                Quant {
                    scale: 0.1,
                    zero: 4,
                },
                Quant {
                    scale: 0.3,
                    zero: -3,
                },
            );
            for ctx in contexts() {
                let mut y = vec![0.0; n];
                max_pool(&ctx, &g, 2, &fx, &mut y);
                assert_eq!(y, (0..n).map(|i| largest(&fx, i)).collect::<Vec<_>>());
                let bx: Vec<bf16> = fx.iter().map(|x| bf16::from_f32(*x - 100.0)).collect();
                let mut y = vec![bf16::ZERO; n];
                max_pool(&ctx, &g, 2, &bx, &mut y);
                let want = (0..n).map(|i| bf16::from_f32(largest(&fx, i) - 100.0));
                assert_eq!(y, want.collect::<Vec<_>>());
                let mut y = vec![0i8; n];
                max_pool(&ctx, &g, 2, bytemuck::cast_slice(&x), &mut y);
                assert_eq!(y, (0..n).map(|i| largest(&sx, i) as i8).collect::<Vec<_>>());
                let mut y = vec![0.0; n];
                average_pool(&ctx, &g, 2, include, &fx, &mut y);
                let want: Vec<f32> = (0..n)
                    .map(|i| mean(&fx, i, 0.0))
                    .map(|(sum, count)| sum / count)
                    .collect();
                close(&y, &want, 1e-6, "mean");
                let mut y = vec![0u8; n];
                let bytes = Bytes::I8(bytemuck::cast_slice(&x));
                for round_shifted in [false, true] {
                    let means = Means {
                        include_pad: include,
                        round_shifted,
                    };
                    average_pool8(&ctx, &g, 2, means, bytes, from, &mut y, to);
                    for (i, y) in y.iter().enumerate() {
                        let (sum, count) = mean(&sx, i, 4.0);
                        let real = sum * (0.1 / (0.3 * count));
                        let want = match round_shifted {
                            true => (real - 3.0).round_ties_even(),
                            false => real.round_ties_even() - 3.0,
                        };
                        assert_eq!(f32::from(*y as i8), want.clamp(-128.0, 127.0));
                    }
                }
            }
        }
    }

    #[test]
    fn nan_and_infinity_are_the_largest_of_their_windows() {
        let mut random = Random::new(18);
        for round in 0..40 {
            let g = some(&mut random);
            let mut x = random.floats(2 * g.input[0] * g.input[1] * g.channels);
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let at = random.below(x.len());
                x[at] = value;
            }
            let n = 2 * g.output[0] * g.output[1] * g.channels;
            let largest = |i: usize| {
                let values = window(&g, &x, i).0.into_iter();
                values.fold(f32::NEG_INFINITY, |most, x| x.larger(most))
            };
            let want: Vec<f32> = (0..n).map(largest).collect();
            for ctx in contexts() {
                let mut y = vec![0.0; n];
                max_pool(&ctx, &g, 2, &x, &mut y);
                close(&y, &want, 0.0, &format!("{round}: {g:?}"));
                let rounded =
                    |x: &[f32]| -> Vec<bf16> { x.iter().map(|x| bf16::from_f32(*x)).collect() };
                let mut y = rounded(&y);
                max_pool(&ctx, &g, 2, &rounded(&x), &mut y);
                let y: Vec<f32> = y.iter().map(|y| y.to_f32()).collect();
                let want: Vec<f32> = rounded(&want).iter().map(|y| y.to_f32()).collect();
                close(&y, &want, 0.0, &format!("{round}, rounded: {g:?}"));
            }
        }
    }

    #[test]
    fn a_global_pool_is_one_window() {
        let g = PoolGeometry::global([2, 3], 2);
        let x: Vec<f32> = (0..12).map(|x| x as f32).collect();
        let mut y = [0.0; 2];
        average_pool(&Ctx::serial(), &g, 1, false, &x, &mut y);
        assert_eq!((y, g.output_size(true)), ([5.0, 6.0], [1, 1]));
        max_pool(&Ctx::serial(), &g, 1, &x, &mut y);
        assert_eq!(y, [10.0, 11.0]);
    }
}

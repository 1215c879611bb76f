//! Depthwise convolution of bytes: kernel elements in pairs, both sides widened to 16 bits, or
//! four below each other as bytes where the CPU multiplies so.

mod lines;

use std::ops::Range;

use super::{TOGETHER, Tiles, in_parallel};
use crate::arena::Buffer;
use crate::conv::ConvGeometry;
use crate::gemm::int8::{Bytes, Input8, Store8, Target8, shift, takes_any_bytes};
use crate::simd::{Body, MAX_LANES, Simd, dispatch, takes_signed};
use crate::{Ctx, Isa};

/// Weights `[pairs of kernel elements, channels, 2]` in 16 bits, less their zero point, and as
/// `[fours of kernel rows, columns, channels, 4]` in bytes.
#[derive(Clone, Debug)]
pub(crate) struct DepthwiseI8 {
    isa: Isa,
    pairs: Vec<[usize; 2]>,
    weights: Buffer,
    fours: Option<Buffer>,
    sums: Vec<i32>,
}

/// Which kernel elements are multiplied together: an element and the one below it, and in the
/// last row of an odd number the one to the right. An element that is left over stands twice;
/// its second weight is 0.
fn pairs([height, width]: [usize; 2]) -> Vec<[usize; 2]> {
    let below = (0..height / 2).flat_map(|pair| {
        let row = 2 * pair * width;
        (row..row + width).map(move |at| [at, at + width])
    });
    let (last, end) = (height / 2 * 2 * width, height * width);
    let right = (last..end).step_by(2).map(|at| [at, (at + 1).min(end - 1)]);
    below.chain(right).collect()
}

/// Weights in fours, which `value` gives by kernel element and channel; `None` where one is not
/// a byte.
fn fours(
    [height, width]: [usize; 2],
    channels: usize,
    value: impl Fn(usize, usize) -> i32,
) -> Option<Buffer> {
    let groups = height.div_ceil(4) * width;
    let mut fours = Buffer::zeroed((groups * channels + MAX_LANES) * 4);
    let out = fours.typed_mut::<i8>();
    for tap in 0..height * width {
        let (row, column) = (tap / width, tap % width);
        for c in 0..channels {
            let at = ((row / 4 * width + column) * channels + c) * 4 + row % 4;
            out[at] = value(tap, c).try_into().ok()?;
        }
    }
    Some(fours)
}

/// A depthwise convolution of bytes that is under way.
struct Work<'a> {
    isa: Isa,
    geometry: &'a ConvGeometry,
    x: &'a [u8],
    outside: &'a [u8],
    pairs: &'a [[usize; 2]],
    weights: &'a [i32],
    fours: Option<&'a [i32]>,
    starts: &'a [i32],
}

impl DepthwiseI8 {
    pub(crate) fn new(ctx: &Ctx, g: &ConvGeometry, weights: Bytes, zeros: &[i32]) -> Self {
        let (raw, signed) = weights.raw();
        let channels = g.channels_out;
        let pairs = pairs(g.kernel);
        let raw = g.tap_weights(raw);
        let value = |tap: usize, c: usize| {
            let byte = raw[tap * channels + c];
            let zero = zeros.get(if zeros.len() == 1 { 0 } else { c });
            let value = if signed {
                i32::from(byte as i8)
            } else {
                i32::from(byte)
            };
            value - zero.copied().unwrap_or(0)
        };
        let mut sums = vec![0; channels];
        let mut weights = Buffer::zeroed((pairs.len() * channels + MAX_LANES) * 4);
        let out = weights.typed_mut::<i16>();
        for (pair, [first, second]) in pairs.iter().enumerate() {
            for c in 0..channels {
                let out = &mut out[(pair * channels + c) * 2..][..2];
                out[0] = value(*first, c) as i16;
                sums[c] += value(*first, c);
                if second != first {
                    out[1] = value(*second, c) as i16;
                    sums[c] += value(*second, c);
                }
            }
        }
        let isa = ctx.isa().narrowed(channels);
        let fours = (takes_any_bytes(isa) && lines::serve(isa, g))
            .then(|| fours(g.kernel, channels, value))
            .flatten();
        Self {
            isa,
            pairs,
            weights,
            fours,
            sums,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let fours = self.fours.as_ref().map_or(0, Buffer::len);
        self.weights.len() + fours + self.sums.len() * 4
    }

    pub(crate) fn kernel_name(&self) -> &'static str {
        match self.isa {
            Isa::Avx512Vnni | Isa::Amx if self.fours.is_some() => {
                "x86_64-avx512-vnni-depthwise-u8i8-4x32"
            }
            Isa::AvxVnni if self.fours.is_some() => "x86_64-avx-vnni-depthwise-u8i8-4x16",
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => "x86_64-avx512-depthwise-u8i8-4x32",
            Isa::Avx2 | Isa::AvxVnni => "x86_64-avx2-depthwise-u8i8-4x16",
            Isa::NeonI8mm if self.fours.is_some() => "aarch64-neon-i8mm-depthwise-u8i8-4x8",
            Isa::NeonDot if self.fours.is_some() => "aarch64-neon-dotprod-depthwise-i8i8-4x8",
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => "aarch64-neon-depthwise-u8i8-4x8",
            Isa::Generic => "generic-depthwise-u8i8-4x8",
        }
    }

    /// The slices fit the geometry.
    pub(crate) fn run(
        &self,
        ctx: &Ctx,
        g: &ConvGeometry,
        batch: usize,
        x: Input8,
        bias: Option<&[i32]>,
        target: &Target8,
    ) {
        let (data, signed) = x.data.raw();
        let channels = g.channels_out;
        let signs = self.fours.is_some() && takes_signed(self.isa);
        let shifted = signed != signs;
        let zero = x.zero + if shifted { shift(signed) } else { 0 };
        let start = |c: usize| {
            let bias = bias.map_or(0, |bias| bias[c]);
            bias.wrapping_sub(self.sums[c].wrapping_mul(zero))
        };
        let mut starts: Vec<i32> = (0..channels).map(start).collect();
        starts.resize(channels + MAX_LANES, 0);
        let outside = vec![x.zero as u8; channels];
        let pixels = g.sizes(batch).1 / channels;
        let work = Work {
            isa: self.isa,
            geometry: g,
            x: data,
            outside: &outside,
            pairs: &self.pairs,
            weights: self.weights.typed(),
            fours: self.fours.as_ref().map(Buffer::typed),
            starts: &starts,
        };
        in_parallel(ctx, g, pixels, |range| {
            let to = target.store(0, 0);
            if shifted {
                work.pixels::<true>(range, to);
            } else {
                work.pixels::<false>(range, to);
            }
        });
    }
}

impl Work<'_> {
    /// Computes output pixels, which `Target8::new` checked.
    fn pixels<const SHIFTED: bool>(&self, range: Range<usize>, to: Store8) {
        if lines::serve(self.isa, self.geometry) {
            return lines::run::<SHIFTED>(self, range, to);
        }
        let together = if self.geometry.channels_out < MAX_LANES {
            1
        } else {
            TOGETHER
        };
        let block = Block::<SHIFTED> {
            tiles: Tiles::new(self.geometry, self.x, self.outside, range.clone(), together),
            range,
            channels: self.geometry.channels_out,
            work: self,
            to,
        };
        dispatch(self.isa, block);
    }
}

/// Shifts bytes, interleaved, by 128 where asked to.
#[inline(always)]
fn shifted_apart<S: Simd>(s: S, x: S::I, shifted: bool) -> S::I {
    if shifted {
        s.xor_i(x, s.splat_i(0x0080_0080))
    } else {
        x
    }
}

/// `V` vectors of channels at `p`, each with its neighbour at `q`.
///
/// # Safety
/// `V` vectors of bytes are readable at both.
#[inline(always)]
unsafe fn interleave<S: Simd, const V: usize, const SHIFTED: bool>(
    s: S,
    p: *const u8,
    q: *const u8,
) -> [S::I; V] {
    let mut x = [s.splat_i(0); V];
    // SAFETY: the caller's promise.
    unsafe {
        if V == 2 {
            let [low, high] = s.interleave_u8_twice(p, q);
            x[0] = shifted_apart(s, low, SHIFTED);
            x[V - 1] = shifted_apart(s, high, SHIFTED);
        } else {
            x[0] = shifted_apart(s, s.interleave_u8(p, q), SHIFTED);
        }
    }
    x
}

/// Cuts `channels` into parts of two vectors, and one where two do not fit: the first channel
/// of the part at `c`, and its channels. A part of a vector at the end is computed again with
/// what comes before it.
#[inline(always)]
fn part<S: Simd>(channels: usize, c: usize) -> (usize, usize) {
    let left = channels - c;
    if left >= 2 * S::LANES {
        (c, 2 * S::LANES)
    } else {
        (c.min(channels.saturating_sub(S::LANES)), S::LANES)
    }
}

/// Any kernel: reads an address for each pixel and kernel element.
struct Block<'a, const SHIFTED: bool> {
    tiles: Tiles<'a, u8>,
    range: Range<usize>,
    channels: usize,
    work: &'a Work<'a>,
    to: Store8,
}

impl<const SHIFTED: bool> Body for Block<'_, SHIFTED> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut stage = vec![[0u8; MAX_LANES]; if self.channels < S::LANES { 64 } else { 0 }];
        while let Some((pixel, count)) = self.tiles.advance() {
            if self.channels < S::LANES {
                self.stage(&mut stage);
            }
            let mut c = 0;
            while c < self.channels {
                let (at, step) = part::<S>(self.channels, c);
                // SAFETY: `advance` promises a pixel's channels at every address, and there is
                // a vector in the stage; tasks write different pixels, which `Target8::new`
                // checked.
                unsafe {
                    match (count, step > S::LANES) {
                        (TOGETHER, true) => self.tile::<S, TOGETHER, 2>(s, pixel, at),
                        (TOGETHER, false) => self.tile::<S, TOGETHER, 1>(s, pixel, at),
                        (_, true) => self.tile::<S, 1, 2>(s, pixel, at),
                        (_, false) => self.tile::<S, 1, 1>(s, pixel, at),
                    }
                }
                c += step;
            }
        }
        let (at, n) = (
            self.range.start * self.channels,
            self.range.len() * self.channels,
        );
        // SAFETY: these are the pixels that the tiles stored.
        unsafe { self.to.finish(s, at, n) };
    }
}

impl<const SHIFTED: bool> Block<'_, SHIFTED> {
    /// Copies channels that do not fill a vector to where a vector can be read.
    fn stage(&mut self, stage: &mut Vec<[u8; MAX_LANES]>) {
        let taps = &mut self.tiles.taps;
        stage.resize(stage.len().max(taps.len()), [0; MAX_LANES]);
        for (tap, to) in taps.iter_mut().zip(stage) {
            // SAFETY: `advance` promises a pixel's channels, and they fit.
            unsafe { std::ptr::copy_nonoverlapping(*tap, to.as_mut_ptr(), self.channels) };
            *tap = to.as_ptr();
        }
    }

    /// `T` pixels, `V` vectors of channels from `c` on.
    ///
    /// # Safety
    /// `V` vectors of bytes are readable from `c` on at every address of the tiles, `T` for each
    /// kernel element.
    #[inline(always)]
    unsafe fn tile<S: Simd, const T: usize, const V: usize>(&self, s: S, pixel: usize, c: usize) {
        // SAFETY: the caller's promise; weights and starts are padded by a vector.
        unsafe {
            let starts = self.work.starts.as_ptr().add(c);
            let starts: [S::I; V] = s.load_all_i(starts);
            let mut sums = [starts; T];
            let taps = self.tiles.taps.as_chunks::<T>().0;
            for (pair, [first, second]) in self.work.pairs.iter().enumerate() {
                let w = self.work.weights.as_ptr().add(pair * self.channels + c);
                let w: [S::I; V] = s.load_all_i(w);
                let (first, second) = (&taps[*first], &taps[*second]);
                for t in 0..T {
                    let (p, q) = (first[t].add(c), second[t].add(c));
                    let x = interleave::<S, V, SHIFTED>(s, p, q);
                    for v in 0..V {
                        sums[t][v] = s.dot_pairs(sums[t][v], x[v], w[v]);
                    }
                }
            }
            let last = (self.channels - c - (V - 1) * S::LANES).min(S::LANES);
            self.to
                .put(s, sums, pixel * self.channels + c, self.channels, c, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_hold_every_kernel_element_once() {
        for kernel in [[1, 1], [3, 3], [2, 3], [5, 5], [1, 4], [4, 1], [7, 2]] {
            let mut all: Vec<usize> = pairs(kernel)
                .into_iter()
                .flat_map(|[a, b]| [Some(a), (b != a).then_some(b)])
                .flatten()
                .collect();
            all.sort_unstable();
            assert_eq!(all, (0..kernel[0] * kernel[1]).collect::<Vec<_>>());
        }
    }
}

//! Depthwise convolution of bytes: kernel elements in pairs, both sides widened to 16 bits.

use std::ops::Range;

use super::{TOGETHER, Tiles, grain};
use crate::arena::Buffer;
use crate::conv::ConvGeometry;
use crate::gemm::int8::{Bytes, Input8, Store8, Target8};
use crate::simd::{Body, MAX_LANES, Simd, dispatch};
use crate::{Ctx, Isa};

/// Weights `[pairs of kernel elements, channels, 2]` in 16 bits, less their zero point.
#[derive(Clone, Debug)]
pub(crate) struct DepthwiseI8 {
    isa: Isa,
    weights: Buffer,
    sums: Vec<i32>,
}

impl DepthwiseI8 {
    pub(crate) fn new(ctx: &Ctx, g: &ConvGeometry, weights: Bytes, zeros: &[i32]) -> Self {
        let (raw, signed) = weights.raw();
        let (channels, taps) = (g.channels_out, g.kernel[0] * g.kernel[1]);
        let mut sums = vec![0; channels];
        let mut weights = Buffer::zeroed((taps.div_ceil(2) * channels + MAX_LANES) * 4);
        let out = weights.typed_mut::<i16>();
        for (i, byte) in g.tap_weights(raw).into_iter().enumerate() {
            let (tap, c) = (i / channels, i % channels);
            let value = if signed {
                i32::from(byte as i8)
            } else {
                i32::from(byte)
            };
            let zero = zeros
                .get(if zeros.len() == 1 { 0 } else { c })
                .copied()
                .unwrap_or(0);
            out[(tap / 2 * channels + c) * 2 + tap % 2] = (value - zero) as i16;
            sums[c] += value - zero;
        }
        Self {
            isa: ctx.isa(),
            weights,
            sums,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weights.len() + self.sums.len() * 4
    }

    pub(crate) fn kernel_name(&self) -> &'static str {
        match self.isa {
            Isa::Avx512 | Isa::Avx512Vnni => "x86_64-avx512-depthwise-u8i8-4x32",
            Isa::Avx2 | Isa::AvxVnni => "x86_64-avx2-depthwise-u8i8-4x16",
            Isa::Neon => "aarch64-neon-depthwise-u8i8-4x8",
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
        let zero = x.zero + if signed { 128 } else { 0 };
        let start = |c: usize| {
            let bias = bias.map_or(0, |bias| bias[c]);
            bias.wrapping_sub(self.sums[c].wrapping_mul(zero))
        };
        let mut starts: Vec<i32> = (0..channels).map(start).collect();
        starts.resize(channels + MAX_LANES, 0);
        let outside = vec![x.zero as u8; channels];
        let together = if channels < MAX_LANES { 1 } else { TOGETHER };
        let pixels = g.sizes(batch).1 / channels;
        ctx.threads().parallel_ranges(pixels, grain(g), |range| {
            let tiles = Tiles::new(g, data, &outside, range.clone(), together);
            let (weights, starts, to) = (self.weights.typed(), &starts[..], target.store(0, 0));
            if signed {
                let block = Block::<true> {
                    tiles,
                    range,
                    channels,
                    weights,
                    starts,
                    to,
                };
                dispatch(self.isa, block);
            } else {
                let block = Block::<false> {
                    tiles,
                    range,
                    channels,
                    weights,
                    starts,
                    to,
                };
                dispatch(self.isa, block);
            }
        });
    }
}

/// Shifts signed bytes, interleaved, by 128.
#[inline(always)]
fn signed_apart<S: Simd>(s: S, x: S::I, signed: bool) -> S::I {
    if signed {
        s.xor_i(x, s.splat_i(0x0080_0080))
    } else {
        x
    }
}

struct Block<'a, const SIGNED: bool> {
    tiles: Tiles<'a, u8>,
    range: Range<usize>,
    channels: usize,
    weights: &'a [i32],
    starts: &'a [i32],
    to: Store8,
}

impl<const SIGNED: bool> Body for Block<'_, SIGNED> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut stage = vec![[0u8; MAX_LANES]; if self.channels < S::LANES { 64 } else { 0 }];
        while let Some((pixel, count)) = self.tiles.advance() {
            if self.channels < S::LANES {
                self.stage(&mut stage);
                self.pair_up(count);
                // SAFETY: every address has a vector of bytes in the stage.
                unsafe { self.tile::<S, 1, 1>(s, pixel, 0) };
                continue;
            }
            self.pair_up(count);
            let mut c = 0;
            while c < self.channels {
                let left = self.channels - c;
                let pair = left >= 2 * S::LANES;
                // A part of a vector at the end is computed again with what comes before it.
                let at = if left < S::LANES {
                    self.channels - S::LANES
                } else {
                    c
                };
                // SAFETY: `advance` promises a pixel's channels at every address, and tasks
                // write different pixels, which `Target8::new` checked.
                unsafe {
                    match (count, pair) {
                        (TOGETHER, true) => self.tile::<S, TOGETHER, 2>(s, pixel, at),
                        (TOGETHER, false) => self.tile::<S, TOGETHER, 1>(s, pixel, at),
                        (_, true) => self.tile::<S, 1, 2>(s, pixel, at),
                        (_, false) => self.tile::<S, 1, 1>(s, pixel, at),
                    }
                }
                c += if pair { 2 * S::LANES } else { S::LANES };
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

impl<const SIGNED: bool> Block<'_, SIGNED> {
    /// Makes the number of kernel elements even; the weights of the one too many are 0.
    fn pair_up(&mut self, count: usize) {
        if self.tiles.taps.len() / count % 2 == 1 {
            self.tiles.taps.extend_from_within(..count);
        }
    }

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
    /// kernel element, the number of which is even.
    #[inline(always)]
    unsafe fn tile<S: Simd, const T: usize, const V: usize>(&self, s: S, pixel: usize, c: usize) {
        // SAFETY: the caller's promise; weights and starts are padded by a vector.
        unsafe {
            let starts = self.starts.as_ptr().add(c);
            let starts: [S::I; V] = std::array::from_fn(|v| s.load_i(starts.add(v * S::LANES)));
            let mut sums = [starts; T];
            for (pair, taps) in self.tiles.taps.chunks_exact(2 * T).enumerate() {
                let w = self.weights.as_ptr().add(pair * self.channels + c);
                let w: [S::I; V] = std::array::from_fn(|v| s.load_i(w.add(v * S::LANES)));
                for (t, sums) in sums.iter_mut().enumerate() {
                    let (p, q) = (taps[t].add(c), taps[T + t].add(c));
                    if V == 2 {
                        let x = s.interleave_u8_twice(p, q);
                        for v in 0..V {
                            sums[v] = s.dot_pairs(sums[v], signed_apart(s, x[v], SIGNED), w[v]);
                        }
                    } else {
                        let x = signed_apart(s, s.interleave_u8(p, q), SIGNED);
                        sums[0] = s.dot_pairs(sums[0], x, w[0]);
                    }
                }
            }
            let last = (self.channels - c - (V - 1) * S::LANES).min(S::LANES);
            self.to
                .put(s, sums, pixel * self.channels + c, self.channels, c, last);
        }
    }
}

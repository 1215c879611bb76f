//! Depthwise convolution of floats.

use std::ops::Range;

use super::{TOGETHER, Tiles, grain};
use crate::arena::Buffer;
use crate::conv::ConvGeometry;
use crate::gemm::f32::{Epilogue, Store, Target, load_row};
use crate::simd::{Body, Simd, dispatch};
use crate::{Ctx, Isa};

/// Weights `[kernel elements, channels]`.
#[derive(Clone, Debug)]
pub(crate) struct DepthwiseF32 {
    isa: Isa,
    weights: Buffer,
}

impl DepthwiseF32 {
    pub(crate) fn new(ctx: &Ctx, g: &ConvGeometry, weights: &[f32]) -> Self {
        let ordered = g.tap_weights(weights);
        let mut weights = Buffer::zeroed(ordered.len() * 4);
        weights.typed_mut::<f32>().copy_from_slice(&ordered);
        Self {
            isa: ctx.isa(),
            weights,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weights.len()
    }

    pub(crate) fn kernel_name(&self) -> &'static str {
        match self.isa {
            Isa::Avx512 | Isa::Avx512Vnni => "x86_64-avx512-depthwise-f32-4x32",
            Isa::Avx2 | Isa::AvxVnni => "x86_64-avx2-depthwise-f32-4x16",
            Isa::Neon => "aarch64-neon-depthwise-f32-4x8",
            Isa::Generic => "generic-depthwise-f32-4x8",
        }
    }

    pub(crate) fn run(
        &self,
        ctx: &Ctx,
        g: &ConvGeometry,
        batch: usize,
        x: &[f32],
        y: &mut [f32],
        epilogue: &Epilogue,
    ) {
        let channels = g.channels_out;
        let pixels = g.sizes(batch).1 / channels;
        let target = Target::new(pixels, channels, y, channels, epilogue);
        let outside = vec![0.0; channels];
        ctx.threads().parallel_ranges(pixels, grain(g), |range| {
            let block = Block {
                tiles: Tiles::new(g, x, &outside, range.clone(), TOGETHER),
                range,
                channels,
                weights: self.weights.typed(),
                target: &target,
                to: target.store(0, 0),
            };
            dispatch(self.isa, block);
        });
    }
}

struct Block<'a> {
    tiles: Tiles<'a, f32>,
    range: Range<usize>,
    channels: usize,
    weights: &'a [f32],
    target: &'a Target<'a>,
    to: Store,
}

impl Body for Block<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        while let Some((pixel, count)) = self.tiles.advance() {
            let mut c = 0;
            while c < self.channels {
                let left = self.channels - c;
                // SAFETY: `advance` promises a pixel's channels at every address, and tasks
                // write different pixels, which `Target::new` checked.
                unsafe {
                    match (count, left > S::LANES) {
                        (TOGETHER, true) => self.tile::<S, TOGETHER, 2>(s, pixel, c),
                        (TOGETHER, false) => self.tile::<S, TOGETHER, 1>(s, pixel, c),
                        (_, true) => self.tile::<S, 1, 2>(s, pixel, c),
                        (_, false) => self.tile::<S, 1, 1>(s, pixel, c),
                    }
                }
                c += if left > S::LANES {
                    2 * S::LANES
                } else {
                    S::LANES
                };
            }
        }
        if let Some(activation) = self.target.then() {
            // SAFETY: these are the pixels that the tiles stored.
            unsafe {
                let (at, n) = (
                    self.range.start * self.channels,
                    self.range.len() * self.channels,
                );
                self.to.finish(s, activation, at, n);
            }
        }
    }
}

impl Block<'_> {
    /// `T` pixels, `V` vectors of channels from `c` on, the last of them perhaps in part.
    ///
    /// # Safety
    /// A pixel is readable at every address of the tiles, `T` for each kernel element.
    #[inline(always)]
    unsafe fn tile<S: Simd, const T: usize, const V: usize>(&self, s: S, pixel: usize, c: usize) {
        let last = (self.channels - c - (V - 1) * S::LANES).min(S::LANES);
        let mut sums = [[s.splat(0.0); V]; T];
        // SAFETY: the caller's promise, and weights have rows of all channels.
        unsafe {
            if last == S::LANES {
                for (tap, x) in self.tiles.taps.as_chunks::<T>().0.iter().enumerate() {
                    let w = self.weights.as_ptr().add(tap * self.channels + c);
                    let w: [S::F; V] = std::array::from_fn(|v| s.load(w.add(v * S::LANES)));
                    for (sums, x) in sums.iter_mut().zip(x) {
                        for v in 0..V {
                            sums[v] = s.fma(s.load(x.add(c + v * S::LANES)), w[v], sums[v]);
                        }
                    }
                }
            } else {
                for (tap, x) in self.tiles.taps.as_chunks::<T>().0.iter().enumerate() {
                    let mut w = [s.splat(0.0); V];
                    load_row(
                        s,
                        &mut w,
                        self.weights.as_ptr().add(tap * self.channels + c),
                        last,
                    );
                    for (sums, x) in sums.iter_mut().zip(x) {
                        let mut row = [s.splat(0.0); V];
                        load_row(s, &mut row, x.add(c), last);
                        for v in 0..V {
                            sums[v] = s.fma(row[v], w[v], sums[v]);
                        }
                    }
                }
            }
            let at = pixel * self.channels + c;
            self.to.put(s, sums, at, self.channels, c, last);
        }
    }
}

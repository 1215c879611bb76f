//! Depthwise convolution of floats.

use std::ops::Range;

use super::strips::{LONG, SHORT, Strips};
use super::{TOGETHER, Tiles, in_parallel};
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
        let weights = match ctx.stored([weights.len() * 4]) {
            Some([stored]) => stored,
            None => {
                let mut made = Buffer::zeroed(weights.len() * 4);
                made.typed_mut::<f32>()
                    .copy_from_slice(&g.tap_weights(weights));
                made
            }
        };
        Self {
            isa: ctx.isa().narrowed(g.channels_out),
            weights,
        }
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(&self.weights)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weights.len()
    }

    pub(crate) fn kernel_name(&self) -> &'static str {
        match self.isa {
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => "x86_64-avx512-depthwise-f32-4x32",
            Isa::Avx2 | Isa::AvxVnni => "x86_64-avx2-depthwise-f32-4x16",
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => "aarch64-neon-depthwise-f32-4x8",
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
        in_parallel(ctx, g, pixels, |range| {
            let part = Part {
                range: range.clone(),
                channels,
                weights: self.weights.typed(),
                target: &target,
                to: target.store(0, 0),
            };
            if Strips::<f32>::suit(g) {
                let strips = Strips::new(g, x, &outside, range);
                let window = (g.kernel[1], g.stride[1]);
                let body = Overlapping {
                    strips,
                    window,
                    part,
                };
                dispatch(self.isa, body);
            } else {
                let tiles = Tiles::new(g, x, &outside, range, TOGETHER);
                dispatch(self.isa, Apart { tiles, part });
            }
        });
    }
}

/// The pixels of one thread, and what is done with their sums.
struct Part<'a> {
    range: Range<usize>,
    channels: usize,
    weights: &'a [f32],
    target: &'a Target<'a>,
    to: Store,
}

impl Part<'_> {
    /// # Safety
    /// The sums of these pixels are stored.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S) {
        if let Some(activation) = self.target.then() {
            let at = self.range.start * self.channels;
            let n = self.range.len() * self.channels;
            // SAFETY: the caller's promise.
            unsafe { self.to.finish(s, activation, at, n) };
        }
    }
}

/// Windows that share columns.
struct Overlapping<'a> {
    strips: Strips<'a, f32>,
    /// Width and distance.
    window: (usize, usize),
    part: Part<'a>,
}

impl Body for Overlapping<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        // SAFETY: `Strips` promises a pixel's channels at every column, and threads write
        // different pixels, which `Target::new` checked.
        unsafe {
            match self.window {
                (3, 1) => self.walk::<S, 3, 1>(s),
                (3, _) => self.walk::<S, 3, 2>(s),
                (_, 1) => self.walk::<S, 5, 1>(s),
                _ => self.walk::<S, 5, 2>(s),
            }
            self.part.finish(s);
        }
    }
}

impl Overlapping<'_> {
    /// All strips of windows that are `W` wide and `D` apart.
    ///
    /// # Safety
    /// A pixel's channels are readable at every column.
    #[inline(always)]
    unsafe fn walk<S: Simd, const W: usize, const D: usize>(&mut self, s: S) {
        while let Some((pixel, count)) = self.strips.advance() {
            let mut c = 0;
            while c < self.part.channels {
                let left = self.part.channels - c;
                // SAFETY: the caller's promise.
                c += unsafe {
                    match count {
                        SHORT if left >= 2 * S::LANES => {
                            self.sums::<S, W, D, SHORT, 2, false>(s, pixel, c)
                        }
                        LONG => self.vector::<S, W, D, LONG>(s, pixel, c),
                        SHORT => self.vector::<S, W, D, SHORT>(s, pixel, c),
                        2 if left >= 4 * S::LANES => self.sums::<S, W, D, 2, 4, false>(s, pixel, c),
                        2 => self.vector::<S, W, D, 2>(s, pixel, c),
                        _ if left >= 4 * S::LANES => self.sums::<S, W, D, 1, 4, false>(s, pixel, c),
                        _ => self.vector::<S, W, D, 1>(s, pixel, c),
                    }
                };
            }
        }
    }

    /// One vector of channels, perhaps in part, of `T` pixels; how many channels that were.
    ///
    /// # Safety
    /// A pixel's channels are readable at every column.
    #[inline(always)]
    unsafe fn vector<S: Simd, const W: usize, const D: usize, const T: usize>(
        &self,
        s: S,
        pixel: usize,
        c: usize,
    ) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            match self.part.channels - c >= S::LANES {
                true => self.sums::<S, W, D, T, 1, false>(s, pixel, c),
                false => self.sums::<S, W, D, T, 1, true>(s, pixel, c),
            }
        }
    }

    /// `T` pixels and `V` vectors of channels from `c` on, in part where `PART`; how many channels
    /// that were.
    ///
    /// # Safety
    /// A pixel's channels are readable at every column.
    #[inline(always)]
    unsafe fn sums<
        S: Simd,
        const W: usize,
        const D: usize,
        const T: usize,
        const V: usize,
        const PART: bool,
    >(
        &self,
        s: S,
        pixel: usize,
        c: usize,
    ) -> usize {
        let channels = self.part.channels;
        let last = if PART { channels - c } else { S::LANES };
        let mut sums = [[s.splat(0.0); V]; T];
        // SAFETY: the caller's promise, and weights have rows of all channels.
        unsafe {
            for line in self.strips.lines() {
                let w = self.part.weights.as_ptr().add(line.ky * W * channels + c);
                let mut taps = [[s.splat(0.0); V]; W];
                for (kx, to) in taps.iter_mut().enumerate() {
                    *to = vectors::<S, V, PART>(s, w.add(kx * channels), last);
                }
                for (column, x) in line.columns.iter().enumerate().take((T - 1) * D + W) {
                    let x = vectors::<S, V, PART>(s, x.add(c), last);
                    for (t, sums) in sums.iter_mut().enumerate() {
                        if column >= t * D && column < t * D + W {
                            for v in 0..V {
                                sums[v] = s.fma(x[v], taps[column - t * D][v], sums[v]);
                            }
                        }
                    }
                }
            }
            let at = pixel * channels + c;
            self.part.to.put(s, sums, at, channels, c, last);
        }
        V * S::LANES
    }
}

/// `V` vectors, or the first `n` lanes of one where `PART`.
///
/// # Safety
/// They are readable at `p`.
#[inline(always)]
unsafe fn vectors<S: Simd, const V: usize, const PART: bool>(
    s: S,
    p: *const f32,
    n: usize,
) -> [S::F; V] {
    // SAFETY: the caller's promise.
    unsafe {
        match PART {
            true => [s.load_n(p, n); V],
            false => s.load_all(p),
        }
    }
}

/// Windows of any width, distance and dilation.
struct Apart<'a> {
    tiles: Tiles<'a, f32>,
    part: Part<'a>,
}

impl Body for Apart<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        while let Some((pixel, count)) = self.tiles.advance() {
            let mut c = 0;
            while c < self.part.channels {
                let left = self.part.channels - c;
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
        // SAFETY: these are the pixels that the tiles stored.
        unsafe { self.part.finish(s) };
    }
}

impl Apart<'_> {
    /// `T` pixels, `V` vectors of channels from `c` on, the last of them perhaps in part.
    ///
    /// # Safety
    /// A pixel is readable at every address of the tiles, `T` for each kernel element.
    #[inline(always)]
    unsafe fn tile<S: Simd, const T: usize, const V: usize>(&self, s: S, pixel: usize, c: usize) {
        let channels = self.part.channels;
        let last = (channels - c - (V - 1) * S::LANES).min(S::LANES);
        let mut sums = [[s.splat(0.0); V]; T];
        // SAFETY: the caller's promise, and weights have rows of all channels.
        unsafe {
            for (tap, x) in self.tiles.taps.as_chunks::<T>().0.iter().enumerate() {
                let mut w = [s.splat(0.0); V];
                let weights = self.part.weights.as_ptr().add(tap * channels + c);
                load_row(s, &mut w, weights, last);
                for (sums, x) in sums.iter_mut().zip(x) {
                    let mut row = [s.splat(0.0); V];
                    load_row(s, &mut row, x.add(c), last);
                    for v in 0..V {
                        sums[v] = s.fma(row[v], w[v], sums[v]);
                    }
                }
            }
            self.part
                .to
                .put(s, sums, pixel * channels + c, channels, c, last);
        }
    }
}

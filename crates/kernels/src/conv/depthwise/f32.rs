//! Depthwise convolution of floats.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use half::bf16;

use super::strips::{LONG, SHORT, Strips};
use super::{TOGETHER, Tiles, in_blocks};
use crate::activation::Activation;
use crate::arena::Buffer;
use crate::conv::ConvGeometry;
use crate::floats::{Channel, Floats, FloatsMut};
#[cfg(target_arch = "x86_64")]
use crate::gemm::f32::AnyStore;
use crate::gemm::f32::{Epilogue, Put, Store, Target};
use crate::gemm::shape;
#[cfg(target_arch = "x86_64")]
use crate::simd::avx512::Avx512;
use crate::simd::{Body, Simd, dispatch};
use crate::{Ctx, Isa};

/// Weights `[kernel elements, channels]`.
#[derive(Clone, Debug)]
pub(crate) struct DepthwiseF32 {
    isa: Isa,
    /// Whether images may be rounded to BF16.
    rounds: bool,
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
            isa: if goes_in_pairs(ctx.isa(), g) {
                ctx.isa()
            } else {
                ctx.isa().narrowed(g.channels_out)
            },
            rounds: ctx.bf16(),
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

    /// Whether images may be rounded to BF16, both of them.
    pub(crate) fn rounds(&self) -> bool {
        self.rounds
    }

    pub(crate) fn run(
        &self,
        ctx: &Ctx,
        g: &ConvGeometry,
        batch: usize,
        (x, y): (Floats, FloatsMut),
        epilogue: &Epilogue,
    ) {
        let channels = g.channels_out;
        let pixels = g.sizes(batch).1 / channels;
        let target = Target::new(pixels, channels, y, channels, epilogue);
        let panel = 2 * shape(self.isa).0;
        match x {
            Floats::F32(x) => {
                let outside = vec![0.0; channels];
                let mut images = Images::new(g, x, &outside, self.weights.typed());
                let (mut weights, mut bias) = (Vec::new(), None);
                if goes_in_pairs(self.isa, g) {
                    let each = images.weights.chunks(channels);
                    weights = each.flat_map(|w| [w, w]).flatten().copied().collect();
                    bias = epilogue.bias.map(|bias| [bias, bias].concat());
                }
                images.twice = &weights;
                let target = target.with_bias(bias.as_deref().or(epilogue.bias));
                in_blocks(ctx, g, pixels, panel, |pixels, channels| {
                    let block = (pixels, channels);
                    let walk = images.walk(block, target.store(0, 0), target.then());
                    dispatch(self.isa, walk);
                });
            }
            #[cfg(target_arch = "x86_64")]
            Floats::Bf16(x) => {
                assert!(self.rounds, "images of BF16 need a CPU that has it");
                let outside = vec![bf16::ZERO; channels];
                let images = Images::new(g, x, &outside, self.weights.typed());
                in_blocks(ctx, g, pixels, panel, |pixels, channels| {
                    let block = (pixels, channels);
                    let walk = images.walk(block, target.any_store(0, 0), None);
                    // SAFETY: the CPU has BF16.
                    unsafe { rounded(walk) };
                });
            }
            #[cfg(not(target_arch = "x86_64"))]
            Floats::Bf16(_) => unreachable!("no kernel here reads BF16"),
        }
    }
}

/// Whether two pixels fill a vector, and windows are neighbours.
fn goes_in_pairs(isa: Isa, g: &ConvGeometry) -> bool {
    let near = (g.kernel[1], g.stride[1], g.dilation[1]) == (3, 1, 1);
    near && 2 * g.channels_out == shape(isa).0
}

/// Runs `walk` with AVX-512 and BF16 enabled.
///
/// # Safety
/// The CPU has them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]
unsafe fn rounded(walk: Walk<bf16, AnyStore>) {
    // SAFETY: the caller's promise.
    walk.go(unsafe { Avx512::prove() });
}

/// Images, and weights.
struct Images<'a, E> {
    g: &'a ConvGeometry,
    x: &'a [E],
    outside: &'a [E],
    weights: &'a [f32],
    /// Weights of all channels twice for each kernel element, where pixels go in pairs.
    twice: &'a [f32],
}

impl<'a, E: Copy> Images<'a, E> {
    /// `outside` is a pixel that stands outside of an image.
    fn new(g: &'a ConvGeometry, x: &'a [E], outside: &'a [E], weights: &'a [f32]) -> Self {
        Self {
            g,
            x,
            outside,
            weights,
            twice: &[],
        }
    }

    /// The work on some output pixels and channels, whose sums go to `to`; then an activation is
    /// left to do.
    fn walk<P>(
        &self,
        (range, own): (Range<usize>, Range<usize>),
        to: P,
        then: Option<Activation>,
    ) -> Walk<'a, E, P> {
        let (g, x, outside) = (self.g, self.x, self.outside);
        let part = Part {
            range: range.clone(),
            own,
            channels: g.channels_out,
            weights: self.weights,
            twice: self.twice,
            to,
            then,
        };
        if Strips::<E>::suit(g) {
            let strips = Strips::new(g, x, outside, range);
            let window = (g.kernel[1], g.stride[1]);
            Walk::Overlapping(Overlapping {
                strips,
                window,
                part,
            })
        } else {
            let tiles = Tiles::new(g, x, outside, range, TOGETHER);
            Walk::Apart(Apart { tiles, part })
        }
    }
}

/// The way over the pixels of one thread.
enum Walk<'a, E, P> {
    Overlapping(Overlapping<'a, E, P>),
    Apart(Apart<'a, E, P>),
}

impl Body for Walk<'_, f32, Store> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.go(s);
    }
}

impl<E: Copy, P> Walk<'_, E, P> {
    #[inline(always)]
    fn go<S: Simd>(self, s: S)
    where
        E: Channel<S>,
        P: Put<S>,
    {
        match self {
            Self::Overlapping(walk) => walk.go(s),
            Self::Apart(walk) => walk.go(s),
        }
    }
}

/// The pixels and channels of one task, and what is done with their sums.
struct Part<'a, P> {
    range: Range<usize>,
    own: Range<usize>,
    /// All channels of a pixel.
    channels: usize,
    weights: &'a [f32],
    twice: &'a [f32],
    to: P,
    /// What is left to do with stored sums.
    then: Option<Activation>,
}

impl<P> Part<'_, P> {
    /// # Safety
    /// The sums of these pixels and channels are stored.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S)
    where
        P: Put<S>,
    {
        let Some(activation) = self.then else {
            return;
        };
        let Range { start, end } = self.range;
        let (pixels, n) = match self.own.len() == self.channels {
            true => (start..start + 1, (end - start) * self.channels),
            false => (start..end, self.own.len()),
        };
        for pixel in pixels {
            let at = pixel * self.channels + self.own.start;
            // SAFETY: the caller's promise.
            unsafe { self.to.finish(s, activation, at, n) };
        }
    }
}

/// Windows that share columns.
struct Overlapping<'a, E, P> {
    strips: Strips<'a, E>,
    /// Width and distance.
    window: (usize, usize),
    part: Part<'a, P>,
}

impl<E: Copy, P> Overlapping<'_, E, P> {
    #[inline(always)]
    fn go<S: Simd>(mut self, s: S)
    where
        E: Channel<S>,
        P: Put<S>,
    {
        // SAFETY: `Strips` promises a pixel's channels at every column, and threads write
        // different pixels, which `Target::new` checked.
        unsafe {
            match self.window {
                (3, 1) => self.walk::<S, 3, 1>(s),
                (3, _) => self.walk::<S, 3, 2>(s),
                (5, 1) => self.walk::<S, 5, 1>(s),
                (5, _) => self.walk::<S, 5, 2>(s),
                _ => self.walk::<S, 7, 1>(s),
            }
            self.part.finish(s);
        }
    }

    /// All strips of windows that are `W` wide and `D` apart.
    ///
    /// # Safety
    /// A pixel's channels are readable at every column.
    #[inline(always)]
    unsafe fn walk<S: Simd, const W: usize, const D: usize>(&mut self, s: S)
    where
        E: Channel<S>,
        P: Put<S>,
    {
        while let Some((pixel, count)) = self.strips.advance() {
            let Range { start: mut c, end } = self.part.own;
            if count == LONG && self.strips.is_inside() && !self.part.twice.is_empty() {
                // SAFETY: the caller's promise.
                unsafe { self.pairs::<S, W>(s, pixel) };
                c = end;
            }
            while c < end {
                let left = end - c;
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

    /// `LONG` pixels of half a vector each, two together, whose windows of `W` are neighbours.
    ///
    /// # Safety
    /// As for [`Self::walk`]; the strip lies inside, weights and bias are there twice.
    #[inline(always)]
    unsafe fn pairs<S: Simd, const W: usize>(&self, s: S, pixel: usize)
    where
        E: Channel<S>,
        P: Put<S>,
    {
        const PAIRS: usize = LONG / 2;
        let channels = self.part.channels;
        let mut sums = [[s.splat(0.0); 1]; PAIRS];
        // SAFETY: the caller's promise.
        unsafe {
            for line in self.strips.lines() {
                let w = self.part.twice.as_ptr().add(line.ky * W * S::LANES);
                let taps: [S::F; W] = s.load_all(w);
                for column in 0..LONG + W - 2 {
                    let x = E::load(s, line.columns[0].add(column * channels), S::LANES);
                    for (t, sums) in sums.iter_mut().enumerate() {
                        if column >= 2 * t && column < 2 * t + W {
                            sums[0] = s.fma(x, taps[column - 2 * t], sums[0]);
                        }
                    }
                }
            }
            self.part
                .to
                .put(s, sums, pixel * channels, S::LANES, 0, S::LANES);
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
    ) -> usize
    where
        E: Channel<S>,
        P: Put<S>,
    {
        // SAFETY: the caller's promise.
        unsafe {
            match self.part.own.end - c >= S::LANES {
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
    ) -> usize
    where
        E: Channel<S>,
        P: Put<S>,
    {
        let channels = self.part.channels;
        let last = if PART {
            self.part.own.end - c
        } else {
            S::LANES
        };
        let mut sums = [[s.splat(0.0); V]; T];
        // SAFETY: the caller's promise, and weights have rows of all channels.
        unsafe {
            for line in self.strips.lines() {
                let w = self.part.weights.as_ptr().add(line.ky * W * channels + c);
                let mut taps = [[s.splat(0.0); V]; W];
                for (kx, to) in taps.iter_mut().enumerate() {
                    *to = vectors::<S, f32, V>(s, w.add(kx * channels), last);
                }
                for (column, x) in line.columns.iter().enumerate().take((T - 1) * D + W) {
                    let x = vectors::<S, E, V>(s, x.add(c), last);
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

/// `V` vectors, the last of them with `last` lanes.
///
/// # Safety
/// They are readable at `p`.
#[inline(always)]
unsafe fn vectors<S: Simd, E: Channel<S>, const V: usize>(
    s: S,
    p: *const E,
    last: usize,
) -> [S::F; V] {
    let mut all = [s.splat(0.0); V];
    for (v, to) in all.iter_mut().enumerate() {
        let n = if v + 1 < V { S::LANES } else { last };
        // SAFETY: the caller's promise.
        *to = unsafe { E::load(s, p.add(v * S::LANES), n) };
    }
    all
}

/// Windows of any width, distance and dilation.
struct Apart<'a, E, P> {
    tiles: Tiles<'a, E>,
    part: Part<'a, P>,
}

impl<E: Copy, P> Apart<'_, E, P> {
    #[inline(always)]
    fn go<S: Simd>(mut self, s: S)
    where
        E: Channel<S>,
        P: Put<S>,
    {
        while let Some((pixel, count)) = self.tiles.advance() {
            let Range { start: mut c, end } = self.part.own;
            while c < end {
                let left = end - c;
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

    /// `T` pixels, `V` vectors of channels from `c` on, the last of them perhaps in part.
    ///
    /// # Safety
    /// A pixel is readable at every address of the tiles, `T` for each kernel element.
    #[inline(always)]
    unsafe fn tile<S: Simd, const T: usize, const V: usize>(&self, s: S, pixel: usize, c: usize)
    where
        E: Channel<S>,
        P: Put<S>,
    {
        let channels = self.part.channels;
        let last = (self.part.own.end - c - (V - 1) * S::LANES).min(S::LANES);
        let mut sums = [[s.splat(0.0); V]; T];
        // SAFETY: the caller's promise, and weights have rows of all channels.
        unsafe {
            for (tap, x) in self.tiles.taps::<T>().iter().enumerate() {
                let w = self.part.weights.as_ptr().add(tap * channels + c);
                let w = vectors::<S, f32, V>(s, w, last);
                for (sums, x) in sums.iter_mut().zip(x) {
                    let row = vectors::<S, E, V>(s, x.add(c), last);
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

#[cfg(test)]
mod tests {
    use crate::conv::ConvGeometry;
    use crate::conv::tests::{check, some_geometry};
    use crate::testing::Random;

    #[test]
    fn windows_of_each_width_equal_the_plain_sum() {
        let mut random = Random::new(21);
        for round in 0..90 {
            let mut g = some_geometry(&mut random);
            let channels = random.pick(&[2, 4, 8, 8, 35, 72, 130]);
            (g.channels_in, g.channels_out, g.groups) = (channels, channels, channels);
            let width = random.pick(&[3, 3, 5, 7]);
            (g.kernel, g.stride, g.dilation) =
                ([1 + round % 4, width], [1, random.pick(&[1, 1, 2])], [1, 1]);
            (g.pad_begin, g.pad_end) = ([1, random.below(3)], [0, random.below(3)]);
            g.input = [4 + random.below(4), width + random.below(40)];
            check(&mut random, &g, round);
        }
    }

    #[test]
    fn few_pixels_are_shared_by_channels() {
        let mut random = Random::new(22);
        for (round, channels) in [64, 65, 130, 160, 193, 260].into_iter().enumerate() {
            for (kernel, stride) in [([3, 3], 1), ([5, 5], 2), ([2, 4], 1)] {
                let g = ConvGeometry {
                    kernel,
                    stride: [stride; 2],
                    pad_begin: [1, 1],
                    pad_end: [1, 1],
                    dilation: [1, 1],
                    groups: channels,
                    input: [5, 5],
                    channels_in: channels,
                    channels_out: channels,
                };
                check(&mut random, &g, round);
            }
        }
    }
}

//! Convolution in small groups of channels: vectors across the outputs of several groups, and each
//! lane picks its group's input from the channels of a pixel.

use std::ops::Range;

use super::ConvGeometry;
use super::depthwise::{Tiles, in_parallel};
use crate::activation::Activation;
use crate::arena::{Buffer, with_scratch};
use crate::gemm::f32::{Put, Store, Target};
use crate::simd::{Body, Simd, dispatch};
use crate::{Ctx, Isa};

/// Pixels that are computed together.
const TOGETHER: usize = 8;

/// Channels of a pixel from which lanes pick.
const CHOICE: usize = 16;

/// Weights `[kernel elements, inputs of a group, channels]`.
#[derive(Clone, Debug)]
pub(crate) struct GroupedF32 {
    isa: Isa,
    weights: Buffer,
}

impl GroupedF32 {
    /// Whether the inputs of any vector of outputs are close together.
    pub fn suits(g: &ConvGeometry) -> bool {
        let (inputs, outputs) = (g.group_in(), g.group_out());
        if g.groups < 2 || outputs == 0 || inputs == 0 || outputs > CHOICE {
            return false;
        }
        let groups_of = |first: usize, lanes: usize| {
            let last = (first + lanes).min(g.channels_out) - 1;
            last / outputs + 1 - first / outputs
        };
        // Vectors have 4, 8 or 16 lanes.
        [4, 8, CHOICE].into_iter().all(|lanes| {
            let mut vectors = (0..g.channels_out).step_by(lanes);
            vectors.all(|first| groups_of(first, lanes) * inputs <= CHOICE)
        })
    }

    pub fn new(ctx: &Ctx, g: &ConvGeometry, weights: &[f32]) -> Self {
        let (taps, inputs, channels) = (g.kernel[0] * g.kernel[1], g.group_in(), g.channels_out);
        let weights = match ctx.stored([weights.len() * 4]) {
            Some([stored]) => stored,
            None => {
                let mut made = Buffer::zeroed(weights.len() * 4);
                let rows = made.typed_mut::<f32>().chunks_exact_mut(channels);
                for (row, to) in rows.enumerate() {
                    let (tap, input) = (row / inputs, row % inputs);
                    for (c, to) in to.iter_mut().enumerate() {
                        *to = weights[(c * inputs + input) * taps + tap];
                    }
                }
                made
            }
        };
        Self {
            isa: ctx.isa().narrowed(channels),
            weights,
        }
    }

    pub fn parts(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(&self.weights)
    }

    pub fn bytes(&self) -> usize {
        self.weights.len()
    }

    pub fn kernel_name(&self) -> &'static str {
        match self.isa {
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => "x86_64-avx512-grouped-f32-8x16",
            Isa::Avx2 | Isa::AvxVnni => "x86_64-avx2-grouped-f32-8x8",
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => "aarch64-neon-grouped-f32-8x4",
            Isa::Generic => "generic-grouped-f32-8x8",
        }
    }

    pub fn run(&self, ctx: &Ctx, g: &ConvGeometry, batch: usize, x: &[f32], target: &Target) {
        let pixels = g.sizes(batch).1 / g.channels_out;
        if g.channels_in >= CHOICE {
            return self.wide(ctx, g, pixels, x, target);
        }
        // Pixels of few channels, with zeros behind.
        let count = x.len() / g.channels_in;
        with_scratch(count * CHOICE, |padded: &mut [f32]| {
            padded.fill(0.0);
            let from = x.chunks_exact(g.channels_in);
            for (to, from) in padded.chunks_exact_mut(CHOICE).zip(from) {
                to[..from.len()].copy_from_slice(from);
            }
            self.wide(ctx, g, pixels, padded, target);
        });
    }

    /// Pixels of at least [`CHOICE`] channels.
    fn wide(&self, ctx: &Ctx, g: &ConvGeometry, pixels: usize, x: &[f32], target: &Target) {
        let mut places = *g;
        places.channels_in = g.channels_in.max(CHOICE);
        let outside = vec![0.0; places.channels_in];
        in_parallel(ctx, g, pixels, |range| {
            let walk = Walk {
                tiles: Tiles::new(&places, x, &outside, range.clone(), TOGETHER),
                group: [g.group_in(), g.group_out()],
                channels: [places.channels_in, g.channels_out],
                weights: self.weights.typed(),
                range,
                to: target.store(0, 0),
                then: target.then(),
            };
            dispatch(self.isa, walk);
        });
    }
}

/// The way over the pixels of one thread.
struct Walk<'a> {
    tiles: Tiles<'a, f32>,
    /// Inputs and outputs of a group.
    group: [usize; 2],
    /// Channels of a pixel that is read, at least [`CHOICE`], and of one that is written.
    channels: [usize; 2],
    weights: &'a [f32],
    range: Range<usize>,
    to: Store,
    /// What is left to do with stored sums.
    then: Option<Activation>,
}

impl Body for Walk<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let outputs = self.channels[1];
        let choices = self.choices(S::LANES);
        while let Some((pixel, count)) = self.tiles.advance() {
            for (v, choice) in choices.iter().enumerate() {
                let at = (pixel, v * S::LANES);
                // SAFETY: `advance` promises a pixel's channels at every address, and tasks write
                // different pixels, which `Target::new` checked.
                unsafe {
                    match count {
                        TOGETHER => self.tile::<S, TOGETHER>(s, at, choice),
                        _ => self.tile::<S, 1>(s, at, choice),
                    }
                }
            }
        }
        if let Some(activation) = self.then {
            let (at, n) = (self.range.start * outputs, self.range.len() * outputs);
            // SAFETY: these are the pixels that the tiles stored.
            unsafe { self.to.finish(s, activation, at, n) };
        }
    }
}

impl Walk<'_> {
    /// Which channels the lanes of each vector of outputs read first: where in a pixel the choice begins,
    /// and the place of each lane in it.
    #[inline(always)]
    fn choices(&self, lanes: usize) -> Vec<(usize, [i32; CHOICE])> {
        let ([inputs, outputs], [from, channels]) = (self.group, self.channels);
        let first = |c: usize| c / outputs * inputs;
        let vectors = (0..channels).step_by(lanes);
        let choice = |c: usize| {
            let base = first(c).min(from - CHOICE);
            let place = |lane: usize| match c + lane < channels && lane < lanes {
                true => (first(c + lane) - base) as i32,
                false => 0,
            };
            (base, std::array::from_fn(place))
        };
        vectors.map(choice).collect()
    }

    /// `T` pixels of a vector of channels from `c` on, perhaps in part, which choose from those that begin at
    /// `base`.
    ///
    /// # Safety
    /// A pixel is readable at every address of the tiles, `T` for each kernel element.
    #[inline(always)]
    unsafe fn tile<S: Simd, const T: usize>(
        &self,
        s: S,
        (pixel, c): (usize, usize),
        (base, places): &(usize, [i32; CHOICE]),
    ) {
        let (inputs, channels) = (self.group[0], self.channels[1]);
        let last = (channels - c).min(S::LANES);
        let mut sums = [[s.splat(0.0); 1]; T];
        // SAFETY: the caller's promise: sixteen channels from `base` on lie in a pixel, and weights
        // have rows of all channels.
        unsafe {
            let first = s.load_i(places.as_ptr());
            let mut w = self.weights.as_ptr().add(c);
            for x in self.tiles.taps::<T>() {
                let mut input = 0;
                while input < inputs {
                    let factor = s.load_up_to(w, last);
                    let place = s.add_i(first, s.splat_i(input as i32));
                    let mut t = 0;
                    while t < T {
                        let choice = &*x[t].add(*base).cast::<[f32; CHOICE]>();
                        sums[t][0] = s.fma(s.look_up_16(choice, place), factor, sums[t][0]);
                        t += 1;
                    }
                    input += 1;
                    w = w.wrapping_add(channels);
                }
            }
            let at = pixel * channels + c;
            self.to.put(s, sums, at, channels, c, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::ConvF32;
    use crate::conv::tests::{check, some_geometry};
    use crate::gemm::f32::Epilogue;
    use crate::testing::{Random, contexts};

    #[test]
    fn small_groups_equal_the_plain_sum() {
        let mut random = Random::new(23);
        let mut suited = 0;
        for round in 0..160 {
            let mut g = some_geometry(&mut random);
            let [inputs, outputs] = [(); 2].map(|()| random.pick(&[1, 2, 3, 4, 5, 7, 8, 12, 16]));
            g.groups = 2 + random.below(12);
            (g.channels_in, g.channels_out) = (g.groups * inputs, g.groups * outputs);
            g.input = [4 + random.below(4), 3 + random.below(30)];
            suited += usize::from(GroupedF32::suits(&g));
            check(&mut random, &g, round);
        }
        assert!(
            suited > 40,
            "{suited} of the geometries are of small groups"
        );
    }

    #[test]
    fn what_is_not_a_number_stays_in_its_group() {
        let g = ConvGeometry {
            kernel: [3, 3],
            stride: [1, 1],
            pad_begin: [1, 1],
            pad_end: [1, 1],
            dilation: [1, 1],
            groups: 8,
            input: [5, 20],
            channels_in: 32,
            channels_out: 32,
        };
        let mut random = Random::new(24);
        let mut x = random.floats(g.sizes(1).0);
        x.iter_mut().step_by(32).for_each(|x| *x = f32::NAN);
        let w = random.floats(32 * g.depth());
        for ctx in contexts() {
            let mut y = vec![0.0; g.sizes(1).1];
            let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
            conv.run(&ctx, 1, &x, &mut y, &Epilogue::default());
            for (i, y) in y.iter().enumerate() {
                assert_eq!(y.is_nan(), i % 32 < 4, "{i}");
            }
        }
    }
}

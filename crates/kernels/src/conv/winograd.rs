//! Convolution of 3x3 by Winograd's minimal filtering F(4x4, 3x3): a quarter of the
//! multiplications (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
//! arXiv:1509.09308, section 4).
//!
//! Tiles of 4x4 output pixels read 6x6 input pixels. Both sides are changed to values at the
//! points 0, ±3/4, ±3/2 and infinity, where a convolution is a product for each of 36 places:
//! a matrix product of tiles x channels each. With these points errors are about twice those of
//! a plain sum; those of the usual 0, ±1, ±2 are five times as large.

mod tiles;
mod weights;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::tiles::{Input, Output, Part};
use super::ConvGeometry;
use crate::arena::{Buffer, with_scratch};
use crate::gemm::f32::{Epilogue, PackedF32, Target};
use crate::simd::dispatch;
use crate::threads::Shared;
use crate::{Ctx, Isa};

/// Output pixels of a side of a tile.
const OUT: usize = 4;
/// Input pixels of a side of a tile.
const IN: usize = 6;
/// Places of a tile, each with a matrix of weights.
const PLACES: usize = IN * IN;
/// The points other than 0 and infinity are these and their negatives; all their powers here are
/// exact.
const POINTS: [f32; 2] = [0.75, 1.5];

/// Weights at the points take four times the memory: of larger ones that is too much.
const MOST_BYTES: usize = 16 << 20;

/// Weights at the points: for each place a matrix of input x output channels.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    isa: Isa,
    places: Arc<[PackedF32]>,
}

impl Winograd {
    /// Whether it is faster than a product of windows.
    pub fn suits(g: &ConvGeometry) -> bool {
        let [height, width] = g.output();
        let weights = PLACES * 4 * g.channels_in * g.channels_out;
        Self::fits(g)
            && g.channels_in.min(g.channels_out) >= 16
            && height.min(width) >= OUT
            // All weights are read for each block of tiles: few pixels are not worth four times
            // the bytes, unless those stay in a cache.
            && weights <= if height * width >= 100 { MOST_BYTES } else { 1 << 20 }
    }

    /// Whether it can do it.
    pub fn fits(g: &ConvGeometry) -> bool {
        g.groups == 1 && g.kernel == [3, 3] && g.stride == [1, 1] && g.dilation == [1, 1]
    }

    /// Packs weights `[out, in, 3, 3]`.
    pub fn new(ctx: &Ctx, g: &ConvGeometry, weights: &[f32]) -> Self {
        let size = [g.channels_in, g.channels_out];
        let bytes = PackedF32::empty(ctx, size).bytes();
        let places = match ctx.stored([bytes; PLACES]) {
            Some(stored) => stored
                .map(|data| PackedF32::of_data(ctx, size, data))
                .into(),
            None => weights::at_points(ctx, weights, size),
        };
        Self {
            isa: ctx.isa(),
            places,
        }
    }

    pub fn bytes(&self) -> usize {
        self.places.iter().map(PackedF32::bytes).sum()
    }

    pub fn parts(&self) -> impl Iterator<Item = &Buffer> {
        self.places.iter().flat_map(PackedF32::parts)
    }

    pub fn kernel_name(&self) -> &'static str {
        match self.isa {
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => "x86_64-avx512-winograd-f32-12x32",
            Isa::Avx2 | Isa::AvxVnni => "x86_64-avx2-winograd-f32-6x16",
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => "aarch64-neon-winograd-f32-8x8",
            Isa::Generic => "generic-winograd-f32-4x8",
        }
    }

    /// Convolves as [`super::ConvF32::run`]. `false` where a sum came out as no number or
    /// infinite: a tile then holds too many of them, and `y` is to be written anew.
    pub fn run(
        &self,
        ctx: &Ctx,
        g: &ConvGeometry,
        batch: usize,
        x: &[f32],
        y: &mut [f32],
        epilogue: &Epilogue,
    ) -> bool {
        let [height, width] = g.output();
        let (inputs, outputs) = (g.channels_in, g.channels_out);
        let across = [height.div_ceil(OUT), width.div_ceil(OUT)];
        let tiles = batch * across[0] * across[1];
        let target = Target::new(batch * height * width, outputs, y, outputs, epilogue);
        let finite = AtomicBool::new(true);
        let most = self.most_tiles(ctx, g, tiles);
        let outside = vec![0.0; inputs];
        ctx.threads().parallel_for(tiles.div_ceil(most), |i| {
            let tiles = i * most..tiles.min((i + 1) * most);
            // A line between the places keeps them out of the same sets of a cache.
            let [v_place, m_place] = [inputs, outputs].map(|n| tiles.len() * n + 16);
            with_scratch(PLACES * (v_place + m_place), |scratch: &mut [f32]| {
                let (v, m) = scratch.split_at_mut(PLACES * v_place);
                let part = Part {
                    g,
                    across,
                    tiles: tiles.clone(),
                };
                let input = Input {
                    part: &part,
                    x,
                    outside: &outside,
                    v: Shared::new(v).pointer(0),
                    place: v_place,
                };
                dispatch(self.isa, input);
                for (place, b) in self.places.iter().enumerate() {
                    let (a, c) = (&v[place * v_place..], &mut m[place * m_place..]);
                    let sums = Target::new(tiles.len(), outputs, c, outputs, &Epilogue::default());
                    let rows = 0..tiles.len();
                    // SAFETY: the places hold a row of `inputs` for each tile, and C as many of
                    // `outputs`, which are this task's.
                    unsafe { sums.multiply(rows, a.as_ptr(), inputs, b, 0..b.panel_count(), 0) };
                }
                let output = Output {
                    part: &part,
                    m,
                    place: m_place,
                    target: &target,
                };
                if !dispatch(self.isa, output) {
                    finite.store(false, Ordering::Relaxed);
                }
            });
        });
        finite.into_inner()
    }

    /// Tiles of a block: as many as pay for reading all weights, and leave the caches room.
    fn most_tiles(&self, ctx: &Ctx, g: &ConvGeometry, tiles: usize) -> usize {
        let bytes = PLACES * 4 * (g.channels_in + g.channels_out);
        let room = (1 << 20).max(self.bytes() / 2);
        let rows = self.places[0].tile_rows();
        let whole = |tiles: usize| tiles.div_ceil(rows) * rows;
        let most = whole((room / bytes).clamp(1, 96));
        match ctx.threads().count() {
            1 => most,
            threads => most.min(tiles.div_ceil(threads)).max(1),
        }
    }

    /// The weights that were packed, `[out, in, 3, 3]`, up to a rounding or two.
    pub fn weights(&self) -> Vec<f32> {
        weights::back(&self.places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::conv::ConvF32;
    use crate::conv::tests::plain;
    use crate::testing::{Random, contexts};

    fn geometry(input: [usize; 2], pads: [usize; 4], channels: [usize; 2]) -> ConvGeometry {
        ConvGeometry {
            kernel: [3, 3],
            stride: [1, 1],
            pad_begin: [pads[0], pads[1]],
            pad_end: [pads[2], pads[3]],
            dilation: [1, 1],
            groups: 1,
            input,
            channels_in: channels[0],
            channels_out: channels[1],
        }
    }

    #[test]
    fn errors_are_about_twice_those_of_a_plain_sum() {
        let mut random = Random::new(94);
        let g = geometry([16, 16], [1; 4], [64, 32]);
        let (n, count) = g.sizes(1);
        let (x, w) = (random.floats(n), random.floats(32 * g.depth()));
        let want = plain(&g, 1, &x, &w, 0.0);
        let error = |y: &[f32]| {
            let pairs = y.iter().zip(&want);
            let squares = pairs.map(|(y, want)| f64::from(y - want).powi(2));
            (squares.sum::<f64>() / count as f64).sqrt()
        };
        for ctx in contexts() {
            let (mut windows, mut tiles) = (vec![0.0; count], vec![0.0; count]);
            let ep = Epilogue::default();
            ConvF32::windows(&ctx, g, &w).run(&ctx, 1, &x, &mut windows, &ep);
            assert!(Winograd::new(&ctx, &g, &w).run(&ctx, &g, 1, &x, &mut tiles, &ep));
            let [windows, tiles] = [error(&windows), error(&tiles)];
            assert!(tiles < 3.0 * windows, "{:?}: {tiles} {windows}", ctx.isa());
        }
    }

    #[test]
    fn equals_the_plain_sum() {
        let mut random = Random::new(91);
        let mut sizes = vec![([8, 8], [1, 1, 1, 1], [64, 32]), ([3, 3], [0; 4], [3, 2])];
        for _ in 0..60 {
            let side = |random: &mut Random| random.pick(&[1, 2, 4, 5, 6, 7, 13]);
            let input = [side(&mut random), side(&mut random)];
            let pads = [0; 4].map(|_| 1 + random.below(3));
            let channels = [0; 2].map(|_| random.pick(&[1, 3, 8, 15, 16, 17, 33]));
            sizes.push((input, pads, channels));
        }
        for (i, (input, pads, channels)) in sizes.into_iter().enumerate() {
            let g = geometry(input, pads, channels);
            let batch = i % 3;
            let (n, count) = g.sizes(batch);
            let (x, w) = (random.floats(n), random.floats(channels[1] * g.depth()));
            let (bias, residual) = (random.floats(channels[1]), random.floats(count));
            let ep = Epilogue {
                bias: (i % 2 == 0).then_some(&bias[..]),
                residual: (i % 3 != 0).then_some(residual[..].into()),
                activation: random.pick(&[Activation::None, Activation::Relu, Activation::Tanh]),
            };
            let want = plain(&g, batch, &x, &w, 0.0);
            // Twelve roundings of the largest sum that numbers of at most 1 may have.
            let most = 12.0 * f32::EPSILON / 2.0 * g.depth() as f32 + 1e-6;
            let mut last: Option<(Isa, Vec<f32>)> = None;
            for ctx in contexts() {
                let conv = Winograd::new(&ctx, &g, &w);
                let mut y = vec![f32::NAN; count];
                assert!(conv.run(&ctx, &g, batch, &x, &mut y, &ep));
                for (j, y) in y.iter().enumerate() {
                    let mut sum = want[j] + ep.bias.map_or(0.0, |b| b[j % channels[1]]);
                    sum += ep.residual.map_or(0.0, |r| r.f32()[j]);
                    let sum = match ep.activation {
                        Activation::Relu => sum.max(0.0),
                        Activation::Tanh => sum.tanh(),
                        _ => sum,
                    };
                    let error = (y - sum).abs();
                    assert!(error <= most, "{g:?} {:?}: {y}, not {sum}", ctx.isa());
                }
                match &last {
                    Some((isa, one)) if *isa == ctx.isa() => assert_eq!(&y, one, "threads"),
                    _ => last = Some((ctx.isa(), y)),
                }
            }
        }
    }

    #[test]
    fn weights_come_back() {
        let mut random = Random::new(92);
        let ctx = Ctx::serial();
        let g = geometry([9, 9], [1; 4], [35, 41]);
        let w = random.floats(41 * g.depth());
        let back = Winograd::new(&ctx, &g, &w).weights();
        assert_eq!(w.len(), back.len());
        assert!(w.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn nan_infinity_and_the_largest_numbers_reach_only_their_windows() {
        let mut random = Random::new(93);
        let g = geometry([12, 12], [1; 4], [16, 16]);
        assert!(Winograd::suits(&g));
        let (n, count) = g.sizes(1);
        let w = random.floats(16 * g.depth());
        for value in [f32::NAN, f32::INFINITY, f32::MAX] {
            let mut x = random.floats(n);
            let at = (5 * 12 + 6) * 16 + 3;
            x[at] = value;
            for ctx in contexts() {
                let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
                let mut y = vec![0.0; count];
                conv.run(&ctx, 1, &x, &mut y, &Epilogue::default());
                let want = plain(&g, 1, &x, &w, 0.0);
                for (i, (y, want)) in y.iter().zip(&want).enumerate() {
                    let (line, column) = (i / 16 / 12, i / 16 % 12);
                    if (4..=6).contains(&line) && (5..=7).contains(&column) {
                        assert!(y.abs() > 1e30 || y.is_nan(), "{value} {y}");
                    } else {
                        assert!((y - want).abs() < 1e-4, "{value} {line} {column}: {y}");
                    }
                }
            }
        }
    }
}

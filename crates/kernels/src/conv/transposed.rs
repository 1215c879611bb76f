//! Transposed convolution of channels-last images: every input pixel spreads a kernel over the
//! output.
//!
//! A block of output lines takes the products of the input lines that reach it with all elements
//! of the kernel; each output pixel then adds up the products that fall on it. Small groups go by phases.

mod phases;

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::activation::Activation;
use crate::arena::{Buffer, with_scratch};
use crate::gemm::Order;
use crate::gemm::f32::{Epilogue, PackedF32, Target};
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;
use crate::{Ctx, Isa, Unsupported};
use phases::Phases;

/// A 2-D transposed convolution without its weights. For a 1-D one, all heights are 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransposedGeometry {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps of the input in the output.
    pub stride: [usize; 2],
    /// Output lines above and columns left of the result, which are cut off.
    pub pad_begin: [usize; 2],
    /// Distance of kernel elements in the output.
    pub dilation: [usize; 2],
    /// Groups of channels that know nothing of each other.
    pub groups: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    /// Input channels.
    pub channels_in: usize,
    /// Output channels.
    pub channels_out: usize,
}

impl TransposedGeometry {
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Input and output channels of a group.
    fn of_group(&self) -> [usize; 2] {
        [self.channels_in, self.channels_out].map(|n| n / self.groups)
    }

    fn weights(&self) -> usize {
        self.channels_in * self.of_group()[1] * self.taps()
    }

    /// Whether a kernel can do it, given weights of its length.
    pub fn is_sound(&self) -> bool {
        self.check().is_ok()
    }

    fn check(&self) -> Result<(), Unsupported> {
        let steps = [self.kernel, self.stride, self.dilation];
        let divides = |n: usize| self.groups > 0 && n.is_multiple_of(self.groups);
        if steps.as_flattened().contains(&0)
            || !divides(self.channels_in)
            || !divides(self.channels_out)
        {
            return Err(Unsupported(
                "kernel, stride and dilation are at least 1, and groups divide the channels"
                    .to_string(),
            ));
        }
        let reach = self.dilation[0].saturating_mul(self.kernel[0] - 1);
        let lines = self.lines_together().saturating_add(reach) / self.stride[0] + 1;
        let lines = lines.min(self.input[0]);
        let rows = lines.checked_mul(self.input[1]);
        let products =
            rows.and_then(|r| r.checked_mul(self.taps())?.checked_mul(self.of_group()[1]));
        if products.is_none_or(|n| n > MOST_PRODUCTS) {
            return Err(Unsupported(
                "a few lines of the image have too many products with the kernel".to_string(),
            ));
        }
        Ok(())
    }

    /// Output lines of a block on one thread: their products stay in the L2 cache, and few input
    /// lines are used by two blocks.
    fn lines_together(&self) -> usize {
        const BYTES: usize = 512 * 1024;
        let products = [4, self.input[1], self.taps(), self.of_group()[1]];
        let bytes = products.into_iter().fold(1usize, usize::saturating_mul);
        let shared = self.dilation[0].saturating_mul(self.kernel[0] - 1) / self.stride[0];
        let lines = (BYTES / bytes.max(1)).max(shared.saturating_mul(4)).max(1);
        lines
            .saturating_mul(self.stride[0])
            .min(self.output[0].max(1))
    }

    /// The input places of axis `axis` from which a kernel reaches output places `output`.
    fn reach(&self, axis: usize, output: Range<usize>) -> Range<usize> {
        let (stride, pad) = (self.stride[axis], self.pad_begin[axis]);
        let reach = self.dilation[axis] * (self.kernel[axis] - 1);
        let first = (output.start + pad).saturating_sub(reach).div_ceil(stride);
        let end = (output.end + pad).div_ceil(stride).min(self.input[axis]);
        first.min(end)..end
    }

    /// For each element of the kernel that falls on output place `at` of axis `axis`: it, and the
    /// input place that it comes from.
    fn sources(&self, axis: usize, at: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (stride, input) = (self.stride[axis], self.input[axis]);
        let (at, dilation) = (at + self.pad_begin[axis], self.dilation[axis]);
        (0..self.kernel[axis]).filter_map(move |k| {
            let from = at.checked_sub(k * dilation)?;
            (from.is_multiple_of(stride) && from / stride < input).then_some((k, from / stride))
        })
    }
}

/// The most products that a block may hold: of a hostile model they could be any number.
const MOST_PRODUCTS: usize = 1 << 26;

/// A transposed convolution with packed weights.
#[derive(Clone, Debug)]
pub struct ConvTransposeF32 {
    isa: Isa,
    geometry: TransposedGeometry,
    weights: Weights,
}

#[derive(Clone, Debug)]
enum Weights {
    /// A matrix for each group.
    Groups(Arc<[PackedF32]>),
    /// A convolution for each phase of the output.
    Phases(Phases),
}

impl ConvTransposeF32 {
    /// Packs `weights`, which are laid out as in ONNX: `[in, out / groups, height, width]`.
    ///
    /// # Errors
    /// When the numbers do not go together.
    pub fn prepare(
        ctx: &Ctx,
        geometry: TransposedGeometry,
        weights: &[f32],
    ) -> Result<Self, Unsupported> {
        geometry.check()?;
        if weights.len() != geometry.weights() {
            return Err(Unsupported(format!(
                "transposed convolution has {} weights, its shape needs {}",
                weights.len(),
                geometry.weights()
            )));
        }
        let isa = ctx.isa();
        if let Some(phases) = Phases::prepare(ctx, &geometry, weights) {
            let weights = Weights::Phases(phases?);
            return Ok(Self {
                isa,
                geometry,
                weights,
            });
        }
        let ([inputs, outputs], taps) = (geometry.of_group(), geometry.taps());
        let n = taps * outputs;
        let pack = |g: usize| {
            PackedF32::of(ctx, Order::KN, [inputs, n], || {
                let own = &weights[g * inputs * n..][..inputs * n];
                let at = |i: usize| i / n * n + i % outputs * taps + i % n / outputs;
                (0..inputs * n).map(|i| own[at(i)]).collect()
            })
        };
        Ok(Self {
            isa,
            geometry,
            weights: Weights::Groups((0..geometry.groups).map(pack).collect()),
        })
    }

    /// The same weights for another size of input and output.
    ///
    /// # Errors
    /// When they are packed for another kernel or other channels.
    pub fn resized(&self, geometry: TransposedGeometry) -> Result<Self, Unsupported> {
        geometry.check()?;
        let key = |g: &TransposedGeometry| (g.kernel, g.groups, g.channels_in, g.channels_out);
        if key(&geometry) != key(&self.geometry) {
            return Err(Unsupported(
                "weights are packed for another kernel or other channels".to_string(),
            ));
        }
        let weights = match &self.weights {
            Weights::Groups(groups) => Weights::Groups(groups.clone()),
            Weights::Phases(phases) => Weights::Phases(phases.resized(&geometry)?),
        };
        Ok(Self {
            isa: self.isa,
            geometry,
            weights,
        })
    }

    /// Size of the packed weights.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Groups(groups) => groups.iter().map(PackedF32::bytes).sum(),
            Weights::Phases(phases) => phases.bytes(),
        }
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub fn parts(&self) -> Vec<&Buffer> {
        match &self.weights {
            Weights::Groups(groups) => groups.iter().flat_map(PackedF32::parts).collect(),
            Weights::Phases(phases) => phases.parts(),
        }
    }

    /// The name of the micro-kernel that does the work.
    pub fn kernel_name(&self) -> &'static str {
        match &self.weights {
            Weights::Groups(groups) => groups.first().map_or("none", PackedF32::kernel_name),
            Weights::Phases(phases) => phases.kernel_name(),
        }
    }

    /// Spreads `x`, `[batch, height, width, in]`, to `y`, `[batch, height, width, out]`.
    pub fn run(
        &self,
        ctx: &Ctx,
        batch: usize,
        x: &[f32],
        y: &mut [f32],
        bias: Option<&[f32]>,
        activation: Activation,
    ) {
        let g = &self.geometry;
        let ([height, width], area) = (g.output, g.input[0] * g.input[1]);
        let line = width * g.channels_out;
        assert_eq!(
            (x.len(), y.len()),
            (batch * area * g.channels_in, batch * height * line),
            "slices hold the images"
        );
        assert!(
            bias.is_none_or(|b| b.len() == g.channels_out),
            "bias has a number for each channel"
        );
        if y.is_empty() {
            return;
        }
        let groups = match &self.weights {
            Weights::Groups(groups) => groups,
            Weights::Phases(phases) => {
                let epilogue = Epilogue {
                    bias,
                    activation,
                    ..Epilogue::default()
                };
                return phases.run(ctx, g, (batch, x), y, &epilogue);
            }
        };
        let lines = match ctx.threads().count() {
            1 => g.lines_together(),
            threads => g.lines_together().min(height.div_ceil(2 * threads)),
        };
        let blocks = height.div_ceil(lines);
        let shared = Shared::new(y);
        ctx.threads().parallel_for(batch * blocks, |task| {
            let (image, first) = (task / blocks, task % blocks * lines);
            let output = first..height.min(first + lines);
            let at = image * height * line;
            // SAFETY: every line belongs to one task.
            let y = unsafe { shared.slice(at + output.start * line..at + output.end * line) };
            let x = &x[image * area * g.channels_in..][..area * g.channels_in];
            for (group, b) in groups.iter().enumerate() {
                self.block((group, b), x, output.clone(), y, bias);
            }
            let p = y.as_mut_ptr();
            // SAFETY: it is all of `y`.
            unsafe { activation.map(self.isa, p, p, y.len()) };
        });
    }

    /// The output lines `output` of one group, which `y` holds.
    fn block(
        &self,
        (group, b): (usize, &PackedF32),
        x: &[f32],
        output: Range<usize>,
        y: &mut [f32],
        bias: Option<&[f32]>,
    ) {
        let g = &self.geometry;
        let ([inputs, outputs], width) = (g.of_group(), g.input[1]);
        let lines = g.reach(0, output.clone());
        let rows = lines.len() * width;
        let n = g.taps() * outputs;
        with_scratch(rows * n, |products: &mut [f32]| {
            if rows > 0 && inputs > 0 {
                let a = x[lines.start * width * g.channels_in + group * inputs..].as_ptr();
                let plain = Epilogue::default();
                let target = Target::new(rows, n, &mut *products, n, &plain);
                // SAFETY: these are rows of the image, and the products are this task's.
                unsafe { target.multiply(0..rows, a, g.channels_in, b, 0..b.panel_count(), 0) };
            } else {
                products.fill(0.0);
            }
            let zeros = vec![0.0; outputs];
            let channels = group * outputs..(group + 1) * outputs;
            let sums = Sums {
                g,
                first: output.start,
                lines,
                bias: bias.map_or(&zeros[..], |b| &b[channels.clone()]),
                products,
                channels,
                y,
            };
            dispatch(self.isa, sums);
        });
    }
}

/// The sums of what falls on the output lines from `first` on, of the channels of a group.
struct Sums<'a> {
    g: &'a TransposedGeometry,
    first: usize,
    /// The input lines of which the products are there.
    lines: Range<usize>,
    bias: &'a [f32],
    products: &'a [f32],
    channels: Range<usize>,
    y: &'a mut [f32],
}

impl Body for Sums<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (g, outputs) = (self.g, self.channels.len());
        let (width, n) = (g.input[1], g.taps() * outputs);
        let lines = self.y.chunks_exact_mut(g.output[1] * g.channels_out);
        let columns: Vec<SmallVec<[(usize, usize); 4]>> = (0..g.output[1])
            .map(|x| g.sources(1, x).collect())
            .collect();
        for (i, y) in lines.enumerate() {
            let rows: SmallVec<[(usize, usize); 4]> = g.sources(0, self.first + i).collect();
            let pixels = y.chunks_exact_mut(g.channels_out);
            for (y, columns) in pixels.zip(&columns) {
                let y = &mut y[self.channels.clone()];
                let mut parts: SmallVec<[*const f32; 16]> = SmallVec::new();
                for &(ky, iy) in &rows {
                    for &(kx, ix) in columns {
                        let row = (iy - self.lines.start) * width + ix;
                        let tap = ky * g.kernel[1] + kx;
                        let part = &self.products[row * n + tap * outputs..][..outputs];
                        parts.push(part.as_ptr());
                    }
                }
                let mut at = 0;
                while at < outputs {
                    let left = (outputs - at).min(S::LANES);
                    // SAFETY: all parts, the bias and `y` have `outputs` elements.
                    unsafe {
                        let mut sum = s.load_up_to(self.bias.as_ptr().add(at), left);
                        for part in &parts {
                            sum = s.add(sum, s.load_up_to(part.add(at), left));
                        }
                        s.store_up_to(y.as_mut_ptr().add(at), sum, left);
                    }
                    at += left;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    /// The definition, in plain loops.
    fn plain(g: &TransposedGeometry, batch: usize, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
        let ([ih, iw], [oh, ow], [kh, kw]) = (g.input, g.output, g.kernel);
        let [inputs, outputs] = g.of_group();
        let mut y: Vec<f64> = (0..batch * oh * ow * g.channels_out)
            .map(|i| f64::from(bias[i % g.channels_out]))
            .collect();
        for at in 0..batch * ih * iw * g.channels_in * outputs * kh * kw {
            let (kx, ky, rest) = (at % kw, at / kw % kh, at / (kw * kh));
            let (o, c, pixel) = (
                rest % outputs,
                rest / outputs % g.channels_in,
                rest / (outputs * g.channels_in),
            );
            let (ix, iy, image) = (pixel % iw, pixel / iw % ih, pixel / (iw * ih));
            let oy = (iy * g.stride[0] + ky * g.dilation[0]).wrapping_sub(g.pad_begin[0]);
            let ox = (ix * g.stride[1] + kx * g.dilation[1]).wrapping_sub(g.pad_begin[1]);
            if oy < oh && ox < ow {
                let to = ((image * oh + oy) * ow + ox) * g.channels_out + c / inputs * outputs + o;
                let weight = w[((c * outputs + o) * kh + ky) * kw + kx];
                y[to] += f64::from(x[pixel * g.channels_in + c]) * f64::from(weight);
            }
        }
        y.into_iter().map(|y| y as f32).collect()
    }

    #[test]
    fn products_without_bounds_are_refused() {
        let mut g = TransposedGeometry {
            kernel: [1, 1000],
            stride: [1, 1],
            pad_begin: [0, 500_000],
            dilation: [1, 1],
            groups: 1,
            input: [1, 1_000_000],
            output: [1, 1],
            channels_in: 1,
            channels_out: 1,
        };
        let weights = vec![1.0; 1000];
        assert!(ConvTransposeF32::prepare(&Ctx::serial(), g, &weights).is_err());
        g.input[1] = 1000;
        assert!(ConvTransposeF32::prepare(&Ctx::serial(), g, &weights).is_ok());
    }

    #[test]
    fn equals_the_plain_sum_for_any_geometry() {
        let mut random = Random::new(81);
        for round in 0..120 {
            let two = |random: &mut Random, n| [1 + random.below(n), 1 + random.below(n)];
            let (groups, kernel) = (1 + random.below(3), two(&mut random, 4));
            let g = TransposedGeometry {
                kernel,
                stride: two(&mut random, 3),
                pad_begin: [random.below(3), random.below(3)],
                dilation: two(&mut random, 2),
                groups,
                input: two(&mut random, 6),
                output: two(&mut random, 14),
                channels_in: groups * random.pick(&[1, 2, 5, 16]),
                channels_out: groups * random.pick(&[1, 3, 8, 17, 33]),
            };
            let batch = round % 3;
            check(&mut random, &g, batch);
        }
    }

    /// The output that ONNX gives where nothing is said of it.
    fn whole(g: &mut TransposedGeometry) {
        g.output = [0, 1].map(|i| {
            let reach = (g.input[i] - 1) * g.stride[i] + g.kernel[i];
            reach.saturating_sub(2 * g.pad_begin[i]).max(1)
        });
    }

    #[test]
    fn phases_of_small_groups_equal_the_plain_sum() {
        let mut random = Random::new(82);
        let mut by_phases = 0;
        for round in 0..120 {
            let two = |random: &mut Random, n| [1 + random.below(n), 1 + random.below(n)];
            let stride = two(&mut random, 3);
            let kernel = stride.map(|s| s + random.below(3));
            let groups = random.pick(&[2, 3, 7, 16, 33]);
            let mut g = TransposedGeometry {
                kernel,
                stride,
                pad_begin: kernel.map(|k| random.below(k)),
                dilation: [1; 2],
                groups,
                input: two(&mut random, 7),
                output: [1; 2],
                channels_in: groups * random.pick(&[1, 1, 2, 5]),
                channels_out: groups * random.pick(&[1, 1, 3, 8]),
            };
            whole(&mut g);
            g.output[0] += random.below(g.stride[0]);
            by_phases +=
                usize::from(Phases::prepare(&Ctx::serial(), &g, &vec![0.0; g.weights()]).is_some());
            check(&mut random, &g, 1 + round % 2);
        }
        assert!(by_phases > 40, "{by_phases} of 120 go by phases");
    }

    #[test]
    fn phases_keep_their_weights_for_another_size() {
        let mut random = Random::new(83);
        let mut g = TransposedGeometry {
            kernel: [4, 4],
            stride: [2, 2],
            pad_begin: [1, 1],
            dilation: [1; 2],
            groups: 8,
            input: [3, 5],
            output: [6, 10],
            channels_in: 8,
            channels_out: 8,
        };
        let ctx = Ctx::serial();
        let w = random.floats(g.weights());
        let conv = ConvTransposeF32::prepare(&ctx, g, &w).unwrap();
        assert!(matches!(conv.weights, Weights::Phases(_)));
        (g.input, g.output) = ([6, 2], [12, 4]);
        let x = random.floats(6 * 2 * 8);
        let mut y = vec![f32::NAN; 12 * 4 * 8];
        let conv = conv.resized(g).unwrap();
        conv.run(&ctx, 1, &x, &mut y, None, Activation::None);
        close(&y, &plain(&g, 1, &x, &w, &[0.0; 8]), 1e-5, "resized");
    }

    #[test]
    fn groups_without_channels_make_what_the_bias_says() {
        let mut random = Random::new(84);
        for [inputs, outputs] in [[0, 1], [1, 0], [0, 0]] {
            let g = TransposedGeometry {
                kernel: [2, 2],
                stride: [2, 2],
                pad_begin: [0; 2],
                dilation: [1; 2],
                groups: 3,
                input: [2, 2],
                output: [4, 4],
                channels_in: 3 * inputs,
                channels_out: 3 * outputs,
            };
            check(&mut random, &g, 1);
        }
    }

    fn check(random: &mut Random, g: &TransposedGeometry, batch: usize) {
        let x = random.floats(batch * g.input[0] * g.input[1] * g.channels_in);
        let (w, bias) = (random.floats(g.weights()), random.floats(g.channels_out));
        let mut want = plain(g, batch, &x, &w, &bias);
        want.iter_mut().for_each(|y| *y = y.max(0.0));
        let mut last: Option<(Isa, Vec<f32>)> = None;
        for ctx in contexts() {
            let conv = ConvTransposeF32::prepare(&ctx, *g, &w).unwrap();
            let mut y = vec![f32::NAN; want.len()];
            conv.run(&ctx, batch, &x, &mut y, Some(&bias), Activation::Relu);
            close(&y, &want, 1e-5, &format!("{g:?} {:?}", ctx.isa()));
            match &last {
                Some((isa, one)) if *isa == ctx.isa() => assert_eq!(&y, one, "threads"),
                _ => last = Some((ctx.isa(), y)),
            }
        }
    }
}

//! Convolution of channels-last images: its geometry, and its cut into matrix products.
//!
//! Output pixels are rows, weights are the packed right side of a product with
//! K = kernel height x kernel width x input channels. A kernel of 1x1 and stride 1 reads the
//! image as it is; others copy the inputs of a block of pixels together, never of all.

pub mod depthwise;
pub mod f32;
mod gather;
pub mod gradient;
pub(crate) mod grouped;
pub mod int8;
mod lines;
pub mod transposed;
mod windows;
mod winograd;

pub use self::f32::ConvF32;
pub use self::int8::ConvI8;
pub use self::lines::Strip;
pub use self::transposed::{ConvTransposeF32, TransposedGeometry};

use std::borrow::Cow;

use crate::gemm::Cut;
use crate::{Ctx, Unsupported};

/// A 2-D convolution without its weights. For a 1-D one, all heights are 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps of the output in the input.
    pub stride: [usize; 2],
    /// Rows above and columns left of the input.
    pub pad_begin: [usize; 2],
    /// Rows below and columns right of the input.
    pub pad_end: [usize; 2],
    /// Distance of kernel elements in the input.
    pub dilation: [usize; 2],
    /// Groups of channels that know nothing of each other.
    pub groups: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Input channels.
    pub channels_in: usize,
    /// Output channels.
    pub channels_out: usize,
}

impl ConvGeometry {
    /// Height and width of the output, rounded down as ONNX does; 0 where the kernel is larger
    /// than the padded input.
    pub fn output(&self) -> [usize; 2] {
        std::array::from_fn(|i| {
            let reach = self.dilation[i] * (self.kernel[i] - 1) + 1;
            let length = self.input[i] + self.pad_begin[i] + self.pad_end[i];
            if length < reach {
                0
            } else {
                (length - reach) / self.stride[i] + 1
            }
        })
    }

    /// Makes a column of pixels a line of them: its windows are then one run of neighbours each.
    pub fn lay_down(&mut self) {
        let pads = self.pad_begin[1] + self.pad_end[1];
        if self.input[1] == 1 && self.kernel[1] == 1 && pads == 0 {
            for pair in [
                &mut self.kernel,
                &mut self.stride,
                &mut self.dilation,
                &mut self.pad_begin,
                &mut self.pad_end,
                &mut self.input,
            ] {
                pair.swap(0, 1);
            }
        }
    }

    /// Whether every channel has a kernel of its own.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.channels_in && self.groups == self.channels_out
    }

    /// Multiplications of one image.
    pub fn macs(&self) -> usize {
        let [h, w] = self.output();
        h * w * self.channels_out * self.depth()
    }

    /// Checks that the numbers go together.
    pub fn check(&self) -> Result<(), Unsupported> {
        let no = |what: String| Err(Unsupported(what));
        if [self.kernel, self.stride, self.dilation]
            .as_flattened()
            .contains(&0)
        {
            return no("kernel, stride and dilation must be at least 1".to_string());
        }
        for (name, channels) in [("input", self.channels_in), ("output", self.channels_out)] {
            if self.groups == 0 || !channels.is_multiple_of(self.groups) {
                return no(format!(
                    "{channels} {name} channels in {} groups",
                    self.groups
                ));
            }
        }
        Ok(())
    }

    /// Rows of the weight matrix of one group.
    pub(crate) fn depth(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.group_in()
    }

    pub(crate) fn group_in(&self) -> usize {
        self.channels_in / self.groups
    }

    pub(crate) fn group_out(&self) -> usize {
        self.channels_out / self.groups
    }

    /// Whether output pixels are input pixels.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1]
            && self.stride == [1, 1]
            && self.pad_begin == [0, 0]
            && self.pad_end == [0, 0]
    }

    /// Elements of `batch` inputs and outputs.
    pub(crate) fn sizes(&self, batch: usize) -> (usize, usize) {
        let [h, w] = self.output();
        let input = batch * self.input[0] * self.input[1] * self.channels_in;
        (input, batch * h * w * self.channels_out)
    }

    /// Weights of group `g`, from ONNX's `[out, in / groups, h, w]` to `[out / groups, K]`.
    pub(crate) fn group_weights<'a, T: Copy>(&self, weights: &'a [T], g: usize) -> Cow<'a, [T]> {
        let (taps, inputs) = (self.kernel[0] * self.kernel[1], self.group_in());
        let size = self.group_out() * self.depth();
        let weights = &weights[g * size..][..size];
        if taps == 1 {
            return Cow::Borrowed(weights);
        }
        let mut ordered = Vec::with_capacity(size);
        for row in weights.chunks_exact(self.depth().max(1)) {
            for tap in 0..taps {
                ordered.extend((0..inputs).map(|i| row[i * taps + tap]));
            }
        }
        Cow::Owned(ordered)
    }

    /// Elements of a line of a window of all channels.
    pub(crate) fn line(&self) -> usize {
        self.kernel[1] * self.channels_in
    }

    /// What [`ConvGeometry::group_weights`] gives for the only group, with zeros behind each line
    /// of a window up to `whole` elements.
    pub(crate) fn whole_lines<T: bytemuck::Pod>(&self, weights: &[T], whole: usize) -> Vec<T> {
        let line = self.line();
        let mut lines = vec![T::zeroed(); weights.len() / line * whole];
        let from = weights.chunks_exact(line);
        for (to, from) in lines.chunks_exact_mut(whole).zip(from) {
            to[..line].copy_from_slice(from);
        }
        lines
    }

    /// Weights of a depthwise convolution, from ONNX's `[channels, 1, h, w]` to `[h w, channels]`.
    pub(crate) fn tap_weights<T: Copy>(&self, weights: &[T]) -> Vec<T> {
        let (taps, channels) = (self.kernel[0] * self.kernel[1], self.channels_out);
        (0..taps * channels)
            .map(|i| weights[i % channels * taps + i / channels])
            .collect()
    }

    /// Whether weights that are packed for `self` serve `other`.
    pub(crate) fn shares_weights(&self, other: &Self) -> bool {
        let key = |g: &Self| (g.kernel, g.groups, g.channels_in, g.channels_out);
        key(self) == key(other)
    }

    fn check_weights(&self, len: usize) -> Result<(), Unsupported> {
        self.check()?;
        let want = self.channels_out * self.depth();
        if len == want {
            Ok(())
        } else {
            Err(Unsupported(format!(
                "convolution has {len} weights, its shape needs {want}"
            )))
        }
    }

    fn check_resized(&self, other: &Self) -> Result<(), Unsupported> {
        other.check()?;
        if self.shares_weights(other) {
            Ok(())
        } else {
            Err(Unsupported(
                "weights are packed for another kernel or other channels".to_string(),
            ))
        }
    }
}

/// The tasks of a convolution: blocks of pixels x panels of channels, for each group.
#[derive(Clone, Copy)]
struct Tasks {
    cut: Cut,
    groups: usize,
}

impl Tasks {
    /// Cuts the pixels of `batch` images for weights of so many panels, of `bytes` in each group, and tiles of
    /// `tile_rows` pixels, at most `most` together; `by_image` where a task goes image by image.
    fn new(
        ctx: &Ctx,
        (g, batch, by_image): (&ConvGeometry, usize, bool),
        (panels, bytes): (usize, usize),
        (tile_rows, most): (usize, usize),
    ) -> Self {
        let (threads, [height, width]) = (ctx.threads().count(), g.output());
        let pixels = batch * height * width;
        let cut = if by_image && windows::are_few(g, batch) && Cut::reads_again(bytes) {
            Cut::of_panels(threads, pixels, panels, bytes / panels.max(1))
        } else {
            Cut::of_rows(threads, pixels, panels, tile_rows, (most, bytes))
        };
        let groups = g.groups;
        Self { cut, groups }
    }

    fn count(self) -> usize {
        self.cut.tasks() * self.groups
    }

    /// Group, pixels and panels of task `i`; all groups of a block of pixels follow each other.
    fn task(self, i: usize) -> (usize, std::ops::Range<usize>, std::ops::Range<usize>) {
        let (rows, panels) = self.cut.task(i / self.groups);
        (i % self.groups, rows, panels)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::gemm::f32::Epilogue;
    use crate::testing::{Random, close, contexts};

    /// A small geometry of any kind.
    pub(crate) fn some_geometry(random: &mut Random) -> ConvGeometry {
        let kernel = random.pick(&[
            [1, 1],
            [1, 1],
            [3, 3],
            [3, 3],
            [5, 5],
            [1, 3],
            [2, 3],
            [7, 1],
        ]);
        let plain = kernel == [1, 1] && random.below(2) == 0;
        let two = |random: &mut Random, n| [random.below(n), random.below(n)];
        let pads = if plain { 1 } else { 3 };
        let steps = if plain { [0, 0] } else { two(random, 2) };
        let far = if random.below(3) == 0 {
            two(random, 2)
        } else {
            [0, 0]
        };
        let sizes = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 33];
        let (groups, inputs, outputs) = match random.below(5) {
            0 | 1 => (random.pick(&sizes), 1, 1),
            2 => (
                2 + random.below(3),
                1 + random.below(5),
                1 + random.below(20),
            ),
            _ => (1, random.pick(&sizes), random.pick(&sizes)),
        };
        ConvGeometry {
            kernel,
            stride: steps.map(|s| s + 1),
            pad_begin: two(random, pads),
            pad_end: two(random, pads),
            dilation: far.map(|d| d + 1),
            groups,
            input: [5 + random.below(8), 5 + random.below(8)],
            channels_in: groups * inputs,
            channels_out: groups * outputs,
        }
    }

    /// The definition, in plain loops; weights as in ONNX, images channels-last.
    pub(crate) fn plain(
        g: &ConvGeometry,
        batch: usize,
        x: &[f32],
        w: &[f32],
        outside: f32,
    ) -> Vec<f32> {
        let ([oh, ow], [ih, iw], [kh, kw]) = (g.output(), g.input, g.kernel);
        let (inputs, outputs) = (g.channels_in / g.groups, g.channels_out / g.groups);
        let mut y = Vec::new();
        for at in 0..batch * oh * ow * g.channels_out {
            let (pixel, out) = (at / g.channels_out, at % g.channels_out);
            let (n, oy, ox) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
            let mut sum = 0.0f64;
            for i in 0..kh * kw * inputs {
                let (ky, kx, c) = (i / kw % kh, i % kw, i / (kh * kw));
                let iy = (oy * g.stride[0] + ky * g.dilation[0]).wrapping_sub(g.pad_begin[0]);
                let ix = (ox * g.stride[1] + kx * g.dilation[1]).wrapping_sub(g.pad_begin[1]);
                let value = if iy < ih && ix < iw {
                    x[((n * ih + iy) * iw + ix) * g.channels_in + out / outputs * inputs + c]
                } else {
                    outside
                };
                sum += f64::from(value) * f64::from(w[out * inputs * kh * kw + i]);
            }
            y.push(sum as f32);
        }
        y
    }

    /// Holds a convolution of two images against the definition, with what may stand behind it.
    pub(crate) fn check(random: &mut Random, g: &ConvGeometry, round: usize) {
        let (input, output) = g.sizes(2);
        let x = random.floats(input);
        let w = random.floats(g.channels_out * g.depth());
        let (bias, residual) = (random.floats(g.channels_out), random.floats(output));
        let epilogue = Epilogue {
            bias: (!round.is_multiple_of(3)).then_some(&bias[..]),
            residual: (!round.is_multiple_of(2)).then_some(residual[..].into()),
            activation: random.pick(&[Activation::Relu, Activation::Sigmoid]),
        };
        let mut want = plain(g, 2, &x, &w, 0.0);
        for (i, y) in want.iter_mut().enumerate() {
            *y += epilogue.bias.map_or(0.0, |b| b[i % g.channels_out]);
            *y += epilogue.residual.map_or(0.0, |_| residual[i]);
        }
        epilogue.activation.apply(&Ctx::serial(), &mut want);
        for ctx in contexts() {
            let conv = ConvF32::prepare(&ctx, *g, &w).unwrap();
            let mut y = vec![f32::NAN; output];
            conv.run(&ctx, 2, &x, &mut y, &epilogue);
            close(&y, &want, 1e-5, &format!("{g:?} {:?}", ctx.isa()));
        }
    }

    #[test]
    fn a_column_laid_down_computes_the_same() {
        let mut random = Random::new(2);
        let mut g = some_geometry(&mut random);
        (g.kernel, g.stride, g.dilation) = ([3, 1], [2, 1], [1, 2]);
        (g.input, g.pad_begin, g.pad_end) = ([9, 1], [1, 0], [0, 0]);
        let x = random.floats(g.sizes(2).0);
        let w = random.floats(g.channels_out * g.depth());
        let column = plain(&g, 2, &x, &w, 0.0);
        g.lay_down();
        assert_eq!((g.kernel, g.output()), ([1, 3], [1, 4]));
        assert_eq!(plain(&g, 2, &x, &w, 0.0), column);
    }

    #[test]
    fn sizes_of_outputs_round_down() {
        let mut g = some_geometry(&mut Random::new(1));
        (g.kernel, g.stride, g.dilation) = ([3, 3], [2, 2], [1, 2]);
        (g.input, g.pad_begin, g.pad_end) = ([8, 9], [1, 0], [1, 1]);
        assert_eq!(g.output(), [4, 3]);
        g.input = [1, 1];
        assert_eq!(g.output(), [1, 0]);
        g.groups = g.channels_in + 1;
        assert!(g.check().is_err());
    }
}

//! The gradient of the input: a convolution with the kernel turned round, or a transposed one.

use super::ConvGeometry;
use super::channels::spread;
use crate::activation::Activation;
use crate::conv::{ConvF32, ConvTransposeF32, TransposedGeometry};
use crate::gemm::Epilogue;
use crate::{Ctx, Unsupported};

/// What makes the gradient of the input of a convolution out of that of its output.
#[derive(Clone, Debug)]
pub struct InputGradient {
    geometry: ConvGeometry,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    /// Every output pixel is one step after another.
    Convolution(ConvF32),
    Transposed(ConvTransposeF32),
    /// By channel, with weights `[kernel element, channel]`.
    Channels(Vec<f32>),
}

impl InputGradient {
    /// Packs the weights of the convolution, `[out, in / groups, height, width]`.
    ///
    /// # Errors
    /// When the numbers do not go together, or products of a few lines take too much memory.
    pub fn prepare(
        ctx: &Ctx,
        geometry: ConvGeometry,
        weights: &[f32],
    ) -> Result<Self, Unsupported> {
        geometry.check_weights(weights.len())?;
        let g = &geometry;
        let way = if let Some(turned) = turned(g) {
            Way::Convolution(ConvF32::prepare(ctx, turned, &turned_weights(g, weights))?)
        } else if g.is_depthwise() {
            Way::Channels(g.tap_weights(weights))
        } else {
            let transposed = transposed(g);
            Way::Transposed(ConvTransposeF32::prepare(ctx, transposed, weights)?)
        };
        Ok(Self { geometry, way })
    }

    /// Whether there is a way to do it.
    pub fn is_possible(g: &ConvGeometry) -> bool {
        g.check().is_ok() && (turned(g).is_some() || g.is_depthwise() || transposed(g).is_sound())
    }

    /// Makes the gradient `dx` of `batch` inputs out of that of the outputs; all channels-last.
    pub fn run(&self, ctx: &Ctx, batch: usize, dy: &[f32], dx: &mut [f32]) {
        let g = &self.geometry;
        assert_eq!(
            (dx.len(), dy.len()),
            g.sizes(batch),
            "slices hold the images"
        );
        if dy.is_empty() {
            return dx.fill(0.0);
        }
        match &self.way {
            Way::Convolution(conv) => conv.run(ctx, batch, dy, dx, &Epilogue::default()),
            Way::Transposed(conv) => conv.run(ctx, batch, dy, dx, None, Activation::None),
            Way::Channels(weights) => spread(ctx, g, batch, weights, dy, dx),
        }
    }
}

/// The convolution of dY that gives dX, of a convolution whose outputs are one step apart.
fn turned(g: &ConvGeometry) -> Option<ConvGeometry> {
    let reach = [0, 1].map(|i| g.dilation[i] * (g.kernel[i] - 1));
    let pads = |pads: [usize; 2]| {
        let pad = |i: usize| reach[i].checked_sub(pads[i]);
        Some([pad(0)?, pad(1)?])
    };
    let turned = ConvGeometry {
        pad_begin: pads(g.pad_begin)?,
        pad_end: pads(g.pad_end)?,
        input: g.output(),
        channels_in: g.channels_out,
        channels_out: g.channels_in,
        ..*g
    };
    (g.stride == [1, 1] && turned.output() == g.input).then_some(turned)
}

/// Weights `[out, in / groups, taps]` as `[in, out / groups, taps]`, the taps of each back to front.
fn turned_weights(g: &ConvGeometry, weights: &[f32]) -> Vec<f32> {
    let (inputs, outputs) = (g.group_in(), g.group_out());
    let taps = g.kernel[0] * g.kernel[1];
    let mut turned = vec![0.0; weights.len()];
    for (i, kernel) in weights.chunks_exact(taps).enumerate() {
        let (out, input) = (i / inputs, i % inputs);
        let (group, out) = (out / outputs, out % outputs);
        let at = ((group * inputs + input) * outputs + out) * taps;
        let to = turned[at..at + taps].iter_mut().rev();
        to.zip(kernel).for_each(|(to, w)| *to = *w);
    }
    turned
}

/// The transposed convolution of dY that gives dX.
fn transposed(g: &ConvGeometry) -> TransposedGeometry {
    TransposedGeometry {
        kernel: g.kernel,
        stride: g.stride,
        pad_begin: g.pad_begin,
        dilation: g.dilation,
        groups: g.groups,
        input: g.output(),
        output: g.input,
        channels_in: g.channels_out,
        channels_out: g.channels_in,
    }
}

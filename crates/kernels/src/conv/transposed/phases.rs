//! A transposed convolution as plain ones: output pixels that are a stride apart take their sums from the same
//! elements of the kernel, so each such phase is a convolution of the input.

use super::super::{ConvF32, ConvGeometry};
use super::TransposedGeometry;
use crate::arena::{Buffer, with_scratch};
use crate::gemm::f32::Epilogue;
use crate::threads::Shared;
use crate::{Ctx, Unsupported};

/// Output channels of a group below which a group alone fills no vector.
const FEW_OUTPUTS: usize = 16;

/// The most phases: each writes pixels that lie apart.
const MOST: usize = 64;

/// One axis of a phase.
#[derive(Clone, Copy)]
struct Axis {
    /// The first output place.
    first: usize,
    /// The first element of the kernel, and how many there are, a stride apart.
    element: usize,
    elements: usize,
    pads: [usize; 2],
}

impl Axis {
    /// Phase `first` of an axis; `None` where its convolution leaves out parts of the input.
    fn of(g: &TransposedGeometry, axis: usize, first: usize) -> Option<Self> {
        let (stride, kernel) = (g.stride[axis], g.kernel[axis]);
        let at = first + g.pad_begin[axis];
        let element = at % stride;
        let elements = kernel.checked_sub(element)?.div_ceil(stride);
        let count = g.output[axis].checked_sub(first)?.div_ceil(stride);
        // Output place `first + stride * j` reads input place `j + at / stride - t` for element `t`.
        let begin = elements.checked_sub(1)?.checked_sub(at / stride)?;
        let reads = count.checked_sub(1)? + elements;
        let end = reads.checked_sub(g.input[axis] + begin)?;
        Some(Self {
            first,
            element,
            elements,
            pads: [begin, end],
        })
    }
}

/// One phase: its axes, and its convolution.
#[derive(Clone, Debug)]
struct Phase {
    first: [usize; 2],
    conv: ConvF32,
}

/// All phases.
#[derive(Clone, Debug)]
pub(super) struct Phases(Vec<Phase>);

/// The axes of all phases; `None` where products of each group are better, or the phases are no convolutions.
fn axes(g: &TransposedGeometry) -> Option<Vec<[Axis; 2]>> {
    let few = g.groups > 1 && g.channels_out / g.groups < FEW_OUTPUTS;
    let counts = [0, 1].map(|axis: usize| g.stride[axis].min(g.output[axis]));
    let many = counts[0].saturating_mul(counts[1]) > MOST;
    if !few || many || g.dilation != [1; 2] || g.input.contains(&0) {
        return None;
    }
    let of = |axis: usize| {
        (0..counts[axis])
            .map(|first| Axis::of(g, axis, first))
            .collect::<Option<Vec<_>>>()
    };
    let (rows, columns) = (of(0)?, of(1)?);
    let pairs = |&row| columns.iter().map(move |&column| [row, column]);
    Some(rows.iter().flat_map(pairs).collect())
}

fn geometry(g: &TransposedGeometry, axes: &[Axis; 2]) -> ConvGeometry {
    ConvGeometry {
        kernel: axes.map(|a| a.elements),
        stride: [1; 2],
        pad_begin: axes.map(|a| a.pads[0]),
        pad_end: axes.map(|a| a.pads[1]),
        dilation: [1; 2],
        groups: g.groups,
        input: g.input,
        channels_in: g.channels_in,
        channels_out: g.channels_out,
    }
}

/// The weights of a phase, `[out, in / groups, height, width]`, of ONNX's `[in, out / groups, height, width]`.
fn weights(g: &TransposedGeometry, [rows, columns]: &[Axis; 2], all: &[f32]) -> Vec<f32> {
    let ([inputs, outputs], [_, width]) = (g.of_group(), g.kernel);
    let mut weights = Vec::with_capacity(all.len() / g.taps() * rows.elements * columns.elements);
    for out in 0..g.channels_out {
        let (group, o) = (out / outputs, out % outputs);
        for i in 0..inputs {
            let own = ((group * inputs + i) * outputs + o) * g.taps();
            // The last element falls on what comes first.
            for ky in (0..rows.elements).rev() {
                for kx in (0..columns.elements).rev() {
                    let y = rows.element + ky * g.stride[0];
                    let x = columns.element + kx * g.stride[1];
                    weights.push(all[own + y * width + x]);
                }
            }
        }
    }
    weights
}

impl Phases {
    /// Packs `all` weights by phase; `None` where that is not better.
    ///
    /// # Errors
    /// As [`ConvF32::prepare`].
    pub fn prepare(
        ctx: &Ctx,
        g: &TransposedGeometry,
        all: &[f32],
    ) -> Option<Result<Self, Unsupported>> {
        let phase = |axes: [Axis; 2]| {
            let conv = ConvF32::prepare(ctx, geometry(g, &axes), &weights(g, &axes, all))?;
            let first = axes.map(|a| a.first);
            Ok(Phase { first, conv })
        };
        let phases = axes(g)?.into_iter().map(phase);
        Some(phases.collect::<Result<_, _>>().map(Self))
    }

    /// The same weights for another size of input and output.
    ///
    /// # Errors
    /// Where the phases have other elements of the kernel.
    pub fn resized(&self, g: &TransposedGeometry) -> Result<Self, Unsupported> {
        let axes = axes(g).filter(|a| a.len() == self.0.len());
        let other = || Unsupported("weights are packed for other phases".to_string());
        let phases = axes.ok_or_else(other)?.into_iter().zip(&self.0);
        let phases = phases.map(|(axes, phase)| {
            let conv = phase.conv.resized(geometry(g, &axes))?;
            let first = axes.map(|a| a.first);
            Ok(Phase { first, conv })
        });
        phases.collect::<Result<_, _>>().map(Self)
    }

    pub fn bytes(&self) -> usize {
        self.0.iter().map(|p| p.conv.bytes()).sum()
    }

    pub fn parts(&self) -> Vec<&Buffer> {
        self.0.iter().flat_map(|p| p.conv.parts()).collect()
    }

    pub fn kernel_name(&self) -> &'static str {
        self.0.first().map_or("none", |p| p.conv.kernel_name())
    }

    /// Makes the images `y`, each phase beside the others.
    pub fn run(
        &self,
        ctx: &Ctx,
        g: &TransposedGeometry,
        (batch, x): (usize, &[f32]),
        y: &mut [f32],
        epilogue: &Epilogue,
    ) {
        let ([height, width], channels) = (g.output, g.channels_out);
        let shared = Shared::new(y);
        for Phase { first, conv } in &self.0 {
            let [rows, columns] = conv.geometry().output();
            let line = columns * channels;
            with_scratch(batch * rows * line, |sums: &mut [f32]| {
                conv.run(ctx, batch, x, sums, epilogue);
                ctx.threads().parallel_ranges(batch * rows, 4, |range| {
                    for i in range {
                        let (image, row) = (i / rows, i % rows);
                        let at = (image * height + first[0] + row * g.stride[0]) * width + first[1];
                        let pixels = sums[i * line..][..line].chunks_exact(channels);
                        for (j, sum) in pixels.enumerate() {
                            let at = (at + j * g.stride[1]) * channels;
                            // SAFETY: each output pixel belongs to one phase and one line.
                            let y = unsafe { shared.slice(at..at + channels) };
                            y.copy_from_slice(sum);
                        }
                    }
                });
            });
        }
    }
}

//! ConvTranspose of one or two spatial axes, channels-last, in floats.

use edgesmith_ir::ops::conv_transpose::{Spread, spreads};
use edgesmith_ir::{NodeId, ValueId};
use edgesmith_kernels::conv::{ConvTransposeF32, TransposedGeometry};

use super::conv::{bias_of, tail};
use super::operand::Operand;
use crate::plan::{Kernel, Layout, Packed, Planner, SlotId};

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, w, y) = (node.input(0)?, node.input(1)?, node.output(0)?);
    planner.float_dims(y)?;
    let (xd, wd) = (planner.typed(x)?.1, planner.typed(w)?.1);
    if !(3..=4).contains(&xd.len()) || xd.len() != wd.len() || xd.contains(&0) {
        return None;
    }
    let axes = spreads(node, &xd[2..], &wd[2..]).ok()?;
    let pick = |f: fn(&Spread) -> usize, one: usize| {
        [0, 1].map(|i| {
            let axis = axes.len().checked_sub(2 - i).map(|a| &axes[a]);
            axis.map_or(one, f)
        })
    };
    let groups = usize::try_from(node.int("group").unwrap_or(1)).ok()?;
    let geometry = TransposedGeometry {
        kernel: pick(|a| a.kernel, 1),
        stride: pick(|a| a.stride, 1),
        pad_begin: pick(|a| a.begin, 0),
        dilation: pick(|a| a.dilation, 1),
        groups,
        input: pick(|a| a.input, 1),
        output: pick(|a| a.output, 1),
        channels_in: xd[1],
        channels_out: wd[1].checked_mul(groups)?,
    };
    let mut reads = vec![planner.read_f32(x, Layout::Last)?];
    let bias = bias_of(planner, id, geometry.channels_out, &mut reads)?;
    let weights = weights(planner, id, w, geometry, &mut reads)?;
    let kernel = match &weights {
        Weights::Packed(conv) => conv.kernel_name(),
        Weights::Computed(_) => "conv packed on the fly",
    };
    let (tail, batch) = (tail(planner, id, y, false), xd[0]);
    let activation = tail.activation;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let bias = bias.as_ref().map(|b| b.get(x));
        let (input, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        match &weights {
            Weights::Packed(conv) => conv.run(ctx, batch, input, y, bias, activation),
            Weights::Computed(w) => ConvTransposeF32::prepare(ctx, geometry, w.get(x))
                .expect("the geometry was checked when this was planned")
                .run(ctx, batch, input, y, bias, activation),
        }
    });
    let to = (tail.result, Layout::Last);
    planner.step_f32(id, &tail.nodes, to, kernel, reads, work)
}

/// Weights that are packed once, or in each run.
enum Weights {
    Packed(ConvTransposeF32),
    Computed(Operand),
}

/// The weights `w` of node `id`; what is read is added to `reads`.
fn weights(
    planner: &mut Planner,
    id: NodeId,
    w: ValueId,
    geometry: TransposedGeometry,
    reads: &mut Vec<SlotId>,
) -> Option<Weights> {
    if let Some(weights) = planner.weights_to_pack(id, w) {
        let packed = planner.packed(id, |ctx| {
            ConvTransposeF32::prepare(ctx, geometry, &weights)
                .ok()
                .map(Packed::ConvTranspose)
        })?;
        let Packed::ConvTranspose(conv) = packed else {
            return None;
        };
        return conv.resized(geometry).ok().map(Weights::Packed);
    }
    let wd = planner.typed(w)?.1;
    if wd.contains(&0) || wd[0] != geometry.channels_in || !geometry.is_sound() {
        return None;
    }
    Operand::of(planner, w, reads).map(Weights::Computed)
}

//! ConvTranspose of one or two spatial axes, channels-last, in floats.

use edgesmith_ir::NodeId;
use edgesmith_ir::ops::conv_transpose::{Spread, spreads};
use edgesmith_kernels::conv::{ConvTransposeF32, TransposedGeometry};

use super::conv::{constant_bias, tail};
use crate::plan::{Kernel, Layout, Packed, Planner};

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
    let bias = constant_bias(planner, id, geometry.channels_out)?;
    let weights = planner.weights_to_pack(id, w)?;
    let packed = planner.packed(id, |ctx| {
        ConvTransposeF32::prepare(ctx, geometry, &weights)
            .ok()
            .map(Packed::ConvTranspose)
    })?;
    let Packed::ConvTranspose(conv) = packed else {
        return None;
    };
    let conv = conv.resized(geometry).ok()?;
    let (tail, batch) = (tail(planner, id, y, false), xd[0]);
    let read = planner.read_f32(x, Layout::Last)?;
    let (kernel, activation) = (conv.kernel_name(), tail.activation);
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        conv.run(ctx, batch, x, y, bias.as_deref(), activation);
    });
    let to = (tail.result, Layout::Last);
    planner.step_f32(id, &tail.nodes, to, kernel, vec![read], work)
}

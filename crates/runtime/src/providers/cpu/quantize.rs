//! QuantizeLinear to bytes, where nothing fused it.

use std::sync::Arc;

use edgesmith_ir::NodeId;
use edgesmith_kernels::quantize::quantize8;

use super::activations::present_layout;
use super::dequantize::quantized_by;
use super::{float8, grids};
use crate::plan::{ByLines, Layout, OfStrip, Planner, Spec};

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    float8::quantize(planner, id)
        .or_else(|| to_bytes(planner, id))
        .or_else(|| grids::quantize(planner, id))
}

/// By one scale that is constant.
fn to_bytes(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let x = node.input(0)?;
    let to = quantized_by(planner, id)?;
    let dims = planner.float_dims(x)?;
    let layout = present_layout(planner, x);
    let read = planner.read_f32(x, layout)?;
    let write = planner.write(to.value, layout)?;
    let run: OfStrip = Arc::new(move |ctx, _, x, y| {
        quantize8(ctx, bytemuck::cast_slice(x[0]), to.quant, to.signed, y);
    });
    let whole = Arc::clone(&run);
    let spec = Spec {
        kernel: "quantize-8",
        integer: false,
        reads: vec![read],
        writes: vec![write],
        makes: vec![(to.value, layout)],
        work: Box::new(move |ctx, x, y| whole(ctx, None, x, y[0])),
    };
    planner.step(id, &[id], spec);
    if layout == Layout::Plain
        && let Some(lines) = ByLines::of_elements(&dims, [4, 1], run)
    {
        planner.by_lines(lines);
    }
    Some(())
}

//! QuantizeLinear to bytes, where nothing fused it.

use edgesmith_ir::NodeId;
use edgesmith_kernels::quantize::quantize8;

use super::activations::present_layout;
use super::dequantize::quantized_by;
use super::{float8, grids};
use crate::plan::{Planner, Spec};

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
    planner.float_dims(x)?;
    let layout = present_layout(planner, x);
    let read = planner.read_f32(x, layout)?;
    let write = planner.write(to.value, layout)?;
    planner.step(
        id,
        &[id],
        Spec {
            kernel: "quantize-8",
            integer: false,
            reads: vec![read],
            writes: vec![write],
            makes: vec![(to.value, layout)],
            work: Box::new(move |ctx, x, y| {
                quantize8(ctx, bytemuck::cast_slice(x[0]), to.quant, to.signed, y[0]);
            }),
        },
    );
    Some(())
}

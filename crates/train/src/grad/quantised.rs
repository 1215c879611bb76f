//! Quantisation, straight through.

use edgesmith_ir::{Node, Result};

use super::Backward;

/// The mark of a node whose scale has no gradient by it.
pub const STEADY_SCALE: &str = "edgesmith.steady_scale";

/// `<Op>Grad(X, scale, zero point, dY)` for input and scale.
fn straight_through(cx: &mut Backward, node: Node) -> Result<()> {
    let inputs = [
        Some(cx.x(0)?),
        Some(cx.x(1)?),
        cx.node().input(2),
        Some(cx.dy()?),
    ];
    let is_steady = cx.node().metadata.iter().any(|(k, _)| k == STEADY_SCALE);
    cx.give_by(node, &inputs, if is_steady { &[0] } else { &[0, 1] });
    Ok(())
}

pub(super) fn quantize(cx: &mut Backward) -> Result<()> {
    let node = cx.own();
    straight_through(cx, node)
}

pub(super) fn dequantize(cx: &mut Backward) -> Result<()> {
    let node = cx.own();
    straight_through(cx, node)
}

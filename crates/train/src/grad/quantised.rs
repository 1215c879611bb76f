//! Quantisation, straight through.

use edgesmith_ir::{Node, Result};

use super::Backward;

/// `<Op>Grad(X, scale, zero point, dY)` for input and scale.
fn straight_through(cx: &mut Backward, node: Node) -> Result<()> {
    let inputs = [
        Some(cx.x(0)?),
        Some(cx.x(1)?),
        cx.node().input(2),
        Some(cx.dy()?),
    ];
    cx.give_by(node, &inputs, &[0, 1]);
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

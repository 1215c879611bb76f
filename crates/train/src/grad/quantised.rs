//! Quantisation, straight through.

use edgesmith_ir::{Node, Result, ValueId};

use super::Backward;

/// `<Op>Grad(X, scale, zero point, dY)` for input and scale.
fn straight_through(cx: &mut Backward, node: Node) -> Result<()> {
    let inputs = [
        Some(cx.x(0)?),
        Some(cx.x(1)?),
        cx.node().input(2),
        Some(cx.dy()?),
    ];
    let wants = [cx.wants(0), cx.wants(1)];
    let made: Vec<Option<ValueId>> = cx.emit(node, &inputs, &wants);
    for (i, d) in made.into_iter().enumerate() {
        if let Some(d) = d {
            cx.give(i, d);
        }
    }
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

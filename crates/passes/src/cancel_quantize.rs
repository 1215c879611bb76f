//! Removes a QuantizeLinear that makes again what the DequantizeLinear before it read.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Model, NodeId, Result};

use crate::pass::{Level, Pass, PassCx};
use crate::quantization::Grid;
use crate::rewrite::{Editor, each_graph, nodes_of};

/// Scale, zero point, axis and type of both are equal. With f32 scales and integers of up to 16
/// bits the quotient is within half a step of the integer, so the same one comes back.
pub static PASS: Pass = Pass {
    name: "cancel_quantize",
    about: "remove a DequantizeLinear and QuantizeLinear that cancel",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let nodes = nodes_of(graph, &["QuantizeLinear"]);
        if nodes.is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in nodes {
            changes += usize::from(cancel(&mut editor, id, &types).is_some());
        }
        Ok(changes)
    })
}

fn cancel(editor: &mut Editor, id: NodeId, types: &Inferred) -> Option<()> {
    let back = editor.source(id, 0, &["DequantizeLinear"])?;
    let before = editor.graph.node(back).input(0)?;
    let after = editor.graph.node(id).output(0)?;
    let (from, to) = (
        Grid::of(editor, back, before, types)?,
        Grid::of(editor, id, after, types)?,
    );
    (from == to && editor.bypass(id, after, before)).then_some(())
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    #[test]
    fn equal_grids_cancel_and_others_stay() {
        let text = |second: &str| {
            format!(
                "opset 17
                 graph g(x: u8[300]) -> (y) {{
                   s: f32[] = {{0.0371}}
                   t: f32[] = {{0.0372}}
                   z: u8[] = {{7}}
                   o: u8[] = {{8}}
                   i: i8[] = {{7}}
                   a = DequantizeLinear(x, s, z)
                   q = QuantizeLinear(a, {second})
                   y = DequantizeLinear(q, {second})
                 }}"
            )
        };
        assert_eq!(left(&PASS, &text("s, z")).len(), 2);
        for second in ["t, z", "s, o", "s, i"] {
            assert_eq!(left(&PASS, &text(second)).len(), 3, "{second}");
        }
    }
}

//! Removes Relu and Clip whose work QuantizeLinear does by its range.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Model, NodeId, Result};

use crate::merge_clips::Bounds;
use crate::pass::{Level, Pass, PassCx};
use crate::quantization::Grid;
use crate::rewrite::{Editor, each_graph, nodes_of};

/// Where the bounds fall on the ends of the integers, what is beyond them saturates to the same
/// integer; bit for bit. Only where nobody else reads the bounded value.
pub static PASS: Pass = Pass {
    name: "drop_before_quantize",
    about: "remove Relu and Clip that saturation makes up for",
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
            changes += usize::from(remove(&mut editor, id, &types).is_some());
        }
        Ok(changes)
    })
}

fn remove(editor: &mut Editor, id: NodeId, types: &Inferred) -> Option<()> {
    let clip = editor.only_source(id, 0, &["Relu", "Clip"])?;
    let bounds = Bounds::of(editor, editor.graph.node(clip))?;
    let grid = Grid::of(editor, id, editor.graph.node(id).output(0)?, types)?;
    let (least, most) = grid.range();
    let place = |bound: f64, i: usize| {
        let quotient = bound as f32 / grid.scale[i];
        (f64::from(quotient).round_ties_even() as i64).saturating_add(grid.zero[i])
    };
    let saturates = (0..grid.scale.len()).all(|i| {
        (bounds.low == f64::NEG_INFINITY || place(bounds.low, i) <= least)
            && (bounds.high == f64::INFINITY || place(bounds.high, i) >= most)
    });
    if !saturates {
        return None;
    }
    let source = editor.graph.node(clip).input(0)?;
    editor.graph.set_input(id, 0, Some(source));
    editor.graph.remove_node(clip);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    #[test]
    fn bounds_at_the_ends_of_the_integers_go() {
        let text = |op: &str, zero: &str| {
            format!(
                "opset 17
                 graph g(x: f32[40]) -> (y) {{
                   zero: f32[] = {{0}}
                   six: f32[] = {{6}}
                   s: f32[] = {{0.0235294117}}
                   z: {zero}
                   a = {op}
                   y = QuantizeLinear(a, s, z)
                 }}"
            )
        };
        for (op, zero, stays) in [
            ("Relu(x)", "u8[] = {0}", false),
            ("Relu(x)", "i8[] = {-128}", false),
            ("Relu(x)", "u8[] = {3}", true),
            ("Relu(x)", "i8[] = {0}", true),
            ("Clip(x, zero, six)", "u8[] = {0}", false),
            ("Clip(x, zero, six)", "u16[] = {0}", true),
        ] {
            let ops = left(&PASS, &text(op, zero));
            assert_eq!(ops.len(), 1 + usize::from(stays), "{op} {zero}");
        }
    }
}

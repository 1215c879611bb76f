//! Removes Expand and leading Unsqueeze in front of operators that broadcast by themselves.

use edgesmith_ir::infer::{Inferred, broadcast};
use edgesmith_ir::ops::axes;
use edgesmith_ir::{Model, NodeId, Result, Shape, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of, same_shape, shape};

/// Only where the other operands alone already give the shape of the result; bit for bit.
pub static PASS: Pass = Pass {
    name: "drop_expand",
    about: "remove Expand and Unsqueeze in front of operators that broadcast",
    level: Level::Basic,
    run,
};

const BROADCASTING: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "And",
    "Or",
    "Xor",
    "Equal",
    "Less",
    "Greater",
    "LessOrEqual",
    "GreaterOrEqual",
    "Where",
    "Max",
    "Min",
    "Sum",
    "Mean",
];

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        if scope.opset() < 8 || nodes_of(graph, &["Expand", "Unsqueeze"]).is_empty() {
            return Ok(0);
        }
        let nodes = nodes_of(graph, BROADCASTING);
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in nodes {
            for i in 0..editor.graph.node(id).inputs().len() {
                changes += usize::from(remove(&mut editor, id, i, &types).is_some());
            }
        }
        Ok(changes)
    })
}

fn remove(editor: &mut Editor, id: NodeId, i: usize, types: &Inferred) -> Option<()> {
    let stretch = editor.source(id, i, &["Expand", "Unsqueeze"])?;
    let x = editor.graph.node(stretch).input(0)?;
    if editor.graph.node(stretch).is("Unsqueeze") && !puts_axes_in_front(editor, stretch, types) {
        return None;
    }
    let node = editor.graph.node(id);
    let shape_of = |(j, v): (usize, &Option<ValueId>)| {
        let v = if j == i { x } else { (*v)? };
        shape(types, v)
    };
    let shapes: Vec<Option<&Shape>> = node.inputs().iter().enumerate().map(shape_of).collect();
    let without = broadcast(&shapes).ok()??;
    if !same_shape(&without, shape(types, node.output(0)?)?) {
        return None;
    }
    editor.graph.set_input(id, i, Some(x));
    Some(())
}

/// True where all new axes come before those that are there.
fn puts_axes_in_front(editor: &Editor, id: NodeId, types: &Inferred) -> bool {
    let out = editor.graph.node(id).output(0);
    let rank = out.and_then(|v| shape(types, v)).map(Shape::rank);
    let (Some(axes), Some(rank)) = (editor.ints(id, "axes", 1), rank) else {
        return false;
    };
    axes::marks(&axes, rank).is_ok_and(|new| new.iter().take(axes.len()).all(|&n| n))
}

#[cfg(test)]
mod tests {
    use super::{Model, PASS};
    use crate::testing::run;

    /// True where the node that makes the output reads a graph input at place `i`.
    fn reads_input(m: &Model, i: usize) -> bool {
        let (last, _) = m.graph.value(m.graph.outputs[0]).producer().unwrap();
        let v = m.graph.node(last).input(i).unwrap();
        m.graph.inputs.contains(&v)
    }

    #[test]
    fn what_broadcasting_does_anyway_is_not_written_out() {
        for ops in ["e = Expand(c, s)", "e = Unsqueeze(y, front)"] {
            let text = format!(
                "opset 17
                 graph g(x: f32[batch,3], y: f32[3], c: f32[1,3]) -> (z) {{
                   front: i64[1] = {{0}}
                   s = Shape(x)
                   {ops}
                   z = Add(x, e)
                 }}"
            );
            assert!(reads_input(&run(&PASS, &text), 1), "{ops}");
        }
    }

    #[test]
    fn what_gives_the_result_its_shape_stays() {
        for ops in [
            "e = Expand(c, two)\nz = Add(e, y)",
            "e = Unsqueeze(y, front)\nz = Mul(e, y)",
        ] {
            let text = format!(
                "opset 17
                 graph g(y: f32[3], c: f32[1,3]) -> (z) {{
                   two: i64[2] = {{2,3}}
                   front: i64[1] = {{0}}
                   {ops}
                 }}"
            );
            assert!(!reads_input(&run(&PASS, &text), 0), "{ops}");
        }
    }
}

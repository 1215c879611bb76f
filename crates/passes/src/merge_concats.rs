//! Joins a Concat of Concats.

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{Model, Node, NodeId, Result, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of, rank};

/// Along the same axis, where nobody else reads the inner one.
pub static PASS: Pass = Pass {
    name: "merge_concats",
    about: "join Concats of Concats along the same axis",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let concats = nodes_of(graph, &["Concat"]);
        if concats.len() < 2 {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in concats {
            // An earlier one may have taken it in.
            if editor.graph.get_node(id).is_some() {
                changes += usize::from(merge(&mut editor, id, &types).is_some());
            }
        }
        Ok(changes)
    })
}

fn axis(editor: &Editor, id: NodeId, types: &Inferred) -> Option<usize> {
    let node = editor.graph.node(id);
    infer::axis(node.int("axis")?, rank(types, node.output(0)?)?).ok()
}

fn merge(editor: &mut Editor, id: NodeId, types: &Inferred) -> Option<()> {
    let own = axis(editor, id, types)?;
    let inputs = editor.graph.node(id).inputs().to_vec();
    let mut all: Vec<Option<ValueId>> = Vec::new();
    let mut inner = Vec::new();
    for (i, &v) in inputs.iter().enumerate() {
        match editor.only_source(id, i, &["Concat"]) {
            Some(source) if axis(editor, source, types) == Some(own) => {
                all.extend(editor.graph.node(source).inputs());
                inner.push(source);
            }
            _ => all.push(v),
        }
    }
    if inner.is_empty() {
        return None;
    }
    let node = editor.graph.node(id);
    let mut new = Node::new("Concat", "");
    new.attributes.clone_from(&node.attributes);
    editor.swap_node(id, new, &all);
    for source in inner {
        editor.graph.remove_node(source);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    #[test]
    fn inner_ones_of_the_axis_join() {
        let text = |inner: i64, outer: &str| {
            format!(
                "opset 17
                 graph g(x: f32[2,3], z: f32[2,3]) -> (y) {{
                   a = Concat(x, z) {{axis={inner}}}
                   y = Concat({outer}
                 }}"
            )
        };
        assert_eq!(left(&PASS, &text(-1, "x, a, z) {axis=1}")).len(), 1);
        assert_eq!(left(&PASS, &text(0, "a, a) {axis=1}")).len(), 2);
        assert_eq!(left(&PASS, &text(1, "a, a) {axis=1}")).len(), 2);
    }
}

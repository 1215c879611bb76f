//! Joins Transposes in a row.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, Model, NodeId, Result};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of, rank};

/// A Transpose of a Transpose permutes once (not at all, where the two cancel: `drop_identity`
/// removes it then).
pub static PASS: Pass = Pass {
    name: "merge_transposes",
    about: "join Transposes in a row",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let transposes = nodes_of(graph, &["Transpose"]);
        if transposes.len() < 2 {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in transposes {
            changes += usize::from(merge(&mut editor, id, &types).is_some());
        }
        Ok(changes)
    })
}

fn merge(editor: &mut Editor, second: NodeId, types: &Inferred) -> Option<()> {
    let first = editor.source(second, 0, &["Transpose"])?;
    let (inner, outer) = (order(editor, first, types)?, order(editor, second, types)?);
    if inner.len() != outer.len() {
        return None;
    }
    let at = |p: &usize| i64::try_from(*inner.get(*p)?).ok();
    let perm: Vec<i64> = outer.iter().map(at).collect::<Option<_>>()?;
    let source = editor.graph.node(first).input(0)?;
    editor
        .graph
        .node_mut(second)
        .set("perm", Attribute::Ints(perm));
    editor.graph.set_input(second, 0, Some(source));
    Some(())
}

/// For each axis of what a Transpose makes, the axis that it reads.
pub(crate) fn order(editor: &Editor, id: NodeId, types: &Inferred) -> Option<Vec<usize>> {
    let node = editor.graph.node(id);
    match node.ints("perm") {
        Some(perm) => perm.iter().map(|&p| usize::try_from(p).ok()).collect(),
        None => Some((0..rank(types, node.output(0)?)?).rev().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::run;

    #[test]
    fn two_transposes_become_one() {
        for (first, perm) in [("{perm=[2,0,1]}", [1, 2, 0]), ("", [0, 2, 1])] {
            let text = format!(
                "opset 17
                 graph g(x: f32[2,3,4]) -> (y) {{
                   a = Transpose(x) {first}
                   y = Transpose(a) {{perm=[2,0,1]}}
                 }}"
            );
            let m = run(&PASS, &text);
            let (_, last) = m.graph.nodes().last().unwrap();
            assert_eq!(last.ints("perm"), Some(perm.as_slice()));
            assert_eq!(last.input(0), Some(m.graph.inputs[0]));
        }
    }
}

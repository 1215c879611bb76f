//! Joins Reshape, Flatten, Squeeze and Unsqueeze in a row to one Reshape.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Model, Node, NodeId, Result, Tensor};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, Scope, each_graph, nodes_of, shape};
use crate::settle_shapes::reshape_target;

/// All of them only give the same elements other lengths, so the second one can read what the
/// first one read. Needs the lengths that come out, but for one that is worked out and for symbols
/// at the place where the first one reads them.
pub static PASS: Pass = Pass {
    name: "merge_reshapes",
    about: "join Reshape, Flatten, Squeeze and Unsqueeze in a row",
    level: Level::Basic,
    run,
};

const VIEWS: &[&str] = &["Reshape", "Flatten", "Squeeze", "Unsqueeze"];

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let views = nodes_of(graph, VIEWS);
        if views.len() < 2 || scope.opset() < 5 {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in views {
            changes += usize::from(merge(&mut editor, id, &types, scope).is_some());
        }
        Ok(changes)
    })
}

fn merge(editor: &mut Editor, second: NodeId, types: &Inferred, scope: &mut Scope) -> Option<()> {
    let first = editor.source(second, 0, VIEWS)?;
    let x = editor.graph.node(first).input(0)?;
    let node = editor.graph.node(second);
    let y = node.output(0)?;
    if node.is("Reshape")
        && let Some(target) = editor.ints(second, "shape", 1)
        && !target.contains(&0)
    {
        editor.graph.set_input(second, 0, Some(x));
        return Some(());
    }
    let wanted = shape(types, y)?;
    if wanted.iter().any(|d| d.known() == Some(0)) {
        return None;
    }
    let target = reshape_target(wanted, shape(types, x))?;
    let name = format!("{}_shape", editor.graph.value(y).name);
    let data = Tensor::vector(target);
    let target = editor.graph.add_constant(&scope.names.fresh(&name), data);
    editor.keep_type(y, types);
    editor.swap_node(second, Node::new("Reshape", ""), &[Some(x), Some(target)]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::run;
    use edgesmith_ir::Model;

    /// The operator that makes the output, where it reads the input of the graph.
    fn only(m: &Model) -> Option<(String, Option<Vec<i64>>)> {
        let (id, _) = m.graph.value(m.graph.outputs[0]).producer()?;
        let node = m.graph.node(id);
        let target = node
            .input(1)
            .and_then(|v| m.graph.constant(v)?.to_i64().ok());
        (node.input(0) == m.graph.inputs.first().copied()).then(|| (node.op.clone(), target))
    }

    fn around(ops: &str) -> String {
        format!(
            "opset 17
             graph g(x: f32[batch,3,4]) -> (y) {{
               flat: i64[2] = {{0,-1}}
               six: i64[2] = {{-1,6}}
               one: i64[1] = {{1}}
               last: i64[1] = {{-1}}
               {ops}
             }}"
        )
    }

    #[test]
    fn any_two_become_one_reshape_and_the_batch_stays() {
        for (ops, target) in [
            ("a = Unsqueeze(x, one)\ny = Squeeze(a, one)", vec![0, 3, 4]),
            ("a = Flatten(x)\ny = Unsqueeze(a, one)", vec![0, 1, 12]),
            ("a = Flatten(x)\ny = Reshape(a, flat)", vec![0, 12]),
            ("a = Unsqueeze(x, last)\ny = Reshape(a, six)", vec![-1, 6]),
        ] {
            let found = only(&run(&PASS, &around(ops)));
            assert_eq!(found, Some(("Reshape".into(), Some(target))), "{ops}");
        }
    }

    #[test]
    fn a_batch_that_would_be_lost_keeps_both() {
        let ops = "a = Reshape(x, six)\nzero: i64[1] = {0}\ny = Unsqueeze(a, zero)";
        let text = around(ops).replace("batch,3,4", "batch,sequence,6");
        assert_eq!(only(&run(&PASS, &text)).unwrap().1, Some(vec![1, -1, 6]));
        let text = around("a = Flatten(x)\ny = Unsqueeze(a, one)").replace("3,4", "s,t");
        assert_eq!(only(&run(&PASS, &text)).unwrap().1, Some(vec![0, 1, -1]));
    }
}

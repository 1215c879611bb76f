//! Joins Transposes in a row, and Reshapes in a row.

use edgesmith_ir::{Attribute, Model, NodeId, Result};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of};

/// A Transpose of a Transpose permutes once (not at all, where the two cancel: `drop_identity`
/// removes it then); a Reshape of a Reshape reads what the first one read.
pub static PASS: Pass = Pass {
    name: "merge_transposes",
    about: "join Transposes in a row, and Reshapes in a row",
    level: Level::Extended,
    run,
};

fn run(model: &mut Model, _cx: &PassCx) -> Result<usize> {
    each_graph(model, &mut |graph, _| {
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in nodes_of(editor.graph, &["Transpose"]) {
            changes += usize::from(merge_transposes(&mut editor, id).is_some());
        }
        for id in nodes_of(editor.graph, &["Reshape"]) {
            changes += usize::from(merge_reshapes(&mut editor, id).is_some());
        }
        Ok(changes)
    })
}

fn merge_transposes(editor: &mut Editor, second: NodeId) -> Option<()> {
    let node = editor.graph.node(second);
    let first = editor.graph.producer_is(node.input(0)?, "Transpose")?;
    let outer = node.ints("perm")?.to_vec();
    let inner = editor.graph.node(first).ints("perm")?;
    let at = |p: &i64| inner.get(usize::try_from(*p).ok()?).copied();
    let perm: Vec<i64> = outer.iter().map(at).collect::<Option<_>>()?;
    if inner.len() != outer.len() {
        return None;
    }
    let source = editor.graph.node(first).input(0)?;
    editor
        .graph
        .node_mut(second)
        .set("perm", Attribute::Ints(perm));
    editor.graph.set_input(second, 0, Some(source));
    Some(())
}

fn merge_reshapes(editor: &mut Editor, second: NodeId) -> Option<()> {
    let node = editor.graph.node(second);
    let v = node.input(0)?;
    let (first, 0) = editor.graph.value(v).producer()? else {
        return None;
    };
    let source = editor.graph.node(first);
    let reshapes = ["Reshape", "Flatten", "Squeeze", "Unsqueeze"];
    let target = editor.constant(node.input(1)?)?.to_i64().ok()?;
    // A 0 copies a length of the value that is read, so it holds for the first Reshape only.
    if !reshapes.iter().any(|op| source.is(op)) || target.contains(&0) {
        return None;
    }
    let x = source.input(0)?;
    editor.graph.set_input(second, 0, Some(x));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{Model, PASS};
    use crate::testing::run;

    #[test]
    fn two_transposes_become_one() {
        let text = "opset 17
            graph g(x: f32[2,3,4]) -> (y: f32[3,4,2]) {
              a = Transpose(x) {perm=[2,0,1]}
              y = Transpose(a) {perm=[2,0,1]}
            }";
        let m = run(&PASS, text);
        let (_, last) = m.graph.nodes().last().unwrap();
        assert_eq!(last.ints("perm"), Some([1, 2, 0].as_slice()));
        assert_eq!(last.input(0), Some(m.graph.inputs[0]));
    }

    #[test]
    fn a_reshape_that_copies_a_length_keeps_the_reshape_before_it() {
        let text = |target: &str| {
            format!(
                "opset 17
                 graph g(x: f32[2,3,4]) -> (y) {{
                   s: i64[2] = {{6,4}}
                   t: i64[2] = {target}
                   a = Reshape(x, s)
                   y = Reshape(a, t)
                 }}"
            )
        };
        let reads_input = |m: &Model| m.graph.value(m.graph.inputs[0]).consumers().len() == 2;
        assert!(reads_input(&run(&PASS, &text("{4,-1}"))));
        assert!(!reads_input(&run(&PASS, &text("{0,-1}"))));
    }
}

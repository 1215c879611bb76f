//! Joins Pads in a row.

use edgesmith_ir::{Attribute, Model, NodeId, Result, Tensor};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, Scope, each_graph, nodes_of};

/// By the same constant, of all axes, none negative; the first Pad has no other reader.
pub static PASS: Pass = Pass {
    name: "merge_pads",
    about: "join Pads by the same constant in a row",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let pads = nodes_of(graph, &["Pad"]);
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in pads {
            // An earlier one may have taken it in.
            if editor.graph.get_node(id).is_some() {
                changes += usize::from(merge(&mut editor, id, scope).is_some());
            }
        }
        Ok(changes)
    })
}

fn merge(editor: &mut Editor, second: NodeId, scope: &mut Scope) -> Option<()> {
    let first = editor.only_source(second, 0, &["Pad"])?;
    let (inner, outer) = (around(editor, first)?, around(editor, second)?);
    let same = filling(editor, first)? == filling(editor, second)?;
    if inner.len() != outer.len() || !same {
        return None;
    }
    let sums: Vec<i64> = inner.iter().zip(&outer).map(|(a, b)| a + b).collect();
    let x = editor.graph.node(first).input(0)?;
    let node = editor.graph.node_mut(second);
    if node.ints("pads").is_some() {
        node.set("pads", Attribute::Ints(sums));
    } else {
        editor.set_constant(second, 1, Tensor::vector(sums), "pads", scope.names);
    }
    editor.graph.set_input(second, 0, Some(x));
    editor.graph.remove_node(first);
    Some(())
}

/// The padding of all axes, where it is known and adds.
fn around(editor: &Editor, id: NodeId) -> Option<Vec<i64>> {
    let node = editor.graph.node(id);
    if node.string("mode").unwrap_or("constant") != "constant" || node.input(3).is_some() {
        return None;
    }
    let pads = editor.ints(id, "pads", 1)?;
    pads.iter()
        .all(|p| (0..1 << 31).contains(p))
        .then_some(pads)
}

/// The bits of what fills; `None` of zero.
fn filling(editor: &Editor, id: NodeId) -> Option<Option<Vec<u8>>> {
    let node = editor.graph.node(id);
    let bits = match node.input(2) {
        None => node.float("value").unwrap_or(0.0).to_le_bytes().to_vec(),
        Some(v) => editor.constant(v)?.bytes().to_vec(),
    };
    Some(Some(bits).filter(|b| b.iter().any(|&x| x != 0)))
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    #[test]
    fn equal_fillings_join_and_others_stay() {
        let text = |first: &str, second: &str| {
            format!(
                "opset 17
                 graph g(x: f32[2,3]) -> (y) {{
                   p: i64[4] = {{0,1,0,2}}
                   q: i64[4] = {{1,1,0,0}}
                   cut: i64[4] = {{0,-1,0,0}}
                   zero: f32[] = {{0}}
                   one: f32[] = {{1}}
                   a = Pad(x, {first})
                   y = Pad(a, {second})
                 }}"
            )
        };
        for (first, second, count) in [
            ("p", "q, zero", 1),
            ("p, one", "q, one", 1),
            ("p", "q, one", 2),
            ("p", "cut", 2),
        ] {
            let ops = left(&PASS, &text(first, second));
            assert_eq!(ops.len(), count, "{first} {second}");
        }
    }
}

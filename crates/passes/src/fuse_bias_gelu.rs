//! Joins the Add of a bias to the Gelu behind it.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Model, Node, NodeId, Result};

use crate::fuse_skip_norm::with_row;
use crate::pass::{Level, Pass, PassCx};
use crate::pattern::{Group, MICROSOFT, fuse_each_graph};
use crate::rewrite::Editor;

/// Gelu of the default domain and of `com.microsoft`, exact ones to BiasGelu, those by tanh to
/// FastGelu.
pub static PASS: Pass = Pass {
    name: "fuse_bias_gelu",
    about: "join the Add of a bias and Gelu to BiasGelu or FastGelu",
    level: Level::Extended,
    run,
};

/// The operator with a bias that an activation becomes.
fn biased(node: &Node) -> Option<&'static str> {
    match (node.domain.as_str(), node.op.as_str()) {
        ("", "Gelu") => match node.string("approximate") {
            Some("tanh") => Some("FastGelu"),
            None | Some("none") => Some("BiasGelu"),
            Some(_) => None,
        },
        (MICROSOFT, "Gelu") => Some("BiasGelu"),
        (MICROSOFT, "FastGelu") if node.input(1).is_none() => Some("FastGelu"),
        _ => None,
    }
}

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    fuse_each_graph(model, cx, &mut |graph, scope| {
        let found: Vec<(NodeId, &str)> = graph
            .nodes()
            .filter_map(|(id, n)| Some((id, biased(n)?)))
            .collect();
        if found.is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for (id, op) in found {
            changes += usize::from(fuse(&mut editor, id, op, &types).is_some());
        }
        Ok(changes)
    })
}

fn fuse(editor: &mut Editor, gelu: NodeId, op: &str, types: &Inferred) -> Option<()> {
    let mut g = Group::new(editor, types);
    g.nodes.push(gelu);
    let (x, y) = (g.node(gelu).input(0)?, g.node(gelu).output(0)?);
    let add = g.take(x, &["Add"])?;
    let width = g.shape(x)?.0.last()?.known()?;
    let (input, bias) = with_row(&g, add, width)?;
    let is_float = matches!(g.dtype(x), Some(DType::F32 | DType::F16));
    if !is_float || g.is_integer_product(input) {
        return None;
    }
    let nodes = g.closed(&[y])?;
    let node = Node::new(op, "").in_domain(MICROSOFT);
    editor.fuse(&nodes, node, &[Some(input), Some(bias)], &[Some(y)]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    fn around(op: &str, ends: &str) -> Vec<String> {
        let text = format!(
            "opset 20\nopset \"com.microsoft\" 1\ngraph g(x: f32[b,3]) -> ({ends}) {{
               bias: f32[3] = {{1,2,3}}
               a = Add(x, bias)
               y = {op}
             }}"
        );
        left(&PASS, &text)
    }

    #[test]
    fn each_gelu_takes_the_bias_before_it() {
        for (op, joined) in [
            ("Gelu(a)", "BiasGelu"),
            ("com.microsoft.Gelu(a)", "BiasGelu"),
            ("Gelu(a) {approximate=\"tanh\"}", "FastGelu"),
            ("com.microsoft.FastGelu(a)", "FastGelu"),
        ] {
            assert_eq!(around(op, "y"), [joined], "{op}");
            assert_eq!(around(op, "y, a").len(), 2, "{op}");
        }
    }
}

//! Removes nodes whose output always equals their first input.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::ops::axes;
use edgesmith_ir::{DType, Graph, Model, Node, NodeId, Result};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, same_shape, shape, tensor_type};

/// Identity; Dropout in inference; Cast to the same type; Reshape, Flatten, Squeeze, Unsqueeze,
/// Expand and Tile to the same shape; Transpose that keeps the order; Pad by nothing; Slice of the
/// whole; Concat, Sum, Max, Min and Mean of one; Clip without bounds.
pub static PASS: Pass = Pass {
    name: "drop_identity",
    about: "remove nodes that return their input",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        if !graph.nodes().any(|(_, n)| is_candidate(n)) {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let opset = scope.opset();
        let nodes: Vec<NodeId> = graph
            .nodes()
            .filter(|(_, n)| is_candidate(n) && returns_input(graph, n, &types, opset))
            .map(|(id, _)| id)
            .collect();
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in nodes {
            let node = editor.graph.node(id);
            let (Some(x), Some(y)) = (node.input(0), node.output(0)) else {
                continue;
            };
            let rest_unread = node
                .outputs()
                .iter()
                .skip(1)
                .flatten()
                .all(|&v| editor.is_unread(v));
            if rest_unread && editor.bypass(id, y, x) {
                changes += 1;
            }
        }
        Ok(changes)
    })
}

const CANDIDATES: &[&str] = &[
    "Cast",
    "Clip",
    "Concat",
    "Dropout",
    "Expand",
    "Flatten",
    "Identity",
    "Max",
    "Mean",
    "Min",
    "Pad",
    "Reshape",
    "Slice",
    "Squeeze",
    "Sum",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

fn is_candidate(node: &Node) -> bool {
    node.domain.is_empty() && CANDIDATES.binary_search(&node.op.as_str()).is_ok()
}

fn returns_input(graph: &Graph, node: &Node, types: &Inferred, opset: i64) -> bool {
    match node.op.as_str() {
        "Identity" => true,
        "Dropout" => is_inference(graph, node, opset),
        "Cast" => {
            let from = node.input(0).and_then(|v| tensor_type(types, v));
            let to = node.int("to").and_then(|t| i32::try_from(t).ok());
            from.is_some_and(|t| to.and_then(DType::from_onnx) == Some(t.dtype))
        }
        "Concat" | "Max" | "Mean" | "Min" | "Sum" => node.inputs().len() == 1,
        "Clip" => {
            let open = |name| node.attribute(name).is_none();
            node.input(1).is_none() && node.input(2).is_none() && open("min") && open("max")
        }
        "Transpose" => node
            .ints("perm")
            .is_some_and(|p| p.iter().enumerate().all(|(i, &a)| a == i as i64)),
        "Pad" => pads(graph, node).is_some_and(|p| p.iter().all(|&n| n == 0)),
        "Slice" => {
            steps_are_one(graph, node) && (keeps_shape(node, types) || is_whole(graph, node, types))
        }
        _ => keeps_shape(node, types),
    }
}

/// Dropout drops only in training: by an attribute before opset 7, by input 2 from opset 12 on.
fn is_inference(graph: &Graph, node: &Node, opset: i64) -> bool {
    if opset < 7 {
        return node.int("is_test") == Some(1);
    }
    match node.input(2) {
        None => true,
        Some(mode) => graph
            .constant(mode)
            .and_then(|t| t.bools().ok())
            .is_some_and(|t| t == [false]),
    }
}

fn pads(graph: &Graph, node: &Node) -> Option<Vec<i64>> {
    if let Some(pads) = node.ints("pads").or_else(|| node.ints("paddings")) {
        return Some(pads.to_vec());
    }
    graph.constant(node.input(1)?)?.to_i64().ok()
}

fn steps_are_one(graph: &Graph, node: &Node) -> bool {
    match node.input(4) {
        None => true,
        Some(steps) => graph
            .constant(steps)
            .and_then(|t| t.to_i64().ok())
            .is_some_and(|s| s.iter().all(|&n| n == 1)),
    }
}

/// A Slice from 0 to the end of axes of any length, or to that of axes whose length is known.
fn is_whole(graph: &Graph, node: &Node, types: &Inferred) -> bool {
    let ints = |i| graph.constant(node.input(i)?)?.to_i64().ok();
    let (Some(starts), Some(ends), Some(x)) = (
        ints(1),
        ints(2),
        node.input(0).and_then(|v| shape(types, v)),
    ) else {
        return false;
    };
    let along: Vec<i64> = match node.input(3) {
        None => (0..).take(starts.len()).collect(),
        Some(_) => ints(3).unwrap_or_default(),
    };
    let Ok(along) = axes::resolve(&along, x.rank()) else {
        return false;
    };
    let reaches = |(&end, &axis): (&i64, &usize)| {
        end >= i64::from(i32::MAX)
            || x.get(axis)
                .and_then(|d| d.known())
                .is_some_and(|n| end >= 0 && end as u64 >= n as u64)
    };
    along.len() == starts.len()
        && ends.len() == starts.len()
        && starts.iter().all(|&s| s == 0)
        && ends.iter().zip(&along).all(reaches)
}

fn keeps_shape(node: &Node, types: &Inferred) -> bool {
    let shape_of = |v: Option<_>| shape(types, v?);
    match (shape_of(node.input(0)), shape_of(node.output(0))) {
        (Some(x), Some(y)) => same_shape(x, y),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::left;

    #[test]
    fn candidates_are_in_order() {
        assert!(CANDIDATES.is_sorted());
    }

    fn around(op: &str) -> String {
        format!(
            "opset 17
             graph g(x: f32[2,3]) -> (z) {{
               zeros: i64[4] = {{0,0,0,0}}
               zero: i64[1] = {{0}}
               far: i64[1] = {{99}}
               back: i64[1] = {{-99}}
               axis: i64[1] = {{1}}
               down: i64[1] = {{-1}}
               same: i64[2] = {{2,-1}}
               turned: i64[2] = {{3,2}}
               one: i64[1] = {{1}}
               y = {op}
               z = Relu(y)
             }}"
        )
    }

    #[test]
    fn nodes_that_do_nothing_go() {
        for op in [
            "Identity(x)",
            "Dropout(x)",
            "Cast(x) {to=1}",
            "Concat(x) {axis=1}",
            "Max(x)",
            "Clip(x)",
            "Transpose(x) {perm=[0,1]}",
            "Pad(x, zeros)",
            "Slice(x, zero, far, axis)",
            "Reshape(x, same)",
            "Flatten(x)",
            "Expand(x, one)",
        ] {
            assert_eq!(left(&PASS, &around(op)), ["Relu"], "{op}");
        }
    }

    #[test]
    fn nodes_that_do_something_stay() {
        for op in [
            "Concat(x, x) {axis=1}",
            "Transpose(x) {perm=[1,0]}",
            "Slice(x, down, back, axis, down)",
            "Reshape(x, turned)",
        ] {
            assert_eq!(left(&PASS, &around(op)).len(), 2, "{op}");
        }
    }

    #[test]
    fn an_output_keeps_its_name_when_its_identity_goes() {
        let text = "opset 17
            graph g(x: f32[2]) -> (y: f32[2], x2: f32[2]) {
              h = Relu(x)
              y = Identity(h)
              x2 = Identity(x)
            }";
        assert_eq!(left(&PASS, text), ["Relu", "Identity"]);
    }

    #[test]
    fn a_dropout_whose_mask_is_read_stays() {
        let text = "opset 17
            graph g(x: f32[2]) -> (z: f32[2], m: bool[2]) {
              y, m = Dropout(x)
              z = Relu(y)
            }";
        assert_eq!(left(&PASS, text), ["Dropout", "Relu"]);
    }

    #[test]
    fn a_slice_of_whole_axes_goes_whatever_their_lengths() {
        for (end, stays) in [(2_147_483_647i64, 1), (1_000_000, 2)] {
            // What the first leaves of the batch is not known; of the other axis there are three.
            let text = format!(
                "opset 17
                 graph g(x: f32[batch,3]) -> (y) {{
                   zeros: i64[2] = {{0,0}}
                   many: i64[2] = {{1000000000,3}}
                   ends: i64[2] = {{{end},3}}
                   s = Slice(x, zeros, many)
                   y = Slice(s, zeros, ends)
                 }}"
            );
            assert_eq!(left(&PASS, &text).len(), stays, "{end}");
        }
    }
}

//! Joins the sum in front of a norm to the norm.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, DType, Model, Node, NodeId, Result, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::pattern::{Group, MICROSOFT, fuse_each_graph};
use crate::rewrite::{Editor, nodes_of, same_shape};

/// The residual Add and the Add of a bias before it; where others read the sum (the residual of
/// the next layer), the node makes it too.
pub static PASS: Pass = Pass {
    name: "fuse_skip_norm",
    about: "join Add and LayerNormalization to SkipLayerNormalization",
    level: Level::Extended,
    run,
};

/// The norms over a last axis, and what the pass after the sum is called.
pub(crate) const NORMS: &[&str] = &[
    "LayerNormalization",
    "SimplifiedLayerNormalization",
    "RMSNormalization",
];

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    fuse_each_graph(model, cx, &mut |graph, scope| {
        let norms = nodes_of(graph, NORMS);
        if norms.is_empty() || nodes_of(graph, &["Add"]).is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in norms {
            changes += usize::from(fuse(&mut editor, id, &types).is_some());
        }
        Ok(changes)
    })
}

/// True for a norm over the last axis alone with one output and weights of one axis.
pub(crate) fn is_over_last_axis(g: &Group, id: NodeId) -> bool {
    let node = g.node(id);
    let rank = node
        .input(0)
        .and_then(|x| g.shape(x))
        .map_or(0, |s| s.rank());
    let axis = node.int("axis").unwrap_or(-1);
    let is_row = |v: Option<ValueId>| match v {
        None => true,
        Some(v) => g.editor.constant(v).is_some_and(|t| t.rank() == 1),
    };
    let dtype = node.input(0).and_then(|x| g.dtype(x));
    (axis == -1 || axis + 1 == rank as i64)
        && node.outputs().len() == 1
        && matches!(dtype, Some(DType::F32 | DType::F16))
        && is_row(node.input(1))
        && is_row(node.input(2))
        && node.int("stash_type").unwrap_or(1) == 1
}

fn fuse(editor: &mut Editor, norm: NodeId, types: &Inferred) -> Option<()> {
    let mut g = Group::new(editor, types);
    g.nodes.push(norm);
    let node = g.node(norm);
    let (sum, y) = (node.input(0)?, node.output(0)?);
    let add = g.take(sum, &["Add"])?;
    let (a, b) = (g.node(add).input(0)?, g.node(add).input(1)?);
    let shapes = (g.shape(a)?, g.shape(b)?);
    let width = shapes.0.0.last()?.known()?;
    let fits = same_shape(shapes.0, shapes.1)
        && (2..=3).contains(&shapes.0.rank())
        && is_over_last_axis(&g, norm)
        && [a, b].iter().all(|&v| g.editor.constant(v).is_none())
        && node.input(1).and_then(|v| g.editor.constant(v))?.count() == width;
    if !fits {
        return None;
    }
    let [mut input, mut skip] = [a, b];
    let mut bias = None;
    for (own, other) in [(a, b), (b, a)] {
        let mut trial = g.clone();
        let Some(inner) = trial.take(own, &["Add"]) else {
            continue;
        };
        if !editor.is_read_only_by(own, &[add]) {
            continue;
        }
        if let Some((x, row)) = with_row(&trial, inner, width)
            && !g.is_integer_product(x)
        {
            (input, skip, bias) = (x, other, Some(row));
            g = trial;
            break;
        }
    }
    let keeps_sum = !editor.is_read_only_by(sum, &[norm]);
    let centred = node.is("LayerNormalization");
    let (gamma, beta) = (node.input(1), node.input(2));
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let nodes = g.closed(&[y, sum])?;
    let op = if centred {
        "SkipLayerNormalization"
    } else {
        "SkipSimplifiedLayerNormalization"
    };
    let fused = Node::new(op, "")
        .in_domain(MICROSOFT)
        .with("epsilon", Attribute::Float(epsilon));
    let inputs = if centred {
        vec![Some(input), Some(skip), gamma, beta, bias]
    } else {
        vec![Some(input), Some(skip), gamma, bias]
    };
    let outputs: &[Option<ValueId>] = if keeps_sum {
        &[Some(y), None, None, Some(sum)]
    } else {
        &[Some(y)]
    };
    editor.fuse(&nodes, fused, &inputs, outputs);
    Some(())
}

/// The operand of an Add and the constant of one axis of `width` that is added to it.
pub(crate) fn with_row(g: &Group, add: NodeId, width: usize) -> Option<(ValueId, ValueId)> {
    let node = g.node(add);
    let (a, b) = (node.input(0)?, node.input(1)?);
    let is_row = |v: ValueId| g.editor.constant(v).is_some_and(|t| t.dims() == [width]);
    let is_wide = |v: ValueId| {
        let last = g.shape(v).and_then(|s| s.0.last()?.known());
        g.editor.constant(v).is_none() && last == Some(width)
    };
    [(a, b), (b, a)]
        .into_iter()
        .find(|&(x, row)| is_row(row) && is_wide(x))
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::{left, run};

    const WEIGHTS: &str = "
        gamma: f32[4] = {1,2,-1,0.5}
        beta: f32[4] = {0,1,2,3}
        bias: f32[4] = {1,0,-1,2}";

    fn around(ends: &str, body: &str) -> String {
        format!(
            "opset 17\ngraph g(x: f32[b,3,4], z: f32[b,3,4]) -> ({ends}) {{{WEIGHTS}\n{body}\n}}"
        )
    }

    #[test]
    fn residual_and_bias_join_the_norm() {
        let body = "a = Add(bias, x)\ns = Add(z, a)\ny = LayerNormalization(s, gamma, beta)";
        assert_eq!(left(&PASS, &around("y", body)), ["SkipLayerNormalization"]);
        let body = "s = Add(x, z)\ny = SimplifiedLayerNormalization(s, gamma)";
        assert_eq!(
            left(&PASS, &around("y", body)),
            ["SkipSimplifiedLayerNormalization"]
        );
    }

    #[test]
    fn a_sum_that_others_read_is_an_output() {
        let body = "s = Add(x, z)\ny = LayerNormalization(s, gamma, beta)\nw = Relu(s)";
        let m = run(&PASS, &around("y, w", body));
        let (_, node) = m.graph.nodes().find(|(_, n)| n.op != "Relu").unwrap();
        assert!(node.output(3).is_some());
    }

    #[test]
    fn a_sum_that_stretches_stays() {
        let body = "one: f32[1,1,4] = {1,2,3,4}\ns = Add(x, one)\ny = LayerNormalization(s, gamma)";
        assert_eq!(left(&PASS, &around("y", body)).len(), 2);
    }
}

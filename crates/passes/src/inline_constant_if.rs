//! Puts the branch that is always taken in place of its `If`.

use edgesmith_ir::{Attribute, Graph, Model, NodeId, Result};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Scope, each_graph, nodes_of};
use crate::splice::splice;

/// The other branch is dropped.
pub static PASS: Pass = Pass {
    name: "inline_constant_if",
    about: "replace an If with a constant condition by its branch",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let mut changes = 0;
        for id in nodes_of(graph, &["If"]) {
            changes += usize::from(inline(graph, id, scope));
        }
        Ok(changes)
    })
}

fn inline(graph: &mut Graph, id: NodeId, scope: &mut Scope) -> bool {
    let node = graph.node(id);
    let condition = node
        .input(0)
        .and_then(|v| graph.constant(v))
        .and_then(|t| t.bools().ok());
    let branch = match condition.as_deref() {
        Some([true]) => "then_branch",
        Some([false]) => "else_branch",
        _ => return false,
    };
    let Some(body) = node.graph(branch) else {
        return false;
    };
    let wanted = node.outputs().len();
    if body.outputs.len() < wanted || !body.inputs.is_empty() {
        return false;
    }
    let placeholder = Attribute::Int(0);
    let taken = graph
        .node_mut(id)
        .attributes
        .iter_mut()
        .find(|(name, _)| name == branch)
        .map(|(_, a)| std::mem::replace(a, placeholder));
    let Some(Attribute::Graph(body)) = taken else {
        return false;
    };
    splice(graph, id, &body, &[], scope.names);
    true
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    #[test]
    fn the_branch_that_is_taken_stands_in_place_of_the_if() {
        let text = "opset 17
            graph g(x: f32[2]) -> (y: f32[2], z: f32[2]) {
              c: bool[] = {false}
              y, z = If(c) {
                then_branch=graph t() -> (p: f32[2], q: f32[2]) { capture x = x
                  p = Neg(x)
                  q = Neg(p) },
                else_branch=graph e() -> (p: f32[2], q: f32[2]) { capture x = x
                  w: f32[2] = {1,2}
                  h = Add(x, w)
                  p = Relu(h)
                  q = Abs(h) }}
            }";
        let mut ops = left(&PASS, text);
        ops.sort();
        assert_eq!(ops, ["Abs", "Add", "Relu"]);
    }

    #[test]
    fn a_branch_that_passes_a_value_on_becomes_an_identity() {
        let text = "opset 17
            graph g(x: f32[2]) -> (y: f32[2]) {
              c: bool[] = {true}
              y = If(c) {
                then_branch=graph t() -> (p: f32[2]) { capture p = x
                },
                else_branch=graph e() -> (p: f32[2]) { capture x = x
                  p = Relu(x) }}
            }";
        assert_eq!(left(&PASS, text), ["Identity"]);
    }
}

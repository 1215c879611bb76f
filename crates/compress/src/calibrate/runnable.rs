//! The part of a model that can be run: what does not depend on an unknown operator.

use std::borrow::Cow;
use std::collections::BTreeSet;

use edgesmith_ir::{Graph, Model, Node, Result, ValueId, ops};

/// The model without the nodes that cannot be run and those that need their answers, and the
/// nodes that cannot be run, in words.
///
/// # Errors
/// When the graph has a cycle.
pub fn runnable(model: &Model) -> Result<(Cow<'_, Model>, Vec<String>)> {
    let mut lost = BTreeSet::new();
    let (mut gone, mut unknown) = (Vec::new(), Vec::new());
    for id in model.graph.order()? {
        let node = model.graph.node(id);
        let is_known = can_run(model, node);
        if !is_known {
            unknown.push(node.place());
        }
        if !is_known || reads(node).any(|v| lost.contains(&v)) {
            lost.extend(node.outputs().iter().flatten().copied());
            gone.push(id);
        }
    }
    if gone.is_empty() {
        return Ok((Cow::Borrowed(model), unknown));
    }
    let mut part = model.clone();
    for id in gone.into_iter().rev() {
        part.graph.remove_node(id);
    }
    part.graph.outputs.retain(|v| !lost.contains(v));
    Ok((Cow::Owned(part), unknown))
}

/// True where the operator, and all in the subgraphs of the node, can be evaluated.
fn can_run(model: &Model, node: &Node) -> bool {
    let all = |g: &Graph| g.nodes().all(|(_, n)| can_run(model, n));
    let is_known = model.function(node).is_some()
        || ops::find(&node.domain, &node.op).is_some_and(ops::OpDef::is_evaluated);
    is_known && node.subgraphs().all(all)
}

/// What the node needs, that of its subgraphs included.
pub fn reads(node: &Node) -> impl Iterator<Item = ValueId> {
    let captured = node.subgraphs().flat_map(|g| g.captures.iter());
    let inputs = node.inputs().iter().flatten().copied();
    inputs.chain(captured.map(|c| c.outer))
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text;

    use super::*;

    #[test]
    fn what_needs_an_unknown_operator_is_left_out() {
        let model = text::parse(
            r#"
opset 17
graph g(x: f32[n]) -> (y, z) {
  a = Relu(x) {name="a"}
  b = Frobnicate(a) {name="b"}
  y = Neg(b) {name="c"}
  z = Abs(a) {name="d"}
}
"#,
        )
        .unwrap();
        let (part, unknown) = runnable(&model).unwrap();
        let names: Vec<&str> = part.graph.nodes().map(|(_, n)| n.name.as_str()).collect();
        assert_eq!(names, ["a", "d"]);
        assert_eq!(part.graph.outputs, model.graph.outputs[1..]);
        assert_eq!(unknown, ["Frobnicate \"b\""]);
    }
}

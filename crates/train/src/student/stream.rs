//! The residual stream: values through which all that is learned passes.

use std::collections::BTreeSet;

use edgesmith_ir::{Graph, Model, Node, NodeId, Result, ValueId};

use crate::trainable;

/// Operators whose results depend on lengths and not on numbers.
const LENGTHS: &[&str] = &["Shape", "Size"];

/// The values through which every way from parameters to the outputs goes, from the first on. The
/// ways of what no parameter touches, such as masks and lengths, do not count.
///
/// # Errors
/// When the graph has a cycle.
pub fn cuts(model: &Model) -> Result<Vec<ValueId>> {
    let graph = &model.graph;
    let parameters: BTreeSet<ValueId> = trainable::parameters(model)?.into_iter().collect();
    // The dominator of each learned value: its place in the tree, the value before it, its depth.
    let mut tree = Tree::new(graph.value_slots());
    for id in graph.order()? {
        let node = graph.node(id);
        if LENGTHS.iter().any(|op| node.is(op)) {
            continue;
        }
        let reads = read(node);
        let learned: Vec<ValueId> = reads.iter().copied().filter(|v| tree.has(*v)).collect();
        if learned.is_empty() && !reads.iter().any(|v| parameters.contains(v)) {
            continue;
        }
        let roots = reads.iter().any(|v| parameters.contains(v)) && learned.is_empty();
        let before = if roots { None } else { tree.common(&learned) };
        for y in node.outputs().iter().flatten() {
            tree.add(*y, before);
        }
    }
    let outputs = graph.outputs.iter().copied();
    let learned: Vec<ValueId> = outputs.filter(|v| tree.has(*v)).collect();
    let mut chain = Vec::new();
    let mut at = if learned.is_empty() {
        None
    } else {
        tree.common(&learned)
    };
    while let Some(v) = at {
        chain.push(v);
        at = tree.before(v);
    }
    chain.reverse();
    Ok(chain)
}

/// What a node reads, also in the graphs inside it.
pub(super) fn read(node: &Node) -> Vec<ValueId> {
    let captured = node
        .subgraphs()
        .flat_map(|g| g.captures.iter().map(|c| c.outer));
    node.inputs()
        .iter()
        .flatten()
        .copied()
        .chain(captured)
        .collect()
}

/// Dominators of values, which are added in an order in which each comes after what it depends on.
struct Tree {
    /// By [`ValueId::index`]: the depth, from 1, and the value before.
    places: Vec<Option<(u32, Option<ValueId>)>>,
}

impl Tree {
    fn new(slots: usize) -> Self {
        Self {
            places: vec![None; slots],
        }
    }

    fn has(&self, v: ValueId) -> bool {
        self.places[v.index()].is_some()
    }

    fn before(&self, v: ValueId) -> Option<ValueId> {
        self.places[v.index()].and_then(|(_, before)| before)
    }

    fn depth(&self, v: ValueId) -> u32 {
        self.places[v.index()].map_or(0, |(depth, _)| depth)
    }

    fn add(&mut self, v: ValueId, before: Option<ValueId>) {
        let depth = before.map_or(0, |b| self.depth(b)) + 1;
        self.places[v.index()] = Some((depth, before));
    }

    /// The last value through which all ways to all of these go.
    fn common(&self, values: &[ValueId]) -> Option<ValueId> {
        let mut values = values.iter().copied();
        let first = values.next();
        values.fold(first, |a, b| {
            let (mut a, mut b) = (a?, b);
            while a != b {
                if self.depth(a) >= self.depth(b) {
                    a = self.before(a)?;
                } else {
                    b = self.before(b)?;
                }
            }
            Some(a)
        })
    }
}

/// The nodes between one value and a later one: all that `to` depends on, but for `from` and what
/// no parameter touches, in order.
pub(super) fn between(graph: &Graph, order: &[NodeId], from: ValueId, to: ValueId) -> Vec<NodeId> {
    let mut found = vec![false; graph.node_slots()];
    let mut open = vec![to];
    while let Some(v) = open.pop() {
        if v == from {
            continue;
        }
        let Some((id, _)) = graph.value(v).producer() else {
            continue;
        };
        if !std::mem::replace(&mut found[id.index()], true) {
            open.extend(read(graph.node(id)));
        }
    }
    let is_found = |id: &NodeId| found[id.index()];
    order.iter().copied().filter(is_found).collect()
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text::parse;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        let model = parse(text).unwrap();
        let name = |v: ValueId| model.graph.value(v).name.clone();
        cuts(&model).unwrap().into_iter().map(name).collect()
    }

    #[test]
    fn a_branch_is_passed_over_and_a_mask_is_no_branch() {
        let text = "opset 17 graph g(x: f32[2,2], m: f32[2,2]) -> (z) {
            w: f32[2,2] = {1,2,3,4} k = Neg(m)
            a = MatMul(x, w) b = MatMul(a, w) c = Relu(a) d = Add(b, c)
            e = Add(d, k) s = Shape(a) f = Reshape(e, s) z = Add(f, k) }";
        assert_eq!(names(text), ["a", "d", "e", "f", "z"]);
    }

    #[test]
    fn two_outputs_end_the_stream_where_they_part() {
        let text = "opset 17 graph g(x: f32[2,2]) -> (y, z) {
            w: f32[2,2] = {1,2,3,4} a = MatMul(x, w) b = Relu(a) y = Neg(b) z = Abs(b) }";
        assert_eq!(names(text), ["a", "b"]);
    }
}

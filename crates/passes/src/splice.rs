//! Puts the nodes of one graph into another in place of a node.

use std::collections::HashMap;

use edgesmith_ir::{Graph, Node, NodeId, ValueId};

use crate::rewrite::Names;

/// Replaces `at` by the nodes of `inner`. `inputs` says what stands for the inputs of `inner`
/// (`None`: left out); captures of `inner` are values of `graph`. The outputs of the node keep
/// their ids and names; other values get fresh names.
pub(crate) fn splice(
    graph: &mut Graph,
    at: NodeId,
    inner: &Graph,
    inputs: &[Option<ValueId>],
    names: &mut Names,
) {
    let outputs: Vec<Option<ValueId>> = graph.node(at).outputs().to_vec();
    let prefix = graph.node(at).name.clone();
    graph.remove_node(at);
    let mut map: HashMap<ValueId, Option<ValueId>> = HashMap::new();
    for (i, &v) in inner.inputs.iter().enumerate() {
        map.insert(v, inputs.get(i).copied().flatten());
    }
    map.extend(inner.captures.iter().map(|c| (c.inner, Some(c.outer))));
    let mut passed_on = Vec::new();
    for (&v, out) in inner.outputs.iter().zip(&outputs) {
        let Some(out) = *out else { continue };
        if inner.value(v).producer().is_some() && !map.contains_key(&v) {
            map.insert(v, Some(out));
        } else {
            passed_on.push((v, out));
        }
    }
    for (_, node) in inner.nodes() {
        let mut of = |v: &Option<ValueId>| v.and_then(|v| mapped(graph, inner, v, &mut map, names));
        let reads: Vec<_> = node.inputs().iter().map(&mut of).collect();
        let makes: Vec<_> = node.outputs().iter().map(&mut of).collect();
        let mut copy = node.clone();
        for body in copy.subgraphs_mut() {
            body.captures.retain_mut(|c| match of(&Some(c.outer)) {
                Some(outer) => {
                    c.outer = outer;
                    true
                }
                None => false,
            });
        }
        if !prefix.is_empty() {
            copy.name = format!("{prefix}/{}", node.name);
        }
        graph.add_node(copy, &reads, &makes);
    }
    for (v, out) in passed_on {
        if let Some(same) = mapped(graph, inner, v, &mut map, names) {
            graph.add_node(Node::new("Identity", ""), &[Some(same)], &[Some(out)]);
        }
    }
}

/// The value of `graph` that stands for `v` of `inner`, made where there is none yet.
fn mapped(
    graph: &mut Graph,
    inner: &Graph,
    v: ValueId,
    map: &mut HashMap<ValueId, Option<ValueId>>,
    names: &mut Names,
) -> Option<ValueId> {
    *map.entry(v).or_insert_with(|| {
        let value = inner.value(v);
        let new = graph.add_value(&names.fresh(&value.name), value.ty.clone());
        let copy = graph.value_mut(new);
        copy.constant = value.constant.clone();
        copy.doc = value.doc.clone();
        copy.metadata = value.metadata.clone();
        Some(new)
    })
}

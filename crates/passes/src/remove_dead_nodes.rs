//! Removes nodes, constants and captures whose results nobody reads.

use edgesmith_ir::ops::{self, MANY};
use edgesmith_ir::{Graph, Model, NodeId, Result, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::each_graph;

/// Keeps graph inputs, read or not: they are the model's interface.
pub static PASS: Pass = Pass {
    name: "remove_dead_nodes",
    about: "remove nodes and constants that no output depends on",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, _| {
        Ok(remove_nodes(graph)
            + remove_outputs(graph)
            + remove_captures(graph)
            + remove_constants(graph))
    })
}

fn remove_nodes(graph: &mut Graph) -> usize {
    let mut alive = vec![false; graph.node_slots()];
    let mut open: Vec<_> = graph.outputs.clone();
    while let Some(v) = open.pop() {
        let Some((id, _)) = graph.value(v).producer() else {
            continue;
        };
        if std::mem::replace(&mut alive[id.index()], true) {
            continue;
        }
        let node = graph.node(id);
        open.extend(node.inputs().iter().flatten());
        open.extend(
            node.subgraphs()
                .flat_map(|g| g.captures.iter().map(|c| c.outer)),
        );
    }
    let dead: Vec<NodeId> = graph
        .nodes()
        .map(|(id, _)| id)
        .filter(|id| !alive[id.index()])
        .collect();
    for &id in dead.iter().rev() {
        graph.remove_node(id);
    }
    dead.len()
}

/// Leaves out optional outputs that nobody reads, such as the mask of Dropout.
fn remove_outputs(graph: &mut Graph) -> usize {
    let read = seen(graph);
    let unread = |v: ValueId| !read[v.index()] && graph.value(v).consumers().is_empty();
    let mut gone = Vec::new();
    for (id, node) in graph.nodes() {
        let Some(def) = ops::find(&node.domain, &node.op) else {
            continue;
        };
        // With any number of outputs, each has its place.
        if def.outputs.1 == MANY || def.outputs.0 == 0 {
            continue;
        }
        let optional = node.outputs().iter().enumerate().skip(def.outputs.0);
        gone.extend(
            optional
                .filter(|(_, v)| v.is_some_and(unread))
                .map(|(i, _)| (id, i)),
        );
    }
    for &(id, i) in gone.iter().rev() {
        graph.set_output(id, i, None);
    }
    gone.len()
}

/// By place: outputs, and what inner subgraphs read.
fn seen(graph: &Graph) -> Vec<bool> {
    let mut seen = vec![false; graph.value_slots()];
    for v in graph.outputs.iter().copied().chain(graph.captured()) {
        seen[v.index()] = true;
    }
    seen
}

fn remove_captures(graph: &mut Graph) -> usize {
    let seen = seen(graph);
    let before = graph.captures.len();
    let mut captures = std::mem::take(&mut graph.captures);
    captures.retain(|c| seen[c.inner.index()] || !graph.value(c.inner).consumers().is_empty());
    graph.captures = captures;
    before - graph.captures.len()
}

fn remove_constants(graph: &mut Graph) -> usize {
    let mut seen = seen(graph);
    for v in &graph.inputs {
        seen[v.index()] = true;
    }
    let dead: Vec<_> = graph
        .values()
        .filter(|(id, v)| v.constant.is_some() && v.consumers().is_empty() && !seen[id.index()])
        .map(|(id, _)| id)
        .collect();
    for &v in &dead {
        graph.value_mut(v).constant = None;
    }
    dead.len()
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::{ops, run};

    #[test]
    fn what_no_output_needs_goes_and_inputs_stay() {
        let text = "opset 17
            graph g(x: f32[2], unread: f32[2]) -> (y: f32[2]) {
              w: f32[2] = {1,2}
              a = Add(x, w)
              b = Neg(a)
              y = Relu(x)
            }";
        let m = run(&PASS, text);
        assert_eq!(ops(&m), ["Relu"]);
        assert_eq!(m.graph.inputs.len(), 2);
        assert!(m.graph.values().all(|(_, v)| v.constant.is_none()));
    }

    #[test]
    fn optional_outputs_that_nobody_reads_are_left_out() {
        let text = "opset 17
            graph g(x: f32[1,1,4,4]) -> (y: f32[1,1,2,2], k: i64[1,1,2,2]) {
              a, unread = MaxPool(x) {kernel_shape=[2,2], strides=[2,2]}
              b, k = MaxPool(x) {kernel_shape=[2,2], strides=[2,2]}
              y = Relu(a)
            }";
        let m = run(&PASS, text);
        let mut lens: Vec<usize> = m.graph.nodes().map(|(_, n)| n.outputs().len()).collect();
        lens.sort_unstable();
        assert_eq!(lens, [1, 1, 2]);
    }

    #[test]
    fn what_a_subgraph_reads_stays() {
        let text = "opset 17
            graph g(c: bool[], x: f32[2]) -> (y: f32[2]) {
              a = Relu(x)
              b = Neg(x)
              y = If(c) {
                then_branch=graph t() -> (p: f32[2]) { capture a = a
                  p = Neg(a) },
                else_branch=graph e() -> (p: f32[2]) { capture x = x
                  capture b = b
                  unread = Neg(b)
                  p = Relu(x) }}
            }";
        assert_eq!(ops(&run(&PASS, text)), ["Relu", "If"]);
    }
}

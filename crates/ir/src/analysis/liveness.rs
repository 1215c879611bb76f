//! When each value is alive: from the step that makes it to the last step that reads it.

use crate::graph::{Graph, NodeId};

/// The steps, both included, during which a value has to be in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The step that makes it; 0 for graph inputs and captures.
    pub first: usize,
    /// The last step that reads it; the last step of all for graph outputs.
    pub last: usize,
}

impl Range {
    /// True where both are alive at some step.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The range of each value by [`crate::ValueId::index`], for nodes run in `order`; a step is a
/// place in `order`. `None` for constants and for values that nothing makes. A value that is made
/// and never read lives during its own step.
pub fn liveness(graph: &Graph, order: &[NodeId]) -> Vec<Option<Range>> {
    let mut ranges: Vec<Option<Range>> = vec![None; graph.value_slots()];
    let end = order.len().saturating_sub(1);
    let outside = graph.captures.iter().map(|c| c.inner);
    for v in graph.inputs.iter().copied().chain(outside) {
        ranges[v.index()] = Some(Range { first: 0, last: 0 });
    }
    for (step, &id) in order.iter().enumerate() {
        let node = graph.node(id);
        for v in node.outputs().iter().flatten() {
            ranges[v.index()] = Some(Range {
                first: step,
                last: step,
            });
        }
        let captured = node
            .subgraphs()
            .flat_map(|g| g.captures.iter().map(|c| c.outer));
        for v in node.inputs().iter().flatten().copied().chain(captured) {
            if let Some(range) = &mut ranges[v.index()] {
                range.last = range.last.max(step);
            }
        }
    }
    for v in &graph.outputs {
        if let Some(range) = &mut ranges[v.index()] {
            range.last = end;
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Node, TensorType};

    #[test]
    fn a_value_lives_from_its_maker_to_its_last_reader() {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[2]));
        let a = g.add_op(Node::new("Relu", ""), &[x], "a");
        let b = g.add_op(Node::new("Relu", ""), &[a], "b");
        let c = g.add_op(Node::new("Add", ""), &[a, b], "c");
        g.outputs.push(c);
        let ranges = liveness(&g, &g.order().unwrap());
        let of = |v: crate::ValueId| ranges[v.index()].map(|r| (r.first, r.last));
        assert_eq!(of(x), Some((0, 0)));
        assert_eq!(of(a), Some((0, 2)));
        assert_eq!(of(b), Some((1, 2)));
        assert_eq!(of(c), Some((2, 2)));
    }
}

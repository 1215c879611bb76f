//! The graph: nodes shaped like ONNX's, values with one producer, and the few edits allowed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::types::{TensorType, Type};
use crate::{Error, Result, Tensor};

mod model;
mod node;

pub use model::{Function, Model};
pub use node::{Attribute, Metadata, Node};

/// A node of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// A value of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

impl NodeId {
    /// The place in tables that have a row for each node slot.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ValueId {
    /// The place in tables that have a row for each value.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An edge: produced by one node, or a graph input, or constant, or captured from outside.
#[derive(Debug, Clone, Default)]
pub struct Value {
    /// Unique within its graph.
    pub name: String,
    /// Declared or inferred type.
    pub ty: Option<Type>,
    /// The data of an initializer. A value that is also a graph input has it as its default.
    pub constant: Option<Tensor>,
    /// Documentation of the file.
    pub doc: String,
    /// Metadata of the file.
    pub metadata: Metadata,
    producer: Option<(NodeId, usize)>,
    consumers: SmallVec<[(NodeId, usize); 2]>,
}

impl Value {
    /// The node and output position that make this value.
    pub fn producer(&self) -> Option<(NodeId, usize)> {
        self.producer
    }

    /// The nodes and input positions that read this value, subgraph captures left out.
    pub fn consumers(&self) -> &[(NodeId, usize)] {
        &self.consumers
    }

    /// The tensor type, where it is known.
    pub fn tensor_type(&self) -> Option<&TensorType> {
        self.ty.as_ref().and_then(Type::tensor)
    }
}

/// A value of the enclosing graph that a subgraph reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// The value in the enclosing graph.
    pub outer: ValueId,
    /// The value that stands for it in the subgraph.
    pub inner: ValueId,
}

/// Nodes and values. Ids stay valid through edits; removed nodes leave empty slots.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// The name in the file.
    pub name: String,
    /// Documentation of the file.
    pub doc: String,
    /// Metadata of the file.
    pub metadata: Metadata,
    /// Encoded fields of `GraphProto` that have no place here.
    pub extra: Bytes,
    /// The inputs, in order; one with a constant has it as its default.
    pub inputs: Vec<ValueId>,
    /// The outputs, in order.
    pub outputs: Vec<ValueId>,
    /// What a subgraph reads from the graph around it.
    pub captures: Vec<Capture>,
    nodes: Vec<Option<Node>>,
    values: Vec<Value>,
}

/// Structural equality by the text of what they are is left to tests; two graphs are equal here
/// only if they are the same slots with the same contents.
impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        let node = |n: &Option<Node>| {
            n.as_ref().map(|n| {
                (
                    n.name.clone(),
                    n.op.clone(),
                    n.domain.clone(),
                    n.attributes.clone(),
                    n.inputs.clone(),
                    n.outputs.clone(),
                )
            })
        };
        self.name == other.name
            && self.inputs == other.inputs
            && self.outputs == other.outputs
            && self.captures == other.captures
            && self.nodes.len() == other.nodes.len()
            && self
                .nodes
                .iter()
                .zip(&other.nodes)
                .all(|(a, b)| node(a) == node(b))
            && self.values.len() == other.values.len()
            && self
                .values
                .iter()
                .zip(&other.values)
                .all(|(a, b)| a.name == b.name && a.ty == b.ty && a.constant == b.constant)
    }
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Adds a value without producer.
    pub fn add_value(&mut self, name: &str, ty: Option<Type>) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).expect("a graph has under 2^32 values"));
        self.values.push(Value {
            name: name.into(),
            ty,
            ..Value::default()
        });
        id
    }

    /// Adds a graph input.
    pub fn add_input(&mut self, name: &str, ty: impl Into<Type>) -> ValueId {
        let id = self.add_value(name, Some(ty.into()));
        self.inputs.push(id);
        id
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, name: &str, data: Tensor) -> ValueId {
        let id = self.add_value(name, Some(data.ty().into()));
        self.values[id.index()].constant = Some(data);
        id
    }

    /// Adds a node between values that are already there.
    ///
    /// # Panics
    /// When an output already has a producer: a broken invariant of the caller.
    pub fn add_node(
        &mut self,
        mut node: Node,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
    ) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("a graph has under 2^32 nodes"));
        node.inputs = inputs.into();
        node.outputs = outputs.into();
        for (i, v) in inputs.iter().enumerate() {
            if let Some(v) = v {
                self.values[v.index()].consumers.push((id, i));
            }
        }
        for (i, v) in outputs.iter().enumerate() {
            if let Some(v) = v {
                let value = &mut self.values[v.index()];
                assert!(
                    value.producer.is_none(),
                    "value \"{}\" has one producer",
                    value.name
                );
                value.producer = Some((id, i));
            }
        }
        self.nodes.push(Some(node));
        id
    }

    /// Adds a node with one new output value of a fresh name made from `name`; returns the value.
    pub fn add_op(&mut self, node: Node, inputs: &[ValueId], name: &str) -> ValueId {
        let name = self.fresh_name(name);
        let out = self.add_value(&name, None);
        let inputs: SmallVec<[Option<ValueId>; 4]> = inputs.iter().copied().map(Some).collect();
        self.add_node(node, &inputs, &[Some(out)]);
        out
    }

    /// A name that no value has: `wanted`, or `wanted_1`, …
    pub fn fresh_name(&self, wanted: &str) -> String {
        let taken = |n: &str| self.values.iter().any(|v| v.name == n);
        if !taken(wanted) {
            return wanted.into();
        }
        let mut i = 1u32;
        loop {
            let name = format!("{wanted}_{i}");
            if !taken(&name) {
                return name;
            }
            i += 1;
        }
    }

    /// The node.
    ///
    /// # Panics
    /// When it was removed.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.index()]
            .as_ref()
            .expect("the node is still in the graph")
    }

    /// The node, where it was not removed.
    pub fn get_node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index())?.as_ref()
    }

    /// The node, to change its names and attributes.
    ///
    /// # Panics
    /// When it was removed.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.index()]
            .as_mut()
            .expect("the node is still in the graph")
    }

    /// The value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The value, to change its name, type and constant.
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.index()]
    }

    /// Nodes in the order of their slots, which is that of the file.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(i, n)| Some((NodeId(i as u32), n.as_ref()?)))
    }

    /// Values in the order of their slots; those that nothing uses are among them.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values
            .iter()
            .enumerate()
            .map(|(i, v)| (ValueId(i as u32), v))
    }

    /// Slots of nodes, removed ones included: the length of a table by [`NodeId::index`].
    pub fn node_slots(&self) -> usize {
        self.nodes.len()
    }

    /// The length of a table by [`ValueId::index`].
    pub fn value_slots(&self) -> usize {
        self.values.len()
    }

    /// The value of that name.
    pub fn find_value(&self, name: &str) -> Option<ValueId> {
        self.values
            .iter()
            .position(|v| v.name == name)
            .map(|i| ValueId(i as u32))
    }

    /// Removes a node; its outputs stay as values without producer.
    pub fn remove_node(&mut self, id: NodeId) {
        let Some(node) = self.nodes[id.index()].take() else {
            return;
        };
        for v in node.inputs.iter().flatten() {
            self.values[v.index()].consumers.retain(|(n, _)| *n != id);
        }
        for v in node.outputs.iter().flatten() {
            self.values[v.index()].producer = None;
        }
    }

    /// Lets input `i` of a node read another value (or nothing), growing the inputs if needed.
    pub fn set_input(&mut self, id: NodeId, i: usize, value: Option<ValueId>) {
        let node = self.nodes[id.index()]
            .as_mut()
            .expect("the node is still in the graph");
        if node.inputs.len() <= i {
            node.inputs.resize(i + 1, None);
        }
        let old = std::mem::replace(&mut node.inputs[i], value);
        while node.inputs.last() == Some(&None) {
            node.inputs.pop();
        }
        if let Some(old) = old {
            self.values[old.index()].consumers.retain(|c| *c != (id, i));
        }
        if let Some(new) = value {
            self.values[new.index()].consumers.push((id, i));
        }
    }

    /// Lets output `i` of a node be another value (or nothing); left-out ones at the end go.
    ///
    /// # Panics
    /// When that value already has a producer.
    pub fn set_output(&mut self, id: NodeId, i: usize, value: Option<ValueId>) {
        let node = self.nodes[id.index()]
            .as_mut()
            .expect("the node is still in the graph");
        if node.outputs.len() <= i {
            node.outputs.resize(i + 1, None);
        }
        let old = std::mem::replace(&mut node.outputs[i], value);
        while node.outputs.last() == Some(&None) {
            node.outputs.pop();
        }
        if let Some(old) = old {
            self.values[old.index()].producer = None;
        }
        if let Some(new) = value {
            let new = &mut self.values[new.index()];
            assert!(
                new.producer.is_none(),
                "value \"{}\" has one producer",
                new.name
            );
            new.producer = Some((id, i));
        }
    }

    /// Every reader of `old` (nodes, captures; not the graph outputs) reads `new` from now on.
    /// Looks at every node for captures: where there are none, [`Self::replace_reads`] is faster.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        self.replace_reads(old, new);
        for node in self.nodes.iter_mut().flatten() {
            for graph in node.subgraphs_mut() {
                for capture in graph.captures.iter_mut().filter(|c| c.outer == old) {
                    capture.outer = new;
                }
            }
        }
    }

    /// Every node that has `old` as an input has `new` from now on; captures and graph outputs
    /// stay.
    pub fn replace_reads(&mut self, old: ValueId, new: ValueId) {
        let consumers = std::mem::take(&mut self.values[old.index()].consumers);
        for &(n, i) in &consumers {
            let node = self.nodes[n.index()]
                .as_mut()
                .expect("consumers are in the graph");
            node.inputs[i] = Some(new);
        }
        self.values[new.index()].consumers.extend(consumers);
    }

    /// True where the value is an output of the graph.
    pub fn is_output(&self, v: ValueId) -> bool {
        self.outputs.contains(&v)
    }

    /// True where the value is an input of the graph.
    pub fn is_input(&self, v: ValueId) -> bool {
        self.inputs.contains(&v)
    }

    /// The values of this graph that subgraphs of its nodes read.
    pub fn captured(&self) -> BTreeSet<ValueId> {
        self.nodes
            .iter()
            .flatten()
            .flat_map(Node::subgraphs)
            .flat_map(|g| g.captures.iter().map(|c| c.outer))
            .collect()
    }

    /// The only node that reads `v`, where `v` is no graph output. Captures are not looked at.
    pub fn sole_consumer(&self, v: ValueId) -> Option<(NodeId, usize)> {
        match self.value(v).consumers() {
            [one] if !self.is_output(v) => Some(*one),
            _ => None,
        }
    }

    /// The node that makes `v`, where it is an `op` of the default domain.
    pub fn producer_is(&self, v: ValueId, op: &str) -> Option<NodeId> {
        let (id, _) = self.value(v).producer()?;
        self.node(id).is(op).then_some(id)
    }

    /// The data of `v`, where it is the same in every run: an initializer that is no graph input,
    /// or the output of a Constant node that holds a tensor.
    pub fn constant(&self, v: ValueId) -> Option<&Tensor> {
        let value = self.value(v);
        match (&value.constant, value.producer) {
            (Some(t), _) => (!self.is_input(v)).then_some(t),
            (None, Some((id, _))) => {
                let node = self.node(id);
                if node.is("Constant") {
                    node.tensor("value")
                } else {
                    None
                }
            }
            (None, None) => None,
        }
    }

    /// Nodes so that each comes after what it reads, the earliest slot first where free.
    ///
    /// # Errors
    /// When nodes form a cycle.
    pub fn order(&self) -> Result<Vec<NodeId>> {
        let mut missing = vec![0usize; self.nodes.len()];
        let mut readers: Vec<Vec<NodeId>> = vec![Vec::new(); self.nodes.len()];
        let mut ready = BinaryHeap::new();
        for (id, node) in self.nodes() {
            let captured = node
                .subgraphs()
                .flat_map(|g| g.captures.iter().map(|c| c.outer));
            for v in node.inputs.iter().flatten().copied().chain(captured) {
                if let Some((producer, _)) = self.value(v).producer {
                    missing[id.index()] += 1;
                    readers[producer.index()].push(id);
                }
            }
            if missing[id.index()] == 0 {
                ready.push(Reverse(id));
            }
        }
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(Reverse(id)) = ready.pop() {
            order.push(id);
            for &reader in &readers[id.index()] {
                missing[reader.index()] -= 1;
                if missing[reader.index()] == 0 {
                    ready.push(Reverse(reader));
                }
            }
        }
        match self.nodes().find(|(id, _)| missing[id.index()] > 0) {
            Some((_, node)) => Err(Error::invalid("the node depends on its own output")
                .at(node.place())
                .hint("the graph has a cycle; the file is damaged or was exported wrongly")),
            None => Ok(order),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DType, TensorType};

    fn chain() -> (Graph, ValueId, ValueId, ValueId) {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[2]));
        let y = g.add_op(Node::new("Relu", "a"), &[x], "y");
        let z = g.add_op(Node::new("Neg", "b"), &[y], "z");
        g.outputs.push(z);
        (g, x, y, z)
    }

    #[test]
    fn edits_keep_producers_and_consumers_true() {
        let (mut g, x, y, _) = chain();
        let neg = g.sole_consumer(y).unwrap().0;
        g.replace_uses(y, x);
        assert_eq!(g.node(neg).input(0), Some(x));
        assert!(g.value(y).consumers().is_empty());
        let relu = g.value(y).producer().unwrap().0;
        g.remove_node(relu);
        assert_eq!(g.value(x).consumers(), &[(neg, 0)]);
    }

    #[test]
    fn a_cycle_is_an_error_that_names_a_node() {
        let (mut g, _, y, z) = chain();
        let relu = g.value(y).producer().unwrap().0;
        g.set_input(relu, 0, Some(z));
        assert!(g.order().unwrap_err().to_string().contains("Relu \"a\""));
    }

    #[test]
    fn order_follows_edges_and_then_slots() {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[2]));
        let late = g.add_value("late", None);
        let first = g.add_node(Node::new("Neg", "uses"), &[Some(late)], &[]);
        let second = g.add_node(Node::new("Relu", "makes"), &[Some(x)], &[Some(late)]);
        assert_eq!(g.order().unwrap(), [second, first]);
    }
}

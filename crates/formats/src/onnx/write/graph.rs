//! Graphs and nodes: ours to ONNX's `GraphProto` and `NodeProto`.

use std::collections::HashMap;

use edgesmith_ir::{Graph, Node, NodeId, Result, ValueId};
use prost::Message;

use super::super::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::super::{tensor, types};
use super::attribute::attribute_proto;
use super::names::{self, Names};
use super::{Version, entries, text};

/// The message of a graph, its nodes in an order in which they can run.
///
/// `captured` are the names that its captures have outside, in order.
///
/// # Errors
/// When nodes form a cycle.
pub fn graph_proto(version: Version, graph: &Graph, captured: &[String]) -> Result<GraphProto> {
    let order = graph.order()?;
    let writer = GraphWriter::new(version, graph, captured);
    let left = &writer.left;
    let nodes = order.iter().map(|&id| writer.node(graph.node(id)));
    let mut nodes: Vec<NodeProto> = nodes.collect::<Result<_>>()?;
    names::distinguish(nodes.iter_mut().filter_map(|n| n.name.as_mut()));
    Ok(GraphProto {
        node: nodes,
        name: Some(graph.name.clone()),
        initializer: writer.initializers(),
        doc_string: text(&graph.doc),
        input: writer.inputs(),
        output: graph.outputs.iter().map(|&v| writer.info(v)).collect(),
        value_info: writer.value_infos(&order),
        quantization_annotation: left.quantization_annotation.clone(),
        sparse_initializer: Vec::new(),
        metadata_props: entries(&graph.metadata),
    })
}

/// What the message of a graph is made from.
struct GraphWriter<'a> {
    version: Version,
    graph: &'a Graph,
    names: Names,
    left: GraphProto,
    /// Where in `left` the documentation of an initializer stands.
    labels: HashMap<String, usize>,
    /// Where in `left` the type of a value stands, with its denotations.
    denoted: HashMap<String, usize>,
    used: Vec<bool>,
    input: Vec<bool>,
    output: Vec<bool>,
}

impl<'a> GraphWriter<'a> {
    fn new(version: Version, graph: &'a Graph, captured: &[String]) -> Self {
        let left = GraphProto::decode(graph.extra.clone()).unwrap_or_default();
        let (input, output) = (marked(graph, &graph.inputs), marked(graph, &graph.outputs));
        let mut used = marked(graph, &graph.captured().into_iter().collect::<Vec<_>>());
        for (id, value) in graph.values() {
            let i = id.index();
            used[i] |= input[i] || output[i] || !value.consumers().is_empty();
        }
        let labels = left.initializer.iter().map(|t| t.name.clone());
        let denoted = left.value_info.iter().map(|v| v.name.clone());
        Self {
            version,
            graph,
            names: Names::of(graph, captured),
            labels: places(labels),
            denoted: places(denoted),
            left,
            used,
            input,
            output,
        }
    }

    /// The constants that something reads.
    fn constants(&self) -> impl Iterator<Item = (ValueId, &edgesmith_ir::Tensor)> {
        let used = |id: ValueId| self.used[id.index()];
        let all = self.graph.values();
        all.filter_map(move |(id, v)| Some((id, v.constant.as_ref().filter(|_| used(id))?)))
    }

    fn initializers(&self) -> Vec<TensorProto> {
        self.constants()
            .map(|(id, constant)| {
                let name = self.names.get(id);
                let mut t = tensor::to_proto(constant, name);
                if let Some(&i) = self.labels.get(name) {
                    let label = &self.left.initializer[i];
                    t.doc_string.clone_from(&label.doc_string);
                    t.metadata_props.clone_from(&label.metadata_props);
                }
                t
            })
            .collect()
    }

    /// Before version 4 every initializer is an input too.
    fn inputs(&self) -> Vec<ValueInfoProto> {
        let mut inputs: Vec<_> = self.graph.inputs.iter().map(|&v| self.info(v)).collect();
        if self.version.0 < 4 {
            let plain = self.constants().filter(|(id, _)| !self.input[id.index()]);
            inputs.extend(plain.map(|(id, _)| self.info(id)));
        }
        inputs
    }

    /// Types of what nodes make, in their order; documentation of constants.
    fn value_infos(&self, order: &[NodeId]) -> Vec<ValueInfoProto> {
        let made = order
            .iter()
            .flat_map(|&id| self.graph.node(id).outputs().iter().flatten().copied());
        let made = made.filter(|&id| self.graph.value(id).ty.is_some() || self.documented(id));
        let inner = self.version.0 >= 4;
        let constants = self.constants().map(|(id, _)| id);
        let constants = constants.filter(|&id| inner && self.documented(id));
        made.chain(constants)
            .filter(|id| !self.input[id.index()] && !self.output[id.index()])
            .map(|id| self.info(id))
            .collect()
    }

    fn documented(&self, id: ValueId) -> bool {
        let value = self.graph.value(id);
        !value.doc.is_empty() || !value.metadata.is_empty()
    }

    /// The entry of a value, with the denotations that its type came with.
    fn info(&self, id: ValueId) -> ValueInfoProto {
        let (value, name) = (self.graph.value(id), self.names.get(id));
        let plain = value.ty.as_ref().map(types::to_proto);
        let denoted = self.denoted.get(name);
        let denoted = denoted.and_then(|&i| self.left.value_info[i].r#type.clone());
        let denoted = denoted.filter(|k| Some(types::without_denotation(k)) == plain);
        ValueInfoProto {
            name: Some(name.to_owned()),
            r#type: denoted.or(plain),
            doc_string: text(&value.doc),
            metadata_props: entries(&value.metadata),
        }
    }

    fn node(&self, node: &Node) -> Result<NodeProto> {
        let left = NodeProto::decode(node.extra.clone()).unwrap_or_default();
        let labels = places(left.attribute.iter().map(|a| a.name.clone()));
        let mut attribute = Vec::with_capacity(node.attributes.len());
        for (key, value) in &node.attributes {
            let mut proto = attribute_proto(self.version, key, value, Some(&self.names))?;
            if let Some(&i) = labels.get(key) {
                let old = &left.attribute[i];
                proto.doc_string.clone_from(&old.doc_string);
                if let (Some(t), Some(label)) = (proto.t.as_mut(), old.t.as_deref()) {
                    t.name.clone_from(&label.name);
                    t.doc_string.clone_from(&label.doc_string);
                    t.metadata_props.clone_from(&label.metadata_props);
                }
            }
            attribute.push(proto);
        }
        Ok(NodeProto {
            input: self.names.all(node.inputs()),
            output: self.names.all(node.outputs()),
            name: text(&node.name),
            op_type: Some(node.op.clone()),
            attribute,
            doc_string: text(&node.doc),
            domain: text(&node.domain),
            overload: text(&node.overload),
            metadata_props: entries(&node.metadata),
            device_configurations: left.device_configurations,
        })
    }
}

/// A table of all values in which these are marked.
fn marked(graph: &Graph, ids: &[ValueId]) -> Vec<bool> {
    let mut table = vec![false; graph.value_slots()];
    for id in ids {
        table[id.index()] = true;
    }
    table
}

fn places(names: impl Iterator<Item = Option<String>>) -> HashMap<String, usize> {
    let named = names.enumerate();
    named.filter_map(|(i, name)| Some((name?, i))).collect()
}

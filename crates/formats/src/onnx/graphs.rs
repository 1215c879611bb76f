//! Reads graphs and their subgraphs: values by name, edges, captures.

use std::collections::HashSet;

use edgesmith_ir::{Error, Graph, Node, Result, Tensor, Type, ValueId, infer};

use super::attributes::AttributeReader;
use super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::read::{Problems, domain, leftover, metadata};
use super::scope::{Level, Scope};
use super::tensor::TensorReader;
use super::types;

/// Reads one graph after the other, each inside those that `scope` holds.
pub struct GraphReader<'a> {
    /// Reads initializers and attributes.
    pub tensors: &'a TensorReader,
    /// What goes wrong.
    pub problems: &'a mut Problems,
    /// The graphs around.
    pub scope: &'a mut Scope,
    /// The version of the file.
    pub ir_version: i64,
}

impl GraphReader<'_> {
    /// Reads a graph whose inputs and outputs have types.
    pub fn read(&mut self, proto: &GraphProto) -> Graph {
        let name = |info: &ValueInfoProto| info.name.clone().unwrap_or_default();
        let inputs: Vec<String> = proto.input.iter().map(name).collect();
        let outputs: Vec<String> = proto.output.iter().map(name).collect();
        self.read_body(proto, &inputs, &outputs)
    }

    /// Reads a graph with inputs and outputs of these names; where the message has entries for
    /// them, those give the types.
    pub fn read_body(
        &mut self,
        proto: &GraphProto,
        inputs: &[String],
        outputs: &[String],
    ) -> Graph {
        if self.scope.levels.len() >= infer::MAX_DEPTH {
            self.problems.push(Error::invalid(format!(
                "subgraphs nest deeper than {}",
                infer::MAX_DEPTH
            )));
            return Graph::default();
        }
        let mut level = Level::default();
        level.graph.name = proto.name.clone().unwrap_or_default();
        level.graph.doc = proto.doc_string.clone().unwrap_or_default();
        level.graph.metadata = metadata(&proto.metadata_props);
        level.graph.extra = leftover(&graph_leftover(proto));
        self.scope.levels.push(level);

        for name in inputs {
            if let Some(id) = self.define(name, "is an input of the graph twice") {
                self.scope.top().graph.inputs.push(id);
            }
        }
        let top = self.scope.top();
        top.inputs = top.graph.value_slots();
        self.initializers(proto);
        for output in proto.node.iter().flat_map(|n| &n.output) {
            if !output.is_empty() {
                self.define(output, "is made twice");
            }
        }
        self.value_infos(proto);
        for node in &proto.node {
            self.node(node);
        }
        for name in outputs {
            match self.scope.resolve(name) {
                Some(id) => self.scope.top().graph.outputs.push(id),
                None => self.value_problem(name, "is an output, but nothing makes it"),
            }
        }
        let graph = self.scope.levels.pop().expect("it was pushed above").graph;
        self.problems.take(graph.order());
        graph
    }

    fn value_problem(&mut self, name: &str, message: &str) {
        let place = format!("value \"{name}\"");
        self.problems.push(Error::invalid(message).at(place));
    }

    fn define(&mut self, name: &str, taken: &str) -> Option<ValueId> {
        let id = self.scope.top().define(name);
        if id.is_none() {
            self.value_problem(name, taken);
        }
        id
    }

    fn initializers(&mut self, proto: &GraphProto) {
        for tensor in &proto.initializer {
            let name = tensor.name.as_deref().unwrap_or_default();
            let data = self.tensors.read(tensor);
            self.initializer(name, data);
        }
        for sparse in &proto.sparse_initializer {
            let name = sparse.values.as_ref().and_then(|v| v.name.as_deref());
            let data = self.tensors.read_sparse(sparse);
            self.initializer(name.unwrap_or_default(), data);
        }
        // Before version 4 every initializer is listed as an input too, and is a plain constant.
        if self.ir_version < 4 {
            let graph = &mut self.scope.top().graph;
            let mut inputs = std::mem::take(&mut graph.inputs);
            inputs.retain(|&id| graph.value(id).constant.is_none());
            graph.inputs = inputs;
        }
    }

    fn initializer(&mut self, name: &str, data: Result<Tensor>) {
        let place = || format!("initializer \"{name}\"");
        let data = self.problems.take(data.map_err(|e| e.at(place())));
        let top = self.scope.top();
        let id = match top.get(name) {
            Some(id) if top.graph.value(id).constant.is_some() => None,
            Some(id) => Some(id),
            None => top.define(name),
        };
        match (id, data) {
            (Some(id), Some(data)) => {
                let value = top.graph.value_mut(id);
                value.ty = Some(Type::Tensor(data.ty()));
                value.constant = Some(data);
            }
            (None, _) => self.value_problem(name, "has two initializers"),
            _ => {}
        }
    }

    /// Types, documentation and metadata of values. The data of a constant is its type.
    fn value_infos(&mut self, proto: &GraphProto) {
        let infos = proto
            .input
            .iter()
            .chain(&proto.output)
            .chain(&proto.value_info);
        for info in infos {
            let name = info.name.as_deref().unwrap_or_default();
            let ty = info.r#type.as_ref().map(types::from_proto).transpose();
            let ty = ty.map_err(|e| e.at(format!("value \"{name}\"")));
            let ty = self.problems.take(ty).flatten().flatten();
            let top = self.scope.top();
            let Some(id) = top.get(name) else {
                continue;
            };
            let value = top.graph.value_mut(id);
            if value.ty.is_none() {
                value.ty = ty;
            }
            if value.doc.is_empty() {
                value.doc = info.doc_string.clone().unwrap_or_default();
            }
            if value.metadata.is_empty() {
                value.metadata = metadata(&info.metadata_props);
            }
        }
    }

    fn node(&mut self, proto: &NodeProto) {
        let mut node = Node::new(
            proto.op_type.as_deref().unwrap_or_default(),
            proto.name.as_deref().unwrap_or_default(),
        );
        node.domain = domain(proto.domain.as_deref());
        node.overload = proto.overload.clone().unwrap_or_default();
        node.doc = proto.doc_string.clone().unwrap_or_default();
        node.metadata = metadata(&proto.metadata_props);
        node.extra = leftover(&node_leftover(proto));
        let before = self.problems.len();
        node.attributes = AttributeReader { graphs: self }.read_all(&proto.attribute);
        if node.op.is_empty() {
            self.problems
                .push(Error::invalid("the node has no operator"));
        }
        let mut inputs = Vec::with_capacity(proto.input.len());
        for name in &proto.input {
            let id = if name.is_empty() {
                None
            } else {
                self.scope.resolve(name)
            };
            if id.is_none() && !name.is_empty() {
                let message = format!("it reads \"{name}\", which nothing makes");
                self.problems.push(Error::invalid(message));
            }
            inputs.push(id);
        }
        let top = self.scope.top();
        let mut made = HashSet::new();
        let mut outputs: Vec<Option<ValueId>> = Vec::with_capacity(proto.output.len());
        for name in &proto.output {
            let id = top.get(name).filter(|_| !name.is_empty());
            let free = id.filter(|&id| is_free(top, id) && made.insert(id));
            outputs.push(free);
        }
        self.problems.at_since(before, &node.place());
        self.scope.top().graph.add_node(node, &inputs, &outputs);
    }
}

/// True where a node may still make the value; where it may not, that is already noted.
fn is_free(level: &Level, id: ValueId) -> bool {
    let value = level.graph.value(id);
    value.producer().is_none() && value.constant.is_none() && id.index() >= level.inputs
}

/// What a graph says that has no place in [`Graph`]: quantization annotations, the documentation
/// of initializers, and types with denotations.
fn graph_leftover(proto: &GraphProto) -> GraphProto {
    let documented = |t: &&TensorProto| t.doc_string.is_some() || !t.metadata_props.is_empty();
    let infos = proto
        .input
        .iter()
        .chain(&proto.output)
        .chain(&proto.value_info);
    let denoted = infos.filter_map(|info| {
        let ty = info.r#type.as_ref()?;
        (*ty != types::without_denotation(ty)).then(|| ValueInfoProto {
            name: info.name.clone(),
            r#type: Some(ty.clone()),
            ..ValueInfoProto::default()
        })
    });
    GraphProto {
        initializer: proto
            .initializer
            .iter()
            .filter(documented)
            .map(label)
            .collect(),
        value_info: denoted.collect(),
        quantization_annotation: proto.quantization_annotation.clone(),
        ..GraphProto::default()
    }
}

/// A tensor without its data.
fn label(tensor: &TensorProto) -> TensorProto {
    TensorProto {
        name: tensor.name.clone(),
        doc_string: tensor.doc_string.clone(),
        metadata_props: tensor.metadata_props.clone(),
        ..TensorProto::default()
    }
}

/// What a node says that has no place in [`Node`]: devices, the documentation of attributes, and
/// the names of tensors in attributes.
fn node_leftover(proto: &NodeProto) -> NodeProto {
    let attribute = proto.attribute.iter().filter_map(|a| {
        let tensor =
            a.t.as_deref()
                .map(label)
                .filter(|t| *t != TensorProto::default());
        (a.doc_string.is_some() || tensor.is_some()).then(|| AttributeProto {
            name: a.name.clone(),
            doc_string: a.doc_string.clone(),
            t: tensor.map(Box::new),
            ..AttributeProto::default()
        })
    });
    NodeProto {
        attribute: attribute.collect(),
        device_configurations: proto.device_configurations.clone(),
        ..NodeProto::default()
    }
}

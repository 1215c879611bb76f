//! Writes models: a [`Model`] to messages of ONNX, always the same bytes for the same model.

use std::collections::BTreeMap;

use bytes::Bytes;
use edgesmith_ir::graph::Metadata;
use edgesmith_ir::{Attribute, DType, Function, Graph, Model, Node, Result, ValueId};
use prost::Message;

use super::proto::{
    AttributeProto, EXTERNAL, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, ValueInfoProto, attribute_type as code,
};
use super::{tensor, types};

/// Where the data of a file beside the model starts a tensor.
const ALIGNMENT: usize = 64;

/// The bytes of a file with all weights inside.
///
/// # Errors
/// When the graph has a cycle.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    Ok(message(model)?.encode_to_vec())
}

/// A file and the data that stands beside it.
pub(crate) struct Parts {
    pub model: Vec<u8>,
    /// Offset and bytes of each tensor that stands beside the model.
    pub data: Vec<(usize, Bytes)>,
}

/// The bytes of a file whose tensors of at least `over` bytes stand in a file called `location`.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_external(model: &Model, location: &str, over: usize) -> Result<Parts> {
    let mut proto = message(model)?;
    let mut data = Vec::new();
    let mut end = 0usize;
    for t in proto.graph.iter_mut().flat_map(|g| &mut g.initializer) {
        if t.raw_data.as_ref().is_none_or(|d| d.len() < over.max(1)) {
            continue;
        }
        let Some(bytes) = t.raw_data.take() else {
            continue;
        };
        let offset = end.next_multiple_of(ALIGNMENT);
        end = offset + bytes.len();
        t.data_location = Some(EXTERNAL);
        t.external_data = [
            ("location", location.to_owned()),
            ("offset", offset.to_string()),
            ("length", bytes.len().to_string()),
        ]
        .map(|(k, v)| entry(k, &v))
        .into();
        data.push((offset, bytes));
    }
    Ok(Parts {
        model: proto.encode_to_vec(),
        data,
    })
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    }
}

fn entries(metadata: &Metadata) -> Vec<StringStringEntryProto> {
    metadata.iter().map(|(k, v)| entry(k, v)).collect()
}

fn text(s: &str) -> Option<String> {
    (!s.is_empty()).then(|| s.to_owned())
}

/// The least version of the file format that can say what the model holds.
fn ir_version(model: &Model) -> i64 {
    let four_bit = model.graph.values().any(|(_, v)| {
        let dtype = v.constant.as_ref().map(edgesmith_ir::Tensor::dtype);
        dtype.is_some_and(|d| matches!(d, DType::I4 | DType::U4))
    });
    let least = match model.opset() {
        21.. => 10,
        20 => 9,
        _ if four_bit => 10,
        _ => 3,
    };
    model.ir_version.max(least)
}

fn message(model: &Model) -> Result<ModelProto> {
    let left = ModelProto::decode(model.extra.clone()).unwrap_or_default();
    let version = ir_version(model);
    let writer = Writer {
        ir_version: version,
    };
    Ok(ModelProto {
        ir_version: Some(version),
        producer_name: text(&model.producer_name),
        producer_version: text(&model.producer_version),
        domain: text(&model.domain),
        model_version: (model.model_version != 0).then_some(model.model_version),
        doc_string: text(&model.doc),
        graph: Some(writer.graph(&model.graph, &[])?),
        opset_import: opsets(&model.opsets),
        metadata_props: entries(&model.metadata),
        training_info: left.training_info,
        functions: model
            .functions
            .iter()
            .map(|f| writer.function(f))
            .collect::<Result<_>>()?,
        configuration: left.configuration,
    })
}

fn opsets(opsets: &BTreeMap<String, i64>) -> Vec<OperatorSetIdProto> {
    let import = |(domain, &version): (&String, &i64)| OperatorSetIdProto {
        domain: Some(domain.clone()),
        version: Some(version),
    };
    opsets.iter().map(import).collect()
}

struct Writer {
    ir_version: i64,
}

/// The names that values of a subgraph have, where they stand for values outside.
type Outer<'a> = &'a [(ValueId, String)];

impl Writer {
    fn graph(&self, graph: &Graph, outer: Outer) -> Result<GraphProto> {
        let left = GraphProto::decode(graph.extra.clone()).unwrap_or_default();
        let mut proto = GraphProto {
            name: Some(graph.name.clone()),
            doc_string: text(&graph.doc),
            metadata_props: entries(&graph.metadata),
            quantization_annotation: left.quantization_annotation,
            ..GraphProto::default()
        };
        let name = |v: ValueId| name_of(graph, outer, v);
        for id in graph.order()? {
            proto.node.push(self.node(graph, graph.node(id), &name)?);
        }
        let used = used(graph);
        for (id, value) in graph.values() {
            let Some(constant) = value.constant.as_ref().filter(|_| used[id.index()]) else {
                continue;
            };
            let mut t = tensor::to_proto(constant, &value.name);
            if let Some(label) = left.initializer.iter().find(|l| l.name == t.name) {
                t.doc_string.clone_from(&label.doc_string);
                t.metadata_props.clone_from(&label.metadata_props);
            }
            proto.initializer.push(t);
        }
        let info = |v: ValueId| value_info(graph, v, name(v), &left.value_info);
        proto.input = graph.inputs.iter().map(|&v| info(v)).collect();
        if self.ir_version < 4 {
            let plain = graph
                .values()
                .filter(|(id, v)| v.constant.is_some() && used[id.index()] && !graph.is_input(*id));
            proto.input.extend(plain.map(|(id, _)| info(id)));
        }
        proto.output = graph.outputs.iter().map(|&v| info(v)).collect();
        let ends = |v: ValueId| graph.is_input(v) || graph.is_output(v);
        for (id, value) in graph.values() {
            let says = value.ty.is_some() || !value.doc.is_empty() || !value.metadata.is_empty();
            if value.producer().is_some() && says && !ends(id) {
                proto.value_info.push(info(id));
            }
        }
        Ok(proto)
    }

    fn node(
        &self,
        graph: &Graph,
        node: &Node,
        name: &dyn Fn(ValueId) -> String,
    ) -> Result<NodeProto> {
        let left = NodeProto::decode(node.extra.clone()).unwrap_or_default();
        let names = |ids: &[Option<ValueId>]| {
            ids.iter()
                .map(|v| v.map_or_else(String::new, name))
                .collect::<Vec<_>>()
        };
        let mut attribute = Vec::new();
        for (key, value) in &node.attributes {
            let mut proto = self.attribute(graph, key, value, name)?;
            if let Some(old) = left.attribute.iter().find(|a| a.name == proto.name) {
                proto.doc_string.clone_from(&old.doc_string);
                if let (Some(t), Some(label)) = (proto.t.as_mut(), old.t.as_deref()) {
                    t.name.clone_from(&label.name);
                    t.doc_string.clone_from(&label.doc_string);
                }
            }
            attribute.push(proto);
        }
        Ok(NodeProto {
            input: names(node.inputs()),
            output: names(node.outputs()),
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

    fn attribute(
        &self,
        _graph: &Graph,
        key: &str,
        value: &Attribute,
        name: &dyn Fn(ValueId) -> String,
    ) -> Result<AttributeProto> {
        let mut p = AttributeProto::default();
        let inner = |g: &Graph| {
            let outer: Vec<(ValueId, String)> = g
                .captures
                .iter()
                .map(|c| (c.inner, name(c.outer)))
                .collect();
            self.graph(g, &outer)
        };
        p.kind = Some(match value {
            Attribute::Int(i) => {
                p.i = Some(*i);
                code::INT
            }
            Attribute::Float(f) => {
                p.f = Some(*f);
                code::FLOAT
            }
            Attribute::String(s) => {
                p.s = Some(s.clone());
                code::STRING
            }
            Attribute::Tensor(t) => {
                p.t = Some(Box::new(TensorProto {
                    name: None,
                    ..tensor::to_proto(t, "")
                }));
                code::TENSOR
            }
            Attribute::Graph(g) => {
                p.g = Some(Box::new(inner(g)?));
                code::GRAPH
            }
            Attribute::Ints(v) => {
                p.ints.clone_from(v);
                code::INTS
            }
            Attribute::Floats(v) => {
                p.floats.clone_from(v);
                code::FLOATS
            }
            Attribute::Strings(v) => {
                p.strings.clone_from(v);
                code::STRINGS
            }
            Attribute::Tensors(v) => {
                p.tensors = v.iter().map(|t| tensor::to_proto(t, "")).collect();
                code::TENSORS
            }
            Attribute::Graphs(v) => {
                p.graphs = v.iter().map(inner).collect::<Result<_>>()?;
                code::GRAPHS
            }
            Attribute::Type(t) => {
                p.tp = Some(Box::new(types::to_proto(t)));
                code::TYPE_PROTO
            }
            Attribute::Reference(to, kind) => {
                p.ref_attr_name = Some(to.clone());
                *kind
            }
            Attribute::Opaque(bytes) => {
                p = AttributeProto::decode(bytes.clone()).unwrap_or_default();
                p.kind.unwrap_or(code::UNDEFINED)
            }
        });
        p.name = Some(key.to_owned());
        Ok(p)
    }

    fn function(&self, function: &Function) -> Result<FunctionProto> {
        let body = self.graph(&function.graph, &[])?;
        let name = |v: &ValueId| function.graph.value(*v).name.clone();
        let mut defaults = Vec::new();
        for (key, value) in &function.defaults {
            let none = |_: ValueId| String::new();
            defaults.push(self.attribute(&function.graph, key, value, &none)?);
        }
        Ok(FunctionProto {
            name: Some(function.name.clone()),
            input: function.graph.inputs.iter().map(name).collect(),
            output: function.graph.outputs.iter().map(name).collect(),
            attribute: function.attributes.clone(),
            node: body.node,
            doc_string: body.doc_string,
            opset_import: opsets(&function.opsets),
            domain: text(&function.domain),
            attribute_proto: defaults,
            value_info: body.value_info,
            overload: text(&function.overload),
            metadata_props: body.metadata_props,
        })
    }
}

fn name_of(graph: &Graph, outer: Outer, v: ValueId) -> String {
    let captured = outer.iter().find(|(id, _)| *id == v).map(|(_, name)| name);
    captured.unwrap_or(&graph.value(v).name).clone()
}

/// Which values somebody reads.
fn used(graph: &Graph) -> Vec<bool> {
    let mut used: Vec<bool> = graph
        .values()
        .map(|(_, v)| !v.consumers().is_empty())
        .collect();
    for v in graph
        .inputs
        .iter()
        .chain(&graph.outputs)
        .chain(&graph.captured())
    {
        used[v.index()] = true;
    }
    used
}

/// The entry of a value, with the denotations that its type came with.
fn value_info(
    graph: &Graph,
    v: ValueId,
    name: String,
    denoted: &[ValueInfoProto],
) -> ValueInfoProto {
    let value = graph.value(v);
    let plain = value.ty.as_ref().map(types::to_proto);
    let kept = denoted
        .iter()
        .find(|d| d.name.as_ref() == Some(&name))
        .and_then(|d| d.r#type.clone());
    let kept = kept.filter(|k| Some(types::without_denotation(k)) == plain);
    ValueInfoProto {
        name: Some(name),
        r#type: kept.or(plain),
        doc_string: text(&value.doc),
        metadata_props: entries(&value.metadata),
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text;

    use super::super::decode;
    use super::*;

    fn check(source: &str) {
        let model = text::parse(source).unwrap();
        let first = encode(&model).unwrap();
        let again = decode(first.clone().into(), None).unwrap();
        assert_eq!(text::print(&again).unwrap(), text::print(&model).unwrap());
        assert_eq!(encode(&again).unwrap(), first);
    }

    #[test]
    fn a_model_comes_back_equal_and_byte_stable() {
        for op in ["Relu(f32[2,3])", "Gather(f32[3,4], i64[2]{0,-1}) {axis=1}"] {
            let (model, _) = text::example(op).unwrap();
            check(&text::print(&model).unwrap());
        }
    }

    #[test]
    fn every_example_with_subgraphs_comes_back() {
        for def in edgesmith_ir::ops::OPS
            .iter()
            .filter(|d| ["If", "Loop", "Scan"].contains(&d.name))
        {
            for example in def.examples {
                let (model, _) = text::example(example).unwrap();
                check(&text::print(&model).unwrap());
            }
        }
    }
}

//! Writes models: a [`Model`] to messages of ONNX, always the same bytes for the same model.

use std::collections::BTreeMap;

use bytes::Bytes;
use edgesmith_ir::graph::Metadata;
use edgesmith_ir::{DType, Error, Function, Graph, Model, Result, Tensor};
use prost::Message;

use super::proto::{
    EXTERNAL, FunctionProto, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, ValueInfoProto,
};
use attribute::attribute_proto;
use graph::graph_proto;

mod attribute;
mod graph;
mod names;

/// Where in the file beside the model a tensor starts, at least.
const ALIGNMENT: usize = 64;

/// Where a tensor starts that has at least so many bytes: at a page, so that it can be mapped.
const PAGE: usize = 4096;

/// The bytes of a file with all weights inside.
///
/// # Errors
/// When the graph has a cycle, or the file would have more than 2 GB.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    Ok(pieces(message(model)?)?.concat())
}

/// How many bytes the file of a model has with all weights inside.
///
/// # Errors
/// When the graph has a cycle.
pub fn size(model: &Model) -> Result<u64> {
    Ok(message(model)?.encoded_len() as u64)
}

/// The bytes of a file in pieces, of which the large ones are those of the weights themselves.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_pieces(model: &Model) -> Result<Vec<Bytes>> {
    pieces(message(model)?)
}

/// The fields that hold what is large: `ModelProto.graph`, `GraphProto.initializer`,
/// `TensorProto.raw_data`.
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

/// Weights of fewer bytes are copied into the piece before them.
const MIN_PIECE: usize = 4096;

/// A message in pieces: the graph comes last in the model, and its initializers last in the graph.
fn pieces(mut proto: ModelProto) -> Result<Vec<Bytes>> {
    if proto.encoded_len() > i32::MAX as usize {
        return Err(
            Error::unsupported("the file would have more than 2 GB, where ONNX files end")
                .hint("write the weights into a file beside it"),
        );
    }
    let Some(mut graph) = proto.graph.take() else {
        return Ok(vec![proto.encode_to_vec().into()]);
    };
    let length = graph.encoded_len();
    let initializers = std::mem::take(&mut graph.initializer);
    let mut piece = proto.encode_to_vec();
    announce(GRAPH, length, &mut piece);
    graph
        .encode(&mut piece)
        .map_err(|e| Error::internal(e.to_string()))?;
    let mut all = Vec::new();
    for mut tensor in initializers {
        announce(INITIALIZER, tensor.encoded_len(), &mut piece);
        let raw = tensor.raw_data.take();
        piece.extend(tensor.encode_to_vec());
        let Some(raw) = raw else {
            continue;
        };
        announce(RAW_DATA, raw.len(), &mut piece);
        if raw.len() < MIN_PIECE {
            piece.extend_from_slice(&raw);
        } else {
            all.push(std::mem::take(&mut piece).into());
            all.push(raw);
        }
    }
    all.push(piece.into());
    Ok(all)
}

/// Writes that `length` bytes of field `tag` follow.
fn announce(tag: u32, length: usize, out: &mut Vec<u8>) {
    let kind = prost::encoding::WireType::LengthDelimited;
    prost::encoding::encode_key(tag, kind, out);
    prost::encoding::encode_varint(length as u64, out);
}

/// A file and the data that stands beside it.
pub(crate) struct Parts {
    /// The file, in pieces.
    pub model: Vec<Bytes>,
    /// Offset and bytes of each tensor that stands beside the model.
    pub data: Vec<(usize, Bytes)>,
}

/// The bytes of a file whose tensors of at least `over` bytes stand in a file called `location`.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_external(model: &Model, location: &str, over: usize) -> Result<Parts> {
    let mut proto = message(model)?;
    let mut outside = Outside {
        location,
        over: over.max(1),
        end: 0,
        data: Vec::new(),
    };
    proto.graph.iter_mut().for_each(|g| outside.graph(g));
    Ok(Parts {
        model: pieces(proto)?,
        data: outside.data,
    })
}

/// Takes data out of messages, into a file beside the model.
struct Outside<'a> {
    location: &'a str,
    over: usize,
    end: usize,
    data: Vec<(usize, Bytes)>,
}

impl Outside<'_> {
    fn graph(&mut self, graph: &mut GraphProto) {
        graph.initializer.iter_mut().for_each(|t| self.tensor(t));
        for a in graph.node.iter_mut().flat_map(|n| &mut n.attribute) {
            let graphs = a.g.as_deref_mut().into_iter().chain(&mut a.graphs);
            graphs.for_each(|g| self.graph(g));
        }
    }

    fn tensor(&mut self, t: &mut TensorProto) {
        let Some(bytes) = t.raw_data.take_if(|d| d.len() >= self.over) else {
            return;
        };
        let alignment = if bytes.len() < PAGE { ALIGNMENT } else { PAGE };
        let offset = self.end.next_multiple_of(alignment);
        self.end = offset + bytes.len();
        t.data_location = Some(EXTERNAL);
        t.external_data = [
            ("location", self.location.to_owned()),
            ("offset", offset.to_string()),
            ("length", bytes.len().to_string()),
        ]
        .map(|(k, v)| entry(k, &v))
        .into();
        self.data.push((offset, bytes));
    }
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

/// The version of the file format that is written.
#[derive(Clone, Copy)]
pub struct Version(i64);

impl Version {
    /// The version of the model, or the least that can say what it holds.
    fn of(model: &Model) -> Self {
        let opset = match model.opset() {
            21.. => 10,
            20 => 9,
            _ => 3,
        };
        let functions = if model.functions.is_empty() { 3 } else { 8 };
        let least = of_graph(&model.graph).max(opset).max(functions);
        Self(model.ir_version.max(least))
    }
}

/// The least version that has the element types of a graph's constants and values.
fn of_graph(graph: &Graph) -> i64 {
    let values = graph.values().filter_map(|(_, v)| {
        let constant = v.constant.as_ref().map(Tensor::dtype);
        constant.or_else(|| Some(v.tensor_type()?.dtype))
    });
    let inner = graph.nodes().flat_map(|(_, n)| n.subgraphs());
    let own = values.map(|dtype| match dtype {
        DType::U2 | DType::I2 => 13,
        DType::F8E8M0 => 12,
        DType::F4E2M1 => 11,
        DType::U4 | DType::I4 => 10,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => 9,
        DType::BF16 => 4,
        _ => 3,
    });
    own.chain(inner.map(of_graph)).max().unwrap_or(3)
}

fn message(model: &Model) -> Result<ModelProto> {
    let left = ModelProto::decode(model.extra.clone()).unwrap_or_default();
    let version = Version::of(model);
    let functions = model.functions.iter().map(|f| function_proto(version, f));
    Ok(ModelProto {
        ir_version: Some(version.0),
        producer_name: text(&model.producer_name),
        producer_version: text(&model.producer_version),
        domain: text(&model.domain),
        model_version: (model.model_version != 0).then_some(model.model_version),
        doc_string: text(&model.doc),
        graph: Some(graph_proto(version, &model.graph, &[])?),
        opset_import: opsets(&model.opsets),
        metadata_props: entries(&model.metadata),
        training_info: left.training_info,
        functions: functions.collect::<Result<_>>()?,
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

fn function_proto(version: Version, function: &Function) -> Result<FunctionProto> {
    let body = graph_proto(version, &function.graph, &[])?;
    let defaults = function.defaults.iter();
    let defaults = defaults.map(|(key, value)| attribute_proto(version, key, value, None));
    let names = |infos: Vec<ValueInfoProto>| infos.into_iter().filter_map(|i| i.name).collect();
    let typed = |i: &&ValueInfoProto| i.r#type.is_some();
    let ends = body.input.iter().chain(&body.output).filter(typed);
    let value_info = ends.chain(&body.value_info).cloned().collect();
    Ok(FunctionProto {
        name: Some(function.name.clone()),
        value_info,
        input: names(body.input),
        output: names(body.output),
        attribute: function.attributes.clone(),
        node: body.node,
        doc_string: body.doc_string,
        opset_import: opsets(&function.opsets),
        domain: text(&function.domain),
        attribute_proto: defaults.collect::<Result<_>>()?,
        overload: text(&function.overload),
        metadata_props: body.metadata_props,
    })
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

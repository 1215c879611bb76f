//! Attributes of nodes: ONNX's `AttributeProto` to ours.

use std::collections::HashSet;

use bytes::Bytes;
use edgesmith_ir::{Attribute, Error, Result};
use prost::Message;

use super::graphs::GraphReader;
use super::proto::{AttributeProto, attribute_type as code};
use super::types;

/// Reads the attributes of a node of the graph that `graphs` is reading.
pub struct AttributeReader<'a, 'b> {
    /// Reads the graphs in attributes.
    pub graphs: &'a mut GraphReader<'b>,
}

impl AttributeReader<'_, '_> {
    /// The attributes by name, in order; those that are broken are noted as problems.
    pub fn read_all(&mut self, protos: &[AttributeProto]) -> Vec<(String, Attribute)> {
        let mut all: Vec<(String, Attribute)> = Vec::with_capacity(protos.len());
        let mut names = HashSet::new();
        for proto in protos {
            let name = proto.name.clone().unwrap_or_default();
            let place = format!("attribute \"{name}\"");
            if !names.insert(proto.name.as_deref()) {
                let twice = Error::invalid("it is given twice").at(place);
                self.graphs.problems.push(twice);
                continue;
            }
            let result = self.read(proto).map_err(|e| e.at(place));
            if let Some(attribute) = self.graphs.problems.take(result) {
                all.push((name, attribute));
            }
        }
        all
    }

    fn read(&mut self, proto: &AttributeProto) -> Result<Attribute> {
        let kind = kind(proto);
        if let Some(name) = proto.ref_attr_name.as_ref().filter(|n| !n.is_empty()) {
            return Ok(Attribute::Reference(name.clone(), kind));
        }
        let missing = || Error::invalid("it has no value");
        let tensors = self.graphs.tensors;
        Ok(match kind {
            code::FLOAT => Attribute::Float(proto.f.unwrap_or(0.0)),
            code::INT => Attribute::Int(proto.i.unwrap_or(0)),
            code::STRING => Attribute::String(own(proto.s.as_ref().unwrap_or(&Bytes::new()))),
            code::TENSOR => {
                Attribute::Tensor(tensors.read(proto.t.as_deref().ok_or_else(missing)?)?)
            }
            code::GRAPH => {
                let graph = proto.g.as_deref().ok_or_else(missing)?;
                Attribute::Graph(Box::new(self.graphs.read(graph)))
            }
            code::FLOATS => Attribute::Floats(proto.floats.clone()),
            code::INTS => Attribute::Ints(proto.ints.clone()),
            code::STRINGS => Attribute::Strings(proto.strings.iter().map(own).collect()),
            code::TENSORS => {
                let read = proto.tensors.iter().map(|t| tensors.read(t));
                Attribute::Tensors(read.collect::<Result<_>>()?)
            }
            code::GRAPHS => {
                Attribute::Graphs(proto.graphs.iter().map(|g| self.graphs.read(g)).collect())
            }
            code::TYPE_PROTO => {
                let ty = types::from_proto(proto.tp.as_deref().ok_or_else(missing)?)?;
                Attribute::Type(ty.ok_or_else(missing)?)
            }
            code::SPARSE_TENSOR | code::SPARSE_TENSORS | code::TYPE_PROTOS => {
                let plain = AttributeProto {
                    name: None,
                    doc_string: None,
                    ..proto.clone()
                };
                Attribute::Opaque(plain.encode_to_vec().into())
            }
            other => {
                return Err(Error::invalid(format!(
                    "there is no attribute type {other}"
                )));
            }
        })
    }
}

/// Short texts do not keep the whole file alive.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The type that the message states, or the first field that is set, as files of the first
/// versions have it.
fn kind(p: &AttributeProto) -> i32 {
    let set = [
        (p.f.is_some(), code::FLOAT),
        (p.i.is_some(), code::INT),
        (p.s.is_some(), code::STRING),
        (p.t.is_some(), code::TENSOR),
        (p.g.is_some(), code::GRAPH),
        (!p.floats.is_empty(), code::FLOATS),
        (!p.ints.is_empty(), code::INTS),
        (!p.strings.is_empty(), code::STRINGS),
        (!p.tensors.is_empty(), code::TENSORS),
        (!p.graphs.is_empty(), code::GRAPHS),
        (p.tp.is_some(), code::TYPE_PROTO),
        (p.sparse_tensor.is_some(), code::SPARSE_TENSOR),
        (!p.sparse_tensors.is_empty(), code::SPARSE_TENSORS),
        (!p.type_protos.is_empty(), code::TYPE_PROTOS),
    ];
    match p.kind.unwrap_or(code::UNDEFINED) {
        code::UNDEFINED => set
            .iter()
            .find(|(there, _)| *there)
            .map_or(code::UNDEFINED, |&(_, kind)| kind),
        stated => stated,
    }
}

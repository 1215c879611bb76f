//! Attributes of nodes: ours to ONNX's `AttributeProto`.

use edgesmith_ir::{Attribute, Graph, Result};
use prost::Message;

use super::super::proto::{AttributeProto, attribute_type as code};
use super::super::{tensor, types};
use super::Version;
use super::graph::graph_proto;
use super::names::Names;

/// The message of an attribute; `names` are those of the graph that its subgraphs look into.
pub fn attribute_proto(
    version: Version,
    key: &str,
    value: &Attribute,
    names: Option<&Names>,
) -> Result<AttributeProto> {
    let mut p = AttributeProto::default();
    let inner = |g: &Graph| {
        let outer = |c: &edgesmith_ir::Capture| names.map_or("", |n| n.get(c.outer)).to_owned();
        let captured: Vec<String> = g.captures.iter().map(outer).collect();
        graph_proto(version, g, &captured)
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
            p.t = Some(Box::new(tensor::to_proto(t, "")));
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

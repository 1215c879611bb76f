//! Nodes and their attributes, shaped like ONNX's.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Graph, ValueId};
use crate::types::Type;
use crate::{Error, Result, Tensor};

/// Names and texts that belong to a thing and mean nothing to the arithmetic.
pub type Metadata = Vec<(String, String)>;

/// An attribute of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// INT
    Int(i64),
    /// FLOAT
    Float(f32),
    /// STRING, not always UTF-8
    String(Bytes),
    /// TENSOR
    Tensor(Tensor),
    /// GRAPH: the body of If, Loop, Scan
    Graph(Box<Graph>),
    /// INTS
    Ints(Vec<i64>),
    /// FLOATS
    Floats(Vec<f32>),
    /// STRINGS
    Strings(Vec<Bytes>),
    /// TENSORS
    Tensors(Vec<Tensor>),
    /// GRAPHS
    Graphs(Vec<Graph>),
    /// TYPE_PROTO
    Type(Type),
    /// The value of an attribute of the function that the node stands in, by name;
    /// the second field is ONNX's code of the attribute type.
    Reference(String, i32),
    /// Kept and written again, not understood: an encoded ONNX `AttributeProto`.
    Opaque(Bytes),
}

/// A use of an operator.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// May be empty; not always unique.
    pub name: String,
    /// The operator's name.
    pub op: String,
    /// The operator's domain; empty for `ai.onnx`.
    pub domain: String,
    /// The overload of a model function; mostly empty.
    pub overload: String,
    /// By name, in the order of the file.
    pub attributes: Vec<(String, Attribute)>,
    /// Documentation of the file.
    pub doc: String,
    /// Metadata of the file.
    pub metadata: Metadata,
    /// Encoded fields of `NodeProto` that have no place here.
    pub extra: Bytes,
    pub(super) inputs: SmallVec<[Option<ValueId>; 4]>,
    pub(super) outputs: SmallVec<[Option<ValueId>; 2]>,
}

impl Node {
    /// A node without edges, in the default domain.
    pub fn new(op: &str, name: &str) -> Self {
        Self {
            op: op.into(),
            name: name.into(),
            ..Self::default()
        }
    }

    /// Adds an attribute: for building.
    #[must_use]
    pub fn with(mut self, name: &str, attribute: Attribute) -> Self {
        self.set(name, attribute);
        self
    }

    /// In another domain: for building.
    #[must_use]
    pub fn in_domain(mut self, domain: &str) -> Self {
        self.domain = domain.into();
        self
    }

    /// The values read; `None` where an optional input is left out.
    pub fn inputs(&self) -> &[Option<ValueId>] {
        &self.inputs
    }

    /// The values made; `None` where an optional output is left out.
    pub fn outputs(&self) -> &[Option<ValueId>] {
        &self.outputs
    }

    /// Input `i`, where it is there.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// Output `i`, where it is there.
    pub fn output(&self, i: usize) -> Option<ValueId> {
        self.outputs.get(i).copied().flatten()
    }

    /// True for the operator `op` of the default domain.
    pub fn is(&self, op: &str) -> bool {
        self.op == op && self.domain.is_empty()
    }

    /// The attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, a)| a)
    }

    /// Sets or replaces an attribute.
    pub fn set(&mut self, name: &str, attribute: Attribute) {
        match self.attributes.iter_mut().find(|(n, _)| n == name) {
            Some((_, a)) => *a = attribute,
            None => self.attributes.push((name.into(), attribute)),
        }
    }

    /// Removes an attribute, where there is one.
    pub fn remove(&mut self, name: &str) {
        self.attributes.retain(|(n, _)| n != name);
    }

    /// The INT attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        if let Attribute::Int(i) = self.attribute(name)? {
            Some(*i)
        } else {
            None
        }
    }

    /// The FLOAT attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        if let Attribute::Float(x) = self.attribute(name)? {
            Some(*x)
        } else {
            None
        }
    }

    /// The INTS attribute.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        if let Attribute::Ints(v) = self.attribute(name)? {
            Some(v)
        } else {
            None
        }
    }

    /// The FLOATS attribute.
    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        if let Attribute::Floats(v) = self.attribute(name)? {
            Some(v)
        } else {
            None
        }
    }

    /// The STRING attribute, where it is UTF-8.
    pub fn string(&self, name: &str) -> Option<&str> {
        if let Attribute::String(s) = self.attribute(name)? {
            std::str::from_utf8(s).ok()
        } else {
            None
        }
    }

    /// The STRINGS attribute; what is no UTF-8 is replaced.
    pub fn strings(&self, name: &str) -> Option<Vec<String>> {
        if let Attribute::Strings(v) = self.attribute(name)? {
            let text = v.iter().map(|s| String::from_utf8_lossy(s).into_owned());
            Some(text.collect())
        } else {
            None
        }
    }

    /// The TENSOR attribute.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        if let Attribute::Tensor(t) = self.attribute(name)? {
            Some(t)
        } else {
            None
        }
    }

    /// The GRAPH attribute.
    pub fn graph(&self, name: &str) -> Option<&Graph> {
        if let Attribute::Graph(g) = self.attribute(name)? {
            Some(g)
        } else {
            None
        }
    }

    /// The GRAPH attribute, to be given so many inputs.
    ///
    /// # Errors
    /// When it is missing, has fewer inputs, or more that have no default.
    pub fn graph_of(&self, name: &str, given: usize) -> Result<&Graph> {
        let graph = self
            .graph(name)
            .ok_or_else(|| Error::invalid(format!("attribute \"{name}\" is missing")))?;
        let takes = graph.inputs.len();
        let has_default = |v: &ValueId| graph.value(*v).constant.is_some();
        if given > takes || !graph.inputs[given..].iter().all(has_default) {
            return Err(Error::invalid(format!(
                "the graph \"{name}\" has {takes} inputs, the node gives it {given}"
            )));
        }
        Ok(graph)
    }

    /// The graphs in the attributes.
    pub fn subgraphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.iter().flat_map(|(_, a)| match a {
            Attribute::Graph(g) => std::slice::from_ref(&**g),
            Attribute::Graphs(v) => v.as_slice(),
            _ => &[],
        })
    }

    /// The graphs in the attributes, to be changed.
    pub fn subgraphs_mut(&mut self) -> impl Iterator<Item = &mut Graph> {
        self.attributes.iter_mut().flat_map(|(_, a)| match a {
            Attribute::Graph(g) => std::slice::from_mut(&mut **g),
            Attribute::Graphs(v) => v.as_mut_slice(),
            _ => &mut [],
        })
    }

    /// `Conv "stem.0"`: how errors name this node.
    pub fn place(&self) -> String {
        let dot = if self.domain.is_empty() { "" } else { "." };
        format!("{}{dot}{} \"{}\"", self.domain, self.op, self.name)
    }
}

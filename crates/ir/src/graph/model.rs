//! A model: a graph with what its file says about it, and functions.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Attribute, Graph, Metadata, Node};

/// A function of the model: a graph with named parameters.
#[derive(Debug, Clone, Default)]
pub struct Function {
    /// Domain of the operator that it defines.
    pub domain: String,
    /// Name of the operator that it defines.
    pub name: String,
    /// Overload; mostly empty.
    pub overload: String,
    /// Attributes without default.
    pub attributes: Vec<String>,
    /// Attributes with default.
    pub defaults: Vec<(String, Attribute)>,
    /// The opsets of the body.
    pub opsets: BTreeMap<String, i64>,
    /// The body.
    pub graph: Graph,
    /// Encoded fields of `FunctionProto` that have no place here.
    pub extra: Bytes,
}

/// A graph with what a file says about it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// The main graph.
    pub graph: Graph,
    /// The version of the operator set of each domain; the default domain is the empty string.
    pub opsets: BTreeMap<String, i64>,
    /// Functions, in the order of the file.
    pub functions: Vec<Function>,
    /// ONNX IR version.
    pub ir_version: i64,
    /// Name of the tool that made the file.
    pub producer_name: String,
    /// Version of that tool.
    pub producer_version: String,
    /// Domain of the model.
    pub domain: String,
    /// Version of the model.
    pub model_version: i64,
    /// Documentation of the file.
    pub doc: String,
    /// Metadata of the file.
    pub metadata: Metadata,
    /// Encoded fields of `ModelProto` that have no place here.
    pub extra: Bytes,
}

impl Model {
    /// A model of `graph` at `opset` of the default domain.
    pub fn new(graph: Graph, opset: i64) -> Self {
        Self {
            graph,
            opsets: BTreeMap::from([(String::new(), opset)]),
            ir_version: 10,
            ..Self::default()
        }
    }

    /// The version of the default domain; 1 where the file names none.
    pub fn opset(&self) -> i64 {
        self.opsets.get("").copied().unwrap_or(1)
    }

    /// The function that defines an operator.
    pub fn function(&self, node: &Node) -> Option<&Function> {
        self.functions
            .iter()
            .find(|f| f.name == node.op && f.domain == node.domain && f.overload == node.overload)
    }
}

//! Reads models: messages of ONNX to a [`Model`] that shares its weights with the file.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use edgesmith_ir::graph::Metadata;
use edgesmith_ir::{Error, Function, Graph, Model, Result};
use prost::Message;

use super::attributes::AttributeReader;
use super::budget;
use super::external::ExternalFiles;
use super::graphs::GraphReader;
use super::proto::{
    FunctionProto, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto,
};
use super::scope::Scope;
use super::tensor::TensorReader;

/// Versions of the file format that are read.
pub const IR_VERSIONS: std::ops::RangeInclusive<i64> = 3..=14;

/// Errors that are shown at once.
const MAX_SHOWN: usize = 20;

/// What goes wrong while a model is read: all of it is collected before the reader gives up.
#[derive(Default)]
pub struct Problems(Vec<Error>);

impl Problems {
    /// Notes an error.
    pub fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    /// The value of a result, or nothing and a note.
    pub fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|e| self.push(e)).ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Gives the errors since there were `before` an outer place.
    pub fn at_since(&mut self, before: usize, place: &str) {
        for error in &mut self.0[before..] {
            error.place.insert(0, place.to_owned());
        }
    }

    /// One error that says them all, one on each line.
    fn into_result(self) -> Result<()> {
        let count = self.0.len();
        let mut errors = self.0.into_iter();
        let Some(first) = errors.next() else {
            return Ok(());
        };
        if count == 1 {
            return Err(first);
        }
        let mut message = format!("{count} errors");
        let kind = first.kind;
        for error in std::iter::once(first).chain(errors).take(MAX_SHOWN) {
            message.push_str("\n  ");
            message.push_str(&error.to_string().replace('\n', "\n  "));
        }
        if count > MAX_SHOWN {
            message.push_str(&format!("\n  and {} more", count - MAX_SHOWN));
        }
        Err(Error::new(kind, message))
    }
}

/// The model in `bytes`, which it shares. External data is looked for in `folder`.
///
/// # Errors
/// When the bytes are no ONNX model, or one that is broken; all that is broken is told at once.
pub fn decode(bytes: Bytes, folder: Option<&Path>) -> Result<Model> {
    decode_with(bytes, ExternalFiles::new(folder))
}

/// As [`decode`], with external data from `files`.
pub(crate) fn decode_with(bytes: Bytes, files: ExternalFiles) -> Result<Model> {
    let length = bytes.len();
    if length > i32::MAX as usize {
        return Err(
            Error::invalid("the file has more than 2 GB, where ONNX files end")
                .hint("larger models keep their weights in a file beside them"),
        );
    }
    budget::check(&bytes, budget::Content::Model)?;
    let proto = ModelProto::decode(bytes).map_err(|e| damaged(&e))?;
    let graph = proto.graph.as_ref().ok_or_else(|| {
        Error::invalid("the file holds no graph").hint("it is empty, cut off, or no ONNX model")
    })?;
    let ir_version = proto.ir_version.unwrap_or(0);
    if !IR_VERSIONS.contains(&ir_version) {
        return Err(Error::unsupported(format!(
            "the file has the IR version {ir_version}, only {} to {} are read",
            IR_VERSIONS.start(),
            IR_VERSIONS.end()
        )));
    }
    let mut reader = ModelReader {
        tensors: TensorReader::new(files),
        problems: Problems::default(),
        ir_version,
    };
    let model = reader.model(&proto, graph);
    reader.problems.into_result()?;
    Ok(model)
}

fn damaged(error: &prost::DecodeError) -> Error {
    Error::invalid(format!("the file is no ONNX model or is damaged: {error}"))
        .hint("it may be cut off: compare its size with that of the original")
}

/// Pairs of names and texts, as ONNX has them everywhere.
pub fn metadata(entries: &[StringStringEntryProto]) -> Metadata {
    entries
        .iter()
        .map(|e| {
            (
                e.key.clone().unwrap_or_default(),
                e.value.clone().unwrap_or_default(),
            )
        })
        .collect()
}

/// The default domain has two names in files and one here.
pub fn domain(name: Option<&str>) -> String {
    match name.unwrap_or_default() {
        "ai.onnx" => String::new(),
        other => other.to_owned(),
    }
}

/// Encodes what has no place in our structs; nothing where nothing is left over.
pub fn leftover<M: Message + Default + PartialEq>(message: &M) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

struct ModelReader {
    tensors: TensorReader,
    problems: Problems,
    ir_version: i64,
}

impl ModelReader {
    fn model(&mut self, proto: &ModelProto, graph: &GraphProto) -> Model {
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        Model {
            graph: self.graph(graph),
            opsets: self.opsets(&proto.opset_import),
            functions: proto.functions.iter().map(|f| self.function(f)).collect(),
            ir_version: self.ir_version,
            producer_name: text(&proto.producer_name),
            producer_version: text(&proto.producer_version),
            domain: text(&proto.domain),
            model_version: proto.model_version.unwrap_or(0),
            doc: text(&proto.doc_string),
            metadata: metadata(&proto.metadata_props),
            extra: leftover(&ModelProto {
                training_info: proto.training_info.clone(),
                configuration: proto.configuration.clone(),
                ..ModelProto::default()
            }),
        }
    }

    fn opsets(&mut self, imports: &[OperatorSetIdProto]) -> BTreeMap<String, i64> {
        let mut opsets = BTreeMap::new();
        for import in imports {
            let (domain, version) = (
                domain(import.domain.as_deref()),
                import.version.unwrap_or(0),
            );
            let old = opsets.insert(domain.clone(), version);
            if let Some(old) = old.filter(|&old| old != version) {
                self.problems.push(Error::invalid(format!(
                    "the opset of the domain \"{domain}\" is both {old} and {version}"
                )));
            }
        }
        opsets
    }

    fn graph(&mut self, proto: &GraphProto) -> Graph {
        let mut scope = Scope::default();
        self.graphs(&mut scope).read(proto)
    }

    fn graphs<'a>(&'a mut self, scope: &'a mut Scope) -> GraphReader<'a> {
        GraphReader {
            tensors: &self.tensors,
            problems: &mut self.problems,
            scope,
            ir_version: self.ir_version,
        }
    }

    fn function(&mut self, proto: &FunctionProto) -> Function {
        let body = GraphProto {
            node: proto.node.clone(),
            name: proto.name.clone(),
            doc_string: proto.doc_string.clone(),
            value_info: proto.value_info.clone(),
            metadata_props: proto.metadata_props.clone(),
            ..GraphProto::default()
        };
        let mut scope = Scope::default();
        let mut reader = self.graphs(&mut scope);
        let graph = reader.read_body(&body, &proto.input, &proto.output);
        let defaults = AttributeReader {
            graphs: &mut reader,
        }
        .read_all(&proto.attribute_proto);
        Function {
            domain: domain(proto.domain.as_deref()),
            name: proto.name.clone().unwrap_or_default(),
            overload: proto.overload.clone().unwrap_or_default(),
            attributes: proto.attribute.clone(),
            defaults,
            opsets: self.opsets(&proto.opset_import),
            graph,
            extra: Bytes::new(),
        }
    }
}

//! From model to text.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::literal::{self, hex};
use super::{NODE_KEYS, RESERVED, is_word};
use crate::error::At;
use crate::graph::{Attribute, Function, Graph, Metadata, Model, Node, ValueId};
use crate::infer::MAX_DEPTH;
use crate::types::{Dim, TensorType, Type};
use crate::{Error, Result};

/// The text form of a model; [`super::parse`] reads it back.
///
/// # Errors
/// When the model has attributes or types that are kept without being understood, two values of
/// one graph share a name, or graphs nest too deep.
pub fn print(model: &Model) -> Result<String> {
    let mut p = Printer::default();
    p.opsets(&model.opsets);
    p.line(&format!("ir_version {}", model.ir_version));
    if !(model.producer_name.is_empty() && model.producer_version.is_empty()) {
        let (name, version) = (quote(&model.producer_name), quote(&model.producer_version));
        p.line(&format!("producer {name} {version}"));
    }
    if !model.domain.is_empty() {
        p.line(&format!("domain {}", quote(&model.domain)));
    }
    if model.model_version != 0 {
        p.line(&format!("model_version {}", model.model_version));
    }
    p.about(&model.doc, &model.metadata, &model.extra);
    for f in &model.functions {
        p.function(f).at(|| format!("function \"{}\"", f.name))?;
    }
    p.start();
    p.graph(&model.graph, None)?;
    p.out.push('\n');
    Ok(p.out)
}

/// A string in quotes.
pub(super) fn quote(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn name(s: &str, reserved: &[&str]) -> String {
    if is_word(s) && !reserved.contains(&s) {
        s.to_owned()
    } else {
        quote(s)
    }
}

fn bytes(b: &[u8]) -> String {
    let mut out = String::from("hex\"");
    hex(b, &mut out);
    out.push('"');
    out
}

fn tensor_type(t: &TensorType) -> String {
    let Some(shape) = &t.shape else {
        return t.to_string();
    };
    let dims: Vec<String> = shape
        .iter()
        .map(|d| match d {
            Dim::Symbol(s) => name(s, &[]),
            d => d.to_string(),
        })
        .collect();
    format!("{}[{}]", t.dtype, dims.join(","))
}

fn ty(t: &Type) -> Result<String> {
    Ok(match t {
        Type::Tensor(t) => tensor_type(t),
        Type::Sequence(t) => format!("seq<{}>", ty(t)?),
        Type::Optional(t) => format!("optional<{}>", ty(t)?),
        Type::Map(key, t) => format!("map<{key},{}>", ty(t)?),
        Type::Opaque(_) => return Err(Error::unsupported("an opaque type has no text form")),
    })
}

fn float(x: f32) -> String {
    if x.is_nan() && x.to_bits() != f32::NAN.to_bits() {
        return format!("bits {}", x.to_bits());
    }
    format!("{x:?}").to_ascii_lowercase()
}

fn text(b: &[u8]) -> String {
    std::str::from_utf8(b).map_or_else(|_| bytes(b), quote)
}

fn list<T>(kind: &str, items: &[T], item: impl FnMut(&T) -> String) -> String {
    let prefix = if items.is_empty() { kind } else { "" };
    let items: Vec<String> = items.iter().map(item).collect();
    format!("{prefix}[{}]", items.join(","))
}

#[derive(Default)]
struct Printer {
    out: String,
    depth: usize,
}

impl Printer {
    fn start(&mut self) {
        for _ in 0..self.depth {
            self.out.push_str("  ");
        }
    }

    fn line(&mut self, s: &str) {
        self.start();
        self.out.push_str(s);
        self.out.push('\n');
    }

    fn opsets(&mut self, opsets: &std::collections::BTreeMap<String, i64>) {
        for (domain, version) in opsets {
            if domain.is_empty() {
                self.line(&format!("opset {version}"));
            } else {
                self.line(&format!("opset {} {version}", quote(domain)));
            }
        }
    }

    fn about(&mut self, doc: &str, metadata: &Metadata, extra: &[u8]) {
        if !doc.is_empty() {
            self.line(&format!("doc {}", quote(doc)));
        }
        for (k, v) in metadata {
            self.line(&format!("metadata {} {}", quote(k), quote(v)));
        }
        if !extra.is_empty() {
            self.line(&format!("extra {}", bytes(extra)));
        }
    }

    fn function(&mut self, f: &Function) -> Result<()> {
        let names = [&f.domain, &f.name, &f.overload].map(|s| quote(s));
        self.line(&format!("function {}", names.join(" ")));
        self.opsets(&f.opsets);
        for a in &f.attributes {
            self.line(&format!("attribute {}", quote(a)));
        }
        for (n, a) in &f.defaults {
            self.start();
            let _ = write!(self.out, "attribute {} = ", quote(n));
            self.attribute(a, None)?;
            self.out.push('\n');
        }
        if !f.extra.is_empty() {
            self.line(&format!("extra {}", bytes(&f.extra)));
        }
        self.start();
        self.graph(&f.graph, None)?;
        self.out.push('\n');
        Ok(())
    }

    fn value(&self, graph: &Graph, v: ValueId, typed: bool) -> Result<String> {
        let value = graph.value(v);
        let name = name(&value.name, RESERVED);
        match &value.ty {
            Some(t) if typed => {
                let t = ty(t).at(|| format!("value \"{}\"", value.name))?;
                Ok(format!("{name}: {t}"))
            }
            _ => Ok(name),
        }
    }

    fn graph(&mut self, graph: &Graph, around: Option<&Graph>) -> Result<()> {
        if self.depth > MAX_DEPTH {
            return Err(Error::invalid(format!(
                "graphs nest deeper than {MAX_DEPTH}"
            )));
        }
        check_names(graph)?;
        let mut inputs = Vec::new();
        for &v in &graph.inputs {
            let mut input = self.value(graph, v, true)?;
            if let Some(t) = &graph.value(v).constant {
                let _ = write!(input, " = {}{}", tensor_type(&t.ty()), literal::print(t));
            }
            inputs.push(input);
        }
        let outputs = graph.outputs.iter().map(|&v| self.value(graph, v, true));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let _ = writeln!(
            self.out,
            "graph {}({}) -> ({}) {{",
            name(&graph.name, RESERVED),
            inputs.join(", "),
            outputs.join(", ")
        );
        self.depth += 1;
        self.about(&graph.doc, &graph.metadata, &graph.extra);
        for c in &graph.captures {
            let around = around.ok_or_else(|| {
                Error::invalid("the graph reads from a graph around it that is not there")
            })?;
            let inner = self.value(graph, c.inner, true)?;
            let outer = self.value(around, c.outer, false)?;
            self.line(&format!("capture {inner} = {outer}"));
        }
        for (v, value) in graph.values() {
            if let Some(t) = value.constant.as_ref().filter(|_| !graph.is_input(v)) {
                let name = name(&value.name, RESERVED);
                let ty = tensor_type(&t.ty());
                self.line(&format!("{name}: {ty} = {}", literal::print(t)));
            }
        }
        for (_, node) in graph.nodes() {
            self.node(graph, node).at(|| node.place())?;
        }
        self.depth -= 1;
        self.start();
        self.out.push('}');
        Ok(())
    }

    fn node(&mut self, graph: &Graph, node: &Node) -> Result<()> {
        self.start();
        for (i, v) in node.outputs().iter().enumerate() {
            let out = match v {
                Some(v) => self.value(graph, *v, !graph.is_output(*v))?,
                None => "_".to_owned(),
            };
            let _ = write!(self.out, "{}{out}", if i == 0 { "" } else { ", " });
        }
        self.out.push_str(" = ");
        let path = if node.domain.is_empty() {
            node.op.clone()
        } else {
            format!("{}.{}", node.domain, node.op)
        };
        if is_word(&path) && is_word(&node.op) && !node.op.contains('.') {
            self.out.push_str(&path);
        } else {
            let _ = write!(self.out, "{}.{}", quote(&node.domain), quote(&node.op));
        }
        let inputs = node.inputs().iter().map(|v| match v {
            Some(v) => self.value(graph, *v, false),
            None => Ok("_".to_owned()),
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?.join(", ");
        let _ = write!(self.out, "({inputs})");
        self.braces(graph, node)?;
        self.out.push('\n');
        Ok(())
    }

    fn braces(&mut self, graph: &Graph, node: &Node) -> Result<()> {
        let mut between = " {";
        for (key, value) in [
            ("name", &node.name),
            ("overload", &node.overload),
            ("doc", &node.doc),
        ] {
            if !value.is_empty() {
                let _ = write!(self.out, "{between}{key}={}", quote(value));
                between = ", ";
            }
        }
        if !node.metadata.is_empty() {
            let entry = |(k, v): &(String, String)| format!("{}={}", quote(k), quote(v));
            let entries = list("", &node.metadata, entry);
            let _ = write!(self.out, "{between}metadata={entries}");
            between = ", ";
        }
        if !node.extra.is_empty() {
            let _ = write!(self.out, "{between}extra={}", bytes(&node.extra));
            between = ", ";
        }
        for (key, a) in &node.attributes {
            let _ = write!(self.out, "{between}{}=", name(key, NODE_KEYS));
            self.attribute(a, Some(graph))
                .at(|| format!("attribute \"{key}\""))?;
            between = ", ";
        }
        if between == ", " {
            self.out.push('}');
        }
        Ok(())
    }

    fn attribute(&mut self, a: &Attribute, around: Option<&Graph>) -> Result<()> {
        let tensor = |t: &crate::Tensor| format!("{}{}", tensor_type(&t.ty()), literal::print(t));
        let text = match a {
            Attribute::Int(i) => i.to_string(),
            Attribute::Float(x) => float(*x),
            Attribute::String(s) => text(s),
            Attribute::Tensor(t) => tensor(t),
            Attribute::Ints(v) => list("ints", v, i64::to_string),
            Attribute::Floats(v) => list("floats", v, |x| float(*x)),
            Attribute::Strings(v) => list("strings", v, |s| text(s)),
            Attribute::Tensors(v) => list("tensors", v, tensor),
            Attribute::Type(t) => format!("type {}", ty(t)?),
            Attribute::Reference(name, code) => format!("ref {} {code}", quote(name)),
            Attribute::Graph(g) => return self.graph(g, around),
            Attribute::Graphs(v) if v.is_empty() => "graphs[]".into(),
            Attribute::Graphs(v) => {
                for (i, g) in v.iter().enumerate() {
                    self.out.push_str(if i == 0 { "[" } else { ", " });
                    self.graph(g, around)?;
                }
                "]".into()
            }
            Attribute::Opaque(_) => {
                return Err(Error::unsupported("an opaque attribute has no text form"));
            }
        };
        self.out.push_str(&text);
        Ok(())
    }
}

/// Values that the text mentions must differ in name.
fn check_names(graph: &Graph) -> Result<()> {
    let mut used: BTreeSet<ValueId> = graph.inputs.iter().chain(&graph.outputs).copied().collect();
    used.extend(graph.captures.iter().map(|c| c.inner));
    used.extend(graph.captured());
    for (_, n) in graph.nodes() {
        used.extend(n.inputs().iter().chain(n.outputs()).flatten());
    }
    used.extend(
        graph
            .values()
            .filter(|(_, v)| v.constant.is_some())
            .map(|(v, _)| v),
    );
    let mut names = BTreeSet::new();
    for v in used {
        let name = &graph.value(v).name;
        if !names.insert(name) {
            return Err(Error::invalid(format!("two values are called \"{name}\"")));
        }
    }
    Ok(())
}

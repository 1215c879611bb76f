//! From text to model.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::lex::{Cursor, Number};
use super::literal;
use crate::graph::{Attribute, Capture, Function, Graph, Metadata, Model, Node, ValueId};
use crate::infer::MAX_DEPTH;
use crate::types::{Dim, Shape, TensorType, Type};
use crate::{DType, Result, Tensor};

/// Reads the text form of a model.
///
/// # Errors
/// Says line and column of what is not understood.
pub fn parse(text: &str) -> Result<Model> {
    let mut p = Parser::new(text);
    let mut model = Model {
        ir_version: 10,
        ..Model::default()
    };
    while !p.c.sees("graph") {
        p.header(&mut model)?;
    }
    model.graph = p.graph()?;
    if p.c.is_at_end() {
        return Ok(model);
    }
    Err(p.c.expected("the end"))
}

/// A graph under construction.
struct Scope {
    graph: Graph,
    names: BTreeMap<String, ValueId>,
}

impl Scope {
    fn value(&mut self, name: String) -> ValueId {
        if let Some(&v) = self.names.get(&name) {
            return v;
        }
        let v = self.graph.add_value(&name, None);
        self.names.insert(name, v);
        v
    }
}

pub(super) struct Parser<'a> {
    pub(super) c: Cursor<'a>,
    scopes: Vec<Scope>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            c: Cursor::new(text),
            scopes: Vec::new(),
        }
    }

    fn header(&mut self, model: &mut Model) -> Result<()> {
        if self.opset(&mut model.opsets)? {
            return Ok(());
        }
        match self.c.word("`opset`, `function` or `graph`")? {
            "ir_version" => model.ir_version = self.c.int("a version")?,
            "producer" => {
                model.producer_name = self.c.string()?;
                model.producer_version = self.c.string()?;
            }
            "domain" => model.domain = self.c.string()?,
            "model_version" => model.model_version = self.c.int("a version")?,
            "doc" => model.doc = self.c.string()?,
            "metadata" => model.metadata.push((self.c.string()?, self.c.string()?)),
            "extra" => model.extra = self.bytes()?,
            "function" => {
                let function = self.function()?;
                model.functions.push(function);
            }
            other => return Err(self.c.error(format!("a model has no `{other}`"))),
        }
        Ok(())
    }

    fn opset(&mut self, opsets: &mut BTreeMap<String, i64>) -> Result<bool> {
        if !self.c.eat("opset") {
            return Ok(false);
        }
        let domain = if self.c.sees("\"") {
            self.c.string()?
        } else {
            String::new()
        };
        opsets.insert(domain, self.c.int("a version")?);
        Ok(true)
    }

    fn bytes(&mut self) -> Result<Bytes> {
        self.c.expect("hex")?;
        self.c.hex().map(Bytes::from)
    }

    fn function(&mut self) -> Result<Function> {
        let mut f = Function {
            domain: self.c.string()?,
            name: self.c.string()?,
            overload: self.c.string()?,
            ..Function::default()
        };
        loop {
            if self.c.eat("attribute") {
                let name = self.c.name("an attribute")?;
                if self.c.eat("=") {
                    f.defaults.push((name, self.attribute()?));
                } else {
                    f.attributes.push(name);
                }
            } else if self.c.eat("extra") {
                f.extra = self.bytes()?;
            } else if !self.opset(&mut f.opsets)? {
                break;
            }
        }
        f.graph = self.graph()?;
        Ok(f)
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes
            .last_mut()
            .expect("statements are read inside a graph")
    }

    fn graph(&mut self) -> Result<Graph> {
        if self.scopes.len() > MAX_DEPTH {
            return Err(self.c.error(format!("graphs nest deeper than {MAX_DEPTH}")));
        }
        self.c.expect("graph")?;
        let name = self.c.name("the graph's name")?;
        self.scopes.push(Scope {
            graph: Graph::new(&name),
            names: BTreeMap::new(),
        });
        self.c.expect("(")?;
        while !self.c.eat(")") {
            let v = self.declared()?;
            if self.c.eat("=") {
                let t = self.tensor()?;
                self.scope().graph.value_mut(v).constant = Some(t);
            }
            self.scope().graph.inputs.push(v);
            self.separator(")")?;
        }
        self.c.expect("->")?;
        self.c.expect("(")?;
        while !self.c.eat(")") {
            let v = self.declared()?;
            self.scope().graph.outputs.push(v);
            self.separator(")")?;
        }
        self.c.expect("{")?;
        while !self.c.eat("}") {
            self.statement()?;
            // Statements stand on their own lines, or `;` between them.
            while self.c.eat(";") {}
        }
        let scope = self.scopes.pop();
        Ok(scope.expect("the scope was pushed above").graph)
    }

    /// A comma, or the closing bracket that stays there.
    fn separator(&mut self, close: &str) -> Result<()> {
        if self.c.eat(",") || self.c.sees(close) {
            return Ok(());
        }
        Err(self.c.expected(&format!("`,` or `{close}`")))
    }

    /// A value with its type, where one is given.
    fn declared(&mut self) -> Result<ValueId> {
        let name = self.c.name("a value")?;
        let v = self.scope().value(name);
        if self.c.eat(":") {
            let ty = self.ty(0)?;
            self.scope().graph.value_mut(v).ty = Some(ty);
        }
        Ok(v)
    }

    fn statement(&mut self) -> Result<()> {
        match self.c.peek_word() {
            Some("capture") => return self.capture(),
            Some("doc") => {
                self.c.expect("doc")?;
                self.scope().graph.doc = self.c.string()?;
                return Ok(());
            }
            Some("metadata") => {
                self.c.expect("metadata")?;
                let entry = (self.c.string()?, self.c.string()?);
                self.scope().graph.metadata.push(entry);
                return Ok(());
            }
            Some("extra") => {
                self.c.expect("extra")?;
                self.scope().graph.extra = self.bytes()?;
                return Ok(());
            }
            _ => {}
        }
        let mut outputs = Vec::new();
        while !self.c.eat("=") {
            outputs.push(if self.c.eat("_") {
                None
            } else {
                Some(self.declared()?)
            });
            self.separator("=")?;
        }
        if self.c.sees("{") {
            return self.constant(&outputs);
        }
        self.node(&outputs)
    }

    fn capture(&mut self) -> Result<()> {
        self.c.expect("capture")?;
        let inner = self.declared()?;
        self.c.expect("=")?;
        let name = self.c.name("a value of the graph around this one")?;
        let Some(around) = self.scopes.len().checked_sub(2) else {
            return Err(self.c.error("there is no graph around this one"));
        };
        let outer = self.scopes[around].value(name);
        self.scope().graph.captures.push(Capture { outer, inner });
        Ok(())
    }

    fn constant(&mut self, outputs: &[Option<ValueId>]) -> Result<()> {
        let [Some(v)] = *outputs else {
            return Err(self.c.error("a constant has one name"));
        };
        let value = self.scope().graph.value(v);
        let known = value
            .tensor_type()
            .and_then(|t| Some((t.dtype, t.shape.as_ref()?.known()?)));
        let Some((dtype, dims)) = known else {
            return Err(self.c.error("a constant needs its type with all lengths"));
        };
        let data = literal::parse(&mut self.c, dtype, &dims)?;
        let value = self.scope().graph.value_mut(v);
        if value.constant.replace(data).is_some() || value.producer().is_some() {
            let message = format!("value \"{}\" is defined twice", value.name);
            return Err(self.c.error(message));
        }
        Ok(())
    }

    fn node(&mut self, outputs: &[Option<ValueId>]) -> Result<()> {
        let mut node = self.op()?;
        let mut inputs = Vec::new();
        self.c.expect("(")?;
        while !self.c.eat(")") {
            inputs.push(if self.c.eat("_") {
                None
            } else {
                let name = self.c.name("a value")?;
                Some(self.scope().value(name))
            });
            self.separator(")")?;
        }
        self.attributes(&mut node)?;
        let graph = &self.scope().graph;
        for (i, v) in outputs.iter().enumerate() {
            let Some(v) = *v else { continue };
            let value = graph.value(v);
            let twice = outputs[..i].contains(&Some(v));
            if twice || value.producer().is_some() || value.constant.is_some() {
                let message = format!("value \"{}\" is defined twice", value.name);
                return Err(self.c.error(message));
            }
        }
        self.scope().graph.add_node(node, &inputs, outputs);
        Ok(())
    }

    /// `Conv`, `com.microsoft.FusedConv`, or domain and name quoted.
    pub(super) fn op(&mut self) -> Result<Node> {
        if self.c.sees("\"") {
            let domain = self.c.string()?;
            self.c.expect(".")?;
            return Ok(Node::new(&self.c.string()?, "").in_domain(&domain));
        }
        let word = self.c.word("an operator")?;
        Ok(match word.rsplit_once('.') {
            Some((domain, op)) => Node::new(op, "").in_domain(domain),
            None => Node::new(word, ""),
        })
    }

    /// The braces of a node, where there are any.
    pub(super) fn attributes(&mut self, node: &mut Node) -> Result<()> {
        if !self.c.eat("{") {
            return Ok(());
        }
        while !self.c.eat("}") {
            let quoted = self.c.sees("\"");
            let key = self.c.name("an attribute")?;
            self.c.expect("=")?;
            match key.as_str() {
                "name" if !quoted => node.name = self.c.string()?,
                "doc" if !quoted => node.doc = self.c.string()?,
                "overload" if !quoted => node.overload = self.c.string()?,
                "extra" if !quoted => node.extra = self.bytes()?,
                "metadata" if !quoted => node.metadata = self.metadata()?,
                _ if node.attribute(&key).is_some() => {
                    return Err(self.c.error(format!("attribute \"{key}\" is given twice")));
                }
                _ => {
                    let value = self.attribute()?;
                    node.attributes.push((key, value));
                }
            }
            self.separator("}")?;
        }
        Ok(())
    }

    fn metadata(&mut self) -> Result<Metadata> {
        self.list(|p| {
            let key = p.c.string()?;
            p.c.expect("=")?;
            Ok((key, p.c.string()?))
        })
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.c.expect("[")?;
        let mut out = Vec::new();
        while !self.c.eat("]") {
            out.push(item(self)?);
            self.separator("]")?;
        }
        Ok(out)
    }

    fn attribute(&mut self) -> Result<Attribute> {
        if self.c.sees("[") {
            return self.attributes_listed();
        }
        if self.c.sees("\"") {
            return Ok(Attribute::String(self.c.string()?.into()));
        }
        if let Some(number) = self.c.number()? {
            return match number {
                Number::Int(i) => match i64::try_from(i) {
                    Ok(i) => Ok(Attribute::Int(i)),
                    Err(_) => Err(self.c.error(format!("{i} is out of range"))),
                },
                Number::Float(x) => Ok(Attribute::Float(x as f32)),
            };
        }
        match self.c.peek_word() {
            Some("graph") => Ok(Attribute::Graph(Box::new(self.graph()?))),
            Some(empty @ ("ints" | "floats" | "strings" | "tensors" | "graphs")) => {
                self.c.expect(empty)?;
                self.c.expect("[")?;
                self.c.expect("]")?;
                Ok(match empty {
                    "ints" => Attribute::Ints(Vec::new()),
                    "floats" => Attribute::Floats(Vec::new()),
                    "strings" => Attribute::Strings(Vec::new()),
                    "tensors" => Attribute::Tensors(Vec::new()),
                    _ => Attribute::Graphs(Vec::new()),
                })
            }
            Some("hex") => self.bytes().map(Attribute::String),
            Some("bits") => {
                self.c.expect("bits")?;
                let bits = self.c.int("the bits of a float")?;
                Ok(Attribute::Float(f32::from_bits(bits)))
            }
            Some("type") => {
                self.c.expect("type")?;
                Ok(Attribute::Type(self.ty(0)?))
            }
            Some("ref") => {
                self.c.expect("ref")?;
                let name = self.c.string()?;
                Ok(Attribute::Reference(name, self.c.int("a type code")?))
            }
            Some(_) => Ok(Attribute::Tensor(self.tensor()?)),
            None => Err(self.c.expected("a value of an attribute")),
        }
    }

    fn attributes_listed(&mut self) -> Result<Attribute> {
        let items = self.list(|p| {
            if p.c.sees("[") {
                return Err(p.c.expected("a number, string, tensor or graph"));
            }
            p.attribute()
        })?;
        let all = |f: fn(&Attribute) -> bool| items.iter().all(f);
        let list = if items.is_empty() {
            Some(Attribute::Ints(Vec::new()))
        } else if all(|a| matches!(a, Attribute::Int(_))) {
            Some(Attribute::Ints(collect(items, |a| match a {
                Attribute::Int(i) => Some(i),
                _ => None,
            })))
        } else if all(|a| matches!(a, Attribute::Int(_) | Attribute::Float(_))) {
            Some(Attribute::Floats(collect(items, |a| match a {
                Attribute::Float(x) => Some(x),
                Attribute::Int(i) => Some(i as f32),
                _ => None,
            })))
        } else if all(|a| matches!(a, Attribute::String(_))) {
            Some(Attribute::Strings(collect(items, |a| match a {
                Attribute::String(s) => Some(s),
                _ => None,
            })))
        } else if all(|a| matches!(a, Attribute::Tensor(_))) {
            Some(Attribute::Tensors(collect(items, |a| match a {
                Attribute::Tensor(t) => Some(t),
                _ => None,
            })))
        } else if all(|a| matches!(a, Attribute::Graph(_))) {
            Some(Attribute::Graphs(collect(items, |a| match a {
                Attribute::Graph(g) => Some(*g),
                _ => None,
            })))
        } else {
            None
        };
        list.ok_or_else(|| self.c.error("a list holds things of one kind"))
    }

    /// A type and its elements.
    fn tensor(&mut self) -> Result<Tensor> {
        let ty = self.tensor_type()?;
        self.elements(&ty)
    }

    /// The elements of a tensor of that type.
    pub(super) fn elements(&mut self, ty: &TensorType) -> Result<Tensor> {
        let dims = ty.shape.as_ref().and_then(Shape::known);
        let dims = dims.ok_or_else(|| self.c.error("the lengths of a tensor are numbers"))?;
        literal::parse(&mut self.c, ty.dtype, &dims)
    }

    fn ty(&mut self, depth: usize) -> Result<Type> {
        if depth > MAX_DEPTH {
            return Err(self.c.error(format!("types nest deeper than {MAX_DEPTH}")));
        }
        for (word, make) in [
            ("seq", Type::Sequence as fn(Box<Type>) -> Type),
            ("optional", Type::Optional),
        ] {
            if self.c.eat(word) {
                self.c.expect("<")?;
                let inner = self.ty(depth + 1)?;
                self.c.expect(">")?;
                return Ok(make(Box::new(inner)));
            }
        }
        if self.c.eat("map") {
            self.c.expect("<")?;
            let key = self.dtype()?;
            self.c.expect(",")?;
            let value = self.ty(depth + 1)?;
            self.c.expect(">")?;
            return Ok(Type::Map(key, Box::new(value)));
        }
        self.tensor_type().map(Type::Tensor)
    }

    fn dtype(&mut self) -> Result<DType> {
        let Some(dtype) = self.c.peek_word().and_then(DType::from_name) else {
            return Err(self.c.expected("an element type such as `f32`"));
        };
        self.c.expect(dtype.name())?;
        Ok(dtype)
    }

    /// `f32[batch,3]`, `f32[…]` where not even the rank is known; before elements `f32` is `f32[]`.
    pub(super) fn tensor_type(&mut self) -> Result<TensorType> {
        let dtype = self.dtype()?;
        if self.c.sees("{") {
            return Ok(TensorType::fixed(dtype, &[]));
        }
        self.c.expect("[")?;
        if self.c.eat("…") || self.c.eat("...") {
            self.c.expect("]")?;
            return Ok(TensorType { dtype, shape: None });
        }
        let mut dims = Shape::default();
        while !self.c.eat("]") {
            dims.0.push(if self.c.eat("?") {
                Dim::Unknown
            } else if self.c.sees("\"") || self.c.peek_word().is_some() {
                Dim::symbol(&self.c.name("a length")?)
            } else {
                Dim::Known(self.c.int("a length")?)
            });
            self.separator("]")?;
        }
        Ok(TensorType::new(dtype, dims))
    }
}

fn collect<T>(items: Vec<Attribute>, f: impl Fn(Attribute) -> Option<T>) -> Vec<T> {
    items.into_iter().filter_map(f).collect()
}

//! From a graph of fixed shapes to a program.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::error::At;
use edgesmith_ir::infer::{Inferred, infer};
use edgesmith_ir::{DType, Error, Graph, Model, Node, NodeId, Result, Tensor, ValueId};

use crate::emit::EMITTERS;
use crate::expand::expanded;
use crate::program::{Buffer, BufferId, Element, Grid, Layer, Port, Program, Step};

mod floats;
mod quantized;
mod tail;
mod views;

pub(crate) use quantized::Weights;
pub(crate) use tail::{Bounds, Tail};
pub(crate) use views::last;

/// Elements of a value at most: places are counted in 32 bits, in bytes.
const MOST: usize = 1 << 28;

/// How an operator is lowered.
pub(crate) type Lower = fn(&mut Lowering, NodeId) -> Result<()>;

/// A computed value: where it stands and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    /// Where.
    pub buffer: BufferId,
    /// Lengths of the graph's value.
    pub dims: Vec<usize>,
    /// For each axis in memory, outermost first, the axis of the value.
    pub order: Vec<usize>,
}

impl Held {
    /// Lengths as they are in memory.
    pub fn laid(&self) -> Vec<usize> {
        self.order.iter().map(|&a| self.dims[a]).collect()
    }
}

/// A graph that is being lowered.
pub(crate) struct Lowering<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its graph.
    pub graph: &'a Graph,
    types: Inferred,
    /// What it becomes.
    pub program: Program,
    held: BTreeMap<ValueId, Held>,
    /// Nodes that another step took along.
    taken: BTreeSet<NodeId>,
}

/// Lowers a model whose shapes are all known.
///
/// # Errors
/// When a shape is open, an operator has no emitter, or one is used in a way that has none; the node
/// and what to do are named.
pub fn lower(model: &Model) -> Result<Program> {
    let expanded = expanded(model);
    let model = expanded.as_ref().unwrap_or(model);
    let types = infer(model, &[])?;
    let mut lowering = Lowering {
        model,
        graph: &model.graph,
        types,
        program: Program::default(),
        held: BTreeMap::new(),
        taken: BTreeSet::new(),
    };
    lowering.inputs()?;
    for id in model.graph.order()? {
        if lowering.taken.contains(&id) {
            continue;
        }
        let node = model.graph.node(id);
        lowering.node(id).at(|| node.place())?;
    }
    lowering.outputs()?;
    Ok(lowering.program)
}

/// An emitter of an operator, where there is one.
fn emitter(node: &Node) -> Option<Lower> {
    let found = EMITTERS
        .iter()
        .find(|e| node.op == e.op && node.domain == e.domain);
    found.map(|e| e.lower)
}

impl<'a> Lowering<'a> {
    /// Lowers a node.
    fn node(&mut self, id: NodeId) -> Result<()> {
        let node = self.graph.node(id);
        let lower = emitter(node).ok_or_else(|| {
            Error::unsupported(format!("{} has no emitter", node.op))
                .hint("`edgesmith codegen --list` names the operators that have one")
        })?;
        lower(self, id)
    }

    /// Places the inputs: in bytes where all that reads them wants bytes of one grid.
    fn inputs(&mut self) -> Result<()> {
        for &v in &self.graph.inputs {
            if self.graph.constant(v).is_some() {
                continue;
            }
            let name = &self.graph.value(v).name;
            let (dtype, dims) = self.typed(v).at(|| format!("input \"{name}\""))?;
            let element = element(dtype).at(|| format!("input \"{name}\""))?;
            let grid = self.wanted(v).filter(|_| element == Element::F32);
            let mut held = match grid {
                Some(_) => self.buffer(name, Element::I8, &dims, grid),
                None => self.buffer(name, element, &dims, None),
            };
            if dims.len() > 2 && self.is_image(v) {
                held.order = last(dims.len());
            }
            self.port(name, &held, true);
            self.held.insert(v, held);
        }
        Ok(())
    }

    /// Whether all that read a value want it channels-last: it is then given so, and nothing is turned.
    fn is_image(&self, v: ValueId) -> bool {
        const ALONG: &[&str] = &[
            "Cast",
            "DequantizeLinear",
            "Identity",
            "QuantizeLinear",
            "Relu",
        ];
        const IMAGES: &[&str] = &[
            "AveragePool",
            "Conv",
            "ConvTranspose",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "MaxPool",
        ];
        let mut open = vec![v];
        let mut seen = BTreeSet::new();
        while let Some(v) = open.pop() {
            let consumers = self.graph.value(v).consumers();
            if self.graph.is_output(v) || consumers.is_empty() || !seen.insert(v) {
                return false;
            }
            for &(id, i) in consumers {
                let node = self.graph.node(id);
                let along = ALONG.iter().any(|op| node.op == *op);
                if i != 0 || !(along || IMAGES.iter().any(|op| node.op == *op)) {
                    return false;
                }
                open.extend(node.output(0).filter(|_| along));
            }
        }
        true
    }

    /// The one grid that all readers of a value quantise it to, through changes of shape.
    fn wanted(&self, v: ValueId) -> Option<Grid> {
        let mut found: Option<Grid> = None;
        let mut open = vec![v];
        let mut seen = BTreeSet::new();
        while let Some(v) = open.pop() {
            if self.graph.is_output(v) || !seen.insert(v) {
                return None;
            }
            for &(id, i) in self.graph.value(v).consumers() {
                let node = self.graph.node(id);
                if i != 0 || !node.domain.is_empty() {
                    return None;
                }
                match node.op.as_str() {
                    "QuantizeLinear" => {
                        let grid = self.grid_of(id).ok()??;
                        if found.is_some_and(|f| f != grid) {
                            return None;
                        }
                        found = Some(grid);
                    }
                    "Transpose" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity" => {
                        open.push(node.output(0)?);
                    }
                    _ => return None,
                }
            }
        }
        found
    }

    /// Names the outputs; those that share memory with a port get a copy.
    fn outputs(&mut self) -> Result<()> {
        for &v in &self.graph.outputs {
            let name = &self.graph.value(v).name;
            let Some(held) = self.held.get(&v).cloned() else {
                return Err(Error::unsupported(format!(
                    "output \"{name}\" is a constant: there is nothing to compute"
                )));
            };
            let is_input = self.program.inputs.iter().any(|p| p.buffer == held.buffer);
            let is_output = self.program.outputs.iter().any(|p| p.buffer == held.buffer);
            let held = match is_input || is_output {
                true => self.copied(&held, name),
                false => held,
            };
            self.port(name, &held, false);
        }
        Ok(())
    }

    /// Adds an input or output.
    fn port(&mut self, name: &str, held: &Held, input: bool) {
        let mut c_name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let ports = match input {
            true => &mut self.program.inputs,
            false => &mut self.program.outputs,
        };
        while ports.iter().any(|p| p.c_name == c_name) {
            c_name.push('_');
        }
        ports.push(Port {
            name: name.to_owned(),
            c_name,
            buffer: held.buffer,
            dims: held.dims.clone(),
            order: held.order.clone(),
        });
    }

    /// Element type and lengths of a value.
    pub fn typed(&self, v: ValueId) -> Result<(DType, Vec<usize>)> {
        let name = &self.graph.value(v).name;
        let ty = self.types.tensor(v);
        let ty = ty.ok_or_else(|| Error::unsupported(format!("\"{name}\" is of no known type")))?;
        let known = ty.shape.as_ref().and_then(|s| s.known());
        let dims = known.ok_or_else(|| {
            Error::unsupported(format!("\"{name}\" has an open shape"))
                .hint("shapes are fixed when code is made: give --dim NAME=N for open lengths")
        })?;
        if dims.contains(&0) {
            return Err(Error::unsupported(format!("\"{name}\" has no elements")));
        }
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count.is_none_or(|n| n > MOST) {
            return Err(Error::unsupported(format!(
                "\"{name}\" has more elements than code counts, which is {MOST}"
            )));
        }
        Ok((ty.dtype, dims.to_vec()))
    }

    /// A constant, folded already.
    pub fn constant(&self, v: ValueId) -> Option<&'a Tensor> {
        self.graph.constant(v)
    }

    /// A new buffer in row-major order.
    pub fn buffer(
        &mut self,
        name: &str,
        element: Element,
        dims: &[usize],
        grid: Option<Grid>,
    ) -> Held {
        self.program.buffers.push(Buffer {
            name: name.to_owned(),
            element,
            count: dims.iter().product(),
            grid,
        });
        Held {
            buffer: self.program.buffers.len() - 1,
            dims: dims.to_vec(),
            order: (0..dims.len()).collect(),
        }
    }

    /// What a value's buffer holds.
    pub fn of(&self, held: &Held) -> &Buffer {
        &self.program.buffers[held.buffer]
    }

    /// The integers' meaning, where a value is held in integers of 8 bits.
    pub fn grid(&self, held: &Held) -> Option<Grid> {
        let buffer = self.of(held);
        buffer.grid.filter(|_| buffer.element == Element::I8)
    }

    /// A computed value that a node reads, as it is held.
    pub fn read(&self, id: NodeId, i: usize) -> Result<Held> {
        let v = self.graph.node(id).input(i);
        let v = v.ok_or_else(|| Error::invalid(format!("input {i} is missing")))?;
        self.value(v)
    }

    /// The value that a node makes as its output `i`.
    pub fn output(&self, id: NodeId, i: usize) -> Result<ValueId> {
        let v = self.graph.node(id).output(i);
        v.ok_or_else(|| Error::invalid("it has no output"))
    }

    /// A computed value.
    pub fn value(&self, v: ValueId) -> Result<Held> {
        self.held.get(&v).cloned().ok_or_else(|| {
            let name = &self.graph.value(v).name;
            Error::unsupported(format!(
                "\"{name}\" is a constant where code is made for computed values"
            ))
        })
    }

    /// Whether a value is computed.
    pub fn is_held(&self, v: ValueId) -> bool {
        self.held.contains_key(&v)
    }

    /// Says where a value stands.
    pub fn hold(&mut self, v: ValueId, held: Held) {
        self.held.insert(v, held);
    }

    /// Ends a step that made `made`, with what was taken along.
    pub fn finish(&mut self, tail: &Tail, made: Held) {
        self.taken.extend(tail.nodes.iter().copied());
        self.hold(tail.value, made);
    }

    /// Adds the step of a node.
    pub fn step(&mut self, id: NodeId, reads: &[&Held], write: &Held, layer: impl Layer + 'static) {
        self.boxed(id, reads, write, Box::new(layer));
    }

    /// The same, where the layer is one of several.
    pub fn boxed(&mut self, id: NodeId, reads: &[&Held], write: &Held, layer: Box<dyn Layer>) {
        let node = self.graph.node(id);
        let name = if node.name.is_empty() {
            &node.op
        } else {
            &node.name
        };
        let (name, op) = (name.to_string(), node.op.to_string());
        self.add(name, op, reads, write, layer);
    }

    /// Adds a step of no node.
    pub fn add(
        &mut self,
        name: String,
        op: String,
        reads: &[&Held],
        write: &Held,
        layer: Box<dyn Layer>,
    ) {
        self.program.steps.push(Step {
            name,
            op,
            reads: reads.iter().map(|h| h.buffer).collect(),
            write: write.buffer,
            layer,
        });
    }
}

/// The element of a program for a type of tensors.
pub(crate) fn element(dtype: DType) -> Result<Element> {
    match dtype {
        DType::I8 | DType::U8 => Ok(Element::I8),
        DType::I16 => Ok(Element::I16),
        DType::I32 => Ok(Element::I32),
        DType::F32 => Ok(Element::F32),
        DType::F16 => Ok(Element::F16),
        other => Err(
            Error::unsupported(format!("code has no elements of type {}", other.name()))
                .hint("convert the model to f32 or quantise it to int8 first"),
        ),
    }
}

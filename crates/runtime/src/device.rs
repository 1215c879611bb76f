//! Providers that take whole parts of a graph: what they are asked, and what they answer.

use std::path::PathBuf;

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Model, Node, NodeId, Result, Tensor, ValueId};

/// What a device is opened with.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Threads.
    pub threads: usize,
    /// Products of floats may be rounded to BF16.
    pub bf16: bool,
    /// Where libraries may lie.
    pub libraries: Vec<PathBuf>,
    /// What follows the provider's name: `key=value` each.
    pub settings: Vec<(String, String)>,
}

/// A provider that takes parts of a graph.
pub trait Device: Send + Sync {
    /// Whether it can run a unit, as part of a larger whole or alone.
    ///
    /// # Errors
    /// Why it cannot.
    fn verdict(&self, unit: &Unit) -> std::result::Result<(), String>;

    /// How many times faster than the cpu provider it is thought to be.
    fn speed(&self) -> f64;

    /// What it takes to start a part, in nanoseconds.
    fn launch_ns(&self) -> f64;

    /// Makes a part ready. Its inputs are of known shape.
    ///
    /// # Errors
    /// What the device says; its nodes then go to the next provider.
    fn compile(&self, part: &Model) -> Result<Box<dyn Part>>;
}

/// A part of a graph that a device made ready.
pub trait Part: Send + Sync {
    /// The outputs, in order, for the inputs, in order.
    ///
    /// # Errors
    /// What the device says; the next provider then runs the part, now and in later runs.
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>>;
}

/// Nodes that a device takes together or not at all: an operator with the DequantizeLinear in
/// front of it and the QuantizeLinear behind it.
#[derive(Clone)]
pub struct Unit<'a> {
    pub(crate) model: &'a Model,
    pub(crate) inferred: &'a Inferred,
    pub(crate) main: NodeId,
    /// Its nodes in an order in which they run.
    pub(crate) nodes: Vec<NodeId>,
}

impl<'a> Unit<'a> {
    /// The operator's node.
    pub fn node(&self) -> &'a Node {
        self.model.graph.node(self.main)
    }

    /// The operator.
    pub fn op(&self) -> &'a str {
        &self.node().op
    }

    /// The operator as people write it, with its domain where that is not ONNX's own.
    pub fn full_op(&self) -> String {
        let node = self.node();
        match node.domain.as_str() {
            "" => node.op.to_string(),
            domain => format!("{domain}.{}", node.op),
        }
    }

    /// Element type and lengths of a value, where both are known.
    pub fn typed(&self, v: ValueId) -> Option<(DType, Vec<usize>)> {
        let t = self.inferred.tensor(v)?;
        Some((t.dtype, t.shape.as_ref()?.known()?.to_vec()))
    }

    /// The data of a constant, or the constant behind a DequantizeLinear.
    pub fn constant(&self, v: ValueId) -> Option<&'a Tensor> {
        let graph = &self.model.graph;
        let behind = || {
            graph
                .node(graph.producer_is(v, "DequantizeLinear")?)
                .input(0)
        };
        graph.constant(v).or_else(|| graph.constant(behind()?))
    }

    /// Values that its nodes read and none of them makes, constants left out.
    pub fn inputs(&self) -> Vec<ValueId> {
        let graph = &self.model.graph;
        let mine = |v: ValueId| {
            let producer = graph.value(v).producer();
            producer.is_some_and(|(id, _)| self.nodes.contains(&id))
        };
        let mut all = Vec::new();
        for &id in &self.nodes {
            for &v in graph.node(id).inputs().iter().flatten() {
                if !mine(v) && graph.constant(v).is_none() && !all.contains(&v) {
                    all.push(v);
                }
            }
        }
        all
    }

    /// Values that its last node makes.
    pub fn outputs(&self) -> Vec<ValueId> {
        let last = self.nodes.last().copied().unwrap_or(self.main);
        let node = self.model.graph.node(last);
        node.outputs().iter().flatten().copied().collect()
    }

    /// True where everything computed that goes in or out is of an integer type.
    pub fn is_integer(&self) -> bool {
        let mut values = self.inputs().into_iter().chain(self.outputs());
        values.all(|v| {
            let ty = self.inferred.tensor(v);
            ty.is_some_and(|t| !t.dtype.is_float() && t.dtype != DType::String)
        })
    }
}

//! Nodes that are planned in the run, when the shapes of what they read are known; and graphs
//! inside nodes, which are planned alike.

use std::collections::BTreeSet;

use edgesmith_ir::types::Type;
use edgesmith_ir::{Graph, Item, Model, Node, NodeId, Result, ValueId};

use super::{Arg, Planner, Program, SlotId, Step, StepRow, Work};

/// Operators in which models spend their time.
const HEAVY: &[&str] = &[
    "Attention",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Einsum",
    "GRU",
    "Gemm",
    "LSTM",
    "MatMul",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "RNN",
];

/// What is left of a graph, and what it reads.
pub(crate) struct Rest {
    pub program: Program,
    /// Its inputs, in order.
    pub inputs: Vec<Arg>,
}

/// True where planning a node for the shapes it meets is worth the time.
fn is_heavy(node: &Node) -> bool {
    let known = node.domain.is_empty() && HEAVY.contains(&node.op.as_str());
    known || node.domain == "com.microsoft" || node.subgraphs().any(has_heavy)
}

fn has_heavy(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| is_heavy(node))
}

fn captured(node: &Node) -> impl Iterator<Item = ValueId> {
    let graphs = node.subgraphs();
    graphs.flat_map(|g| g.captures.iter().map(|c| c.outer))
}

impl Planner<'_> {
    /// The nodes that read what has no known shape yet, where planning them later is worth it.
    pub fn late(&self, order: &[NodeId]) -> BTreeSet<NodeId> {
        let graph = self.graph();
        let mut late = BTreeSet::new();
        if self.maker.inner().is_none() {
            return late;
        }
        for &id in order {
            let node = graph.node(id);
            let waits = |v: ValueId| {
                let producer = graph.value(v).producer();
                producer.is_some_and(|(from, _)| late.contains(&from) || self.is_unknown(v))
            };
            let given = node.inputs().iter().flatten().copied();
            if given.chain(captured(node)).any(waits) {
                late.insert(id);
            }
        }
        if !late.iter().any(|&id| is_heavy(graph.node(id))) {
            late.clear();
        }
        late
    }

    /// True for a tensor whose lengths inference does not know.
    fn is_unknown(&self, v: ValueId) -> bool {
        match &self.inferred.types[v.index()] {
            Some(Type::Tensor(t)) => t.shape.as_ref().is_none_or(|s| s.known().is_none()),
            Some(_) => false,
            None => true,
        }
    }

    /// Adds the step that plans and runs `late` nodes.
    pub fn add_rest(&mut self, late: &[NodeId]) -> Result<()> {
        let Some(maker) = self.maker.inner() else {
            return Ok(());
        };
        let late = self.with_postponed(late);
        let mut model = self.model.clone();
        let graph = &mut model.graph;
        let ids: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
        ids.into_iter()
            .filter(|id| !late.contains(id))
            .for_each(|id| graph.remove_node(id));
        let mut read = BTreeSet::new();
        for (_, node) in graph.nodes() {
            read.extend(node.inputs().iter().flatten().copied());
            read.extend(captured(node));
        }
        let mut made = BTreeSet::new();
        graph.outputs.retain(|&v| {
            let late = graph_makes(&self.model.graph, &late, v);
            late && made.insert(v)
        });
        let outside = |v: &ValueId| !graph_makes(&self.model.graph, &late, *v);
        let (mut inputs, mut args) = (Vec::new(), Vec::new());
        for v in read.into_iter().filter(outside) {
            match self.argument(v)? {
                Arg::Constant(t) => graph.value_mut(v).constant = Some(t),
                arg => {
                    inputs.push(v);
                    args.push(arg);
                }
            }
        }
        graph.inputs = inputs;
        for &v in &graph.outputs {
            self.places[v.index()].heap = true;
        }
        for &id in &late {
            self.done[id.index()] = true;
            let note = "placed in the run, when the shapes of what it reads are known";
            self.placements[id.index()].note = Some(note.into());
        }
        let reads = args.iter().filter_map(Arg::slot).collect();
        let program = Program::new(model, maker, self.shelf.clone());
        let row = StepRow {
            name: "what depends on shapes of the run".into(),
            op: "plan".into(),
            provider: "cpu",
            ..StepRow::default()
        };
        let rest = Rest {
            program,
            inputs: args,
        };
        self.push(Step {
            work: Work::Rest(Box::new(rest)),
            reads,
            writes: Vec::new(),
            row,
            makes: Vec::new(),
            lines: None,
        });
        Ok(())
    }

    /// The nodes, and every DequantizeLinear that was left to them.
    fn with_postponed(&self, late: &[NodeId]) -> BTreeSet<NodeId> {
        let graph = self.graph();
        let mut all: BTreeSet<NodeId> = late.iter().copied().collect();
        for &id in late {
            let node = graph.node(id);
            for v in node.inputs().iter().flatten() {
                if let Some((from, _)) = graph.value(*v).producer()
                    && graph.node(from).is("DequantizeLinear")
                    && self.done[from.index()]
                    && !self.is_ready(*v)
                {
                    all.insert(from);
                }
            }
        }
        all
    }

    /// The graphs inside node `id` that are planned for the shapes they meet, by attribute.
    pub fn bodies(&mut self, id: NodeId) -> Result<Vec<(String, Program, Vec<Arg>)>> {
        let node = self.graph().node(id);
        let Some(maker) = self.maker.inner() else {
            return Ok(Vec::new());
        };
        let mut bodies = Vec::new();
        for (name, attribute) in &node.attributes {
            let edgesmith_ir::Attribute::Graph(body) = attribute else {
                continue;
            };
            if !self.keeps_shapes(node) && !has_heavy(body) {
                continue;
            }
            let mut graph = (**body).clone();
            let mut args = Vec::new();
            for capture in std::mem::take(&mut graph.captures) {
                match self.argument(capture.outer)? {
                    Arg::Constant(t) => graph.value_mut(capture.inner).constant = Some(t),
                    arg => {
                        graph.inputs.push(capture.inner);
                        args.push(arg);
                    }
                }
            }
            let model = Model {
                graph,
                opsets: self.model.opsets.clone(),
                functions: self.model.functions.clone(),
                ir_version: self.model.ir_version,
                ..Model::default()
            };
            let shelf = self.shelf.inner(id, name);
            bodies.push((
                name.to_string(),
                Program::new(model, maker.clone(), shelf),
                args,
            ));
        }
        Ok(bodies)
    }

    /// True where the graphs inside a node meet few shapes: what a loop carries keeps its shape.
    fn keeps_shapes(&self, node: &Node) -> bool {
        match node.op.as_str() {
            "If" => true,
            "Loop" => {
                let carried = node.inputs().len().saturating_sub(2);
                let outputs = node.outputs().iter().take(carried).flatten();
                outputs.into_iter().all(|&v| !self.is_unknown(v))
            }
            "Scan" => true,
            _ => false,
        }
    }
}

/// True where one of `nodes` makes `v`.
fn graph_makes(graph: &Graph, nodes: &BTreeSet<NodeId>, v: ValueId) -> bool {
    let producer = graph.value(v).producer();
    producer.is_some_and(|(id, _)| nodes.contains(&id))
}

impl Arg {
    /// The slot that is read.
    pub fn slot(&self) -> Option<SlotId> {
        match self {
            Self::Slot { slot, .. } => Some(*slot),
            _ => None,
        }
    }
}

/// The inputs of a body: what the node gives it, then what it reads of the values around it.
pub(crate) fn fed(inputs: &[Option<Item>], captures: &[Item]) -> Option<Vec<Item>> {
    let given = inputs.iter().cloned();
    given.chain(captures.iter().cloned().map(Some)).collect()
}

//! Steps that evaluate a node on tensors, for what no kernel does.

use edgesmith_ir::{DType, Error, NodeId, Result, Tensor, ValueId};

use super::{Layout, Planner, Program, SlotId, Step, StepRow, Work};

/// Where an operand of an evaluation is found.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    /// In the arena.
    Slot {
        slot: SlotId,
        dtype: DType,
        dims: Vec<usize>,
    },
    /// A constant.
    Constant(Tensor),
    /// On the heap, by value.
    Heap(ValueId),
}

/// The evaluation of one node.
pub(crate) struct Evaluate {
    pub node: NodeId,
    pub inputs: Vec<Option<Arg>>,
    /// What subgraphs of the node read that are evaluated.
    pub captures: Vec<(ValueId, Arg)>,
    /// Subgraphs that are planned, by attribute.
    pub bodies: Vec<(String, Program)>,
    /// What each of those reads of the values around it.
    pub read: Vec<Vec<Arg>>,
    /// The slot of each output, in the order of the step's writes; `None`: on the heap.
    pub outputs: Vec<Option<(ValueId, Option<usize>)>>,
}

impl Planner<'_> {
    /// Where to find `v` row-major.
    pub fn argument(&mut self, v: ValueId) -> Result<Arg> {
        if let Some(slot) = self.read(v, Layout::Plain)
            && let Some((dtype, dims)) = self.typed(v)
        {
            return Ok(Arg::Slot { slot, dtype, dims });
        }
        if let Some(t) = self.constant(v) {
            return Ok(Arg::Constant(t.clone()));
        }
        if let Some(t) = self.dequantized(v) {
            return Ok(Arg::Constant(t));
        }
        if self.places[v.index()].heap {
            return Ok(Arg::Heap(v));
        }
        let name = &self.graph().value(v).name;
        Err(Error::invalid(format!(
            "value \"{name}\" is read before it is made"
        )))
    }

    /// Adds the evaluation of node `id`.
    pub fn evaluate(&mut self, id: NodeId) -> Result<()> {
        let node = self.graph().node(id);
        let mut inputs = Vec::new();
        for v in node.inputs() {
            inputs.push(match v {
                Some(v) => Some(self.argument(*v)?),
                None => None,
            });
        }
        let (mut bodies, mut read) = (Vec::new(), Vec::new());
        for (name, program, args) in self.bodies(id)? {
            bodies.push((name, program));
            read.push(args);
        }
        let mut captures = Vec::new();
        if bodies.len() < node.subgraphs().count() {
            for capture in node.subgraphs().flat_map(|g| &g.captures) {
                captures.push((capture.outer, self.argument(capture.outer)?));
            }
        }
        let (mut outputs, mut writes, mut makes) = (Vec::new(), Vec::new(), Vec::new());
        for v in node.outputs() {
            outputs.push(v.map(|v| match self.write(v, Layout::Plain) {
                Some(slot) => {
                    makes.push((v, slot, Layout::Plain));
                    writes.push(slot);
                    (v, Some(writes.len() - 1))
                }
                None => {
                    self.places[v.index()].heap = true;
                    (v, None)
                }
            }));
        }
        let args = inputs
            .iter()
            .flatten()
            .chain(captures.iter().map(|(_, a)| a))
            .chain(read.iter().flatten());
        let reads = args.filter_map(Arg::slot).collect();
        let row = StepRow {
            provider: "reference",
            ..self.row(id, "evaluation", false)
        };
        self.place(id, "reference", "evaluation", false);
        let work = Work::Evaluate(Evaluate {
            node: id,
            inputs,
            captures,
            bodies,
            read,
            outputs,
        });
        self.push(Step {
            work,
            reads,
            writes,
            row,
            makes,
            lines: None,
        });
        Ok(())
    }
}

//! The plan of a graph for given input shapes: steps, and where each value lies.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use edgesmith_ir::analysis::liveness::Range;
use edgesmith_ir::analysis::memory::{Interval, MemoryPlan};
use edgesmith_ir::analysis::samples::Samples;
use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Error, Graph, Model, NodeId, Result, Tensor, ValueId, checked_count};
use edgesmith_kernels::Ctx;

use parts::Next;
use place::Place;

pub(crate) mod fold;
mod given;
mod inside;
mod late;
mod layout;
mod limits;
mod lines;
mod maker;
mod packed;
mod partition;
mod parts;
mod pieces;
mod place;
mod program;
mod reference;
mod rows;
mod signs;

pub(crate) use given::Input;
pub(crate) use late::{Rest, fed};
pub(crate) use layout::in_memory;
pub(crate) use lines::{ByLines, OfStrip, rows};
pub(crate) use maker::Maker;
pub(crate) use packed::{Packed, Shelf, Stored};
pub(crate) use parts::OnDevice;
pub use parts::{Failure, PlacedPart};
pub(crate) use place::Form;
pub(crate) use program::{Program, Watch};
pub(crate) use reference::{Arg, Evaluate};
pub use rows::Placement;
pub(crate) use rows::StepRow;

/// How a value of three or more axes lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As ONNX says: row major.
    Plain,
    /// `[batch, spatial…, channels]`.
    Last,
}

/// A part of the arena that one value has to itself while it lives.
pub(crate) type SlotId = usize;

/// The work of a step on the bytes of its slots.
pub(crate) type Kernel = Box<dyn Fn(&Ctx, &[&[u8]], &mut [&mut [u8]]) + Send + Sync>;

/// As [`Kernel`], of data that may be wrong, such as indices.
pub(crate) type Checked = Box<dyn Fn(&Ctx, &[&[u8]], &mut [&mut [u8]]) -> Result<()> + Send + Sync>;

pub(crate) enum Work {
    /// Arithmetic on slots.
    Kernel(Kernel),
    /// Arithmetic on slots that may fail.
    Checked(Checked),
    /// Evaluation of a node on tensors.
    Evaluate(Evaluate),
    /// What is planned in the run.
    Rest(Box<Rest>),
    /// A part of the graph on a device.
    Device(Box<OnDevice>),
}

/// One thing that a run does.
pub(crate) struct Step {
    pub work: Work,
    pub reads: Vec<SlotId>,
    pub writes: Vec<SlotId>,
    /// Row of the profile.
    pub row: StepRow,
    /// Values that are there after this step, for those who watch.
    pub makes: Vec<(ValueId, SlotId, Layout)>,
    /// How it goes by lines of images, where it does.
    pub lines: Option<ByLines>,
}

struct Slot {
    bytes: usize,
    first: usize,
    last: usize,
}

/// How many plans there were.
static PLANS: AtomicU64 = AtomicU64::new(0);

/// A finished plan.
pub(crate) struct Plan {
    /// Tells it from every other plan of this process.
    pub id: u64,
    /// The model with everything folded that these shapes decide.
    pub model: Model,
    pub steps: Vec<Step>,
    /// Offset and length of each slot.
    pub slots: Vec<std::ops::Range<usize>>,
    pub arena_bytes: usize,
    pub lower_bound: usize,
    /// Each graph input that has a slot.
    pub inputs: Vec<Option<Input>>,
    /// Whether each step reads one.
    pub reads_inputs: Vec<bool>,
    /// Where the outputs are found.
    pub outputs: Vec<Arg>,
    /// How its samples are apart from each other, where there are several.
    pub samples: Option<Samples>,
    pub placements: Vec<Placement>,
    /// What devices could not make ready.
    pub failures: Vec<Failure>,
    /// Element type and dimensions of each value, where known.
    pub types: Vec<Option<(DType, Vec<usize>)>>,
}

/// Makes a plan, node by node.
pub(crate) struct Planner<'a> {
    model: &'a Model,
    inferred: &'a Inferred,
    maker: &'a Maker,
    wanted: &'a BTreeSet<ValueId>,
    captured: BTreeSet<ValueId>,
    outputs: BTreeSet<ValueId>,
    macs: BTreeMap<NodeId, u64>,
    shelf: &'a Shelf,
    places: Vec<Place>,
    slots: Vec<Slot>,
    steps: Vec<Step>,
    placements: Vec<Placement>,
    failures: Vec<Failure>,
    done: Vec<bool>,
    /// What nodes keep for their gradients.
    kept: BTreeMap<NodeId, SlotId>,
}

/// What a session gives to each plan.
pub(crate) struct Setting<'a> {
    pub model: &'a Model,
    pub inferred: &'a Inferred,
    pub maker: &'a Maker,
    pub wanted: &'a BTreeSet<ValueId>,
    pub macs: BTreeMap<NodeId, u64>,
    pub shelf: &'a Shelf,
}

impl<'a> Planner<'a> {
    pub fn new(setting: Setting<'a>) -> Self {
        let graph = &setting.model.graph;
        let mut placements = vec![Placement::default(); graph.node_slots()];
        for (id, node) in graph.nodes() {
            placements[id.index()].node = node.name.clone();
            placements[id.index()].op = node.op.clone();
        }
        Self {
            model: setting.model,
            inferred: setting.inferred,
            maker: setting.maker,
            wanted: setting.wanted,
            captured: graph.captured(),
            outputs: graph.outputs.iter().copied().collect(),
            macs: setting.macs,
            shelf: setting.shelf,
            places: vec![Place::default(); graph.value_slots()],
            slots: Vec::new(),
            steps: Vec::new(),
            placements,
            failures: Vec::new(),
            done: vec![false; graph.node_slots()],
            kept: BTreeMap::new(),
        }
    }

    /// Plans every node by the first provider that takes it.
    pub fn finish(mut self, order: &[NodeId]) -> Result<Plan> {
        let inputs = self.place_inputs();
        let late = self.late(order);
        for &id in order.iter().filter(|id| late.contains(id)) {
            crate::providers::reference::check(self.model, id)?;
        }
        let now = order.iter().copied().filter(|id| !late.contains(id));
        for next in self.with_devices(&now.collect::<Vec<_>>()) {
            match next {
                Next::Part(made) => self.add_part(*made)?,
                Next::Node(id) if self.done[id.index()] => {}
                Next::Node(id) => self.add_node(id)?,
            }
        }
        let late: Vec<NodeId> = late
            .into_iter()
            .filter(|id| !self.done[id.index()])
            .collect();
        if !late.is_empty() {
            self.add_rest(&late)?;
        }
        let graph = self.graph();
        let mut outputs = Vec::new();
        for &v in &graph.outputs {
            outputs.push(self.argument(v)?);
        }
        self.join_lines(&outputs);
        Ok(self.pack(inputs, outputs))
    }

    /// Plans a node by the first provider that takes it.
    fn add_node(&mut self, id: NodeId) -> Result<()> {
        for provider in &self.maker.providers {
            if provider.row.plan(self, id)? {
                return self.show_wanted(id);
            }
        }
        let node = self.graph().node(id);
        Err(Error::unsupported("no provider runs this node")
            .at(node.place())
            .hint("add `reference` to the providers"))
    }

    /// Values that somebody watches are made even where nothing else needs them.
    fn show_wanted(&mut self, id: NodeId) -> Result<()> {
        let outputs: Vec<ValueId> = self
            .graph()
            .node(id)
            .outputs()
            .iter()
            .flatten()
            .copied()
            .collect();
        for v in outputs {
            if self.wanted.contains(&v) && self.places[v.index()].lazy.is_some() {
                self.argument(v)?;
            }
        }
        Ok(())
    }

    fn pack(mut self, inputs: Vec<Option<SlotId>>, outputs: Vec<Arg>) -> Plan {
        for step in &mut self.steps {
            let touched = step.reads.iter().chain(&step.writes);
            let bytes: usize = touched.map(|&s| self.slots[s].bytes).sum();
            step.row.bytes += bytes as u64;
        }
        let end = self.steps.len() + 1;
        let mut intervals: Vec<Interval> = self
            .slots
            .iter()
            .map(|s| Interval {
                size: s.bytes,
                range: Range {
                    first: s.first,
                    last: s.last,
                },
                reuse: None,
            })
            .collect();
        for output in &outputs {
            if let Arg::Slot { slot, .. } = output {
                intervals[*slot].range.last = end;
            }
        }
        let memory = MemoryPlan::new(&intervals);
        let slots = memory
            .offsets
            .iter()
            .zip(&intervals)
            .map(|(&o, i)| o..o + i.size)
            .collect();
        let types = self
            .model
            .graph
            .values()
            .map(|(v, _)| self.typed(v))
            .collect();
        let (inputs, reads_inputs) = given::read(&inputs, &self.steps);
        Plan {
            id: PLANS.fetch_add(1, Ordering::Relaxed) + 1,
            model: Model::default(),
            slots,
            types,
            arena_bytes: memory.peak,
            lower_bound: memory.lower_bound,
            inputs,
            reads_inputs,
            outputs,
            samples: None,
            placements: self.placements,
            failures: self.failures,
            steps: self.steps,
        }
    }

    /// The model.
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// The main graph.
    pub fn graph(&self) -> &'a Graph {
        &self.model.graph
    }

    /// What kernels may use.
    pub fn ctx(&self) -> &'a Ctx {
        &self.maker.ctx
    }

    /// True where Q/DQ groups may become integer kernels.
    pub fn integer(&self) -> bool {
        self.maker.integer
    }

    /// Element type and dimensions of a value, where both are known.
    pub fn typed(&self, v: ValueId) -> Option<(DType, Vec<usize>)> {
        let t = self.inferred.tensor(v)?;
        let dims = t.shape.as_ref()?.known()?.to_vec();
        let bytes = t.dtype.bytes_of(checked_count(&dims).ok()?)?;
        let sound = t.dtype.bits() >= 8 && bytes as u64 <= self.maker.limits.bytes;
        sound.then_some((t.dtype, dims))
    }

    /// The dimensions of a value of f32, f16 or bf16.
    pub fn float_dims(&self, v: ValueId) -> Option<Vec<usize>> {
        let (dtype, dims) = self.typed(v)?;
        matches!(dtype, DType::F32 | DType::F16 | DType::BF16).then_some(dims)
    }

    /// The data of a constant.
    pub fn constant(&self, v: ValueId) -> Option<&'a Tensor> {
        self.model.graph.constant(v)
    }

    /// A constant as f32.
    pub fn floats(&self, v: ValueId) -> Option<Vec<f32>> {
        self.constant(v)?.to_f32().ok().map(Cow::into_owned)
    }

    /// A new slot of what node `id` keeps for its gradient.
    pub fn keep(&mut self, id: NodeId, bytes: usize) -> SlotId {
        let slot = self.slot(bytes);
        self.kept.insert(id, slot);
        slot
    }

    /// What node `id` keeps for its gradient.
    pub fn kept_by(&self, id: NodeId) -> Option<SlotId> {
        self.kept.get(&id).copied()
    }

    /// A new slot.
    pub fn slot(&mut self, bytes: usize) -> SlotId {
        let now = self.steps.len();
        self.slots.push(Slot {
            bytes,
            first: now,
            last: now,
        });
        self.slots.len() - 1
    }

    /// True where `v` must exist by itself: an output, watched, or read by a subgraph.
    pub fn is_kept(&self, v: ValueId) -> bool {
        self.outputs.contains(&v) || self.wanted.contains(&v) || self.captured.contains(&v)
    }

    /// The only reader of `v`, where `v` need not exist by itself.
    pub fn only_reader(&self, v: ValueId) -> Option<NodeId> {
        if self.is_kept(v) {
            return None;
        }
        match self.graph().value(v).consumers() {
            [(id, _)] if !self.done[id.index()] => Some(*id),
            _ => None,
        }
    }

    /// The node that makes `v`, where nothing has planned it yet.
    pub fn pending(&self, v: ValueId) -> Option<NodeId> {
        let (id, _) = self.graph().value(v).producer()?;
        (!self.done[id.index()]).then_some(id)
    }

    /// Marks nodes as done by the step of `into`.
    pub fn fused(&mut self, nodes: &[NodeId], into: NodeId) {
        for &n in nodes {
            self.done[n.index()] = true;
            if n != into {
                self.placements[n.index()].fused_into = Some(self.graph().node(into).name.clone());
            }
        }
    }

    /// Says that nodes run where `into` runs.
    pub fn follow(&mut self, nodes: &[NodeId], into: NodeId) {
        for &n in nodes {
            let (provider, kernel) = {
                let p = &self.placements[into.index()];
                (p.provider.clone(), p.kernel.clone())
            };
            let p = &mut self.placements[n.index()];
            (p.provider, p.kernel) = (provider, kernel);
        }
    }

    /// Marks nodes as integer arithmetic.
    pub fn mark_integer(&mut self, nodes: &[NodeId]) {
        for &n in nodes {
            self.placements[n.index()].integer = true;
        }
    }

    /// Says that a node's output is another value's memory under another shape.
    pub fn aliased(&mut self, id: NodeId, to: ValueId, slot: SlotId) {
        *self.places[to.index()].slot(Layout::Plain, Form::Own) = Some(slot);
        self.place(id, "cpu", "view", false);
        if self.wanted.contains(&to) {
            let work = Work::Kernel(Box::new(|_, _, _| ()));
            self.push(Step {
                work,
                reads: vec![slot],
                writes: Vec::new(),
                row: self.row(id, "view", false),
                makes: vec![(to, slot, Layout::Plain)],
                lines: None,
            });
        }
    }

    /// As [`Planner::aliased`], where the memory is the channels-last form of `to`.
    pub fn aliased_last(&mut self, id: NodeId, to: ValueId, slot: SlotId) {
        *self.places[to.index()].slot(Layout::Last, Form::Own) = Some(slot);
        self.place(id, "cpu", "view", false);
        if self.wanted.contains(&to) {
            self.push(Step {
                work: Work::Kernel(Box::new(|_, _, _| ())),
                reads: vec![slot],
                writes: Vec::new(),
                row: self.row(id, "view", false),
                makes: vec![(to, slot, Layout::Last)],
                lines: None,
            });
        }
    }

    /// The postponed DequantizeLinear that makes `v`, once.
    pub fn take_postponed(&mut self, v: ValueId) -> Option<NodeId> {
        self.places[v.index()].lazy.take()
    }

    /// Leaves the DequantizeLinear of weights to the kernels that read them.
    pub fn postpone_constant(&mut self, id: NodeId) {
        self.done[id.index()] = true;
        self.place(id, "cpu", "in the nodes after it", false);
    }

    /// Says that the step added last is integer arithmetic.
    pub fn mark_step_integer(&mut self) {
        if let Some(step) = self.steps.last_mut() {
            step.row.integer = true;
        }
    }

    /// Leaves a DequantizeLinear until somebody needs its floats.
    pub fn postpone(&mut self, id: NodeId, v: ValueId) {
        self.places[v.index()].lazy = Some(id);
        self.done[id.index()] = true;
        self.place(id, "cpu", "in the nodes after it", false);
    }

    fn place(&mut self, id: NodeId, provider: &'static str, kernel: &str, integer: bool) {
        let p = &mut self.placements[id.index()];
        p.provider = provider.into();
        p.kernel = kernel.into();
        p.integer = integer;
        self.done[id.index()] = true;
    }

    fn row(&self, id: NodeId, kernel: &str, integer: bool) -> StepRow {
        let node = self.graph().node(id);
        StepRow {
            name: node.name.clone(),
            op: node.op.clone(),
            provider: "cpu",
            kernel: kernel.into(),
            integer,
            macs: self.macs.get(&id).copied().unwrap_or(0),
            bytes: self.shelf.get(id).map_or(0, |p| p.bytes() as u64),
        }
    }

    /// Adds the step of node `id` on the cpu, which does `nodes` as well.
    pub fn step(&mut self, id: NodeId, nodes: &[NodeId], spec: Spec) {
        let row = self.row(id, spec.kernel, spec.integer);
        self.place(id, "cpu", spec.kernel, spec.integer);
        self.fused(nodes, id);
        if spec.integer {
            self.mark_integer(nodes);
        }
        for &n in nodes {
            let (provider, kernel) = ("cpu".to_owned(), spec.kernel.to_owned());
            let p = &mut self.placements[n.index()];
            (p.provider, p.kernel) = (provider, kernel);
        }
        let places = spec.writes.iter().copied();
        let makes = (spec.makes.iter().zip(places))
            .map(|(&(v, layout), slot)| (v, slot, layout))
            .collect();
        self.push(Step {
            work: Work::Kernel(spec.work),
            reads: spec.reads,
            writes: spec.writes,
            row,
            makes,
            lines: None,
        });
    }

    /// Says of the last step, that of `nodes`, in which form its weights are, where that is not plain.
    pub fn tell(&mut self, nodes: &[NodeId], form: Option<String>) {
        let Some(form) = form else {
            return;
        };
        let mut steps = self.steps.iter_mut().rev();
        // What the planner adds behind a step has no kernel.
        let Some(step) = steps.find(|s| !s.row.kernel.is_empty()) else {
            return;
        };
        step.row.kernel = format!("{}: {form}", step.row.kernel);
        for n in nodes {
            self.placements[n.index()].kernel = step.row.kernel.clone();
        }
    }

    /// As [`Planner::step`], with work that may fail in place of that of `spec`.
    pub fn checked_step(&mut self, id: NodeId, spec: Spec, work: Checked) {
        self.step(id, &[id], spec);
        if let Some(step) = self.steps.last_mut() {
            step.work = Work::Checked(work);
        }
    }

    /// [`Planner::checked_step`] of a kernel that makes `y` alone, row-major.
    pub fn checked_plain_step(
        &mut self,
        id: NodeId,
        kernel: &'static str,
        reads: Vec<SlotId>,
        (y, write): (ValueId, SlotId),
        work: Checked,
    ) {
        let spec = Spec {
            kernel,
            integer: false,
            reads,
            writes: vec![write],
            makes: vec![(y, Layout::Plain)],
            work: Box::new(|_, _, _| ()),
        };
        self.checked_step(id, spec, work);
    }

    fn push(&mut self, step: Step) {
        let now = self.steps.len() + 1;
        for &s in step.reads.iter().chain(&step.writes) {
            self.slots[s].last = self.slots[s].last.max(now);
        }
        for &s in &step.writes {
            if self.slots[s].first == now - 1 {
                self.slots[s].first = now;
            }
        }
        self.steps.push(step);
    }
}

/// A step of the cpu provider.
pub(crate) struct Spec {
    pub kernel: &'static str,
    pub integer: bool,
    pub reads: Vec<SlotId>,
    pub writes: Vec<SlotId>,
    /// The values that the first slots written then hold, one each.
    pub makes: Vec<(ValueId, Layout)>,
    pub work: Kernel,
}

//! A session: prepare once, run many.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use edgesmith_ir::analysis::{cost, memory};
use edgesmith_ir::error::{At, Kind};
use edgesmith_ir::eval::{self, EvalCx};
use edgesmith_ir::types::{Dim, TensorType, Type};
use edgesmith_ir::{Error, Model, NodeId, Result, Tensor, ValueId, infer};
use edgesmith_kernels::arena::Arena;
use edgesmith_kernels::{Ctx, Isa, Threads, permute};
use smallvec::SmallVec;

use crate::plan::{Arg, Layout, Packed, Placement, Plan, Planner, Setting, Step, Work, fold};
use crate::profile::{Memory, NodeProfile, Profile};
use crate::providers::{PROVIDERS, Provider, reference};

/// How a session runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads; 0 is one for each core.
    pub threads: usize,
    /// Names of providers, best first; the reference is added where it is not named.
    pub providers: Vec<String>,
    /// The best instruction set that kernels may use; `None`: what this CPU has.
    pub isa: Option<Isa>,
    /// Turn DQ → op → Q groups into integer kernels.
    pub integer: bool,
    /// Time every step.
    pub profile: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 0,
            providers: PROVIDERS.iter().map(|p| p.name.to_owned()).collect(),
            isa: None,
            integer: true,
            profile: false,
        }
    }
}

/// The name and type of an input or output.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueInfo {
    /// The name.
    pub name: String,
    /// The type, where it is a tensor of known element type.
    pub ty: Option<TensorType>,
}

type Key = (Vec<Vec<usize>>, Vec<ValueId>);

/// Plans that are kept, the latest last.
const KEPT_PLANS: usize = 4;

/// A model made ready to run.
pub struct Session {
    model: Model,
    options: Options,
    providers: Vec<&'static Provider>,
    ctx: Ctx,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    packed: BTreeMap<NodeId, Packed>,
    plans: Vec<(Key, Plan)>,
    placements: Vec<Placement>,
    /// False until a run with shapes that the model can take.
    is_placed: bool,
    arena: Arena,
    memory: Option<Memory>,
    profile: Profile,
}

impl Session {
    /// Makes a model ready: checks that every node runs, plans it for its declared shapes
    /// (symbols are 1) and packs weights.
    ///
    /// # Errors
    /// When a provider is unknown, a shape rule fails, or a node cannot be run.
    pub fn prepare(model: &Model, options: &Options) -> Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if options.threads == 0 {
            cores()
        } else {
            options.threads
        };
        let isa = Isa::detect_capped(options.isa);
        let info = |&v: &ValueId| {
            let value = model.graph.value(v);
            ValueInfo {
                name: value.name.clone(),
                ty: value.tensor_type().cloned(),
            }
        };
        let mut session = Self {
            providers: providers(&options.providers)?,
            ctx: Ctx::new(isa, Threads::new(threads)),
            inputs: model.graph.inputs.iter().map(info).collect(),
            outputs: model.graph.outputs.iter().map(info).collect(),
            packed: BTreeMap::new(),
            plans: Vec::new(),
            placements: Vec::new(),
            is_placed: true,
            arena: Arena::new(0),
            memory: None,
            profile: Profile::default(),
            options: options.clone(),
            model: model.clone(),
        };
        let types = memory::concrete_inputs(model, &[]);
        match session.plan_for(&types, &BTreeSet::new()) {
            Ok(plan) => session.placements = plan.placements,
            // A window may be longer than the 1 that stands for lengths which are not known.
            Err(e) if e.kind == Kind::Invalid && infer::infer(model, &[]).is_ok() => {
                session.placements = unplanned(model);
                session.is_placed = false;
            }
            Err(e) => return Err(e),
        }
        Ok(session)
    }

    /// The inputs, in the order of the graph.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// The outputs, in the order of the graph.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// Where each node runs, in the order of the graph's slots.
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// The memory of the plan that ran last.
    pub fn memory(&self) -> Option<Memory> {
        self.memory
    }

    /// Times since the last reset.
    pub fn profile(&self) -> Profile {
        self.profile.clone()
    }

    /// Forgets all times.
    pub fn reset_profile(&mut self) {
        self.profile = Profile::default();
    }

    /// Runs the model: outputs in order, for inputs by name.
    ///
    /// # Errors
    /// When an input is missing, unknown, or of a wrong type or shape, or a node fails.
    pub fn run(&mut self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
        self.run_watching(inputs, &[], &mut |_, _| ())
    }

    /// As [`Session::run`], showing the values `wanted` as soon as they are there.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_watching(
        &mut self,
        inputs: &[(&str, Tensor)],
        wanted: &[ValueId],
        watch: &mut dyn FnMut(ValueId, &Tensor),
    ) -> Result<Vec<Tensor>> {
        let fed = self.check_inputs(inputs)?;
        let wanted: BTreeSet<ValueId> = wanted.iter().copied().collect();
        let shapes = fed
            .iter()
            .map(|t| t.as_ref().map_or_else(Vec::new, |t| t.dims().to_vec()));
        let key: Key = (shapes.collect(), wanted.iter().copied().collect());
        let at = match self.plans.iter().position(|(k, _)| *k == key) {
            Some(at) => at,
            None => self.add_plan(key, &fed, &wanted)?,
        };
        for (&v, t) in self.model.graph.inputs.iter().zip(&fed) {
            if let Some(t) = t.as_ref().filter(|_| wanted.contains(&v)) {
                watch(v, t);
            }
        }
        let plan = &self.plans[at].1;
        for &v in &wanted {
            let folded = self.model.graph.value(v).producer().is_some();
            if let Some(t) = plan.model.graph.constant(v).filter(|_| folded) {
                watch(v, t);
            }
        }
        self.memory = Some(Memory {
            arena_bytes: plan.arena_bytes,
            lower_bound: plan.lower_bound,
            weight_bytes: Planner::packed_bytes(&self.packed),
        });
        if self.arena.len() < plan.arena_bytes {
            self.arena = Arena::new(plan.arena_bytes);
        }
        let profile = self.options.profile.then_some(&mut self.profile);
        let run = Run {
            model: &plan.model,
            ctx: &self.ctx,
            plan,
            arena: &mut self.arena,
            heap: Vec::new(),
        };
        run.go(&fed, &wanted, watch, profile)
    }

    fn add_plan(
        &mut self,
        key: Key,
        fed: &[Option<Tensor>],
        wanted: &BTreeSet<ValueId>,
    ) -> Result<usize> {
        let pairs = self.model.graph.inputs.iter().zip(fed);
        let types: Vec<(ValueId, Type)> = pairs
            .filter_map(|(&v, t)| Some((v, t.as_ref()?.ty().into())))
            .collect();
        let plan = self.plan_for(&types, wanted)?;
        if !self.is_placed {
            self.placements.clone_from(&plan.placements);
            self.is_placed = true;
        }
        if self.plans.len() == KEPT_PLANS {
            self.plans.remove(0);
        }
        self.plans.push((key, plan));
        Ok(self.plans.len() - 1)
    }

    fn plan_for(&mut self, types: &[(ValueId, Type)], wanted: &BTreeSet<ValueId>) -> Result<Plan> {
        let costs = cost::node_costs(&self.model, &infer::infer(&self.model, types)?)?;
        let concrete = fold::concrete(&self.model, types, self.options.integer)?;
        let planner = Planner::new(Setting {
            model: &concrete.model,
            inferred: &concrete.inferred,
            ctx: &self.ctx,
            wanted,
            macs: costs.iter().map(|c| (c.node, c.cost.macs)).collect(),
            packed: &mut self.packed,
            integer: self.options.integer,
        });
        let order = concrete.model.graph.order()?;
        let mut plan = planner.finish(&self.providers, &order)?;
        for id in concrete.folded {
            let node = self.model.graph.node(id);
            plan.placements[id.index()] = Placement {
                node: node.name.clone(),
                op: node.op.clone(),
                note: Some("computed once, when the input shapes are known".into()),
                ..Placement::default()
            };
        }
        let slots = self.model.graph.nodes().map(|(id, _)| id.index());
        plan.placements = slots.map(|i| plan.placements[i].clone()).collect();
        plan.model = concrete.model;
        Ok(plan)
    }

    /// The tensor of each graph input, its default where it has one.
    fn check_inputs(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Option<Tensor>>> {
        for (name, _) in inputs {
            if !self.inputs.iter().any(|i| i.name == *name) {
                let names: Vec<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
                return Err(Error::invalid(format!("the model has no input \"{name}\""))
                    .hint(format!("its inputs are {}", names.join(", "))));
            }
        }
        let graph = &self.model.graph;
        let mut symbols = BTreeMap::new();
        let mut fed = Vec::new();
        for (&v, info) in graph.inputs.iter().zip(&self.inputs) {
            let given = inputs
                .iter()
                .find(|(n, _)| *n == info.name)
                .map(|(_, t)| t.clone());
            let tensor = given
                .or_else(|| graph.value(v).constant.clone())
                .ok_or_else(|| Error::invalid(format!("input \"{}\" is missing", info.name)))?;
            info.check(&tensor)?;
            info.check_symbols(&tensor, &mut symbols)?;
            fed.push(Some(tensor));
        }
        Ok(fed)
    }
}

impl ValueInfo {
    /// Refuses a tensor in which a named dimension has another length than in `symbols`, where
    /// those of this tensor are added.
    fn check_symbols(
        &self,
        tensor: &Tensor,
        symbols: &mut BTreeMap<String, (usize, String)>,
    ) -> Result<()> {
        let shape = self.ty.as_ref().and_then(|t| t.shape.as_ref());
        for (dim, &n) in shape.iter().flat_map(|s| s.iter()).zip(tensor.dims()) {
            let Dim::Symbol(symbol) = dim else { continue };
            let known = symbols
                .entry(symbol.to_string())
                .or_insert_with(|| (n, self.name.clone()));
            if known.0 != n {
                let (first, of) = known;
                return Err(Error::invalid(format!(
                    "axis \"{symbol}\" has length {n}, but {first} in input \"{of}\""
                ))
                .at(format!("input \"{}\"", self.name))
                .hint("axes of one name have one length in a run"));
            }
        }
        Ok(())
    }

    /// Refuses a tensor that contradicts the declared type.
    fn check(&self, tensor: &Tensor) -> Result<()> {
        let Some(expected) = &self.ty else {
            return Ok(());
        };
        let fits = expected.dtype == tensor.dtype()
            && expected.shape.as_ref().is_none_or(|shape| {
                let same = |(d, &n): (&Dim, &usize)| d.known().is_none_or(|k| k == n);
                shape.rank() == tensor.rank() && shape.iter().zip(tensor.dims()).all(same)
            });
        if fits {
            return Ok(());
        }
        Err(
            Error::invalid(format!("expected {expected}, found {}", tensor.ty()))
                .at(format!("input \"{}\"", self.name))
                .hint(
                    "the data must have the model's types and shapes; names in the shape are free",
                ),
        )
    }
}

/// Placements of nodes whose place is not known yet.
fn unplanned(model: &Model) -> Vec<Placement> {
    let nodes = model.graph.nodes();
    nodes
        .map(|(_, node)| Placement {
            node: node.name.clone(),
            op: node.op.clone(),
            note: Some("placed at the first run, when the input shapes are known".into()),
            ..Placement::default()
        })
        .collect()
}

fn providers(names: &[String]) -> Result<Vec<&'static Provider>> {
    let find = |name: &String| {
        PROVIDERS
            .iter()
            .copied()
            .find(|p| p.name == name)
            .ok_or_else(|| {
                let all: Vec<&str> = PROVIDERS.iter().map(|p| p.name).collect();
                Error::usage(format!("there is no provider \"{name}\""))
                    .hint(format!("the providers are {}", all.join(", ")))
            })
    };
    let mut found: Vec<&'static Provider> = names.iter().map(find).collect::<Result<_>>()?;
    // The reference is always there: what others leave runs by it, and the placements say so.
    if !found.iter().any(|p| p.name == reference::REFERENCE.name) {
        found.push(&reference::REFERENCE);
    }
    Ok(found)
}

/// One run.
struct Run<'a> {
    model: &'a Model,
    ctx: &'a Ctx,
    plan: &'a Plan,
    arena: &'a mut Arena,
    heap: Vec<Option<Tensor>>,
}

impl Run<'_> {
    fn go(
        mut self,
        fed: &[Option<Tensor>],
        wanted: &BTreeSet<ValueId>,
        watch: &mut dyn FnMut(ValueId, &Tensor),
        mut profile: Option<&mut Profile>,
    ) -> Result<Vec<Tensor>> {
        let plan = self.plan;
        self.heap.resize(self.model.graph.value_slots(), None);
        for ((&v, place), t) in self.model.graph.inputs.iter().zip(&plan.inputs).zip(fed) {
            match (place, t) {
                (Some((slot, ..)), Some(t)) => {
                    let part = self.arena.part_mut(plan.slots[*slot].clone());
                    part.ok_or_else(outside)?.copy_from_slice(t.bytes());
                }
                _ => self.heap[v.index()].clone_from(t),
            }
        }
        if let Some(p) = profile.as_deref_mut() {
            p.start(plan);
        }
        for (i, step) in plan.steps.iter().enumerate() {
            let started = profile.is_some().then(Instant::now);
            self.step(step, wanted, watch)?;
            if let (Some(p), Some(t)) = (profile.as_deref_mut(), started) {
                p.add(i, t);
            }
            for &(v, slot, layout) in &step.makes {
                if wanted.contains(&v) {
                    watch(v, &self.shown(v, slot, layout)?);
                }
            }
        }
        let outputs = plan.outputs.iter().map(|a| self.tensor(a));
        outputs.collect()
    }

    fn step(
        &mut self,
        step: &Step,
        wanted: &BTreeSet<ValueId>,
        watch: &mut dyn FnMut(ValueId, &Tensor),
    ) -> Result<()> {
        match &step.work {
            Work::Kernel(_) | Work::Checked(_) => {
                let range = |&s: &usize| self.plan.slots[s].clone();
                let reads: SmallVec<[_; 6]> = step.reads.iter().map(range).collect();
                let writes: SmallVec<[_; 2]> = step.writes.iter().map(range).collect();
                let (reads, mut writes) = self.arena.split(&reads, &writes).ok_or_else(outside)?;
                match &step.work {
                    Work::Kernel(kernel) => kernel(self.ctx, &reads, &mut writes),
                    Work::Checked(kernel) => kernel(self.ctx, &reads, &mut writes)?,
                    Work::Evaluate(_) => {}
                }
                Ok(())
            }
            Work::Evaluate(e) => {
                let node = self.model.graph.node(e.node);
                let mut inputs = Vec::with_capacity(e.inputs.len());
                for arg in &e.inputs {
                    inputs.push(arg.as_ref().map(|a| self.tensor(a)).transpose()?);
                }
                let mut outer = Vec::new();
                if !e.captures.is_empty() {
                    outer.resize(self.model.graph.value_slots(), None);
                }
                for (v, arg) in &e.captures {
                    outer[v.index()] = Some(self.tensor(arg)?);
                }
                let cx = EvalCx::within(self.model, node, &inputs, &outer);
                let results = eval::evaluate_node(&cx)?;
                for (out, tensor) in e.outputs.iter().zip(results) {
                    let Some((v, slot)) = out else { continue };
                    match slot {
                        Some(i) => self.put(step.writes[*i], &tensor).at(|| node.place())?,
                        None => {
                            if wanted.contains(v) {
                                watch(*v, &tensor);
                            }
                            self.heap[v.index()] = Some(tensor);
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn put(&mut self, slot: usize, tensor: &Tensor) -> Result<()> {
        let part = self
            .arena
            .part_mut(self.plan.slots[slot].clone())
            .ok_or_else(outside)?;
        if part.len() != tensor.byte_len() {
            return Err(Error::internal(format!(
                "evaluation gave {}, inference {} bytes",
                tensor.ty(),
                part.len()
            )));
        }
        part.copy_from_slice(tensor.bytes());
        Ok(())
    }

    fn tensor(&self, arg: &Arg) -> Result<Tensor> {
        match arg {
            Arg::Slot { slot, dtype, dims } => {
                let part = self
                    .arena
                    .part(self.plan.slots[*slot].clone())
                    .ok_or_else(outside)?;
                Tensor::from_bytes(*dtype, dims, Bytes::copy_from_slice(part))
            }
            Arg::Constant(t) => Ok(t.clone()),
            Arg::Heap(v) => self.heap[v.index()].clone().ok_or_else(|| {
                let name = &self.model.graph.value(*v).name;
                Error::invalid(format!("value \"{name}\" was never made"))
            }),
        }
    }

    /// A value for those who watch, row-major.
    fn shown(&self, v: ValueId, slot: usize, layout: Layout) -> Result<Tensor> {
        let (dtype, dims) = &self.plan.types[v.index()].clone().ok_or_else(outside)?;
        let part = self
            .arena
            .part(self.plan.slots[slot].clone())
            .ok_or_else(outside)?;
        if layout == Layout::Plain {
            return Tensor::from_bytes(*dtype, dims, Bytes::copy_from_slice(part));
        }
        let mut plain = vec![0u8; part.len()];
        let rank = dims.len();
        let source = crate::plan::in_memory(dims, Layout::Last);
        let order: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        permute::permute(
            self.ctx,
            dtype.bits() / 8,
            &source,
            &order,
            part,
            &mut plain,
        );
        Tensor::from_bytes(*dtype, dims, plain.into())
    }
}

fn outside() -> Error {
    Error::internal("a step reaches outside of the planned memory")
}

impl Profile {
    fn start(&mut self, plan: &Plan) {
        if self.nodes.len() != plan.steps.len() {
            let row = |s: &Step| NodeProfile {
                name: s.row.name.clone(),
                op: s.row.op.clone(),
                provider: s.row.provider.into(),
                kernel: s.row.kernel.clone(),
                integer: s.row.integer,
                macs: s.row.macs,
                ..NodeProfile::default()
            };
            *self = Self {
                nodes: plan.steps.iter().map(row).collect(),
                ..Self::default()
            };
        }
        self.runs += 1;
    }

    fn add(&mut self, i: usize, started: Instant) {
        let ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nodes[i].ns += ns;
        self.nodes[i].calls += 1;
        self.total_ns += ns;
    }
}

//! A session: prepare once, run many.

use std::collections::BTreeSet;
use std::path::PathBuf;

use edgesmith_ir::analysis::lengths;
use edgesmith_ir::error::Kind;
use edgesmith_ir::types::TensorType;
use edgesmith_ir::{Budget, Error, Item, Limits, Model, Result, Tensor, ValueId, infer};
use edgesmith_kernels::{Ctx, Isa, Threads};

use crate::device::Asked;
use crate::plan::{Failure, Maker, PlacedPart, Placement, Plan, Program, Shelf, Watch};
use crate::profile::{Memory, Profile};
use crate::providers::{self, BY_DEFAULT, Provider};

mod inputs;
pub(crate) mod run;
pub mod stored;
pub(crate) mod view;

pub use view::View;

/// About what one core has of the caches that it does not share.
const BATCH_BYTES: usize = 1 << 20;

/// Half of what stays in the L2 cache beside weights and what is read and written.
const LINE_BYTES: usize = 512 * 1024;

/// How a session runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads; 0 is one for each core.
    pub threads: usize,
    /// Names of providers, best first, with settings after a colon; the reference is added where
    /// it is not named, and the cpu provider where a device is.
    pub providers: Vec<String>,
    /// Providers of other crates that may be named.
    pub more: &'static [&'static Provider],
    /// Where libraries of devices may lie.
    pub libraries: Vec<PathBuf>,
    /// The best instruction set that kernels may use; `None`: what this CPU has.
    pub isa: Option<Isa>,
    /// Round both sides of products of floats to BF16, and add in f32; an error where the
    /// instruction set does not multiply BF16.
    pub bf16: bool,
    /// Turn DQ → op → Q groups into integer kernels.
    pub integer: bool,
    /// Skip zeros of weights of which most are zero, where that is faster.
    pub sparse: bool,
    /// Time every step.
    pub profile: bool,
    /// A batch of samples that are apart from each other runs in pieces whose values take at most
    /// so many bytes, or one by one: what stays in a cache is faster. `usize::MAX`: never.
    pub batch_bytes: usize,
    /// Convolutions one after another run a few lines of an image at a time where what lies
    /// between two of them takes at least so many bytes, for the same reason. 0: always,
    /// `usize::MAX`: never.
    pub line_bytes: usize,
    /// The most that a run, or the planning of one, may use.
    pub limits: Limits,
    /// Told the bytes of weights that kernels hold in another form from now on: where they lie in
    /// a mapped file, their memory may be given back.
    pub packed: Option<fn(&[u8])>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 0,
            providers: BY_DEFAULT.map(str::to_owned).to_vec(),
            more: &[],
            libraries: Vec::new(),
            isa: None,
            bf16: false,
            integer: true,
            sparse: true,
            profile: false,
            batch_bytes: BATCH_BYTES,
            line_bytes: LINE_BYTES,
            limits: Limits::default(),
            packed: None,
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

/// A model made ready to run.
pub struct Session {
    program: Program,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
    placements: Vec<Placement>,
    /// False until a run with shapes that the model can take.
    is_placed: bool,
    faults_seen: usize,
    memory: Option<Memory>,
    profile: Profile,
}

/// Threads for each core at the most, and what any machine takes.
const THREADS_OF_CORE: usize = 8;
const LEAST_THREADS: usize = 64;

impl Session {
    /// Makes a model ready: checks that every node runs, plans it for its declared shapes
    /// (symbols are 1) and packs weights.
    ///
    /// # Errors
    /// When a provider is unknown, there are too many threads, a shape rule fails, or a node cannot be run.
    pub fn prepare(model: &Model, options: &Options) -> Result<Self> {
        Self::prepare_on(model, options, Shelf::default())
    }

    fn prepare_on(model: &Model, options: &Options, shelf: Shelf) -> Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if options.threads == 0 {
            cores()
        } else {
            options.threads
        };
        let most = cores().saturating_mul(THREADS_OF_CORE).max(LEAST_THREADS);
        if threads > most {
            let what = format!("{threads} threads are too many");
            return Err(Error::usage(what).hint(format!(
                "this machine has {} cores and takes up to {most}; 0 is one for each core",
                cores()
            )));
        }
        let isa = Isa::detect_capped(options.isa);
        if options.bf16 && !isa.multiplies_bf16() {
            return Err(Error::unsupported(format!(
                "precision bf16: the instruction set {} does not multiply BF16",
                isa.name()
            ))
            .hint("leave it out: products are then of f32"));
        }
        let info = |&v: &ValueId| {
            let value = model.graph.value(v);
            ValueInfo {
                name: value.name.clone(),
                ty: value.tensor_type().cloned(),
            }
        };
        let asked = Asked {
            threads,
            bf16: options.bf16,
            libraries: options.libraries.clone(),
            settings: Vec::new(),
        };
        let maker = Maker {
            ctx: Ctx::new(isa, Threads::new(threads))
                .with_bf16(options.bf16)
                .with_sparse(options.sparse),
            providers: providers::choose(&options.providers, options.more, &asked)?,
            integer: options.integer,
            profile: options.profile,
            limits: options.limits,
            batch_bytes: options.batch_bytes,
            line_bytes: options.line_bytes,
            packed: options.packed,
            depth: 0,
        };
        let types = lengths::concrete_inputs(model, &[]);
        let (plan, placements) = match maker.plan(model, &types, &BTreeSet::new(), &shelf) {
            Ok(plan) => {
                let placements = plan.placements.clone();
                (Some(plan), placements)
            }
            // A window may be longer than the 1 that stands for lengths which are not known.
            Err(e) if e.kind == Kind::Invalid && infer::infer(model, &[]).is_ok() => {
                (None, unplanned(model))
            }
            Err(e) => return Err(e),
        };
        let is_placed = plan.as_ref().is_some_and(Plan::is_whole);
        let program = Program::new(model.clone(), maker, shelf);
        if let Some(plan) = plan {
            program.keep(&types, plan);
        }
        Ok(Self {
            inputs: model.graph.inputs.iter().map(info).collect(),
            outputs: model.graph.outputs.iter().map(info).collect(),
            placements: in_order(model, placements),
            is_placed,
            faults_seen: 0,
            memory: None,
            profile: Profile::default(),
            program,
        })
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

    /// Where the nodes of graphs inside nodes run: their names stand behind those of the nodes and
    /// attributes around them, as in `if_1/then_branch/conv_1`.
    pub fn placements_inside(&self) -> Vec<Placement> {
        let mut all = Vec::new();
        self.program.placements_inside("", &mut all);
        all
    }

    /// The parts that devices have, in graphs inside nodes too.
    pub fn parts(&self) -> Vec<PlacedPart> {
        self.program.parts()
    }

    /// What devices could not make ready, each reason once: the providers after them run it.
    pub fn failures(&self) -> Vec<Failure> {
        let mut all: Vec<Failure> = Vec::new();
        for f in self.program.failures() {
            let mut known = all.iter_mut();
            match known.find(|k| (k.provider, &k.why) == (f.provider, &f.why)) {
                Some(known) => known.nodes += f.nodes,
                None => all.push(f),
            }
        }
        all
    }

    /// Plans for inputs of these types, in the order of the graph, and plans graphs inside nodes,
    /// which a run plans else; the names of the nodes whose graphs wait for a run.
    ///
    /// # Errors
    /// When there can be no plan for these inputs.
    pub fn plan_ahead(&mut self, inputs: &[TensorType]) -> Result<Vec<String>> {
        let known = |t: &TensorType| Some((t.dtype, t.shape.as_ref()?.known()?.to_vec()));
        let known: Option<Vec<_>> = inputs.iter().map(known).collect();
        let known = known.filter(|k| k.len() == self.inputs.len());
        let known = known.ok_or_else(|| Error::usage("a length of an input is open"))?;
        self.program.plan_for(&known)?;
        let left = self.program.plan_inside();
        self.is_placed = false;
        self.note_memory();
        Ok(left)
    }

    /// The instructions and threads that it runs on.
    pub fn ctx(&self) -> &Ctx {
        &self.program.maker.ctx
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

    /// What made devices fail: their parts ran by the providers after them, and go on so.
    pub fn faults(&self) -> Vec<Error> {
        self.program.faults()
    }

    /// Runs a model of tensors: outputs in order, for inputs by name.
    ///
    /// # Errors
    /// When an input is missing, unknown, or of a wrong type or shape, a node fails, or an output
    /// is no tensor.
    pub fn run(&mut self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
        self.run_watching(inputs, &[], &mut |_, _| ())
    }

    /// As [`Session::run`], for inputs and outputs of any kind.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_items(&mut self, inputs: &[(&str, Item)]) -> Result<Vec<Item>> {
        self.run_any(inputs, &[], &mut |_, _| ())
    }

    /// As [`Session::run`], showing the values `wanted` as soon as they are there, where they lie.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_watching(
        &mut self,
        inputs: &[(&str, Tensor)],
        wanted: &[ValueId],
        watch: &mut dyn FnMut(ValueId, View),
    ) -> Result<Vec<Tensor>> {
        let items = inputs.iter().map(|(n, t)| (*n, Item::from(t.clone())));
        let outputs = self.run_any(&items.collect::<Vec<_>>(), wanted, watch)?;
        outputs.into_iter().map(Item::into_tensor).collect()
    }

    fn run_any(
        &mut self,
        inputs: &[(&str, Item)],
        wanted: &[ValueId],
        watch: &mut dyn FnMut(ValueId, View),
    ) -> Result<Vec<Item>> {
        let fed = self.check_inputs(inputs)?;
        let wanted: BTreeSet<ValueId> = wanted.iter().copied().collect();
        for (&v, t) in self.program.model.graph.inputs.iter().zip(&fed) {
            if let Item::Tensor(t) = t
                && wanted.contains(&v)
            {
                watch(v, View::of(&self.program.maker.ctx, t));
            }
        }
        let maker = &self.program.maker;
        let budget = Budget::new(maker.limits);
        let profile = maker.profile.then_some(&mut self.profile);
        let watch = Watch {
            wanted: &wanted,
            show: watch,
        };
        let outputs = self.program.run(&fed, &budget, watch, profile)?;
        self.note_memory();
        Ok(outputs)
    }

    /// Keeps what the last run tells of memory, and of the places of nodes.
    fn note_memory(&mut self) {
        let [arena_bytes, lower_bound] = self.program.memory();
        self.memory = Some(Memory {
            arena_bytes,
            lower_bound,
            weight_bytes: self.program.shelf.bytes(),
        });
        let faults = self.program.faults().len();
        if !self.is_placed || faults != self.faults_seen {
            self.faults_seen = faults;
            let model = &self.program.model;
            let mut all = vec![Placement::default(); model.graph.node_slots()];
            self.program.show_placements(&mut all);
            self.placements = in_order(model, all);
            self.is_placed = true;
        }
    }
}

/// The placements of the nodes that are there, out of those by slot.
fn in_order(model: &Model, mut by_slot: Vec<Placement>) -> Vec<Placement> {
    let slots = model.graph.nodes().map(|(id, _)| id.index());
    slots.map(|i| std::mem::take(&mut by_slot[i])).collect()
}

/// Placements of nodes whose place is not known yet.
fn unplanned(model: &Model) -> Vec<Placement> {
    let mut all = vec![Placement::default(); model.graph.node_slots()];
    for (id, node) in model.graph.nodes() {
        all[id.index()] = Placement {
            node: node.name.clone(),
            op: node.op.clone(),
            note: Some("placed at the first run, when the input shapes are known".into()),
            ..Placement::default()
        };
    }
    all
}

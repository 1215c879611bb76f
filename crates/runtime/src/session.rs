//! A session: prepare once, run many.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::analysis::{cost, lengths};
use edgesmith_ir::error::Kind;
use edgesmith_ir::types::{TensorType, Type};
use edgesmith_ir::{Budget, Error, Item, Limits, Model, NodeId, Result, Tensor, ValueId, infer};
use edgesmith_kernels::arena::Arena;
use edgesmith_kernels::{Ctx, Isa, Threads};

use crate::plan::{Packed, Placement, Plan, Planner, Setting, fold};
use crate::profile::{Memory, Profile};
use crate::providers::{PROVIDERS, Provider, reference};

mod inputs;
mod run;

use run::Run;

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
    /// The most that a run, or the planning of one, may use.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 0,
            providers: PROVIDERS.iter().map(|p| p.name.to_owned()).collect(),
            isa: None,
            integer: true,
            profile: false,
            limits: Limits::default(),
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
        let types = lengths::concrete_inputs(model, &[]);
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
        let items = inputs.iter().map(|(n, t)| (*n, Item::from(t.clone())));
        let outputs = self.run_any(&items.collect::<Vec<_>>(), wanted, watch)?;
        outputs.into_iter().map(Item::into_tensor).collect()
    }

    fn run_any(
        &mut self,
        inputs: &[(&str, Item)],
        wanted: &[ValueId],
        watch: &mut dyn FnMut(ValueId, &Tensor),
    ) -> Result<Vec<Item>> {
        let fed = self.check_inputs(inputs)?;
        let wanted: BTreeSet<ValueId> = wanted.iter().copied().collect();
        let shapes = fed.iter().map(|item| match item {
            Item::Tensor(t) => t.dims().to_vec(),
            _ => Vec::new(),
        });
        let key: Key = (shapes.collect(), wanted.iter().copied().collect());
        let at = match self.plans.iter().position(|(k, _)| *k == key) {
            Some(at) => at,
            None => self.add_plan(key, &fed, &wanted)?,
        };
        for (&v, t) in self.model.graph.inputs.iter().zip(&fed) {
            if let Item::Tensor(t) = t
                && wanted.contains(&v)
            {
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
        let budget = Budget::new(self.options.limits);
        Run::new(plan, &self.ctx, &mut self.arena, budget).go(&fed, &wanted, watch, profile)
    }

    fn add_plan(&mut self, key: Key, fed: &[Item], wanted: &BTreeSet<ValueId>) -> Result<usize> {
        let pairs = self.model.graph.inputs.iter().zip(fed);
        let types: Vec<(ValueId, Type)> = pairs
            .filter_map(|(&v, item)| Some((v, item.as_tensor().ok()?.ty().into())))
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
        let limits = &self.options.limits;
        let budget = Budget::new(*limits);
        let concrete = fold::concrete(&self.model, types, self.options.integer, &budget)?;
        let planner = Planner::new(Setting {
            model: &concrete.model,
            inferred: &concrete.inferred,
            ctx: &self.ctx,
            wanted,
            macs: costs.iter().map(|c| (c.node, c.cost.macs)).collect(),
            packed: &mut self.packed,
            integer: self.options.integer,
            most: limits.bytes,
        });
        let order = concrete.model.graph.order()?;
        let mut plan = planner.finish(&self.providers, &order)?;
        plan.check(limits)?;
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

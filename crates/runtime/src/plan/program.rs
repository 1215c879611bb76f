//! A graph with its plans for the shapes it met: a model, a body of a node, or what is left of a
//! graph when shapes become known in a run.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use edgesmith_ir::types::{Dim, TensorType, Type};
use edgesmith_ir::{Budget, DType, Error, Item, Model, Result, ValueId};
use edgesmith_kernels::arena::Arena;

use edgesmith_ir::analysis::samples::Samples;

use super::{Failure, Maker, PlacedPart, Placement, Plan, Shelf, Step, Work, pieces};
use crate::profile::Profile;
use crate::session::run::Run;
use crate::session::view::View;

/// Plans that are kept, the latest last.
const KEPT_PLANS: usize = 4;

/// Who sees which values of a run.
pub(crate) struct Watch<'a> {
    pub wanted: &'a BTreeSet<ValueId>,
    pub show: &'a mut dyn FnMut(ValueId, View),
}

/// Element type and lengths of each input, where it is a tensor; and what is wanted.
#[derive(PartialEq)]
struct Key(Vec<Option<(DType, Vec<usize>)>>, Vec<ValueId>);

impl Key {
    fn of(fed: &[Item], wanted: &BTreeSet<ValueId>) -> Self {
        let one = |item: &Item| match item {
            Item::Tensor(t) => Some((t.dtype(), t.dims().to_vec())),
            _ => None,
        };
        Self(
            fed.iter().map(one).collect(),
            wanted.iter().copied().collect(),
        )
    }

    /// The key of a plan that was made for inputs of these types, where all are tensors.
    fn of_types(model: &Model, types: &[(ValueId, Type)]) -> Option<Self> {
        let one = |v: &ValueId| {
            let ty = types.iter().find(|(t, _)| t == v)?.1.tensor()?;
            Some(Some((ty.dtype, ty.shape.as_ref()?.known()?.to_vec())))
        };
        let each: Option<Vec<_>> = model.graph.inputs.iter().map(one).collect();
        Some(Self(each?, Vec::new()))
    }

    fn fits(&self, fed: &[Item], wanted: &BTreeSet<ValueId>) -> bool {
        let same = |(known, item): (&Option<(DType, Vec<usize>)>, &Item)| match (known, item) {
            (Some((dtype, dims)), Item::Tensor(t)) => t.dtype() == *dtype && t.dims() == *dims,
            (None, Item::Tensor(_)) | (Some(_), _) => false,
            (None, _) => true,
        };
        self.0.len() == fed.len()
            && self.0.iter().zip(fed).all(same)
            && self.1.len() == wanted.len()
            && self.1.iter().eq(wanted)
    }
}

#[derive(Default)]
struct State {
    plans: Vec<(Key, Plan)>,
    last: usize,
    arena: Arena,
}

/// A graph that is planned when the shapes of its inputs are known.
pub(crate) struct Program {
    pub model: Model,
    pub maker: Maker,
    pub shelf: Shelf,
    state: Mutex<State>,
}

impl Program {
    /// A program without plans.
    pub fn new(model: Model, maker: Maker, shelf: Shelf) -> Self {
        Self {
            model,
            maker,
            shelf,
            state: Mutex::default(),
        }
    }

    /// Keeps a plan that was made for inputs of these types.
    pub fn keep(&self, types: &[(ValueId, Type)], plan: Plan) {
        if let Some(key) = Key::of_types(&self.model, types) {
            self.state().plans.push((key, plan));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the graph on its inputs, in order: samples in pieces, where they are apart and all of
    /// them together would not stay in a cache.
    ///
    /// # Errors
    /// When no plan can be made, a node fails, or the budget is used up.
    pub fn run(
        &self,
        fed: &[Item],
        budget: &Budget,
        watch: Watch,
        mut profile: Option<&mut Profile>,
    ) -> Result<Vec<Item>> {
        let Some((samples, size)) = self.pieces(fed, watch.wanted)? else {
            return self.run_whole(fed, budget, watch, profile);
        };
        let mut made: Vec<Vec<Item>> = Vec::new();
        for start in (0..samples.count).step_by(size) {
            let range = start..samples.count.min(start + size);
            // A shorter piece at the end has a plan of its own, whose times stand for other work.
            let timed = profile.as_deref_mut().filter(|_| range.len() == size);
            let part = pieces::cut(fed, &samples.inputs, range)?;
            let watch = Watch {
                wanted: watch.wanted,
                show: &mut *watch.show,
            };
            made.push(self.run_whole(&part, budget, watch, timed)?);
        }
        pieces::join(made, &samples.outputs)
    }

    /// How a batch is run in pieces where that pays, and how many samples each has; `None` where it runs whole.
    fn pieces(&self, fed: &[Item], wanted: &BTreeSet<ValueId>) -> Result<Option<(Samples, usize)>> {
        if self.maker.depth > 0 || !wanted.is_empty() || self.maker.batch_bytes == usize::MAX {
            return Ok(None);
        }
        let mut state = self.state();
        let known = |(k, _): &(Key, Plan)| k.fits(fed, wanted);
        let at = match state.plans.iter().position(known) {
            Some(at) => at,
            None => self.add(&mut state, fed, wanted)?,
        };
        let plan = &state.plans[at].1;
        Ok(plan.samples.as_ref().and_then(|s| {
            let one = plan.arena_bytes / s.count.max(1);
            let size = (self.maker.batch_bytes / one.max(1)).clamp(1, s.count);
            let pieces = s.count.div_ceil(size);
            // Each piece reads the weights anew.
            let weights = self.shelf.bytes().saturating_mul(pieces);
            let pays = self.maker.batch_bytes == 0 || weights < plan.written();
            (pieces > 1 && pays).then(|| (s.clone(), s.count.div_ceil(pieces)))
        }))
    }

    fn run_whole(
        &self,
        fed: &[Item],
        budget: &Budget,
        watch: Watch,
        profile: Option<&mut Profile>,
    ) -> Result<Vec<Item>> {
        let mut state = self.state();
        let known = |(k, _): &(Key, Plan)| k.fits(fed, watch.wanted);
        let at = match state.plans.iter().position(known) {
            Some(at) => at,
            None => self.add(&mut state, fed, watch.wanted)?,
        };
        state.last = at;
        let State { plans, arena, .. } = &mut *state;
        let plan = &plans[at].1;
        if self.maker.depth > 0 {
            budget.step(1 + plan.steps.len() as u64)?;
            budget.work(plan.macs())?;
        }
        for &v in watch.wanted {
            let folded = self.model.graph.value(v).producer().is_some();
            if let Some(t) = plan.model.graph.constant(v).filter(|_| folded) {
                (watch.show)(v, View::of(&self.maker.ctx, t));
            }
        }
        if arena.len() < plan.arena_bytes {
            *arena = Arena::new(plan.arena_bytes);
        }
        Run::new(plan, &self.maker.ctx, arena, budget).go(fed, watch, profile)
    }

    fn add(&self, state: &mut State, fed: &[Item], wanted: &BTreeSet<ValueId>) -> Result<usize> {
        let pairs = self.model.graph.inputs.iter().zip(fed);
        let types: Vec<(ValueId, Type)> = pairs
            .filter_map(|(&v, item)| Some((v, item.as_tensor().ok()?.ty().into())))
            .collect();
        let plan = self.maker.plan(&self.model, &types, wanted, &self.shelf)?;
        Ok(Self::put(state, Key::of(fed, wanted), plan))
    }

    /// Keeps a plan in place of the oldest; where it is.
    fn put(state: &mut State, key: Key, plan: Plan) -> usize {
        if state.plans.len() == KEPT_PLANS {
            state.plans.remove(0);
        }
        state.plans.push((key, plan));
        state.plans.len() - 1
    }

    /// Bytes of the arenas of the last run, and the least that they could be.
    pub fn memory(&self) -> [usize; 2] {
        let state = self.state();
        let Some((_, plan)) = state.plans.get(state.last) else {
            return [0; 2];
        };
        let mut sum = [plan.arena_bytes, plan.lower_bound];
        for program in plan.steps.iter().flat_map(inner) {
            let [arena, lower] = program.memory();
            sum = [sum[0] + arena, sum[1] + lower];
        }
        sum
    }

    /// What made devices fail in the plan that ran last.
    pub fn faults(&self) -> Vec<Error> {
        let state = self.state();
        let Some((_, plan)) = state.plans.get(state.last) else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        for step in &plan.steps {
            if let Work::Device(d) = &step.work {
                faults.extend(d.fault().map(|e| e.at(d.provider)));
            }
            faults.extend(inner(step).into_iter().flat_map(Self::faults));
        }
        faults
    }

    /// What devices could not make ready for the plan that ran last.
    pub fn failures(&self) -> Vec<Failure> {
        let state = self.state();
        let Some((_, plan)) = state.plans.get(state.last) else {
            return Vec::new();
        };
        let within = plan.steps.iter().flat_map(inner).flat_map(Self::failures);
        plan.failures.iter().cloned().chain(within).collect()
    }

    /// The parts that devices have in the plan that ran last.
    pub fn parts(&self) -> Vec<PlacedPart> {
        let state = self.state();
        let Some((_, plan)) = state.plans.get(state.last) else {
            return Vec::new();
        };
        let part = |step: &Step| match &step.work {
            Work::Device(d) => vec![d.placed.clone()],
            _ => inner(step).into_iter().flat_map(Self::parts).collect(),
        };
        plan.steps.iter().flat_map(part).collect()
    }

    /// Shows the plan that ran last, where there is one.
    pub(super) fn with_plan<T>(&self, see: impl FnOnce(&Plan) -> T) -> Option<T> {
        let state = self.state();
        state.plans.get(state.last).map(|(_, plan)| see(plan))
    }

    /// Plans for inputs of these types, in order, and takes the plan for the one that runs.
    ///
    /// # Errors
    /// When no plan can be made.
    pub fn plan_for(&self, inputs: &[(DType, Vec<usize>)]) -> Result<()> {
        let key = Key(inputs.iter().cloned().map(Some).collect(), Vec::new());
        let mut state = self.state();
        state.last = match state.plans.iter().position(|(k, _)| *k == key) {
            Some(at) => at,
            None => {
                let types = self.model.graph.inputs.iter().zip(inputs);
                let types: Vec<(ValueId, Type)> = types
                    .map(|(&v, (dtype, dims))| {
                        let shape = dims.iter().map(|&n| Dim::Known(n)).collect();
                        (v, TensorType::new(*dtype, shape).into())
                    })
                    .collect();
                let plan = self
                    .maker
                    .plan(&self.model, &types, &BTreeSet::new(), &self.shelf)?;
                Self::put(&mut state, key, plan)
            }
        };
        Ok(())
    }

    /// Writes where the nodes of the last run ran, those that were planned in it included, by the
    /// nodes' slots.
    pub fn show_placements(&self, placements: &mut [Placement]) {
        let state = self.state();
        let Some((_, plan)) = state.plans.get(state.last) else {
            return;
        };
        for (id, _) in self.model.graph.nodes() {
            placements[id.index()] = plan.placements[id.index()].clone();
        }
        for step in &plan.steps {
            match &step.work {
                Work::Rest(rest) => rest.program.show_placements(placements),
                Work::Device(d) => {
                    if let Some(fault) = d.fault() {
                        d.fallback.show_placements(placements);
                        for (id, _) in d.fallback.model.graph.nodes() {
                            let why = format!("{} failed in a run: {fault}", d.provider);
                            placements[id.index()].note = Some(why);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// The programs inside a step.
fn inner(step: &Step) -> Vec<&Program> {
    match &step.work {
        Work::Evaluate(e) => e.bodies.iter().map(|(_, p)| p).collect(),
        Work::Rest(rest) => vec![&rest.program],
        Work::Device(d) => vec![&d.fallback],
        Work::Kernel(_) | Work::Checked(_) => Vec::new(),
    }
}

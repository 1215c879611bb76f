//! One run of a plan: step by step through the arena, beside it what is no tensor.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use edgesmith_ir::error::At;
use edgesmith_ir::eval::{self, EvalCx};
use edgesmith_ir::{Budget, Error, Item, Model, Result, Tensor, ValueId};
use edgesmith_kernels::arena::Arena;
use edgesmith_kernels::{Ctx, permute};
use smallvec::SmallVec;

use crate::plan::{Arg, Layout, Plan, Step, Work};
use crate::profile::{NodeProfile, Profile};

/// One run.
pub(super) struct Run<'a> {
    model: &'a Model,
    ctx: &'a Ctx,
    plan: &'a Plan,
    arena: &'a mut Arena,
    /// Values that are no tensors, or of shapes that the plan does not know.
    heap: Vec<Option<Item>>,
    budget: Budget,
}

impl<'a> Run<'a> {
    /// A run of `plan` in an arena that is large enough for it.
    pub fn new(plan: &'a Plan, ctx: &'a Ctx, arena: &'a mut Arena, budget: Budget) -> Self {
        let model = &plan.model;
        let heap = vec![None; model.graph.value_slots()];
        Self {
            model,
            ctx,
            plan,
            arena,
            heap,
            budget,
        }
    }

    /// Runs every step; the outputs.
    pub fn go(
        mut self,
        fed: &[Item],
        wanted: &BTreeSet<ValueId>,
        watch: &mut dyn FnMut(ValueId, &Tensor),
        mut profile: Option<&mut Profile>,
    ) -> Result<Vec<Item>> {
        let plan = self.plan;
        self.budget.hold(plan.arena_bytes as u64)?;
        for ((&v, place), t) in self.model.graph.inputs.iter().zip(&plan.inputs).zip(fed) {
            match (place, t) {
                (Some((slot, ..)), Item::Tensor(t)) => {
                    let part = self.arena.part_mut(plan.slots[*slot].clone());
                    part.ok_or_else(outside)?.copy_from_slice(t.bytes());
                }
                _ => self.heap[v.index()] = Some(t.clone()),
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
        let outputs = plan.outputs.iter().map(|a| self.item(a));
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
                    inputs.push(arg.as_ref().map(|a| self.item(a)).transpose()?);
                }
                let mut outer = Vec::new();
                if !e.captures.is_empty() {
                    outer.resize(self.model.graph.value_slots(), None);
                }
                for (v, arg) in &e.captures {
                    outer[v.index()] = Some(self.item(arg)?);
                }
                let held = self.budget.held();
                let cx = EvalCx::within(self.model, node, &inputs, &outer).under(&self.budget);
                let results = eval::evaluate_node(&cx)?;
                for (out, item) in e.outputs.iter().zip(results) {
                    let Some((v, slot)) = out else { continue };
                    if let Some(i) = slot {
                        self.put(step.writes[*i], &item).at(|| node.place())?;
                        continue;
                    }
                    if let Item::Tensor(tensor) = &item
                        && wanted.contains(v)
                    {
                        watch(*v, tensor);
                    }
                    self.heap[v.index()] = Some(item);
                }
                if e.outputs.iter().flatten().all(|(_, slot)| slot.is_some()) {
                    self.budget.release_to(held);
                }
                Ok(())
            }
        }
    }

    fn put(&mut self, slot: usize, item: &Item) -> Result<()> {
        let tensor = item.as_tensor()?;
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

    fn item(&self, arg: &Arg) -> Result<Item> {
        match arg {
            Arg::Slot { slot, dtype, dims } => {
                let part = self
                    .arena
                    .part(self.plan.slots[*slot].clone())
                    .ok_or_else(outside)?;
                let data = Bytes::copy_from_slice(part);
                Tensor::from_bytes(*dtype, dims, data).map(Item::Tensor)
            }
            Arg::Constant(t) => Ok(t.clone().into()),
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

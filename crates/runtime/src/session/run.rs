//! One run of a plan: step by step through the arena, beside it what is no tensor.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Instant;

use bytes::Bytes;
use edgesmith_ir::error::At;
use edgesmith_ir::eval::{self, Bodies, EvalCx};
use edgesmith_ir::{Budget, Error, Item, Model, Result, Tensor, ValueId};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::arena::Arena;
use smallvec::SmallVec;

use crate::plan::{
    Arg, Evaluate, Input, Layout, OnDevice, Plan, Rest, SlotId, Step, StepRow, Watch, Work, fed,
};
use crate::profile::Profile;
use crate::session::view::View;

/// Nanoseconds of work, by the estimate of [`work`], below which a step runs on one thread: others would gain
/// less than it takes to call them, and their time counts too.
const SHARED: u64 = 5000;

/// The alignment in bytes with which kernels read what a caller gave.
const ALIGNED: usize = 16;

/// One run.
pub(crate) struct Run<'a> {
    model: &'a Model,
    ctx: &'a Ctx,
    /// The same without other threads.
    alone: Ctx,
    plan: &'a Plan,
    arena: &'a mut Arena,
    /// Inputs that are read where the caller has them.
    given: SmallVec<[(SlotId, &'a [u8]); 2]>,
    /// Values that are no tensors, or of shapes that the plan does not know.
    heap: Vec<Option<Item>>,
    budget: &'a Budget,
}

impl<'a> Run<'a> {
    /// A run of `plan` in an arena that is large enough for it.
    pub fn new(plan: &'a Plan, ctx: &'a Ctx, arena: &'a mut Arena, budget: &'a Budget) -> Self {
        let model = &plan.model;
        let heap = vec![None; model.graph.value_slots()];
        Self {
            model,
            ctx,
            alone: ctx.on_one_thread(),
            plan,
            arena,
            given: SmallVec::new(),
            heap,
            budget,
        }
    }

    /// Runs every step; the outputs.
    pub fn go(
        mut self,
        fed: &'a [Item],
        mut watch: Watch,
        mut profile: Option<&mut Profile>,
    ) -> Result<Vec<Item>> {
        let plan = self.plan;
        self.budget.hold(plan.arena_bytes as u64)?;
        for ((&v, place), t) in self.model.graph.inputs.iter().zip(&plan.inputs).zip(fed) {
            match (place, t) {
                (Some(Input { slot, stays, .. }), Item::Tensor(t)) => {
                    let (range, bytes) = (plan.slots[*slot].clone(), t.bytes());
                    if range.len() != bytes.len() {
                        return Err(outside());
                    }
                    if *stays && bytes.as_ptr().addr().is_multiple_of(ALIGNED) {
                        self.given.push((*slot, bytes));
                        continue;
                    }
                    let part = self.arena.part_mut(range);
                    part.ok_or_else(outside)?.copy_from_slice(bytes);
                }
                _ => self.heap[v.index()] = Some(t.clone()),
            }
        }
        if let Some(p) = profile.as_deref_mut() {
            p.start(plan);
        }
        for (i, step) in plan.steps.iter().enumerate() {
            let started = profile.is_some().then(Instant::now);
            let mut inner = profile.is_some().then(Profile::default);
            self.step(i, &mut watch, inner.as_mut())?;
            if let (Some(p), Some(t), Some(inner)) = (profile.as_deref_mut(), started, inner) {
                p.add(i, t, &inner);
            }
            for &(v, slot, layout) in &step.makes {
                if watch.wanted.contains(&v) {
                    (watch.show)(v, self.shown(v, slot, layout)?);
                }
            }
        }
        let outputs = plan.outputs.iter().map(|a| self.item(a));
        outputs.collect()
    }

    fn step(&mut self, i: usize, watch: &mut Watch, inner: Option<&mut Profile>) -> Result<()> {
        let step = &self.plan.steps[i];
        match &step.work {
            Work::Kernel(_) | Work::Checked(_) => {
                let range = |&s: &usize| self.plan.slots[s].clone();
                let given = match self.plan.reads_inputs[i] {
                    true => &self.given[..],
                    false => &[],
                };
                let own = |s: &usize| match given.iter().any(|(slot, _)| slot == s) {
                    true => 0..0,
                    false => range(s),
                };
                let reads: SmallVec<[_; 6]> = step.reads.iter().map(own).collect();
                let writes: SmallVec<[_; 2]> = step.writes.iter().map(range).collect();
                let parts = self.arena.split(&reads, &writes);
                let (mut reads, mut writes) = parts.ok_or_else(outside)?;
                for &(slot, bytes) in given {
                    let own = reads.iter_mut().zip(&step.reads);
                    own.filter(|(_, s)| **s == slot)
                        .for_each(|(read, _)| *read = bytes);
                }
                let lengths = reads.iter().map(|r| r.len());
                let bytes = lengths.chain(writes.iter().map(|w| w.len())).sum();
                let ctx = match work(&step.row, bytes) < SHARED {
                    true => &self.alone,
                    false => self.ctx,
                };
                match &step.work {
                    Work::Kernel(kernel) => kernel(ctx, &reads, &mut writes),
                    Work::Checked(kernel) => kernel(ctx, &reads, &mut writes)?,
                    Work::Evaluate(_) | Work::Rest(_) | Work::Device(_) => {}
                }
                Ok(())
            }
            Work::Evaluate(e) => self.evaluate(e, step, watch, inner),
            Work::Rest(rest) => self.rest(rest, watch, inner),
            Work::Device(d) => self.device(d, step, inner),
        }
    }

    /// Plans and runs what is left of the graph.
    fn rest(&mut self, rest: &Rest, watch: &mut Watch, inner: Option<&mut Profile>) -> Result<()> {
        let inputs = rest.inputs.iter().map(|a| self.item(a));
        let inputs: Vec<Item> = inputs.collect::<Result<_>>()?;
        let watch = Watch {
            wanted: watch.wanted,
            show: watch.show,
        };
        let outputs = rest.program.run(&inputs, self.budget, watch, inner)?;
        for (&v, item) in rest.program.model.graph.outputs.iter().zip(outputs) {
            self.heap[v.index()] = Some(item);
        }
        Ok(())
    }

    /// Runs a part on its device, or by the next providers once that failed.
    fn device(&mut self, d: &OnDevice, step: &Step, inner: Option<&mut Profile>) -> Result<()> {
        let inputs = d.inputs.iter().map(|a| self.item(a));
        let inputs: Vec<Item> = inputs.collect::<Result<_>>()?;
        let mut fault = d.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outputs = None;
        if fault.is_none() {
            let tensors = inputs.iter().map(|i| i.as_tensor().cloned());
            let tensors: Vec<Tensor> = tensors.collect::<Result<_>>()?;
            match d.part.run(&tensors).and_then(|made| self.checked(d, made)) {
                Ok(made) => outputs = Some(made),
                Err(e) => *fault = Some(e),
            }
        }
        drop(fault);
        let outputs = match outputs {
            Some(outputs) => outputs,
            None => {
                let watch = Watch {
                    wanted: &BTreeSet::new(),
                    show: &mut |_, _| (),
                };
                d.fallback.run(&inputs, self.budget, watch, inner)?
            }
        };
        for ((v, slot), item) in d.outputs.iter().zip(outputs) {
            match slot {
                Some(i) => self.put(step.writes[*i], &item)?,
                None => self.heap[v.index()] = Some(item),
            }
        }
        Ok(())
    }

    /// What a device made, where it is of the types that the plan knows.
    fn checked(&self, d: &OnDevice, made: Vec<Tensor>) -> Result<Vec<Item>> {
        let fits = made.len() == d.outputs.len()
            && made.iter().zip(&d.outputs).all(|(t, (v, _))| {
                let known = self.plan.types[v.index()].as_ref();
                known.is_none_or(|(dtype, dims)| t.dtype() == *dtype && t.dims() == dims)
            });
        if !fits {
            return Err(Error::invalid(
                "the outputs are of other types than ONNX gives them",
            ));
        }
        Ok(made.into_iter().map(Item::Tensor).collect())
    }

    fn evaluate(
        &mut self,
        e: &Evaluate,
        step: &Step,
        watch: &mut Watch,
        inner: Option<&mut Profile>,
    ) -> Result<()> {
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
        let bodies = Inside {
            run: self,
            evaluate: e,
            captured: RefCell::new(vec![None; e.bodies.len()]),
            profile: RefCell::new(inner),
        };
        let cx = EvalCx::within(self.model, node, &inputs, &outer).under(self.budget);
        let results = eval::evaluate_node(&cx.with_bodies(&bodies))?;
        for (out, item) in e.outputs.iter().zip(results) {
            let Some((v, slot)) = out else { continue };
            if let Some(i) = slot {
                self.put(step.writes[*i], &item).at(|| node.place())?;
                continue;
            }
            if let Item::Tensor(tensor) = &item
                && watch.wanted.contains(v)
            {
                (watch.show)(*v, View::of(self.ctx, tensor));
            }
            self.heap[v.index()] = Some(item);
        }
        if e.outputs.iter().flatten().all(|(_, slot)| slot.is_some()) {
            self.budget.release_to(held);
        }
        Ok(())
    }

    /// An input that is read where the caller has it.
    fn given(&self, slot: SlotId) -> Option<&'a [u8]> {
        let found = self.given.iter().find(|(s, _)| *s == slot);
        found.map(|(_, bytes)| *bytes)
    }

    /// What a slot holds.
    fn part(&self, slot: SlotId) -> Result<&[u8]> {
        let part = || self.arena.part(self.plan.slots[slot].clone());
        self.given(slot).or_else(part).ok_or_else(outside)
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
                let data = Bytes::copy_from_slice(self.part(*slot)?);
                Tensor::from_bytes(*dtype, dims, data).map(Item::Tensor)
            }
            Arg::Constant(t) => Ok(t.clone().into()),
            Arg::Heap(v) => self.heap[v.index()].clone().ok_or_else(|| {
                let name = &self.model.graph.value(*v).name;
                Error::invalid(format!("value \"{name}\" was never made"))
            }),
        }
    }

    /// A value for those who watch.
    fn shown(&self, v: ValueId, slot: usize, layout: Layout) -> Result<View<'_>> {
        let (dtype, dims) = self.plan.types[v.index()].as_ref().ok_or_else(outside)?;
        let part = self.part(slot)?;
        Ok(View::new(self.ctx, (*dtype, dims), layout, part))
    }
}

/// About how many nanoseconds a step takes on one thread that multiplies with wide vectors.
fn work(row: &StepRow, bytes: usize) -> u64 {
    let macs = if row.integer { 256 } else { 64 };
    row.macs / macs + bytes as u64 / 16
}

fn outside() -> Error {
    Error::internal("a step reaches outside of the planned memory")
}

/// The planned graphs inside one node, while it is evaluated.
struct Inside<'a, 'b> {
    run: &'a Run<'b>,
    evaluate: &'a Evaluate,
    /// What each reads of the values around it, once it is asked for.
    captured: RefCell<Vec<Option<Vec<Item>>>>,
    profile: RefCell<Option<&'a mut Profile>>,
}

impl Bodies for Inside<'_, '_> {
    fn run(&self, name: &str, inputs: &[Option<Item>]) -> Result<Option<Vec<Item>>> {
        let mut bodies = self.evaluate.bodies.iter();
        let Some(i) = bodies.position(|(n, _)| n == name) else {
            return Ok(None);
        };
        let mut captured = self.captured.borrow_mut();
        let captures = match &mut captured[i] {
            Some(known) => known,
            none => {
                let read = self.evaluate.read[i].iter().map(|a| self.run.item(a));
                none.insert(read.collect::<Result<_>>()?)
            }
        };
        let Some(fed) = fed(inputs, captures) else {
            return Ok(None);
        };
        let mut profile = self.profile.borrow_mut();
        let mut own = profile.is_some().then(Profile::default);
        let watch = Watch {
            wanted: &BTreeSet::new(),
            show: &mut |_, _| (),
        };
        let program = &self.evaluate.bodies[i].1;
        let outputs = program.run(&fed, self.run.budget, watch, own.as_mut())?;
        if let (Some(all), Some(own)) = (profile.as_deref_mut(), own) {
            all.merge(&own);
        }
        Ok(Some(outputs))
    }
}

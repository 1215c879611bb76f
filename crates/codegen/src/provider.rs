//! The arithmetic of generated code as a provider of a session: what a microcontroller would answer,
//! bit by bit in integers, without one.

use std::sync::Arc;

use edgesmith_ir::analysis::samples::independent;
use edgesmith_ir::infer::{Inferred, infer};
use edgesmith_ir::{DType, Dim, Error, Model, Result, Tensor};
use edgesmith_runtime::Provider;
use edgesmith_runtime::device::{Asked, Device, Part, Unit};

use crate::emit::EMITTERS;
use crate::expand::operators;
use crate::lower::lower;
use crate::program::Program;

/// The provider.
pub static MCU: Provider = Provider::of_parts(
    "mcu",
    "the arithmetic of generated C for microcontrollers: integers, rounded as the device rounds",
    open,
);

/// Those that a session may name.
pub static PROVIDERS: &[&Provider] = &[&MCU];

struct Mcu;

fn open(asked: &Asked) -> Result<Arc<dyn Device>> {
    match asked.settings.first() {
        Some((key, _)) => Err(Error::usage(format!("mcu has no setting \"{key}\""))),
        None => Ok(Arc::new(Mcu)),
    }
}

impl Device for Mcu {
    fn verdict(&self, unit: &Unit) -> std::result::Result<(), String> {
        let node = unit.node();
        let emitted = EMITTERS.iter().map(|e| (e.domain, e.op));
        let mut all = emitted.chain(operators());
        let known = all.any(|(domain, op)| node.op == op && node.domain == domain);
        if known {
            Ok(())
        } else {
            Err(format!("{} has no emitter", unit.full_op()))
        }
    }

    /// Asked for by name, it takes all that it can: what it is for is its answers.
    fn speed(&self) -> f64 {
        1e6
    }

    fn launch_ns(&self) -> f64 {
        0.0
    }

    fn compile(&self, part: &Model) -> Result<Box<dyn Part>> {
        let types = infer(part, &[])?;
        let dtype = |&v| types.tensor(v).map_or(DType::F32, |t| t.dtype);
        let one = single(part, &types);
        Ok(Box::new(Lowered {
            program: lower(one.as_ref().map_or(part, |(one, _)| one))?,
            outputs: part.graph.outputs.iter().map(dtype).collect(),
            batch: one.map(|(_, batch)| batch),
        }))
    }
}

/// The part for one sample, where its inputs hold a batch of samples that stay apart along their first
/// axes.
fn single(part: &Model, types: &Inferred) -> Option<(Model, usize)> {
    let mut open = part.clone();
    let set = |model: &mut Model, dim: &Dim| {
        for v in part.graph.inputs.clone() {
            let mut ty = types.tensor(v)?.clone();
            *ty.shape.as_mut()?.0.first_mut()? = dim.clone();
            model.graph.value_mut(v).ty = Some(ty.into());
        }
        Some(())
    };
    set(&mut open, &Dim::symbol("batch"))?;
    let samples = independent(&open, types)?;
    let mut axes = samples.inputs.iter().chain(&samples.outputs);
    if samples.count < 2 || !axes.all(|a| *a == Some(0)) {
        return None;
    }
    let mut one = part.clone();
    for (id, _) in part.graph.values() {
        one.graph.value_mut(id).ty = part
            .graph
            .value(id)
            .ty
            .clone()
            .filter(|_| part.graph.is_input(id));
    }
    set(&mut one, &Dim::Known(1))?;
    Some((one, samples.count))
}

/// A part of a model as a program.
struct Lowered {
    program: Program,
    /// The types that the graph gives its outputs.
    outputs: Vec<DType>,
    /// How many samples a run has, one after the other, where they are several.
    batch: Option<usize>,
}

impl Lowered {
    /// Runs one sample.
    fn one(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let given = inputs.iter().enumerate();
        let given: Result<Vec<_>> = given.map(|(i, t)| self.program.input(i, t)).collect();
        let made = self.program.run(&given?)?;
        let typed = made.iter().zip(&self.outputs).enumerate();
        typed
            .map(|(i, (data, &dtype))| self.program.output(i, data, dtype))
            .collect()
    }
}

impl Part for Lowered {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let Some(batch) = self.batch else {
            return self.one(inputs);
        };
        let mut all: Vec<Vec<u8>> = vec![Vec::new(); self.outputs.len()];
        let mut dims: Vec<Vec<usize>> = vec![Vec::new(); self.outputs.len()];
        for n in 0..batch {
            let of = |t: &Tensor| {
                let mut dims = t.dims().to_vec();
                dims[0] = 1;
                let each = t.byte_len() / batch;
                Tensor::from_bytes(t.dtype(), &dims, t.bytes().slice(n * each..(n + 1) * each))
            };
            let inputs: Result<Vec<_>> = inputs.iter().map(of).collect();
            for (i, t) in self.one(&inputs?)?.iter().enumerate() {
                all[i].extend_from_slice(t.bytes());
                dims[i] = t.dims().to_vec();
                dims[i][0] = batch;
            }
        }
        let whole = all.into_iter().zip(&dims).zip(&self.outputs);
        whole
            .map(|((bytes, dims), &dtype)| Tensor::from_bytes(dtype, dims, bytes.into()))
            .collect()
    }
}

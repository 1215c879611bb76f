//! The arithmetic of generated code as a provider of a session: what a microcontroller would answer,
//! bit by bit in integers, without one.

use std::sync::Arc;

use edgesmith_ir::infer::infer;
use edgesmith_ir::{DType, Error, Model, Result, Tensor};
use edgesmith_runtime::Provider;
use edgesmith_runtime::device::{Asked, Device, Part, Unit};

use crate::emit::EMITTERS;
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
        let known = EMITTERS
            .iter()
            .any(|e| node.op == e.op && node.domain == e.domain);
        if known { Ok(()) } else { Err(format!("{} has no emitter", unit.full_op())) }
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
        Ok(Box::new(Lowered {
            program: lower(part)?,
            outputs: part.graph.outputs.iter().map(dtype).collect(),
        }))
    }
}

struct Lowered {
    program: Program,
    outputs: Vec<DType>,
}

impl Part for Lowered {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let given = inputs.iter().enumerate();
        let given: Result<Vec<_>> = given.map(|(i, t)| self.program.input(i, t)).collect();
        let made = self.program.run(&given?)?;
        let typed = made.iter().zip(&self.outputs).enumerate();
        typed
            .map(|(i, (data, &dtype))| self.program.output(i, data, dtype))
            .collect()
    }
}

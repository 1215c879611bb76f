//! A simulated accelerator, on which placement and fallback are tried: integers only, static
//! shapes, channels in sixteens, and failures by script.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use edgesmith_ir::{Error, Model, Result, Tensor};

use super::Provider;
use crate::device::{Asked, Device, Part, Unit};
use crate::session::{Options, Session};

/// The provider.
pub static NPU_SIM: Provider = Provider::of_parts(
    "npu-sim",
    "a simulated accelerator: integers only, static shapes, channels in sixteens; fails by script",
    open,
);

/// Channels that it computes at a time.
const LANES: usize = 16;

struct Npu {
    /// The compilation that fails, counted from 1; 0: none.
    fail_compile: usize,
    /// The run that fails, counted from 1 over all parts; 0: none.
    fail_run: usize,
    launch_ns: f64,
    compiled: AtomicUsize,
    runs: Arc<AtomicUsize>,
}

fn open(asked: &Asked) -> Result<Arc<dyn Device>> {
    let mut npu = Npu {
        fail_compile: 0,
        fail_run: 0,
        launch_ns: 20_000.0,
        compiled: AtomicUsize::new(0),
        runs: Arc::default(),
    };
    for (key, value) in &asked.settings {
        let number: usize = value
            .parse()
            .map_err(|_| Error::usage(format!("npu-sim: {key} is a number, not \"{value}\"")))?;
        match key.as_str() {
            "fail-compile" => npu.fail_compile = number,
            "fail-run" => npu.fail_run = number,
            "launch" => npu.launch_ns = number as f64,
            _ => {
                return Err(Error::usage(format!("npu-sim has no setting \"{key}\""))
                    .hint("the settings are fail-compile, fail-run and launch (nanoseconds)"));
            }
        }
    }
    Ok(Arc::new(npu))
}

impl Device for Npu {
    fn verdict(&self, unit: &Unit) -> Result<(), String> {
        let node = unit.node();
        if !node.domain.is_empty() {
            return Err(format!("{} is no operator of ONNX's own", unit.full_op()));
        }
        if !unit.is_integer() {
            return Err("it computes in floats: only Q/DQ groups run here".into());
        }
        match unit.op() {
            "Conv" => channels(unit, 1, &[0]),
            "QLinearConv" => channels(unit, 3, &[0]),
            "MatMul" | "Gemm" => channels(unit, 1, &[0, 1]),
            "QLinearMatMul" => channels(unit, 3, &[0, 1]),
            "Add" | "Mul" | "Relu" | "Clip" | "AveragePool" | "MaxPool" | "GlobalAveragePool" => {
                let output = unit.outputs().first().and_then(|&v| unit.typed(v));
                let channels = output.and_then(|(_, dims)| dims.get(1).copied());
                aligned("channels", channels.unwrap_or(1))
            }
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => Ok(()),
            op => Err(format!("it has no {op}")),
        }
    }

    fn speed(&self) -> f64 {
        8.0
    }

    fn launch_ns(&self) -> f64 {
        self.launch_ns
    }

    fn compile(&self, part: &Model) -> Result<Box<dyn Part>> {
        if self.compiled.fetch_add(1, Ordering::Relaxed) + 1 == self.fail_compile {
            return Err(Error::unsupported("the script lets this compilation fail"));
        }
        let options = Options {
            providers: vec![super::reference::REFERENCE.name.into()],
            threads: 1,
            ..Options::default()
        };
        let inputs = part.graph.inputs.iter();
        Ok(Box::new(Simulated {
            names: inputs.map(|&v| part.graph.value(v).name.clone()).collect(),
            session: Mutex::new(Session::prepare(part, &options)?),
            fail_run: self.fail_run,
            runs: self.runs.clone(),
        }))
    }
}

/// Refuses weights (input `i`) whose lengths along `axes` are not whole sixteens.
fn channels(unit: &Unit, i: usize, axes: &[usize]) -> Result<(), String> {
    let weights = unit.node().input(i).and_then(|v| unit.constant(v));
    let weights = weights.ok_or("its weights are computed in the run")?;
    axes.iter()
        .try_for_each(|&a| aligned("channels", weights.dims().get(a).copied().unwrap_or(1)))
}

fn aligned(what: &str, n: usize) -> Result<(), String> {
    match n % LANES {
        0 => Ok(()),
        _ => Err(format!("{n} {what} are no multiple of {LANES}")),
    }
}

struct Simulated {
    names: Vec<String>,
    session: Mutex<Session>,
    fail_run: usize,
    runs: Arc<AtomicUsize>,
}

impl Part for Simulated {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        if self.runs.fetch_add(1, Ordering::Relaxed) + 1 == self.fail_run {
            return Err(Error::unsupported("the script lets this run fail"));
        }
        let named = self
            .names
            .iter()
            .map(String::as_str)
            .zip(inputs.iter().cloned());
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.run(&named.collect::<Vec<_>>())
    }
}

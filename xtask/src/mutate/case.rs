//! One damaged file or model: what it is, and what is done with it.

use anyhow::Result;
use edgesmith_formats::onnx;
use edgesmith_ir::analysis::concrete_inputs;
use edgesmith_ir::error::Kind;
use edgesmith_ir::{DType, Error, Item, Limits, Model, Tensor, eval, infer, ops, text, verify};
use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::{Rng, mutate, random};
use serde::{Deserialize, Serialize};

use super::ALLOCATED;
use crate::workers::caught;

/// What a run of a case may use.
const LIMITS: Limits = Limits {
    bytes: 32 << 20,
    steps: 20_000,
    work: 200_000_000,
};

/// Bytes that a case may have allocated at a time, whatever the limits do not count included.
const MAX_PEAK: u64 = 1 << 30;

/// Address space of a worker: what asks for more is ended.
const MAX_SPACE: u64 = 6 << 30;

/// Larger inputs are not made for a run.
const MAX_INPUT: usize = 1 << 18;

/// What became of a case.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The last stage that it reached.
    pub stage: String,
    /// What should not be.
    pub fault: Option<String>,
    /// Bytes allocated at a time, at the most.
    pub peak: u64,
}

/// Small sound files of every operator.
pub fn seeds() -> Result<Vec<Vec<u8>>> {
    let examples = ops::OPS.iter().flat_map(|op| op.examples);
    examples
        .map(|example| Ok(onnx::encode(&text::example(example)?.0)?))
        .collect()
}

/// Ends this process rather than let it take the machine's memory.
pub fn limit_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit {
        current: Some(MAX_SPACE),
        maximum: Some(MAX_SPACE),
    };
    // Without it the cases are the same, and only what they may break is more.
    let _ = setrlimit(Resource::As, limit);
}

/// The damaged model of a seed, where its file is one: every other is damaged as a file.
fn model(seeds: &[Vec<u8>], seed: u64) -> Result<Model, Error> {
    let mut rng = Rng::new(seed);
    let random = rng.one_in(2);
    let graph = random::graph as fn(u64) -> Model;
    if seed.is_multiple_of(2) {
        let file = match random {
            true => onnx::encode(&graph(rng.next_u64()))?,
            false => rng.pick(seeds).clone(),
        };
        return onnx::decode(mutate::file::mutate(&file, &mut rng).into(), None);
    }
    let mut model = match random {
        true => graph(rng.next_u64()),
        false => onnx::decode(rng.pick(seeds).clone().into(), None)?,
    };
    mutate::model::mutate(&mut model, &mut rng);
    Ok(model)
}

/// The model of a seed, to read.
pub fn text(seeds: &[Vec<u8>], seed: u64) -> Result<String> {
    let model = match model(seeds, seed) {
        Ok(model) => model,
        Err(e) => return Ok(format!("no model: {e}")),
    };
    Ok(text::print(&model).unwrap_or_else(|e| format!("no text: {e}")))
}

/// Does everything with the case of a seed.
pub fn answer(seeds: &[Vec<u8>], seed: u64) -> Answer {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let mut stage = "decode";
    let fault = match caught(|| work(seeds, seed, &mut stage)) {
        Ok(Ok(())) => None,
        Ok(Err(fault)) => Some(fault),
        Err(panic) => Some(place_of(&panic)),
    };
    let peak = ALLOCATED.peak_usage().saturating_sub(before) as u64;
    let over = || (peak > MAX_PEAK).then(|| format!("over {} MiB in {stage}", MAX_PEAK >> 20));
    Answer {
        stage: stage.into(),
        fault: fault.or_else(over),
        peak,
    }
}

/// A panic without the numbers in its message, so that like ones are counted together.
fn place_of(panic: &str) -> String {
    let (place, said) = panic.split_once(": ").unwrap_or((panic, ""));
    let said: String = said.chars().filter(|c| !c.is_ascii_digit()).collect();
    format!("{place}: {said}")
}

/// Errors are as it should be, but for those that say that this program is wrong.
fn fine<T>(what: &str, result: Result<T, Error>) -> Result<Option<T>, String> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind == Kind::Internal => {
            let op = e.place.iter().map(|p| p.split(' ').next().unwrap_or(p));
            let op: Vec<&str> = op.collect();
            let said = e.message.split([',', '\n']).next().unwrap_or_default();
            let said: String = said.chars().filter(|c| !c.is_ascii_digit()).collect();
            Err(format!("{what}: {}: {said}", op.join(": ")))
        }
        Err(_) => Ok(None),
    }
}

fn work(seeds: &[Vec<u8>], seed: u64, stage: &mut &'static str) -> Result<(), String> {
    let Some(mut model) = fine("decode", model(seeds, seed))? else {
        return Ok(());
    };
    *stage = "verify";
    if verify::verify(&model).is_err() {
        return Ok(());
    }
    *stage = "infer";
    if fine("infer", infer::infer(&model, &[]))?.is_none() {
        return Ok(());
    }
    *stage = "inputs";
    let inputs = inputs(&model, seed);
    *stage = "run";
    run(&model, inputs.as_deref())?;
    *stage = "optimise";
    let options = RunOptions {
        verify: true,
        ..RunOptions::default()
    };
    if fine("optimise", optimize(&mut model, Level::Layout, &options))?.is_none() {
        return Ok(());
    }
    *stage = "optimised";
    run(&model, inputs.as_deref())?;
    *stage = "done";
    Ok(())
}

/// Runs by reference and by the cpu; without inputs it is only prepared.
fn run(model: &Model, inputs: Option<&[(String, Item)]>) -> Result<(), String> {
    let options = Options {
        threads: 1,
        limits: LIMITS,
        ..Options::default()
    };
    let session = fine("prepare", Session::prepare(model, &options))?;
    let Some(inputs) = inputs else { return Ok(()) };
    let inputs: Vec<(&str, Item)> = inputs
        .iter()
        .map(|(n, i)| (n.as_str(), i.clone()))
        .collect();
    fine("reference", eval::evaluate_within(model, &inputs, LIMITS))?;
    if let Some(mut session) = session {
        fine("cpu", session.run_items(&inputs))?;
    }
    Ok(())
}

/// Random tensors for all inputs, zeros for types that have no random ones; `None` where an input
/// is no small tensor.
fn inputs(model: &Model, seed: u64) -> Option<Vec<(String, Item)>> {
    let types = concrete_inputs(model, &[]);
    if types.len() != model.graph.inputs.len() {
        return None;
    }
    let mut rng = Rng::new(seed ^ 0x0DD);
    let mut one = |(v, ty): &(edgesmith_ir::ValueId, edgesmith_ir::Type)| {
        let ty = ty.tensor()?;
        let dims = ty.shape.as_ref()?.known()?;
        let count = edgesmith_ir::checked_count(&dims).ok();
        let count = count.filter(|&n| n <= MAX_INPUT)?;
        let zeros = || match ty.dtype {
            DType::String => Tensor::from_strings(&dims, vec!["a".into(); count]).ok(),
            _ => {
                let bytes = vec![0; ty.dtype.bytes_of(count)?];
                Tensor::from_bytes(ty.dtype, &dims, bytes.into()).ok()
            }
        };
        let tensor = rng.tensor(ty.dtype, &dims).or_else(zeros)?;
        Some((model.graph.value(*v).name.clone(), Item::from(tensor)))
    };
    types.iter().map(&mut one).collect()
}

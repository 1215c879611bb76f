//! Measures a model here, in tract and in rten, in turn in one thread: `edgesmith-peers MODEL
//! ITERATIONS [NAME=LENGTH…]` prints JSON. `cargo xtask bench --rust-engines` runs it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use edgesmith_ir::analysis::lengths;
use edgesmith_ir::{DType, Model, Tensor};
use edgesmith_passes::{Level, RunOptions};
use edgesmith_runtime::{Options, Session};
use rten_tensor::AsView;
use serde_json::{Value, json};
use tract_onnx::prelude::*;

type Inputs = Vec<(String, Tensor)>;

/// One inference: the first output, where it is of floats.
type Run = Box<dyn FnMut() -> Result<Vec<f32>>>;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [path, iterations, dims @ ..] = &words[..] else {
        bail!("edgesmith-peers MODEL ITERATIONS [NAME=LENGTH…]");
    };
    let (path, iterations) = (Path::new(path), iterations.parse()?);
    let model = edgesmith_formats::read(path)?;
    let inputs = inputs(&model, dims)?;
    let mut runs = vec![ours(model, &inputs)?];
    let peers = [
        ("tract", tract(path, &inputs)),
        ("rten", rten(path, &inputs)),
    ];
    let wanted = runs[0]()?;
    let mut told = json!({});
    let mut names = Vec::new();
    for (name, run) in peers {
        let tried = run.and_then(|mut run| {
            let found = run()?;
            Ok((run, difference(&wanted, &found)))
        });
        match tried {
            Ok((run, difference)) => {
                runs.push(run);
                names.push((name, difference));
            }
            Err(e) => told[name] = json!({ "error": format!("{e:#}") }),
        }
    }
    let times = interleaved(&mut runs, iterations)?;
    told["ms"] = median(&times[0]).into();
    for ((name, difference), theirs) in names.into_iter().zip(&times[1..]) {
        told[name] = compared(&times[0], theirs, difference);
        told[name]["version"] = version(name).into();
    }
    println!("{told}");
    Ok(())
}

/// Inputs of the declared shapes, with the lengths that `dims` names, or such as the model can work
/// with: small numbers.
fn inputs(model: &Model, dims: &[String]) -> Result<Inputs> {
    let mut given = Vec::new();
    for dim in dims {
        let (name, n) = dim.split_once('=').context("lengths are NAME=LENGTH")?;
        given.push((name, n.parse()?));
    }
    let mut inputs = Vec::new();
    for (v, ty) in lengths::workable_inputs(model, &given)? {
        let value = model.graph.value(v);
        let ty = ty.tensor().context("inputs are tensors")?;
        let shape = ty.shape.as_ref().and_then(|s| s.known());
        let lengths = shape.context("inputs have shapes")?;
        let count: usize = lengths.iter().product();
        let number = |i: usize| i.wrapping_mul(2_654_435_761) % 1000;
        let tensor = match ty.dtype {
            DType::F32 => {
                let all = (0..count).map(|i| number(i) as f32 / 500.0 - 1.0);
                Tensor::from_vec(&lengths, all.collect::<Vec<f32>>())
            }
            DType::I64 => {
                let all = (0..count).map(|i| i64::from(number(i) % 2 == 0 || i == 0));
                Tensor::from_vec(&lengths, all.collect::<Vec<i64>>())
            }
            DType::I32 => {
                let all = (0..count).map(|i| number(i) as i32 % 256);
                Tensor::from_vec(&lengths, all.collect::<Vec<i32>>())
            }
            other => bail!("inputs of {other} are not made"),
        };
        inputs.push((value.name.clone(), tensor?));
    }
    Ok(inputs)
}

fn ours(mut model: Model, inputs: &Inputs) -> Result<Run> {
    edgesmith_passes::optimize(&mut model, Level::Extended, &RunOptions::default())?;
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    let mut session = Session::prepare(&model, &options)?;
    let inputs = inputs.clone();
    Ok(Box::new(move || {
        let inputs: Vec<_> = inputs.iter().map(|(n, t)| (&n[..], t.clone())).collect();
        let outputs = session.run(&inputs)?;
        Ok(outputs[0].to_f32()?.into_owned())
    }))
}

fn tract(path: &Path, inputs: &Inputs) -> Result<Run> {
    let mut model = tract_onnx::onnx().model_for_path(path)?;
    let mut fed = TVec::new();
    for (i, (_, tensor)) in inputs.iter().enumerate() {
        let (kind, dims) = (tract_type(tensor.dtype())?, tensor.dims());
        model = model.with_input_fact(i, InferenceFact::dt_shape(kind, dims))?;
        let bytes = tensor.bytes();
        // SAFETY: every pattern of bits is a number of these types.
        let tensor = unsafe { tract_onnx::prelude::Tensor::from_raw_dt(kind, dims, &bytes)? };
        fed.push(tensor.into_tvalue());
    }
    let model = model.into_optimized()?.into_runnable()?;
    Ok(Box::new(move || {
        let outputs = model.run(fed.clone())?;
        Ok(outputs[0]
            .cast_to::<f32>()?
            .to_plain_array_view::<f32>()?
            .iter()
            .copied()
            .collect())
    }))
}

fn tract_type(kind: DType) -> Result<DatumType> {
    Ok(match kind {
        DType::F32 => DatumType::F32,
        DType::I64 => DatumType::I64,
        DType::I32 => DatumType::I32,
        other => bail!("inputs of {other} are not made"),
    })
}

fn rten(path: &Path, inputs: &Inputs) -> Result<Run> {
    let mut options = rten::ModelOptions::with_all_ops();
    options.prepack_weights(true);
    let model = options.load_file(path)?;
    let mut fed: Vec<(rten::NodeId, rten::Value)> = Vec::new();
    for (name, tensor) in inputs {
        let (id, dims) = (model.node_id(name)?, tensor.dims());
        let value = match tensor.dtype() {
            DType::F32 => {
                let data = tensor.data::<f32>()?.into_owned();
                rten_tensor::Tensor::from_data(dims, data).into()
            }
            // It holds 64-bit integers in 32 bits.
            _ => {
                let data = tensor
                    .to_i64()?
                    .iter()
                    .map(|&x| x as i32)
                    .collect::<Vec<_>>();
                rten_tensor::Tensor::from_data(dims, data).into()
            }
        };
        fed.push((id, value));
    }
    let outputs = vec![*model.output_ids().first().context("there is an output")?];
    let pool = Arc::new(rten::ThreadPool::with_num_threads(1));
    Ok(Box::new(move || {
        let options = rten::RunOptions::default().with_thread_pool(Some(pool.clone()));
        let fed = fed
            .iter()
            .map(|(id, v)| (*id, v.as_view().into()))
            .collect();
        let found = model.run(fed, &outputs, Some(options))?;
        let first = found.into_iter().next().context("there is an output")?;
        match first.into_tensor::<f32>() {
            Some(t) => Ok(t.iter().copied().collect()),
            None => Err(anyhow!("the first output is not of floats")),
        }
    }))
}

/// The largest difference in parts of the largest output.
fn difference(a: &[f32], b: &[f32]) -> Option<f32> {
    let largest = a.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
    let apart = a.iter().zip(b).map(|(x, y)| (x - y).abs());
    (a.len() == b.len()).then(|| apart.fold(0.0, f32::max) / largest)
}

/// CPU milliseconds of each run, in turn.
fn interleaved(runs: &mut [Run], iterations: usize) -> Result<Vec<Vec<f64>>> {
    let mut times = vec![Vec::new(); runs.len()];
    for round in 0..iterations + 2 {
        for (run, times) in runs.iter_mut().zip(&mut times) {
            let before = cpu_time();
            run()?;
            if round >= 2 {
                times.push((cpu_time() - before).as_secs_f64() * 1e3);
            }
        }
    }
    Ok(times)
}

fn cpu_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

fn compared(ours: &[f64], theirs: &[f64], difference: Option<f32>) -> Value {
    let mut rounds: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    rounds.sort_by(f64::total_cmp);
    let quartile = |q: usize| rounds[(rounds.len() - 1) * q / 4];
    json!({
        "ms": median(theirs),
        "ratio": median(ours) / median(theirs),
        "spread": [quartile(1), quartile(3)],
        "difference": difference,
    })
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The version of a package in the lock file.
fn version(name: &str) -> &'static str {
    let package = match name {
        "tract" => "name = \"tract-onnx\"",
        _ => "name = \"rten\"",
    };
    let mut lines = include_str!("../Cargo.lock").lines();
    lines.find(|l| *l == package);
    let next = lines.next().unwrap_or_default();
    next.trim_start_matches("version = ").trim_matches('"')
}

//! Times a model on the first samples of an npz: `time_model MODEL INPUTS.npz [BATCH] [RUNS]
//! [THREADS]`; the median of all runs and the time of each node, outputs into `--save OUT.npz`;
//! `--dense` multiplies zeros of weights too.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to people"
)]

use std::path::Path;
use std::time::Instant;

use edgesmith_formats::{npz, read};
use edgesmith_ir::{Error, Result, Tensor};
use edgesmith_runtime::{Options, Session};

fn rows(t: &Tensor, batch: usize) -> Result<Tensor> {
    let mut dims = t.dims().to_vec();
    let all = dims.first().copied().unwrap_or(1).max(1);
    let size = t.byte_len() / all;
    let batch = batch.min(all);
    if let Some(first) = dims.first_mut() {
        *first = batch;
    }
    Tensor::from_bytes(t.dtype(), &dims, t.bytes().slice(..size * batch)).map(|t| t.detached())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |i: usize, default: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let [model, data, ..] = &args[..] else {
        return Err(Error::usage(
            "time_model MODEL INPUTS.npz [BATCH] [RUNS] [THREADS] [--save OUT] [--profile] [--dense]",
        ));
    };
    let (batch, runs) = (number(2, 1), number(3, 20));
    let model = read(Path::new(model))?;
    let options = Options {
        threads: number(4, 1),
        profile: args.iter().any(|a| a == "--profile"),
        sparse: !args.iter().any(|a| a == "--dense"),
        ..Options::default()
    };
    let start = Instant::now();
    let mut session = Session::prepare(&model, &options)?;
    println!("prepare {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let arrays = npz::read(Path::new(data))?;
    let mut owned = Vec::new();
    for info in session.inputs() {
        if let Some((name, t)) = arrays.iter().find(|(n, _)| *n == info.name) {
            owned.push((name.clone(), rows(t, batch)?));
        }
    }
    let inputs: Vec<(&str, Tensor)> = owned.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let outputs = session.run(&inputs)?;
    session.reset_profile();
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        session.run(&inputs)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "run p50 {:.3} ms, min {:.3} ms; {:?}",
        times[runs / 2],
        times[0],
        session.memory()
    );
    for n in session.profile().nodes {
        let ms = n.ns as f64 / 1e6 / n.calls.max(1) as f64;
        println!(
            "{ms:9.4} ms  {:10} {:32} {:18} {}",
            n.provider, n.kernel, n.op, n.name
        );
    }
    let slow = session
        .placements()
        .iter()
        .filter(|p| p.provider == "reference")
        .count();
    println!("{slow} nodes by reference");
    if let Some(i) = args.iter().position(|a| a == "--save") {
        let names = session.outputs().iter().map(|o| o.name.clone());
        let named: Vec<(String, Tensor)> = names.zip(outputs).collect();
        npz::write(Path::new(&args[i + 1]), &named, true)?;
    }
    Ok(())
}

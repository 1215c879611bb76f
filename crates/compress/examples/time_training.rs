//! Times the steps of training a model on one batch with the cross entropy of its labels:
//! `time_training MODEL.onnx BATCH.npz [--threads N] [--steps N] [--rows N] [--outputs OUT.npz]`.
//!
//! The batch has an array for each input, and `labels`. One line of JSON tells the times, and the
//! most memory that the process took where the system tells it; `--rows` adds the nodes that take
//! longest, each at its best; `--outputs` writes the loss and `grad.NAME` of each parameter.

#![allow(clippy::print_stdout, reason = "it is a program to be looked at")]

use std::path::Path;
use std::time::Instant;

use edgesmith_formats::npz;
use edgesmith_ir::{Error, Result, Tensor};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::losses::{self, Request};
use edgesmith_train::{Draft, Training, draft};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let at = words.iter().position(|w| w == name)?;
        words.get(at + 1).map(String::as_str)
    };
    let count = |name: &str, default: usize| match after(name) {
        Some(word) => {
            let wrong = |_| Error::usage(format!("{name} {word} is no number"));
            word.parse().map_err(wrong)
        }
        None => Ok(default),
    };
    let [model, batch, ..] = words.as_slice() else {
        return Err(Error::usage("give MODEL.onnx and BATCH.npz"));
    };
    let training = training(Path::new(model))?;
    let fed = fed(&training, Path::new(batch))?;
    let fed: Vec<(&str, Tensor)> = fed.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let rows = count("--rows", 0)?;
    let options = Options {
        threads: count("--threads", 1)?,
        profile: rows > 0,
        batch_bytes: usize::MAX,
        ..Options::default()
    };
    let mut session = Session::prepare(&training.graph, &options)?;
    let made = session.run(&fed)?;
    if let Some(path) = after("--outputs") {
        let names = training.terms.iter().map(|t| t.name.clone());
        let gradients = training.parameters.iter();
        let gradients = gradients.map(|p| format!("grad.{}", p.name));
        let names = std::iter::once("loss".to_owned())
            .chain(names)
            .chain(gradients);
        let arrays: Vec<(String, Tensor)> = names.zip(made).collect();
        npz::write(Path::new(path), &arrays, true)?;
    }
    let steps = count("--steps", 100)?.max(1);
    let mut times = Vec::new();
    let mut least: Vec<(String, u128)> = Vec::new();
    for _ in 0..steps {
        session.reset_profile();
        let started = Instant::now();
        session.run(&fed)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        for (i, row) in session.profile().nodes.iter().enumerate() {
            let ns = u128::from(row.ns);
            if least.len() == i {
                let what = format!("{:24} {:24} {}", row.op, row.kernel, row.name);
                least.push((what, ns));
            }
            least[i].1 = least[i].1.min(ns);
        }
    }
    times.sort_by(f64::total_cmp);
    let arena = session.memory().map_or(0, |m| m.arena_bytes);
    println!(
        "{{\"least_ms\": {:.4}, \"p50_ms\": {:.4}, \"steps\": {steps}, \"arena_bytes\": {arena}, \
         \"peak_kib\": {}}}",
        times[0],
        times[steps / 2],
        peak_kib().map_or("null".to_owned(), |kib| kib.to_string())
    );
    least.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    for (what, ns) in least.iter().take(rows) {
        println!("{:9.4} ms  {what}", *ns as f64 / 1e6);
    }
    Ok(())
}

/// The most memory that the process took, where the system is Linux.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn training(path: &Path) -> Result<Training> {
    let model = edgesmith_formats::read(path)?;
    let mut draft = Draft::new(&model, &draft::Options::default())?;
    draft.add_term(losses::find("cross-entropy")?, 1.0, &Request::default())?;
    draft.finish()
}

/// What a step is fed: the batch, weights of terms, parameters and states.
fn fed(training: &Training, path: &Path) -> Result<Vec<(String, Tensor)>> {
    let mut fed = npz::read(path)?;
    fed.extend(training.initial_inputs());
    Ok(fed)
}

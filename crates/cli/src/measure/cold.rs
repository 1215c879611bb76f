//! Cold starts: a process of its own loads a model and runs it once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::ArgMatches;
use edgesmith_runtime::Options;
use serde::{Deserialize, Serialize};

use super::{Inputs, borrowed, median, peers};
use crate::opened::Opened;

/// What one cold start took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cold {
    /// Milliseconds to read the model, optimise it and prepare it.
    pub load_ms: f64,
    /// Milliseconds of the first inference.
    pub first_ms: f64,
    /// How far the process grew beyond what it used before the model, in bytes; `None` where the
    /// system does not say.
    pub peak_bytes: Option<u64>,
}

/// The engine that is meant by this name is ours.
pub const OURS: &str = "edgesmith";

/// Starts `contender` cold in this process.
///
/// # Errors
/// When the model cannot be loaded or run.
pub fn here(
    contender: &str,
    path: &Path,
    level: &str,
    options: &Options,
    inputs: &Inputs,
) -> Result<Cold> {
    let engine = match contender {
        OURS => None,
        name => Some(peers::open(name)?),
    };
    let before = status("VmRSS");
    let started = Instant::now();
    let mut run = match engine {
        None => {
            let (_, mut session) = Opened::open(path)?.session(level, options)?;
            let inputs = inputs.clone();
            Box::new(move || session.run(&borrowed(&inputs)).map(drop)) as super::Run
        }
        Some(engine) => {
            let compiled = peers::compile(&engine, path, inputs, options)?;
            peers::theirs(compiled, inputs)
        }
    };
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let started = Instant::now();
    run()?;
    Ok(Cold {
        load_ms,
        first_ms: started.elapsed().as_secs_f64() * 1e3,
        peak_bytes: status("VmHWM")
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before)),
    })
}

/// Medians of `times` cold starts of each contender, in turn, each in a process of its own: this
/// program with the words of `matches` for one model. None for no times.
///
/// # Errors
/// When a process fails.
pub fn each(
    path: &Path,
    matches: &ArgMatches,
    contenders: &[&str],
    times: usize,
) -> Result<Vec<Cold>> {
    let mut all: Vec<Vec<Cold>> = vec![Vec::new(); contenders.len()];
    if times == 0 {
        return Ok(Vec::new());
    }
    for _ in 0..times {
        for (contender, all) in contenders.iter().zip(&mut all) {
            all.push(apart(path, matches, contender)?);
        }
    }
    let of = |all: Vec<Cold>| {
        let field = |f: fn(&Cold) -> f64| median(&all.iter().map(f).collect::<Vec<_>>());
        Cold {
            load_ms: field(|c| c.load_ms),
            first_ms: field(|c| c.first_ms),
            peak_bytes: all.iter().filter_map(|c| c.peak_bytes).max(),
        }
    };
    Ok(all.into_iter().map(of).collect())
}

fn apart(path: &Path, matches: &ArgMatches, contender: &str) -> Result<Cold> {
    let program = std::env::current_exe().context("where this program lies")?;
    let mut command = Command::new(program);
    command.arg("bench").arg(path).args(["--cold", contender]);
    for name in ["input", "level", "dim", "precision", "threads"] {
        for value in matches.get_raw(name).into_iter().flatten() {
            command.arg(format!("--{name}")).arg(value);
        }
    }
    if matches.get_flag("dense-kernels") {
        command.arg("--dense-kernels");
    }
    let providers = matches.get_many::<String>("providers");
    let providers: Vec<&str> = providers
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    command.arg("--providers").arg(providers.join(","));
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("starting a process")?;
    ensure!(
        output.status.success(),
        "the cold start of {contender} failed"
    );
    serde_json::from_slice(&output.stdout).context("what the cold start says")
}

/// A line of the system's account of this process, in bytes.
fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

//! Runs random models, as they are and optimised, in sessions and by the reference evaluation:
//! `cargo run -p edgesmith-runtime --example random_sessions -- COUNT [FIRST_SEED]`.

#![allow(clippy::print_stdout, reason = "a program for people at a terminal")]

use std::process::ExitCode;

use edgesmith_ir::eval::evaluate_with;
use edgesmith_ir::{Model, Tensor};
use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::property::counterexamples;
use edgesmith_testkit::{Tolerance, difference, random};

/// In parts of the largest number that any value of the run has.
const KERNELS: f32 = 1e-4;

/// A session of each level gives the reference's answers, for one batch after the other.
fn sessions_answer_alike(model: &Model) -> Result<(), String> {
    let mut sessions = Vec::new();
    for level in [Level::None, Level::Extended] {
        let mut model = model.clone();
        let options = RunOptions::default();
        optimize(&mut model, level, &options).map_err(|e| format!("optimize: {e}"))?;
        let options = Options {
            threads: 1,
            batch_bytes: 0,
            line_bytes: 0,
            ..Options::default()
        };
        let session = Session::prepare(&model, &options).map_err(|e| format!("prepare: {e}"))?;
        sessions.push((level, session));
    }
    for batch in [2, 3, 2] {
        let inputs = random::inputs_with(model, 7, &[("batch", batch)]);
        let inputs: Vec<(&str, Tensor)> = inputs
            .iter()
            .map(|(n, t)| (n.as_str(), t.clone()))
            .collect();
        let mut largest = 1f32;
        let expected = evaluate_with(model, &inputs, &mut |_, t| {
            let finite = |m: f32, x: &f32| if x.is_finite() { m.max(x.abs()) } else { m };
            if let Ok(t) = t.to_f32() {
                largest = t.iter().fold(largest, finite);
            }
        });
        let Ok(expected) = expected else {
            return Ok(());
        };
        let tolerance = Tolerance {
            relative: 0.0,
            absolute: KERNELS * largest,
        };
        for (level, session) in &mut sessions {
            let found = session.run(&inputs);
            let found = found.map_err(|e| format!("run: {level}, batch {batch}: {e}"))?;
            for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                if let Some(d) = difference(a, b, tolerance) {
                    return Err(format!("answer: output {i} at {level}, batch {batch}: {d}"));
                }
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| ()));
    let mut words = std::env::args().skip(1).map(|w| w.parse().unwrap_or(0));
    let (count, first): (u64, u64) = (words.next().unwrap_or(1000), words.next().unwrap_or(0));
    let faults = counterexamples(
        first..first.saturating_add(count),
        10,
        &sessions_answer_alike,
    );
    for fault in &faults {
        println!("{fault}");
    }
    println!("{count} models from seed {first}: {} faults", faults.len());
    ExitCode::from(u8::from(!faults.is_empty()))
}

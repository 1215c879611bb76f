//! Work on the repository itself: `cargo xtask TASK`.

#![allow(
    clippy::print_stdout,
    reason = "a task is run by hand for what it prints"
)]

mod ci;
mod conformance;
mod mutate;
mod random_graphs;
mod tidy;
mod workers;

use anyhow::{Result, bail};

/// A row of the task list.
struct Task {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<()>,
}

/// Every task, by name.
static TASKS: &[Task] = &[
    Task {
        name: "ci",
        about: "formatting, lints, every test",
        run: ci::run,
    },
    Task {
        name: "conformance",
        about: "ONNX's own tests of every operator, through reference and cpu",
        run: conformance::run,
    },
    Task {
        name: "mutate",
        about: "run damaged files and models: --count N --seed S --jobs J --case SEED",
        run: mutate::run,
    },
    Task {
        name: "random-graphs",
        about: "optimise many random models and compare: --count N --first SEED",
        run: random_graphs::run,
    },
    Task {
        name: "tidy",
        about: "the rules of the house that a program can check",
        run: tidy::run,
    },
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((name, rest)) => match TASKS.iter().find(|t| t.name == name) {
            Some(task) => (task.run)(rest),
            None => bail!("there is no task \"{name}\"\n{}", list()),
        },
        None => bail!("name a task\n{}", list()),
    }
}

fn list() -> String {
    TASKS
        .iter()
        .map(|t| format!("  cargo xtask {:<12} {}\n", t.name, t.about))
        .collect()
}

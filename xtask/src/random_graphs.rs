//! Optimises many random models and compares: `cargo xtask random-graphs --count N`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ArgMatches;

use crate::{Task, number, number_of, tidy};

/// The task.
pub static TASK: Task = Task {
    name: "random-graphs",
    about: "Optimise many random models and compare",
    args: |c| {
        c.arg(number("count", "1000", "How many models"))
            .arg(number("first", "0", "The seed of the first"))
    },
    run,
};

/// Runs the example of the passes that does it, in release.
///
/// # Errors
/// When a model is found that shows a fault.
fn run(matches: &ArgMatches) -> Result<()> {
    let [count, first] = ["count", "first"].map(|name| number_of(matches, name));
    let status = Command::new("cargo")
        .args(["run", "--quiet", "--release", "-p", "edgesmith-passes"])
        .args(["--example", "random_graphs", "--"])
        .args([count.to_string(), first.to_string()])
        .current_dir(tidy::root())
        .status()
        .context("cargo")?;
    ensure!(status.success(), "random models show faults");
    Ok(())
}

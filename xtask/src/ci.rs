//! What CI runs.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ArgMatches;

use crate::Task;

/// The task.
pub static TASK: Task = Task {
    name: "ci",
    about: "Check formatting and lints, run every test",
    args: |c| c,
    run,
};

/// Runs `.ci/run`.
///
/// # Errors
/// When it cannot be started or fails.
fn run(_: &ArgMatches) -> Result<()> {
    let script = crate::tidy::root().join(".ci/run");
    let status = Command::new("bash")
        .arg(&script)
        .status()
        .context("bash is needed")?;
    ensure!(status.success(), "CI failed");
    Ok(())
}

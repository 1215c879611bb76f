//! What CI runs.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs `.ci/run`.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(_words: &[String]) -> Result<()> {
    let script = crate::tidy::root().join(".ci/run");
    let status = Command::new("bash")
        .arg(&script)
        .status()
        .context("bash is needed")?;
    ensure!(status.success(), "CI failed");
    Ok(())
}

//! Optimises many random models and compares: `cargo xtask random-graphs --count N`.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tidy;

/// Runs the example of the passes that does it, in release. `--count N` models (1000), `--first
/// SEED` (0).
///
/// # Errors
/// When an option is not understood, or a model is found that shows a fault.
pub fn run(words: &[String]) -> Result<()> {
    let (mut count, mut first) = (1000u64, 0u64);
    for pair in words.chunks(2) {
        match pair {
            [name, n] if name == "--count" => count = n.parse().context("--count")?,
            [name, n] if name == "--first" => first = n.parse().context("--first")?,
            _ => bail!(
                "expected --count N or --first SEED, found {}",
                pair.join(" ")
            ),
        }
    }
    let status = Command::new("cargo")
        .args(["run", "--quiet", "--release", "-p", "edgesmith-passes"])
        .args(["--example", "random_graphs", "--"])
        .args([count.to_string(), first.to_string()])
        .current_dir(tidy::root())
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("random models show faults");
    }
    Ok(())
}

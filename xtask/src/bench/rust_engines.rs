//! tract and rten, in a program that cargo builds apart from the workspace.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::geometric_mean;

/// The title of the table.
pub const TITLE: &str = "Beside tract and rten";

/// The engines, in the order of the table.
const NAMES: [&str; 2] = ["tract", "rten"];

/// The program, and what it measured.
pub struct Engines {
    program: PathBuf,
    iterations: u64,
    lines: Vec<(String, Measured)>,
}

#[derive(Deserialize)]
struct Measured {
    ms: f64,
    tract: Peer,
    rten: Peer,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Peer {
    Ran {
        version: String,
        ms: f64,
        ratio: f64,
        spread: [f64; 2],
        difference: Option<f64>,
    },
    Failed {
        error: String,
    },
}

impl Measured {
    fn peers(&self) -> [&Peer; 2] {
        [&self.tract, &self.rten]
    }
}

impl Engines {
    /// Builds the program.
    ///
    /// # Errors
    /// When cargo fails.
    pub fn build(iterations: u64) -> Result<Self> {
        let target = crate::target("peers");
        let mut cargo = crate::cargo();
        cargo.args(["build", "--release", "--manifest-path"]);
        cargo.arg(crate::tidy::root().join("xtask/peers/Cargo.toml"));
        let status = cargo.arg("--target-dir").arg(&target).status()?;
        ensure!(status.success(), "tract and rten cannot be built");
        Ok(Self {
            program: target.join("release/edgesmith-peers"),
            iterations,
            lines: Vec::new(),
        })
    }

    /// Measures a model, with the words of a row of which it needs the lengths.
    ///
    /// # Errors
    /// When the program fails, other than in an engine.
    pub fn measure(&mut self, name: &str, model: &Path, words: &[String]) -> Result<()> {
        let output = Command::new(&self.program)
            .arg(model)
            .arg(self.iterations.to_string())
            .args(words.iter().filter(|w| w.contains('=')))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", model.display());
        let measured: Measured =
            serde_json::from_slice(&output.stdout).context("it prints what it measured")?;
        let ratios = measured.peers().map(|p| match p {
            Peer::Ran { ratio, .. } => format!("{ratio:.2}"),
            Peer::Failed { error } => error.clone(),
        });
        println!("{name}: {}", ratios.join(" "));
        self.lines.push((name.into(), measured));
        Ok(())
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut text = format!(
            "\n## {TITLE}\n\nIn one process in turn, one thread; a ratio is \
             edgesmith's CPU time in parts of theirs. Apart is the largest difference of the \
             first output in parts of its largest number.\n\n",
        );
        let version = |i: usize| {
            let mut all = self.lines.iter().filter_map(|(_, m)| match m.peers()[i] {
                Peer::Ran { version, .. } => Some(version.as_str()),
                Peer::Failed { .. } => None,
            });
            all.next().unwrap_or_default()
        };
        text.push_str("| model | ms |");
        for (i, name) in NAMES.iter().enumerate() {
            let _ = write!(text, " {name} {} ms | ratio | apart |", version(i));
        }
        text.push_str("\n|---|---|---|---|---|---|---|---|\n");
        let mut ratios = [Vec::new(), Vec::new()];
        for (name, m) in &self.lines {
            let _ = write!(text, "| {name} | {:.3} |", m.ms);
            for (peer, ratios) in m.peers().into_iter().zip(&mut ratios) {
                match peer {
                    Peer::Failed { error } => {
                        let why: String = error.chars().take(80).collect();
                        let why = why.replace(['|', '\n'], " ");
                        let _ = write!(text, " does not run: {why} | | |");
                    }
                    Peer::Ran {
                        ms,
                        ratio,
                        spread: [low, high],
                        difference,
                        ..
                    } => {
                        ratios.push(*ratio);
                        let apart = difference.map_or_else(String::new, |d| format!("{d:.0e}"));
                        let _ = write!(
                            text,
                            " {ms:.3} | {ratio:.2} ({low:.2}-{high:.2}) | {apart} |"
                        );
                    }
                }
            }
            text.push('\n');
        }
        let [tract, rten] = ratios.map(|r| geometric_mean(&r));
        let _ = writeln!(
            text,
            "| **geometric mean** | | | **{tract:.2}** | | | **{rten:.2}** | |"
        );
        text
    }
}

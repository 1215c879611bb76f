//! What a pass is, and the runner that repeats the list until nothing changes.

use std::fmt;
use std::str::FromStr;

use edgesmith_ir::error::{At, Kind};
use edgesmith_ir::verify::verify;
use edgesmith_ir::{Error, Model, NoProgress, Progress, Result};

use crate::pipeline::PASSES;

/// How much is changed; each level contains those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing.
    None,
    /// What every runtime gains from: folding, cleaning, merging, BatchNormalization into weights.
    Basic,
    /// Nodes are joined into larger operators of ONNX.
    Extended,
    /// Room for changes of data layout; has no passes of its own, because the runtime chooses the
    /// layout of its kernels itself.
    Layout,
}

impl Level {
    /// Every level, rising.
    pub const ALL: [Self; 4] = [Self::None, Self::Basic, Self::Extended, Self::Layout];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::Extended => "extended",
            Self::Layout => "layout",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|l| l.name() == s)
            .ok_or_else(|| {
                Error::usage(format!("there is no level \"{s}\""))
                    .hint("the levels are none, basic, extended and layout")
            })
    }
}

/// A row of the list of passes.
pub struct Pass {
    /// The name of its file.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// The first level that runs it.
    pub level: Level,
    /// Changes the model; how many changes it made.
    pub run: fn(&mut Model, &PassCx) -> Result<usize>,
}

/// What a pass may use beside the model.
pub struct PassCx<'a> {
    /// Told of the work; asked whether to stop.
    pub progress: &'a dyn Progress,
}

/// How [`optimize`] runs.
#[derive(Clone, Copy)]
pub struct RunOptions<'a> {
    /// Verify the model before the first and after every pass.
    pub verify: bool,
    /// Stop after so many runs of passes: to find the one at fault.
    pub stop_after: Option<usize>,
    /// Told of the work; asked whether to stop.
    pub progress: &'a dyn Progress,
}

impl Default for RunOptions<'_> {
    /// Verifies in debug builds, runs to the end, reports to nobody.
    fn default() -> Self {
        Self {
            verify: cfg!(debug_assertions),
            stop_after: None,
            progress: &NoProgress,
        }
    }
}

/// One run of one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The pass.
    pub name: &'static str,
    /// Rounds through the list before this one.
    pub round: usize,
    /// Changes that it made.
    pub changes: usize,
    /// Nodes of the main graph before it.
    pub nodes_before: usize,
    /// Nodes of the main graph after it.
    pub nodes_after: usize,
}

/// What [`optimize`] did, in order; runs that changed nothing are among it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// The runs.
    pub steps: Vec<Step>,
}

impl Trace {
    /// The sum of all changes.
    pub fn changes(&self) -> usize {
        self.steps.iter().map(|s| s.changes).sum()
    }
}

/// The list is gone through at most so often.
const MAX_ROUNDS: usize = 10;

/// Runs the passes up to `level` again and again until none of them changes anything.
///
/// Names, order and types of the main graph's inputs and outputs stay. The answers stay equal;
/// where a pass changes rounding, its documentation says how much.
///
/// # Errors
/// When the model is not sound, when a pass leaves it so (the error names the pass), or when the
/// user cancels.
pub fn optimize(model: &mut Model, level: Level, options: &RunOptions) -> Result<Trace> {
    let passes: Vec<&Pass> = PASSES
        .iter()
        .copied()
        .filter(|p| p.level <= level)
        .collect();
    let mut trace = Trace::default();
    if passes.is_empty() {
        return Ok(trace);
    }
    if options.verify {
        verified(model, Kind::Invalid)?;
    }
    let cx = PassCx {
        progress: options.progress,
    };
    options.progress.start("optimize", 0);
    'rounds: for round in 0..MAX_ROUNDS {
        let mut changes = 0;
        for pass in &passes {
            if options.stop_after.is_some_and(|n| trace.steps.len() >= n) {
                break 'rounds;
            }
            options.progress.check()?;
            let step = run_pass(model, pass, round, &cx)?;
            if options.verify && step.changes > 0 {
                verified(model, Kind::Internal).at(|| format!("after pass \"{}\"", pass.name))?;
            }
            changes += step.changes;
            trace.steps.push(step);
            options.progress.advance(1);
        }
        if changes == 0 {
            break;
        }
    }
    options.progress.finish();
    Ok(trace)
}

fn run_pass(model: &mut Model, pass: &Pass, round: usize, cx: &PassCx) -> Result<Step> {
    let nodes_before = model.graph.nodes().count();
    let changes = (pass.run)(model, cx).at(|| format!("pass \"{}\"", pass.name))?;
    Ok(Step {
        name: pass.name,
        round,
        changes,
        nodes_before,
        nodes_after: model.graph.nodes().count(),
    })
}

/// The first fault of the model, with the number of the others.
fn verified(model: &Model, kind: Kind) -> Result<()> {
    let Err(mut faults) = verify(model) else {
        return Ok(());
    };
    let more = faults.len() - 1;
    let mut first = faults.swap_remove(0);
    first.kind = kind;
    if more > 0 {
        first.message = format!("{} (and {more} more)", first.message);
    }
    Err(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_by_name() {
        for level in Level::ALL {
            assert_eq!(level.name().parse::<Level>().unwrap(), level);
        }
        assert!("fast".parse::<Level>().is_err());
    }
}

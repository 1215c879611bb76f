//! What pruning removed, and what a search for lottery tickets found.

use serde::{Deserialize, Serialize};

use super::number;

/// One step that removed channels, heads or blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Removal {
    /// The step, in one line.
    pub step: String,
    /// What went: `channel`, `head`, `layer`, …
    pub structure: String,
    /// What said which.
    pub criterion: String,
    /// Trained parameters before and after.
    pub parameters: [u64; 2],
    /// Multiply-accumulate operations of a sample before and after.
    pub macs: [u64; 2],
    /// What goes together, in the order of the graph.
    pub groups: Vec<RemovedGroup>,
    /// Blocks, where they are what went.
    pub blocks: Vec<RemovedBlock>,
    /// What stays whole.
    pub whole: Vec<KeptWhole>,
}

/// Channels or heads of layers that are tied to each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RemovedGroup {
    /// The layers that make it.
    pub name: String,
    /// What it is: `channels inside`, `channels of a stream`, `heads`, …
    pub kind: String,
    /// How many there were.
    pub before: u64,
    /// How many stay.
    pub after: u64,
}

/// A block that adds to what it takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RemovedBlock {
    /// Its first value.
    pub from: String,
    /// Its last value.
    pub to: String,
    /// 1 − cos of what it takes and gives; the more, the more it does.
    #[serde(default, with = "number::optional")]
    pub change: Option<f64>,
    /// It was left out.
    pub is_gone: bool,
}

/// Layers that keep all they have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptWhole {
    /// The layers.
    pub nodes: Vec<String>,
    /// Why.
    pub why: String,
}

/// One search for lottery tickets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tickets {
    /// The step, in one line.
    pub step: String,
    /// Weights that could be pruned.
    pub weights: u64,
    /// Steps of a run.
    pub steps: u64,
    /// Every run, in order.
    pub runs: Vec<TicketRun>,
}

/// A network that was trained from its beginning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TicketRun {
    /// Which numbers it began with, from 0 on.
    pub trial: u64,
    /// How often a share was pruned; 0 is the whole network.
    pub level: u64,
    /// `ticket`, or the control: `reinit`, `random`.
    pub kind: String,
    /// Weights that are left.
    pub left: u64,
    /// Share of right answers after the last step, on validation.
    #[serde(with = "number")]
    pub right: f64,
    /// The same on the test, where there is one.
    #[serde(default, with = "number::optional")]
    pub right_on_test: Option<f64>,
}

/// The mean over the trials of a level and kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// Share of the weights that are left.
    pub left: f64,
    /// Share of right answers, and the standard deviation of samples.
    pub right: [f64; 2],
    /// The same on the test.
    pub test: Option<[f64; 2]>,
}

impl Tickets {
    /// The levels that were run.
    pub fn levels(&self) -> u64 {
        self.runs.iter().map(|r| r.level + 1).max().unwrap_or(0)
    }

    /// The kinds of runs, tickets first.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !kinds.contains(&run.kind.as_str()) {
                kinds.push(&run.kind);
            }
        }
        kinds
    }

    /// What a level and kind came to; `None` where there was no such run.
    pub fn mean(&self, level: u64, kind: &str) -> Option<Mean> {
        let is = |r: &&TicketRun| r.level == level && r.kind == kind;
        let runs: Vec<&TicketRun> = self.runs.iter().filter(is).collect();
        let first = runs.first()?;
        let right: Vec<f64> = runs.iter().map(|r| r.right).collect();
        let test: Option<Vec<f64>> = runs.iter().map(|r| r.right_on_test).collect();
        Some(Mean {
            left: first.left as f64 / self.weights.max(1) as f64,
            right: spread(&right),
            test: test.as_deref().map(spread),
        })
    }
}

/// The mean, and the standard deviation of samples.
fn spread(all: &[f64]) -> [f64; 2] {
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    let squares: f64 = all.iter().map(|x| (x - mean).powi(2)).sum();
    [mean, (squares / (all.len().max(2) - 1) as f64).sqrt()]
}

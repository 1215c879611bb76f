//! The account that a step gives of what it did to each node.

use edgesmith_train::trainer::Epoch;
use edgesmith_train::training::Term;
use edgesmith_train::{Settings, Watch};
use serde::{Deserialize, Serialize};

use super::sources::Source;
use crate::mixed::Search;
use crate::prune::Structured;
use crate::prune::lottery::Lottery;
use crate::prune::weights::Sparsity;

/// What became of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It computes on the smaller numbers now.
    Converted,
    /// It went into the node of this name, which now does its work.
    Absorbed(String),
    /// It is as before, for this reason.
    Left(String),
}

/// A node and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeChange {
    /// The name of the node.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// What became of it.
    pub fate: Fate,
}

impl NodeChange {
    /// False where it is as before because there was nothing to do.
    pub fn is_noteworthy(&self) -> bool {
        !matches!(&self.fate, Fate::Left(why) if why == NOTHING)
    }
}

/// Why a node is left that has nothing to be converted.
pub const NOTHING: &str = "it has no weight of a product or table";

/// What became of one weight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightChange {
    /// The name of the constant.
    pub weight: String,
    /// The nodes that read it.
    pub nodes: Vec<String>,
    /// Outputs and inputs.
    pub dims: [usize; 2],
    /// Bits written for a number: codes, scales and zero points.
    pub bits: f64,
    /// Signal to noise of the numbers, in dB.
    pub sqnr_db: f64,
    /// `‖X(W − Ŵ)ᵀ‖² / ‖XWᵀ‖²`, where the inputs were seen.
    pub output_error: Option<f64>,
    /// The same for rounding to nearest in the same blocks.
    pub output_error_of_rounding: Option<f64>,
}

/// How the numbers of a weight or an activation lie in the range of a float format.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeChange {
    /// The name of the value.
    pub name: String,
    /// A constant, whose numbers are counted; of activations shares are estimates.
    pub is_weight: bool,
    /// The nodes that make or read it.
    pub nodes: Vec<String>,
    /// Its numbers that are finite and not zero; shares are of these.
    pub numbers: u64,
    /// Their largest magnitude.
    pub largest: f64,
    /// The largest number of the format over the largest magnitude; `None` where a scale makes them
    /// the same.
    pub headroom: Option<f64>,
    /// The share that is too large.
    pub overflow: f64,
    /// The share that becomes zero.
    pub zero: f64,
    /// The share that becomes subnormal, and so loses bits.
    pub subnormal: f64,
    /// It stays as it was.
    pub kept: bool,
}

/// What an overflow analysis says of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// They are not converted.
    StayFloat,
    /// They are converted, and there was no calibration data.
    NotLookedAt,
    /// They are converted, and rows say how they lie.
    LookedAt,
}

/// The overflow analysis of a conversion to floats of fewer bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranges {
    /// The name of the format.
    pub format: &'static str,
    /// Its largest number.
    pub largest: f64,
    /// Whether activations were looked at.
    pub activations: Activations,
    /// A row for each weight and each activation.
    pub rows: Vec<RangeChange>,
}

/// How a model was trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// What the loss was the sum of.
    pub terms: Vec<Term>,
    /// Optimizer, schedule, rates, seed, what was asked for.
    pub settings: Settings,
    /// The teacher's file, where there was one.
    pub teacher: Option<String>,
    /// Examples that were trained on.
    pub examples: usize,
    /// Trained numbers.
    pub parameters: usize,
    /// What stayed because it was to: constants by name, statistics, scales.
    pub frozen: Vec<String>,
    /// How epochs were judged.
    pub judged: Option<Measure>,
    /// Every epoch.
    pub history: Vec<Epoch>,
    /// The share of zeros after each epoch, where weights were pruned on the way.
    pub sparsities: Vec<f64>,
    /// The epoch of the model, from 0 on.
    pub best: usize,
    /// The step at which the run went on after it was broken off; else 0.
    pub resumed_at: usize,
    /// Seconds that it took, judging among them.
    pub seconds: f64,
}

/// What an epoch is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The part of right answers.
    Accuracy,
    /// Minus the mean square of the difference to an input.
    MeanSquare,
    /// The loss on examples that nothing is learned from.
    Loss,
}

/// How weights rounded by what they multiply compare with weights rounded to nearest, at the outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rounding {
    /// The former were taken.
    pub is_adaptive: bool,
    /// Signal to noise with the former, in dB.
    pub adaptive_db: f64,
    /// Signal to noise with the latter, in dB.
    pub nearest_db: f64,
    /// On so many samples.
    pub samples: usize,
}

/// A part of the network whose weights were rounded together. Errors are squared ones of what leaves
/// it, as shares of the signal.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockChange {
    /// The names of its products.
    pub products: Vec<String>,
    /// Its weights.
    pub weights: usize,
    /// The samples that were learned from.
    pub samples: usize,
    /// The error with each product rounded for itself.
    pub before: f64,
    /// The error with all rounded together; that was taken where it is the smaller one.
    pub after: f64,
}

/// What a step did to a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Each node of the model before, in order.
    pub nodes: Vec<NodeChange>,
    /// Bytes of the constants before.
    pub weight_bytes_before: usize,
    /// Bytes of the constants after.
    pub weight_bytes_after: usize,
    /// Nodes added that quantise or narrow.
    pub narrowing_nodes: usize,
    /// Nodes added that dequantise or widen.
    pub widening_nodes: usize,
    /// Each weight that was rounded alone.
    pub weights: Vec<WeightChange>,
    /// The observers that were compared, with the signal to noise of the outputs in dB, the one that was
    /// taken first.
    pub observers: Vec<(&'static str, f64)>,
    /// The roundings that were compared.
    pub rounding: Option<Rounding>,
    /// The parts whose weights were rounded together.
    pub blocks: Vec<BlockChange>,
    /// How the layers were found that have more bits, where a goal was given.
    pub search: Option<Search>,
    /// Each constant of smaller numbers beside what it was, but for those that were rounded alone and
    /// biases.
    pub sources: Vec<Source>,
    /// Values whose channels were multiplied by factors that their readers take back: they differ from
    /// those of the same name before, and that is no error.
    pub rescaled: Vec<String>,
    /// How numbers lie in the range of the new floats.
    pub ranges: Option<Ranges>,
    /// How it was trained.
    pub training: Option<Learned>,
    /// Which tickets were drawn.
    pub lottery: Option<Lottery>,
    /// Which weights were set to zero.
    pub pruned: Option<Sparsity>,
    /// Which channels, heads or blocks were removed.
    pub structured: Option<Structured>,
    /// What the user should know, as sentences; those of the statistics are not repeated.
    pub warnings: Vec<String>,
    /// What was told while the step went on.
    pub notes: Vec<String>,
}

impl Changes {
    /// Tells notes, and keeps them.
    pub fn tell(&mut self, notes: impl IntoIterator<Item = String>, follow: &dyn Watch) {
        for note in notes {
            follow.note(&note);
            self.notes.push(note);
        }
    }

    /// How many nodes were converted or absorbed.
    pub fn converted(&self) -> usize {
        self.nodes
            .iter()
            .filter(|n| !matches!(n.fate, Fate::Left(_)))
            .count()
    }
}

//! How a step trained the model, and what a step chose by what it measured.

use serde::{Deserialize, Serialize};

use super::number;

/// One step of training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The step, in one line.
    pub step: String,
    /// The loss that was made small is the sum of these, each times its weight.
    pub loss: Vec<LossTerm>,
    /// File of the teacher; empty where there was none.
    pub teacher: String,
    /// Examples that were trained on.
    pub examples: u64,
    /// Numbers that were trained.
    pub parameters: u64,
    /// What stayed because it was to.
    pub frozen: Vec<String>,
    /// Name of the optimizer.
    pub optimizer: String,
    /// What it does, with its source.
    pub optimizer_about: String,
    /// Name of the schedule of the learning rate.
    pub schedule: String,
    /// What it does.
    pub schedule_about: String,
    /// The full learning rate.
    #[serde(with = "number")]
    pub rate: f64,
    /// Part of all steps in which the rate rises to its full value.
    #[serde(with = "number")]
    pub warmup: f64,
    /// Weight decay.
    #[serde(with = "number")]
    pub decay: f64,
    /// Momentum, or beta 1.
    #[serde(with = "number")]
    pub momentum: f64,
    /// Greatest length of all gradients together; 0 where there is none.
    #[serde(with = "number")]
    pub clip: f64,
    /// Part of a running mean of the parameters that each step keeps; 0 where there is none.
    #[serde(with = "number")]
    pub ema: f64,
    /// Epochs without a better model after which the run stops; 0 where it does not.
    pub patience: u64,
    /// Examples of a step.
    pub batch: u64,
    /// Seed of the order of examples and all that is random.
    pub seed: u64,
    /// Threads that trained.
    pub threads: u32,
    /// Epochs that were asked for.
    pub epochs_asked: u64,
    /// The epoch whose model was written, from 1 on.
    pub best_epoch: u64,
    /// The step at which the run went on after it was broken off; 0 where it was not.
    pub resumed_at_step: u64,
    /// Seconds that it took, judging among them.
    #[serde(with = "number")]
    pub seconds: f64,
    /// What was told while it went on.
    pub notes: Vec<String>,
    /// Every epoch that was done.
    pub epochs: Vec<Epoch>,
}

/// A term of the loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossTerm {
    /// The loss and what it compares.
    pub name: String,
    /// Its weight at the beginning.
    #[serde(with = "number")]
    pub weight: f64,
    /// Its weight at the end.
    #[serde(with = "number")]
    pub last_weight: f64,
    /// Its formula, of s the student's and t the teacher's value.
    pub formula: String,
    /// The numbers of the formula that were chosen, by their names in it.
    pub numbers: Vec<(String, f64)>,
    /// Where the formula stands: a paper or a book, and the place in it.
    pub source: String,
}

/// What an epoch came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Which one, from 1 on.
    pub epoch: u64,
    /// Mean loss of its steps.
    #[serde(with = "number")]
    pub loss: f64,
    /// Mean of each term without its weight, in the order of `loss`.
    pub terms: Vec<f64>,
    /// Learning rate of its last step.
    #[serde(with = "number")]
    pub rate: f64,
    /// Share of right answers on the examples that judge, in `0..=1`, where there are labels.
    #[serde(default, with = "number::optional")]
    pub accuracy: Option<f64>,
    /// Mean square of the difference to an input on the examples that judge, where that counts.
    #[serde(default, with = "number::optional")]
    pub mean_square_error: Option<f64>,
    /// Loss on the examples that judge, where that counts.
    #[serde(
        default,
        with = "number::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub validation_loss: Option<f64>,
    /// Share of zeros in the weights that are pruned on the way, after its last step.
    #[serde(
        default,
        with = "number::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub sparsity: Option<f64>,
}

/// What a step chose by what it measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The step, in one line.
    pub step: String,
    /// What was to be chosen, such as `observer`.
    pub what: String,
    /// What was taken.
    pub taken: String,
    /// Why not the nearest, where it is not; else empty.
    pub reason: String,
    /// Samples on which they were compared, where that is known.
    #[serde(default)]
    pub samples: Option<u64>,
    /// All that were compared.
    pub candidates: Vec<Candidate>,
}

/// One of several ways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Signal to quantisation noise of the outputs with it, in dB.
    #[serde(with = "number")]
    pub sqnr_db: f64,
}

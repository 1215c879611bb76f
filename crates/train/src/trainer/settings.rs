//! How a model is trained.

use edgesmith_ir::{Error, Result};

/// How a model is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How often each sample is seen.
    pub epochs: usize,
    /// Samples of a step.
    pub batch: usize,
    /// The optimizer's name.
    pub optimizer: String,
    /// The full learning rate.
    pub rate: f64,
    /// The schedule's name.
    pub schedule: String,
    /// The part of all steps in which the rate rises to its full value.
    pub warmup: f64,
    /// What decays, times the rate.
    pub decay: f64,
    /// Momentum or β₁, where not the optimizer's own.
    pub momentum: Option<f64>,
    /// β₂.
    pub beta2: f64,
    /// What keeps a divisor from 0.
    pub epsilon: f64,
    /// The greatest length of all gradients together; 0: any.
    pub clip: f64,
    /// How much of a running mean of the parameters is kept at each step; 0: there is none.
    pub ema: f64,
    /// Stop after so many epochs without a better answer; 0: never.
    pub patience: usize,
    /// Of the order of samples, and of masks.
    pub seed: u64,
    /// Threads; 0: one for each core.
    pub threads: usize,
    /// Products of BF16, where the CPU has them.
    pub bf16: bool,
    /// The part of the run over which the weight of each term goes to its last value, in the
    /// order of terms; empty: weights stay.
    pub last_weights: Vec<f64>,
    /// The step whose parameters are kept beside, before it is done.
    pub keep_at: Option<usize>,
    /// Judge after every so many steps too; 0: after epochs alone.
    pub judge_every: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch: 64,
            optimizer: "adamw".into(),
            rate: 1e-3,
            schedule: "cosine".into(),
            warmup: 0.05,
            decay: 0.01,
            momentum: None,
            beta2: 0.999,
            epsilon: 1e-8,
            clip: 0.0,
            ema: 0.0,
            patience: 0,
            seed: 0,
            threads: 0,
            bf16: false,
            last_weights: Vec::new(),
            keep_at: None,
            judge_every: 0,
        }
    }
}

impl Settings {
    /// Refuses numbers that are none of their kind.
    pub(super) fn check(&self) -> Result<()> {
        let fault = |what: String| Err(Error::usage(what));
        if self.epochs == 0 || self.batch == 0 {
            return fault("epochs and batch are at least 1".into());
        }
        let within = [
            ("rate", self.rate, 0.0, f64::MAX),
            ("warmup", self.warmup, 0.0, 1.0),
            ("decay", self.decay, 0.0, f64::MAX),
            ("momentum", self.momentum.unwrap_or(0.0), 0.0, 0.999_999),
            ("beta2", self.beta2, 0.0, 0.999_999_9),
            ("clip", self.clip, 0.0, f64::MAX),
            ("ema", self.ema, 0.0, 0.999_999),
        ];
        for (name, x, low, high) in within {
            if !(low..=high).contains(&x) {
                return fault(match high == f64::MAX {
                    true => format!("{name} {x} is no number from {low} on"),
                    false => format!("{name} {x} is not from {low} to {high}"),
                });
            }
        }
        Ok(())
    }
}

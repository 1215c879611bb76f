//! Criteria: what says which weights a model can do without. One row for each.
//!
//! To add one: write its function in a file of its own, and its row.

use edgesmith_ir::{Error, Result};
use edgesmith_kernels::Ctx;

use super::scope::Scope;
use super::select::{Lengths, kept};
use super::{Settings, magnitude, random};
use crate::quantize::weight_only::matrix::Matrix;

/// A way to choose weights.
pub struct Criterion {
    /// The name on the command line.
    pub name: &'static str,
    /// One line on what it does.
    pub about: &'static str,
    /// It needs calibration data.
    pub needs_data: bool,
    /// The scopes that it has; the first is taken where none is named.
    pub scopes: &'static [Scope],
    /// What it does.
    pub does: Does,
}

/// What a criterion does with a weight.
pub enum Does {
    /// Gives each number a score, by rows; the least go.
    Scores(fn(&Job) -> Result<Vec<f64>>),
    /// Chooses numbers and changes those that stay.
    Solves(fn(&Job) -> Result<Solved>),
}

impl std::fmt::Debug for Criterion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Criterion {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Every criterion; the first needs no data.
pub static CRITERIA: &[&Criterion] = &[&MAGNITUDE, &RANDOM];

/// The criterion of that name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Criterion> {
    let found = CRITERIA.iter().copied().find(|c| c.name == name);
    found.ok_or_else(|| Error::unknown("criterion", name, CRITERIA.iter().map(|c| c.name)))
}

/// Small numbers go.
pub static MAGNITUDE: Criterion = Criterion {
    name: "magnitude",
    about: "the smallest numbers go",
    needs_data: false,
    scopes: &[Scope::Layer, Scope::Global, Scope::Row, Scope::Erk],
    does: Does::Scores(magnitude::scores),
};

/// Chance, as a control.
pub static RANDOM: Criterion = Criterion {
    name: "random",
    about: "numbers go by chance: what others are compared with",
    needs_data: false,
    scopes: &[Scope::Layer, Scope::Global, Scope::Row, Scope::Erk],
    does: Does::Scores(random::scores),
};

/// A weight to be pruned.
pub struct Job<'a> {
    /// The weight, by rows.
    pub weight: &'a Matrix,
    /// How it is cut.
    pub lengths: Lengths,
    /// Which weight of the model it is.
    pub number: usize,
    /// The share that goes.
    pub amount: f64,
    /// What was asked for.
    pub settings: &'a Settings,
    /// Threads and instructions.
    pub ctx: &'a Ctx,
}

/// A pruned weight, by rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Solved {
    /// True for each number that stays.
    pub kept: Vec<bool>,
    /// The numbers; 0 where they do not stay.
    pub numbers: Vec<f32>,
}

impl Solved {
    /// The weight with what does not stay set to 0.
    pub fn masked(weight: &Matrix, kept: Vec<bool>) -> Self {
        let number = |(x, stays): (&f32, &bool)| if *stays { *x } else { 0.0 };
        Self {
            numbers: weight.data.iter().zip(&kept).map(number).collect(),
            kept,
        }
    }
}

impl Criterion {
    /// Prunes a weight.
    ///
    /// # Errors
    /// When the criterion cannot do without inputs that nobody saw.
    pub fn solve(&self, job: &Job) -> Result<Solved> {
        match self.does {
            Does::Solves(solve) => solve(job),
            Does::Scores(scores) => {
                let by_row = job.settings.scope == Scope::Row;
                let scores = scores(job)?;
                let pattern = job.settings.pattern;
                let kept = kept(&scores, job.lengths, pattern, job.amount, by_row);
                Ok(Solved::masked(job.weight, kept))
            }
        }
    }
}

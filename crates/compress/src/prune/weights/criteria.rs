//! Criteria: what says which weights a model can do without. One row for each.
//!
//! To add one: write its function in a file of its own, and its row.

use edgesmith_ir::{Error, Result};
use edgesmith_kernels::Ctx;

use super::scope::Scope;
use super::select::{Lengths, kept};
use super::{Settings, magnitude, random, sparsegpt, wanda};
use crate::calibrate::Sums;
use crate::quantize::weight_only::blocks::{Blocks, Scheme};
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
pub static CRITERIA: &[&Criterion] = &[&MAGNITUDE, &WANDA, &SPARSEGPT, &RANDOM];

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

/// Numbers and their inputs.
pub static WANDA: Criterion = Criterion {
    name: "wanda",
    about: "numbers go whose size times the size of their input is least, of each output alike",
    needs_data: true,
    scopes: &[Scope::Row, Scope::Layer, Scope::Erk],
    does: Does::Scores(wanda::scores),
};

/// Columns that follow make good what goes.
pub static SPARSEGPT: Criterion = Criterion {
    name: "sparsegpt",
    about: "column by column, what goes is made good by the columns that follow",
    needs_data: true,
    scopes: &[Scope::Layer, Scope::Erk],
    does: Does::Solves(sparsegpt::solve),
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
    /// What it multiplies, where that was seen.
    pub(crate) seen: Option<&'a Sums>,
    /// Bits and blocks, where what stays is rounded.
    pub scheme: Option<Scheme>,
    /// What was asked for.
    pub settings: &'a Settings,
    /// Threads and instructions.
    pub ctx: &'a Ctx,
}

impl<'a> Job<'a> {
    /// What the weight multiplies.
    ///
    /// # Errors
    /// When nobody saw it.
    pub(crate) fn seen(&self) -> Result<&'a Sums> {
        let seen = self.seen.filter(|s| s.rows() > 0);
        seen.ok_or_else(|| {
            Error::invalid("calibration saw nothing of the inputs of this weight")
                .hint("--exclude leaves the node as it is; magnitude needs no inputs")
        })
    }
}

/// A pruned weight, by rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Solved {
    /// True for each number that stays.
    pub kept: Vec<bool>,
    /// The numbers; 0 where they do not stay.
    pub numbers: Vec<f32>,
    /// The codes of the numbers, where they are rounded.
    pub blocks: Option<Blocks>,
}

impl Solved {
    /// The weight with what does not stay set to 0.
    pub fn masked(weight: &Matrix, kept: Vec<bool>) -> Self {
        let number = |(x, stays): (&f32, &bool)| if *stays { *x } else { 0.0 };
        Self {
            numbers: weight.data.iter().zip(&kept).map(number).collect(),
            kept,
            blocks: None,
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

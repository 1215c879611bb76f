//! Pruning: what a model can do without is taken away.
//!
//! [`channels`] takes channels, hidden units and heads out of a graph, and [`layers`] whole blocks;
//! [`groups`] says which of them stand and fall together, [`bodies`] do the same inside of
//! control flow. [`weights`] sets single numbers, N of M
//! numbers or blocks of weights to zero; tensors keep their lengths. [`lottery`] looks for the part
//! of a network that learns as well as the whole.

pub mod bodies;
pub mod channels;
pub mod groups;
pub mod layers;
pub mod lottery;
pub mod weights;

use edgesmith_ir::analysis::Cost;

/// What was removed of a model, and what was not.
#[derive(Debug, Clone, PartialEq)]
pub struct Structured {
    /// What went.
    pub structure: &'static str,
    /// What said which.
    pub criterion: &'static str,
    /// Each group of channels, units or heads.
    pub groups: Vec<channels::GroupChange>,
    /// Each block.
    pub blocks: Vec<layers::BlockOf>,
    /// What stays whole, and why.
    pub frozen: Vec<groups::Frozen>,
    /// The cost of a sample before and after.
    pub cost: (Cost, Cost),
    /// What recovery found of each layer.
    pub recovered: Vec<channels::Recovery>,
}

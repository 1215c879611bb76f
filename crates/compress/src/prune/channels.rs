//! Structured pruning: channels, units or heads leave the graph, and what is left is checked
//! against the graph with zeros in their place.

use std::collections::BTreeSet;

use edgesmith_ir::analysis::lengths::workable_inputs;
use edgesmith_ir::analysis::{Cost, model_cost};
use edgesmith_ir::channels::{Kept, as_shuffles, cut};
use edgesmith_ir::{Error, Model, Progress, Result, infer};

use crate::prune::groups::{Frozen, Groups, Structure};

pub mod criteria;
mod gate;
mod gradients;
mod latency;
pub mod plan;
pub mod recover;

pub use criteria::{CRITERIA, Criterion, Needs};
pub use gradients::Gradients;
pub use latency::Table;
pub use plan::Scope;
pub use recover::Recovery;

use plan::Plan;

/// What an amount is a share of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Of {
    /// The channels, units or heads of each group, or of all groups together.
    #[default]
    Count,
    /// Trained numbers of the model.
    Parameters,
    /// Multiply-accumulates of a sample.
    Macs,
    /// Bytes of the model's constants.
    Bytes,
    /// The time of a sample on this machine.
    Latency,
}

/// Every share, with its name.
pub static SHARES: &[(&str, Of)] = &[
    ("count", Of::Count),
    ("parameters", Of::Parameters),
    ("macs", Of::Macs),
    ("bytes", Of::Bytes),
    ("latency", Of::Latency),
];

/// How a model is pruned.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What goes.
    pub structure: Structure,
    /// The share that goes, from 0 to under 1.
    pub amount: f64,
    /// Of what.
    pub of: Of,
    /// What says which go.
    pub criterion: &'static Criterion,
    /// Among which groups they are compared.
    pub scope: Scope,
    /// What stays is a multiple of this, where there are as many.
    pub round_to: usize,
    /// At most this share of a group goes.
    pub most: f64,
    /// Groups of nodes with these names stay; `*` is any text.
    pub exclude: Vec<String>,
    /// Groups that layers add to stay.
    pub keep_streams: bool,
    /// Of what chance decides.
    pub seed: u64,
    /// Threads that latency is measured with; 0: one for each core.
    pub threads: usize,
}

/// What was looked at, for criteria that ask for it.
#[derive(Default)]
pub struct Seen<'a> {
    /// Statistics of the values that products read.
    pub statistics: Option<&'a crate::calibrate::Statistics>,
    /// Gradients of the weights.
    pub gradients: Option<&'a Gradients>,
}

/// A group and how many it has and keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupChange {
    /// The nodes that make it.
    pub name: String,
    /// How many there were.
    pub count: usize,
    /// How many stay.
    pub kept: usize,
    /// The most that could go.
    pub most: usize,
    /// Layers add to it.
    pub is_stream: bool,
    /// Constants that lose a part.
    pub constants: usize,
}

/// A pruned model.
pub struct Pruned {
    /// The model; the one that was given where nothing was to go.
    pub model: Model,
    /// What was cut, by the ties of `groups.model`.
    pub kept: Kept,
    /// Each group.
    pub changes: Vec<GroupChange>,
    /// What stays whole, and why.
    pub frozen: Vec<Frozen>,
    /// The cost of a sample before and after.
    pub cost: (Cost, Cost),
    /// What was found, as sentences.
    pub notes: Vec<String>,
}

/// Prunes a model: ranks what can go, takes as much as is asked for, and checks what is left.
///
/// # Errors
/// When nothing can be removed, a criterion lacks what it asks for, or the user cancels.
pub fn prune(
    groups: &mut Groups,
    settings: &Settings,
    seen: &Seen,
    progress: &dyn Progress,
) -> Result<Pruned> {
    if settings.keep_streams {
        keep_streams(groups);
    }
    let structure = structure_name(settings.structure);
    groups.check(structure)?;
    let plan = Plan::of(groups, settings, seen)?;
    let before = cost_of(&groups.model)?;
    let (stay, mut notes) = match settings.of {
        Of::Latency => latency::choose(groups, &plan, settings, progress)?,
        _ => (plan.choose(groups, settings, before)?, Vec::new()),
    };
    let kept = plan.kept(groups, &stay);
    let changes = changes(groups, &plan, &stay);
    let frozen = groups.frozen.clone();
    if kept.is_empty() {
        notes.push(
            "nothing goes: the amount is too small for the multiples that are to stay".into(),
        );
        let mut model = groups.model.clone();
        as_shuffles(&mut model, &groups.shuffles)?;
        return Ok(Pruned {
            model,
            kept,
            changes,
            frozen,
            cost: (before, before),
            notes,
        });
    }
    let mut model = cut(&groups.model, &groups.inferred, &kept)?;
    gate::check(groups, &kept, &model, &mut notes)?;
    as_shuffles(&mut model, &groups.shuffles)?;
    let after = cost_of(&model)?;
    Ok(Pruned {
        cost: (before, after),
        model,
        kept,
        changes,
        frozen,
        notes,
    })
}

/// The name of a structure.
pub fn structure_name(structure: Structure) -> &'static str {
    let all = crate::prune::groups::STRUCTURES;
    let found = all.iter().find(|(_, s)| *s == structure);
    found.map_or("", |(name, _)| name)
}

/// Groups that layers add to become frozen.
fn keep_streams(groups: &mut Groups) {
    let (streams, rest) = std::mem::take(&mut groups.groups)
        .into_iter()
        .partition(|g| g.is_stream);
    groups.groups = rest;
    for group in streams {
        groups.frozen.push(Frozen {
            nodes: vec![group.name],
            why: "layers add to it, and such channels are to stay".into(),
        });
    }
}

/// The cost of a sample, where lengths that are open are as short as the model allows.
pub(crate) fn cost_of(model: &Model) -> Result<Cost> {
    let inputs = workable_inputs(model, &[])?;
    model_cost(model, &infer::infer(model, &inputs)?)
}

fn changes(groups: &Groups, plan: &Plan, stay: &[usize]) -> Vec<GroupChange> {
    let rows = groups.groups.iter().zip(stay).enumerate();
    let row = |(i, (group, stay)): (usize, (&crate::prune::groups::Group, &usize))| {
        let constants: BTreeSet<_> = group
            .axes()
            .filter(|a| groups.model.graph.constant(a.value).is_some())
            .map(|a| a.value)
            .collect();
        GroupChange {
            name: group.name.clone(),
            count: group.count(),
            kept: *stay,
            most: plan.most(i),
            is_stream: group.is_stream,
            constants: constants.len(),
        }
    };
    rows.map(row).collect()
}

/// Checks an amount.
///
/// # Errors
/// When it is no share.
pub fn check_amount(amount: f64) -> Result<()> {
    if (0.0..1.0).contains(&amount) {
        return Ok(());
    }
    let what = format!("an amount of {amount} is no share of the whole");
    Err(Error::usage(what).hint("from 0 to less than 1: 0.3 takes three of ten"))
}

//! What pruning of single weights, of N of M and of blocks can be told.

use edgesmith_ir::{Model, Result};

use crate::prune::weights::criteria::{self, CRITERIA};
use crate::prune::weights::pattern::Pattern;
use crate::prune::weights::scope::{SCOPES, Scope};
use crate::prune::weights::sites::Choice;
use crate::prune::weights::{Settings, prune};
use crate::quantize::changes::Changes;
use crate::steps::{Data, Given, Key, Kind, Work};

/// The kinds of structures.
pub const KINDS: &[&str] = &["unstructured", "N:M", "RxC"];

/// The settings.
pub const KEYS: &[Key] = &[
    Key {
        name: "scope",
        value: "NAME",
        about: "Over what scores compete [default: layer, with wanda row]: global has one threshold over all, in a layer or a row the same share goes, erk takes less of small layers",
        kind: Kind::OneOf(|| SCOPES.iter().map(|(name, ..)| *name).collect()),
    },
    Key {
        name: "all-layers",
        value: "",
        about: "Also first and depthwise convolutions, and products before an output",
        kind: Kind::Flag,
    },
];

/// The names of the criteria.
pub fn criteria() -> impl Iterator<Item = &'static str> {
    CRITERIA.iter().map(|c| c.name)
}

/// The kind of a structure.
pub fn kind(structure: &str) -> &str {
    Pattern::kind(structure)
}

/// The settings that are given.
///
/// # Errors
/// When two do not go together.
pub fn settings(given: &Given) -> Result<Settings> {
    let structure = given.text("structure").unwrap_or_default();
    let pattern: Pattern = structure
        .parse()
        .map_err(|e: edgesmith_ir::Error| e.at(given.place_of("structure")))?;
    let criterion = criteria::find(given.text("criterion").unwrap_or("magnitude"))?;
    let amount = match (given.number("amount"), pattern.share()) {
        (None, None) => {
            let e = given.fault("amount", format!("{structure} needs an amount"));
            return Err(e.hint("the share that goes, such as --amount 0.5"));
        }
        (Some(a), Some(share)) if (a - share).abs() > 1e-9 && a != 0.0 => {
            let what = format!("{pattern} takes {share} of each group, not {a}");
            return Err(given.fault("amount", what).hint("leave the amount out"));
        }
        (Some(a), _) => a,
        (None, Some(share)) => share,
    };
    let mut settings = Settings {
        amount,
        choice: Choice {
            exclude: super::excluded(given)?,
            everything: given.flag("all-layers"),
        },
        seed: given.count("prune-seed").unwrap_or(0) as u64,
        ..Settings::new(criterion, pattern, amount)
    };
    settings.amount = amount;
    if let Some(name) = given.text("scope") {
        if pattern.share().is_some() {
            let what = format!("{pattern} takes its share of each group: there is no scope");
            return Err(given.fault("scope", what));
        }
        settings.scope = Scope::find(name)?;
    }
    settings.check().map_err(|e| e.at(given.place.as_str()))?;
    Ok(settings)
}

/// Whether samples are looked at.
///
/// # Errors
/// As [`settings`].
pub fn data(given: &Given) -> Result<Data> {
    Ok(match settings(given)?.criterion.needs_data {
        true => Data::Needed,
        false => Data::Useful,
    })
}

/// Prunes a model.
///
/// # Errors
/// As [`prune`].
pub fn apply(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    let settings = settings(given)?;
    let (out, sparsity) = prune(model, &settings, work.progress)?;
    let changes = Changes {
        pruned: sparsity,
        ..Changes::default()
    };
    Ok((out, changes))
}

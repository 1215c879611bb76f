//! What pruning of single weights, of N of M and of blocks can be told.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Model, Result};

use crate::prune::weights::criteria::{self, CRITERIA};
use crate::prune::weights::pattern::Pattern;
use crate::prune::weights::scope::{SCOPES, Scope};
use crate::prune::weights::sites::Choice;
use crate::prune::weights::{Calibration, Settings, notes, prune};
use crate::quantize::changes::Changes;
use crate::quantize::weight_only::{self, blocks::Scheme, method};
use crate::steps::{Data, GROUPS, Given, Key, Kind, Work};

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
    Key {
        name: "dense-inputs",
        value: "",
        about: "What a weight multiplies comes from the model as it was, not from the weights pruned before it",
        kind: Kind::Flag,
    },
    Key {
        name: "damping",
        value: "SHARE",
        about: "SparseGPT: what is added to the diagonal of XᵀX, as a share of its mean [default: 0.01]",
        kind: Kind::Number,
    },
    Key {
        name: "quantize",
        value: "TYPE",
        about: "SparseGPT: round what stays, in the same sweep; zero stays zero",
        kind: Kind::OneOf(|| QUANTIZED.to_vec()),
    },
    Key {
        name: "group",
        value: "N",
        about: "With --quantize: numbers of a row that share a scale [default: 128]",
        kind: Kind::OneOf(|| GROUPS.to_vec()),
    },
    Key {
        name: "save-masks",
        value: "FILE",
        about: "Write the masks into FILE.safetensors: a bit for each weight",
        kind: Kind::Text,
    },
    Key {
        name: "masks",
        value: "FILE",
        about: "Prune what these masks say, and not by a criterion",
        kind: Kind::Text,
    },
    Key {
        name: "packed",
        value: "FILE",
        about: "Write the pruned weights into FILE.safetensors too, packed: numbers that stay, and their places",
        kind: Kind::Text,
    },
];

/// The types to which what stays is rounded.
const QUANTIZED: &[&str] = &["int4", "int8"];

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
        (None, None) if given.has("masks") => 0.0,
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
            pattern: Some(pattern),
        },
        damping: given.number("damping").unwrap_or(0.01),
        rounding: rounding(given)?,
        seed: given.count("prune-seed").unwrap_or(0) as u64,
        ..Settings::new(criterion, pattern, amount)
    };
    settings.amount = amount;
    if given.has("masks") && (given.has("criterion") || given.has("amount")) {
        return Err(given.fault(
            "masks",
            "masks say what goes: leave criterion and amount out",
        ));
    }
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

/// How what stays is rounded, where it is.
fn rounding(given: &Given) -> Result<Option<weight_only::Settings>> {
    let Some(to) = given.text("quantize") else {
        return match given.has("group") {
            true => Err(given.fault("group", "\"group\" means something with \"quantize\" alone")),
            false => Ok(None),
        };
    };
    let bits = if to == "int4" { 4 } else { 8 };
    let group = given.text("group").map_or(128, |g| g.parse().unwrap_or(0));
    let scheme = Scheme {
        bits,
        group,
        symmetric: true,
    };
    Ok(Some(weight_only::Settings {
        scheme,
        embeddings: false,
        ..weight_only::Settings::new(&method::RTN, bits)
    }))
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
    let mut settings = settings(given)?;
    if let Some(path) = given.text("masks") {
        let masks = work.masks(path)?;
        if masks.pattern != settings.pattern {
            let what = format!("the masks are {}, not {}", masks.pattern, settings.pattern);
            return Err(given.fault("masks", what));
        }
        settings.given = Some(masks);
    }
    let from = work.samples.map(|samples| Calibration {
        samples,
        settings: work.calibration(Some(BTreeSet::new()), BTreeMap::new()),
        dense: given.flag("dense-inputs"),
    });
    let done = prune(model, &settings, from.as_ref(), work.progress)?;
    work.warn(&done.warnings);
    let mut changes = Changes::default();
    if let Some(sparsity) = &done.sparsity {
        changes.tell(notes(sparsity, &done.model), work.follow);
    }
    changes.pruned = done.sparsity;
    changes.weights = done.rounded;
    Ok((done.model, changes))
}

//! What pruning of channels, heads and blocks can be told.

use std::collections::BTreeMap;

use edgesmith_ir::analysis::Cost;
use edgesmith_ir::channels::as_shuffles;
use edgesmith_ir::{Model, Result};

use crate::prune::channels::criteria::{self, CRITERIA, Needs, activation};
use crate::prune::channels::plan::SCOPES;
use crate::prune::channels::{
    Gradients, SHARES, Seen, Settings, check_amount, cost_of, prune, recover, structure_name,
};
use crate::prune::groups::{Groups, Structure};
use crate::prune::{Structured, bodies, layers};
use crate::quantize::changes::Changes;
use crate::steps::{Data, Given, Key, Kind, Work, quantize::no_data};

/// The structure of whole blocks.
pub const LAYER: &str = "layer";

/// The structures that these settings belong to.
pub const KINDS: &[&str] = &["channel", "head", "head-width", "width", LAYER];

/// The settings.
pub const KEYS: &[Key] = &[
    Key {
        name: "of",
        value: "WHAT",
        about: "What the amount is a share of: count (of channels, heads or blocks), parameters, macs, bytes, or latency measured on this machine [default: count]",
        kind: Kind::OneOf(|| SHARES.iter().map(|(name, _)| *name).collect()),
    },
    Key {
        name: "ranking",
        value: "NAME",
        about: "What competes: local takes the same share of each layer, global of all layers together, isomorphic of layers of the same form [default: local]",
        kind: Kind::OneOf(|| SCOPES.iter().map(|(name, _)| *name).collect()),
    },
    Key {
        name: "round-to",
        value: "N",
        about: "What stays is a multiple of N, where there are as many [default: 8 for channels, 1 for heads, 2 for their width]",
        kind: Kind::Count,
    },
    Key {
        name: "most",
        value: "SHARE",
        about: "At most this share of a layer goes where layers compete [default: 0.75]",
        kind: Kind::Number,
    },
    Key {
        name: "latency-threads",
        value: "N",
        about: "Threads that latency is measured with, 0 for one for each core [default: 1]",
        kind: Kind::Count,
    },
    Key {
        name: "keep-streams",
        value: "",
        about: "Channels that layers add to stay, as those of residual stages",
        kind: Kind::Flag,
    },
    Key {
        name: "no-recovery",
        value: "",
        about: "Weights of what is left stay as they are; with samples, they are else fitted to what the layers gave before",
        kind: Kind::Flag,
    },
    Key {
        name: "recovery-samples",
        value: "N",
        about: "Samples that recovery looks at [default: 64]",
        kind: Kind::Count,
    },
];

/// The names of the criteria.
pub fn criteria() -> impl Iterator<Item = &'static str> {
    CRITERIA.iter().map(|c| c.name)
}

/// Samples of which gradients are taken.
const GRADIENT_SAMPLES: usize = 256;

/// Samples that blocks are compared on.
const BLOCK_SAMPLES: usize = 64;

/// True where the settings are of a structure of these.
pub fn is_of(structure: &str) -> bool {
    KINDS.contains(&structure)
}

/// The settings that are given; `None` for blocks.
///
/// # Errors
/// When two do not go together.
fn settings(given: &Given) -> Result<Option<Settings>> {
    let name = given.text("structure").unwrap_or_default();
    let amount = given.number("amount").ok_or_else(|| {
        given
            .fault("amount", format!("{name} needs an amount"))
            .hint("the share that goes, such as --amount 0.3")
    })?;
    check_amount(amount).map_err(|e| e.at(given.place_of("amount")))?;
    let Some(structure) = Structure::named(name) else {
        return blocks(given);
    };
    let criterion = criteria::find(given.text("criterion").unwrap_or("l2"))
        .map_err(|e| e.at(given.place_of("criterion")))?;
    let of = given.text("of").unwrap_or("count");
    let ranking = given.text("ranking").unwrap_or("local");
    let most = given.number("most").unwrap_or(0.75);
    if !(0.0..=1.0).contains(&most) {
        let what = format!("{most} is no share of a layer");
        return Err(given.fault("most", what).hint("from 0 to 1"));
    }
    let multiple = match structure {
        Structure::Channel | Structure::Width => 8,
        Structure::HeadWidth => 2,
        Structure::Head => 1,
    };
    Ok(Some(Settings {
        structure,
        amount,
        of: named(SHARES, of).unwrap_or_default(),
        criterion,
        scope: named(SCOPES, ranking).unwrap_or_default(),
        round_to: given.count("round-to").unwrap_or(multiple).max(1),
        most,
        exclude: super::excluded(given)?,
        keep_streams: given.flag("keep-streams"),
        seed: given.count("prune-seed").unwrap_or(0) as u64,
        threads: given.count("latency-threads").unwrap_or(1),
    }))
}

/// What of the settings means nothing with blocks.
fn blocks(given: &Given) -> Result<Option<Settings>> {
    let others = [
        "criterion",
        "ranking",
        "round-to",
        "most",
        "keep-streams",
        "latency-threads",
    ];
    if let Some(key) = others.iter().find(|k| given.has(k)) {
        let what = "blocks are compared by how much they change samples".to_owned();
        return Err(given.fault(key, what).hint("leave it out"));
    }
    match given.text("of").filter(|of| *of != "count") {
        Some(of) => Err(given
            .fault("of", format!("blocks are counted, not {of}"))
            .hint("leave it out")),
        None => Ok(None),
    }
}

fn named<T: Copy>(list: &[(&str, T)], name: &str) -> Option<T> {
    list.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
}

/// Whether samples are looked at.
///
/// # Errors
/// As the settings.
pub fn data(given: &Given) -> Result<Data> {
    let needs = settings(given)?.map(|s| s.criterion.needs);
    Ok(match needs {
        Some(Needs::Nothing) => Data::Useful,
        Some(Needs::Samples | Needs::Gradients) | None => Data::Needed,
    })
}

/// Prunes a model.
///
/// # Errors
/// When nothing can be removed, samples are missing, or the user cancels.
pub fn apply(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    let Some(settings) = settings(given)? else {
        return shorten(given, model, work);
    };
    if settings.amount == 0.0 {
        return Ok((model.clone(), Changes::default()));
    }
    let mut groups = Groups::of(model, settings.structure, &settings.exclude)?;
    let name = structure_name(settings.structure);
    if groups.groups.is_empty() {
        let mut inner = model_of(&groups)?;
        let inside = bodies::prune(&mut inner, &settings, work.progress)?;
        groups.frozen.extend(inside.frozen.clone());
        if inside.changes.is_empty() {
            groups.check(name)?;
        }
        let cost = (cost_of(&groups.model)?, cost_of(&inner)?);
        let changes = structured(&settings, inside, cost, work);
        return Ok((inner, changes));
    }
    let statistics = match settings.criterion.needs {
        Needs::Samples => {
            let only = activation::values(&groups).into_iter().collect();
            Some(work.look(&groups.model, Some(only), BTreeMap::new())?)
        }
        _ => None,
    };
    let gradients = match settings.criterion.needs {
        Needs::Gradients => {
            let samples = work.samples.ok_or_else(no_data)?;
            let count = work.count.unwrap_or(GRADIENT_SAMPLES);
            Some(Gradients::of(&groups.model, samples, count, work.progress)?)
        }
        _ => None,
    };
    let seen = Seen {
        statistics: statistics.as_ref(),
        gradients: gradients.as_ref(),
    };
    let mut pruned = prune(&mut groups, &settings, &seen, work.progress)?;
    let mut recovered = Vec::new();
    if let Some(samples) = work.samples.filter(|_| !given.flag("no-recovery")) {
        let own = recover::Settings {
            samples: given.count("recovery-samples").unwrap_or(64),
            seed: settings.seed,
            ..recover::Settings::default()
        };
        recovered = recover::recover(&groups, &mut pruned, samples, &own, work.progress)?;
    }
    let inside = bodies::prune(&mut pruned.model, &settings, work.progress)?;
    let mut cost = pruned.cost;
    if !inside.changes.is_empty() {
        cost.1 = cost_of(&pruned.model)?;
    }
    let mut all = bodies::Inside {
        changes: pruned.changes,
        frozen: pruned.frozen,
        notes: pruned.notes,
    };
    all.changes.extend(inside.changes);
    all.frozen.extend(inside.frozen);
    all.notes.extend(inside.notes);
    let mut changes = structured(&settings, all, cost, work);
    if let Some(of) = &mut changes.structured {
        of.recovered = recovered;
    }
    Ok((pruned.model, changes))
}

/// The model of groups of which nothing is cut.
fn model_of(groups: &Groups) -> Result<Model> {
    let mut model = groups.model.clone();
    as_shuffles(&mut model, &groups.shuffles)?;
    Ok(model)
}

fn structured(
    settings: &Settings,
    found: bodies::Inside,
    cost: (Cost, Cost),
    work: &Work,
) -> Changes {
    let mut changes = Changes::default();
    changes.tell(found.notes, work.follow);
    changes.structured = Some(Structured {
        structure: structure_name(settings.structure),
        criterion: settings.criterion.name,
        groups: found.changes,
        blocks: Vec::new(),
        frozen: found.frozen,
        cost,
        recovered: Vec::new(),
    });
    changes
}

fn shorten(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    let amount = given.number("amount").unwrap_or(0.0);
    if amount == 0.0 {
        return Ok((model.clone(), Changes::default()));
    }
    let samples = work.samples.ok_or_else(no_data)?;
    let count = work.count.unwrap_or(BLOCK_SAMPLES);
    let exclude = super::excluded(given)?;
    let short = layers::shorten(model, amount, &exclude, samples, count, work.progress)?;
    let mut changes = Changes::default();
    changes.tell(short.notes, work.follow);
    changes.structured = Some(Structured {
        structure: LAYER,
        criterion: "1 - cos of what a block takes and gives",
        groups: Vec::new(),
        blocks: short.blocks,
        frozen: Vec::new(),
        cost: short.cost,
        recovered: Vec::new(),
    });
    Ok((short.model, changes))
}

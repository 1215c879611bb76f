//! Masks in training: those that a model or a file brings, and those that are chosen on the way.

use std::sync::Arc;

use edgesmith_ir::analysis::{Pruned, mark_pruned};
use edgesmith_ir::{Error, Model, Result, Tensor};
use edgesmith_train::masked::Kept;
use edgesmith_train::{Settings, Training};

use crate::prune::weights::gradual::{Schedule, Weights};
use crate::prune::weights::pattern::Pattern;
use crate::prune::weights::scope::Scope;
use crate::prune::weights::sites::Choice;
use crate::prune::weights::{Sparsity, found};
use crate::steps::{Given, Key, Kind, Work};

/// The settings.
pub const KEYS: &[Key] = &[
    Key {
        name: "sparsity",
        value: "SHARE",
        about: "Prune while training: the share of weights that is zero in the end (Zhu and Gupta 2017)",
        kind: Kind::Number,
    },
    Key {
        name: "sparsity-from",
        value: "PART",
        about: "The part of the run after which pruning begins; 0.1 where not given",
        kind: Kind::Number,
    },
    Key {
        name: "sparsity-to",
        value: "PART",
        about: "The part of the run after which zeros stay as they are; 0.7 where not given, 0.8 at most",
        kind: Kind::Number,
    },
    Key {
        name: "sparsity-every",
        value: "N",
        about: "Steps between two choices of zeros; 100 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "pattern",
        value: "FORM",
        about: "How zeros lie: unstructured, N:M such as 2:4, or blocks such as 4x1; unstructured where not given",
        kind: Kind::Text,
    },
    Key {
        name: "scope",
        value: "NAME",
        about: "Over what sizes compete: global (one threshold over all, where not given) or layer (each loses the same share)",
        kind: Kind::OneOf(|| vec!["global", "layer"]),
    },
    Key {
        name: "dense",
        value: "PATTERN",
        about: "With --sparsity: nodes whose weights stay, by name; * is any text",
        kind: Kind::Texts,
    },
    Key {
        name: "all-layers",
        value: "",
        about: "With --sparsity: also first and depthwise convolutions, and products before an output",
        kind: Kind::Flag,
    },
    Key {
        name: "masks",
        value: "FILE",
        about: "Masks of `edgesmith prune --save-masks`: what they mask is zero and stays so; where not given, zeros of a pruned model stay",
        kind: Kind::Text,
    },
];

/// How weights are pruned on the way, where that is asked for.
///
/// # Errors
/// When settings do not go together.
pub fn schedule(given: &Given) -> Result<Option<Schedule>> {
    let pattern: Pattern = match given.text("pattern") {
        None => Pattern::Unstructured,
        Some(text) => text
            .parse()
            .map_err(|e: Error| e.at(given.place_of("pattern")))?,
    };
    let sparsity = match (given.number("sparsity"), pattern.share()) {
        (Some(s), Some(share)) if (s - share).abs() > 1e-9 => {
            let what = format!("{pattern} makes {share} of the weights zero, not {s}");
            return Err(given.fault("sparsity", what));
        }
        (Some(s), _) | (None, Some(s)) => s,
        (None, None) => {
            let names = KEYS.iter().map(|k| k.name);
            let mut others = names.filter(|n| !["sparsity", "masks"].contains(n));
            return match others.find(|n| given.has(n)) {
                None => Ok(None),
                Some(name) => {
                    let what = format!("\"{name}\" means nothing without a sparsity");
                    Err(given.fault(name, what).hint("--sparsity 0.9"))
                }
            };
        }
    };
    let part = |name, default| given.number(name).unwrap_or(default);
    let schedule = Schedule {
        sparsity,
        window: [part("sparsity-from", 0.1), part("sparsity-to", 0.7)],
        every: given.count("sparsity-every").unwrap_or(100),
        pattern,
        scope: Scope::find(given.text("scope").unwrap_or("global"))?,
        choice: Choice {
            exclude: given.texts("dense"),
            everything: given.flag("all-layers"),
            pattern: Some(pattern),
        },
    };
    schedule.check().map_err(|e| e.at(given.place.as_str()))?;
    Ok(Some(schedule))
}

/// The masks that a file brings.
///
/// # Errors
/// When it cannot be read, or its masks are of another model.
pub fn masks(given: &Given, model: &Model, work: &Work) -> Result<Kept> {
    let Some(path) = given.text("masks") else {
        return Ok(Kept::new());
    };
    let masks = work.masks(path)?;
    masks.belong(model)?;
    Ok(masks
        .all
        .iter()
        .map(|(n, m)| (n.clone(), m.kept()))
        .collect())
}

/// Lets a training prune on the way, where that is asked for.
///
/// # Errors
/// When nothing can be pruned.
pub fn prepare(given: &Given, training: &mut Training) -> Result<()> {
    let Some(schedule) = schedule(given)? else {
        return Ok(());
    };
    if !training.thawed.weights.is_empty() {
        let what = "the model is quantised: weights are pruned before that";
        return Err(given
            .fault("sparsity", what)
            .hint("a model whose zeros are there keeps them"));
    }
    let mut weights = Weights::of(&training.base, &schedule)?;
    weights.retain(|name| training.parameters.iter().any(|p| p.name == name));
    let count = weights.sites().len();
    if count == 0 {
        return Err(Error::unsupported(
            "no weight that is trained can be pruned",
        ));
    }
    training.notes.push(format!(
        "{count} weights are pruned to {} on the way, {}, {}: until {} of the run what is zero can come back",
        schedule.sparsity,
        schedule.pattern,
        schedule.scope.name(),
        schedule.window[1]
    ));
    training.gradual = Some(Arc::new(weights));
    Ok(())
}

/// The share of zeros that masks of each epoch have in its last step; none where nothing is pruned on
/// the way.
pub fn shares(training: &Training, settings: &Settings, count: usize, epochs: usize) -> Vec<f64> {
    let Some(gradual) = training.gradual.as_deref() else {
        return Vec::new();
    };
    let steps = count / settings.batch.clamp(1, count.max(1));
    let total = steps * settings.epochs;
    let mut share = 0.0;
    let shares = (0..steps * epochs).map(|step| {
        share = gradual.due(step, total).unwrap_or(share);
        share
    });
    let shares: Vec<f64> = shares.collect();
    shares
        .chunks_exact(steps.max(1))
        .filter_map(|epoch| epoch.last().copied())
        .collect()
}

/// What tells masks of parameters apart.
pub fn digest(training: &Training) -> String {
    let masks = training.parameters.iter().filter_map(|p| p.mask.as_ref());
    let bytes = masks.flat_map(|m| m.iter().map(|&k| if k { '1' } else { '0' }));
    super::digest(&[&bytes.collect::<String>()])
}

/// The trained model with what was pruned on the way in its metadata, and an account of that.
///
/// # Errors
/// When a weight does not have the zeros that it should have.
pub fn finished(
    given: &Given,
    mut model: Model,
    training: &Training,
) -> Result<(Model, Option<Sparsity>)> {
    let Some(schedule) = schedule(given)?.filter(|_| training.gradual.is_some()) else {
        if given.has("masks") {
            mark_masked(&mut model, training);
        }
        return Ok((model, None));
    };
    let mut weights = Weights::of(&training.base, &schedule)?;
    weights.retain(|name| training.parameters.iter().any(|p| p.name == name));
    let found = found(&model, weights.sites(), schedule.pattern, schedule.scope)?;
    for weight in &found.weights {
        let sparsity = weight.gone as f64 / (weight.dims[0] * weight.dims[1]).max(1) as f64;
        let pattern = schedule.pattern.to_string();
        mark_pruned(&mut model, &weight.weight, &Pruned { pattern, sparsity });
    }
    Ok((model, Some(found)))
}

/// Says in the metadata which parameters had masks.
fn mark_masked(model: &mut Model, training: &Training) {
    for p in &training.parameters {
        let is_there = |v| model.graph.constant(v).map(Tensor::count);
        let Some(mask) = p
            .mask
            .as_ref()
            .filter(|_| p.value.and_then(is_there).is_some())
        else {
            continue;
        };
        let gone = mask.iter().filter(|k| !**k).count();
        let what = Pruned {
            pattern: "unstructured".into(),
            sparsity: gone as f64 / mask.len().max(1) as f64,
        };
        if !edgesmith_ir::analysis::pruned(model).contains_key(&p.name) {
            mark_pruned(model, &p.name, &what);
        }
    }
}

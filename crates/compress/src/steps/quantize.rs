//! The step `quantize`: weights and activations of smaller numbers.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Error, Model, Result};

use super::{Data, Given, Group, Key, Kind, StepDef, Work};
use crate::mixed::bytes::Bytes;
use crate::mixed::choose;
use crate::mixed::judge::Judge;
use crate::mixed::noise::{self, Noise};
use crate::mixed::search;
use crate::mixed::weights::Weights;
use crate::quantize::changes::Changes;
use crate::quantize::int8::{Ready, RoundBy};
use crate::quantize::{float8, half, int8, weight_only};
use crate::samples::Samples;

mod bytes;
mod floats8;
mod halves;
mod mixed;
mod weights;

pub use bytes::settings as int8_settings;
pub use mixed::settled;

/// The step.
pub static QUANTIZE: StepDef = StepDef {
    name: "quantize",
    about: "Turns weights and activations into smaller numbers",
    groups: &[
        Group {
            of: &[],
            keys: COMMON,
        },
        Group {
            of: &["int8"],
            keys: bytes::KEYS,
        },
        Group {
            of: weights::TYPES,
            keys: weights::KEYS,
        },
        Group {
            of: &["int8", "int4", "int3", "int2", "int8-weights", "nf4"],
            keys: mixed::KEYS,
        },
        Group {
            of: &["fp16", "bf16"],
            keys: halves::KEYS,
        },
        Group {
            of: floats8::TYPES,
            keys: floats8::KEYS,
        },
    ],
    layers: true,
    data,
    bits: |given| match given.text("to") {
        Some("int8") if bytes::is_narrow(given) => Some(4),
        Some("int8" | "int8-weights" | "fp8" | "fp8-weights") => Some(8),
        Some("int4" | "nf4" | "int3") => Some(4),
        Some("int2") => Some(2),
        _ => Some(16),
    },
    apply,
};

const COMMON: &[Key] = &[
    Key {
        name: "to",
        value: "TYPE",
        about: "The type of weights and activations",
        kind: Kind::OneOf(|| [&["int8", "fp16", "bf16"], floats8::TYPES, weights::TYPES].concat()),
    },
    Key {
        name: "format",
        value: "NAME",
        about: "The form of the file [default: qdq; of weights alone matmulnbits, with nf4 bnb4]",
        kind: Kind::OneOf(|| {
            let alone = weight_only::format::FORMATS.iter().map(|f| f.name);
            alone.chain(["qoperator"]).collect()
        }),
    },
    Key {
        name: "symmetric",
        value: "",
        about: "No zero points: of activations (with s8), or of weights alone",
        kind: Kind::Flag,
    },
    Key {
        name: "exclude",
        value: "PATTERN",
        about: "Nodes that stay in float, by name; * is any text",
        kind: Kind::Texts,
    },
];

/// Patterns of nodes that stay in float, where there is no other type for single layers.
fn excluded(given: &Given) -> Result<Vec<String>> {
    let mut all = given.texts("exclude");
    for layer in given.layers() {
        if layer.to.is_some() || layer.group.is_some() {
            let what = format!(
                "the layer \"{}\" can be kept only: other types are of weights alone",
                layer.pattern
            );
            return Err(given.fault("to", what));
        }
        all.push(layer.pattern.clone());
    }
    Ok(all)
}

fn data(given: &Given) -> Result<Data> {
    let to = given.variant()?;
    let goal = mixed::goal(given)?;
    if !goal.is_empty() {
        mixed::sense(given, to != "int8")?;
    }
    if !goal.is_empty() && given.flag("dynamic") {
        return Err(given.fault(
            "dynamic",
            "a goal is kept with ranges from calibration only",
        ));
    }
    if !goal.is_empty() && given.flag("true-sequential") {
        return Err(given.fault(
            "true-sequential",
            "a goal is kept with what the float model multiplies only",
        ));
    }
    Ok(match to {
        "int8" => {
            bytes::settings(given)?;
            for key in ["adaptive-rounding", "bias-samples"] {
                if given.flag("dynamic") && given.has(key) {
                    let what = format!("{key} needs samples, and dynamic looks at none");
                    return Err(given.fault(key, what));
                }
            }
            match given.flag("dynamic") {
                true => Data::Unused,
                false => Data::Needed,
            }
        }
        "fp16" => halves::settings(given).map(|_| Data::Useful)?,
        "bf16" => halves::settings(given).map(|_| Data::Unused)?,
        "fp8" | "fp8-weights" => {
            floats8::settings(given)?;
            match given.text("to") {
                Some("fp8") => Data::Needed,
                _ => Data::Useful,
            }
        }
        _ => match weights::settings(given, true)?.method {
            m if m.needs_data && given.has("method") => Data::Needed,
            m if m.needs_data => Data::Useful,
            _ => Data::Unused,
        },
    })
}

fn apply(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    match given.variant()? {
        "fp16" => {
            let statistics = work.look_at_all(model)?;
            half::to_fp16(model, statistics.as_ref(), &halves::settings(given)?)
        }
        "bf16" => half::to_bf16(model, &halves::settings(given)?),
        "fp8" | "fp8-weights" => {
            let settings = floats8::settings(given)?;
            let only = float8::needs(&model.graph, &settings);
            let statistics = match work.samples {
                Some(_) => Some(work.look(model, Some(only), BTreeMap::new())?),
                None => None,
            };
            float8::to_fp8(model, statistics.as_ref(), &settings)
        }
        "int8" => to_int8(given, model, work),
        _ => to_weights(given, model, work),
    }
}

fn to_int8(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    let settings = bytes::settings(given)?;
    if given.flag("dynamic") {
        return int8::quantize_dynamic(model, &settings);
    }
    let (samples, progress) = (work.samples.ok_or_else(no_data)?, work.progress);
    let look = &mut |model: &Model, only| work.look(model, Some(only), BTreeMap::new());
    let mut ready = Ready::of(model, look, &settings)?;
    if given.text("observer") == Some(bytes::BEST) {
        return to_best_int8(given, model, ready, &settings, work);
    }
    ready.learn(samples, &settings, progress)?;
    finish_int8(given, model, &ready, &settings, work)
}

/// INT8 with the observer that leaves the least noise, and with adaptive rounding where that helps.
fn to_best_int8(
    given: &Given,
    model: &Model,
    mut ready: Ready,
    settings: &int8::Settings,
    work: &mut Work,
) -> Result<(Model, Changes)> {
    let (samples, progress) = (work.samples.ok_or_else(no_data)?, work.progress);
    let judges = noise::judges(samples, settings.adaptive_samples);
    let mut noise = Noise::new(&ready.model, judges)?;
    // Observers are compared with weights rounded to nearest, which takes a fraction of the time.
    let mut compared = choose::observers(&ready, settings, &mut noise, progress)?;
    ready.learn(samples, settings, progress)?;
    let rounding = match settings.adaptive_samples {
        0 => None,
        _ => Some(choose::rounding(
            &mut ready,
            settings,
            &mut compared,
            &mut noise,
            progress,
        )?),
    };
    let is_adaptive = rounding.is_some_and(|r| r.is_adaptive);
    let by_blocks = is_adaptive && settings.round_by == RoundBy::Blocks;
    let noise = by_blocks.then_some(noise);
    let settings = compared.settings(settings);
    let mut made = finish_int8(given, model, &ready, &settings, work)?;
    if let Some(mut noise) = noise {
        let by_layers = int8::Settings {
            round_by: RoundBy::Layers,
            ..settings
        };
        let other = finish_int8(given, model, &ready, &by_layers, work)?;
        let [blocks, layers] = [&made.0, &other.0].map(|m| noise.of(m, progress));
        let (blocks, layers) = (blocks?, layers?);
        if layers.total() < blocks.total() {
            made = other;
            made.1.warnings.push(format!(
                "rounding by blocks is taken back: {:.1} dB with it, {:.1} dB by layers, on {} samples",
                blocks.db(),
                layers.db(),
                noise.samples()
            ));
        }
    }
    let (model, mut changes) = made;
    changes.observers = compared.observers();
    changes.rounding = rounding;
    Ok((model, changes))
}

/// INT8 of what is ready, with products in float where a goal needs it.
fn finish_int8(
    given: &Given,
    model: &Model,
    ready: &Ready,
    settings: &int8::Settings,
    work: &mut Work,
) -> Result<(Model, Changes)> {
    let (samples, progress) = (work.samples.ok_or_else(no_data)?, work.progress);
    let goal = mixed::goal(given)?;
    if goal.is_empty() {
        return ready.finish(samples, settings, progress);
    }
    let (judged, sense) = (judges(work)?, mixed::sense(given, false)?);
    let mut judge = Judge::new(model, Some(judged), &goal, work.size)?;
    let mut maker = Bytes::new(ready, settings, sense, samples, judged, progress)?;
    search(&mut maker, &goal, &mut judge, progress)
}

fn to_weights(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    let settings = weights::settings(given, work.samples.is_some())?;
    let (goal, model) = (mixed::goal(given)?, &weight_only::plain(model)?);
    if settings.method.needs_data && goal.is_empty() {
        let from = weight_only::Calibration {
            samples: work.samples.ok_or_else(no_data)?,
            settings: work.calibration(
                Some(BTreeSet::new()),
                weight_only::grams(&model.graph, &settings),
            ),
            stores: work.stores,
        };
        let done = weight_only::by_segment(model, &from, &settings, work.progress)?;
        if let Some((model, changes, warnings)) = done {
            work.warn(&warnings);
            return Ok((model, changes));
        }
    }
    let statistics = match settings.method.needs_data {
        true => {
            let grams = weight_only::grams(&model.graph, &settings);
            Some(work.look(model, Some(BTreeSet::new()), grams)?)
        }
        false => None,
    };
    let (seen, progress) = (statistics.as_ref(), work.progress);
    if goal.is_empty() {
        return weight_only::quantize(model, seen, &settings, progress);
    }
    let judged = match goal.needs_samples() {
        true => Some(judges(work)?),
        false => work.evaluate.or(work.samples),
    };
    let mut judge = Judge::new(model, judged, &goal, work.size)?;
    let mut maker = Weights::new(model, seen, &settings, progress)?;
    search(&mut maker, &goal, &mut judge, progress)
}

/// The samples that a goal is judged by.
fn judges<'a>(work: &mut Work<'a>) -> Result<&'a dyn Samples> {
    if let Some(samples) = work.evaluate {
        return Ok(samples);
    }
    let samples = work.samples.ok_or_else(mixed::no_judge)?;
    work.warnings.push(
        "the goal is judged by the samples that ranges come from; others say more: --evaluate TEST.npz"
            .into(),
    );
    Ok(samples)
}

/// What is said where a step needs data and has none.
pub(crate) fn no_data() -> Error {
    Error::usage("INT8 needs --calibrate CALIB.npz")
        .hint("an npz with an array for each input, 100 to 500 samples")
}

#[cfg(test)]
mod testing {
    use super::QUANTIZE;
    use crate::steps::{Given, Setting};

    /// The step to a type, with settings.
    pub fn given(to: &str, entries: &[(&str, Setting)]) -> Given {
        let mut g = Given::new(&QUANTIZE, "here");
        g.set("to", text(to), "here").unwrap();
        for (key, value) in entries {
            g.set(key, value.clone(), key).unwrap();
        }
        g
    }

    pub fn text(t: &str) -> Setting {
        Setting::Text(t.into())
    }
}

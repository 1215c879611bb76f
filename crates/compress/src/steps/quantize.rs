//! The step `quantize`: weights and activations of smaller numbers.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Error, Model, Result};

use super::{Data, Given, Group, Key, Kind, StepDef, Work};
use crate::quantize::changes::Changes;
use crate::quantize::{half, int8, weight_only};

mod bytes;
mod halves;
mod weights;

pub use bytes::settings as int8_settings;

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
            of: &["fp16", "bf16"],
            keys: halves::KEYS,
        },
    ],
    layers: true,
    data,
    bits: |given| match given.text("to") {
        Some("int8" | "int8-weights") => Some(8),
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
        kind: Kind::OneOf(|| [&["int8", "fp16", "bf16"], weights::TYPES].concat()),
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

/// Patterns of nodes that stay in float.
fn excluded(given: &Given) -> Vec<String> {
    let mut all = given.texts("exclude");
    all.extend_from_slice(given.kept());
    all
}

fn data(given: &Given) -> Result<Data> {
    Ok(match given.variant()? {
        "int8" => {
            bytes::settings(given)?;
            match given.flag("dynamic") {
                true => Data::Unused,
                false => Data::Needed,
            }
        }
        "fp16" => Data::Useful,
        "bf16" => Data::Unused,
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
            half::to_fp16(model, statistics.as_ref(), &halves::settings(given))
        }
        "bf16" => half::to_bf16(model, &halves::settings(given)),
        "int8" => {
            let settings = bytes::settings(given)?;
            if given.flag("dynamic") {
                return int8::quantize_dynamic(model, &settings);
            }
            let (samples, progress) = (work.samples.ok_or_else(no_data)?, work.progress);
            let look = &mut |model: &Model, only| work.look(model, Some(only), BTreeMap::new());
            int8::post_training(model, look, samples, &settings, progress)
        }
        _ => {
            let settings = weights::settings(given, work.samples.is_some())?;
            let statistics = match settings.method.needs_data {
                true => {
                    let grams = weight_only::grams(&model.graph, &settings);
                    Some(work.look(model, Some(BTreeSet::new()), grams)?)
                }
                false => None,
            };
            weight_only::quantize(model, statistics.as_ref(), &settings, work.progress)
        }
    }
}

/// What is said where a step needs data and has none.
pub(crate) fn no_data() -> Error {
    Error::usage("INT8 needs --calibrate CALIB.npz")
        .hint("an npz with an array for each input, 100 to 500 samples")
}

//! The step `quantize`: weights and activations of smaller numbers.

use edgesmith_ir::{Error, Model, Result};

use super::{Data, Given, Group, Key, Kind, StepDef};
use crate::calibrate::{self, Statistics};
use crate::quantize::changes::Changes;
use crate::quantize::{half, int8};

mod bytes;
mod halves;

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
            of: &["fp16", "bf16"],
            keys: halves::KEYS,
        },
    ],
    layers: true,
    data,
    watch,
    bits: |given| match given.text("to") {
        Some("int8") => Some(8),
        _ => Some(16),
    },
    apply,
};

const COMMON: &[Key] = &[
    Key {
        name: "to",
        value: "TYPE",
        about: "The type of weights and activations",
        kind: Kind::OneOf(|| vec!["int8", "fp16", "bf16"]),
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
            Data::Needed
        }
        "fp16" => Data::Useful,
        _ => Data::Unused,
    })
}

fn watch(given: &Given, model: &Model) -> Result<calibrate::Settings> {
    let only = match given.variant()? {
        "int8" => Some(int8::needs(model, &bytes::settings(given)?)?),
        _ => None,
    };
    Ok(calibrate::Settings {
        only,
        ..calibrate::Settings::default()
    })
}

fn apply(
    given: &Given,
    model: &Model,
    statistics: Option<&Statistics>,
) -> Result<(Model, Changes)> {
    match given.variant()? {
        "fp16" => half::to_fp16(model, statistics, &halves::settings(given)),
        "bf16" => half::to_bf16(model, &halves::settings(given)),
        _ => {
            let statistics = statistics.ok_or_else(no_data)?;
            int8::quantize(model, statistics, &bytes::settings(given)?)
        }
    }
}

/// What is said where a step needs data and has none.
pub(crate) fn no_data() -> Error {
    Error::usage("INT8 needs --calibrate CALIB.npz")
        .hint("an npz with an array for each input, 100 to 500 samples")
}

//! The step `prune`: what a model can do without is taken away.

use edgesmith_ir::{Model, Result};

use super::{Data, Given, Group, Key, Kind, StepDef, Work};
use crate::quantize::changes::Changes;

pub mod channels;
mod weights;

/// The step.
pub static PRUNE: StepDef = StepDef {
    name: "prune",
    about: "Takes away what the model can do without: channels, heads, blocks of layers, or single weights",
    groups: &[
        Group {
            of: &[],
            keys: COMMON,
        },
        Group {
            of: channels::KINDS,
            keys: channels::KEYS,
        },
        Group {
            of: weights::KINDS,
            keys: weights::KEYS,
        },
    ],
    layers: true,
    data,
    bits: |_| None,
    apply,
};

const COMMON: &[Key] = &[
    Key {
        name: "structure",
        value: "FORM",
        about: "What goes: channel, head, head-width, width or layer, which make tensors smaller; or unstructured weights, N:M (2:4: of each 4 inputs 2 stay), blocks RxC (4x1), which become zero",
        kind: Kind::Text,
    },
    Key {
        name: "amount",
        value: "SHARE",
        about: "The share that goes, from 0 to less than 1; N:M says it by itself",
        kind: Kind::Number,
    },
    Key {
        name: "criterion",
        value: "NAME",
        about: "What says which go [default: l2 of channels, magnitude of weights]",
        kind: Kind::OneOf(all_criteria),
    },
    Key {
        name: "prune-seed",
        value: "S",
        about: "Of what chance decides; 0 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "exclude",
        value: "PATTERN",
        about: "Nodes that stay as they are, by name; * is any text",
        kind: Kind::Texts,
    },
];

/// The criteria of all structures.
fn all_criteria() -> Vec<&'static str> {
    let mut names: Vec<&str> = weights::criteria().collect();
    names.extend(channels::criteria().filter(|n| !weights::criteria().any(|w| w == *n)));
    names
}

/// The kind of a structure, by which settings belong to it.
fn kind(structure: &str) -> &str {
    match channels::is_of(structure) {
        true => structure,
        false => weights::kind(structure),
    }
}

/// The nodes that stay by name.
fn excluded(given: &Given) -> Result<Vec<String>> {
    let mut all = given.texts("exclude");
    for layer in given.layers() {
        if layer.to.is_some() || layer.group.is_some() {
            let what = format!("the layer \"{}\" can be kept only", layer.pattern);
            return Err(given.fault("structure", what));
        }
        all.push(layer.pattern.clone());
    }
    Ok(all)
}

fn data(given: &Given) -> Result<Data> {
    given.variant_of(kind)?;
    match given.text("structure").is_some_and(channels::is_of) {
        true => channels::data(given),
        false => weights::data(given),
    }
}

fn apply(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    given.variant_of(kind)?;
    match given.text("structure").is_some_and(channels::is_of) {
        true => channels::apply(given, model, work),
        false => weights::apply(given, model, work),
    }
}

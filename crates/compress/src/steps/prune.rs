//! The step `prune`: what a model can do without is taken away.

use edgesmith_ir::{Model, Result};

use super::{Data, Given, Group, Key, Kind, StepDef, Work};
use crate::quantize::changes::Changes;

mod weights;

/// The step.
pub static PRUNE: StepDef = StepDef {
    name: "prune",
    about: "Takes away what the model can do without: single weights, N of M, or blocks",
    groups: &[
        Group {
            of: &[],
            keys: COMMON,
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
        about: "What goes: unstructured weights, N:M (2:4: of each 4 inputs 2 stay), or blocks RxC (4x1)",
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
        about: "What says which go; magnitude where not given",
        kind: Kind::OneOf(|| weights::criteria().collect()),
    },
    Key {
        name: "exclude",
        value: "PATTERN",
        about: "Nodes that stay as they are, by name; * is any text",
        kind: Kind::Texts,
    },
];

/// The kind of a structure, by which settings belong to it.
fn kind(structure: &str) -> &str {
    weights::kind(structure)
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
    weights::data(given)
}

fn apply(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    given.variant_of(kind)?;
    weights::apply(given, model, work)
}

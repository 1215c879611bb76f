//! The step `student`: a smaller network, begun with a part of the model's weights.

use std::collections::BTreeSet;

use edgesmith_ir::{Error, Model, Result, Tensor};
use edgesmith_train::student::{self, Layers, Options};

use super::{Data, Given, Group, Key, Kind, StepDef, Work};
use crate::quantize::changes::Changes;

/// The step.
pub static STUDENT: StepDef = StepDef {
    name: "student",
    about: "Makes a smaller network of fewer channels or layers, begun with the model's weights",
    groups: &[Group {
        of: &[],
        keys: KEYS,
    }],
    layers: false,
    data: |given| options(given).map(|_| Data::Unused),
    bits: |_| None,
    apply,
};

const KEYS: &[Key] = &[
    Key {
        name: "width",
        value: "PART",
        about: "The part of the channels that stays; those with the longest weights do",
        kind: Kind::Number,
    },
    Key {
        name: "round-to",
        value: "N",
        about: "Channels that stay are a multiple of N; 1 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "layers",
        value: "CHOICE",
        about: "The blocks that stay of those that repeat: alternate, uniform:N, first:N, or numbers such as 0,2,5",
        kind: Kind::Text,
    },
];

fn options(given: &Given) -> Result<Options> {
    let layers = given.text("layers").map(str::parse::<Layers>);
    let options = Options {
        width: given.number("width"),
        round_to: given.count("round-to").unwrap_or(1),
        layers: layers
            .transpose()
            .map_err(|e| e.at(given.place_of("layers")))?,
    };
    options.check().map_err(|e| e.at(given.place.as_str()))?;
    Ok(options)
}

fn apply(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    let (made, notes) = student::student(model, &options(given)?)?;
    if numbers(&made) == numbers(model) {
        let what = "the student would be as large as the model: no layer and no channel goes";
        let place = match given.has("layers") {
            true => given.place_of("layers"),
            false => given.place_of("width"),
        };
        return Err(Error::usage(what).at(place).hint(notes.join("; ")));
    }
    let mut changes = Changes::default();
    changes.tell(notes, work.follow);
    Ok((made, changes))
}

/// How many numbers the constants of a model have.
fn numbers(model: &Model) -> usize {
    let read = model.graph.nodes().flat_map(|(_, n)| n.inputs());
    let read: BTreeSet<_> = read.flatten().copied().collect();
    let constants = read.iter().filter_map(|&v| model.graph.constant(v));
    constants.map(Tensor::count).sum()
}

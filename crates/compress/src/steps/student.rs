//! The step `student`: a smaller network, begun with a part of the model's weights.

use edgesmith_ir::{Model, Result};
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
    let (model, notes) = student::student(model, &options(given)?)?;
    let mut changes = Changes::default();
    changes.tell(notes, work.follow);
    Ok((model, changes))
}

//! The step `optimize`: the graph passes up to a level.

use edgesmith_ir::{Error, Model, Result};
use edgesmith_passes::{Level, PASSES, RunOptions};

use super::{Data, Given, Group, Key, Kind, StepDef, Work};
use crate::quantize::changes::Changes;

/// The step.
pub static OPTIMIZE: StepDef = StepDef {
    name: "optimize",
    about: "Rewrites the graph into an equal, faster one",
    groups: &[Group {
        of: &[],
        keys: KEYS,
    }],
    layers: false,
    data: |given| settings(given).map(|_| Data::Unused),
    bits: |_| None,
    apply,
};

const KEYS: &[Key] = &[
    Key {
        name: "level",
        value: "LEVEL",
        about: "How far the graph is optimised",
        kind: Kind::OneOf(|| vec!["none", "basic", "extended", "layout"]),
    },
    Key {
        name: "only",
        value: "PASS",
        about: "Run only these passes, whatever their level",
        kind: Kind::Texts,
    },
    Key {
        name: "skip",
        value: "PASS",
        about: "Leave these passes out",
        kind: Kind::Texts,
    },
    Key {
        name: "stop-after",
        value: "N",
        about: "Stop after N runs of passes that changed something",
        kind: Kind::Count,
    },
];

/// The level, where nothing else is given.
pub const DEFAULT_LEVEL: &str = "extended";

fn settings(given: &Given) -> Result<Level> {
    for key in ["only", "skip"] {
        for name in given.texts(key) {
            if PASSES.iter().all(|p| p.name != name) {
                let names = PASSES.iter().map(|p| p.name);
                return Err(Error::unknown("pass", &name, names).at(given.place_of(key)));
            }
        }
    }
    given.text("level").unwrap_or(DEFAULT_LEVEL).parse()
}

fn apply(given: &Given, model: &Model, _: &mut Work) -> Result<(Model, Changes)> {
    let level = settings(given)?;
    let (only, skip) = (given.texts("only"), given.texts("skip"));
    let only: Vec<&str> = only.iter().map(String::as_str).collect();
    let skip: Vec<&str> = skip.iter().map(String::as_str).collect();
    let options = RunOptions {
        only: &only,
        skip: &skip,
        stop_after: given.count("stop-after"),
        ..RunOptions::default()
    };
    let mut out = model.clone();
    edgesmith_passes::optimize(&mut out, level, &options)?;
    Ok((out, Changes::default()))
}

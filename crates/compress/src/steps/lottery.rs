//! The step `lottery`: which part of a network learns as well as the whole.

use edgesmith_ir::analysis::{Pruned, mark_pruned};
use edgesmith_ir::{Error, Model, Result};
use edgesmith_train::training::Wanted;

use super::train::{HOW, digest, digest_of, gradual, plain};
use super::{Data, Given, Group, Key, Kind, StepDef, Work};
use crate::calibrate;
use crate::distill::DATA_KEYS;
use crate::prune::lottery::{Draw, Judges, Kind as Control, Settings, Shelf};
use crate::prune::weights::found;
use crate::prune::weights::pattern::Pattern;
use crate::prune::weights::scope::Scope;
use crate::prune::weights::sites::{Choice, Sites};
use crate::quantize::changes::Changes;

/// The step.
pub static LOTTERY: StepDef = StepDef {
    name: "lottery",
    about: "Trains, prunes and begins again: the part of a network that learns as well as the whole",
    groups: &[
        Group {
            of: &[],
            keys: DATA_KEYS,
        },
        Group {
            of: &[],
            keys: KEYS,
        },
        Group { of: &[], keys: HOW },
    ],
    layers: false,
    data: |given| settings(given).map(|_| Data::Unused),
    bits: |_| None,
    apply,
};

const KEYS: &[Key] = &[
    Key {
        name: "levels",
        value: "N",
        about: "How often a share of the weights is pruned; 10 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "prune-rate",
        value: "SHARE",
        about: "The share of what is left of each layer that goes each time; 0.2 where not given",
        kind: Kind::Number,
    },
    Key {
        name: "last-rate",
        value: "SHARE",
        about: "The same of layers before an output; half of it where not given",
        kind: Kind::Number,
    },
    Key {
        name: "rewind",
        value: "STEP",
        about: "Weights go back to what they were before this step; 0 where not given: to the beginning",
        kind: Kind::Count,
    },
    Key {
        name: "controls",
        value: "NAME",
        about: "What tickets are compared with: reinit (the same weights, other numbers), random (as many of each layer by chance)",
        kind: Kind::Texts,
    },
    Key {
        name: "controls-from",
        value: "LEVEL",
        about: "The first level at which tickets are compared; 1 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "trials",
        value: "N",
        about: "Runs from other numbers; 1 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "judge-every",
        value: "N",
        about: "Validate after every N steps, not after epochs alone: when a run was best is told by that",
        kind: Kind::Count,
    },
    Key {
        name: "dense",
        value: "PATTERN",
        about: "Nodes whose weights stay, by name; * is any text",
        kind: Kind::Texts,
    },
    Key {
        name: "save-masks",
        value: "FILE",
        about: "Write the masks of the last ticket of the first trial into FILE.safetensors",
        kind: Kind::Text,
    },
];

fn settings(given: &Given) -> Result<Settings> {
    let control = |name: &str| match name {
        "reinit" => Ok(Control::Reinit),
        "random" => Ok(Control::Random),
        _ => {
            let e = Error::unknown("control", name, ["reinit", "random"]);
            Err(e.at(given.place_of("controls")))
        }
    };
    let names = given.texts("controls");
    let names = names.iter().flat_map(|n| n.split(',')).map(str::trim);
    let controls = names.map(control).collect::<Result<Vec<Control>>>()?;
    let rate = given.number("prune-rate").unwrap_or(0.2);
    let settings = Settings {
        levels: given.count("levels").unwrap_or(10),
        rate,
        last_rate: given.number("last-rate").unwrap_or(rate / 2.0),
        rewind: given.count("rewind").unwrap_or(0),
        controls,
        controls_from: given.count("controls-from").unwrap_or(1),
        trials: given.count("trials").unwrap_or(1),
        exclude: given.texts("dense"),
    };
    settings.check().map_err(|e| e.at(given.place.as_str()))?;
    Ok(settings)
}

fn apply(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    let settings = settings(given)?;
    let (training, mut train, examples) = plain(given, model, work)?;
    train.judge_every = given.count("judge-every").unwrap_or(0);
    let wanted: Vec<Wanted> = training.fed.iter().map(|f| f.wanted).collect();
    let (mut data, judged_by) = examples.data(&training.base, &wanted)?;
    let validate = judged_by.as_ref().ok_or_else(|| {
        Error::usage("tickets are judged by examples that nothing is learned from")
            .hint("--validate DATA, or --split 0.1")
    })?;
    let mut changes = Changes::default();
    let notes = training.notes.iter().chain(examples.notes());
    changes.tell(notes.cloned(), work.follow);
    let judges = Judges {
        validate,
        test: work.evaluate,
        threads: train.threads,
    };
    let shelf = match work.stores {
        None => None,
        Some(stores) => {
            let key = digest(&[
                "lottery",
                &calibrate::model_digest(&training.base),
                &examples.digest()?,
                &digest_of(validate)?,
                &work.evaluate.map_or(Ok(String::new()), digest_of)?,
                &format!("{settings:?} {train:?} {:?}", training.terms),
                &gradual::digest(&training),
            ]);
            Some(Shelf { stores, key })
        }
    };
    let draw = Draw::of(training, train, &settings, judges)?.kept(shelf);
    let drawn = draw.draw(&mut data, work.follow)?;
    let mut model = drawn.model;
    let everything = Choice {
        everything: true,
        ..Choice::default()
    };
    let mut sites = Sites::of(&model, &everything)?.all;
    sites.retain(|s| drawn.masks.contains_key(&s.name));
    let mut sparsity = found(&model, &sites, Pattern::Unstructured, Scope::Layer)?;
    sparsity.criterion = "lottery";
    for (name, mask) in &mut sparsity.masks.all {
        *mask = crate::prune::weights::masks::Mask::of(&mask.dims, &drawn.masks[name]);
        let gone = mask.gone() as f64 / drawn.masks[name].len().max(1) as f64;
        let what = Pruned {
            pattern: "unstructured".into(),
            sparsity: gone,
        };
        mark_pruned(&mut model, name, &what);
    }
    changes.pruned = Some(sparsity);
    changes.lottery = Some(drawn.lottery);
    Ok((model, changes))
}

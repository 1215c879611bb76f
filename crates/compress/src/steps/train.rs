//! The step `train`: parameters are moved until the losses are small.

use std::borrow::Cow;

use edgesmith_ir::{Error, Model, NoStore, Result};
use edgesmith_train::draft::{self, Draft};
use edgesmith_train::fresh::fresh;
use edgesmith_train::head::with_head;
use edgesmith_train::losses::{LOSSES, Needs, Request};
use edgesmith_train::masked::Kept;
use edgesmith_train::optimizer::OPTIMIZERS;
use edgesmith_train::schedule::SCHEDULES;
use edgesmith_train::training::Wanted;
use edgesmith_train::vocabulary::check_tokenizer;
use edgesmith_train::{Data as _, JudgedBy, Settings, Training, trainer};
use sha2::{Digest, Sha256};

pub(super) mod gradual;
mod kept;
mod sound;

use sound::Judged;

use super::{Data, Given, Group, Key, Kind, StepDef, Work};
use crate::distill::{DATA_KEYS, Examples, TermGiven, judge, unlabelled};
use crate::quantize::changes::{Changes, Learned};
use crate::samples::Samples;

/// The step.
pub static TRAIN: StepDef = StepDef {
    name: "train",
    about: "Trains the model: on labels, on a teacher's answers and features, or both",
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
        Group {
            of: &[],
            keys: gradual::KEYS,
        },
    ],
    layers: false,
    data: |given| Plan::of(given).map(|_| Data::Unused),
    bits: |_| None,
    apply,
};

const KEYS: &[Key] = &[
    Key {
        name: "loss",
        value: "TERM",
        about: "A loss, its weight, and the values that it compares: NAME [WEIGHT[..LAST]] [STUDENT : TEACHER | same | uniform]",
        kind: Kind::Texts,
    },
    Key {
        name: "teacher",
        value: "MODEL",
        about: "The model whose answers and values are learned; self is the model that the recipe began with, such as the dense one",
        kind: Kind::Text,
    },
    Key {
        name: "temperature",
        value: "T",
        about: "Softens the probabilities of kd and dkd; 4 where not given",
        kind: Kind::Number,
    },
    Key {
        name: "beta",
        value: "B",
        about: "The weight of the other classes in dkd; 8 where not given",
        kind: Kind::Number,
    },
    Key {
        name: "label-smoothing",
        value: "E",
        about: "Cross entropy gives this share of each example to all classes alike",
        kind: Kind::Number,
    },
    Key {
        name: "dropout",
        value: "P",
        about: "Drop this part of attention weights, of what layers add to residual sums, of embeddings, and of what the last layer reads",
        kind: Kind::Number,
    },
    Key {
        name: "like-input",
        value: "NAME",
        about: "With mse: the output should be this input",
        kind: Kind::Text,
    },
    Key {
        name: "ema",
        value: "K",
        about: "Keep a running mean of the parameters, of which each step leaves the part K",
        kind: Kind::Number,
    },
    Key {
        name: "patience",
        value: "N",
        about: "Stop after N epochs without a better model; needs --validate or --split",
        kind: Kind::Count,
    },
    Key {
        name: "head",
        value: "N",
        about: "Put a new layer of N classes behind the first output, or behind --head-from",
        kind: Kind::Count,
    },
    Key {
        name: "head-from",
        value: "VALUE",
        about: "The value whose features the new layer reads",
        kind: Kind::Text,
    },
    Key {
        name: "fresh",
        value: "",
        about: "Draw all weights anew first: the same network, from nothing",
        kind: Kind::Flag,
    },
    Key {
        name: "freeze",
        value: "PATTERN",
        about: "Parameters of these names stay; * is any text",
        kind: Kind::Texts,
    },
    Key {
        name: "freeze-norms",
        value: "",
        about: "Batch normalisations keep their statistics",
        kind: Kind::Flag,
    },
    Key {
        name: "freeze-norms-from",
        value: "P",
        about: "Batch normalisations keep their statistics from this part of the run on, such as 0.5",
        kind: Kind::Number,
    },
    Key {
        name: "freeze-scales",
        value: "",
        about: "Scales of a quantised model stay; else they learn (LSQ, Esser et al. 2020)",
        kind: Kind::Flag,
    },
    Key {
        name: "pact",
        value: "",
        about: "Bounds of activations that are quantised from 0 on learn alone and decay (PACT, Choi et al. 2018)",
        kind: Kind::Flag,
    },
    Key {
        name: "recompute",
        value: "",
        about: "Compute values again where that takes less memory: the same bytes, later",
        kind: Kind::Flag,
    },
    Key {
        name: "bf16",
        value: "",
        about: "Multiply in BF16 where the CPU does; sums, weights and states stay f32",
        kind: Kind::Flag,
    },
];

/// How any training goes.
pub(super) const HOW: &[Key] = &[
    Key {
        name: "epochs",
        value: "N",
        about: "Passes over the examples; those that do not fill a batch are left out of a pass, by chance; 10 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "batch",
        value: "N",
        about: "Examples of a step, at most all there are; 64 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "optimizer",
        value: "NAME",
        about: "How gradients move parameters; adamw where not given",
        kind: Kind::OneOf(|| OPTIMIZERS.iter().map(|o| o.name).collect()),
    },
    Key {
        name: "rate",
        value: "R",
        about: "The full learning rate; 0.001 where not given",
        kind: Kind::Number,
    },
    Key {
        name: "schedule",
        value: "NAME",
        about: "How the rate goes over the run; cosine where not given",
        kind: Kind::OneOf(|| SCHEDULES.iter().map(|s| s.name).collect()),
    },
    Key {
        name: "warmup",
        value: "PART",
        about: "The part of all steps in which the rate rises; 0.05 where not given",
        kind: Kind::Number,
    },
    Key {
        name: "decay",
        value: "D",
        about: "Weight decay, of weights and not of biases and scales; 0.01 where not given",
        kind: Kind::Number,
    },
    Key {
        name: "momentum",
        value: "M",
        about: "Momentum of sgd and nesterov, or beta 1; 0.9 where not given",
        kind: Kind::Number,
    },
    Key {
        name: "clip",
        value: "L",
        about: "The greatest length of all gradients together",
        kind: Kind::Number,
    },
    Key {
        name: "train-seed",
        value: "S",
        about: "Of the order of examples and all that is random; 0 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "train-threads",
        value: "N",
        about: "Threads; one for each core where not given",
        kind: Kind::Count,
    },
];

/// The settings, read.
struct Plan {
    terms: Vec<TermGiven>,
    settings: Settings,
}

impl Plan {
    fn of(given: &Given) -> Result<Self> {
        let mut terms = Vec::new();
        for text in given.texts("loss") {
            terms.push(TermGiven::parse(&text).map_err(|e| e.at(given.place_of("loss")))?);
        }
        let has_teacher = given.has("teacher");
        if terms.is_empty() {
            let default = match (has_teacher, given.has("like-input")) {
                (true, _) => "kd",
                (_, true) => "mse",
                _ => "cross-entropy",
            };
            terms.push(TermGiven::parse(default)?);
        }
        let taught = |t: &&TermGiven| {
            matches!(t.loss.needs, Needs::Teacher | Needs::Pair) || t.loss.name == "dkd"
        };
        if let Some(term) = terms.iter().find(taught).filter(|_| !has_teacher) {
            let what = format!("the loss \"{}\" needs a teacher", term.loss.name);
            return Err(given
                .fault("loss", what)
                .hint("teacher = \"MODEL\", or --teacher MODEL"));
        }
        if terms.iter().all(|t| t.weight == 0.0 && t.last == 0.0) {
            let what = "every loss has the weight 0: nothing would be learned";
            return Err(given.fault("loss", what).hint("--loss 'cross-entropy 1'"));
        }
        gradual::schedule(given)?;
        let d = Settings::default();
        let number = |name: &str, default: f64| given.number(name).unwrap_or(default);
        let settings = Settings {
            epochs: given.count("epochs").unwrap_or(d.epochs),
            batch: given.count("batch").unwrap_or(d.batch),
            optimizer: given.text("optimizer").unwrap_or(&d.optimizer).into(),
            rate: number("rate", d.rate),
            schedule: given.text("schedule").unwrap_or(&d.schedule).into(),
            warmup: number("warmup", d.warmup),
            decay: number("decay", d.decay),
            momentum: given.number("momentum"),
            clip: number("clip", d.clip),
            ema: number("ema", d.ema),
            patience: given.count("patience").unwrap_or(d.patience),
            seed: given.count("train-seed").unwrap_or(0) as u64,
            threads: given.count("train-threads").unwrap_or(d.threads),
            bf16: given.flag("bf16"),
            ..d
        };
        Ok(Self { terms, settings })
    }

    /// Whether a loss looks at classes.
    fn wants_labels(&self) -> bool {
        self.terms.iter().any(|t| t.loss.needs == Needs::Labels)
    }

    /// The class of each example, where a loss looks at classes.
    ///
    /// # Errors
    /// When none is known, or an example cannot be read.
    fn labels(&self, examples: &Examples) -> Result<Vec<i64>> {
        if !self.wants_labels() {
            return Ok(Vec::new());
        }
        let labels = examples.labels()?;
        match labels.iter().any(|&l| l >= 0) {
            true => Ok(labels),
            false => Err(unlabelled()),
        }
    }

    /// The plan with a term for each pair of values.
    fn paired(mut self, model: &Model, teacher: Option<&Model>) -> Result<Self> {
        let mut terms = Vec::new();
        for term in &self.terms {
            terms.extend(term.pairs(model, teacher)?);
        }
        self.settings.last_weights = terms.iter().map(|t| t.last).collect();
        self.terms = terms;
        Ok(self)
    }

    /// The training graph of a model.
    fn training(
        &self,
        given: &Given,
        model: &Model,
        teacher: Option<&Model>,
        (unlabelled, is_mixed): (bool, bool),
        masks: Kept,
    ) -> Result<Training> {
        let options = draft::Options {
            freeze: given.texts("freeze"),
            freeze_norms_from: match given.flag("freeze-norms") {
                true => Some(0.0),
                false => given.number("freeze-norms-from"),
            },
            freeze_scales: given.flag("freeze-scales"),
            pact: given.flag("pact"),
            dropout: given.number("dropout").unwrap_or(0.0),
            recompute: given.flag("recompute"),
            masks,
            seed: self.settings.seed,
        };
        let mut draft = Draft::new(model, &options)?;
        if let Some(teacher) = teacher {
            draft.set_teacher(teacher)?;
        }
        for term in &self.terms {
            let request = Request {
                student: term.student.clone(),
                teacher: term.teacher.clone(),
                temperature: given.number("temperature"),
                beta: given.number("beta"),
                unlabelled,
                smoothing: given.number("label-smoothing"),
                is_mixed,
                like_input: given.text("like-input").map(str::to_owned),
            };
            draft.add_term(term.loss, term.weight, &request)?;
        }
        let mut training = draft.finish()?;
        gradual::prepare(given, &mut training)?;
        Ok(training)
    }
}

fn apply(given: &Given, model: &Model, work: &mut Work) -> Result<(Model, Changes)> {
    let plan = Plan::of(given)?;
    let model = &*begun(given, model, plan.settings.seed)?;
    let examples = Examples::open(given, work.base, plan.settings.seed)?;
    if let Some(tokens) = examples.vocabulary() {
        check_tokenizer(model, tokens)?;
    }
    let teacher = teacher(given, work)?;
    let plan = plan.paired(model, teacher.as_ref())?;
    let labels = plan.labels(&examples)?;
    let kinds = (labels.contains(&-1), examples.are_mixed());
    let masks = gradual::masks(given, model, work)?;
    let training = plan.training(given, model, teacher.as_ref(), kinds, masks)?;
    sound::check_labels(&training, &labels, "example")?;
    sound::check_names(given, &training)?;
    let mut changes = Changes::default();
    let notes = training.notes.iter().chain(examples.notes());
    changes.tell(notes.cloned(), work.follow);
    let wanted: Vec<Wanted> = training.fed.iter().map(|f| f.wanted).collect();
    let (data, judged_by) = examples.data(&training.base, &wanted)?;
    let settings = &plan.settings;
    changes.tell(sound::check_batch(given, &plan, data.count())?, work.follow);
    let judged = Judged::of(given, &plan, &training, judged_by.as_ref(), work.evaluate)?;
    let kept = kept::Kept {
        work,
        examples: &examples,
        training: &training,
        settings,
        teacher: teacher.as_ref(),
    };
    let mut data = kept.taught(Box::new(data), "train")?;
    let key = kept.key(given, model, judged.as_ref())?;
    let store = work.stores.map(|s| s.store(&key));
    let count = data.count();
    let measure = judged.as_ref().map(Judged::measure);
    let mut on_model;
    let mut on_loss;
    let judge = match judged {
        None => None,
        Some(Judged::Model(samples, like)) => {
            let threads = settings.threads;
            on_model = move |m: &Model| judge(m, samples, like.as_deref(), threads);
            Some(JudgedBy::Model(&mut on_model))
        }
        Some(Judged::Loss(fed)) => {
            on_loss = kept.taught(Box::new(fed), "validate")?;
            Some(JudgedBy::Loss(on_loss.as_mut()))
        }
    };
    let state = (store.as_deref().unwrap_or(&NoStore), key.as_str());
    let made = trainer::train(
        &training,
        data.as_mut(),
        settings,
        judge,
        state,
        work.follow,
    )?;
    let sparsities = gradual::shares(&training, settings, count, made.history.len());
    let best = made.best + 1;
    changes.warnings.extend(
        made.broken
            .map(|why| format!("training ended early: {why}; the model is that of epoch {best}")),
    );
    changes.training = Some(Learned {
        parameters: training.count(),
        frozen: frozen(given, &training),
        terms: training.terms.clone(),
        settings: settings.clone(),
        teacher: given.text("teacher").map(str::to_owned),
        examples: count,
        judged: measure,
        sparsities,
        history: made.history,
        best: made.best,
        resumed_at: made.resumed_at,
        seconds: made.seconds,
    });
    let (model, pruned) = gradual::finished(given, made.model, &training)?;
    changes.pruned = pruned;
    Ok((model, changes))
}

/// A training graph on labels or on what the loss asks for, without a teacher; how it is trained, and the
/// examples.
///
/// # Errors
/// When settings do not go together, or examples do not fit the model.
pub(super) fn plain(
    given: &Given,
    model: &Model,
    work: &Work,
) -> Result<(Training, Settings, Examples)> {
    let plan = Plan::of(given)?;
    let examples = Examples::open(given, work.base, plan.settings.seed)?;
    let plan = plan.paired(model, None)?;
    let labels = plan.labels(&examples)?;
    let kinds = (labels.contains(&-1), examples.are_mixed());
    let training = plan.training(given, model, None, kinds, Kept::new())?;
    sound::check_labels(&training, &labels, "example")?;
    Ok((training, plan.settings, examples))
}

/// The model as training begins: with a new head, or weights drawn anew, where that is asked for.
fn begun<'m>(given: &Given, model: &'m Model, seed: u64) -> Result<Cow<'m, Model>> {
    let mut model = Cow::Borrowed(model);
    if let Some(classes) = given.count("head") {
        model = Cow::Owned(with_head(&model, given.text("head-from"), classes, seed)?);
    }
    if given.flag("fresh") {
        model = Cow::Owned(fresh(&model, seed, &given.texts("freeze"))?);
    }
    Ok(model)
}

fn teacher(given: &Given, work: &Work) -> Result<Option<Model>> {
    let Some(path) = given.text("teacher") else {
        return Ok(None);
    };
    let open = work.open;
    open.ok_or_else(|| Error::internal("nobody opens the teacher"))?(path).map(Some)
}

/// What stays because the settings say so.
fn frozen(given: &Given, training: &Training) -> Vec<String> {
    let flags = [
        ("freeze-norms", "statistics of batch normalisations"),
        ("freeze-scales", "scales of quantised values"),
    ];
    let flags = flags.into_iter().filter(|(key, _)| given.flag(key));
    let names = training.frozen.iter().map(|n| format!("\"{n}\""));
    names
        .chain(flags.map(|(_, what)| what.to_owned()))
        .collect()
}

pub(super) fn digest(parts: &[&str]) -> String {
    let hash = Sha256::digest(parts.join("\n"));
    hash.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// What tells samples apart.
pub(super) fn digest_of(samples: &dyn Samples) -> Result<String> {
    let mut parts = vec![format!("{:?}", samples.labels())];
    for batch in samples.batches(256) {
        let (_, fed) = batch?;
        let bytes = fed.iter().map(|(_, t)| Sha256::digest(t.bytes()));
        parts.extend(bytes.map(|d| format!("{d:x?}")));
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(digest(&parts))
}

/// The losses, for help.
pub fn losses() -> Vec<&'static str> {
    LOSSES.iter().map(|l| l.name).collect()
}

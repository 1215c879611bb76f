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
use edgesmith_train::{Settings, Training, trainer};
use sha2::{Digest, Sha256};

pub(super) mod gradual;

use super::{Data, Given, Group, Key, Kind, StepDef, Work};
use crate::calibrate;
use crate::distill::{DATA_KEYS, Examples, Taught, TermGiven, judge};
use crate::quantize::changes::{Changes, Learned, Measure};
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
        about: "Stop after N epochs without a better model",
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
        about: "How often each example is seen; 10 where not given",
        kind: Kind::Count,
    },
    Key {
        name: "batch",
        value: "N",
        about: "Examples of a step; 64 where not given",
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
    let labels = match plan.wants_labels() {
        true => examples.labels()?,
        false => Vec::new(),
    };
    let kinds = (labels.contains(&-1), examples.are_mixed());
    let masks = gradual::masks(given, model, work)?;
    let training = plan.training(given, model, teacher.as_ref(), kinds, masks)?;
    check_labels(&training, &labels)?;
    let mut changes = Changes::default();
    let notes = training.notes.iter().chain(examples.notes());
    changes.tell(notes.cloned(), work.follow);
    let wanted: Vec<Wanted> = training.fed.iter().map(|f| f.wanted).collect();
    let (data, judged_by) = examples.data(&training.base, &wanted)?;
    let mut data: Box<dyn edgesmith_train::Data> = Box::new(data);
    let settings = &plan.settings;
    if let Some(teacher) = &teacher {
        let values: Vec<&str> = training.fed.iter().map(|f| f.of.as_str()).collect();
        let key = digest(&[
            "teacher",
            &calibrate::model_digest(teacher),
            &values.join(" "),
        ]);
        let store = work.stores.map(|s| s.store(&key));
        data = Box::new(Taught::new(
            data,
            teacher,
            &training.fed,
            (store, examples.is_steady()),
            settings.threads,
        )?);
    }
    let like = given.text("like-input").map(str::to_owned);
    let own = judged_by.as_ref().map(|j| j as &dyn Samples);
    let evaluate = own.or(work.evaluate);
    let evaluate = evaluate.filter(|s| s.labels().is_some() || like.is_some());
    let measure = evaluate.map(|_| match like {
        None => Measure::Accuracy,
        Some(_) => Measure::MeanSquare,
    });
    let threads = settings.threads;
    let mut judged = evaluate.map(|samples| {
        let like = like.clone();
        move |model: &Model| judge(model, samples, like.as_deref(), threads)
    });
    let key = digest(&[
        "training",
        &calibrate::model_digest(model),
        &teacher
            .as_ref()
            .map(calibrate::model_digest)
            .unwrap_or_default(),
        &examples.digest()?,
        &format!(
            "{settings:?} {:?} {:?} {:?}",
            training.terms,
            training.gradual,
            training.late.as_ref().map(|l| l.0)
        ),
        &gradual::digest(&training),
    ]);
    let store = work.stores.map(|s| s.store(&key));
    let kept = store.as_deref().unwrap_or(&NoStore);
    let made = trainer::train(
        &training,
        data.as_mut(),
        settings,
        judged.as_mut().map(|j| j as &mut trainer::Judge),
        (kept, &key),
        work.follow,
    )?;
    let sparsities = gradual::shares(&training, settings, data.count(), made.history.len());
    changes.training = Some(Learned {
        parameters: training.count(),
        frozen: frozen(given, &training),
        terms: training.terms.clone(),
        settings: plan.settings,
        teacher: given.text("teacher").map(str::to_owned),
        examples: data.count(),
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
    let labels = match plan.wants_labels() {
        true => examples.labels()?,
        false => Vec::new(),
    };
    let kinds = (labels.contains(&-1), examples.are_mixed());
    let training = plan.training(given, model, None, kinds, Kept::new())?;
    check_labels(&training, &labels)?;
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

/// Refuses labels that are no class of the model before the first step.
fn check_labels(training: &Training, labels: &[i64]) -> Result<()> {
    let output = training.base.graph.outputs.first();
    let inferred = edgesmith_ir::infer::infer(&training.base, &[])?;
    let shape = output.and_then(|&v| inferred.tensor(v)?.shape.clone());
    let classes = shape.and_then(|s| s.last()?.known());
    // One number answers no or yes where the loss is of that.
    let binary = edgesmith_train::losses::BINARY.name;
    let least = match training.terms.iter().any(|t| t.name == binary) {
        true => 2,
        false => 0,
    };
    let Some(classes) = classes.map(|c| c.max(least)) else {
        return Ok(());
    };
    let fits = |&l: &i64| l == -1 || usize::try_from(l).is_ok_and(|l| l < classes);
    match labels.iter().position(|l| !fits(l)) {
        None => Ok(()),
        Some(i) => Err(Error::invalid(format!(
            "example {i} has the label {}, the model has {classes} classes",
            labels[i]
        ))
        .hint("-1 is for examples whose class is not known")),
    }
}

pub(super) fn digest(parts: &[&str]) -> String {
    let hash = Sha256::digest(parts.join("\n"));
    hash.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// The losses, for help.
pub fn losses() -> Vec<&'static str> {
    LOSSES.iter().map(|l| l.name).collect()
}

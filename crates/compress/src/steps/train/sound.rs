//! What is refused before the first step, and what epochs are judged by.

use edgesmith_ir::pattern::matches;
use edgesmith_ir::{Error, Result};
use edgesmith_train::training::Wanted;
use edgesmith_train::{Data, Training};

use super::Plan;
use crate::distill::{self, Fed};
use crate::quantize::changes::Measure;
use crate::samples::Samples;
use crate::steps::Given;

/// What says which epoch is the best.
pub enum Judged<'a> {
    /// The answers to samples: their classes, or the input of this name.
    Model(&'a dyn Samples, Option<String>),
    /// The loss on examples.
    Loss(Fed),
}

impl<'a> Judged<'a> {
    /// By the examples that a step names, else by those of the recipe; `None` where there are none.
    ///
    /// # Errors
    /// When they cannot judge what is trained, or an early stop is asked for and nothing judges.
    pub fn of(
        given: &Given,
        plan: &Plan,
        training: &Training,
        own: Option<&'a distill::Judged>,
        evaluate: Option<&'a dyn Samples>,
    ) -> Result<Option<Self>> {
        let like = given.text("like-input").map(str::to_owned);
        let samples = own.map(|j| j as &dyn Samples).or(evaluate);
        let judges = samples.filter(|s| s.labels().is_some() || like.is_some());
        if let Some(samples) = judges {
            if let (Some(labels), None) = (samples.labels(), &like) {
                check_labels(training, labels, "of those to validate by, example")?;
            }
            return Ok(Some(Self::Model(samples, like)));
        }
        match own {
            Some(_) if plan.wants_labels() => Err(given
                .fault("validate", "the examples to validate by have no classes")
                .hint("an array, column or key `labels`, or --label NAME")),
            Some(own) => {
                let wanted: Vec<Wanted> = training.fed.iter().map(|f| f.wanted).collect();
                let mut fed = own.fed(&wanted);
                fed.batch(&[0], 0)?;
                Ok(Some(Self::Loss(fed)))
            }
            None if plan.settings.patience > 0 => Err(given
                .fault("patience", "nothing says which epoch is better")
                .hint("--validate DATA, or --split 0.1")),
            None => Ok(None),
        }
    }

    /// What is told of an epoch.
    pub fn measure(&self) -> Measure {
        match self {
            Self::Model(_, None) => Measure::Accuracy,
            Self::Model(_, Some(_)) => Measure::MeanSquare,
            Self::Loss(_) => Measure::Loss,
        }
    }
}

/// Refuses labels that are no class of the model before the first step; `what` is what an example is called.
///
/// # Errors
/// When there is one.
pub fn check_labels(training: &Training, labels: &[i64], what: &str) -> Result<()> {
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
            "{what} {i} has the label {}, the model has {classes} classes",
            labels[i]
        ))
        .hint("-1 is for examples whose class is not known")),
    }
}

/// Refuses names of parameters that are none.
///
/// # Errors
/// When a pattern of `freeze` is the name of no constant.
pub fn check_names(given: &Given, training: &Training) -> Result<()> {
    const TOLD: usize = 5;
    let values = training.base.graph.values().map(|(_, v)| v);
    let names: Vec<&str> = values
        .filter(|v| v.constant.is_some())
        .map(|v| v.name.as_str())
        .collect();
    for pattern in given.texts("freeze") {
        if !names.iter().any(|n| matches(&pattern, n)) {
            let own = training.parameters.iter().map(|p| p.name.as_str());
            let own: Vec<&str> = own.take(TOLD).collect();
            let what = format!("no parameter is called \"{pattern}\"");
            return Err(given.fault("freeze", what).hint(format!(
                "* stands for any text; parameters are {}",
                own.join(", ")
            )));
        }
    }
    Ok(())
}

/// Losses that compare examples of a batch, and how many these must be.
const TOGETHER: &[(&str, usize)] = &[("rkd-distance", 2), ("rkd-angle", 3), ("similarity", 2)];

/// Refuses batches that a loss learns nothing from; what is to be told of them.
///
/// # Errors
/// When there are too few examples in one.
pub fn check_batch(given: &Given, plan: &Plan, count: usize) -> Result<Option<String>> {
    let asked = plan.settings.batch;
    let batch = asked.min(count);
    for (name, least) in TOGETHER {
        if batch < *least && plan.terms.iter().any(|t| t.loss.name == *name) {
            let what =
                format!("the loss \"{name}\" compares examples of a batch, which has {batch}");
            return Err(given
                .fault("batch", what)
                .hint(format!("--batch {least} or more, and as many examples")));
        }
    }
    let note = || {
        format!(
            "there are {count} examples: a batch has so many, not {asked}, and an epoch is one step"
        )
    };
    Ok((given.has("batch") && asked > count).then(note))
}

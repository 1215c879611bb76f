//! How steps trained the model and what they chose, as finished texts.

use serde::Serialize;

use super::Fact;
use crate::evidence::{Choice, Epoch, Evidence, LossTerm, Training};
use crate::format::{self, MISSING};

/// One step of training.
#[derive(Serialize)]
pub(super) struct TrainingView<'a> {
    step: &'a str,
    terms: Vec<TermView<'a>>,
    facts: Vec<Fact>,
    notes: &'a [String],
    heads: Vec<String>,
    epochs: Vec<EpochView>,
}

#[derive(Serialize)]
struct TermView<'a> {
    name: &'a str,
    weight: String,
    formula: String,
    source: &'a str,
}

#[derive(Serialize)]
struct EpochView {
    epoch: u64,
    taken: bool,
    cells: Vec<String>,
}

/// What a step chose.
#[derive(Serialize)]
pub(super) struct ChoiceView<'a> {
    choice: &'a Choice,
    compared: String,
}

/// Every step of training.
pub(super) fn trainings(evidence: &Evidence) -> Vec<TrainingView<'_>> {
    evidence.training.iter().map(training).collect()
}

/// Every choice.
pub(super) fn choices(evidence: &Evidence) -> Vec<ChoiceView<'_>> {
    let view = |choice| ChoiceView {
        choice,
        compared: compared(choice),
    };
    evidence.choices.iter().map(view).collect()
}

fn compared(choice: &Choice) -> String {
    let told = |name: &str, db: f64| match db.is_finite() {
        true => format!("{name} {db:.1} dB"),
        false => name.to_owned(),
    };
    let told: Vec<String> = choice
        .candidates
        .iter()
        .map(|c| told(&c.name, c.sqnr_db))
        .collect();
    let on = choice.samples.map_or(String::new(), |n| {
        format!(", on {}", format::plural(n, "sample"))
    });
    told.join(", ") + &on
}

fn training(t: &Training) -> TrainingView<'_> {
    TrainingView {
        step: &t.step,
        terms: t.loss.iter().map(term).collect(),
        facts: facts(t),
        notes: &t.notes,
        heads: heads(t),
        epochs: t.epochs.iter().map(|e| epoch(t, e)).collect(),
    }
}

fn term(t: &LossTerm) -> TermView<'_> {
    let numbers = t.numbers.iter().map(|(n, x)| format!("{n} = {x}"));
    let numbers: Vec<String> = numbers.collect();
    TermView {
        name: &t.name,
        weight: match t.weight == t.last_weight {
            true => t.weight.to_string(),
            false => format!("{} → {}", t.weight, t.last_weight),
        },
        formula: match numbers.is_empty() {
            true => t.formula.clone(),
            false => format!("{}, with {}", t.formula, numbers.join(", ")),
        },
        source: &t.source,
    }
}

fn facts(t: &Training) -> Vec<Fact> {
    let optional = |x: f64| match x == 0.0 {
        true => String::new(),
        false => x.to_string(),
    };
    let done = t.epochs.len() as u64;
    let epochs = match done < t.epochs_asked {
        true => format!("{done} of {} that were asked for", t.epochs_asked),
        false => done.to_string(),
    };
    let all = [
        ("Teacher", t.teacher.clone()),
        ("Examples", format::grouped(t.examples)),
        ("Trained numbers", format::grouped(t.parameters)),
        ("Frozen", t.frozen.join(", ")),
        (
            "Optimizer",
            format!("{}: {}", t.optimizer, t.optimizer_about),
        ),
        ("Schedule", format!("{}: {}", t.schedule, t.schedule_about)),
        (
            "Learning rate",
            format!("{}, warm-up {} of the steps", t.rate, t.warmup),
        ),
        ("Weight decay", optional(t.decay)),
        ("Momentum, beta 1", t.momentum.to_string()),
        ("Clipping", optional(t.clip)),
        ("Running mean", optional(t.ema)),
        ("Patience", optional(t.patience as f64)),
        ("Batch", t.batch.to_string()),
        (
            "Epochs",
            format!("{epochs}; the model is that of epoch {}", t.best_epoch),
        ),
        ("Went on at step", optional(t.resumed_at_step as f64)),
        ("Seed", t.seed.to_string()),
        ("Threads", t.threads.to_string()),
        ("Time", format!("{} s", format::significant(t.seconds, 3))),
    ];
    let facts = all.into_iter().filter(|(_, text)| !text.is_empty());
    facts.map(|(name, text)| Fact { name, text }).collect()
}

/// The heads of the table of epochs, behind that of the epoch.
fn heads(t: &Training) -> Vec<String> {
    let mut heads = vec!["loss".to_owned()];
    if t.loss.len() > 1 {
        heads.extend(t.loss.iter().map(|l| l.name.clone()));
    }
    if t.epochs.iter().any(|e| e.accuracy.is_some()) {
        heads.push("accuracy in %".into());
    }
    if t.epochs.iter().any(|e| e.mean_square_error.is_some()) {
        heads.push("mean square error".into());
    }
    if t.epochs.iter().any(|e| e.validation_loss.is_some()) {
        heads.push("loss on validation".into());
    }
    if t.epochs.iter().any(|e| e.sparsity.is_some()) {
        heads.push("zeros in %".into());
    }
    heads.push("learning rate".into());
    heads
}

fn epoch(t: &Training, e: &Epoch) -> EpochView {
    let number = |x: f64| match x.is_finite() {
        true => format::significant(x, 4),
        false => MISSING.into(),
    };
    let mut cells = vec![number(e.loss)];
    if t.loss.len() > 1 {
        let terms =
            (0..t.loss.len()).map(|i| e.terms.get(i).map_or(MISSING.into(), |x| number(*x)));
        cells.extend(terms);
    }
    if t.epochs.iter().any(|e| e.accuracy.is_some()) {
        cells.push(e.accuracy.map_or(MISSING.into(), format::percent));
    }
    if t.epochs.iter().any(|e| e.mean_square_error.is_some()) {
        cells.push(e.mean_square_error.map_or(MISSING.into(), number));
    }
    if t.epochs.iter().any(|e| e.validation_loss.is_some()) {
        cells.push(e.validation_loss.map_or(MISSING.into(), number));
    }
    if t.epochs.iter().any(|e| e.sparsity.is_some()) {
        cells.push(e.sparsity.map_or(MISSING.into(), format::percent));
    }
    cells.push(number(e.rate));
    EpochView {
        epoch: e.epoch,
        taken: e.epoch == t.best_epoch,
        cells,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Candidate;

    fn evidence() -> Evidence {
        let term = |name: &str, last_weight| LossTerm {
            name: name.into(),
            weight: 0.5,
            last_weight,
            formula: "T^2 * KL".into(),
            numbers: vec![("T".into(), 4.0)],
            source: "Hinton 2015".into(),
        };
        let epoch = |epoch: u64| Epoch {
            epoch,
            loss: 1.0 / epoch as f64,
            terms: vec![0.25, 0.75],
            rate: 0.001,
            accuracy: Some(0.5),
            ..Epoch::default()
        };
        let training = Training {
            step: "train".into(),
            loss: vec![term("kd", 0.5), term("hint a : b", 0.1)],
            epochs: (1..=3).map(epoch).collect(),
            epochs_asked: 10,
            best_epoch: 2,
            ..Training::default()
        };
        let choice = Choice {
            what: "observer".into(),
            taken: "mse".into(),
            candidates: vec![Candidate {
                name: "mse".into(),
                sqnr_db: 31.25,
            }],
            samples: Some(64),
            ..Choice::default()
        };
        Evidence {
            training: vec![training],
            choices: vec![choice],
            ..Evidence::default()
        }
    }

    #[test]
    fn a_term_shows_its_weights_and_the_numbers_of_its_formula() {
        let evidence = evidence();
        let view = &trainings(&evidence)[0];
        assert_eq!(view.terms[0].weight, "0.5");
        assert_eq!(view.terms[1].weight, "0.5 → 0.1");
        assert_eq!(view.terms[0].formula, "T^2 * KL, with T = 4");
    }

    #[test]
    fn epochs_are_told_in_columns_and_the_one_taken_is_marked() {
        let evidence = evidence();
        let view = &trainings(&evidence)[0];
        let heads = ["loss", "kd", "hint a : b", "accuracy in %", "learning rate"];
        assert_eq!(view.heads, heads);
        assert!(view.epochs.iter().all(|e| e.cells.len() == heads.len()));
        let taken: Vec<bool> = view.epochs.iter().map(|e| e.taken).collect();
        assert_eq!(taken, [false, true, false]);
        let epochs = view.facts.iter().find(|f| f.name == "Epochs");
        let expected = "3 of 10 that were asked for; the model is that of epoch 2";
        assert_eq!(epochs.unwrap().text, expected);
    }

    #[test]
    fn the_page_shows_the_curves_and_the_choices() {
        let html = evidence().to_html();
        for text in [
            "How it was trained",
            "Loss by epoch",
            "Accuracy by epoch",
            "Learning rate by epoch",
            "Hinton 2015",
            "mse 31.2 dB, on 64 samples",
        ] {
            assert!(html.contains(text), "{text}");
        }
        assert!(!Evidence::default().to_html().contains("How it was trained"));
    }
}

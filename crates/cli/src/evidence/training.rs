//! What steps told of training, and of what they chose by measuring.

use edgesmith_compress::quantize::changes::{Changes, Learned, Measure, Rounding};
use edgesmith_compress::recipe::Done;
use edgesmith_report::evidence::{Candidate, Choice, Epoch, LossTerm, Training};
use edgesmith_train::{optimizer, schedule, trainer};

use crate::measure;

/// Every step that trained.
pub fn trainings(done: &[Done]) -> Vec<Training> {
    let learned = |d: &Done| Some(training(d, d.changes.training.as_ref()?));
    done.iter().filter_map(learned).collect()
}

fn training(done: &Done, learned: &Learned) -> Training {
    let settings = &learned.settings;
    Training {
        step: done.step.clone(),
        loss: loss(learned),
        teacher: learned.teacher.clone().unwrap_or_default(),
        examples: learned.examples as u64,
        parameters: learned.parameters as u64,
        frozen: learned.frozen.clone(),
        optimizer: settings.optimizer.clone(),
        optimizer_about: optimizer::find(&settings.optimizer)
            .map_or("", |o| o.about)
            .into(),
        schedule: settings.schedule.clone(),
        schedule_about: schedule::find(&settings.schedule)
            .map_or("", |s| s.about)
            .into(),
        rate: settings.rate,
        warmup: settings.warmup,
        decay: settings.decay,
        momentum: settings.momentum.unwrap_or(optimizer::MOMENTUM),
        clip: settings.clip,
        ema: settings.ema,
        patience: settings.patience as u64,
        batch: settings.batch.min(learned.examples) as u64,
        seed: settings.seed,
        threads: measure::threads(settings.threads) as u32,
        epochs_asked: settings.epochs as u64,
        best_epoch: learned.best as u64 + 1,
        resumed_at_step: learned.resumed_at as u64,
        seconds: learned.seconds,
        notes: done.changes.notes.clone(),
        epochs: learned.history.iter().map(|e| epoch(learned, e)).collect(),
    }
}

/// A training in one line: its loss, and which epoch was taken.
pub fn summary(learned: &Learned) -> String {
    let terms = loss(learned)
        .into_iter()
        .map(|t| match t.weight == t.last_weight {
            true => format!("{} {}", t.weight, t.name),
            false => format!("{} to {} {}", t.weight, t.last_weight, t.name),
        });
    let terms: Vec<String> = terms.collect();
    format!(
        "the loss was {}; the model is that of epoch {} of {}, after {:.1} s",
        terms.join(" + "),
        learned.best + 1,
        learned.history.len(),
        learned.seconds
    )
}

fn loss(learned: &Learned) -> Vec<LossTerm> {
    let last = &learned.settings.last_weights;
    let terms = learned.terms.iter().enumerate();
    terms
        .map(|(i, t)| LossTerm {
            name: t.name.clone(),
            weight: t.weight,
            last_weight: last.get(i).copied().unwrap_or(t.weight),
            formula: t.formula.clone(),
            numbers: t.numbers.iter().map(|(n, x)| ((*n).into(), *x)).collect(),
            source: t.source.into(),
        })
        .collect()
}

fn epoch(learned: &Learned, e: &trainer::Epoch) -> Epoch {
    let judged = |by: Measure| e.judged.filter(|_| learned.judged == Some(by));
    Epoch {
        epoch: e.epoch as u64 + 1,
        loss: e.loss,
        terms: e.terms.clone(),
        rate: e.rate,
        accuracy: judged(Measure::Accuracy),
        mean_square_error: judged(Measure::MeanSquare).map(|j| -j),
        validation_loss: e.validation,
        sparsity: learned.sparsities.get(e.epoch).copied(),
    }
}

/// What each step chose by the outputs.
pub fn choices(done: &[Done]) -> Vec<Choice> {
    let of = |d: &Done| {
        let all = [observer(&d.changes), rounding(&d.changes)];
        let step = d.step.clone();
        all.into_iter().flatten().map(move |c| Choice {
            step: step.clone(),
            ..c
        })
    };
    done.iter().flat_map(of).collect()
}

fn observer(changes: &Changes) -> Option<Choice> {
    let (taken, _) = changes.observers.first()?;
    let candidates = changes.observers.iter();
    Some(Choice {
        what: "observer".into(),
        taken: (*taken).into(),
        candidates: candidates.map(|(n, db)| candidate(n, *db)).collect(),
        ..Choice::default()
    })
}

/// Whether weights stayed as adaptive rounding left them.
fn rounding(changes: &Changes) -> Option<Choice> {
    let r = changes.rounding.as_ref()?;
    let taken = if r.is_adaptive { ADAPTIVE } else { NEAREST };
    Some(Choice {
        what: "rounding of weights".into(),
        taken: taken.into(),
        reason: within_chance(r).unwrap_or_default().into(),
        samples: Some(r.samples as u64),
        candidates: vec![
            candidate(ADAPTIVE, r.adaptive_db),
            candidate(NEAREST, r.nearest_db),
        ],
        ..Choice::default()
    })
}

const ADAPTIVE: &str = "adaptive";
const NEAREST: &str = "to nearest";

/// Why adaptive rounding is kept where the outputs are not nearer with it.
pub fn within_chance(r: &Rounding) -> Option<&'static str> {
    (r.is_adaptive && r.adaptive_db < r.nearest_db).then_some("as that is within chance")
}

fn candidate(name: &str, sqnr_db: f64) -> Candidate {
    Candidate {
        name: name.into(),
        sqnr_db,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_rounding_is_told_with_what_it_was_compared_with() {
        let rounding_of = |is_adaptive, adaptive_db| {
            rounding(&Changes {
                rounding: Some(Rounding {
                    is_adaptive,
                    adaptive_db,
                    nearest_db: 30.0,
                    samples: 8,
                }),
                ..Changes::default()
            })
            .unwrap()
        };
        let kept = rounding_of(true, 29.9);
        assert_eq!(
            (kept.taken.as_str(), kept.reason.as_str()),
            ("adaptive", "as that is within chance")
        );
        assert_eq!(rounding_of(true, 31.0).reason, "");
        let back = rounding_of(false, 20.0);
        assert_eq!(
            (back.taken.as_str(), back.reason.as_str()),
            ("to nearest", "")
        );
        assert_eq!(back.candidates[0].sqnr_db, 20.0);
        assert!(rounding(&Changes::default()).is_none());
    }
}

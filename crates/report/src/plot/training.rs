//! The plots of a training: its loss, how it was judged, the learning rate.

use super::Figure;
use super::epochs::{Curve, Epochs};
use crate::evidence::{Epoch, Training};
use crate::format;

/// Terms that are drawn beside the loss at most.
const MOST_TERMS: usize = 4;

/// The plots of one step of training; none where no epoch was done. `names_step` where there are
/// others.
pub(super) fn figures(t: &Training, names_step: bool) -> Vec<Figure> {
    if t.epochs.is_empty() {
        return Vec::new();
    }
    let rate = Plot {
        title: "Learning rate by epoch",
        y_label: "rate",
        caption: "That of the last step of each epoch.".into(),
        text: short,
        from_zero: true,
        curves: vec![("learning rate".into(), values(t, |e| e.rate))],
    };
    let plots = [
        Some(losses(t)),
        accuracy(t),
        square(t),
        zeros(t),
        Some(rate),
    ];
    let mut figures: Vec<Figure> = plots.into_iter().flatten().map(|p| p.figure(t)).collect();
    if names_step {
        let step = format!(" Of the step {}.", t.step);
        figures.iter_mut().for_each(|f| f.caption += &step);
    }
    figures
}

struct Plot {
    title: &'static str,
    y_label: &'static str,
    caption: String,
    text: fn(f64) -> String,
    from_zero: bool,
    curves: Vec<(String, Vec<f64>)>,
}

impl Plot {
    fn figure(self, t: &Training) -> Figure {
        let curves = self.curves.into_iter().enumerate();
        let curves: Vec<Curve> = curves
            .map(|(i, (name, values))| Curve {
                name,
                series: i + 1,
                values,
                spread: Vec::new(),
            })
            .collect();
        let series = curves.iter().map(|c| (c.series, c.name.clone())).collect();
        let chart = Epochs {
            label: self.title,
            y_label: self.y_label,
            x_label: "epoch",
            places: Vec::new(),
            curves,
            best: t.best_epoch as usize,
            text: self.text,
            from_zero: self.from_zero,
        };
        Figure {
            title: self.title,
            caption: self.caption + " The dotted line is the epoch whose model was written.",
            svg: chart.draw(),
            series,
            wide: false,
        }
    }
}

fn values(t: &Training, get: impl Fn(&Epoch) -> f64) -> Vec<f64> {
    t.epochs.iter().map(get).collect()
}

fn short(value: f64) -> String {
    format::significant(value, 4)
}

/// The loss and, where there are several, its terms.
fn losses(t: &Training) -> Plot {
    let mut curves = vec![("loss".to_owned(), values(t, |e| e.loss))];
    let mut caption = "The mean over the steps of an epoch.".to_owned();
    if t.epochs.iter().any(|e| e.validation_loss.is_some()) {
        let of = |e: &Epoch| e.validation_loss.unwrap_or(f64::NAN);
        curves.push(("loss on validation".into(), values(t, of)));
        caption += " That on validation is of terms with their last weights, after the epoch.";
    }
    if t.loss.len() > 1 {
        caption += " Terms are drawn without their weights.";
        for (i, term) in t.loss.iter().enumerate().take(MOST_TERMS) {
            let of = |e: &Epoch| e.terms.get(i).copied().unwrap_or(f64::NAN);
            curves.push((term.name.clone(), values(t, of)));
        }
    }
    if t.loss.len() > MOST_TERMS {
        caption += &format!(
            " The first {MOST_TERMS} of {} terms are drawn.",
            t.loss.len()
        );
    }
    Plot {
        title: "Loss by epoch",
        y_label: "loss",
        caption,
        text: short,
        from_zero: true,
        curves,
    }
}

fn accuracy(t: &Training) -> Option<Plot> {
    let percent = |e: &Epoch| e.accuracy.map_or(f64::NAN, |a| a * 100.0);
    t.epochs.iter().any(|e| e.accuracy.is_some()).then(|| Plot {
        title: "Accuracy by epoch",
        y_label: "right answers in %",
        caption: "On the examples that judge, which are not trained on.".into(),
        text: |v| format!("{v:.2} %"),
        from_zero: false,
        curves: vec![("accuracy".into(), values(t, percent))],
    })
}

/// The share of zeros, with the right answers where there are some: both in percent.
fn zeros(t: &Training) -> Option<Plot> {
    let percent = |x: Option<f64>| x.map_or(f64::NAN, |x| x * 100.0);
    let mut curves = vec![("zeros".to_owned(), values(t, |e| percent(e.sparsity)))];
    let mut caption = "Of the weights that are pruned on the way, after each epoch.".to_owned();
    if t.epochs.iter().any(|e| e.accuracy.is_some()) {
        curves.push(("accuracy".into(), values(t, |e| percent(e.accuracy))));
        caption += " Beside it the right answers.";
    }
    let is_pruned = t.epochs.iter().any(|e| e.sparsity.is_some());
    is_pruned.then_some(Plot {
        title: "Zeros by epoch",
        y_label: "%",
        caption,
        text: |v| format!("{v:.2} %"),
        from_zero: true,
        curves,
    })
}

fn square(t: &Training) -> Option<Plot> {
    let error = |e: &Epoch| e.mean_square_error.unwrap_or(f64::NAN);
    let judged = t.epochs.iter().any(|e| e.mean_square_error.is_some());
    judged.then(|| Plot {
        title: "Mean square error by epoch",
        y_label: "mean square error",
        caption: "On the examples that judge, which are not trained on.".into(),
        text: short,
        from_zero: true,
        curves: vec![("mean square error".into(), values(t, error))],
    })
}

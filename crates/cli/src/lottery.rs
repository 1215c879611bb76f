//! Lottery tickets: the table of runs, and JSON.

use edgesmith_compress::prune::lottery::{Kind, Lottery, Row};
use edgesmith_report::table::{Column, Table};
use serde_json::{Value, json};

use crate::ui;

/// Means over trials, a row for each level and kind.
pub fn table(found: &Lottery) -> String {
    let mut table = Table::new([
        Column::left("weights left"),
        Column::left("run"),
        Column::right("right in the end"),
        Column::right("on the test"),
        Column::right("right at the best step"),
        Column::right("best step"),
    ]);
    let kinds: Vec<Kind> = [Kind::Ticket]
        .into_iter()
        .chain(found.settings.controls.iter().copied())
        .collect();
    for level in 0..=found.settings.levels {
        for &kind in &kinds {
            let rows: Vec<&Row> = found.of(level, kind).collect();
            let Some(first) = rows.first() else {
                continue;
            };
            let over = |of: &dyn Fn(&Row) -> Option<f64>| {
                let all: Option<Vec<f64>> = rows.iter().map(|r| of(r)).collect();
                all.map(|all| spread(&all))
            };
            let percent = |x: Option<[f64; 2]>| {
                x.map_or("–".into(), |[mean, off]| {
                    format!("{:.2} ± {:.2} %", 100.0 * mean, 100.0 * off)
                })
            };
            let steps = over(&|r| Some(r.early_step as f64));
            let name = if level == 0 { "whole" } else { kind.name() };
            table.row([
                &format!(
                    "{:.2} %",
                    100.0 * first.left as f64 / found.weights.max(1) as f64
                ),
                name,
                &percent(over(&|r| Some(r.end))),
                &percent(over(&|r| r.test)),
                &percent(over(&|r| Some(r.early))),
                &steps.map_or("–".into(), |[mean, off]| format!("{mean:.0} ± {off:.0}")),
            ]);
        }
    }
    table.to_text(&ui::style())
}

/// The mean, and the standard deviation of samples.
fn spread(all: &[f64]) -> [f64; 2] {
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    let squares: f64 = all.iter().map(|x| (x - mean).powi(2)).sum();
    [mean, (squares / (all.len().max(2) - 1) as f64).sqrt()]
}

/// Every run.
pub fn as_json(found: &Lottery) -> Value {
    let row = |r: &Row| {
        json!({"trial": r.trial, "level": r.level, "run": r.kind.name(), "left": r.left,
            "best_step": r.early_step, "best_loss": r.early_loss, "right_at_best": r.early,
            "right": r.end, "right_on_test": r.test})
    };
    let s = &found.settings;
    json!({"weights": found.weights, "steps": found.steps, "levels": s.levels, "prune_rate": s.rate,
        "last_rate": s.last_rate, "rewind": s.rewind, "trials": s.trials,
        "runs": found.rows.iter().map(row).collect::<Vec<_>>()})
}

//! Weights that were rounded alone: their table, and the line that sums it up.

use edgesmith_compress::quantize::changes::{Activations, Changes, WeightChange};
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};

use crate::ui;

/// How many bits each weight has, and what was lost.
pub fn table(weights: &[WeightChange]) -> String {
    let mut table = Table::new([
        Column::left("weight"),
        Column::right("outputs x inputs"),
        Column::right("bits"),
        Column::right("SQNR dB"),
        Column::right("output error"),
        Column::right("of rounding"),
    ]);
    let share = |x: Option<f64>| x.map_or(format::MISSING.to_owned(), |x| format!("{x:.3e}"));
    for w in weights {
        table.row([
            w.weight.as_str(),
            &format!("{} x {}", w.dims[0], w.dims[1]),
            &format!("{:.3}", w.bits),
            &format!("{:.1}", w.sqnr_db),
            &share(w.output_error),
            &share(w.output_error_of_rounding),
        ]);
    }
    table.to_text(&ui::style())
}

/// One line: the true bits of a weight, and the error beside that of rounding.
pub fn summary(changes: &Changes) -> Option<String> {
    let weights = &changes.weights;
    let activations = changes.ranges.as_ref().map(|r| r.activations);
    let count = |w: &WeightChange| (w.dims[0] * w.dims[1]) as f64;
    let numbers: f64 = weights.iter().map(count).sum();
    let bits = weights.iter().map(|w| w.bits * count(w)).sum::<f64>() / numbers;
    let ratio = |w: &WeightChange| {
        let (own, plain) = (w.output_error?, w.output_error_of_rounding?);
        (plain > 0.0).then(|| (own / plain).ln())
    };
    let ratios: Vec<f64> = weights.iter().filter_map(ratio).collect();
    let count = format::count(numbers as u64);
    let mut line = match activations {
        None | Some(Activations::StayFloat) => format!(
            "weights only: {bits:.3} bits for each of {count} weights, activations stay float"
        ),
        Some(_) => format!("weights: {bits:.3} bits for each of {count} weights"),
    };
    if !ratios.is_empty() {
        let mean = (ratios.iter().sum::<f64>() / ratios.len() as f64).exp();
        line += &format!("; squared output error {mean:.3} of that of rounding (geometric mean)");
    }
    (!weights.is_empty()).then_some(line)
}

//! Weights that were pruned: their table, and the line that sums it up.

use edgesmith_compress::prune::weights::{PrunedWeight, Sparsity};
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};
use serde_json::{Value, json};

use crate::ui;

/// What went of each weight.
pub fn table(sparsity: &Sparsity) -> String {
    let mut table = Table::new([
        Column::left("weight"),
        Column::right("outputs x inputs"),
        Column::right("zeros"),
        Column::right("share"),
        Column::right("output error"),
        Column::right("of magnitude"),
    ]);
    let error = |x: Option<f64>| x.map_or(format::MISSING.to_owned(), |x| format!("{x:.3e}"));
    for w in &sparsity.weights {
        table.row([
            w.weight.as_str(),
            &format!("{} x {}", w.dims[0], w.dims[1]),
            &format::count(w.gone as u64),
            &format!(
                "{:.4}",
                w.gone as f64 / (w.dims[0] * w.dims[1]).max(1) as f64
            ),
            &error(w.output_error),
            &error(w.output_error_of_magnitude),
        ]);
    }
    table.to_text(&ui::style())
}

/// One line: how many went, of which.
pub fn summary(sparsity: &Sparsity) -> String {
    let [gone, of] = sparsity.counts();
    let mut line = format!(
        "pruned by {}, {}: {} of {} weights in {} are zero ({:.2} %), {:.2} % of all weights",
        sparsity.criterion,
        sparsity.masks.pattern,
        format::count(gone as u64),
        format::count(of as u64),
        format::plural(sparsity.weights.len() as u64, "constant"),
        100.0 * gone as f64 / of.max(1) as f64,
        100.0 * gone as f64 / sparsity.all.max(1) as f64,
    );
    if let Some(ratio) = sparsity.ratio() {
        line += &format!("; squared output error {ratio:.3} of that of magnitude (geometric mean)");
    }
    line
}

/// As JSON.
pub fn as_json(sparsity: &Sparsity) -> Value {
    let [gone, of] = sparsity.counts();
    let weight = |w: &PrunedWeight| {
        json!({"weight": w.weight, "nodes": w.nodes, "outputs": w.dims[0], "inputs": w.dims[1],
            "zeros": w.gone, "output_error": w.output_error,
            "output_error_of_magnitude": w.output_error_of_magnitude})
    };
    json!({"criterion": sparsity.criterion, "pattern": sparsity.masks.pattern.to_string(),
        "scope": sparsity.scope, "zeros": gone, "of": of, "all_weights": sparsity.all,
        "weights": sparsity.weights.iter().map(weight).collect::<Vec<_>>()})
}

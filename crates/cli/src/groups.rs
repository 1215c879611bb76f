//! Channels, heads and blocks that were removed, or could be: their tables, and the line that sums
//! it up.

use edgesmith_compress::prune::Structured;
use edgesmith_compress::prune::channels::{GroupChange, Recovery};
use edgesmith_compress::prune::groups::{Frozen, Groups};
use edgesmith_compress::prune::layers::BlockOf;
use edgesmith_ir::analysis::Cost;
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};

use serde_json::{Value, json};

use crate::ui;

/// What went of each group, what stays and why, and what recovery found.
pub fn tables(of: &Structured) -> String {
    let mut text = String::new();
    if !of.groups.is_empty() {
        let mut table = Table::new([
            Column::left("made by"),
            Column::right("had"),
            Column::right("keeps"),
            Column::right("could lose"),
            Column::right("constants"),
            Column::left("kind"),
        ]);
        for g in &of.groups {
            let kind = if g.is_stream { "stream" } else { "inner" };
            table.row([
                g.name.as_str(),
                &g.count.to_string(),
                &g.kept.to_string(),
                &g.most.to_string(),
                &g.constants.to_string(),
                kind,
            ]);
        }
        text += &table.to_text(&ui::style());
    }
    text += &blocks(&of.blocks);
    text += &frozen(&of.frozen);
    if !of.recovered.is_empty() {
        let mut table = Table::new([
            Column::left("layer"),
            Column::right("squared error as cut"),
            Column::right("fitted"),
        ]);
        for r in &of.recovered {
            let taken = if r.after < r.before {
                r.after
            } else {
                r.before
            };
            table.row([
                r.node.as_str(),
                &format!("{:.4}", r.before),
                &format!("{taken:.4}"),
            ]);
        }
        text += &table.to_text(&ui::style());
    }
    text
}

/// The groups of a model that nothing was removed of.
pub fn explained(groups: &Groups) -> String {
    let mut table = Table::new([
        Column::left("made by"),
        Column::right("has"),
        Column::left("ties together"),
        Column::left("kind"),
    ]);
    let graph = &groups.model.graph;
    for g in &groups.groups {
        let (mut weights, mut lists, mut values) = (0, 0, 0);
        for axis in g.axes() {
            match graph.constant(axis.value).map(|t| t.rank()) {
                None => values += 1,
                Some(0 | 1) => lists += 1,
                Some(_) => weights += 1,
            }
        }
        let tied = format!(
            "{}, {}, {}",
            format::plural(weights, "weight"),
            format::plural(lists, "list"),
            format::plural(values, "value")
        );
        let kind = match (g.is_inexact, g.is_stream) {
            (true, _) => "stream, norms see fewer",
            (_, true) => "stream",
            _ => "inner",
        };
        table.row([g.name.as_str(), &g.count().to_string(), &tied, kind]);
    }
    table.to_text(&ui::style()) + &frozen(&groups.frozen)
}

/// Blocks, with how much each changes what it takes.
pub fn blocks(blocks: &[BlockOf]) -> String {
    if blocks.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        Column::left("block from"),
        Column::left("to"),
        Column::right("1 - cos"),
        Column::left(""),
    ]);
    for b in blocks {
        let change = b
            .change
            .map_or(format::MISSING.to_owned(), |c| format!("{c:.4}"));
        let fate = if b.is_gone { "left out" } else { "" };
        table.row([b.from.as_str(), &b.to, &change, fate]);
    }
    table.to_text(&ui::style())
}

fn frozen(frozen: &[Frozen]) -> String {
    if frozen.is_empty() {
        return String::new();
    }
    let mut table = Table::new([Column::left("stays whole"), Column::left("because of")]);
    for f in frozen {
        const MOST: usize = 3;
        let mut nodes = f
            .nodes
            .iter()
            .take(MOST)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        if f.nodes.len() > MOST {
            nodes += &format!(" and {} more", f.nodes.len() - MOST);
        }
        table.row([nodes.as_str(), &f.why]);
    }
    table.to_text(&ui::style())
}

/// One line: what went, and what it is worth.
pub fn summary(of: &Structured) -> String {
    let (before, after) = of.cost;
    let (had, keeps) = match of.blocks.is_empty() {
        true => (
            of.groups.iter().map(|g| g.count).sum::<usize>(),
            of.groups.iter().map(|g| g.kept).sum::<usize>(),
        ),
        false => {
            let stay = of.blocks.iter().filter(|b| !b.is_gone).count();
            (of.blocks.len(), stay)
        }
    };
    let mut line = format!(
        "pruned by {}: {} of {}; {}",
        of.criterion,
        had - keeps,
        format::plural(had as u64, of.structure),
        saved(before, after)
    );
    if !of.recovered.is_empty() {
        let mended = of.recovered.iter().filter(|r| r.after < r.before).count();
        line += &format!(
            "; {mended} of {} layers fitted to what they gave before",
            of.recovered.len()
        );
    }
    line
}

/// All of it as JSON.
pub fn as_json(of: &Structured) -> Value {
    let (before, after) = of.cost;
    let cost =
        |c: Cost| json!({"parameters": c.params, "macs": c.macs, "weight_bytes": c.weight_bytes});
    let group = |g: &GroupChange| {
        json!({"made_by": g.name, "count": g.count, "kept": g.kept, "could_lose": g.most,
            "is_stream": g.is_stream, "constants": g.constants})
    };
    let block = |b: &BlockOf| json!({"from": b.from, "to": b.to, "one_minus_cosine": b.change, "is_gone": b.is_gone});
    let recovered = |r: &Recovery| json!({"node": r.node, "squared_error_as_cut": r.before, "squared_error_fitted": r.after});
    let frozen = |f: &Frozen| json!({"nodes": f.nodes, "why": f.why});
    json!({
        "structure": of.structure,
        "criterion": of.criterion,
        "before": cost(before),
        "after": cost(after),
        "groups": of.groups.iter().map(group).collect::<Vec<_>>(),
        "blocks": of.blocks.iter().map(block).collect::<Vec<_>>(),
        "frozen": of.frozen.iter().map(frozen).collect::<Vec<_>>(),
        "recovered": of.recovered.iter().map(recovered).collect::<Vec<_>>(),
    })
}

fn saved(before: Cost, after: Cost) -> String {
    let part = |a: u64, b: u64| -100.0 * (1.0 - b as f64 / a.max(1) as f64);
    format!(
        "parameters {} → {} ({:+.1} %), multiplications {} → {} ({:+.1} %)",
        format::count(before.params),
        format::count(after.params),
        part(before.params, after.params),
        format::count(before.macs),
        format::count(after.macs),
        part(before.macs, after.macs)
    )
}

//! What was removed and what tickets came to, as finished texts.

use serde::Serialize;

use crate::evidence::{Evidence, Removal, RemovedBlock, Tickets};
use crate::format::{self, MISSING};

/// Layers that are named for one reason.
const MOST_NAMES: usize = 8;

/// One step that removed something.
#[derive(Serialize)]
pub(super) struct RemovalView<'a> {
    step: &'a str,
    summary: String,
    groups: Vec<[String; 5]>,
    blocks: Vec<[String; 4]>,
    whole: Vec<[String; 2]>,
}

/// One search for tickets.
#[derive(Serialize)]
pub(super) struct TicketsView<'a> {
    step: &'a str,
    summary: String,
    rows: Vec<[String; 5]>,
}

/// Every step that removed something.
pub(super) fn removals(evidence: &Evidence) -> Vec<RemovalView<'_>> {
    evidence.removals.iter().map(removal).collect()
}

/// Every search.
pub(super) fn tickets(evidence: &Evidence) -> Vec<TicketsView<'_>> {
    evidence.tickets.iter().map(searched).collect()
}

fn removal(r: &Removal) -> RemovalView<'_> {
    let change = |[before, after]: [u64; 2]| {
        let part = 100.0 * (after as f64 / before.max(1) as f64 - 1.0);
        format!(
            "{} → {} ({part:+.1} %)",
            format::count(before),
            format::count(after)
        )
    };
    let groups = r.groups.iter().map(|g| {
        let share = 100.0 * g.after as f64 / g.before.max(1) as f64;
        [
            g.name.clone(),
            g.kind.clone(),
            g.before.to_string(),
            g.after.to_string(),
            format!("{share:.1}"),
        ]
    });
    let block = |b: &RemovedBlock| {
        let change = b.change.map_or(MISSING.into(), |c| format!("{c:.4}"));
        let fate = if b.is_gone { "left out" } else { "stays" };
        [b.from.clone(), b.to.clone(), change, fate.into()]
    };
    let whole = r.whole.iter().map(|w| {
        let mut names = w.nodes[..w.nodes.len().min(MOST_NAMES)].join(", ");
        if w.nodes.len() > MOST_NAMES {
            names += &format!(" and {} more", w.nodes.len() - MOST_NAMES);
        }
        [names, w.why.clone()]
    });
    RemovalView {
        step: &r.step,
        summary: format!(
            "Chosen by {}. Parameters {}, multiplications {}.",
            r.criterion,
            change(r.parameters),
            change(r.macs)
        ),
        groups: groups.collect(),
        blocks: r.blocks.iter().map(block).collect(),
        whole: whole.collect(),
    }
}

fn searched(t: &Tickets) -> TicketsView<'_> {
    let percent = |x: [f64; 2]| format!("{:.2} ± {:.2}", 100.0 * x[0], 100.0 * x[1]);
    let mut rows = Vec::new();
    for level in 0..t.levels() {
        for kind in t.kinds() {
            let Some(mean) = t.mean(level, kind) else {
                continue;
            };
            rows.push([
                level.to_string(),
                format!("{:.2}", 100.0 * mean.left),
                if level == 0 { "whole" } else { kind }.to_owned(),
                percent(mean.right),
                mean.test.map_or(MISSING.into(), percent),
            ]);
        }
    }
    let trials = t.runs.iter().map(|r| r.trial + 1).max().unwrap_or(0);
    TicketsView {
        step: &t.step,
        summary: format!(
            "{} of {} steps each, from {}; {} weights could be pruned.",
            format::plural(t.runs.len() as u64, "run"),
            format::grouped(t.steps),
            format::plural(trials, "beginning"),
            format::grouped(t.weights)
        ),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Epoch, KeptWhole, RemovedGroup, TicketRun, Training};

    fn evidence() -> Evidence {
        let group = |name: &str, kind: &str, after| RemovedGroup {
            name: name.into(),
            kind: kind.into(),
            before: 16,
            after,
        };
        let block = |to: &str, is_gone| RemovedBlock {
            from: "x".into(),
            to: to.into(),
            change: Some(if is_gone { 0.01 } else { 0.5 }),
            is_gone,
        };
        let removal = Removal {
            step: "prune: structure = channel".into(),
            criterion: "l2".into(),
            parameters: [2000, 1000],
            macs: [40_000, 10_000],
            groups: vec![
                group("conv1", "channels inside", 8),
                group("conv2, conv3", "channels of a stream", 12),
            ],
            blocks: vec![block("a", true), block("b", false)],
            whole: vec![KeptWhole {
                nodes: vec!["head".into()],
                why: "an input or an output of the model".into(),
            }],
            ..Removal::default()
        };
        let run = |trial, level, kind: &str, right| TicketRun {
            trial,
            level,
            kind: kind.into(),
            left: 1000 >> level,
            right,
            right_on_test: None,
        };
        let tickets = Tickets {
            step: "lottery".into(),
            weights: 1000,
            steps: 300,
            runs: vec![
                run(0, 0, "ticket", 0.8),
                run(0, 1, "reinit", 0.5),
                run(0, 1, "ticket", 0.75),
                run(1, 0, "ticket", 0.9),
                run(1, 1, "reinit", 0.5),
                run(1, 1, "ticket", 0.85),
            ],
        };
        let epoch = |epoch: u64| Epoch {
            epoch,
            loss: 1.0,
            accuracy: Some(0.5),
            sparsity: Some(0.3 * epoch as f64),
            ..Epoch::default()
        };
        let training = Training {
            epochs: (1..=3).map(epoch).collect(),
            best_epoch: 3,
            ..Training::default()
        };
        Evidence {
            removals: vec![removal],
            tickets: vec![tickets],
            training: vec![training],
            ..Evidence::default()
        }
    }

    #[test]
    fn groups_are_told_with_what_they_keep() {
        let evidence = evidence();
        let view = &removals(&evidence)[0];
        assert_eq!(
            view.groups[0],
            ["conv1", "channels inside", "16", "8", "50.0"]
        );
        assert_eq!(view.blocks[0][3], "left out");
        let summary = "Chosen by l2. Parameters 2,000 → 1,000 (-50.0 %), multiplications 40.0 k → 10.0 k (-75.0 %).";
        assert_eq!(view.summary, summary);
    }

    #[test]
    fn tickets_are_told_by_level_as_means_of_trials() {
        let evidence = evidence();
        let view = &tickets(&evidence)[0];
        assert_eq!(
            view.rows[0],
            ["0", "100.00", "whole", "85.00 ± 7.07", MISSING]
        );
        assert_eq!(
            view.rows[2],
            ["1", "50.00", "reinit", "50.00 ± 0.00", MISSING]
        );
        assert_eq!(view.rows.len(), 3);
    }

    #[test]
    fn the_page_has_tables_and_plots_of_pruning() {
        let html = evidence().to_html();
        for text in [
            "What was removed",
            "What stays whole, and why",
            "What each layer keeps",
            "conv2, conv3: 12 of 16 channels of a stream stay",
            "What each block does",
            "Accuracy by weights left",
            "reinit, 50.0: 50.00 %",
            "Zeros by epoch",
            "zeros, epoch 2: 60.00 %",
            "How tickets learned",
        ] {
            assert!(html.contains(text), "{text}");
        }
        assert!(!html.contains("NaN"), "no number is missing");
        let back = Evidence::from_json(&evidence().to_json()).unwrap();
        assert_eq!(back, evidence());
    }
}

//! What steps removed of a model, and what they found of lottery tickets.

use edgesmith_compress::prune::Structured;
use edgesmith_compress::prune::channels::GroupChange;
use edgesmith_compress::prune::layers::BlockOf;
use edgesmith_compress::prune::lottery::{Lottery, Row};
use edgesmith_compress::recipe::Done;
use edgesmith_report::evidence::{
    KeptWhole, Removal, RemovedBlock, RemovedGroup, TicketRun, Tickets,
};

/// Every step that removed something.
pub fn removals(done: &[Done]) -> Vec<Removal> {
    let of = |d: &Done| Some(removal(d, d.changes.structured.as_ref()?));
    done.iter().filter_map(of).collect()
}

/// Every search for tickets.
pub fn tickets(done: &[Done]) -> Vec<Tickets> {
    let of = |d: &Done| Some(searched(d, d.changes.lottery.as_ref()?));
    done.iter().filter_map(of).collect()
}

fn removal(done: &Done, of: &Structured) -> Removal {
    let (before, after) = of.cost;
    let what = match of.structure {
        "head" => "heads",
        "head-width" => "numbers of every head",
        _ => "channels",
    };
    let group = |g: &GroupChange| RemovedGroup {
        name: g.name.clone(),
        kind: match (of.structure, g.is_stream) {
            ("channel", false) => format!("{what} inside"),
            ("channel" | "width", true) => format!("{what} of a stream"),
            _ => what.to_owned(),
        },
        before: g.count as u64,
        after: g.kept as u64,
    };
    let block = |b: &BlockOf| RemovedBlock {
        from: b.from.clone(),
        to: b.to.clone(),
        change: b.change,
        is_gone: b.is_gone,
    };
    let whole = of.frozen.iter().map(|f| KeptWhole {
        nodes: f.nodes.clone(),
        why: f.why.clone(),
    });
    Removal {
        step: done.step.clone(),
        structure: of.structure.into(),
        criterion: of.criterion.into(),
        parameters: [before.params, after.params],
        macs: [before.macs, after.macs],
        groups: of.groups.iter().map(group).collect(),
        blocks: of.blocks.iter().map(block).collect(),
        whole: whole.collect(),
    }
}

fn searched(done: &Done, found: &Lottery) -> Tickets {
    let run = |r: &Row| TicketRun {
        trial: r.trial as u64,
        level: r.level as u64,
        kind: r.kind.name().into(),
        left: r.left as u64,
        right: r.end,
        right_on_test: r.test,
    };
    Tickets {
        step: done.step.clone(),
        weights: found.weights as u64,
        steps: found.steps as u64,
        runs: found.rows.iter().map(run).collect(),
    }
}

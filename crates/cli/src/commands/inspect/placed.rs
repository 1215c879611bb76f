//! Where the nodes of a model would run, and why.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_ir::analysis::lengths;
use edgesmith_ir::types::TensorType;
use edgesmith_ir::{Error, Model};
use edgesmith_report::format::{self, plural};
use edgesmith_report::table::{Column, Table};
use edgesmith_runtime::{Failure, PlacedPart, Placement, Session};
use serde_json::{Value, json};

use crate::commands::{dims, run, text};
use crate::{measure, opened, ui};

/// The place of nodes that a run places.
const WAITS: &str = "a run";

/// Names that are listed behind a reason.
const NAMED: usize = 4;

/// The nodes of a model, the parts of devices, and what those refused.
pub struct Placed {
    nodes: Vec<Placement>,
    parts: Vec<PlacedPart>,
    failures: Vec<Failure>,
}

impl Placed {
    /// Where the nodes would run, once optimised, and those of graphs inside of them.
    ///
    /// # Errors
    /// When a length does not fit, or a provider is not there.
    pub fn of(matches: &ArgMatches, model: &Model) -> Result<Self> {
        let hinted = |e: Error| measure::with_lengths_hint(e, model);
        let mut fixed = model.clone();
        let given = dims(matches, model)?;
        let given: Vec<(&str, usize)> = given.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        for (v, ty) in lengths::workable_inputs(&fixed, &given).map_err(hinted)? {
            fixed.graph.value_mut(v).ty = Some(ty);
        }
        let fixed = opened::optimized(&fixed, text(matches, "level")).map_err(hinted)?;
        let mut session = Session::prepare(&fixed, &run::options(matches)?).map_err(hinted)?;
        let inputs = fixed.graph.inputs.iter();
        let types = inputs.map(|&v| fixed.graph.value(v).tensor_type().cloned());
        if let Some(types) = types.collect::<Option<Vec<TensorType>>>() {
            // Without it, graphs inside nodes are told as what is placed in a run.
            let _ = session.plan_ahead(&types);
        }
        let mut nodes = session.placements().to_vec();
        nodes.extend(session.placements_inside());
        Ok(Self {
            nodes,
            parts: session.parts(),
            failures: session.failures(),
        })
    }

    /// Adds all of it to what is known of the model.
    pub fn add_to(&self, object: &mut Value) {
        let node = |p: &Placement| {
            json!({"node": p.node, "op": p.op, "provider": p.provider, "kernel": p.kernel,
                "integer": p.integer, "fused_into": p.fused_into, "note": p.note,
                "reason": reason(p)})
        };
        let part = |p: &PlacedPart| {
            json!({"provider": p.provider, "nodes": p.nodes, "saves_us": p.saves_ns / 1e3,
                "border_us": p.border_ns / 1e3})
        };
        let failure = |f: &Failure| json!({"provider": f.provider, "nodes": f.nodes, "why": f.why});
        object["placements"] = self.nodes.iter().map(node).collect();
        object["parts"] = self.parts.iter().map(part).collect();
        object["failures"] = self.failures.iter().map(failure).collect();
    }

    /// Each node with its place, how many each provider has, the parts, then the reasons.
    pub fn text(&self) -> String {
        let mut table = Table::new([
            Column::left("node"),
            Column::left("op"),
            Column::left("provider"),
            Column::left("kernel"),
            Column::left("within"),
        ]);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for p in &self.nodes {
            let within = p.fused_into.as_deref().unwrap_or(format::MISSING);
            table.row([p.node.as_str(), &p.op, &p.provider, &p.kernel, within]);
            let waits = p.note.as_ref().is_some_and(|n| n.starts_with("placed "));
            let place = if waits { WAITS } else { &p.provider };
            *counts.entry(place).or_default() += 1;
        }
        let count = |(name, n): (&str, usize)| match name {
            "" => format!("{n} need no step"),
            WAITS => format!("{n} placed in a run"),
            name => format!("{n} on {name}"),
        };
        let counts: Vec<String> = counts.into_iter().map(count).collect();
        let mut text = format!("{}\n{}\n", table.to_text(&ui::style()), counts.join(", "));
        if !self.parts.is_empty() {
            text += &format!("\n{}", self.part_table());
        }
        for f in &self.failures {
            let nodes = plural(f.nodes as u64, "node");
            text += &format!("\n{} could not make {nodes} ready: {}\n", f.provider, f.why);
        }
        text += "\nreasons\n";
        for (reason, nodes) in self.reasons() {
            text += &format!("{reason}: {}\n", listed(&nodes));
        }
        text
    }

    fn part_table(&self) -> String {
        let mut table = Table::new([
            Column::left("part"),
            Column::left("provider"),
            Column::right("nodes"),
            Column::right("saves us"),
            Column::right("borders us"),
        ]);
        for p in &self.parts {
            let [first, last] =
                [p.nodes.first(), p.nodes.last()].map(|n| n.map_or("", String::as_str));
            table.row([
                &format!("{first} to {last}"),
                &p.provider,
                &p.nodes.len().to_string(),
                &format!("{:.1}", p.saves_ns / 1e3),
                &format!("{:.1}", p.border_ns / 1e3),
            ]);
        }
        table.to_text(&ui::style())
    }

    /// The names of nodes by each reason, in the order of the nodes.
    fn reasons(&self) -> Vec<(String, Vec<&str>)> {
        let mut all: Vec<(String, Vec<&str>)> = Vec::new();
        for p in &self.nodes {
            for reason in reason(p).split("; ") {
                match all.iter_mut().find(|(known, _)| known == reason) {
                    Some((_, nodes)) => nodes.push(&p.node),
                    None => all.push((reason.to_owned(), vec![&p.node])),
                }
            }
        }
        all
    }
}

/// `12 nodes, "a", "b", "c", "d" and 8 more`.
fn listed(nodes: &[&str]) -> String {
    let named: Vec<String> = nodes
        .iter()
        .take(NAMED)
        .map(|n| format!("\"{n}\""))
        .collect();
    let others = match nodes.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let count = plural(nodes.len() as u64, "node");
    format!("{count}, {}{others}", named.join(", "))
}

/// Why a node is where it is.
fn reason(p: &Placement) -> String {
    if let Some(note) = &p.note {
        return note.clone();
    }
    match (p.provider.as_str(), &p.fused_into) {
        ("", _) => "nothing needs a step of it".into(),
        (_, Some(_)) => "it is done by the step of another node".into(),
        ("reference", _) => "no kernel does it: it is evaluated".into(),
        (_, _) if p.integer => format!("{} has a kernel of integers for it", p.provider),
        (provider, _) => format!("{provider} has a kernel for it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_a_reason_and_few_are_named() {
        let node = |i: usize, provider: &str| Placement {
            node: format!("n{i}"),
            provider: provider.into(),
            ..Placement::default()
        };
        let mut nodes: Vec<Placement> = (0..6).map(|i| node(i, "cpu")).collect();
        nodes.push(node(6, "reference"));
        nodes.push(Placement {
            note: Some("a: no; b: never".into()),
            ..node(7, "cpu")
        });
        let placed = Placed {
            nodes,
            parts: Vec::new(),
            failures: Vec::new(),
        };
        let text = placed.text();
        let reasons = text.split_once("reasons\n").map(|(_, r)| r);
        let expected = "cpu has a kernel for it: 6 nodes, \"n0\", \"n1\", \"n2\", \"n3\" and 2 more\n\
                        no kernel does it: it is evaluated: 1 node, \"n6\"\n\
                        a: no: 1 node, \"n7\"\nb: never: 1 node, \"n7\"\n";
        assert_eq!(reasons, Some(expected));
    }
}

//! `edgesmith inspect`: what is in a model, and what of it can run here.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_codegen::Firmware;
use edgesmith_compress::target::{Needs, Target};
use edgesmith_ir::{Model, ops};
use edgesmith_report::evidence::ModelFacts;
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};
use serde_json::{Value, json};

use super::{Command, dim_arg, dims, json_arg, level_arg, model_arg, option, text};
use crate::opened::{self, Figures};
use crate::{firmware, targets, ui};

mod placed;

use placed::Placed;

/// The command.
pub static INSPECT: Command = Command {
    name: "inspect",
    about: "Show operators, opset, parameters, MACs, memory, dynamic dimensions, unknown operators",
    teach: "Figures are for one run; symbolic dimensions are 1 unless --dim sets them.\n\
            Example: edgesmith inspect model.onnx --dim batch=8 --target cortex-m7",
    args: |c| {
        c.arg(model_arg())
            .arg(dim_arg())
            .arg(option(
                "target",
                "T",
                "Say what this target's hardware means",
            ))
            .arg(
                option(
                    "providers",
                    "A,B",
                    "Say where each node would run, and why, with these providers",
                )
                .value_delimiter(','),
            )
            .arg(level_arg("extended"))
            .arg(json_arg())
    },
    run,
};

/// How often an operator is used, and whether the reference can run it.
struct OpRow {
    op: String,
    count: usize,
    known: bool,
}

fn run(matches: &ArgMatches) -> Result<()> {
    let path = Path::new(text(matches, "model"));
    let model = opened::open(path)?;
    let figures = opened::figures(&model, &dims(matches, &model)?)?;
    let facts = opened::facts(path, &model, &figures)?;
    let ops = count_ops(&model);
    let notes = match matches.get_one::<String>("target") {
        Some(name) => targets::find(name)?.notes(Needs {
            precision: "fp32",
            reduced: false,
            weight_bytes: figures.weight_bytes,
            activation_bytes: figures.activations.map_or(0, |a| a.peak_planned as u64),
        }),
        None => Vec::new(),
    };
    let code = match matches.get_one::<String>("target") {
        Some(name) => code(&model, &dims(matches, &model)?, &targets::find(name)?),
        None => None,
    };
    let placed = match matches.contains_id("providers") {
        true => Some(Placed::of(matches, &model)?),
        false => None,
    };
    if matches.get_flag("json") {
        let mut object = as_json(&model, &facts, &figures, &ops, &notes);
        if let Some(placed) = placed {
            placed.add_to(&mut object);
        }
        if let Some(code) = code {
            object["code"] = code.json;
        }
        return ui::print_json(&object);
    }
    match placed {
        Some(placed) => ui::print(&placed.text())?,
        None => {
            ui::print(&summary(&facts, &figures, &ops))?;
            ui::print(&op_table(&ops))?;
            ui::print(&node_table(&model, &figures))?;
        }
    }
    for note in notes {
        ui::print(&format!("note: {note}"))?;
    }
    if let Some(code) = code {
        ui::print(&code.text)?;
    }
    Ok(())
}

/// What code for a microcontroller would be.
struct Code {
    text: String,
    json: Value,
}

/// Whether a model fits as code for a target, by how much, and what would help; nothing where no code is
/// made for the target.
fn code(model: &Model, given: &[(String, usize)], target: &Target) -> Option<Code> {
    let flavour = firmware::flavour(target).ok()?;
    let made = firmware::fixed(model, given)
        .and_then(|m| Ok(edgesmith_codegen::lower(&m)?))
        .and_then(|mut program| {
            firmware::make_fit(&mut program, flavour, target, "cheap");
            Ok(Firmware::new(program, "model", flavour, "the model")?)
        });
    let firmware = match made {
        Ok(firmware) => firmware,
        Err(e) => {
            return Some(Code {
                text: format!("code for {}: none is made: {e:#}", target.name),
                json: json!({"target": target.name, "fits": false, "error": format!("{e:#}")}),
            });
        }
    };
    let lacks = firmware::lacks(&firmware, target);
    let mut text = format!(
        "code for {}\n{}",
        target.name,
        firmware::summary(&firmware, Some(target))
    );
    match lacks.as_slice() {
        [] => text += "it fits",
        lacks => {
            text += &format!(
                "it does not fit: {}\n{}",
                lacks.join("; "),
                firmware::remedy(&firmware)
            );
        }
    }
    let arena = &firmware.memory.arena;
    let peak = firmware.layers.get(arena.peak).map(|l| &l.name);
    let json = json!({"target": target.name, "fits": lacks.is_empty(), "lacks": lacks,
        "arena_bytes": arena.bytes, "arena_bound": arena.bound, "weight_bytes": firmware.weights, "peak": peak});
    Some(Code { text, json })
}

fn count_ops(model: &Model) -> Vec<OpRow> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut graphs = vec![&model.graph];
    while let Some(graph) = graphs.pop() {
        for (_, node) in graph.nodes() {
            *counts
                .entry((node.domain.clone(), node.op.clone()))
                .or_default() += 1;
            graphs.extend(node.subgraphs());
        }
    }
    let row = |((domain, op), count): ((String, String), usize)| OpRow {
        known: ops::find(&domain, &op).is_some_and(ops::OpDef::is_evaluated)
            || model
                .functions
                .iter()
                .any(|f| f.domain == domain && f.name == op),
        op: if domain.is_empty() {
            op
        } else {
            format!("{domain}.{op}")
        },
        count,
    };
    counts.into_iter().map(row).collect()
}

fn summary(facts: &ModelFacts, figures: &Figures, ops: &[OpRow]) -> String {
    let ports = |ports: &[edgesmith_report::evidence::Port]| {
        let each = ports
            .iter()
            .map(|p| format!("{}: {}{}", p.name, p.dtype, p.shape));
        each.collect::<Vec<_>>().join(", ")
    };
    let unknown: Vec<&str> = ops
        .iter()
        .filter(|o| !o.known)
        .map(|o| o.op.as_str())
        .collect();
    let list = |names: &[&str]| {
        if names.is_empty() {
            "none".into()
        } else {
            names.join(", ")
        }
    };
    let with_length = |(name, n): &(String, usize)| format!("{name} (here {n})");
    let dynamic: Vec<String> = match figures.lengths.is_empty() {
        true => facts.dynamic_dims.clone(),
        false => figures.lengths.iter().map(with_length).collect(),
    };
    let dynamic: Vec<&str> = dynamic.iter().map(String::as_str).collect();
    let memory = figures.activations.map_or_else(
        || "unknown: some shapes depend on the data".into(),
        |a| {
            format!(
                "{} (lower bound {})",
                format::bytes(a.peak_planned as u64),
                format::bytes(a.lower_bound as u64)
            )
        },
    );
    [
        format!(
            "{}  {}  opset {}  IR {}  {}",
            facts.file,
            format::bytes(facts.bytes),
            facts.opset,
            facts.ir_version,
            facts.producer
        ),
        format!("inputs             {}", ports(&facts.inputs)),
        format!("outputs            {}", ports(&facts.outputs)),
        format!("dynamic dimensions {}", list(&dynamic)),
        format!(
            "parameters         {} in {}",
            format::count(facts.parameters),
            format::bytes(figures.weight_bytes)
        ),
        format!("MACs               {}", format::count(facts.macs)),
        format!("peak activations   {memory}"),
        format!("unknown operators  {}", list(&unknown)),
        String::new(),
    ]
    .join("\n")
}

fn op_table(ops: &[OpRow]) -> String {
    let mut table = Table::new([
        Column::left("op"),
        Column::right("nodes"),
        Column::left("evaluated"),
    ]);
    for row in ops {
        let known = if row.known { "yes" } else { "no" };
        table.row([row.op.as_str(), &row.count.to_string(), known]);
    }
    table.to_text(&ui::style())
}

fn node_table(model: &Model, figures: &Figures) -> String {
    let mut table = Table::new([
        Column::left("node"),
        Column::left("op"),
        Column::left("output"),
        Column::right("MACs"),
        Column::right("weights"),
        Column::right("output bytes"),
    ]);
    for cost in &figures.costs {
        let node = model.graph.node(cost.node);
        let output = node.output(0).and_then(|v| figures.inferred.tensor(v));
        table.row([
            node.name.clone(),
            node.op.clone(),
            output.map_or_else(|| format::MISSING.into(), ToString::to_string),
            or_missing(cost.cost.macs, format::count),
            or_missing(cost.cost.weight_bytes, format::bytes),
            format::bytes(cost.output_bytes),
        ]);
    }
    table.to_text(&ui::style())
}

fn or_missing(n: u64, show: fn(u64) -> String) -> String {
    if n == 0 {
        format::MISSING.into()
    } else {
        show(n)
    }
}

fn as_json(
    model: &Model,
    facts: &ModelFacts,
    figures: &Figures,
    ops: &[OpRow],
    notes: &[String],
) -> Value {
    let ops: Vec<_> = ops
        .iter()
        .map(|o| json!({"op": o.op, "nodes": o.count, "evaluated": o.known}))
        .collect();
    let nodes: Vec<_> = figures
        .costs
        .iter()
        .map(|c| {
            let node = model.graph.node(c.node);
            json!({"name": node.name, "op": node.op, "macs": c.cost.macs,
                "weight_bytes": c.cost.weight_bytes, "output_bytes": c.output_bytes})
        })
        .collect();
    json!({
        "model": facts,
        "weight_bytes": figures.weight_bytes,
        "lengths": figures.lengths.iter().cloned().collect::<BTreeMap<_, _>>(),
        "peak_activation_bytes": figures.activations.map(|a| a.peak_planned),
        "activation_lower_bound_bytes": figures.activations.map(|a| a.lower_bound),
        "ops": ops,
        "nodes": nodes,
        "target_notes": notes,
    })
}

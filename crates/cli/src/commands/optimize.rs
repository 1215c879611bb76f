//! `edgesmith optimize`: the graph passes, written to a file.

use std::path::Path;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_formats::WriteOptions;
use edgesmith_ir::{Error, Model};
use edgesmith_passes::{Level, RunOptions, Trace};
use edgesmith_report::table::{Column, Table};
use edgesmith_runtime::{Options, Session};

use super::{Command, flag, force_arg, level_arg, model_arg, output_arg, text};
use crate::{measure, opened, ui};

/// The command.
pub static OPTIMIZE: Command = Command {
    name: "optimize",
    about: "Rewrite the graph into an equal, faster one",
    teach: "Example: edgesmith optimize model.onnx -o small.onnx --level extended --check --explain",
    args: |c| {
        c.arg(model_arg())
            .arg(output_arg("Where the optimised model goes"))
            .arg(level_arg("extended"))
            .arg(flag(
                "check",
                "Run both models on random inputs and refuse to write when they differ",
            ))
            .arg(flag("explain", "Print what each pass changed"))
            .arg(force_arg())
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    let before = opened::open(Path::new(text(matches, "model")))?;
    let mut after = before.clone();
    let level: Level = text(matches, "level").parse()?;
    let trace = edgesmith_passes::optimize(&mut after, level, &RunOptions::default())?;
    if matches.get_flag("check") {
        check(&before, &after)?;
    }
    let output = Path::new(text(matches, "output"));
    let options = WriteOptions {
        force: matches.get_flag("force"),
        ..WriteOptions::default()
    };
    edgesmith_formats::write(&after, output, &options)?;
    if matches.get_flag("explain") {
        ui::print(&explain(&trace))?;
    }
    let nodes = |m: &Model| m.graph.nodes().count();
    ui::say(&format!("{} nodes, now {}", nodes(&before), nodes(&after)));
    Ok(())
}

fn explain(trace: &Trace) -> String {
    let mut table = Table::new([
        Column::left("pass"),
        Column::right("changes"),
        Column::right("nodes before"),
        Column::right("after"),
    ]);
    for step in &trace.steps {
        let cells = [step.changes, step.nodes_before, step.nodes_after].map(|n| n.to_string());
        table.row([step.name, &cells[0], &cells[1], &cells[2]]);
    }
    table.to_text(&ui::style())
}

/// Refuses unless both models give the same answers on random inputs, to 1e-4 of the largest.
fn check(before: &Model, after: &Model) -> edgesmith_ir::Result<()> {
    let inputs = measure::random_inputs(before, &[])?;
    let borrowed = measure::borrowed(&inputs);
    let run = |m: &Model| Session::prepare(m, &Options::default())?.run(&borrowed);
    for (a, b) in run(before)?.iter().zip(&run(after)?) {
        let (a, b) = (a.to_f32()?, b.to_f32()?);
        let largest = a.iter().fold(0f32, |m, x| m.max(x.abs()));
        let worst = a
            .iter()
            .zip(b.iter())
            .fold(0f32, |m, (x, y)| m.max((x - y).abs()));
        if a.len() != b.len() || worst > 1e-4 * largest.max(1e-6) {
            return Err(
                Error::internal(format!("the optimised model differs by {worst}"))
                    .hint("nothing was written; --level basic or none may work"),
            );
        }
    }
    Ok(())
}

//! `edgesmith quantize`: one smaller model.

use std::path::Path;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_compress::calibrate::{self, Statistics};
use edgesmith_compress::quantize::changes::{Changes, Fate};
use edgesmith_compress::quantize::{half, weight_only};
use edgesmith_data::Dataset;
use edgesmith_formats::WriteOptions;
use edgesmith_ir::Model;
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};

use super::{Command, flag, force_arg, model_arg, option, output_arg, text};
use crate::{opened, ui};

mod int8;
mod weights;

/// The command.
pub static QUANTIZE: Command = Command {
    name: "quantize",
    about: "Write a smaller model: INT8 by calibration, FP16, BF16, or weights alone in 2 to 8 bits",
    teach: "INT8 needs 100 to 500 samples in CALIB.npz; labels are not used. INT4, INT3, INT2 and NF4\n\
            are of weights alone, and so is INT8 with --method.\n\
            Example: edgesmith quantize model.onnx -o int4.onnx --to int4 --calibrate calib.npz\n\
            Example: edgesmith quantize model.onnx -o int8.onnx --to int8 --calibrate calib.npz\n\
            Example: edgesmith quantize model.onnx -o fp16.onnx --to fp16",
    args: |c| {
        weights::args(int8::args(
            c.arg(model_arg())
                .arg(output_arg("Where the model goes"))
                .arg(
                    option("to", "TYPE", "The type of weights and activations")
                        .value_parser(["int8", "int4", "int3", "int2", "nf4", "fp16", "bf16"])
                        .required(true),
                )
                .arg(option(
                    "calibrate",
                    "CALIB.npz",
                    "Samples to find ranges with",
                ))
                .arg(
                    option("samples", "N", "Use the first N samples only")
                        .value_parser(clap::value_parser!(usize)),
                ),
        ))
        .arg(
            option(
                "exclude",
                "PATTERN",
                "Nodes that stay in float, by name; * is any text",
            )
            .action(clap::ArgAction::Append),
        )
        .arg(flag("explain", "Print what happened to each node, and why"))
        .arg(force_arg())
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    let original = opened::open(Path::new(text(matches, "model")))?;
    let basic = opened::optimized(&original, "basic")?;
    let exclude: Vec<String> = matches
        .get_many("exclude")
        .map(|v| v.cloned().collect())
        .unwrap_or_default();
    if let Some(settings) = weights::settings(matches, &exclude)? {
        return weights_alone(matches, &original, &basic, &settings);
    }
    let halves = half::Settings {
        exclude: exclude.clone(),
        ..half::Settings::default()
    };
    let (model, changes) = match text(matches, "to") {
        "fp16" => {
            let statistics = statistics(matches, &original, &basic)?;
            half::to_fp16(&basic, statistics.as_ref(), &halves)?
        }
        "bf16" => half::to_bf16(&basic, &halves)?,
        _ => int8::quantize(matches, &original, &basic, exclude)?,
    };
    write(matches, &model)?;
    tell(matches, &changes)
}

/// Rounds the weights of a model and leaves its activations in float.
fn weights_alone(
    matches: &ArgMatches,
    original: &Model,
    basic: &Model,
    settings: &weight_only::Settings,
) -> Result<()> {
    let statistics = weights::statistics(matches, original, basic, settings)?;
    let progress = ui::Bar::default();
    let (model, changes, reports) =
        weight_only::quantize(basic, statistics.as_ref(), settings, &progress)?;
    write(matches, &model)?;
    if matches.get_flag("explain") {
        ui::print(&weights::explain(&reports))?;
    }
    tell(matches, &changes)?;
    ui::say(&weights::summary(settings, &reports));
    Ok(())
}

fn write(matches: &ArgMatches, model: &Model) -> Result<()> {
    let options = WriteOptions {
        force: matches.get_flag("force"),
        ..WriteOptions::default()
    };
    edgesmith_formats::write(model, Path::new(text(matches, "output")), &options)?;
    Ok(())
}

fn tell(matches: &ArgMatches, changes: &Changes) -> Result<()> {
    for warning in &changes.warnings {
        ui::say(&format!("warning: {warning}"));
    }
    if matches.get_flag("explain") {
        ui::print(&explain(changes))?;
    }
    ui::say(&format!(
        "{} of {} nodes converted, weights {} → {}",
        changes.converted(),
        changes.nodes.len(),
        format::bytes(changes.weight_bytes_before as u64),
        format::bytes(changes.weight_bytes_after as u64)
    ));
    Ok(())
}

fn statistics(
    matches: &ArgMatches,
    original: &Model,
    basic: &Model,
) -> edgesmith_ir::Result<Option<Statistics>> {
    let Some(path) = matches.get_one::<String>("calibrate") else {
        return Ok(None);
    };
    let samples = Dataset::open(Path::new(path), original)?;
    let settings = calibration(matches);
    let statistics = calibrate::calibrate(basic, &samples, &settings, &ui::Bar::default())?;
    for warning in &statistics.warnings {
        ui::say(&format!("warning: {warning}"));
    }
    Ok(Some(statistics))
}

/// How the samples are run.
fn calibration(matches: &ArgMatches) -> calibrate::Settings {
    calibrate::Settings {
        samples: matches.get_one("samples").copied(),
        ..calibrate::Settings::default()
    }
}

fn explain(changes: &Changes) -> String {
    let mut table = Table::new([
        Column::left("node"),
        Column::left("op"),
        Column::left("what"),
    ]);
    for node in &changes.nodes {
        let what = match &node.fate {
            Fate::Converted => "converted".to_owned(),
            Fate::Absorbed(into) => format!("in {into}"),
            Fate::Left(why) => format!("left: {why}"),
        };
        table.row([node.name.as_str(), &node.op, &what]);
    }
    table.to_text(&ui::style())
}

//! `edgesmith optimize`: the graph passes, written to a file.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use clap::{ArgAction, ArgMatches};
use edgesmith_compress::steps::{self, Setting};
use edgesmith_formats::{WriteOptions, npz};
use edgesmith_ir::{Error, Model, Tensor};
use edgesmith_passes::{Level, PASSES, RunOptions, Size, Trace};
use edgesmith_report::format;
use edgesmith_report::table::{Column, Table};
use edgesmith_runtime::{Options, Session};
use serde_json::{Value, json};

use super::{
    Command, dim_arg, dims, flag, force_arg, json_arg, level_arg, model_arg, option, output_arg,
    text,
};
use crate::{arrays, measure, opened, recipes, ui};

/// The command.
pub static OPTIMIZE: Command = Command {
    name: "optimize",
    about: "Rewrite the graph into an equal, faster one",
    teach: "Files of level basic run in any ONNX runtime, those of extended in ONNX Runtime.\n\
            To find a pass at fault: --check with --stop-after N, --only or --skip.\n\
            Example: edgesmith optimize model.onnx -o small.onnx --level extended --check --explain",
    args: |c| {
        c.arg(model_arg())
            .arg(output_arg("Where the optimised model goes"))
            .arg(level_arg("extended"))
            .arg(flag("explain", "Say what each pass did and what it saved"))
            .arg(flag(
                "check",
                "Run both models and refuse to write when their answers differ",
            ))
            .arg(option(
                "input",
                "IN.npz",
                "Check on these inputs, by name, instead of random ones",
            ))
            .arg(dim_arg())
            .arg(
                option(
                    "tolerance",
                    "T",
                    "How far answers may be apart, relative to the largest",
                )
                .value_parser(clap::value_parser!(f64))
                .default_value("1e-4"),
            )
            .arg(passes_arg(
                "only",
                "Run only these passes, whatever their level",
            ))
            .arg(passes_arg("skip", "Leave these passes out"))
            .arg(
                option(
                    "stop-after",
                    "N",
                    "Stop after N runs of passes that changed something",
                )
                .value_parser(clap::value_parser!(usize)),
            )
            .arg(recipes::recipe_arg())
            .arg(json_arg())
            .arg(force_arg())
    },
    run: optimize,
};

fn passes_arg(name: &'static str, help: &'static str) -> clap::Arg {
    option(name, "PASS,..", help)
        .value_delimiter(',')
        .action(ArgAction::Append)
}

fn optimize(matches: &ArgMatches) -> Result<()> {
    recipes::check_free(matches, "recipe")?;
    recipes::check_free(matches, "output")?;
    let started = Instant::now();
    let before = opened::open(Path::new(text(matches, "model")))?;
    let load_ms = milliseconds(started);
    let mut after = before.clone();
    let level: Level = text(matches, "level").parse()?;
    let list = |name: &str| -> Vec<&str> {
        let words = matches.get_many::<String>(name);
        words.map_or_else(Vec::new, |w| w.map(String::as_str).collect())
    };
    let as_json = matches.get_flag("json");
    let (only, skip) = (list("only"), list("skip"));
    let options = RunOptions {
        only: &only,
        skip: &skip,
        stop_after: matches.get_one("stop-after").copied(),
        measure: matches.get_flag("explain"),
        ..RunOptions::default()
    };
    let started = Instant::now();
    let trace = edgesmith_passes::optimize(&mut after, level, &options)?;
    let optimize_ms = milliseconds(started);
    let peak_bytes = peak_memory();
    let (rows, measured) = (summed(&trace), options.measure);
    if matches.get_flag("explain") && !as_json {
        ui::print(&explain(&rows))?;
    }
    let difference = match matches.get_flag("check") || matches.contains_id("input") {
        true => Some(check(&before, &after, matches)?),
        false => None,
    };
    let output = Path::new(text(matches, "output"));
    let options = WriteOptions {
        force: matches.get_flag("force"),
        ..WriteOptions::default()
    };
    edgesmith_formats::write(&after, output, &options)?;
    let (before, after) = (Size::of(&before, as_json), Size::of(&after, as_json));
    if !as_json || matches.contains_id("recipe") {
        recipe(matches)?;
    }
    if as_json {
        return ui::print_json(&json!({
            "level": level.name(),
            "load_ms": load_ms,
            "optimize_ms": optimize_ms,
            "peak_bytes": peak_bytes,
            "before": size(&before),
            "after": size(&after),
            "largest_difference": difference,
            "passes": rows.iter().map(|r| r.as_json(measured)).collect::<Vec<_>>(),
        }));
    }
    ui::say(&format!("{} nodes, now {}", before.nodes, after.nodes));
    Ok(())
}

/// Tells the recipe that repeats the command.
fn recipe(matches: &ArgMatches) -> Result<()> {
    let mut given = recipes::given(&steps::optimize::OPTIMIZE, matches)?;
    let level = Setting::Text(text(matches, "level").into());
    given.set_default("level", level, "--level")?;
    recipes::tell(&recipes::of_command(matches, vec![given]), matches)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The most memory that this process has held so far, mapped files included; `None` where the
/// system does not say.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// What one pass did in all its runs.
struct Row {
    name: &'static str,
    about: &'static str,
    changes: usize,
    /// Gone nodes, bytes of constants and multiply-accumulates; negative where it added some.
    saved: [i64; 3],
}

impl Row {
    /// Bytes and multiply-accumulates only where they were measured.
    fn as_json(&self, measured: bool) -> Value {
        let [nodes, bytes, macs] = self.saved;
        let mut row = json!({
            "name": self.name, "about": self.about, "changes": self.changes, "nodes_saved": nodes,
        });
        if measured {
            row["constant_bytes_saved"] = bytes.into();
            row["macs_saved"] = macs.into();
        }
        row
    }
}

/// A row for each pass that ran, in the order of the list.
fn summed(trace: &Trace) -> Vec<Row> {
    let less = |a: u64, b: u64| i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(i64::MAX);
    let mut rows = Vec::new();
    for pass in PASSES {
        let mut steps = trace
            .steps
            .iter()
            .filter(|s| s.name == pass.name)
            .peekable();
        if steps.peek().is_none() {
            continue;
        }
        let mut row = Row {
            name: pass.name,
            about: pass.about,
            changes: 0,
            saved: [0; 3],
        };
        for step in steps {
            let (a, b) = (step.before, step.after);
            row.changes += step.changes;
            row.saved[0] += less(a.nodes as u64, b.nodes as u64);
            row.saved[1] += less(a.constant_bytes, b.constant_bytes);
            row.saved[2] += less(a.macs, b.macs);
        }
        rows.push(row);
    }
    rows
}

fn size(size: &Size) -> Value {
    json!({ "nodes": size.nodes, "constant_bytes": size.constant_bytes, "macs": size.macs })
}

fn explain(rows: &[Row]) -> String {
    let mut table = Table::new([
        Column::left("pass"),
        Column::right("changes"),
        Column::right("nodes saved"),
        Column::right("constants saved"),
        Column::right("MACs saved"),
        Column::left("what it does"),
    ]);
    let mut idle = Vec::new();
    for row in rows {
        if row.changes == 0 {
            idle.push(row.name);
            continue;
        }
        let [nodes, bytes, macs] = row.saved;
        let sign = if bytes < 0 { "-" } else { "" };
        let bytes = format!("{sign}{}", format::bytes(bytes.unsigned_abs()));
        let cells = [
            row.changes.to_string(),
            nodes.to_string(),
            bytes,
            macs.to_string(),
        ];
        let [changes, nodes, bytes, macs] = &cells;
        table.row([row.name, changes, nodes, bytes, macs, row.about]);
    }
    let mut out = table.to_text(&ui::style());
    if !idle.is_empty() {
        out.push_str(&format!("found nothing: {}\n", idle.join(", ")));
    }
    out
}

/// The largest difference between the answers of both models, relative to the largest element of
/// the output; an error where it is over the tolerance.
fn check(before: &Model, after: &Model, matches: &ArgMatches) -> Result<f64> {
    let inputs = match matches.get_one::<String>("input") {
        Some(file) => arrays::inputs(before, &npz::read(Path::new(file))?)?,
        None => arrays::inputs(
            before,
            &measure::random_inputs(before, &dims(matches, before)?)?,
        )?,
    };
    let answers = |m: &Model| -> edgesmith_ir::Result<_> {
        let found = Session::prepare(m, &Options::default())?.run_items(&inputs)?;
        Ok(arrays::outputs(m, &found))
    };
    let (expected, found) = (answers(before)?, answers(after)?);
    let tolerance: f64 = matches.get_one("tolerance").copied().unwrap_or(1e-4);
    let mut largest = 0f64;
    for (name, a) in &expected {
        let there = found.iter().find(|(n, _)| n == name);
        let far = there.map_or(f64::INFINITY, |(_, b)| difference(a, b));
        if far.is_nan() || far > tolerance {
            let message =
                format!("the optimised model differs by {far:.2e} of the largest element");
            return Err(Error::invalid(message)
                .at(format!("output \"{name}\""))
                .hint("nothing was written; --stop-after N finds the pass, --skip leaves it out")
                .into());
        }
        largest = largest.max(far);
    }
    ui::say(&format!(
        "largest difference {largest:.2e} of the largest element"
    ));
    Ok(largest)
}

/// How far `b` is from `a`, relative to the largest finite element of `a`; infinite where they
/// are of another type or differ in what is not finite.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    if a == b {
        return 0.0;
    }
    let (Ok(x), Ok(y)) = (a.to_f32(), b.to_f32()) else {
        return f64::INFINITY;
    };
    if a.ty() != b.ty() {
        return f64::INFINITY;
    }
    let (mut far, mut scale) = (0f64, 0f64);
    for (x, y) in x.iter().zip(y.iter()) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        if x == y || (x.is_nan() && y.is_nan()) {
            scale = if x.is_finite() {
                scale.max(x.abs())
            } else {
                scale
            };
            continue;
        }
        if !x.is_finite() || !y.is_finite() {
            return f64::INFINITY;
        }
        (far, scale) = (far.max((x - y).abs()), scale.max(x.abs()));
    }
    if far == 0.0 {
        0.0
    } else {
        far / scale.max(1e-6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_and_nan_equals_nan() {
        let t = |v: &[f32]| Tensor::vector(v.to_vec());
        assert_eq!(difference(&t(&[1.0, f32::NAN]), &t(&[1.0, f32::NAN])), 0.0);
        assert_eq!(difference(&t(&[4.0, 2.0]), &t(&[4.0, 1.0])), 0.25);
        assert!(difference(&t(&[f32::NAN]), &t(&[1.0])).is_infinite());
        assert!(difference(&t(&[1.0]), &t(&[1.0, 1.0])).is_infinite());
    }
}

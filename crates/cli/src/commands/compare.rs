//! `edgesmith compare`: every variant of a model, measured on the user's data.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_formats::{WriteOptions, write_file};
use edgesmith_ir::Error;
use edgesmith_ir::error::Kind;
use edgesmith_report::Evidence;

use super::{Command, flag, force_arg, json_arg, option, threads_arg};
use crate::evidence::comparison::{self, Job};
use crate::measure::Effort;
use crate::{targets, ui};

mod each;

/// The command.
pub static COMPARE: Command = Command {
    name: "compare",
    about: "Make every variant of a model and measure them all: FP32, FP16, INT8",
    teach: "Writes one ONNX file for each variant, report.json and report.html into OUT, and prints \
            the table.\nThe npz files have an array for each model input, by name, the sample on \
            the batch axis, and `labels` where there are any.\n\
            Example: edgesmith compare model.onnx --data test.npz --calibrate calib.npz --out out\n\
            --targets calibrates once and prints accuracy, saturated sums and size for each target; it\n\
            writes files only where --out is given.\n\
            Example: edgesmith compare --example\n\
            Example: edgesmith compare big.onnx --with student.onnx --data test.npz --calibrate calib.npz --out out\n\
            Example: edgesmith compare --example --prune channel=0.3 --prune 4x1=0.8\n\
            Example: edgesmith compare model.onnx --data test.npz --calibrate calib.npz --targets all",
    args: |c| {
        c.arg(
            clap::Arg::new("model")
                .value_name("MODEL")
                .help("The ONNX model to read"),
        )
        .arg(flag(
            "example",
            "Use the embedded Fashion-MNIST classifier and its data",
        ))
        .arg(option(
            "data",
            "TEST.npz",
            "Samples to measure on, with labels or without",
        ))
        .arg(option(
            "calibrate",
            "CALIB.npz",
            "Samples to find ranges with, 100 to 500",
        ))
        .arg(
            option(
                "with",
                "MODEL",
                "Another model for the same data beside it, such as a student: as it is, and as INT8",
            )
            .action(clap::ArgAction::Append),
        )
        .arg(
            option(
                "prune",
                "FORM[=SHARE]",
                "Also pruned, as `prune` does it with the calibration samples: as it is (c30), and as INT8 (c30-int8); channel=0.3, head=0.25, layer=0.3, unstructured=0.5, 2:4, 4x1=0.8",
            )
            .action(clap::ArgAction::Append),
        )
        .arg(option(
            "out",
            "DIR",
            "The folder to write into [default with --example: edgesmith-example]",
        ))
        .arg(option(
            "target",
            "T",
            "Say what this target's hardware means",
        ))
        .arg(
            option(
                "targets",
                "A,B",
                "Instead, the INT8 that each of these targets wants, as it computes it; `all` is every one",
            )
            .value_delimiter(','),
        )
        .arg(threads_arg(
            "1",
            "Threads of the latency measurement; 0 is one for each core",
        ))
        .arg(
            option("iterations", "N", "Runs of each variant that count")
                .value_parser(clap::value_parser!(usize))
                .default_value("100"),
        )
        .arg(json_arg())
        .arg(force_arg())
    },
    run,
};

/// The files that a comparison writes beside those of the variants.
static REPORTS: [&str; 2] = ["report.json", "report.html"];

fn run(matches: &ArgMatches) -> Result<()> {
    if let Some(names) = matches.get_many::<String>("targets") {
        return each::run(&each_job(matches, names.map(String::as_str))?);
    }
    let job = job(matches)?;
    let evidence = comparison::gather(&job, &ui::Bar::default())?;
    write_reports(&evidence, &job)?;
    if matches.get_flag("json") {
        return Ok(ui::print(&evidence.to_json())?);
    }
    ui::print(&evidence.to_table(&ui::style()))?;
    ui::say(&format!(
        "written to {}: {}",
        job.out.display(),
        REPORTS.join(", ")
    ));
    Ok(())
}

fn job(matches: &ArgMatches) -> Result<Job> {
    let example = matches.get_flag("example");
    let named = |name: &str| matches.get_one::<String>(name).map(PathBuf::from);
    let out = match named("out") {
        Some(out) => out,
        None if example => PathBuf::from("edgesmith-example"),
        None => return Err(missing("--out DIR").into()),
    };
    // The example's own folder holds nothing of the user's.
    let force = matches.get_flag("force") || (example && named("out").is_none());
    let with = matches.get_many::<String>("with").unwrap_or_default();
    let with: Vec<PathBuf> = with.map(PathBuf::from).collect();
    let prune = matches.get_many::<String>("prune").unwrap_or_default();
    let prune = prune.map(|p| p.parse::<comparison::Pruning>());
    let prune = prune.collect::<edgesmith_ir::Result<Vec<_>>>()?;
    let variants = comparison::names(&with, &prune)?;
    let variants = variants.iter().map(|name| format!("{name}.onnx"));
    refuse_overwriting(&out, variants.chain(REPORTS.map(String::from)), force)?;
    let (model, data, calibrate) = sources(matches, &out, force)?;
    Ok(Job {
        model,
        data,
        calibrate,
        with,
        prune,
        out,
        target: match matches.get_one::<String>("target") {
            Some(name) => Some(targets::find(name)?),
            None => None,
        },
        runtime: super::run::options(matches)?,
        effort: Effort {
            iterations: matches.get_one("iterations").copied().unwrap_or(100),
            budget: Duration::from_secs(15),
        },
        write: WriteOptions {
            force,
            ..WriteOptions::default()
        },
    })
}

/// The model, the test and the calibration data; those of the example are written below `out`.
fn sources(
    matches: &ArgMatches,
    out: &Path,
    force: bool,
) -> edgesmith_ir::Result<(PathBuf, PathBuf, PathBuf)> {
    if matches.get_flag("example") {
        return unpack_example(out, force);
    }
    let named = |name: &str, what: &str| {
        let path = matches.get_one::<String>(name).map(PathBuf::from);
        path.ok_or_else(|| missing(what))
    };
    Ok((
        named("model", "MODEL")?,
        named("data", "--data TEST.npz")?,
        named("calibrate", "--calibrate CALIB.npz")?,
    ))
}

fn each_job<'a>(matches: &ArgMatches, names: impl Iterator<Item = &'a str>) -> Result<each::Job> {
    let out = matches.get_one::<String>("out").map(PathBuf::from);
    let force = matches.get_flag("force");
    let targets = targets::chosen(names)?;
    let own = Path::new("edgesmith-example");
    let folder = out.as_deref().unwrap_or(own);
    let (model, data, calibrate) = sources(matches, folder, force || out.is_none())?;
    if let Some(out) = &out {
        create_folder(out)?;
    }
    Ok(each::Job {
        model,
        data,
        calibrate,
        targets,
        out,
        runtime: edgesmith_runtime::Options {
            threads: 0,
            ..super::run::options(matches)?
        },
        write: WriteOptions {
            force,
            ..WriteOptions::default()
        },
        json: matches.get_flag("json"),
    })
}

fn missing(what: &str) -> Error {
    Error::usage(format!("{what} is missing")).hint(
        "edgesmith compare model.onnx --data test.npz --calibrate calib.npz --out out, \
               or edgesmith compare --example",
    )
}

fn refuse_overwriting(
    out: &Path,
    names: impl Iterator<Item = String>,
    force: bool,
) -> edgesmith_ir::Result<()> {
    for name in names {
        let path = out.join(name);
        if path.exists() && !force {
            return Err(Error::usage("the file exists already")
                .at(path.display().to_string())
                .hint("give another folder, or --force to overwrite"));
        }
    }
    Ok(())
}

/// Writes the embedded example below `out`: the model, the test and the calibration data.
fn unpack_example(out: &Path, force: bool) -> edgesmith_ir::Result<(PathBuf, PathBuf, PathBuf)> {
    let folder = out.join("example");
    create_folder(&folder)?;
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        write_file(&path, bytes, force).map(|()| path)
    };
    Ok((
        put(
            "model.onnx",
            include_bytes!("../../../../models/fashion_mnist/model.onnx"),
        )?,
        put(
            "test.npz",
            include_bytes!("../../../../models/fashion_mnist/test.npz"),
        )?,
        put(
            "calib.npz",
            include_bytes!("../../../../models/fashion_mnist/calib.npz"),
        )?,
    ))
}

/// Makes a folder and those above it.
///
/// # Errors
/// When the system refuses.
pub fn create_folder(path: &Path) -> edgesmith_ir::Result<()> {
    fs::create_dir_all(path)
        .map_err(|e| Error::new(Kind::Io, e.to_string()).at(path.display().to_string()))
}

fn write_reports(evidence: &Evidence, job: &Job) -> edgesmith_ir::Result<()> {
    let texts = [evidence.to_json(), evidence.to_html()];
    for (name, text) in REPORTS.iter().zip(texts) {
        write_file(&job.out.join(name), text.as_bytes(), job.write.force)?;
    }
    Ok(())
}

//! Networks in generated C on every emulated board: equal outputs, instructions, memory, and the bars.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ArgMatches;
use serde::Deserialize;

use crate::bench::path;
use crate::{Task, flag, number, number_of, tidy};

mod bars;
mod layers;

/// The task.
pub static TASK: Task = Task {
    name: "boards",
    about: "Run the networks of MLPerf Tiny in generated C on every emulated board",
    args: |c| {
        c.arg(path("models", "The folder: a folder for each model").required(true))
            .arg(
                path("edgesmith", "The program that makes the code")
                    .default_value("target/release/edgesmith"),
            )
            .arg(number("samples", "0", "Samples of each network; 0 is all"))
            .arg(
                clap::Arg::new("filter")
                    .long("filter")
                    .value_name("TEXT")
                    .help("Only builds with this in their name"),
            )
            .arg(flag("write", "Write docs/boards.md").conflicts_with("filter"))
    },
    run,
};

/// The networks: name of the folder, and in C.
static NETWORKS: &[(&str, &str)] = &[
    ("ds_cnn_kws", "kws"),
    ("resnet8_cifar10", "resnet8"),
    ("vww_96", "vww"),
    ("ad_autoencoder", "ad"),
];

/// A board and how code is built for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    board: &'static str,
    target: &'static str,
    compiler: &'static str,
    optimize: &'static str,
    /// What `edgesmith quantize --to` makes; the floats of the model where it is f32.
    to: &'static str,
    sanitize: bool,
}

const fn way(
    board: &'static str,
    target: &'static str,
    compiler: &'static str,
    optimize: &'static str,
) -> Way {
    Way {
        board,
        target,
        compiler,
        optimize,
        to: "int8",
        sanitize: false,
    }
}

const fn of(to: &'static str, way: Way) -> Way {
    Way { to, ..way }
}

/// Every way, in the order of the table.
static WAYS: &[Way] = &[
    way("cortex-m0plus", "cortex-m0plus", "gcc", "O2"),
    way("cortex-m3", "cortex-m0plus", "gcc", "O2"),
    way("cortex-m4", "cortex-m4", "gcc", "O2"),
    way("cortex-m4", "cortex-m4", "gcc", "Os"),
    way("cortex-m4", "cortex-m4", "clang", "O2"),
    way("cortex-m7", "cortex-m7", "gcc", "O2"),
    way("cortex-m33", "cortex-m33", "gcc", "O2"),
    way("cortex-m55", "cortex-m55", "clang", "O2"),
    way("cortex-m55", "cortex-m55", "gcc", "O2"),
    way("rv32", "rv32imc", "gcc", "O2"),
    of("f32", way("cortex-m4", "cortex-m4", "gcc", "O2")),
    of("f32", way("cortex-m55", "cortex-m55", "clang", "O2")),
    of("fp16", way("cortex-m4", "cortex-m4", "gcc", "O2")),
    of("fp16", way("cortex-m55", "cortex-m55", "clang", "O2")),
    Way {
        sanitize: true,
        ..way("host", "rv32imc", "gcc", "O2")
    },
];

impl Way {
    fn name(&self) -> String {
        let sanitize = if self.sanitize { ", sanitizers" } else { "" };
        let to = self.to.to_uppercase();
        format!(
            "{to} {} {} -{}{sanitize}",
            self.board, self.compiler, self.optimize
        )
    }
}

/// What `edgesmith codegen --run --json` says.
#[derive(Deserialize)]
struct Made {
    run: Ran,
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    name: String,
    macs: u64,
}

#[derive(Deserialize)]
struct Ran {
    arena_bytes: u64,
    samples: usize,
    equal: usize,
    wrong: usize,
    right: Option<usize>,
    compiler_version: String,
    measured: Option<Board>,
}

#[derive(Deserialize)]
struct Board {
    instructions_max: u64,
    layers: Vec<u64>,
    stack_bytes: u64,
    flash: Flash,
}

#[derive(Deserialize)]
struct Flash {
    without_weights: u64,
    weights: u64,
}

/// A network, built in a way and run.
pub struct Line {
    network: &'static str,
    way: Way,
    made: Made,
}

/// A network that could not be built or run.
struct Failure {
    network: &'static str,
    way: Way,
    why: String,
}

impl Line {
    fn macs(&self) -> u64 {
        self.made.layers.iter().map(|l| l.macs).sum()
    }
}

/// Runs everything and prints the tables.
///
/// # Errors
/// When a tool is missing, or an output is wrong.
fn run(matches: &ArgMatches) -> Result<()> {
    let get = |name: &str| matches.get_one::<PathBuf>(name).context("clap asks for it");
    let (models, program) = (get("models")?, get("edgesmith")?);
    let samples = number_of(matches, "samples");
    let filter = matches.get_one::<String>("filter");
    let work = std::env::temp_dir().join(format!("edgesmith-boards-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let mut lines = Vec::new();
    let mut failures = Vec::new();
    let mut one = |network, folder: &Path| -> Result<()> {
        for way in WAYS {
            if filter.is_some_and(|f| !format!("{network} {}", way.name()).contains(f.as_str())) {
                continue;
            }
            let mut file = work.join(format!("{network}-{}-{}.onnx", way.to, way.target));
            if way.to == "f32" {
                file = folder.join("model.onnx");
            }
            if !file.is_file() {
                quantize(program, folder, way, &file)?;
            }
            let made = codegen(program, &file, folder, network, way, samples, &work);
            let told = made.as_ref().map_or_else(|e| format!("{e:#}"), told);
            println!("{network} on {}: {told}", way.name());
            let way = *way;
            match made {
                Ok(made) => lines.push(Line { network, way, made }),
                Err(e) => failures.push(Failure {
                    network,
                    way,
                    why: format!("{e:#}"),
                }),
            }
        }
        Ok(())
    };
    for (folder, network) in NETWORKS {
        let folder = models.join(folder);
        match folder.is_dir() {
            true => one(network, &folder)?,
            false => println!("{}: not there", folder.display()),
        }
    }
    for layer in layers::LAYERS {
        let folder = work.join(layer.name);
        layer.write(&folder)?;
        one(layer.name, &folder)?;
    }
    std::fs::remove_dir_all(&work)?;
    let text = page(&lines, &failures);
    println!("\n{text}");
    if matches.get_flag("write") {
        std::fs::write(tidy::root().join("docs/boards.md"), text)?;
    }
    let wrong: usize = lines.iter().map(|l| l.made.run.wrong).sum();
    let is_fault = |f: &&Failure| !f.why.contains("it does not fit");
    let failed = failures.iter().filter(is_fault).count();
    ensure!(
        wrong == 0 && failed == 0,
        "{wrong} samples have a wrong output, {failed} builds failed"
    );
    Ok(())
}

fn told(made: &Made) -> String {
    let ran = &made.run;
    let board = ran.measured.as_ref();
    let count = board.map_or(0, |b| b.instructions_max);
    format!(
        "{} of {} equal, {count} instructions",
        ran.equal, ran.samples
    )
}

fn quantize(program: &Path, folder: &Path, way: &Way, to: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("quantize").arg(folder.join("model.onnx"));
    command.args(["--to", way.to]).arg("-o").arg(to);
    if way.to == "int8" {
        command.args(["--target", way.target, "--calibrate"]);
        command.arg(folder.join("calib.npz"));
    }
    let output = command.stdout(Stdio::null()).output();
    let output = output.context("starting the program: `cargo build --release` makes it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

fn codegen(
    program: &Path,
    model: &Path,
    folder: &Path,
    network: &str,
    way: &Way,
    samples: u64,
    work: &Path,
) -> Result<Made> {
    let mut command = Command::new(program);
    command
        .arg("codegen")
        .arg(model)
        .arg("-o")
        .arg(work.join("code"));
    command.args(["--force", "--json", "--run", "--name", network]);
    command.args(["--target", way.target, "--board", way.board]);
    command.args(["--compiler", way.compiler, "--optimize", way.optimize]);
    command.args(["--samples", &samples.to_string(), "--input"]);
    command.arg(folder.join("test.npz"));
    if way.sanitize {
        command.arg("--sanitize");
    }
    if way.to == "fp16" {
        command.arg("--emulate-fp16");
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // A wrong output is told at the end, behind the table.
    ensure!(!output.stdout.is_empty(), "{}", said.trim());
    let made = serde_json::from_slice(&output.stdout);
    made.with_context(|| format!("{network} on {}: {said}", way.name()))
}

/// The tables and the bars.
fn page(lines: &[Line], failures: &[Failure]) -> String {
    let mut text = String::from(
        "# Generated C on emulated boards\n\nMade by `cargo xtask boards --models FOLDER --write`: INT8 by \
         `edgesmith quantize --to int8`, C by\n`edgesmith codegen --run`, under QEMU. Instructions are \
         counted, exactly, from the call of an inference to its\nreturn, the most of all samples; they are \
         no times. *Equal* samples have every bit of the outputs of the\nprogram evaluated in Rust; floats are \
         near where they are not equal. *Code* is flash without weights: instructions,\nparameters of layers, \
         tables, arithmetic of the compiler, `memcpy` and `memset`.\n",
    );
    let mut network = "";
    for line in lines {
        if line.network != network {
            network = line.network;
            let _ = write!(
                text,
                "\n## {network}, {:.2} million MACs\n\n| build | equal | right | instructions | each MAC | arena | \
                 stack | code | weights |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
                line.macs() as f64 / 1e6
            );
        }
        let ran = &line.made.run;
        let right = ran.right.map_or(String::new(), |n| format!("{n}"));
        let _ = write!(
            text,
            "| {} | {} of {} | {right} |",
            line.way.name(),
            ran.equal,
            ran.samples
        );
        let arena = grouped(ran.arena_bytes);
        let _ = match &ran.measured {
            None => writeln!(text, " | | {arena} | | | |"),
            Some(b) => writeln!(
                text,
                " {} | {:.2} | {arena} | {} | {} | {} |",
                grouped(b.instructions_max),
                b.instructions_max as f64 / line.macs().max(1) as f64,
                grouped(b.stack_bytes),
                grouped(b.flash.without_weights),
                grouped(b.flash.weights)
            ),
        };
    }
    if !failures.is_empty() {
        text += "\n## Not run\n\n";
    }
    for Failure { network, way, why } in failures {
        let why = why.lines().next().unwrap_or_default();
        let _ = writeln!(text, "- {network} on {}: {why}", way.name());
    }
    text += &bars::table(lines);
    let mut versions: Vec<&str> = lines
        .iter()
        .map(|l| l.made.run.compiler_version.as_str())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    let _ = write!(text, "\nCompilers: {}.\n", versions.join("; "));
    text
}

/// Digits by threes.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_stand_by_threes() {
        assert_eq!(
            ["7", "999", "1,000", "12,345,678"],
            [7, 999, 1000, 12_345_678].map(super::grouped)[..]
        );
    }
}

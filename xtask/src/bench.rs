//! The table of latencies beside other engines, over a folder of models.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgMatches};
use serde::Deserialize;

use crate::{Task, flag, number, number_of};

mod resnet18;
mod rust_engines;

/// The task.
pub static TASK: Task = Task {
    name: "bench",
    about: "Measure a folder of models beside ONNX Runtime and OpenVINO, and tract and rten",
    args: |c| {
        c.arg(path("models", "The folder: a folder for each model").required(true))
            .arg(
                path("edgesmith", "The program to measure")
                    .default_value("target/release/edgesmith"),
            )
            .arg(path(
                "quantized",
                "A folder made by scripts/quantize_with_onnxruntime.py, measured too",
            ))
            .arg(number("iterations", "60", "Runs of each model that count"))
            .arg(number(
                "repeats",
                "3",
                "Processes for each model, of which the one of the middle ratio is shown",
            ))
            .arg(number("threads", "1", "Threads"))
            .arg(
                Arg::new("filter")
                    .long("filter")
                    .value_name("TEXT")
                    .help("Only rows with this in their name"),
            )
            .arg(flag(
                "rust-engines",
                "Measure tract and rten too, which cargo builds apart",
            ))
            .arg(flag(
                "write",
                "Write docs/performance.md, or docs/performance-threads.md, and the means in README.md",
            )
            .conflicts_with("filter"))
    },
    run,
};

pub fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .value_name("PATH")
        .value_parser(clap::value_parser!(PathBuf))
}

/// What is measured: a model of the folder at given lengths.
struct Row {
    model: &'static str,
    /// Words for the lengths, or the arrays to run on.
    words: &'static [&'static str],
    batch: usize,
    /// Measured as an INT8 file too.
    int8: bool,
}

impl Row {
    /// Measured in BF16 too, where this CPU multiplies it.
    fn bf16(&self) -> bool {
        let named = ["mobilenet_v2", resnet18::NAME, "minilm"].contains(&self.model);
        named && edgesmith_kernels::Isa::detect().multiplies_bf16()
    }
}

const fn row(model: &'static str, batch: usize, int8: bool) -> Row {
    Row {
        model,
        words: &[],
        batch,
        int8,
    }
}

const fn of_length(words: &'static [&'static str], batch: usize) -> Row {
    Row {
        model: "minilm",
        words,
        batch,
        int8: true,
    }
}

/// Convolutional models first, then the others.
static ROWS: &[Row] = &[
    row("mobilenet_v2", 1, true),
    row("mobilenet_v2", 8, true),
    row("efficientnet_lite0", 1, true),
    row("efficientnet_lite0", 8, true),
    row(resnet18::NAME, 1, false),
    row(resnet18::NAME, 8, false),
    row("resnet8_cifar10", 1, true),
    row("resnet8_cifar10", 8, true),
    row("ds_cnn_kws", 1, true),
    row("ds_cnn_kws", 8, true),
    row("vww_96", 1, true),
    row("vww_96", 8, true),
    row("ad_autoencoder", 1, true),
    row("ad_autoencoder", 8, true),
    row("magika", 1, true),
    row("magika", 8, true),
    row("silero_vad", 1, false),
    row("silero_vad", 8, false),
    of_length(&["--dim", "sequence=16"], 1),
    of_length(&["--dim", "sequence=16"], 8),
    of_length(&["--dim", "sequence=128"], 1),
    of_length(&["--dim", "sequence=128"], 8),
    of_length(&["--dim", "sequence=512"], 1),
    of_length(&["--dim", "sequence=512"], 8),
];

/// How files of other quantisers are made.
const KINDS: [&str; 3] = ["u8", "s8", "dynamic"];

/// The tables.
const TITLES: [&str; 4] = [
    "FP32",
    "BF16 (products round both sides to BF16; OpenVINO too, ONNX Runtime in FP32)",
    "INT8 (files made by `edgesmith quantize`)",
    "INT8 (files made by ONNX Runtime's quantiser)",
];

/// What `edgesmith bench --json` says.
#[derive(Deserialize)]
struct Measured {
    cpu_p50_ms: f64,
    cold: Cold,
    memory: Memory,
    vs: Vec<Peer>,
}

#[derive(Deserialize)]
struct Memory {
    arena_bytes: f64,
    lower_bound: f64,
}

#[derive(Deserialize)]
struct Cold {
    load_ms: f64,
    first_ms: f64,
    peak_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Peer {
    engine: String,
    version: String,
    latency: Latency,
    cpu_ratio: f64,
    spread: [f64; 2],
    cold: Cold,
    difference: Option<f64>,
}

#[derive(Deserialize)]
struct Latency {
    cpu_p50_ms: f64,
}

/// One line of the table.
struct Line {
    name: String,
    measured: Measured,
    /// Of a file made by `edgesmith prepare`.
    prepared: Cold,
}

/// What a line has in parts of its peers.
struct Ratios {
    ort: Option<f64>,
    vino: Option<f64>,
    /// Load and first run, and memory, in parts of ONNX Runtime's.
    cold: Option<f64>,
    prepared: Option<f64>,
    memory: Option<f64>,
    /// CPU time in parts of that of the faster peer.
    best: Option<f64>,
}

impl Cold {
    fn ms(&self) -> f64 {
        self.load_ms + self.first_ms
    }
}

impl Measured {
    fn peer(&self, name: &str) -> Option<&Peer> {
        self.vs.iter().find(|p| p.engine == name)
    }
}

impl Line {
    fn ratios(&self) -> Ratios {
        let m = &self.measured;
        let (ort, vino) = (m.peer("onnxruntime"), m.peer("openvino"));
        let bytes = |c: &Cold| c.peak_bytes.map(|b| b as f64);
        let best = m.vs.iter().map(|p| p.latency.cpu_p50_ms);
        Ratios {
            ort: ort.map(|p| p.cpu_ratio),
            vino: vino.map(|p| p.cpu_ratio),
            cold: ort.map(|p| m.cold.ms() / p.cold.ms()),
            prepared: ort.map(|p| self.prepared.ms() / p.cold.ms()),
            memory: ort.and_then(|p| Some(bytes(&m.cold)? / bytes(&p.cold)?)),
            best: best.reduce(f64::min).map(|b| m.cpu_p50_ms / b),
        }
    }
}

fn run(matches: &ArgMatches) -> Result<()> {
    let get = |name: &str| matches.get_one::<PathBuf>(name).context("clap asks for it");
    let (models, program) = (get("models")?, get("edgesmith")?);
    let work = std::env::temp_dir().join(format!("edgesmith-bench-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let filter = matches.get_one::<String>("filter");
    let wanted = |name: &str| filter.is_none_or(|f| name.contains(f.as_str()));
    let (iterations, threads) = (
        number_of(matches, "iterations"),
        number_of(matches, "threads"),
    );
    let once = |file: &Path, words: &[String], iterations: u64, vs: &[&str]| -> Result<Measured> {
        let output = Command::new(program)
            .arg("bench")
            .arg(file)
            .args(words)
            .args(vs)
            .args(["--json", "--cold-starts", "1"])
            .args(["--iterations", &iterations.to_string()])
            .args(["--threads", &threads.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .context("starting the program: `cargo build --release` makes it")?;
        ensure!(output.status.success(), "{} is measured", file.display());
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let repeats = number_of(matches, "repeats").max(1);
    let bench = |name: String, file: &Path, words: &[String]| -> Result<Option<Line>> {
        if !wanted(&name) {
            return Ok(None);
        }
        let mut runs = Vec::new();
        for _ in 0..repeats {
            let vs = ["--vs", "onnxruntime,openvino"];
            runs.push(once(file, words, iterations, &vs)?);
        }
        let ready = work.join("prepared");
        prepare(program, file, words, &ready)?;
        let prepared = once(&ready, words, 3, &[])?.cold;
        let ratio = |m: &Measured| m.vs.first().map_or(0.0, |p| p.cpu_ratio);
        runs.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let measured = runs.swap_remove(runs.len() / 2);
        let ratios = measured.vs.iter().map(|p| format!("{:.2}", p.cpu_ratio));
        println!("{name}: {}", ratios.collect::<Vec<_>>().join(" "));
        Ok(Some(Line {
            name,
            measured,
            prepared,
        }))
    };
    let [mut floats, mut halves, mut bytes, mut others] = [(); 4].map(|()| Vec::new());
    let mut rust = match matches.get_flag("rust-engines") {
        true => Some(rust_engines::Engines::build(iterations)?),
        false => None,
    };
    for row in ROWS {
        let folder = models.join(row.model);
        let file = file_of(row, &folder, &work)?;
        if !file.is_file() {
            println!("{}: not in the folder", row.model);
            continue;
        }
        let words = words(row, &folder);
        let name = name(row);
        floats.extend(bench(name.clone(), &file, &words)?);
        if let Some(rust) = rust.as_mut().filter(|_| wanted(&name)) {
            rust.measure(&name, &file, &words)?;
        }
        if row.bf16() {
            let precision = ["--precision", "bf16"].map(String::from);
            let words = [&words[..], &precision].concat();
            halves.extend(bench(format!("{name}, BF16"), &file, &words)?);
        }
        if let Some(quantized) = matches.get_one::<PathBuf>("quantized") {
            for kind in KINDS {
                let file = quantized.join(format!("{}.{kind}.onnx", row.model));
                if file.is_file() {
                    others.extend(bench(format!("{name}, {kind}"), &file, &words)?);
                }
            }
        }
        let name = format!("{name}, INT8");
        if row.int8 && wanted(&name) {
            let small = work.join(format!("{}-int8.onnx", row.model));
            quantize(program, &folder, &small)?;
            if let Some(rust) = &mut rust {
                rust.measure(&name, &small, &words)?;
            }
            bytes.extend(bench(name, &small, &words)?);
        }
    }
    std::fs::remove_dir_all(&work)?;
    let tables = [&floats[..], &halves, &bytes, &others];
    let mut text = report(tables, (threads, repeats));
    text.extend(rust.map(|r| r.table()));
    println!("{text}");
    if matches.get_flag("write") {
        write(text, &means(tables), threads)?;
    }
    Ok(())
}

/// Writes the page of so many threads, which keeps its sections that this run did not measure, and the means in
/// README.md.
fn write(text: String, means: &str, threads: u64) -> Result<()> {
    let root = crate::tidy::root();
    let path = root.join(match threads {
        1 => "docs/performance.md",
        _ => "docs/performance-threads.md",
    });
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(path, with_kept(text, &page))?;
    let path = root.join("README.md");
    let page = std::fs::read_to_string(&path)?;
    let mark = format!("<!-- means, {threads} thread(s) -->\n");
    let page = between_marks(&page, &mark, means)
        .with_context(|| format!("README.md has no place for them: a pair of {mark:?}"))?;
    Ok(std::fs::write(path, page)?)
}

/// A page with `text` between its two marks.
fn between_marks(page: &str, mark: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(mark)?;
    let (_, after) = rest.split_once(mark)?;
    Some(format!("{before}{mark}{text}{mark}{after}"))
}

fn with_kept(mut text: String, page: &str) -> String {
    for section in page.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let heading = format!("\n## {title}\n");
        if !text.contains(&heading) {
            let section = format!("\n## {section}");
            text.push_str(section.trim_end());
            text.push('\n');
        }
    }
    text
}

/// The model of a row; one that no folder has is written.
fn file_of(row: &Row, folder: &Path, work: &Path) -> Result<PathBuf> {
    if row.model != resnet18::NAME {
        return Ok(folder.join("model.onnx"));
    }
    let file = work.join("resnet18.onnx");
    resnet18::write(&file)?;
    Ok(file)
}

fn name(row: &Row) -> String {
    let length = row.words.last().and_then(|w| w.split_once('='));
    match length {
        Some((_, n)) => format!("{}, {n} tokens, batch {}", row.model, row.batch),
        None => format!("{}, batch {}", row.model, row.batch),
    }
}

/// The words that set a row's lengths. The state of a recurrent model comes from its data.
fn words(row: &Row, folder: &Path) -> Vec<String> {
    let mut words: Vec<String> = row.words.iter().map(|&w| w.into()).collect();
    let batch = match row.model {
        "magika" => "unk__214",
        _ => "batch",
    };
    if row.model == "silero_vad" {
        words.extend(["--dim".into(), "sequence=576".into()]);
    }
    if row.model == "silero_vad" && row.batch == 1 {
        words.push("--input".into());
        words.push(folder.join("test.npz").display().to_string());
        return words;
    }
    words.extend(["--dim".into(), format!("{batch}={}", row.batch)]);
    words
}

pub fn quantize(program: &Path, folder: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("quantize").arg(folder.join("model.onnx"));
    command.args(["--to", "int8", "--calibrate"]);
    make(command.arg(folder.join("calib.npz")), to)
}

/// Prepares a model for the words of a row.
fn prepare(program: &Path, file: &Path, words: &[String], to: &Path) -> Result<()> {
    let mut command = Command::new(program);
    make(command.arg("prepare").arg(file).args(words), to)
}

/// Has a command write `to`.
fn make(command: &mut Command, to: &Path) -> Result<()> {
    command.arg("--force").arg("-o").arg(to);
    let output = command.stdout(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

/// The tables, with what they were measured on.
fn report(tables: [&[Line]; 4], (threads, repeats): (u64, u64)) -> String {
    let peers = tables.into_iter().flatten().flat_map(|l| &l.measured.vs);
    let mut names: Vec<String> = peers
        .map(|p| format!("{} {}", p.engine, p.version))
        .collect();
    names.sort();
    names.dedup();
    let cpu = edgesmith_kernels::cpu::CpuInfo::read();
    let mut text = format!(
        "# Performance\n\nMade by `cargo xtask bench --models FOLDER --quantized FOLDER --threads {threads} --write`: {} ({}), {threads} \
         thread(s), {}. CPU milliseconds are medians; a ratio is edgesmith's in parts of the \
         peer's, in turns of at least 5 ms in one process, each begun when the threads of the others rest, so below 1 is faster, with the quartiles of the \
         ratios of single rounds; of {repeats} process(es) the one of the middle ratio is shown. Cold is reading the file, preparing and the first run, in a process \
         of its own, and how far that process grows; the loading of the peer's library is left \
         out; prepared is the same of a file made by `edgesmith prepare`. Arena is that of \
         activations in parts of its lower bound. Engines run the file as it is, at their highest level, in f32 where the title does not say otherwise.\n",
        cpu.brand,
        cpu.sets.join(", "),
        names.join(", ")
    );
    for (title, lines) in TITLES.into_iter().zip(tables) {
        if !lines.is_empty() {
            let _ = write!(text, "\n## {title}\n\n{}", table(lines));
        }
    }
    text
}

fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| model | ms | vs ONNX Runtime | vs OpenVINO | cold ms | of ONNX Runtime | prepared ms | of \
         ONNX Runtime | memory MiB | of ONNX Runtime | arena | apart |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for line in lines {
        let m = &line.measured;
        let ratio = |p: Option<&Peer>| {
            p.map_or_else(String::new, |p| {
                let [low, high] = p.spread;
                format!("{:.2} ({low:.2}-{high:.2})", p.cpu_ratio)
            })
        };
        let (ort, vino) = (m.peer("onnxruntime"), m.peer("openvino"));
        let Ratios {
            cold: start,
            prepared: ready,
            memory,
            ..
        } = line.ratios();
        let bytes = |c: &Cold| c.peak_bytes.map(|b| b as f64 / 1024.0 / 1024.0);
        let number =
            |x: Option<f64>, digits: usize| x.map_or_else(String::new, |x| format!("{x:.digits$}"));
        let _ = writeln!(
            text,
            "| {} | {:.3} | {} | {} | {:.1} | {} | {:.1} | {} | {} | {} | {:.2} | {} |",
            line.name,
            m.cpu_p50_ms,
            ratio(ort),
            ratio(vino),
            m.cold.ms(),
            number(start, 2),
            line.prepared.ms(),
            number(ready, 2),
            number(bytes(&m.cold), 1),
            number(memory, 2),
            m.memory.arena_bytes / m.memory.lower_bound.max(1.0),
            ort.and_then(|p| p.difference)
                .map_or_else(String::new, |d| format!("{d:.0e}")),
        );
    }
    let mean = |of: fn(Ratios) -> Option<f64>| mean(lines, of);
    let best = lines.iter().filter_map(|l| l.ratios().best);
    let _ = writeln!(
        text,
        "| **geometric mean** | | **{:.2}** | **{:.2}** | | **{:.2}** | | **{:.2}** | | **{:.2}** | \
         | |\n\n\
         Largest ratio to the faster of the two peers: {:.2}.",
        mean(|r| r.ort),
        mean(|r| r.vino),
        mean(|r| r.cold),
        mean(|r| r.prepared),
        mean(|r| r.memory),
        best.fold(f64::NAN, f64::max)
    );
    text
}

/// The means of all tables, a row for each.
fn means(tables: [&[Line]; 4]) -> String {
    let mut text = String::from(
        "| files | rows | ONNX Runtime | OpenVINO | largest to the faster | load and first run | prepared | peak memory |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (title, lines) in TITLES.into_iter().zip(tables) {
        if lines.is_empty() {
            continue;
        }
        let mean = |of: fn(Ratios) -> Option<f64>| mean(lines, of);
        let best = lines.iter().filter_map(|l| l.ratios().best);
        let _ = writeln!(
            text,
            "| {title} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            lines.len(),
            mean(|r| r.ort),
            mean(|r| r.vino),
            best.fold(f64::NAN, f64::max),
            mean(|r| r.cold),
            mean(|r| r.prepared),
            mean(|r| r.memory),
        );
    }
    text
}

/// The geometric mean over the lines that have the number.
fn mean(lines: &[Line], of: fn(Ratios) -> Option<f64>) -> f64 {
    let values: Vec<f64> = lines.iter().filter_map(|l| of(l.ratios())).collect();
    geometric_mean(&values)
}

fn geometric_mean(values: &[f64]) -> f64 {
    let logs = values.iter().map(|v| v.ln()).sum::<f64>();
    (logs / values.len().max(1) as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_that_were_not_measured_stay_and_the_others_are_new() {
        let page = "# Page\n\n## FP32\n\nold\n\n## Beside tract and rten\n\nold\n\n## Sparse weights\n\n### Part\n\nold\n";
        let floats = "# Page\n\n## FP32\n\nnew\n";
        let kept = "\n## Beside tract and rten\n\nold\n";
        let sparse = "\n## Sparse weights\n\n### Part\n\nold\n";
        let found = with_kept(floats.into(), page);
        assert_eq!(found, format!("{floats}{kept}{sparse}"));
        let engines = "\n## Beside tract and rten\n\nnew\n";
        let found = with_kept(format!("{floats}{engines}"), page);
        assert_eq!(found, format!("{floats}{engines}{sparse}"));
    }

    #[test]
    fn text_stands_between_two_marks() {
        let found = between_marks("a\n<x>\nold\n<x>\nb", "<x>\n", "new\n");
        assert_eq!(found.as_deref(), Some("a\n<x>\nnew\n<x>\nb"));
        assert_eq!(between_marks("a <x>\n b", "<x>\n", "new"), None);
    }
}

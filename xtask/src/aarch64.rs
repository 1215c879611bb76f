//! The program on 64-bit Arm, emulated: tests, conformance, and instructions of an inference.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgMatches};

use crate::bench::{path, quantize};
use crate::{Task, flag, target, tidy};

/// The task.
pub static TASK: Task = Task {
    name: "aarch64",
    about: "Test the kernels and the runtime on 64-bit Arm, emulated by QEMU",
    args: |c| {
        c.arg(
            Arg::new("cpus")
                .long("cpus")
                .value_name("CPU,…")
                .help("CPUs of QEMU: without, with the dot product, with I8MM")
                .value_delimiter(',')
                .default_value("cortex-a53,cortex-a76,max"),
        )
        .arg(flag(
            "conformance",
            "Run ONNX's tests of every operator too, on the last CPU",
        ))
        .arg(path(
            "models",
            "A folder of models, of which instructions are counted",
        ))
        .arg(
            path(
                "edgesmith",
                "The program of this CPU that quantises the models",
            )
            .default_value("target/release/edgesmith"),
        )
        .arg(flag("write", "Write docs/performance-aarch64.md").requires("models"))
    },
    run,
};

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Where it is built.
const FOLDER: &str = "aarch64";

/// Where the libraries of the target lie.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";

/// Crates whose tests run.
const TESTED: [&str; 2] = ["edgesmith-kernels", "edgesmith-runtime"];

/// Models whose instructions are counted.
const COUNTED: [&str; 5] = [
    "mobilenet_v2",
    "resnet8_cifar10",
    "ds_cnn_kws",
    "vww_96",
    "ad_autoencoder",
];

/// Runs everything that is asked for.
///
/// # Errors
/// When a tool is missing, or something fails.
fn run(matches: &ArgMatches) -> Result<()> {
    tools()?;
    let cpus: Vec<&String> = matches.get_many("cpus").unwrap_or_default().collect();
    for cpu in &cpus {
        println!("tests on {cpu}");
        let mut cargo = cargo("test");
        let runner = emulator(cpu).join(" ".as_ref());
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
        cargo.arg("--quiet");
        cargo.args(TESTED.iter().flat_map(|name| ["-p", name]));
        succeed(&mut cargo, "the tests")?;
    }
    if matches.get_flag("conformance") {
        let cpu = cpus.last().context("a CPU is named")?;
        succeed(cargo("build").args(["-p", "xtask"]), "building")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["conformance", "--"]).args(emulator(cpu));
        succeed(command.arg(built("xtask")), "conformance")?;
    }
    if let Some(models) = matches.get_one::<PathBuf>("models") {
        let program = matches.get_one::<PathBuf>("edgesmith");
        let text = counts(models, program.context("it has a default")?, &cpus)?;
        println!("{text}");
        if matches.get_flag("write") {
            std::fs::write(tidy::root().join("docs/performance-aarch64.md"), text)?;
        }
    }
    Ok(())
}

/// Checks that everything is installed.
fn tools() -> Result<()> {
    for (tool, package) in [
        ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        ("qemu-aarch64", "qemu-user"),
    ] {
        let found = Command::new(tool).arg("--version").output();
        ensure!(
            found.is_ok_and(|o| o.status.success()),
            "{tool} is missing: `apt-get install {package}`"
        );
    }
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let found = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .with_context(|| rustc.display().to_string())?;
    let folder = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
    ensure!(
        folder.is_dir(),
        "{} has no standard library for {TARGET}: `rustup target add {TARGET}`, or a compiler \
         that has it in the variable RUSTC (Debian: `dpkg --add-architecture arm64`, then \
         `apt-get install rustc-web libstd-rust-web-dev:arm64`)",
        rustc.display()
    );
    Ok(())
}

/// Cargo for the target. Optimisation across crates would take minutes and change nothing here.
fn cargo(task: &str) -> Command {
    let mut cargo = crate::cargo();
    cargo.current_dir(tidy::root());
    cargo.args([task, "--release", "--target", TARGET, "--target-dir"]);
    cargo.arg(target(FOLDER));
    for (name, value) in [
        (
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            "aarch64-linux-gnu-gcc",
        ),
        ("CARGO_PROFILE_RELEASE_LTO", "off"),
        ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ] {
        cargo.env(name, value);
    }
    cargo
}

/// Where cargo puts what it builds.
fn built(name: &str) -> PathBuf {
    target(FOLDER).join(TARGET).join("release").join(name)
}

fn emulator(cpu: &str) -> [OsString; 5] {
    ["qemu-aarch64", "-L", SYSROOT, "-cpu", cpu].map(OsString::from)
}

fn succeed(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{what} failed");
    Ok(())
}

/// The table of instructions.
fn counts(models: &Path, program: &Path, cpus: &[&String]) -> Result<String> {
    succeed(
        cargo("build").args(["-p", "edgesmith-runtime", "--example", "time_model"]),
        "building",
    )?;
    let work = std::env::temp_dir().join(format!("edgesmith-aarch64-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let plugin = work.join("count.so");
    let source = work.join("count.c");
    std::fs::write(&source, include_str!("aarch64/count.c"))?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&plugin);
    succeed(cc.arg(&source), "compiling the plugin of QEMU")?;
    let mut text = format!(
        "# Instructions on 64-bit Arm\n\nMade by `cargo xtask aarch64 --models FOLDER --write`: \
         millions of instructions that QEMU executes in an inference of one sample in one \
         thread, and how many multiply-accumulates come to an instruction. NEON does 4 of f32 \
         in one, the dot product 16 of bytes. They are counts, not times: no Arm CPU was \
         there.\n\n| model | million MACs |{}\n|---|---|{}\n",
        cpus.iter().map(|c| format!(" {c} |")).collect::<String>(),
        "---|".repeat(cpus.len())
    );
    for model in COUNTED {
        let folder = models.join(model);
        if !folder.is_dir() {
            println!("{model}: not in the folder");
            continue;
        }
        let small = work.join("int8.onnx");
        quantize(program, &folder, &small)?;
        for (kind, file) in [("FP32", &folder.join("model.onnx")), ("INT8", &small)] {
            let macs = macs(program, file)?;
            let _ = write!(text, "| {model} {kind} | {:.1} |", macs / 1e6);
            for cpu in cpus {
                let data = folder.join("test.npz");
                let count = |runs| executed(cpu, &plugin, file, &data, runs);
                let each = (count(3)? - count(1)?) / 2.0;
                let _ = write!(text, " {:.1} ({:.2}) |", each / 1e6, macs / each);
            }
            let _ = writeln!(text);
        }
    }
    std::fs::remove_dir_all(&work)?;
    Ok(text)
}

/// Instructions of loading a model and running it once more than `runs` times.
fn executed(cpu: &str, plugin: &Path, model: &Path, data: &Path, runs: usize) -> Result<f64> {
    let [name, words @ ..] = emulator(cpu);
    let output = Command::new(name)
        .args(words)
        .arg("-plugin")
        .arg(plugin)
        .arg(built("examples/time_model"))
        .args([model, data])
        .args(["1", &runs.to_string(), "1"])
        .stderr(Stdio::piped())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|l| l.strip_prefix("instructions "));
    match count {
        Some(count) if output.status.success() => Ok(count.trim().parse()?),
        _ => bail!("{} on {cpu}: {said}", model.display()),
    }
}

/// Multiply-accumulates of one inference.
fn macs(program: &Path, model: &Path) -> Result<f64> {
    let output = Command::new(program)
        .arg("inspect")
        .arg(model)
        .arg("--json")
        .output()
        .context("starting the program: `cargo build --release` makes it")?;
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let macs = facts["model"]["macs"].as_f64();
    macs.with_context(|| format!("{} cannot be inspected", model.display()))
}

//! ONNX's own backend tests, run through every provider with and without optimisation.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgMatches};

use crate::{Task, flag};

mod c;
mod cases;
mod compare;
mod exceptions;
mod fetch;
mod pool;
mod table;
mod worker;

use cases::Case;
use worker::Verdict;

/// The task.
pub static TASK: Task = Task {
    name: "conformance",
    about: "Run ONNX's own tests of every operator through reference and cpu",
    args: |c| {
        c.arg(
            Arg::new("cases")
                .long("cases")
                .value_name("FOLDER")
                .help("The tests' folder; without it, the package is downloaded")
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("filter")
                .long("filter")
                .value_name("TEXT")
                .help("Only cases with this in their name"),
        )
        .arg(
            Arg::new("program")
                .last(true)
                .num_args(0..)
                .help("What starts a worker: an emulator, its options and the xtask of its CPU")
                .value_parser(clap::value_parser!(OsString)),
        )
        .arg(flag("json", "Print JSON"))
        .arg(
            flag(
                "write",
                "Write docs/reference/conformance.md, with --c conformance-c.md",
            )
            .conflicts_with("filter"),
        )
        .arg(
            flag("c", "Run the operators that have an emitter in generated C")
                .conflicts_with_all(["json", "program"]),
        )
        .arg(
            Arg::new("board")
                .long("board")
                .value_name("B")
                .help("The board of --c: this machine with the sanitizers, or an emulated one")
                .default_value("host")
                .requires("c"),
        )
        .arg(
            Arg::new("int8")
                .long("int8")
                .value_name("EDGESMITH")
                .help("With --c, in INT8: the program that quantises each case by its own data")
                .requires("c")
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(flag("worker", "Answer the cases on standard input").hide(true))
    },
    run,
};

/// A way to run a case.
struct Way {
    name: &'static str,
    provider: &'static str,
    level: edgesmith_passes::Level,
}

const fn way(name: &'static str, provider: &'static str, full: bool) -> Way {
    let level = if full {
        edgesmith_passes::Level::Layout
    } else {
        edgesmith_passes::Level::None
    };
    Way {
        name,
        provider,
        level,
    }
}

/// Every way, in the order of the table.
static WAYS: &[Way] = &[
    way("reference none", "reference", false),
    way("reference full", "reference", true),
    way("cpu none", "cpu", false),
    way("cpu full", "cpu", true),
];

/// A case and what became of it, one verdict a way.
struct Finding {
    case: Case,
    /// Numbers and booleans only, in types that every CPU has.
    plain: bool,
    verdicts: Vec<Verdict>,
    /// Why the case may fail.
    exception: Option<String>,
}

impl Finding {
    fn passed(&self) -> bool {
        self.verdicts.iter().all(|v| *v == Verdict::Passed)
    }
}

/// Runs the cases and prints the table.
///
/// # Errors
/// When a case fails that is not listed as an exception, or a listed one passes.
fn run(matches: &ArgMatches) -> Result<()> {
    let filter = matches.get_one::<String>("filter");
    if matches.get_flag("c") {
        return c::run(&c::Asked {
            folder: matches.get_one::<PathBuf>("cases").map(PathBuf::as_path),
            filter: filter.map(String::as_str),
            board: matches
                .get_one::<String>("board")
                .context("it has a default")?,
            quantizer: matches.get_one::<PathBuf>("int8").map(PathBuf::as_path),
            write: matches.get_flag("write"),
        });
    }
    let folder = match matches.get_one::<PathBuf>("cases") {
        Some(folder) => folder.clone(),
        None => fetch::cases()?,
    };
    if matches.get_flag("worker") {
        return worker::serve(&folder);
    }
    let reasons = exceptions::all()?;
    let mut cases = cases::all(&folder)?;
    for reason in &reasons {
        ensure!(
            cases.iter().any(|c| c.name == reason.name),
            "the list of exceptions names \"{}\", which is no case",
            reason.name
        );
    }
    if let Some(part) = filter {
        cases.retain(|c| format!("{}/{}", c.folder, c.name).contains(part));
    }
    let program: Vec<OsString> = matches
        .get_many("program")
        .map_or_else(Vec::new, |words| words.cloned().collect());
    let mut findings = pool::run(&folder, cases, &program)?;
    for finding in &mut findings {
        let reason = reasons.iter().find(|r| r.name == finding.case.name);
        finding.exception = reason.map(|r| r.reason.clone());
    }
    let told = match matches.get_flag("json") {
        true => table::json(&findings)? + "\n",
        false => table::text(&findings),
    };
    std::io::stdout().write_all(told.as_bytes())?;
    if matches.get_flag("write") {
        let path = crate::tidy::root().join("docs/reference/conformance.md");
        std::fs::create_dir_all(path.parent().context("it stands in a folder")?)?;
        std::fs::write(&path, table::page(&findings))
            .with_context(|| path.display().to_string())?;
    }
    let unlisted = findings
        .iter()
        .filter(|f| !f.passed() && f.exception.is_none());
    let passing = findings
        .iter()
        .filter(|f| f.passed() && f.exception.is_some());
    let (unlisted, passing) = (unlisted.count(), passing.count());
    ensure!(
        unlisted == 0 && passing == 0,
        "{unlisted} cases fail and are not listed, {passing} listed cases pass"
    );
    Ok(())
}

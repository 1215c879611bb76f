//! Work on the repository itself: `cargo xtask TASK`.

#![allow(
    clippy::print_stdout,
    reason = "a task is run by hand for what it prints"
)]

mod aarch64;
mod bench;
mod boards;
mod ci;
mod conformance;
mod mutate;
mod random_graphs;
mod tidy;
mod workers;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command};

/// A row of the task list.
struct Task {
    name: &'static str,
    about: &'static str,
    /// Its options.
    args: fn(Command) -> Command,
    run: fn(&ArgMatches) -> Result<()>,
}

/// Every task, by name.
static TASKS: &[&Task] = &[
    &aarch64::TASK,
    &bench::TASK,
    &boards::TASK,
    &ci::TASK,
    &conformance::TASK,
    &mutate::TASK,
    &random_graphs::TASK,
    &tidy::TASK,
];

fn main() -> Result<()> {
    let mut command = Command::new("cargo xtask")
        .about("Work on the repository itself")
        .subcommand_required(true)
        .arg_required_else_help(true);
    for task in TASKS {
        command = command.subcommand((task.args)(Command::new(task.name).about(task.about)));
    }
    let matches = command.get_matches();
    let (name, matches) = matches.subcommand().context("name a task")?;
    let task = TASKS.iter().find(|t| t.name == name);
    (task.context("the list has every task")?.run)(matches)
}

/// Cargo, as it started this program.
fn cargo() -> std::process::Command {
    std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A folder of its own for what is built with other settings or another compiler.
fn target(name: &str) -> std::path::PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map(std::path::PathBuf::from);
    folder
        .unwrap_or_else(|| tidy::root().join("target"))
        .join(name)
}

/// An option with a number that is `default` where it is not given.
fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .value_name("N")
        .value_parser(clap::value_parser!(u64))
        .default_value(default)
}

/// The number of such an option.
fn number_of(matches: &ArgMatches, name: &str) -> u64 {
    matches.get_one(name).copied().unwrap_or_default()
}

/// A switch.
fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::SetTrue)
}

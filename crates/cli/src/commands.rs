//! The list of commands, and the command line made from it.

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches};
use edgesmith_ir::{Error, Model};

use crate::opened;

pub mod apply;
pub mod average;
pub mod bench;
pub mod codegen;
pub mod compare;
pub mod completions;
pub mod convert;
pub mod formats;
pub mod inspect;
pub mod lottery;
pub mod ops;
pub mod optimize;
pub mod prepare;
pub mod providers;
pub mod prune;
pub mod quantize;
pub mod run;
pub mod student;
pub mod targets;
pub mod train;

/// A row of the command list.
pub struct Command {
    /// The word on the command line.
    pub name: &'static str,
    /// One line for the list of commands.
    pub about: &'static str,
    /// What `--help` adds: when to use it, and examples.
    pub teach: &'static str,
    /// Adds the arguments.
    pub args: fn(clap::Command) -> clap::Command,
    /// Does the work.
    pub run: fn(&ArgMatches) -> Result<()>,
}

/// Every command: the main job first, then in the order in which a user meets them.
pub static COMMANDS: &[&Command] = &[
    &compare::COMPARE,
    &inspect::INSPECT,
    &run::RUN,
    &bench::BENCH,
    &optimize::OPTIMIZE,
    &quantize::QUANTIZE,
    &prune::PRUNE,
    &student::STUDENT,
    &train::TRAIN,
    &train::DISTILL,
    &lottery::LOTTERY,
    &average::AVERAGE,
    &apply::APPLY,
    &convert::CONVERT,
    &prepare::PREPARE,
    &codegen::CODEGEN,
    &ops::OPS,
    &formats::FORMATS,
    &targets::TARGETS,
    &providers::PROVIDERS,
    &completions::COMPLETIONS,
];

/// The whole command line.
pub fn cli() -> clap::Command {
    let base = clap::Command::new("edgesmith")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Makes a trained network fit the edge: reads, optimises, quantises, runs, measures")
        .after_help("Start with: edgesmith compare --example")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(100);
    COMMANDS.iter().fold(base, |cli, command| {
        let sub = clap::Command::new(command.name)
            .about(command.about)
            .after_help(command.teach);
        cli.subcommand((command.args)(sub))
    })
}

/// The command of that name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().copied().find(|c| c.name == name)
}

/// The positional argument MODEL.
fn model_arg() -> Arg {
    Arg::new("model")
        .value_name("MODEL")
        .required(true)
        .help("The ONNX model to read")
}

/// `--NAME VALUE`.
fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// `--NAME`.
fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

/// `-o, --output FILE`.
fn output_arg(help: &'static str) -> Arg {
    option("output", "FILE", help).short('o').required(true)
}

/// `--json`.
pub fn json_arg() -> Arg {
    flag("json", "Print one JSON object instead of a table")
}

/// `--force`.
pub fn force_arg() -> Arg {
    flag("force", "Overwrite files that exist")
}

/// `--threads N`.
fn threads_arg(default: &'static str, help: &'static str) -> Arg {
    option("threads", "N", help)
        .value_parser(clap::value_parser!(usize))
        .default_value(default)
}

/// `--level LEVEL`.
fn level_arg(default: &'static str) -> Arg {
    option(
        "level",
        "LEVEL",
        "How far the graph is optimised before it runs",
    )
    .value_parser(["none", "basic", "extended", "layout"])
    .default_value(default)
}

/// `--providers A,B`.
fn providers_arg() -> Arg {
    option(
        "providers",
        "A,B",
        "Execution providers, best first; see `edgesmith providers`",
    )
    .value_delimiter(',')
    .default_value("cpu,reference")
}

/// `--precision P`.
fn precision_arg() -> Arg {
    option(
        "precision",
        "P",
        "What products of floats multiply: f32, or bf16 and sums in f32, where the CPU has it",
    )
    .value_parser(["f32", "bf16"])
    .default_value("f32")
}

/// `--dense-kernels`.
fn dense_arg() -> Arg {
    flag(
        "dense-kernels",
        "Multiply the zeros of weights too: no kernels for sparse weights",
    )
}

/// `--dim NAME=N`.
fn dim_arg() -> Arg {
    option(
        "dim",
        "NAME=N",
        "Sets an open length of the inputs, by its name or INPUT:AXIS; others are as small as fits",
    )
    .action(ArgAction::Append)
    .value_parser(parse_dim)
}

fn parse_dim(text: &str) -> Result<(String, usize), String> {
    let parts = text
        .split_once('=')
        .and_then(|(n, v)| Some((n.to_owned(), v.parse().ok()?)));
    parts.ok_or_else(|| "expected NAME=N, such as batch=1".into())
}

/// The lengths of `--dim`, each of an axis that `model` leaves open.
fn dims(matches: &ArgMatches, model: &Model) -> Result<Vec<(String, usize)>> {
    let given = matches.get_many::<(String, usize)>("dim");
    let given: Vec<_> = given.into_iter().flatten().cloned().collect();
    let open = opened::open_axes(model);
    for (name, _) in &given {
        if !open.contains(name) {
            let hint = match &open[..] {
                [] => "its lengths are all fixed".to_string(),
                open => format!("they are called {}", open.join(", ")),
            };
            return Err(
                Error::usage(format!("no input has an open length \"{name}\""))
                    .at("--dim")
                    .hint(hint)
                    .into(),
            );
        }
    }
    Ok(given)
}

/// A string argument that has a default or is required.
fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        super::cli().debug_assert();
    }
}

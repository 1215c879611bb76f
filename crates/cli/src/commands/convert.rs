//! `edgesmith convert`: external data in and out.

use std::path::Path;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_formats::{External, WriteOptions};

use super::{Command, force_arg, model_arg, option, output_arg, text};
use crate::opened;

/// The command.
pub static CONVERT: Command = Command {
    name: "convert",
    about: "Rewrite a model file: weights inside or beside the file",
    teach: "Example: edgesmith convert model.onnx -o new.onnx --external always",
    args: |c| {
        c.arg(model_arg())
            .arg(output_arg("Where the model goes"))
            .arg(
                option(
                    "external",
                    "WHEN",
                    "Weights in FILE.data beside the model; auto: over 1.8 GB",
                )
                .value_parser(["auto", "always", "never"])
                .default_value("auto"),
            )
            .arg(force_arg())
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    let model = opened::open(Path::new(text(matches, "model")))?;
    let external = match text(matches, "external") {
        "always" => External::Over(0),
        "never" => External::Never,
        _ => External::Auto,
    };
    let options = WriteOptions {
        force: matches.get_flag("force"),
        external,
    };
    edgesmith_formats::write(&model, Path::new(text(matches, "output")), &options)?;
    Ok(())
}

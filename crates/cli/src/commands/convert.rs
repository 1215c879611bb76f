//! `edgesmith convert`: opset, external data in and out.

use std::path::Path;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_compress::steps::convert::CONVERT as STEP;
use edgesmith_compress::steps::{Given, Setting};
use edgesmith_formats::WriteOptions;

use super::{Command, force_arg, model_arg, option, output_arg, text};
use crate::{opened, recipes};

/// The command.
pub static CONVERT: Command = Command {
    name: "convert",
    about: "Rewrite a model file: opset, weights inside or beside the file",
    teach: "Example: edgesmith convert model.onnx -o new.onnx --opset 21 --external always",
    args: |c| {
        c.arg(model_arg())
            .arg(output_arg("Where the model goes"))
            .arg(
                option("opset", "N", "Raise the opset of the default domain to N")
                    .value_parser(clap::value_parser!(i64)),
            )
            .arg(
                option(
                    "external",
                    "WHEN",
                    "Weights in FILE.data beside the model; auto: over 1.8 GB",
                )
                .value_parser(["auto", "always", "never"])
                .default_value("auto"),
            )
            .arg(recipes::recipe_arg())
            .arg(force_arg())
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    recipes::check_free(matches, "recipe")?;
    recipes::check_free(matches, "output")?;
    let mut model = opened::open(Path::new(text(matches, "model")))?;
    if let Some(&opset) = matches.get_one::<i64>("opset") {
        edgesmith_passes::convert_opset(&mut model, opset)?;
    }
    let options = WriteOptions {
        force: matches.get_flag("force"),
        external: recipes::external(Some(text(matches, "external"))),
    };
    edgesmith_formats::write(&model, Path::new(text(matches, "output")), &options)?;
    let mut given = Given::new(&STEP, STEP.name);
    if let Some(&opset) = matches.get_one::<i64>("opset") {
        let opset = usize::try_from(opset).unwrap_or_default();
        given.set("opset", Setting::Count(opset), "--opset")?;
    }
    recipes::tell(&recipes::of_command(matches, vec![given]), matches)
}

//! `edgesmith prune`: a model without what it can do without.

use std::path::Path;

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_compress::prune::groups::{Groups, Structure};
use edgesmith_compress::prune::{bodies, layers};
use edgesmith_compress::steps::Given;
use edgesmith_compress::steps::prune::PRUNE as STEP;
use edgesmith_compress::steps::prune::channels::LAYER;
use edgesmith_ir::Error;

use super::{Command, flag, model_arg, option, output_arg, text};
use crate::evidence::asked;
use crate::recipes;
use crate::{groups, opened, ui};

/// The command.
pub static PRUNE: Command = Command {
    name: "prune",
    about: "Take away what a model can do without: channels, heads, layers, or single weights",
    teach: "channel, head and layer make tensors smaller: what is tied to each other (sums, joins, depthwise\n\
            convolutions, norms) goes together, and the result is run beside the dense model with zeros in the\n\
            place of what is gone before it is written. --explain without -o lists what could go and what cannot.\n\
            With --calibrate, what is left is fitted to what the layers gave before.\n\
            Unstructured zeros and 2:4 make no tensor smaller: files compress better, and some hardware skips them.\n\
            Biases, norms and tables stay, and first and last layers but for --all-layers.\n\
            Later steps keep the zeros: train and distill train what is left, quantize gives zero back as zero.\n\
            Example: edgesmith prune model.onnx --structure channel --explain\n\
            Example: edgesmith prune model.onnx -o small.onnx --structure channel --amount 0.3 --calibrate calib.npz\n\
            Example: edgesmith prune model.onnx -o fast.onnx --structure channel --amount 0.5 --of latency --ranking global\n\
            Example: edgesmith prune bert.onnx -o small.onnx --structure head --amount 0.25 --criterion wanda --calibrate calib.npz\n\
            Example: edgesmith prune model.onnx -o sparse.onnx --structure unstructured --amount 0.5\n\
            Example: edgesmith prune model.onnx -o sparse.onnx --structure 2:4 --criterion sparsegpt --calibrate calib.npz\n\
            Example: edgesmith prune model.onnx -o sparse.onnx --structure 4x1 --amount 0.8 --scope global --explain",
    args: |c| {
        let c = c
            .arg(model_arg())
            .arg(
                output_arg("Where the pruned model goes; with --explain alone nothing is written")
                    .required(false)
                    .required_unless_present("explain"),
            )
            .arg(option(
                "calibrate",
                "CALIB.npz",
                "Samples to see what weights multiply with",
            ))
            .arg(
                option("samples", "N", "Use the first N samples only")
                    .value_parser(clap::value_parser!(usize)),
            )
            .arg(
                option(
                    "seed",
                    "S",
                    "Choose the N samples of --samples by this seed, not the first ones",
                )
                .value_parser(clap::value_parser!(u64)),
            );
        asked::args_of(c, &STEP)
            .arg(flag("explain", "Print what went of each weight").conflicts_with("json"))
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    asked::check_free(matches)?;
    let given = recipes::given(&STEP, matches)?;
    if !given.has("structure") {
        let hint = "--structure channel, head, head-width, width or layer; unstructured, 2:4 or another N:M, or 4x1 or other blocks RxC";
        return Err(Error::usage("--structure FORM is missing")
            .hint(hint)
            .into());
    }
    if !matches.contains_id("output") {
        return explain(matches, &given);
    }
    let recipe = recipes::of_command(matches, vec![given]);
    asked::carry_out(matches, recipe, matches.get_flag("explain"))
}

/// Lists what could be removed, and what not and why.
fn explain(matches: &ArgMatches, given: &Given) -> Result<()> {
    let name = given.text("structure").unwrap_or_default();
    let model = opened::open(Path::new(text(matches, "model")))?;
    if name == LAYER {
        return Ok(ui::print(&groups::blocks(&layers::explain(&model)?))?);
    }
    let structure = Structure::named(name).ok_or_else(|| {
        Error::usage(format!(
            "--explain alone is of structures that are removed, not {name}"
        ))
        .hint("give -o FILE to see what goes of each weight")
    })?;
    let found = Groups::of(&model, structure, &given.texts("exclude"))?;
    ui::print(&groups::explained(&found))?;
    for (place, found) in bodies::groups(&found.model, structure, &given.texts("exclude"))? {
        ui::print(&format!("\ninside of {place}:\n"))?;
        ui::print(&groups::explained(&found))?;
    }
    Ok(())
}

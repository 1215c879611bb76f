//! `edgesmith prune`: a model without what it can do without.

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_compress::steps::prune::PRUNE as STEP;
use edgesmith_ir::Error;

use super::{Command, flag, model_arg, option, output_arg};
use crate::evidence::asked;
use crate::recipes;

/// The command.
pub static PRUNE: Command = Command {
    name: "prune",
    about: "Take away what a model can do without: single weights, N of M weights, or blocks",
    teach: "Unstructured zeros and 2:4 make no tensor smaller: files compress better, and some hardware skips them.\n\
            Biases, norms and tables stay, and first and last layers but for --all-layers.\n\
            Later steps keep the zeros: train and distill train what is left, quantize gives zero back as zero.\n\
            Example: edgesmith prune model.onnx -o sparse.onnx --structure unstructured --amount 0.5\n\
            Example: edgesmith prune model.onnx -o sparse.onnx --structure 2:4 --criterion sparsegpt --calibrate calib.npz\n\
            Example: edgesmith prune model.onnx -o sparse.onnx --structure 4x1 --amount 0.8 --scope global --explain",
    args: |c| {
        let c = c
            .arg(model_arg())
            .arg(output_arg("Where the pruned model goes"))
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
        let hint = "--structure unstructured, 2:4 or another N:M, or 4x1 or other blocks RxC";
        return Err(Error::usage("--structure FORM is missing")
            .hint(hint)
            .into());
    }
    let recipe = recipes::of_command(matches, vec![given]);
    asked::carry_out(matches, recipe, matches.get_flag("explain"))
}

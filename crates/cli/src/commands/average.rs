//! `edgesmith average`: one model of the mean weights of several.

use clap::ArgMatches;
use edgesmith_compress::steps::average::AVERAGE as STEP;

use super::{Command, model_arg, output_arg};
use crate::evidence::asked;
use crate::recipes;

/// The command.
pub static AVERAGE: Command = Command {
    name: "average",
    about: "Average the weights of models that were trained from the same beginning",
    teach: "A network that was tuned several times from one file, with other seeds or settings, is often better with\n\
            the mean of the weights than each is alone, and costs no more (model soups, Wortsman et al. 2022).\n\
            Example: edgesmith average a.onnx --with b.onnx --with c.onnx -o mean.onnx",
    args: |c| {
        let c = c.arg(model_arg()).arg(output_arg("Where the mean goes"));
        asked::args_of(c, &STEP).mut_arg("with", |a| a.required(true))
    },
    run: |matches: &ArgMatches| {
        asked::check_free(matches)?;
        let given = recipes::given(&STEP, matches)?;
        asked::carry_out(matches, recipes::of_command(matches, vec![given]), false)
    },
};

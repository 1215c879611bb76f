//! `edgesmith lottery`: the part of a network that learns as well as the whole.

use clap::ArgMatches;
use edgesmith_compress::steps::lottery::LOTTERY as STEP;

use super::{Command, model_arg, option, output_arg};
use crate::evidence::asked;
use crate::recipes;

/// The command.
pub static LOTTERY: Command = Command {
    name: "lottery",
    about: "Find the part of a network that learns as well as the whole: train, prune, begin again",
    teach: "MODEL is a file, whose weights are drawn anew, or the name of a network of `edgesmith train`.\n\
            Each level trains, lets the smallest weights of each layer go, and sets the others back. What is written\n\
            is the last ticket of the first trial as it was trained; the table, --report and --json tell of all runs.\n\
            With --cache DIR a search that was broken off goes on behind the runs that are over, to the same bytes.\n\
            Example: edgesmith lottery lenet-300-100 -o ticket.onnx --data train.npz --validate val.npz --levels 13 \\\n\
            \u{20}         --controls reinit --trials 5 --evaluate test.npz",
    args: |c| {
        let c = c
            .arg(model_arg())
            .arg(output_arg("Where the trained ticket goes"))
            .arg(option(
                "evaluate",
                "TEST.npz",
                "Samples that nothing is chosen by, with labels",
            ));
        asked::args_of(c, &STEP)
            .mut_arg("data", |a| a.required(true))
            .arg(recipes::cache_arg())
    },
    run: |matches: &ArgMatches| {
        asked::check_free(matches)?;
        let given = recipes::given(&STEP, matches)?;
        asked::carry_out(matches, recipes::of_command(matches, vec![given]), false)
    },
};

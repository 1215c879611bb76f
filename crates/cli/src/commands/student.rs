//! `edgesmith student`: a smaller network made of a teacher.

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_compress::steps::student::STUDENT as STEP;

use super::{Command, model_arg, output_arg};
use crate::evidence::asked;
use crate::recipes;

/// The command.
pub static STUDENT: Command = Command {
    name: "student",
    about: "Make a smaller network out of a model, begun with its weights, to be trained by it",
    teach: "--width is for convolutional networks: channels that sums, depthwise convolutions and joins tie\n\
            to each other go together. Of a transformer the layers inside its blocks are narrowed.\n\
            --layers is for blocks that repeat: layers of transformers, equal residual blocks of a stage.\n\
            alternate keeps every other one, the last among them (DistilBERT); uniform:N keeps N at equal\n\
            distances (TinyBERT). What stays keeps its names, so that `distill --loss 'hint 1 same'` pairs it\n\
            with the teacher's.\n\
            Example: edgesmith student big.onnx -o small.onnx --width 0.5 --round-to 8\n\
            Example: edgesmith student bert.onnx -o half.onnx --layers alternate\n\
            Then:    edgesmith distill --teacher big.onnx --student small.onnx --data train.npz -o out.onnx",
    args: |c| {
        let c = c
            .arg(
                model_arg()
                    .value_name("TEACHER")
                    .help("The ONNX model to make it of"),
            )
            .arg(output_arg("Where the student goes"));
        asked::args_of(c, &STEP)
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    asked::check_free(matches)?;
    let given = recipes::given(&STEP, matches)?;
    asked::carry_out(matches, recipes::of_command(matches, vec![given]), false)
}

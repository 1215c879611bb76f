//! `edgesmith train` and `edgesmith distill`: a model, examples, losses.

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_compress::steps::train::TRAIN as STEP;
use edgesmith_compress::steps::{Given, Setting};
use edgesmith_train::architectures::{ARCHITECTURES, Architecture};

use super::{Command, model_arg, option, output_arg, text};
use crate::evidence::asked;
use crate::recipes;

/// The command `train`.
pub static TRAIN: Command = Command {
    name: "train",
    about: "Train a model, or a new small network, on examples",
    teach: "MODEL is a file, or the name of a network below, which begins with random weights.\n\
            DATA is an npz with an array for each input and `labels`, a folder of images by class, idx, csv, ...\n\
            With --cache DIR a run that was broken off goes on, to the same bytes.\n\
            Example: edgesmith train small-cnn -o cnn.onnx --data train.npz --validate test.npz\n\
            Example: edgesmith train model.onnx -o tuned.onnx --data train.npz --rate 1e-4 --freeze 'conv1.*'",
    args: |c| {
        let c = c
            .arg(model_arg())
            .arg(output_arg("Where the trained model goes"));
        common(c)
    },
    run: |matches| {
        let given = recipes::given(&STEP, matches)?;
        run(matches, text(matches, "model"), given)
    },
};

/// The command `distill`.
pub static DISTILL: Command = Command {
    name: "distill",
    about: "Train a student by a teacher's answers, features and relations",
    teach: "The student is a file, or the name of a network below; examples need no labels but for that.\n\
            Losses are named with --loss, several times: NAME WEIGHT, or NAME WEIGHT STUDENT : TEACHER\n\
            where two values are compared by their names in the models; `same` in place of STUDENT : TEACHER is a\n\
            term for each layer that a student of `edgesmith student` has kept.\n\
            Example: edgesmith distill --teacher big.onnx --student small.onnx --data train.npz -o out.onnx\n\
            Example: edgesmith distill --teacher big.onnx --student small-cnn --data train.npz -o out.onnx \\\n\
            \u{20}         --loss 'cross-entropy 0.1' --loss 'kd 0.9' --temperature 4",
    args: |c| {
        let c = c
            .arg(option("student", "MODEL", "The model that learns").required(true))
            .arg(output_arg("Where the trained student goes"));
        common(c).mut_arg("teacher", |a| a.required(true))
    },
    run: |matches| {
        let mut given = recipes::given(&STEP, matches)?;
        given.set_default("loss", Setting::Texts(vec!["kd".into()]), "--loss")?;
        run(matches, text(matches, "student"), given)
    },
};

/// The networks, one in a line.
fn networks() -> String {
    let longest = ARCHITECTURES.iter().map(|a| a.name.len()).max();
    let line = |a: &&Architecture| format!("  {:1$}  {2}", a.name, longest.unwrap_or(0), a.about);
    let lines: Vec<String> = ARCHITECTURES.iter().map(line).collect();
    format!("Networks:\n{}", lines.join("\n"))
}

fn common(c: clap::Command) -> clap::Command {
    let taught = c.get_after_help().map(ToString::to_string);
    let taught = taught.unwrap_or_default();
    let c = c.after_help(format!("{taught}\n\n{}", networks()));
    asked::args_of(c, &STEP)
        .mut_arg("data", |a| a.required(true))
        .arg(recipes::cache_arg())
}

fn run(matches: &ArgMatches, model: &str, given: Given) -> Result<()> {
    asked::check_free(matches)?;
    let mut recipe = recipes::of_command(matches, vec![given]);
    recipe.model = Some(model.to_owned());
    asked::carry_out(matches, recipe, false)
}

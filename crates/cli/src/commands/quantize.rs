//! `edgesmith quantize`: one smaller model.

use anyhow::Result;
use clap::ArgMatches;
use edgesmith_compress::steps::quantize::QUANTIZE as STEP;
use edgesmith_compress::steps::{Given, Setting};
use edgesmith_compress::target::{Floats, Needs, Target};
use edgesmith_ir::Error;

use super::{Command, flag, model_arg, option, output_arg};
use crate::evidence::asked;
use crate::{recipes, targets, ui};

/// The command.
pub static QUANTIZE: Command = Command {
    name: "quantize",
    about: "Write a smaller model: INT8 by calibration, FP16, BF16, FP8, or weights alone in 2 to 8 bits",
    teach: "INT8 needs 100 to 500 samples in CALIB.npz; labels are not used.\n\
            FP8 rounds weights and activations, and needs CALIB.npz; FP8-weights rounds weights alone.\n\
            INT4, INT3, INT2, NF4 and INT8-weights are of weights alone; with CALIB.npz they lose less.\n\
            --target chooses what its hardware wants, and says what and why.\n\
            --max-drop, --min-sqnr, --size and --latency are goals: layers get more bits as these need it.\n\
            Example: edgesmith quantize model.onnx -o int8.onnx --to int8 --calibrate calib.npz\n\
            Example: edgesmith quantize model.onnx -o npu.onnx --target npu-int8 --calibrate calib.npz\n\
            Example: edgesmith quantize model.onnx -o int8.onnx --to int8 --max-drop 0.5 --calibrate calib.npz --evaluate test.npz\n\
            Example: edgesmith quantize model.onnx -o int4.onnx --to int4 --calibrate calib.npz\n\
            Example: edgesmith quantize model.onnx -o fp16.onnx --to fp16 --report fp16.html",
    args: |c| {
        let c = c
            .arg(model_arg())
            .arg(output_arg("Where the model goes"))
            .arg(option(
                "target",
                "T",
                "Choose what this target's hardware wants; other arguments stand above it",
            ))
            .arg(option(
                "calibrate",
                "CALIB.npz",
                "Samples to find ranges with",
            ))
            .arg(option(
                "evaluate",
                "TEST.npz",
                "Samples that goals are judged by, with labels where there are any",
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
            .arg(
                flag("explain", "Print what happened to each node, and why").conflicts_with("json"),
            )
            .arg(recipes::cache_arg())
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<()> {
    asked::check_free(matches)?;
    let mut given = recipes::given(&STEP, matches)?;
    if let Some(name) = matches.get_one::<String>("target") {
        let target = targets::find(name)?;
        choose(&mut given, &target, matches.contains_id("calibrate"))?;
    } else if !given.has("to") {
        let hint = "--to int8, fp16, bf16 or fp8; or --target T, which chooses";
        return Err(Error::usage("--to TYPE is missing").hint(hint).into());
    }
    let steps = vec![recipes::optimized_to("basic")?, given];
    let recipe = recipes::of_command(matches, steps);
    asked::carry_out(matches, recipe, matches.get_flag("explain"))
}

/// Sets what the hardware wants where the user did not say otherwise, and says it.
fn choose(given: &mut Given, target: &Target, calibrated: bool) -> Result<()> {
    let place = format!("--target {}", target.name);
    if !given.has("to") {
        let to = match (calibrated, target.fp16) {
            (true, _) => "int8",
            (false, Floats::Compute) => "fp16",
            (false, _) => {
                let what = "the hardware wants INT8, which needs --calibrate CALIB.npz";
                return Err(Error::usage(what).at(place).into());
            }
        };
        given.set("to", Setting::Text(to.into()), &place)?;
    }
    let precision = match given.text("to") {
        Some("int8") => {
            ui::say(&format!("target {}", target.reason()));
            for (key, setting) in target.int8_settings() {
                given.set_default(key, setting, &place)?;
            }
            "int8"
        }
        Some("fp16") => "fp16",
        Some("bf16") => "bf16",
        Some("fp8" | "fp8-weights") => "fp8",
        Some("int8-weights") => "",
        _ => "int4",
    };
    let needs = Needs {
        precision,
        reduced: given.flag("reduce-range"),
        weight_bytes: 0,
        activation_bytes: 0,
    };
    for note in target.notes(needs) {
        ui::say(&format!("note: {note}"));
    }
    Ok(())
}

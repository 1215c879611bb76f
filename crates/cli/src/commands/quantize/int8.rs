//! What `edgesmith quantize --to int8` can be told.

use std::path::Path;

use clap::ArgMatches;
use edgesmith_compress::calibrate::observers;
use edgesmith_compress::quantize::affine::Byte;
use edgesmith_compress::quantize::changes::Changes;
use edgesmith_compress::quantize::int8;
use edgesmith_data::Dataset;
use edgesmith_ir::{Error, Model, Result};

use super::calibration;
use crate::commands::{flag, option, text};
use crate::ui;

/// Adds the arguments.
pub fn args(c: clap::Command) -> clap::Command {
    let observers: Vec<&str> = observers::OBSERVERS.iter().map(|o| o.name).collect();
    c.arg(
        option("observer", "NAME", "How ranges of activations are chosen")
            .value_parser(observers)
            .default_value(observers::OBSERVERS[0].name),
    )
    .arg(
        option("activations", "TYPE", "Integers of activations")
            .value_parser(["u8", "s8", "u16", "s16"])
            .default_value("u8"),
    )
    .arg(flag(
        "per-tensor",
        "One scale for a whole weight, for devices that have no others",
    ))
    .arg(flag(
        "reduce-range",
        "Weights of 7 bits, for CPUs whose byte products saturate",
    ))
    .arg(flag(
        "power-of-two",
        "Scales that are powers of two, for devices that shift and do not multiply",
    ))
    .arg(flag(
        "no-smooth",
        "Leave the spread between channels of activations as it is",
    ))
    .arg(
        option(
            "format",
            "FORM",
            "Pairs of QuantizeLinear and DequantizeLinear, or integer operators",
        )
        .value_parser(["qdq", "qoperator"])
        .default_value("qdq"),
    )
    .arg(flag(
        "dynamic",
        "Ranges of activations when the model runs: no samples, products alone",
    ))
    .arg(flag(
        "equalize",
        "Share the ranges of weights between neighbours by channel; for --per-tensor",
    ))
    .arg(
        option(
            "bias-samples",
            "N",
            "Correct biases by what N samples give, one product after the other",
        )
        .value_parser(clap::value_parser!(usize))
        .default_value("0"),
    )
    .arg(flag("no-bias-correction", "Leave biases as they are"))
}

/// What the arguments say.
pub fn settings(matches: &ArgMatches, exclude: Vec<String>) -> int8::Settings {
    let default = int8::Settings::default();
    int8::Settings {
        activations: match text(matches, "activations") {
            "s8" => Byte::Signed,
            "u16" => Byte::Unsigned16,
            "s16" => Byte::Signed16,
            _ => Byte::Unsigned,
        },
        format: match text(matches, "format") {
            "qoperator" => int8::Format::QOperator,
            _ => int8::Format::Qdq,
        },
        observer: observers::find(text(matches, "observer")).unwrap_or(default.observer),
        per_channel: !matches.get_flag("per-tensor"),
        reduce_range: matches.get_flag("reduce-range"),
        power_of_two_scales: matches.get_flag("power-of-two"),
        smooth: !matches.get_flag("no-smooth"),
        equalize: matches.get_flag("equalize"),
        bias_samples: matches.get_one("bias-samples").copied().unwrap_or(0),
        bias_correction: !matches.get_flag("no-bias-correction"),
        exclude,
        ..default
    }
}

/// The model in INT8, by the samples that the arguments name.
pub fn quantize(
    matches: &ArgMatches,
    original: &Model,
    basic: &Model,
    exclude: Vec<String>,
) -> Result<(Model, Changes)> {
    let settings = settings(matches, exclude);
    if matches.get_flag("dynamic") {
        return int8::quantize_dynamic(basic, &settings);
    }
    let path = matches.get_one::<String>("calibrate").ok_or_else(|| {
        Error::usage("INT8 needs --calibrate CALIB.npz")
            .hint("an npz with an array for each input, 100 to 500 samples")
    })?;
    let samples = Dataset::open(Path::new(path), original)?;
    let (calibration, bar) = (calibration(matches), ui::Bar::default());
    let mut look = int8::look(&samples, &calibration, &bar);
    int8::post_training(basic, &mut look, &samples, &settings, &bar)
}

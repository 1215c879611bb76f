//! What static INT8 can be told.

use edgesmith_ir::{Error, Result};

use super::mixed;
use crate::calibrate::HALF;
use crate::calibrate::observers::{self, Tuning};
use crate::quantize::affine::Byte;
use crate::quantize::int8::{Format, RoundBy, Settings, WeightRange};
use crate::quantize::rules::RULES;
use crate::steps::{Given, Key, Kind};

/// The types of activations, the default first.
const ACTIVATIONS: &[Byte] = &[
    Byte::Unsigned,
    Byte::Signed,
    Byte::Unsigned16,
    Byte::Signed16,
    Byte::Unsigned4,
    Byte::Signed4,
];

/// Those that integer operators take.
const EIGHT: &[Byte] = &[Byte::Unsigned, Byte::Signed];

/// Rounding of several products together.
const BLOCKS: &str = "blocks";

/// Weights of 4 bits.
const NARROW: &str = "s4";

/// In the place of an observer: all are compared.
pub const BEST: &str = "best";

/// The settings.
pub const KEYS: &[Key] = &[
    Key {
        name: "observer",
        value: "NAME",
        about: "How ranges of activations are chosen; best: as the outputs have least noise [default: mse]",
        kind: Kind::OneOf(|| {
            let all = observers::OBSERVERS.iter().map(|o| o.name);
            all.chain([BEST]).collect()
        }),
    },
    Key {
        name: "percentile",
        value: "P",
        about: "How much of the data the range of the observer percentile holds, in per cent",
        kind: Kind::Number,
    },
    Key {
        name: "entropy-bins",
        value: "N",
        about: "Bins on each side of zero that the observer entropy searches with [default: 2048]",
        kind: Kind::Count,
    },
    Key {
        name: "activations",
        value: "TYPE",
        about: "Integers of activations [default: u8]",
        kind: Kind::OneOf(|| ACTIVATIONS.iter().map(|b| b.name()).collect()),
    },
    Key {
        name: "weights",
        value: "TYPE",
        about: "Integers of weights: bytes or 4 bits [default: s8]",
        kind: Kind::OneOf(|| vec!["s8", NARROW]),
    },
    Key {
        name: "wide-ends",
        value: "",
        about: "The first and the last product have 8 bits where others have 4",
        kind: Kind::Flag,
    },
    Key {
        name: "per-tensor",
        value: "",
        about: "One scale for a whole weight, for devices that have no others",
        kind: Kind::Flag,
    },
    Key {
        name: "reduce-range",
        value: "",
        about: "Weights of 7 bits, for CPUs whose byte products saturate",
        kind: Kind::Flag,
    },
    Key {
        name: "power-of-two",
        value: "",
        about: "Scales that are powers of two, for devices that shift and do not multiply",
        kind: Kind::Flag,
    },
    Key {
        name: "weight-range",
        value: "NAME",
        about: "How ranges of weights are chosen [default: minmax; of 4 bits mse]",
        kind: Kind::OneOf(|| vec!["minmax", "mse"]),
    },
    Key {
        name: "no-smooth",
        value: "",
        about: "Leave the spread between channels of activations as it is",
        kind: Kind::Flag,
    },
    Key {
        name: "equalize",
        value: "",
        about: "Share the ranges of weights between neighbours by channel; for per-tensor",
        kind: Kind::Flag,
    },
    Key {
        name: "dynamic",
        value: "",
        about: "Ranges of activations when the model runs: no samples, products alone",
        kind: Kind::Flag,
    },
    Key {
        name: "bias-samples",
        value: "N",
        about: "Correct biases by what N samples give, one product after the other [default: 0]",
        kind: Kind::Count,
    },
    Key {
        name: "adaptive-rounding",
        value: "N",
        about: "Round weights up or down, as the outputs of products on N samples ask [default: 0]",
        kind: Kind::Count,
    },
    Key {
        name: "rounding",
        value: "BY",
        about: "What adaptive rounding looks at: each product, or blocks of several [default: layers]",
        kind: Kind::OneOf(|| vec!["layers", BLOCKS]),
    },
    Key {
        name: "no-bias-correction",
        value: "",
        about: "Leave biases as they are",
        kind: Kind::Flag,
    },
    Key {
        name: "keep-first",
        value: "",
        about: "The first product stays in float",
        kind: Kind::Flag,
    },
    Key {
        name: "keep-last",
        value: "",
        about: "The last product stays in float",
        kind: Kind::Flag,
    },
    Key {
        name: "integer-outputs",
        value: "",
        about: "Outputs are integers too, and Softmax and MatMul of two computed operands compute on them; for devices without floats",
        kind: Kind::Flag,
    },
    Key {
        name: "also",
        value: "OP",
        about: "An operator that is quantised only when asked for: Softmax, or MatMul of two computed operands",
        kind: Kind::Texts,
    },
];

/// The settings of static INT8 that are given.
///
/// # Errors
/// When two do not go together, or an operator has no quantised form.
pub fn settings(given: &Given) -> Result<Settings> {
    let default = Settings::default();
    let observer = given.text("observer").and_then(observers::find);
    let observer = observer.unwrap_or(default.observer);
    let named = |b: &&Byte| Some(b.name()) == given.text("activations");
    let activations = ACTIVATIONS.iter().find(named).copied().unwrap_or_default();
    let format = match given.text("format") {
        None | Some("qdq") => Format::Qdq,
        Some("qoperator") => Format::QOperator,
        Some(other) => {
            return Err(given.fault("format", format!("int8 is not written as {other}")));
        }
    };
    let narrow_weights = is_narrow(given);
    check_narrow(given, narrow_weights, activations)?;
    if format == Format::QOperator && narrow_weights {
        return Err(given
            .fault("format", "integer operators take weights of bytes")
            .hint("write format qdq"));
    }
    if format == Format::QOperator && !EIGHT.contains(&activations) {
        let what = "integer operators are written with activations u8 or s8 only";
        return Err(given
            .fault("format", what)
            .hint("they take bytes; write format qdq"));
    }
    let percentile = given.number("percentile");
    if percentile.is_some() && observer.name != observers::PERCENTILE.name {
        return Err(given.fault(
            "percentile",
            "only the observer percentile has a percentile",
        ));
    }
    if percentile.is_some_and(|p| !(p > 50.0 && p <= 100.0)) {
        return Err(given.fault("percentile", "a percentile is over 50 and at most 100"));
    }
    let bins = given.count("entropy-bins");
    if bins.is_some() && observer.name != observers::ENTROPY.name {
        return Err(given.fault("entropy-bins", "only the observer entropy has bins"));
    }
    if bins.is_some_and(|n| !n.is_power_of_two() || !(128..=HALF).contains(&n)) {
        let what = format!("bins are a power of two from 128 to {HALF}");
        return Err(given.fault("entropy-bins", what));
    }
    let unsigned = [Byte::Unsigned, Byte::Unsigned16, Byte::Unsigned4];
    if given.flag("symmetric") && unsigned.contains(&activations) {
        let what = "unsigned bytes have no range on both sides of zero";
        return Err(given
            .fault("symmetric", what)
            .hint("symmetric goes with activations s8"));
    }
    let also = given.texts("also");
    for op in &also {
        if RULES.iter().all(|r| r.name != op) {
            let names: Vec<&str> = RULES.iter().map(|r| r.name).collect();
            return Err(Error::unknown("quantised operator", op, names).at(given.place_of("also")));
        }
    }
    Ok(Settings {
        activations,
        symmetric: given.flag("symmetric"),
        observer,
        tuning: Tuning {
            percentile: percentile.unwrap_or(default.tuning.percentile),
            entropy_bins: bins.unwrap_or(default.tuning.entropy_bins),
            ..default.tuning
        },
        weights: match given.text("weight-range") {
            Some("mse") => WeightRange::Mse,
            None if narrow_weights => WeightRange::Mse,
            _ => WeightRange::MinMax,
        },
        per_channel: !given.flag("per-tensor"),
        narrow_weights,
        wide_ends: given.flag("wide-ends"),
        reduce_range: given.flag("reduce-range"),
        power_of_two_scales: given.flag("power-of-two"),
        smooth: !given.flag("no-smooth"),
        equalize: given.flag("equalize"),
        bias_samples: given.count("bias-samples").unwrap_or(default.bias_samples),
        adaptive_samples: given
            .count("adaptive-rounding")
            .unwrap_or(default.adaptive_samples),
        round_by: round_by(given)?,
        format,
        bias_correction: !given.flag("no-bias-correction"),
        keep_first: given.flag("keep-first"),
        keep_last: given.flag("keep-last"),
        integer_outputs: given.flag("integer-outputs"),
        exclude: super::excluded(given)?,
        also,
    })
}

/// What adaptive rounding looks at.
fn round_by(given: &Given) -> Result<RoundBy> {
    if given.text("rounding") != Some(BLOCKS) {
        return Ok(RoundBy::Layers);
    }
    if given.count("adaptive-rounding").unwrap_or(0) == 0 {
        return Err(given
            .fault("rounding", "nothing is rounded by samples")
            .hint("adaptive-rounding N says by how many"));
    }
    match mixed::goal(given)?.is_empty() {
        true => Ok(RoundBy::Blocks),
        false => Err(given.fault("rounding", "a goal is kept with rounding by layers only")),
    }
}

/// True where weights of 4 bits are asked for.
pub fn is_narrow(given: &Given) -> bool {
    given.text("weights") == Some(NARROW)
}

/// Refuses what does not go together with 4 bits, or without them.
fn check_narrow(given: &Given, weights: bool, activations: Byte) -> Result<()> {
    if weights && given.flag("reduce-range") {
        let what = "weights of 4 bits saturate nowhere";
        return Err(given.fault("reduce-range", what));
    }
    if weights && given.flag("dynamic") {
        let what = "dynamic products have weights of bytes";
        return Err(given.fault("weights", what));
    }
    if given.flag("wide-ends") && !weights && !activations.is_narrow() {
        let what = "all products have 8 bits";
        return Err(given
            .fault("wide-ends", what)
            .hint("wide-ends goes with weights s4, or activations u4 or s4"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::quantize::testing::{self, text};
    use crate::steps::{LayerGiven, Setting};

    fn given(entries: &[(&str, Setting)]) -> Given {
        testing::given("int8", entries)
    }

    #[test]
    fn nothing_given_is_the_default() {
        let (a, b) = (settings(&given(&[])).unwrap(), Settings::default());
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }

    #[test]
    fn every_key_reaches_its_setting() {
        let default = format!("{:?}", Settings::default());
        // What `dynamic` asks for is another function, not a setting.
        for key in KEYS.iter().filter(|k| k.name != "dynamic") {
            let value = match key.kind {
                Kind::Flag => Setting::Flag(true),
                Kind::Number => Setting::Number(99.0),
                Kind::OneOf(list) => text(list()[1]),
                Kind::Texts => Setting::Texts(vec!["Softmax".into()]),
                Kind::Count => Setting::Count(512),
                Kind::Text => unreachable!("INT8 has no such key"),
            };
            let mut entries = vec![(key.name, value)];
            if key.name == "percentile" {
                entries.push(("observer", text("percentile")));
            }
            if key.name == "rounding" {
                entries.push(("adaptive-rounding", Setting::Count(8)));
            }
            if key.name == "wide-ends" {
                entries.push(("weights", text(NARROW)));
            }
            if key.name == "entropy-bins" {
                entries.push(("observer", text("entropy")));
            }
            let all = format!("{:?}", settings(&given(&entries)).unwrap());
            let less = format!("{:?}", settings(&given(&entries[1..])).unwrap());
            assert!(all != less && all != default, "{}", key.name);
        }
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        for (entries, what) in [
            (vec![("symmetric", Setting::Flag(true))], "both sides"),
            (vec![("percentile", Setting::Number(99.0))], "only the"),
            (
                vec![
                    ("observer", text("percentile")),
                    ("percentile", Setting::Count(0)),
                ],
                "over 50",
            ),
            (
                vec![
                    ("observer", text("entropy")),
                    ("entropy-bins", Setting::Count(100)),
                ],
                "power of two",
            ),
            (
                vec![("entropy-bins", Setting::Count(512))],
                "only the observer entropy",
            ),
            (
                vec![("format", text("qoperator")), ("activations", text("s16"))],
                "u8 or s8",
            ),
            (vec![("rounding", text(BLOCKS))], "nothing is rounded"),
            (
                vec![("wide-ends", Setting::Flag(true))],
                "all products have 8 bits",
            ),
            (
                vec![("format", text("qoperator")), ("weights", text(NARROW))],
                "weights of bytes",
            ),
            (
                vec![
                    ("weights", text(NARROW)),
                    ("reduce-range", Setting::Flag(true)),
                ],
                "saturate nowhere",
            ),
            (
                vec![("also", Setting::Texts(vec!["Sofmax".into()]))],
                "did you mean \"Softmax\"",
            ),
        ] {
            let e = settings(&given(&entries)).unwrap_err().to_string();
            assert!(e.contains(what), "{e}");
        }
    }

    #[test]
    fn integer_operators_are_a_form_of_bytes() {
        for activations in EIGHT {
            let entries = [
                ("format", text("qoperator")),
                ("activations", text(activations.name())),
            ];
            let s = settings(&given(&entries)).unwrap();
            assert_eq!((s.format, s.activations), (Format::QOperator, *activations));
        }
    }

    #[test]
    fn what_needs_samples_does_not_go_with_dynamic() {
        for key in ["adaptive-rounding", "bias-samples"] {
            let g = given(&[("dynamic", Setting::Flag(true)), (key, Setting::Count(9))]);
            let e = (crate::steps::quantize::QUANTIZE.data)(&g).unwrap_err();
            assert!(e.to_string().contains("needs samples"), "{e}");
        }
    }

    #[test]
    fn nodes_kept_by_a_layer_are_excluded() {
        let mut g = given(&[("exclude", Setting::Texts(vec!["a".into()]))]);
        let mut layer = LayerGiven {
            pattern: "b*".into(),
            to: None,
            group: None,
        };
        g.add_layer(layer.clone());
        assert_eq!(settings(&g).unwrap().exclude, ["a", "b*"]);
        layer.to = Some("int4".into());
        g.add_layer(layer);
        let e = settings(&g).unwrap_err().to_string();
        assert!(e.contains("b*"), "{e}");
    }
}

//! What weight-only quantisation can be told.

use edgesmith_ir::Result;

use crate::quantize::Layer;
use crate::quantize::weight_only::blocks::Scheme;
use crate::quantize::weight_only::{Settings, format, method};
use crate::steps::{GROUPS, Given, Key, Kind, LAYER_TYPES, LayerGiven};

/// The types that are of weights alone.
pub const TYPES: &[&str] = &["int4", "int3", "int2", "int8-weights", "nf4"];

/// The settings.
pub const KEYS: &[Key] = &[
    Key {
        name: "method",
        value: "NAME",
        about: "How weights are rounded [default: gptq with data, else rtn]",
        kind: Kind::OneOf(|| method::METHODS.iter().map(|m| m.name).collect()),
    },
    Key {
        name: "group",
        value: "N",
        about: "Numbers of a row that share a scale [default: 128, with nf4 64]",
        kind: Kind::OneOf(|| GROUPS.to_vec()),
    },
    Key {
        name: "search-range",
        value: "",
        about: "Ranges narrower than the whole where that costs less",
        kind: Kind::Flag,
    },
    Key {
        name: "natural-order",
        value: "",
        about: "GPTQ: columns as they stand, and not those first that matter most",
        kind: Kind::Flag,
    },
    Key {
        name: "damping",
        value: "SHARE",
        about: "GPTQ: what is added to the diagonal of XᵀX, as a share of its mean [default: 0.01]",
        kind: Kind::Number,
    },
    Key {
        name: "true-sequential",
        value: "",
        about: "GPTQ, AWQ: what a weight multiplies comes from the weights rounded before it",
        kind: Kind::Flag,
    },
    Key {
        name: "segment",
        value: "BYTES",
        about: "GPTQ, AWQ: calibrate in segments whose weights and XᵀX take at most so much [default: 1GiB]",
        kind: Kind::Text,
    },
    Key {
        name: "double-quantize",
        value: "",
        about: "NF4: the scales in 8 bits too",
        kind: Kind::Flag,
    },
    Key {
        name: "keep-embeddings",
        value: "",
        about: "Tables that are looked up stay in float",
        kind: Kind::Flag,
    },
];

/// The settings of weight-only quantisation that are given; `has_data` chooses the method where
/// none is named.
///
/// # Errors
/// When two do not go together.
pub fn settings(given: &Given, has_data: bool) -> Result<Settings> {
    let to = given.variant()?;
    let bits = bits_of(to);
    let method = match given.text("method").and_then(method::find) {
        Some(found) if (found.name == "nf4") != (to == "nf4") => {
            return Err(given.fault("method", format!("{} does not make {to}", found.name)));
        }
        Some(found) => found,
        None if to == "nf4" => &method::NF4,
        None if has_data => &method::GPTQ,
        None => &method::RTN,
    };
    let default = Settings::new(method, bits);
    let format = match given.text("format") {
        None => default.format,
        Some(name) => format::find(name).ok_or_else(|| {
            given.fault("format", format!("weights alone are not written as {name}"))
        })?,
    };
    let damping = given.number("damping");
    if damping.is_some_and(|d| !(0.0..=1.0).contains(&d)) {
        return Err(given.fault("damping", "a share is from 0 to 1"));
    }
    let sequential = given.flag("true-sequential");
    if sequential && !method.needs_data {
        return Err(given.fault(
            "true-sequential",
            format!("{} does not look at what weights multiply", method.name),
        ));
    }
    let segment = super::mixed::bytes(given, "segment", "512MiB or 2GiB")?;
    let settings = Settings {
        format,
        scheme: Scheme {
            bits,
            group: given.text("group").map_or(default.scheme.group, group_of),
            symmetric: given.flag("symmetric"),
        },
        search_range: given.flag("search-range"),
        act_order: !given.flag("natural-order"),
        damping: damping.unwrap_or(default.damping),
        sequential,
        segment: segment.map_or(default.segment, |b| b as usize),
        double_quantize: given.flag("double-quantize"),
        embeddings: !given.flag("keep-embeddings"),
        exclude: given.texts("exclude"),
        layers: layers(given)?,
        ..default
    };
    settings.check().map_err(|e| e.at(given.place.as_str()))?;
    Ok(settings)
}

/// The bits of a type.
fn bits_of(to: &str) -> usize {
    match to {
        "int2" => 2,
        "int3" => 3,
        "int8-weights" => 8,
        _ => 4,
    }
}

/// The type of so many bits.
pub fn type_of(bits: usize) -> &'static str {
    let of_bits = |t: &&&str| bits_of(t) == bits;
    LAYER_TYPES.iter().find(of_bits).copied().unwrap_or("int4")
}

/// A whole row is 0.
fn group_of(text: &str) -> usize {
    text.parse().unwrap_or(0)
}

/// What single layers are given.
fn layers(given: &Given) -> Result<Vec<Layer>> {
    let is_table = given.text("to") == Some("nf4");
    let layer = |l: &LayerGiven| {
        if is_table && (l.to.is_some() || l.group.is_some()) {
            return Err(given.fault("to", "with nf4 a layer can be kept only"));
        }
        Ok(Layer {
            pattern: l.pattern.clone(),
            bits: l.to.as_deref().map(bits_of),
            group: l.group.as_deref().map(group_of),
        })
    };
    given.layers().iter().map(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Setting;
    use crate::steps::quantize::testing::{given, text};

    #[test]
    fn data_chooses_the_method_where_none_is_named() {
        let named = |to, has_data| settings(&given(to, &[]), has_data).unwrap().method.name;
        assert_eq!(["gptq", "rtn"], [true, false].map(|d| named("int4", d)));
        assert_eq!(["nf4", "nf4"], [true, false].map(|d| named("nf4", d)));
    }

    #[test]
    fn every_key_reaches_its_setting() {
        for key in KEYS {
            let value = match key.kind {
                Kind::Flag => Setting::Flag(true),
                Kind::Number => Setting::Number(0.5),
                Kind::OneOf(list) => text(list()[0]),
                Kind::Text => text("64MiB"),
                _ => unreachable!("weights have no such key"),
            };
            let with = settings(&given("int4", &[(key.name, value)]), true).unwrap();
            let without = settings(&given("int4", &[]), true).unwrap();
            assert_ne!(format!("{with:?}"), format!("{without:?}"), "{}", key.name);
        }
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        for (to, key, value) in [
            ("int4", "method", text("nf4")),
            ("nf4", "method", text("gptq")),
            ("nf4", "format", text("qdq")),
            ("int4", "format", text("bnb4")),
            ("int4", "damping", Setting::Number(2.0)),
            ("int4", "segment", text("64 apples")),
            ("nf4", "true-sequential", Setting::Flag(true)),
        ] {
            assert!(
                settings(&given(to, &[(key, value)]), true).is_err(),
                "{to} {key}"
            );
        }
    }
}

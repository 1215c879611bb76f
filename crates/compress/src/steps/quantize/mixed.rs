//! The goals for which layers are given more bits.

use edgesmith_ir::{Error, Result};

use crate::mixed::Goal;
use crate::mixed::sense::{SENSES, Sense};
use crate::quantize::changes::Changes;
use crate::steps::{Given, Key, Kind, LayerGiven, Setting};

/// The settings.
pub const KEYS: &[Key] = &[
    Key {
        name: "max-drop",
        value: "POINTS",
        about: "Give layers more bits until at most so many points of accuracy are lost",
        kind: Kind::Number,
    },
    Key {
        name: "min-sqnr",
        value: "DB",
        about: "Give layers more bits until the outputs have this signal to noise",
        kind: Kind::Number,
    },
    Key {
        name: "size",
        value: "BYTES",
        about: "Give layers more bits as long as the file stays below: 2MB, 500kB, 1.5MiB",
        kind: Kind::Text,
    },
    Key {
        name: "latency",
        value: "TIME",
        about: "Give layers more bits as long as a run of one sample stays below, measured here: 3ms",
        kind: Kind::Text,
    },
    Key {
        name: "sensitivity",
        value: "NAME",
        about: "How layers are ordered [default: sqnr; of weights alone trace]",
        kind: Kind::OneOf(|| SENSES.iter().map(|(name, _)| *name).collect()),
    },
];

/// The goal that is given; empty where there is none.
///
/// # Errors
/// When a value is none that can be kept.
pub fn goal(given: &Given) -> Result<Goal> {
    let number = |key: &str, least: f64| match given.number(key) {
        Some(x) if x.is_nan() || x < least => {
            Err(given.fault(key, format!("\"{key}\" is {least} or more")))
        }
        x => Ok(x),
    };
    let goal = Goal {
        max_drop: number("max-drop", 0.0)?,
        min_sqnr_db: number("min-sqnr", 0.0)?,
        size: bytes(given, "size", "2MB, 500kB or 1.5MiB")?,
        latency_ms: measure(given, "latency", TIMES, "3ms, 0.5s or 800us")?,
    };
    if let (true, Some(_)) = (goal.is_empty(), given.text("sensitivity")) {
        return Err(given
            .fault(
                "sensitivity",
                "the order of layers means nothing without a goal",
            )
            .hint("goals are max-drop, min-sqnr, size and latency"));
    }
    Ok(goal)
}

/// Units of bytes, and of milliseconds.
const SIZES: &[(&str, f64)] = &[
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("B", 1.0),
    ("", 1.0),
];
const TIMES: &[(&str, f64)] = &[("ms", 1.0), ("us", 1e-3), ("µs", 1e-3), ("s", 1e3)];

/// The bytes that a key gives, `such` as these.
///
/// # Errors
/// When the text is no size.
pub fn bytes(given: &Given, key: &str, such: &str) -> Result<Option<u64>> {
    Ok(measure(given, key, SIZES, such)?.map(|b| b as u64))
}

fn measure(given: &Given, key: &str, units: &[(&str, f64)], such: &str) -> Result<Option<f64>> {
    let Some(text) = given.text(key) else {
        return Ok(None);
    };
    let read = |(unit, factor): &(&str, f64)| {
        let number: f64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        (number.is_finite() && number > 0.0).then_some(number * factor)
    };
    let found = units.iter().find_map(read);
    let fault = || given.fault(key, format!("\"{text}\" is no {key}; one is {such}"));
    found.map(Some).ok_or_else(fault)
}

/// How layers are ordered.
///
/// # Errors
/// When the way is of other types.
pub fn sense(given: &Given, of_weights: bool) -> Result<Sense> {
    let named = |(name, _): &&(&str, Sense)| Some(*name) == given.text("sensitivity");
    let sense = SENSES.iter().find(named).map(|(_, sense)| *sense);
    match (sense, of_weights) {
        (Some(Sense::Trace), false) => Err(given.fault(
            "sensitivity",
            "trace is of weights alone: activations have rounding of their own",
        )),
        (Some(Sense::Sqnr | Sense::Loss), true) => {
            Err(given.fault("sensitivity", "weights alone are ordered by trace"))
        }
        (sense, false) => Ok(sense.unwrap_or(Sense::Sqnr)),
        (sense, true) => Ok(sense.unwrap_or(Sense::Trace)),
    }
}

/// The settings that give at once what was searched for.
pub fn settled(given: &Given, changes: &Changes) -> Given {
    let mut settled = given.clone();
    if let Some((observer, _)) = changes.observers.first() {
        settled.put("observer", Setting::Text((*observer).to_owned()));
    }
    if changes.rounding.is_some_and(|r| !r.is_adaptive) {
        settled.unset("adaptive-rounding");
    }
    let Some(search) = &changes.search else {
        return settled;
    };
    KEYS.iter().for_each(|k| settled.unset(k.name));
    for layer in &search.layers {
        settled.add_layer(LayerGiven {
            pattern: layer.pattern.clone(),
            to: layer.bits.map(|b| super::weights::type_of(b).to_owned()),
            group: None,
        });
    }
    settled
}

/// Nothing to judge a goal by.
pub fn no_judge() -> Error {
    Error::usage("a goal is judged on samples, and there are none")
        .hint("name some: --evaluate TEST.npz, or --calibrate CALIB.npz")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixed::Search;
    use crate::quantize::Layer;
    use crate::quantize::changes::Rounding;
    use crate::steps::quantize::testing::{given, text};

    #[test]
    fn sizes_and_times_have_units() {
        for (written, bytes) in [
            ("2MB", 2_000_000),
            ("1.5 MiB", 1_572_864),
            ("512", 512),
            ("3kB", 3000),
        ] {
            let g = goal(&given("int8", &[("size", text(written))])).unwrap();
            assert_eq!(g.size, Some(bytes), "{written}");
        }
        for (written, ms) in [("3ms", 3.0), ("0.5s", 500.0), ("800us", 0.8)] {
            let g = goal(&given("int8", &[("latency", text(written))])).unwrap();
            assert!((g.latency_ms.unwrap() - ms).abs() < 1e-9, "{written}");
        }
    }

    #[test]
    fn goals_that_cannot_be_kept_are_refused_with_their_place() {
        for (key, value) in [
            ("size", text("2 apples")),
            ("size", text("-1MB")),
            ("latency", text("3")),
            ("max-drop", Setting::Number(-0.5)),
            ("sensitivity", text("sqnr")),
        ] {
            let e = goal(&given("int8", &[(key, value)]))
                .unwrap_err()
                .to_string();
            assert!(e.starts_with(&format!("{key}: ")), "{e}");
        }
        assert!(sense(&given("int8", &[("sensitivity", text("trace"))]), false).is_err());
        assert!(sense(&given("int4", &[("sensitivity", text("loss"))]), true).is_err());
    }

    #[test]
    fn a_rounding_that_was_taken_back_is_not_asked_for_again() {
        let g = given("int8", &[("adaptive-rounding", Setting::Count(9))]);
        for is_adaptive in [true, false] {
            let rounding = Rounding {
                is_adaptive,
                adaptive_db: 20.0,
                nearest_db: 21.0,
                samples: 64,
            };
            let changes = Changes {
                rounding: Some(rounding),
                ..Changes::default()
            };
            assert_eq!(settled(&g, &changes).has("adaptive-rounding"), is_adaptive);
        }
    }

    #[test]
    fn what_was_found_stands_in_the_place_of_the_goal() {
        let search = Search {
            layers: vec![Layer::float("a"), Layer::bits("b", 8)],
            ..Search::default()
        };
        let changes = Changes {
            search: Some(search),
            observers: vec![("lp", 20.0), ("mse", 19.0)],
            ..Changes::default()
        };
        let settled = settled(&given("int4", &[("size", text("2MB"))]), &changes);
        assert_eq!(settled.text("observer"), Some("lp"));
        assert!(!settled.has("size"));
        let layers: Vec<(&str, Option<&str>)> = settled
            .layers()
            .iter()
            .map(|l| (l.pattern.as_str(), l.to.as_deref()))
            .collect();
        assert_eq!(layers, [("a", None), ("b", Some("int8-weights"))]);
    }
}

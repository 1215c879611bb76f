//! Reads a recipe, with the line of every fault.

use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Recipe;
use crate::steps::{self, Given, Key, Kind, LAYER_KEYS, LayerGiven, STEPS, Setting, check};
use crate::written::Written;

/// The keys of a recipe beside its steps.
static KEYS: &[Key] = &[
    Key {
        name: "model",
        value: "MODEL",
        about: "The model to read",
        kind: Kind::Text,
    },
    Key {
        name: "output",
        value: "FILE",
        about: "Where the result goes",
        kind: Kind::Text,
    },
    Key {
        name: "calibrate",
        value: "CALIB.npz",
        about: "Samples that steps look at",
        kind: Kind::Text,
    },
    Key {
        name: "samples",
        value: "N",
        about: "Use the first N samples only",
        kind: Kind::Count,
    },
    Key {
        name: "seed",
        value: "S",
        about: "Choose the N samples by this seed",
        kind: Kind::Count,
    },
    Key {
        name: "evaluate",
        value: "TEST.npz",
        about: "Samples that goals are judged by",
        kind: Kind::Text,
    },
    Key {
        name: "external",
        value: "WHEN",
        about: "Weights in a file beside the result",
        kind: Kind::OneOf(|| vec!["auto", "always", "never"]),
    },
];

type Value<'a> = Spanned<DeValue<'a>>;

pub fn read(name: &str, text: &str) -> Result<Recipe> {
    let w = Written { name, text };
    let table = DeTable::parse(text).map_err(|e| w.refused(&e))?;
    let mut recipe = Recipe::default();
    for (key, value) in table.get_ref() {
        let place = w.place(key.span().start);
        if key.get_ref() == "step" {
            for (table, at) in tables(&w, "step", value)? {
                recipe.steps.push(step(&w, table, &at)?);
            }
            continue;
        }
        let setting = named(KEYS, &["step"], key.get_ref(), value).at(|| place.as_str())?;
        match (key.get_ref().as_ref(), setting) {
            ("model", Setting::Text(t)) => recipe.model = Some(t),
            ("output", Setting::Text(t)) => recipe.output = Some(t),
            ("calibrate", Setting::Text(t)) => recipe.calibrate = Some(t),
            ("evaluate", Setting::Text(t)) => recipe.evaluate = Some(t),
            ("external", Setting::Text(t)) => recipe.external = Some(t),
            ("samples", Setting::Count(n)) => recipe.samples = Some(n),
            ("seed", Setting::Count(n)) => recipe.seed = Some(n as u64),
            _ => {}
        }
    }
    Ok(recipe)
}

/// The value of one of the keys.
fn named(keys: &[Key], also: &[&str], name: &str, value: &Value) -> Result<Setting> {
    let key = keys.iter().find(|k| k.name == name).ok_or_else(|| {
        let names = keys.iter().map(|k| k.name);
        Error::unknown("key", name, names.chain(also.iter().copied()))
    })?;
    let setting = setting(value);
    check(key, &setting)?;
    Ok(setting)
}

/// The tables of `[[NAME]]`, each with its place.
fn tables<'a>(
    w: &Written,
    name: &str,
    value: &'a Value<'a>,
) -> Result<Vec<(&'a DeTable<'a>, String)>> {
    let fault = |v: &Value| {
        w.fault(
            v.span(),
            format!("\"{name}\" is a list of tables, each under [[{name}]]"),
        )
    };
    let list = value.get_ref().as_array().ok_or_else(|| fault(value))?;
    let table = |v: &'a Value<'a>| {
        let table = v.get_ref().as_table().ok_or_else(|| fault(v))?;
        Ok((table, w.place(v.span().start)))
    };
    list.iter().map(table).collect()
}

fn step(w: &Written, table: &DeTable, place: &str) -> Result<Given> {
    let find = |name: &str| table.iter().find(|(k, _)| k.get_ref() == name);
    let names: Vec<&str> = STEPS.iter().map(|s| s.name).collect();
    let Some((key, value)) = find("do") else {
        let message = "the step does not say what to do";
        let hint = format!("do = \"STEP\", where STEP is {}", names.join(" or "));
        return Err(Error::usage(message).at(place).hint(hint));
    };
    let at = w.place(key.span().start);
    let Some(name) = value.get_ref().as_str() else {
        return Err(w.fault(value.span(), "\"do\" is a text"));
    };
    let def =
        steps::find(name).ok_or_else(|| Error::unknown("step", name, names).at(at.as_str()))?;
    let mut given = Given::new(def, place);
    for (key, value) in table {
        let at = w.place(key.span().start);
        match key.get_ref().as_ref() {
            "do" => {}
            "layer" if def.layers => {
                for (table, at) in tables(w, "step.layer", value)? {
                    layer(w, &mut given, table, &at)?;
                }
            }
            name => given.set(name, setting(value), &at)?,
        }
    }
    (def.data)(&given)?;
    Ok(given)
}

fn layer(w: &Written, given: &mut Given, table: &DeTable, place: &str) -> Result<()> {
    let (mut pattern, mut keep, mut to, mut group) = (None, false, None, None);
    for (key, value) in table {
        let at = w.place(key.span().start);
        let setting = named(LAYER_KEYS, &[], key.get_ref(), value).at(|| at)?;
        match (key.get_ref().as_ref(), setting) {
            ("match", Setting::Text(t)) => pattern = Some(t),
            ("keep", Setting::Flag(k)) => keep = k,
            ("to", Setting::Text(t)) => to = Some(t),
            ("group", Setting::Text(t)) => group = Some(t),
            _ => {}
        }
    }
    let fault = |message: &str| Error::usage(message).at(place);
    let pattern = pattern.ok_or_else(|| fault("the layer names no nodes: match = \"PATTERN\""))?;
    match (keep, &to, &group) {
        (true, None, None) | (false, Some(_), _) => {}
        (true, ..) => return Err(fault("a layer that is kept has no other settings")),
        (false, None, Some(_)) => {
            return Err(fault(
                "a layer with a group says its type too: to = \"TYPE\"",
            ));
        }
        (false, None, None) => {
            return Err(fault(
                "the layer changes nothing: keep = true, or to = \"TYPE\"",
            ));
        }
    }
    given.add_layer(LayerGiven { pattern, to, group });
    Ok(())
}

/// A value as a setting; lists of other things than texts, tables and dates are what no key takes.
fn setting(value: &Value) -> Setting {
    match value.get_ref() {
        DeValue::Boolean(b) => Setting::Flag(*b),
        DeValue::String(s) => Setting::Text(s.to_string()),
        DeValue::Integer(i) => {
            let digits = i.as_str().replace('_', "");
            match usize::from_str_radix(&digits, i.radix()) {
                Ok(n) => Setting::Count(n),
                Err(_) => Setting::Number(digits.parse().unwrap_or(f64::NAN)),
            }
        }
        DeValue::Float(f) => {
            let number = f.as_str().replace('_', "").parse();
            Setting::Number(number.unwrap_or(f64::NAN))
        }
        DeValue::Array(list) => {
            let text = |v: &Value| v.get_ref().as_str().map(str::to_owned);
            match list.iter().map(text).collect() {
                Some(texts) => Setting::Texts(texts),
                None => Setting::Other,
            }
        }
        DeValue::Table(_) | DeValue::Datetime(_) => Setting::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
model = "model.onnx"     # a comment
output = "out.onnx"
calibrate = "calib.npz"
samples = 1_00
external = "never"

[[step]]
do = "optimize"
level = "basic"
skip = ["merge_pads"]

[[step]]
do = "quantize"
to = "int8"
observer = "percentile"
percentile = 99.9
symmetric = false

[[step.layer]]
match = "features.0*"
keep = true
"#;

    fn refused(from: &str, to: &str) -> String {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let e = Recipe::parse("r.toml", &text).unwrap_err();
        assert_eq!(e.kind, edgesmith_ir::error::Kind::Usage);
        e.to_string()
    }

    #[test]
    fn everything_written_is_read() {
        let r = Recipe::parse("r.toml", GOOD).unwrap();
        assert_eq!(r.model.as_deref(), Some("model.onnx"));
        assert_eq!(r.output.as_deref(), Some("out.onnx"));
        assert_eq!(r.calibrate.as_deref(), Some("calib.npz"));
        assert_eq!(r.samples, Some(100));
        assert_eq!(r.external.as_deref(), Some("never"));
        assert_eq!(r.steps[0].texts("skip"), ["merge_pads"]);
        assert_eq!(r.steps[1].number("percentile"), Some(99.9));
        assert_eq!(r.steps[1].layers()[0].pattern, "features.0*");
        assert_eq!(r.steps[1].place, "r.toml:13");
    }

    #[test]
    fn what_is_written_is_read_again_as_the_same() {
        let text = Recipe::parse("r", GOOD).unwrap().to_toml();
        assert_eq!(Recipe::parse("r", &text).unwrap().to_toml(), text);
        let strange = "model = \"a\\\"b\\\\c\\n\\u0007ü\"\n";
        let recipe = Recipe::parse("r", strange).unwrap();
        assert_eq!(recipe.model.as_deref(), Some("a\"b\\c\n\u{7}ü"));
        let again = Recipe::parse("r", &recipe.to_toml()).unwrap();
        assert_eq!(again.model, recipe.model);
    }

    #[test]
    fn an_unknown_key_is_told_with_its_line_and_the_nearest_one() {
        let e = refused("observer =", "obsever =");
        assert_eq!(
            e,
            "r.toml:16: unknown key \"obsever\"\nhint: did you mean \"observer\""
        );
        let e = refused("samples =", "sample =");
        assert!(e.starts_with("r.toml:5: unknown key \"sample\""), "{e}");
        let e = refused("keep = true", "kept = true");
        assert!(e.starts_with("r.toml:22: unknown key \"kept\""), "{e}");
    }

    #[test]
    fn unknown_steps_values_and_passes_are_told_with_their_line() {
        for (from, to, begins) in [
            (
                "\"quantize\"",
                "\"quantise\"",
                "r.toml:14: unknown step \"quantise\"",
            ),
            (
                "\"int8\"",
                "\"int9\"",
                "r.toml:15: unknown value of \"to\" \"int9\"",
            ),
            (
                "merge_pads",
                "merge_pad",
                "r.toml:11: unknown pass \"merge_pad\"",
            ),
            (
                "= false",
                "= 3",
                "r.toml:18: \"symmetric\" is true or false",
            ),
            ("99.9", "\"high\"", "r.toml:17: \"percentile\" is a number"),
            ("1_00", "-3", "r.toml:5: \"samples\" is a whole number"),
            (
                "[\"merge_pads\"]",
                "[1]",
                "r.toml:11: \"skip\" is a list of texts",
            ),
            ("\"percentile\"", "\"mse\"", "r.toml:17: only the observer"),
        ] {
            let e = refused(from, to);
            assert!(e.starts_with(begins), "{e}");
        }
    }

    #[test]
    fn tables_that_are_none_and_layers_that_say_nothing_are_refused() {
        for (from, to, begins) in [
            ("do = \"optimize\"\n", "", "r.toml:8: the step does not say"),
            ("do = \"optimize\"", "do = 3", "r.toml:9: \"do\" is a text"),
            (
                "[[step.layer]]",
                "[step.layer]",
                "r.toml:20: \"step.layer\" is a list",
            ),
            (
                "keep = true",
                "keep = false",
                "r.toml:20: the layer changes nothing",
            ),
            (
                "match = \"features.0*\"\n",
                "",
                "r.toml:20: the layer names no",
            ),
        ] {
            let e = refused(from, to);
            assert!(e.starts_with(begins), "{e}");
        }
        let e = Recipe::parse("r", "step = 3").unwrap_err().to_string();
        assert!(e.starts_with("r:1: \"step\" is a list of tables"), "{e}");
        let layer = "[[step]]\ndo = \"optimize\"\n[[step.layer]]\nmatch = \"a\"\n";
        let e = Recipe::parse("r", layer).unwrap_err().to_string();
        assert!(e.contains("unknown key \"layer\""), "{e}");
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        for text in ["a = 1\nb = = 2", "a = 1\na = 2", "\n\n[[step"] {
            let e = Recipe::parse("r", text).unwrap_err().to_string();
            assert!(e.starts_with("r:"), "{e}");
        }
    }
}

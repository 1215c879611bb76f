//! What FP8 can be told.

use edgesmith_ir::Result;

use crate::quantize::float8::{Float8, Settings};
use crate::steps::{Given, Key, Kind};

/// FP8 of weights and activations, and of weights alone.
pub const TYPES: &[&str] = &["fp8", "fp8-weights"];

/// The formats, the default first.
const FORMATS: &[Float8] = &[Float8::E4m3, Float8::E5m2];

/// The settings.
pub const KEYS: &[Key] = &[Key {
    name: "float8",
    value: "NAME",
    about: "Which 8-bit float: e4m3 is closer, e5m2 reaches further [default: e4m3]",
    kind: Kind::OneOf(|| FORMATS.iter().map(|f| f.name()).collect()),
}];

/// The settings that are given.
///
/// # Errors
/// When the file is asked for in another form than QDQ.
pub fn settings(given: &Given) -> Result<Settings> {
    if let Some(other) = given.text("format").filter(|f| *f != "qdq") {
        return Err(given.fault("format", format!("fp8 is not written as {other}")));
    }
    let named = |f: &&Float8| Some(f.name()) == given.text("float8");
    Ok(Settings {
        float8: FORMATS.iter().find(named).copied().unwrap_or_default(),
        activations: given.text("to") == Some("fp8"),
        exclude: super::excluded(given)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Setting;
    use crate::steps::quantize::QUANTIZE;

    fn given(to: &str, key: &str, value: &str) -> Given {
        let mut g = Given::new(&QUANTIZE, "here");
        g.set("to", Setting::Text(to.into()), "here").unwrap();
        g.set(key, Setting::Text(value.into()), "here").unwrap();
        g
    }

    #[test]
    fn the_format_is_the_one_that_is_named() {
        let found = |to, name| settings(&given(to, "float8", name)).unwrap().float8;
        assert_eq!(found("fp8", "e5m2"), Float8::E5m2);
        assert_eq!(found("fp8-weights", "e4m3"), Float8::E4m3);
        let plain = settings(&given("fp8", "format", "qdq")).unwrap();
        assert_eq!(plain.float8, Float8::E4m3);
    }

    #[test]
    fn there_is_one_form() {
        let e = settings(&given("fp8", "format", "qoperator")).unwrap_err();
        assert!(e.to_string().contains("not written as qoperator"), "{e}");
    }

    #[test]
    fn full_conversion_needs_data_and_weights_alone_do_not() {
        use crate::steps::Data;
        let data = |to| (QUANTIZE.data)(&given(to, "float8", "e4m3")).unwrap();
        assert!(matches!(data("fp8"), Data::Needed));
        assert!(matches!(data("fp8-weights"), Data::Useful));
    }
}

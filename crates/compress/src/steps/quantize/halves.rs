//! What FP16 and BF16 can be told.

use edgesmith_ir::Result;

use crate::quantize::half::Settings;
use crate::steps::{Given, Key, Kind};

/// The settings.
pub const KEYS: &[Key] = &[
    Key {
        name: "convert-io",
        value: "",
        about: "Inputs and outputs of the model are of 16 bits too",
        kind: Kind::Flag,
    },
    Key {
        name: "convert-norms",
        value: "",
        about: "Normalizations are of 16 bits too",
        kind: Kind::Flag,
    },
];

/// The settings that are given.
///
/// # Errors
/// When a layer is given another type.
pub fn settings(given: &Given) -> Result<Settings> {
    Ok(Settings {
        keep_io: !given.flag("convert-io"),
        keep_norms: !given.flag("convert-norms"),
        exclude: super::excluded(given)?,
    })
}

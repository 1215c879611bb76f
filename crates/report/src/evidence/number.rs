//! Serde adapter for `f64` fields that may be NaN or infinite: JSON has no word for them but null.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes a finite number as itself and anything else as null.
pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value.is_finite().then_some(*value).serialize(serializer)
}

/// Reads null as NaN.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The same for a field that may be absent: not measured and not finite are both null.
pub(super) mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes a finite number as itself and anything else as null.
    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.filter(|v| v.is_finite()).serialize(serializer)
    }

    /// Reads null as `None`.
    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f64>, D::Error> {
        Option::<f64>::deserialize(deserializer)
    }
}

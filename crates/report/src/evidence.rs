//! Everything a report says, as plain structs whose field names are the JSON schema.
//!
//! Times are in milliseconds and end in `_ms`, sizes are in bytes, shares are in `0..=1`. Numbers
//! that are not finite are null in JSON and read back as NaN, or as `None` in optional fields.

mod conversion;
mod number;
mod pruning;
mod training;
mod variant;

use serde::{Deserialize, Serialize};

pub use conversion::{NodeAccount, Stored, TensorRow};
pub use pruning::{KeptWhole, Removal, RemovedBlock, RemovedGroup, TicketRun, Tickets};
pub use training::{Candidate, Choice, Epoch, LossTerm, Training};
pub use variant::{Accuracy, Execution, Fidelity, Latency, NodeRow, OpCount, Variant};

/// The version of the JSON schema that this crate writes.
pub const SCHEMA: u32 = 1;

/// What was compared, where, with what, and what came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Version of these structs as JSON; see [`SCHEMA`].
    pub schema: u32,
    /// Version of edgesmith that measured.
    pub tool_version: String,
    /// The model that was given.
    pub model: ModelFacts,
    /// The data it was measured on.
    pub data: DataFacts,
    /// The machine that measured.
    pub machine: Machine,
    /// The device that the variants are meant for.
    pub target: TargetFacts,
    /// The variants, baseline first.
    pub variants: Vec<Variant>,
    /// Every step of training, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub training: Vec<Training>,
    /// Every step that removed channels, heads or blocks, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<Removal>,
    /// Every search for lottery tickets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tickets: Vec<Tickets>,
    /// What steps chose by what they measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// What the reader must know before trusting the figures.
    pub warnings: Vec<String>,
    /// Settings of the run as name and value, in the order to show them.
    pub settings: Vec<(String, String)>,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            tool_version: String::new(),
            model: ModelFacts::default(),
            data: DataFacts::default(),
            machine: Machine::default(),
            target: TargetFacts::default(),
            variants: Vec::new(),
            training: Vec::new(),
            removals: Vec::new(),
            tickets: Vec::new(),
            choices: Vec::new(),
            warnings: Vec::new(),
            settings: Vec::new(),
        }
    }
}

impl Evidence {
    /// The evidence as indented JSON that ends in a line break.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self)
            .expect("evidence has only string keys and writes no error of its own");
        text.push('\n');
        text
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// The place and reason where the text is no JSON or lacks a field.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// The model that was given, before anything changed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Name for headings.
    pub name: String,
    /// File it was read from.
    pub file: String,
    /// Size of the file and its external data in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hexadecimal; empty where it was not taken.
    pub sha256: String,
    /// Version of the default ONNX operator set.
    pub opset: u64,
    /// ONNX IR version.
    pub ir_version: u64,
    /// Program that wrote the file, as the file says.
    pub producer: String,
    /// Graph inputs, in order.
    pub inputs: Vec<Port>,
    /// Graph outputs, in order.
    pub outputs: Vec<Port>,
    /// Number of trained parameters.
    pub parameters: u64,
    /// Multiply-accumulate operations for one run.
    pub macs: u64,
    /// Names of the dimensions that the file leaves open.
    pub dynamic_dims: Vec<String>,
}

/// A graph input or output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Name in the graph.
    pub name: String,
    /// Element type, such as `f32`.
    pub dtype: String,
    /// Shape for reading, such as `[batch, 1, 28, 28]`.
    pub shape: String,
}

/// The samples that calibrated and judged the variants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataFacts {
    /// File with the test samples; empty where there was none.
    pub test_file: String,
    /// Number of test samples.
    pub test_samples: u64,
    /// Whether the test samples have labels.
    pub labelled: bool,
    /// File with the calibration samples; empty where there was none.
    pub calibration_file: String,
    /// Number of calibration samples.
    pub calibration_samples: u64,
    /// What is doubtful about the data.
    pub warnings: Vec<String>,
}

/// The machine that measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor name.
    pub cpu: String,
    /// Instruction sets that the kernels used.
    pub isa: String,
    /// Logical cores that the process may use.
    pub cores: u32,
    /// Threads that the measurements used.
    pub threads: u32,
    /// Operating system and architecture.
    pub os: String,
    /// Main memory in bytes; 0 where it is not known.
    pub memory_bytes: u64,
}

/// The device that the variants are meant for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetFacts {
    /// Name of the profile; empty where none was chosen.
    pub name: String,
    /// One sentence on the device.
    pub about: String,
    /// What its hardware means for any variant.
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strange() -> Evidence {
        let latency = Latency {
            min_ms: f64::NAN,
            p50_ms: 1.5,
            ..Latency::default()
        };
        let fidelity = Fidelity {
            sqnr_db: f64::INFINITY,
            cosine: 1.0,
            ..Fidelity::default()
        };
        let node = NodeRow {
            sqnr_db: Some(f64::NEG_INFINITY),
            ..NodeRow::default()
        };
        let variant = Variant {
            name: "int8".into(),
            ratio: f64::NAN,
            latency: Some(latency),
            fidelity: Some(fidelity),
            nodes: vec![node],
            ..Variant::default()
        };
        Evidence {
            variants: vec![variant],
            ..Evidence::default()
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_null_and_read_back() {
        let text = strange().to_json();
        assert!(
            text.contains("\"ratio\": null") && text.contains("\"min_ms\": null"),
            "{text}"
        );
        let back = Evidence::from_json(&text).unwrap();
        let variant = &back.variants[0];
        assert!(variant.ratio.is_nan());
        assert!(variant.fidelity.as_ref().unwrap().sqnr_db.is_nan());
        assert_eq!(variant.latency.as_ref().unwrap().p50_ms, 1.5);
        assert_eq!(variant.nodes[0].sqnr_db, None);
        assert_eq!(back.to_json(), text);
    }

    #[test]
    fn accuracy_of_no_samples_reads_back() {
        let mut evidence = strange();
        evidence.variants[0].accuracy = Some(Accuracy::of(0, 0));
        let back = Evidence::from_json(&evidence.to_json()).unwrap();
        let accuracy = back.variants[0].accuracy.clone().unwrap();
        assert!(accuracy.value.is_nan());
        assert_eq!((accuracy.low, accuracy.high), (0.0, 1.0));
    }

    #[test]
    fn optional_fields_may_be_absent() {
        let mut json: serde_json::Value = serde_json::from_str(&strange().to_json()).unwrap();
        let variant = json["variants"][0].as_object_mut().unwrap();
        for field in [
            "gzip_bytes",
            "latency",
            "accuracy",
            "accuracy_change_points",
            "fidelity",
        ] {
            variant.shift_remove(field).unwrap();
        }
        let back = Evidence::from_json(&json.to_string()).unwrap();
        assert_eq!(back.variants[0].latency, None);
        assert_eq!(back.variants[0].accuracy_change_points, None);
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = Evidence::from_json("{\"schema\": 1}").unwrap_err();
        assert!(error.to_string().contains("tool_version"), "{error}");
    }
}

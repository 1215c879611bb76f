//! What was measured of one variant of the model: its file, its cost, its answers, its nodes.

use serde::{Deserialize, Serialize};

use super::conversion::{NodeAccount, TensorRow};
use super::number;
use crate::interval::wilson_95;

/// One variant of the model. The first variant of [`Evidence`](super::Evidence) is the baseline
/// that ratios, speed-ups and changes refer to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Short name, such as `fp32`, `fp16` or `int8`.
    pub name: String,
    /// One sentence on how the variant was made.
    pub about: String,
    /// Name of the file that holds it.
    pub file: String,
    /// Size of that file (and its external data) in bytes.
    pub bytes: u64,
    /// File size as a share of the baseline's file; 1 for the baseline.
    #[serde(with = "number")]
    pub ratio: f64,
    /// Size of the file after gzip in bytes, where it was taken.
    #[serde(default)]
    pub gzip_bytes: Option<u64>,
    /// Number of trained parameters.
    pub parameters: u64,
    /// Size of all constants in bytes.
    pub weight_bytes: u64,
    /// Multiply-accumulate operations for one run.
    pub macs: u64,
    /// Largest sum of live activations in bytes as the memory plan lays them out, for one run.
    #[serde(default)]
    pub peak_activation_bytes: Option<u64>,
    /// The least any plan could need for this node order, in bytes.
    #[serde(default)]
    pub activation_lower_bound_bytes: Option<u64>,
    /// Time for one run, where it was measured.
    #[serde(default)]
    pub latency: Option<Latency>,
    /// Right answers, where the data has labels.
    #[serde(default)]
    pub accuracy: Option<Accuracy>,
    /// Accuracy less the baseline's, in percentage points; negative is worse.
    #[serde(default, with = "number::optional")]
    pub accuracy_change_points: Option<f64>,
    /// Distance of the outputs from the baseline's, where it was measured.
    #[serde(default)]
    pub fidelity: Option<Fidelity>,
    /// In which arithmetic the nodes ran.
    pub execution: Execution,
    /// Every node in the order it runs, so by depth.
    pub nodes: Vec<NodeRow>,
    /// What became of each node of the baseline, in its order, where a conversion told it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub account: Vec<NodeAccount>,
    /// Constants of the baseline and of this variant, the largest first, where they were compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorRow>,
    /// What a reader of the figures should know.
    pub notes: Vec<String>,
    /// What the target's hardware means for this variant.
    pub target_notes: Vec<String>,
}

/// Time for one run on the machine of the report, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Threads that the session used.
    pub threads: u32,
    /// Timed runs, after warming up.
    pub iterations: u64,
    /// Shortest run, wall clock, in milliseconds.
    #[serde(with = "number")]
    pub min_ms: f64,
    /// Median, wall clock, in milliseconds.
    #[serde(with = "number")]
    pub p50_ms: f64,
    /// 90th percentile, wall clock, in milliseconds; 0 in evidence of earlier versions.
    #[serde(default, with = "number")]
    pub p90_ms: f64,
    /// 95th percentile, wall clock, in milliseconds.
    #[serde(with = "number")]
    pub p95_ms: f64,
    /// 99th percentile, wall clock, in milliseconds; 0 in evidence of earlier versions.
    #[serde(default, with = "number")]
    pub p99_ms: f64,
    /// Arithmetic mean, wall clock, in milliseconds.
    #[serde(with = "number")]
    pub mean_ms: f64,
    /// Median CPU time over all threads, in milliseconds.
    #[serde(default, with = "number::optional")]
    pub cpu_p50_ms: Option<f64>,
    /// The baseline's median divided by this median; above 1 is faster.
    #[serde(default, with = "number::optional")]
    pub speedup: Option<f64>,
}

/// Right answers on labelled data, with the 95 % Wilson interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Samples answered right.
    pub correct: u64,
    /// Samples asked.
    pub total: u64,
    /// `correct / total`, in `0..=1`.
    #[serde(with = "number")]
    pub value: f64,
    /// Lower end of the 95 % interval, in `0..=1`.
    #[serde(with = "number")]
    pub low: f64,
    /// Upper end of the 95 % interval, in `0..=1`.
    #[serde(with = "number")]
    pub high: f64,
}

impl Accuracy {
    /// The accuracy of `correct` right answers out of `total`, with its interval by [`wilson_95`].
    /// With no samples the value is NaN.
    #[must_use]
    pub fn of(correct: u64, total: u64) -> Self {
        let (low, high) = wilson_95(correct, total);
        Self {
            correct,
            total,
            value: correct as f64 / total as f64,
            low,
            high,
        }
    }
}

/// How near the outputs are to the baseline's on the same samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Signal to quantisation noise, `10 log10(sum y² / sum (y - ŷ)²)` over all outputs, in dB.
    /// Null in JSON where the outputs are equal; then `max_abs_error` is 0.
    #[serde(with = "number")]
    pub sqnr_db: f64,
    /// Share of samples with the same highest output, in `0..=1`, for classifiers.
    #[serde(default, with = "number::optional")]
    pub agreement: Option<f64>,
    /// Largest absolute difference of one output element, in the output's unit.
    #[serde(with = "number")]
    pub max_abs_error: f64,
    /// Cosine of the angle between the outputs, in `-1..=1`.
    #[serde(with = "number")]
    pub cosine: f64,
}

/// In which arithmetic the nodes of a variant ran, after optimisation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// All nodes of the optimised graph: integer, float and other.
    pub nodes_total: u64,
    /// Nodes that computed in integer kernels.
    pub nodes_integer: u64,
    /// Nodes that computed in floating point.
    pub nodes_float: u64,
    /// Nodes that only move, reshape or convert.
    pub nodes_other: u64,
    /// Names of the nodes that no fast kernel took and the reference evaluation ran.
    pub fallback: Vec<String>,
    /// The same counts by operator, in the order of the operator's first use.
    pub by_op: Vec<OpCount>,
}

/// How many nodes of one operator ran in which arithmetic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpCount {
    /// Operator name.
    pub op: String,
    /// Nodes in integer arithmetic.
    pub integer: u64,
    /// Nodes in floating point.
    pub float: u64,
}

/// One node of a variant's optimised graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Node name; the same name in two variants is read as the same place in the model.
    pub name: String,
    /// Operator name.
    pub op: String,
    /// Provider that ran it.
    pub provider: String,
    /// Kernel that ran it, empty where none is named.
    pub kernel: String,
    /// Whether it computed in integer arithmetic.
    pub integer: bool,
    /// Mean time for one run in milliseconds, where it was profiled.
    #[serde(default, with = "number::optional")]
    pub ms: Option<f64>,
    /// Share of the run's time, in `0..=1`.
    #[serde(default, with = "number::optional")]
    pub share: Option<f64>,
    /// Multiply-accumulate operations for one run.
    pub macs: u64,
    /// Size of the node's constants in bytes.
    pub weight_bytes: u64,
    /// Size of the node's outputs in bytes.
    pub output_bytes: u64,
    /// Signal to quantisation noise of the output against the baseline's, in dB, where compared.
    #[serde(default, with = "number::optional")]
    pub sqnr_db: Option<f64>,
    /// Signal to quantisation noise of the node's weight against the float one, in dB, where compared.
    #[serde(
        default,
        with = "number::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub weight_sqnr_db: Option<f64>,
    /// Why it ran where it ran, where the runtime says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

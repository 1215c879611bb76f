//! What a conversion did to each node and each tensor of a model.

use serde::{Deserialize, Serialize};

/// What became of a node of the model before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeAccount {
    /// Name of the node in the model before.
    pub name: String,
    /// Its operator there.
    pub op: String,
    /// `converted`, `absorbed` or `left`.
    pub fate: String,
    /// Into which node it was absorbed, or why it was left; empty where it was converted.
    #[serde(default)]
    pub detail: String,
    /// Name of the node that did its work before, in the `nodes` of the baseline, where there is one.
    #[serde(default)]
    pub ran_before: Option<String>,
    /// Name of the node that does its work now, in the `nodes` of the variant, where there is one.
    #[serde(default)]
    pub ran_as: Option<String>,
}

/// A tensor of constants before and after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TensorRow {
    /// Name before; that after where there was none before.
    pub name: String,
    /// First node that reads it; empty where none does.
    pub node: String,
    /// As it was; absent for a tensor that was added.
    #[serde(default)]
    pub before: Option<Stored>,
    /// As it is; absent for a tensor that is gone.
    #[serde(default)]
    pub after: Option<Stored>,
}

/// How a tensor is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Element type, such as `f32`.
    pub dtype: String,
    /// Shape for reading, such as `[64, 1, 3, 3]`.
    pub shape: String,
    /// Size of its numbers in bytes.
    pub bytes: u64,
}

impl TensorRow {
    /// Bytes before and after.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let bytes = |s: &Option<Stored>| s.as_ref().map_or(0, |s| s.bytes);
        (bytes(&self.before), bytes(&self.after))
    }
}

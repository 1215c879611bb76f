//! Operators of the domain `ai.onnx.ml`: trees, linear models, support vector machines, and the
//! preparation of their features.

use super::OpDef;

pub mod encoders;
pub mod features;
pub mod labels;
pub mod linear;
pub mod maps;
pub mod samples;
pub mod scaling;
pub mod svm;
pub mod transform;
pub mod tree_ensemble;
pub mod tree_votes;
pub mod trees;

/// What every row of the domain starts from.
pub const BASE: OpDef = OpDef {
    domain: "ai.onnx.ml",
    ..OpDef::BASE
};

//! Operators of the domain `com.microsoft`, which ONNX Runtime's quantiser and optimiser write.

use super::OpDef;

pub mod gelu;
pub mod quantize;

/// What every row of the domain starts from.
pub const BASE: OpDef = OpDef {
    domain: "com.microsoft",
    ..OpDef::BASE
};

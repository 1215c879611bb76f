//! Operators of the domain `com.microsoft`, which ONNX Runtime's quantiser and optimiser write.

use super::OpDef;

pub mod attention;
pub mod embed_norm;
pub mod fused_conv;
pub mod fused_matmul;
pub mod gelu;
pub mod quantize;
pub mod skip_norm;

/// What every row of the domain starts from.
pub const BASE: OpDef = OpDef {
    domain: "com.microsoft",
    ..OpDef::BASE
};

//! Operators of the domain `com.microsoft`, which ONNX Runtime's quantiser and optimiser write.

use super::OpDef;

pub mod attention;
pub mod block_weights;
pub mod channels_last;
pub mod dynamic_quantize_lstm;
pub mod earlier;
pub mod embed_norm;
pub mod fused_conv;
pub mod fused_gemm;
pub mod fused_matmul;
pub mod gelu;
pub mod grid;
pub mod group_query_attention;
pub mod matrices;
pub mod products;
pub mod q_attention;
pub mod q_embed_layer_normalization;
pub mod qlinear;
pub mod qlinear_pool;
pub mod quantize;
pub mod rotary_embedding;
pub mod skip_norm;

/// What every row of the domain starts from.
pub const BASE: OpDef = OpDef {
    domain: "com.microsoft",
    ..OpDef::BASE
};

//! QuantizeLinear and DequantizeLinear of `com.microsoft`: those of ONNX, with types of 16 and 4
//! bits before ONNX had them.

use super::super::quantize;
use super::{BASE, OpDef};

/// `com.microsoft.QuantizeLinear`.
pub static QUANTIZE_LINEAR: OpDef = OpDef {
    domain: BASE.domain,
    since: BASE.since,
    examples: &[
        "com.microsoft.QuantizeLinear(f32[2,3], f32{0.1}, u16{128})",
        "com.microsoft.QuantizeLinear(f32[2,3], f32[3]{0.1,0.2,0.3}, i16[3]{0,1,-1}) {axis=1}",
        "com.microsoft.QuantizeLinear(f32[2,3], f32{0.5}, i4{hex\"01\"})",
        "com.microsoft.QuantizeLinear(f32[2,3], f32{0.1})",
    ],
    ..quantize::QUANTIZE_LINEAR
};

/// `com.microsoft.DequantizeLinear`.
pub static DEQUANTIZE_LINEAR: OpDef = OpDef {
    domain: BASE.domain,
    since: BASE.since,
    examples: &[
        "com.microsoft.DequantizeLinear(u16[2,3], f32{0.1}, u16{128})",
        "com.microsoft.DequantizeLinear(i16[2,3], f32[3]{0.1,0.2,0.3}) {axis=-1}",
        "com.microsoft.DequantizeLinear(u4[2,3], f32{0.1}, u4{hex\"08\"})",
    ],
    ..quantize::DEQUANTIZE_LINEAR
};

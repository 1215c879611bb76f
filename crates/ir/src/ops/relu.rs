//! Relu: the larger of each element and zero.

use super::OpDef;
use crate::eval::EvalCx;
use crate::{Result, Tensor};

/// ONNX Relu; a NaN stays NaN.
pub static RELU: OpDef = OpDef {
    name: "Relu",
    since: &[1, 6, 13, 14],
    eval: Some(eval),
    examples: &["Relu(f32[2,3])"],
    ..OpDef::BASE
};

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let y = x
        .data::<f32>()?
        .iter()
        .map(|&v| if v < 0.0 { 0.0 } else { v })
        .collect();
    Ok(vec![Tensor::from_vec(x.dims(), y)?])
}

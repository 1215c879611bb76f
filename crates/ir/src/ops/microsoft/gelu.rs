//! Gelu by error function, tanh and sigmoid, with a bias that is added before.

use super::BASE;
use crate::eval::EvalCx;
use crate::infer::{InferCx, like_first};
use crate::ops::activation::{gelu, gelu_tanh};
use crate::ops::elementwise::{combine, map_floats};
use crate::ops::unary::sigmoid;
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::types::Dim;
use crate::{Error, Result, Tensor};

/// The exact Gelu, as ONNX has it from opset 20.
pub static GELU: OpDef = OpDef {
    name: "Gelu",
    eval: Some(|cx| map_floats(cx.input(0)?, gelu)),
    examples: &["com.microsoft.Gelu(f32[2,3])"],
    ..BASE
};

/// The exact Gelu of the sum of A and a bias along its last axis.
pub static BIAS_GELU: OpDef = OpDef {
    name: "BiasGelu",
    inputs: Arity(2, 2),
    infer,
    eval: Some(|cx| map_floats(&biased(cx)?, gelu)),
    examples: &["com.microsoft.BiasGelu(f32[2,3], f32[3])"],
    ..BASE
};

/// The tanh form of Gelu, of the sum with an optional bias along the last axis.
pub static FAST_GELU: OpDef = OpDef {
    name: "FastGelu",
    inputs: Arity(1, 2),
    infer,
    eval: Some(|cx| map_floats(&biased(cx)?, gelu_tanh)),
    examples: &[
        "com.microsoft.FastGelu(f32[2,3])",
        "com.microsoft.FastGelu(f32[2,3], f32[3])",
    ],
    ..BASE
};

/// x · sigmoid(alpha · x): SiLU where alpha is 1.
pub static QUICK_GELU: OpDef = OpDef {
    name: "QuickGelu",
    attrs: &[attr("alpha", AttrKind::Float(Some(1.702)))],
    eval: Some(|cx| {
        let alpha = f64::from(cx.float("alpha", 1.702));
        map_floats(cx.input(0)?, |x| x * sigmoid(alpha * x))
    }),
    examples: &[
        "com.microsoft.QuickGelu(f32[2,3])",
        "com.microsoft.QuickGelu(f32[2,3]) {alpha=1.0}",
    ],
    ..BASE
};

/// Like the first input; a bias has one axis, as long as the last of that.
fn infer(cx: &mut InferCx) -> Result<()> {
    if let (Some(x), Some(bias)) = (cx.shape(0), cx.shape(1)) {
        let lengths = x
            .last()
            .and_then(Dim::known)
            .zip(bias.last().and_then(Dim::known));
        if bias.rank() != 1 || x.rank() == 0 || lengths.is_some_and(|(x, b)| x != b) {
            return Err(Error::invalid(format!(
                "expected a bias for the last axis of {x}, found {bias}"
            )));
        }
    }
    like_first(cx)
}

/// Input 0 plus input 1, where that is given.
fn biased(cx: &EvalCx) -> Result<Tensor> {
    let x = cx.input(0)?;
    let Some(bias) = cx.optional(1) else {
        return Ok(x.clone());
    };
    if bias.rank() != 1 || x.dims().last() != bias.dims().last() {
        let (x, b) = (x.ty(), bias.ty());
        return Err(Error::invalid(format!(
            "expected a bias for the last axis of {x}, found {b}"
        )));
    }
    combine(x, bias, |x, b| x + b, |x, b| Ok(x + b))
}

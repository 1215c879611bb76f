//! FusedGemm: Gemm and an activation; TransposeMatMul, an earlier name of FusedMatMul.

use super::BASE;
use super::fused_matmul::FUSED_MATMUL;
use crate::eval::EvalCx;
use crate::ops::elementwise::map_floats;
use crate::ops::matmul::GEMM;
use crate::ops::unary::sigmoid;
use crate::ops::{AttrKind, OpDef, attr};
use crate::{Error, Node, Result, Tensor};

/// `activation(Gemm(A, B, C))`.
pub static FUSED_GEMM: OpDef = OpDef {
    name: "FusedGemm",
    domain: BASE.domain,
    since: BASE.since,
    attrs: &[
        attr("activation", AttrKind::String(None)),
        attr("activation_alpha", AttrKind::Float(None)),
        attr("activation_beta", AttrKind::Float(None)),
        attr("activation_gamma", AttrKind::Float(None)),
        attr("alpha", AttrKind::Float(Some(1.0))),
        attr("beta", AttrKind::Float(Some(1.0))),
        attr("transA", AttrKind::Int(Some(0))),
        attr("transB", AttrKind::Int(Some(0))),
    ],
    eval: Some(eval),
    examples: &[
        "com.microsoft.FusedGemm(f32[2,3], f32[3,4], f32[4]) {activation=\"Relu\"}",
        "com.microsoft.FusedGemm(f32[2,3], f32[4,3]) \
         {transB=1, activation=\"LeakyRelu\", activation_alpha=0.1}",
    ],
    ..GEMM
};

/// `alpha · A · B`, either of them with its last axes swapped.
pub static TRANSPOSE_MAT_MUL: OpDef = OpDef {
    name: "TransposeMatMul",
    attrs: &[
        attr("alpha", AttrKind::Float(Some(1.0))),
        attr("transA", AttrKind::Int(Some(0))),
        attr("transB", AttrKind::Int(Some(0))),
    ],
    examples: &["com.microsoft.TransposeMatMul(f32[2,4,3], f32[2,5,3]) {transB=1, alpha=0.5}"],
    ..FUSED_MATMUL
};

/// The activation of a node with its parameters in attributes of their own.
fn activation(node: &Node) -> Result<Box<dyn Fn(f64) -> f64>> {
    let parameter = |name: &str, default: f32| {
        f64::from(node.float(&format!("activation_{name}")).unwrap_or(default))
    };
    Ok(match node.string("activation").unwrap_or("") {
        "" => Box::new(|x| x),
        "Relu" => Box::new(|x| if x < 0.0 { 0.0 } else { x }),
        "Sigmoid" => Box::new(sigmoid),
        "Tanh" => Box::new(f64::tanh),
        "LeakyRelu" => {
            let alpha = parameter("alpha", 0.01);
            Box::new(move |x| if x < 0.0 { alpha * x } else { x })
        }
        "Elu" => {
            let alpha = parameter("alpha", 1.0);
            Box::new(move |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
        }
        "HardSigmoid" => {
            let (alpha, beta) = (parameter("alpha", 0.2), parameter("beta", 0.5));
            Box::new(move |x| (alpha * x + beta).clamp(0.0, 1.0))
        }
        "Softsign" => Box::new(|x| x / (1.0 + x.abs())),
        "Softplus" => Box::new(crate::ops::unary::softplus),
        "ThresholdedRelu" => {
            let alpha = parameter("alpha", 1.0);
            Box::new(move |x| if x > alpha { x } else { 0.0 })
        }
        other => {
            return Err(Error::unsupported(format!(
                "activation \"{other}\" is not known"
            )));
        }
    })
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let f = activation(cx.node)?;
    let gemm = GEMM
        .eval
        .ok_or_else(|| Error::internal("Gemm is evaluated"))?;
    map_floats(&gemm(cx)?.swap_remove(0), f)
}

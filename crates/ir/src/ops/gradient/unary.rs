//! Gradients of functions of one element: `<Op>Grad(X, dY) -> dX`, or of its output, `(Y, dY)`.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::activation::{SELU_ALPHA, SELU_GAMMA};
use crate::ops::arith::{any, expect_dims, floats, from_floats};
use crate::ops::unary::{erf, sigmoid, softplus};
use crate::ops::{Arity, AttrDef, AttrKind, EvalFn, OpDef, attr};
use crate::{Error, Result, Tensor};

const fn row(
    name: &'static str,
    attrs: &'static [AttrDef],
    examples: &'static [&'static str],
    eval: EvalFn,
) -> OpDef {
    OpDef {
        name,
        inputs: Arity(2, 2),
        attrs,
        eval: Some(eval),
        examples,
        ..BASE
    }
}

const fn float(name: &'static str, default: f32) -> AttrDef {
    attr(name, AttrKind::Float(Some(default)))
}

/// dY times the derivative at each element of input 0.
fn times(cx: &EvalCx, derivative: impl Fn(f64) -> f64) -> Result<Vec<Tensor>> {
    let (x, dy) = (cx.input(0)?, cx.input(cx.inputs().saturating_sub(1))?);
    expect_dims("the gradient", dy, x.dims())?;
    let dx = any(x)?.into_iter().zip(floats(dy)?);
    let dx = dx.map(|(x, dy)| derivative(x) * dy).collect();
    Ok(vec![from_floats(dy.dtype(), x.dims(), dx)?])
}

fn parameter(cx: &EvalCx, name: &str, default: f32) -> f64 {
    f64::from(cx.float(name, default))
}

/// The gradient of Abs.
pub static ABS_GRAD: OpDef = row(
    "AbsGrad",
    &[],
    &["edgesmith.AbsGrad(f32[2,3], f32[2,3])"],
    |cx| {
        times(cx, |x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                0.0
            }
        })
    },
);

/// The gradient of Acos.
pub static ACOS_GRAD: OpDef = row(
    "AcosGrad",
    &[],
    &["edgesmith.AcosGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| -1.0 / (1.0 - x * x).sqrt()),
);

/// The gradient of Acosh.
pub static ACOSH_GRAD: OpDef = row(
    "AcoshGrad",
    &[],
    &["edgesmith.AcoshGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| 1.0 / (x * x - 1.0).sqrt()),
);

/// The gradient of Asin.
pub static ASIN_GRAD: OpDef = row(
    "AsinGrad",
    &[],
    &["edgesmith.AsinGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| 1.0 / (1.0 - x * x).sqrt()),
);

/// The gradient of Asinh.
pub static ASINH_GRAD: OpDef = row(
    "AsinhGrad",
    &[],
    &["edgesmith.AsinhGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| 1.0 / (1.0 + x * x).sqrt()),
);

/// The gradient of Atan.
pub static ATAN_GRAD: OpDef = row(
    "AtanGrad",
    &[],
    &["edgesmith.AtanGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| 1.0 / (1.0 + x * x)),
);

/// The gradient of Atanh.
pub static ATANH_GRAD: OpDef = row(
    "AtanhGrad",
    &[],
    &["edgesmith.AtanhGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| 1.0 / (1.0 - x * x)),
);

/// The gradient of Celu.
pub static CELU_GRAD: OpDef = row(
    "CeluGrad",
    &[float("alpha", 1.0)],
    &["edgesmith.CeluGrad(f32[2,3], f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 1.0);
        times(cx, |x| if x > 0.0 { 1.0 } else { (x / alpha).exp() })
    },
);

/// The gradient of Cos.
pub static COS_GRAD: OpDef = row(
    "CosGrad",
    &[],
    &["edgesmith.CosGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| -x.sin()),
);

/// The gradient of Cosh.
pub static COSH_GRAD: OpDef = row(
    "CoshGrad",
    &[],
    &["edgesmith.CoshGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| x.sinh()),
);

/// The gradient of Elu.
pub static ELU_GRAD: OpDef = row(
    "EluGrad",
    &[float("alpha", 1.0)],
    &["edgesmith.EluGrad(f32[2,3], f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 1.0);
        times(cx, |x| if x < 0.0 { alpha * x.exp() } else { 1.0 })
    },
);

/// The gradient of Erf.
pub static ERF_GRAD: OpDef = row(
    "ErfGrad",
    &[],
    &["edgesmith.ErfGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp()),
);

/// The gradient of Exp, by its output.
pub static EXP_GRAD: OpDef = row(
    "ExpGrad",
    &[],
    &["edgesmith.ExpGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |y| y),
);

/// The gradient of HardSigmoid.
pub static HARD_SIGMOID_GRAD: OpDef = row(
    "HardSigmoidGrad",
    &[float("alpha", 0.2), float("beta", 0.5)],
    &["edgesmith.HardSigmoidGrad(f32[2,3], f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 0.2);
        let beta = parameter(cx, "beta", 0.5);
        times(cx, |x| {
            if (0.0..=1.0).contains(&(alpha * x + beta)) {
                alpha
            } else {
                0.0
            }
        })
    },
);

/// The gradient of HardSwish.
pub static HARD_SWISH_GRAD: OpDef = row(
    "HardSwishGrad",
    &[],
    &["edgesmith.HardSwishGrad(f32[2,3], f32[2,3])"],
    |cx| {
        times(cx, |x| {
            if x <= -3.0 {
                0.0
            } else if x >= 3.0 {
                1.0
            } else {
                x / 3.0 + 0.5
            }
        })
    },
);

/// The gradient of LeakyRelu.
pub static LEAKY_RELU_GRAD: OpDef = row(
    "LeakyReluGrad",
    &[float("alpha", 0.01)],
    &["edgesmith.LeakyReluGrad(f32[2,3], f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 0.01);
        times(cx, |x| if x < 0.0 { alpha } else { 1.0 })
    },
);

/// The gradient of Log.
pub static LOG_GRAD: OpDef = row(
    "LogGrad",
    &[],
    &["edgesmith.LogGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| 1.0 / x),
);

/// The gradient of Mish.
pub static MISH_GRAD: OpDef = row(
    "MishGrad",
    &[],
    &["edgesmith.MishGrad(f32[2,3], f32[2,3])"],
    |cx| {
        times(cx, |x| {
            let (t, s) = (softplus(x).tanh(), sigmoid(x));
            t + x * s * (1.0 - t * t)
        })
    },
);

/// The gradient of Reciprocal, by its output.
pub static RECIPROCAL_GRAD: OpDef = row(
    "ReciprocalGrad",
    &[],
    &["edgesmith.ReciprocalGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |y| -y * y),
);

/// The gradient of Relu, by its output.
pub static RELU_GRAD: OpDef = row(
    "ReluGrad",
    &[],
    &["edgesmith.ReluGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |y| if y > 0.0 { 1.0 } else { 0.0 }),
);

/// The gradient of Selu.
pub static SELU_GRAD: OpDef = row(
    "SeluGrad",
    &[float("alpha", SELU_ALPHA), float("gamma", SELU_GAMMA)],
    &["edgesmith.SeluGrad(f32[2,3], f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", SELU_ALPHA);
        let gamma = parameter(cx, "gamma", SELU_GAMMA);
        times(cx, |x| gamma * if x > 0.0 { 1.0 } else { alpha * x.exp() })
    },
);

/// The gradient of Sigmoid, by its output.
pub static SIGMOID_GRAD: OpDef = row(
    "SigmoidGrad",
    &[],
    &["edgesmith.SigmoidGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |y| y * (1.0 - y)),
);

/// The gradient of Sin.
pub static SIN_GRAD: OpDef = row(
    "SinGrad",
    &[],
    &["edgesmith.SinGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| x.cos()),
);

/// The gradient of Sinh.
pub static SINH_GRAD: OpDef = row(
    "SinhGrad",
    &[],
    &["edgesmith.SinhGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| x.cosh()),
);

/// The gradient of Softplus.
pub static SOFTPLUS_GRAD: OpDef = row(
    "SoftplusGrad",
    &[],
    &["edgesmith.SoftplusGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, sigmoid),
);

/// The gradient of Softsign.
pub static SOFTSIGN_GRAD: OpDef = row(
    "SoftsignGrad",
    &[],
    &["edgesmith.SoftsignGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| (1.0 + x.abs()).powi(-2)),
);

/// The gradient of Sqrt, by its output.
pub static SQRT_GRAD: OpDef = row(
    "SqrtGrad",
    &[],
    &["edgesmith.SqrtGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |y| 0.5 / y),
);

/// The gradient of Swish.
pub static SWISH_GRAD: OpDef = row(
    "SwishGrad",
    &[float("alpha", 1.0)],
    &["edgesmith.SwishGrad(f32[2,3], f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 1.0);
        times(cx, |x| {
            let s = sigmoid(alpha * x);
            s + alpha * x * s * (1.0 - s)
        })
    },
);

/// The gradient of Tan.
pub static TAN_GRAD: OpDef = row(
    "TanGrad",
    &[],
    &["edgesmith.TanGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |x| x.cos().powi(-2)),
);

/// The gradient of Tanh, by its output.
pub static TANH_GRAD: OpDef = row(
    "TanhGrad",
    &[],
    &["edgesmith.TanhGrad(f32[2,3], f32[2,3])"],
    |cx| times(cx, |y| 1.0 - y * y),
);

/// The gradient of ThresholdedRelu.
pub static THRESHOLDED_RELU_GRAD: OpDef = row(
    "ThresholdedReluGrad",
    &[float("alpha", 1.0)],
    &["edgesmith.ThresholdedReluGrad(f32[2,3], f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 1.0);
        times(cx, |x| if x > alpha { 1.0 } else { 0.0 })
    },
);

/// The gradient of Gelu, exact or by tanh.
pub static GELU_GRAD: OpDef = row(
    "GeluGrad",
    &[attr("approximate", AttrKind::String(Some("none")))],
    &[
        "edgesmith.GeluGrad(f32[2,3], f32[2,3])",
        "edgesmith.GeluGrad(f32[2,3], f32[2,3]) {approximate=\"tanh\"}",
    ],
    |cx| match cx.node.string("approximate").unwrap_or("none") {
        "none" => times(cx, gelu),
        "tanh" => times(cx, gelu_tanh),
        other => Err(Error::invalid(format!(
            "approximate \"{other}\" is neither none nor tanh"
        ))),
    },
);

/// Φ(x) + x·φ(x).
fn gelu(x: f64) -> f64 {
    let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)) + x * density
}

fn gelu_tanh(x: f64) -> f64 {
    let root = std::f64::consts::FRAC_2_PI.sqrt();
    let t = (root * (x + 0.044715 * x * x * x)).tanh();
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * root * (1.0 + 3.0 * 0.044715 * x * x)
}

/// `ClipGrad(X, min, max, dY)`: dY where X lies between the bounds, ends included. X may be the
/// integers of a quantised tensor, whose gradient is in floats.
pub static CLIP_GRAD: OpDef = OpDef {
    inputs: Arity(4, 4),
    infer: |cx| {
        let (dtype, shape) = (cx.dtype(3), cx.shape(0).cloned());
        cx.set_tensor(0, dtype, shape);
        Ok(())
    },
    ..row(
        "ClipGrad",
        &[
            attr("max", AttrKind::Float(None)),
            attr("min", AttrKind::Float(None)),
        ],
        &[
            "edgesmith.ClipGrad(f32[2,3], f32{-0.5}, f32{0.5}, f32[2,3])",
            "edgesmith.ClipGrad(u8[2,3], u8{0}, u8{15}, f32[2,3])",
        ],
        |cx| {
            let bound = |i: usize, name: &str| match cx.optional(i) {
                Some(t) => Ok(any(t)?.first().copied()),
                None => Ok::<_, Error>(cx.node.float(name).map(f64::from)),
            };
            let low = bound(1, "min")?.unwrap_or(f64::NEG_INFINITY);
            let high = bound(2, "max")?.unwrap_or(f64::INFINITY);
            times(cx, |x| f64::from(u8::from(low <= x && x <= high)))
        },
    )
};

//! Functions of one element that attributes shape: Celu to ThresholdedRelu, and Clip.

use super::elementwise::{map_floats, map_numbers};
use super::unary::{erf, sigmoid};
use super::{Arity, AttrDef, AttrKind, EvalFn, OpDef, arith, attr};
use crate::eval::EvalCx;
use crate::{Error, Result, Tensor};

const fn row(
    name: &'static str,
    since: &'static [i64],
    attrs: &'static [AttrDef],
    example: &'static [&'static str],
    eval: EvalFn,
) -> OpDef {
    OpDef {
        name,
        since,
        attrs,
        eval: Some(eval),
        examples: example,
        ..OpDef::BASE
    }
}

const fn float(name: &'static str, default: f32) -> AttrDef {
    attr(name, AttrKind::Float(Some(default)))
}

fn parameter(cx: &EvalCx, name: &str, default: f32) -> f64 {
    f64::from(cx.float(name, default))
}

/// ONNX Celu.
pub static CELU: OpDef = row(
    "Celu",
    &[12],
    &[float("alpha", 1.0)],
    &["Celu(f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 1.0);
        map_floats(cx.input(0)?, |x| {
            x.max(0.0) + (alpha * (x / alpha).exp_m1()).min(0.0)
        })
    },
);

/// ONNX Elu.
pub static ELU: OpDef = row(
    "Elu",
    &[1, 6, 22],
    &[float("alpha", 1.0)],
    &["Elu(f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 1.0);
        map_floats(
            cx.input(0)?,
            |x| {
                if x < 0.0 { alpha * x.exp_m1() } else { x }
            },
        )
    },
);

/// ONNX Gelu, exact or by tanh.
pub static GELU: OpDef = row(
    "Gelu",
    &[20],
    &[attr("approximate", AttrKind::String(Some("none")))],
    &["Gelu(f32[2,3])"],
    |cx| match cx.node.string("approximate").unwrap_or("none") {
        "none" => map_floats(cx.input(0)?, gelu),
        "tanh" => map_floats(cx.input(0)?, gelu_tanh),
        other => Err(Error::invalid(format!(
            "approximate \"{other}\" is neither none nor tanh"
        ))),
    },
);

/// x · Φ(x).
pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// The tanh approximation of [`gelu`].
pub fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

/// ONNX HardSigmoid.
pub static HARD_SIGMOID: OpDef = row(
    "HardSigmoid",
    &[1, 6, 22],
    &[float("alpha", 0.2), float("beta", 0.5)],
    &["HardSigmoid(f32[2,3])"],
    |cx| {
        let (alpha, beta) = (parameter(cx, "alpha", 0.2), parameter(cx, "beta", 0.5));
        map_floats(cx.input(0)?, |x| (alpha * x + beta).clamp(0.0, 1.0))
    },
);

/// ONNX LeakyRelu.
pub static LEAKY_RELU: OpDef = row(
    "LeakyRelu",
    &[1, 6, 16],
    &[float("alpha", 0.01)],
    &["LeakyRelu(f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 0.01);
        map_floats(cx.input(0)?, |x| if x < 0.0 { alpha * x } else { x })
    },
);

/// ONNX Selu.
pub static SELU: OpDef = row(
    "Selu",
    &[1, 6, 22],
    &[float("alpha", SELU_ALPHA), float("gamma", SELU_GAMMA)],
    &["Selu(f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", SELU_ALPHA);
        let gamma = parameter(cx, "gamma", SELU_GAMMA);
        map_floats(cx.input(0)?, |x| {
            gamma * if x > 0.0 { x } else { alpha * x.exp_m1() }
        })
    },
);

/// The α of Selu.
pub const SELU_ALPHA: f32 = 1.673_263_2;
/// The γ of Selu.
pub const SELU_GAMMA: f32 = 1.050_701;

/// ONNX Shrink, of floats and integers.
pub static SHRINK: OpDef = row(
    "Shrink",
    &[9],
    &[float("bias", 0.0), float("lambd", 0.5)],
    &["Shrink(f32[2,3])"],
    |cx| {
        let (bias, lambda) = (parameter(cx, "bias", 0.0), parameter(cx, "lambd", 0.5));
        let shrink = |x: f64| {
            if x < -lambda {
                x + bias
            } else if x > lambda {
                x - bias
            } else {
                0.0
            }
        };
        map_numbers(cx.input(0)?, shrink, |i| shrink(i as f64) as i128)
    },
);

/// ONNX Swish.
pub static SWISH: OpDef = row(
    "Swish",
    &[24],
    &[float("alpha", 1.0)],
    &["Swish(f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 1.0);
        map_floats(cx.input(0)?, |x| x * sigmoid(alpha * x))
    },
);

/// ONNX ThresholdedRelu.
pub static THRESHOLDED_RELU: OpDef = row(
    "ThresholdedRelu",
    &[10, 22],
    &[float("alpha", 1.0)],
    &["ThresholdedRelu(f32[2,3])"],
    |cx| {
        let alpha = parameter(cx, "alpha", 1.0);
        map_floats(cx.input(0)?, |x| if x > alpha { x } else { 0.0 })
    },
);

/// ONNX Clip: bounds as attributes before opset 11, as inputs since.
pub static CLIP: OpDef = OpDef {
    inputs: Arity(1, 3),
    ..row(
        "Clip",
        &[1, 6, 11, 12, 13],
        &[
            attr("max", AttrKind::Float(None)),
            attr("min", AttrKind::Float(None)),
        ],
        &[
            "Clip(f32[2,3], f32{-0.5}, f32{0.5})",
            "Clip(f32[2,3], , f32{0.5})",
        ],
        clip,
    )
};

fn clip(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let (low, high) = (cx.optional(1), cx.optional(2));
    for bound in [low, high].into_iter().flatten() {
        if bound.dtype() != x.dtype() || bound.count() != 1 {
            return Err(Error::invalid(format!(
                "a bound should be one {}, found {}",
                x.dtype(),
                bound.ty()
            )));
        }
    }
    if x.dtype().is_float() {
        let bound = |t: Option<&Tensor>, name: &str| match t {
            Some(t) => Ok(Some(arith::floats(t)?[0])),
            None => Ok::<_, Error>(cx.node.float(name).map(f64::from)),
        };
        let low = bound(low, "min")?.unwrap_or(f64::NEG_INFINITY);
        let high = bound(high, "max")?.unwrap_or(f64::INFINITY);
        return map_floats(x, |v| {
            let v = if v < low { low } else { v };
            if v > high { high } else { v }
        });
    }
    let bound = |t: Option<&Tensor>| t.map(|t| Ok(arith::integers(t)?[0])).transpose();
    let low = bound(low)?.unwrap_or(i128::MIN);
    let high = bound(high)?.unwrap_or(i128::MAX);
    map_numbers(x, |v| v, |v| v.max(low).min(high))
}

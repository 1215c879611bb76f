//! Straight-through gradients of quantisation (Y. Bengio et al., 2013): within the range,
//! rounding counts as the identity; outside of it, nothing moves.
//!
//! The two gradients of the scale add up to that of learned step size quantisation
//! (S. Esser et al., 2020, equation 3): round(x/s) − x/s within, the end of the range outside.

use super::BASE;
use super::broadcast::summed_like;
use crate::eval::EvalCx;
use crate::ops::arith::{any, expect_dims, floats, from_floats, range};
use crate::ops::quantize::{ATTRS, Scales};
use crate::ops::{Arity, EvalFn, OpDef};
use crate::{DType, Error, Result, Tensor};

const fn row(name: &'static str, eval: EvalFn, examples: &'static [&'static str]) -> OpDef {
    OpDef {
        name,
        inputs: Arity(4, 4),
        outputs: Arity(1, 2),
        attrs: ATTRS,
        infer: |cx| {
            let (dtype, shape) = (cx.dtype(1), cx.shape(0).cloned());
            cx.set_tensor(0, dtype, shape);
            if let Some(ty) = cx.ty(1).cloned() {
                cx.set(1, ty);
            }
            Ok(())
        },
        eval: Some(eval),
        examples,
        ..BASE
    }
}

/// `QuantizeLinearGrad(X, scale, zero_point, dQ) -> dX, dScale`; dQ is a gradient by steps of the
/// grid, in floats.
pub static QUANTIZE_LINEAR_GRAD: OpDef = row(
    "QuantizeLinearGrad",
    quantize,
    &[
        "edgesmith.QuantizeLinearGrad(f32[2,3], f32{0.1}, u8{128}, f32[2,3]) -> 2",
        "edgesmith.QuantizeLinearGrad(f32[2,3], f32[3]{0.1,0.2,0.3}, i8[3], f32[2,3]) -> 2",
    ],
);

/// `DequantizeLinearGrad(Q, scale, zero_point, dY) -> dQ, dScale`; dQ is in floats.
pub static DEQUANTIZE_LINEAR_GRAD: OpDef = row(
    "DequantizeLinearGrad",
    dequantize,
    &["edgesmith.DequantizeLinearGrad(u8[2,3], f32{0.1}, u8{128}, f32[2,3]) -> 2"],
);

/// Numbers by element, scales by element, and where each scale stands.
fn parts(cx: &EvalCx) -> Result<(Vec<f64>, Scales, Vec<f64>)> {
    let (x, dy) = (cx.input(0)?, cx.input(3)?);
    expect_dims("the gradient", dy, x.dims())?;
    Ok((any(x)?, Scales::of(cx, x.dims())?, floats(dy)?))
}

fn outputs(cx: &EvalCx, by_element: Vec<f64>, by_scale: &[f64]) -> Result<Vec<Tensor>> {
    let scale = cx.input(1)?;
    Ok(vec![
        from_floats(scale.dtype(), cx.input(0)?.dims(), by_element)?,
        summed_like(by_scale, scale.dims(), scale)?,
    ])
}

fn quantize(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, scales, dq) = parts(cx)?;
    let code = cx.int("output_dtype", 0);
    let asked = i32::try_from(code).ok().and_then(DType::from_onnx);
    let dtype = cx.optional(2).map(Tensor::dtype).or(asked);
    let dtype = dtype.unwrap_or(DType::U8);
    if !dtype.is_integer() {
        return Err(Error::unsupported(format!("a grid of {dtype} is not done")));
    }
    let (low, high) = range(dtype);
    let (mut dx, mut dscale) = (vec![0.0; x.len()], vec![0.0; scales.scale.len()]);
    for (i, &s) in scales.of.iter().enumerate() {
        let step = scales.scale[s];
        let at = (x[i] / step).round_ties_even() + scales.zero[s];
        if (low as f64..=high as f64).contains(&at) {
            dx[i] = dq[i] / step;
            dscale[s] -= dq[i] * x[i] / (step * step);
        }
    }
    outputs(cx, dx, &dscale)
}

fn dequantize(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (q, scales, dy) = parts(cx)?;
    let (mut dq, mut dscale) = (vec![0.0; q.len()], vec![0.0; scales.scale.len()]);
    for (i, &s) in scales.of.iter().enumerate() {
        dq[i] = dy[i] * scales.scale[s];
        dscale[s] += dy[i] * (q[i] - scales.zero[s]);
    }
    outputs(cx, dq, &dscale)
}

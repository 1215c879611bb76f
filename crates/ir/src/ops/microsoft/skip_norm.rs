//! Norms over the last axis of a sum, with that sum as an output.

use super::BASE;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::{expand, expect_dims, expect_rank, floats, from_floats};
use crate::ops::{Arity, AttrDef, AttrKind, OpDef, attr};
use crate::{DType, Dim, Result, Tensor};

const ATTRS: &[AttrDef] = &[attr("epsilon", AttrKind::Float(Some(1e-12)))];

/// LayerNormalization of `input + skip + bias`: inputs input, skip, gamma, beta, bias; outputs
/// the norm, mean, inverse deviation, and the sum.
pub static SKIP_LAYER_NORMALIZATION: OpDef = OpDef {
    name: "SkipLayerNormalization",
    inputs: Arity(3, 5),
    outputs: Arity(1, 4),
    attrs: ATTRS,
    infer,
    eval: Some(|cx| eval(cx, true)),
    examples: &[
        "com.microsoft.SkipLayerNormalization(f32[2,3,4], f32[2,3,4], f32[4], f32[4], f32[4]) -> 4",
        "com.microsoft.SkipLayerNormalization(f32[2,3,4], f32[3,4], f32[4])",
        "com.microsoft.SkipLayerNormalization(f32[2,3,4], f32[1,3,4], f32[4], f32[4])",
    ],
    ..BASE
};

/// Root mean square norm of `input + skip + bias`: inputs input, skip, gamma, bias; outputs as
/// SkipLayerNormalization.
pub static SKIP_SIMPLIFIED_LAYER_NORMALIZATION: OpDef = OpDef {
    name: "SkipSimplifiedLayerNormalization",
    inputs: Arity(3, 4),
    outputs: Arity(1, 4),
    attrs: ATTRS,
    infer,
    eval: Some(|cx| eval(cx, false)),
    examples: &[
        "com.microsoft.SkipSimplifiedLayerNormalization(f32[2,3,4], f32[2,3,4], f32[4], f32[4]) -> 4",
        "com.microsoft.SkipSimplifiedLayerNormalization(f32[3,4], f32[3,4], f32[4])",
    ],
    ..BASE
};

/// Mean and inverse deviation of a row; the mean is 0 where it is not taken off.
pub fn moments(row: &[f64], centred: bool, epsilon: f64) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = if centred {
        row.iter().sum::<f64>() / n
    } else {
        0.0
    };
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

fn eval(cx: &EvalCx, centred: bool) -> Result<Vec<Tensor>> {
    let (x, skip, gamma) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    expect_rank("the input", x, 2..=3)?;
    let width = x.dims()[x.rank() - 1];
    let row = |t: Option<&Tensor>| -> Result<Vec<f64>> {
        let Some(t) = t else {
            return Ok(vec![0.0; width]);
        };
        expect_dims("a vector along the last axis", t, &[width])?;
        floats(t)
    };
    let (beta, bias) = if centred { (Some(3), 4) } else { (None, 3) };
    let gamma = row(Some(gamma))?;
    let beta = row(beta.and_then(|i| cx.optional(i)))?;
    let bias = row(cx.optional(bias))?;
    let epsilon = f64::from(cx.float("epsilon", 1e-12));
    let mut sum = floats(x)?;
    let skip = expand(&floats(skip)?, skip.dims(), x.dims())?;
    for (i, v) in sum.iter_mut().enumerate() {
        *v += skip[i] + bias[i % width];
    }
    let mut y = sum.clone();
    let (mut means, mut inverses) = (Vec::new(), Vec::new());
    for row in y.chunks_mut(width.max(1)) {
        let (mean, inverse) = moments(row, centred, epsilon);
        for ((v, g), b) in row.iter_mut().zip(&gamma).zip(&beta) {
            *v = (*v - mean) * inverse * g + b;
        }
        means.push(mean);
        inverses.push(inverse);
    }
    let rows = [&x.dims()[..x.rank() - 1], &[1]].concat();
    if width == 0 {
        means.resize(crate::checked_count(&rows)?, f64::NAN);
        inverses.resize(means.len(), f64::NAN);
    }
    Ok(vec![
        from_floats(x.dtype(), x.dims(), y)?,
        from_floats(DType::F32, &rows, means)?,
        from_floats(DType::F32, &rows, inverses)?,
        from_floats(x.dtype(), x.dims(), sum)?,
    ])
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let (dtype, shape) = (cx.dtype(0), cx.shape(0).cloned());
    let rows = shape.clone().map(|mut s| {
        if let Some(last) = s.0.last_mut() {
            *last = Dim::Known(1);
        }
        s
    });
    cx.set_tensor(0, dtype, shape.clone());
    cx.set_tensor(1, Some(DType::F32), rows.clone());
    cx.set_tensor(2, Some(DType::F32), rows);
    cx.set_tensor(3, dtype, shape);
    Ok(())
}

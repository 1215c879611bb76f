//! `SoftmaxGrad(Y, dY) -> dX` and `LogSoftmaxGrad(Y, dY) -> dX`.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{expect_dims, floats, from_floats};
use crate::ops::softmax::{ATTRS, extent};
use crate::ops::{Arity, EvalFn, OpDef};
use crate::{Result, Tensor};

const fn row(name: &'static str, eval: EvalFn, examples: &'static [&'static str]) -> OpDef {
    OpDef {
        name,
        inputs: Arity(2, 2),
        attrs: ATTRS,
        eval: Some(eval),
        examples,
        ..BASE
    }
}

/// dX = Y · (dY − Σ Y·dY).
pub static SOFTMAX_GRAD: OpDef = row(
    "SoftmaxGrad",
    |cx| {
        lines(cx, |y, dy| {
            let dot: f64 = y.iter().zip(&*dy).map(|(y, d)| y * d).sum();
            for (d, y) in dy.iter_mut().zip(y) {
                *d = y * (*d - dot);
            }
        })
    },
    &[
        "edgesmith.SoftmaxGrad(f32[2,5], f32[2,5])",
        "edgesmith.SoftmaxGrad(f32[2,3,4], f32[2,3,4]) {axis=1}",
    ],
);

/// dX = dY − exp(Y) · Σ dY.
pub static LOG_SOFTMAX_GRAD: OpDef = row(
    "LogSoftmaxGrad",
    |cx| {
        lines(cx, |y, dy| {
            let sum: f64 = dy.iter().sum();
            for (d, y) in dy.iter_mut().zip(y) {
                *d -= y.exp() * sum;
            }
        })
    },
    &["edgesmith.LogSoftmaxGrad(f32[2,5], f32[2,5])"],
);

/// Makes each line of dY that of dX, by the line of Y.
fn lines(cx: &EvalCx, f: impl Fn(&[f64], &mut [f64])) -> Result<Vec<Tensor>> {
    let (y, dy) = (cx.input(0)?, cx.input(1)?);
    expect_dims("the gradient", dy, y.dims())?;
    let (length, inner) = extent(&cx.as_default(&[]), y)?;
    let (ys, mut ds) = (floats(y)?, floats(dy)?);
    let block = (length * inner).max(1);
    let (mut line, mut grad) = (vec![0.0; length], vec![0.0; length]);
    for (ys, ds) in ys.chunks(block).zip(ds.chunks_mut(block)) {
        for i in 0..inner {
            for k in 0..length {
                (line[k], grad[k]) = (ys[k * inner + i], ds[k * inner + i]);
            }
            f(&line, &mut grad);
            for k in 0..length {
                ds[k * inner + i] = grad[k];
            }
        }
    }
    Ok(vec![from_floats(y.dtype(), y.dims(), ds)?])
}

//! `SoftmaxGrad(Y, dY) -> dX` and `LogSoftmaxGrad(Y, dY) -> dX`.

use super::BASE;
use super::lines::along;
use crate::eval::EvalCx;
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
    let (length, inner) = extent(&cx.as_default(&[]), cx.input(0)?)?;
    along(cx, length, inner, f)
}

//! CumSum and CumProd: running sums and products along an axis.

use super::numbers::Numbers;
use super::rows::along;
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::{Result, Tensor};

const BASE: OpDef = OpDef {
    inputs: Arity(2, 2),
    attrs: &[
        attr("exclusive", AttrKind::Int(Some(0))),
        attr("reverse", AttrKind::Int(Some(0))),
    ],
    ..OpDef::BASE
};

/// ONNX CumSum.
pub static CUM_SUM: OpDef = OpDef {
    name: "CumSum",
    since: &[11, 14],
    eval: Some(|cx| cumulate(cx, (0.0, |a, b| a + b), (0, i128::wrapping_add))),
    examples: &[
        "CumSum(f32[2,3], i64[]{1})",
        "CumSum(i32[2,3], i32[]{-2}) {exclusive=1,reverse=1}",
    ],
    ..BASE
};

/// ONNX CumProd.
pub static CUM_PROD: OpDef = OpDef {
    name: "CumProd",
    since: &[26],
    eval: Some(|cx| cumulate(cx, (1.0, |a, b| a * b), (1, i128::wrapping_mul))),
    examples: &[
        "CumProd(f32[2,3], i64[]{1})",
        "CumProd(i32[3], i64[]{0}) {exclusive=1}",
    ],
    ..BASE
};

/// The neutral element and how two are joined.
type Join<T> = (T, fn(T, T) -> T);

fn cumulate(cx: &EvalCx, float: Join<f64>, int: Join<i128>) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let along = along(x, axes::scalar(cx.input(1)?)?)?;
    let exclusive = cx.int("exclusive", 0) != 0;
    let reverse = cx.int("reverse", 0) != 0;
    let len = along.rows.len.max(1);
    let numbers = match &along.rows.numbers {
        Numbers::Float(v) => {
            Numbers::Float(along.unrowed(&running(v, len, float, exclusive, reverse), len))
        }
        Numbers::Int(v) => {
            Numbers::Int(along.unrowed(&running(v, len, int, exclusive, reverse), len))
        }
    };
    Ok(vec![numbers.tensor(x.dtype(), x.dims())?])
}

fn running<T: Copy>(
    values: &[T],
    len: usize,
    (neutral, join): Join<T>,
    exclusive: bool,
    reverse: bool,
) -> Vec<T> {
    let mut out = values.to_vec();
    for row in out.chunks_mut(len) {
        let mut sum = neutral;
        let mut step = |x: &mut T| {
            let before = sum;
            sum = join(sum, *x);
            *x = if exclusive { before } else { sum };
        };
        if reverse {
            row.iter_mut().rev().for_each(&mut step);
        } else {
            row.iter_mut().for_each(&mut step);
        }
    }
    out
}

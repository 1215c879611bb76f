//! Range: numbers from a start by equal steps.

use super::numbers::Numbers;
use super::{Arity, OpDef};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{DType, Error, Result, Tensor, checked_count};

/// ONNX Range.
pub static RANGE: OpDef = OpDef {
    name: "Range",
    since: &[11],
    inputs: Arity(3, 3),
    infer,
    eval: Some(eval),
    examples: &[
        "Range(i64[]{0}, i64[]{7}, i64[]{3})",
        "Range(f32[]{1}, f32[]{-1}, f32[]{-0.5})",
        "Range(i32[]{5}, i32[]{3}, i32[]{1})",
    ],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let parts = (cx.constant(0), cx.constant(1), cx.constant(2));
    if let (Some(a), Some(b), Some(c)) = parts {
        let all = range(a, b, c)?;
        if all.dtype() == DType::I64 && all.count() <= 1024 {
            let known = |i: i64| usize::try_from(i).map_or(Dim::Unknown, Dim::Known);
            cx.set_contents(0, all.to_i64()?.into_iter().map(known).collect());
        }
        cx.set(0, all.ty());
        return Ok(());
    }
    // From 0 by 1, as exporters number positions: as many as the limit says.
    let simple = cx.ints(0).as_deref() == Some(&[0]) && cx.ints(2).as_deref() == Some(&[1]);
    let length = match cx.contents(1) {
        Some([limit]) if simple => limit.clone(),
        _ => Dim::Unknown,
    };
    let dtype = (0..3).find_map(|i| cx.dtype(i));
    cx.set_tensor(0, dtype, Some(Shape(smallvec::smallvec![length])));
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    Ok(vec![range(cx.input(0)?, cx.input(1)?, cx.input(2)?)?])
}

fn range(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<Tensor> {
    let parts = [start, limit, delta];
    if parts
        .iter()
        .any(|t| t.count() != 1 || t.dtype() != start.dtype())
    {
        return Err(Error::invalid(
            "start, limit and delta should be numbers of one type",
        ));
    }
    let numbers = [
        Numbers::of(start)?,
        Numbers::of(limit)?,
        Numbers::of(delta)?,
    ];
    let zero = || Error::invalid("delta should not be 0");
    let all = match numbers {
        [Numbers::Int(a), Numbers::Int(b), Numbers::Int(c)] => {
            let (a, b, c) = (a[0], b[0], c[0]);
            let span = if c < 0 { a - b } else { b - a };
            let step = i128::try_from(c.unsigned_abs()).unwrap_or(i128::MAX);
            let count = (span.max(0) + step - 1)
                .checked_div(step)
                .ok_or_else(zero)?;
            let count = checked_count(&[usize::try_from(count).unwrap_or(usize::MAX)])?;
            Numbers::Int((0..count).map(|i| a + c * i as i128).collect())
        }
        numbers => {
            let [a, b, c] = numbers.map(|n| n.into_floats()[0]);
            if c == 0.0 {
                return Err(zero());
            }
            let count = ((b - a) / c).ceil().max(0.0);
            let count = checked_count(&[count as usize])?;
            Numbers::Float((0..count).map(|i| a + c * i as f64).collect())
        }
    };
    let count = all.len();
    all.tensor(start.dtype(), &[count])
}

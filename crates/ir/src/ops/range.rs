//! Range: numbers from a start by equal steps.

use super::numbers::Numbers;
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::{InferCx, MAX_CONTENTS};
use crate::types::{Dim, Shape, TensorType};
use crate::{DType, Error, Result, Tensor, checked_count};

/// ONNX Range.
pub static RANGE: OpDef = OpDef {
    name: "Range",
    since: &[11, 27],
    inputs: Arity(3, 3),
    attrs: &[attr("stash_type", AttrKind::Int(Some(1)))],
    infer,
    eval: Some(eval),
    examples: &[
        "Range(i64[]{0}, i64[]{7}, i64[]{3})",
        "Range(f32[]{1}, f32[]{-1}, f32[]{-0.5})",
        "Range(i32[]{5}, i32[]{3}, i32[]{1})",
        "Range@27(f16[]{0.5}, f16[]{3}, f16[]{0.75})",
    ],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let parts = (cx.constant(0), cx.constant(1), cx.constant(2));
    if let (Some(a), Some(b), Some(c)) = parts {
        let range = Range::of(a, b, c)?;
        let (dtype, count) = (a.dtype(), range.count);
        if dtype == DType::I64 && count <= MAX_CONTENTS {
            let all = range.tensor(dtype)?.to_i64()?;
            let known = |i: i64| usize::try_from(i).map_or(Dim::Unknown, Dim::Known);
            cx.set_contents(0, all.into_iter().map(known).collect());
        }
        cx.set(0, TensorType::fixed(dtype, &[count]));
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

/// The numbers from input 0 to input 1 by steps of input 2.
///
/// # Errors
/// When they are not numbers of one type, or too many.
pub fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let range = Range::of(cx.input(0)?, cx.input(1)?, cx.input(2)?)?;
    Ok(vec![range.tensor(cx.input(0)?.dtype())?])
}

/// Where a range starts, by what it steps, and how many numbers it has.
struct Range {
    start: Number,
    delta: Number,
    count: usize,
}

#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Range {
    fn of(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<Self> {
        let parts = [start, limit, delta];
        if parts
            .iter()
            .any(|t| t.count() != 1 || t.dtype() != start.dtype())
        {
            return Err(Error::invalid(
                "start, limit and delta should be numbers of one type",
            ));
        }
        let zero = || Error::invalid("delta should not be 0");
        let numbers = [
            Numbers::of(start)?,
            Numbers::of(limit)?,
            Numbers::of(delta)?,
        ];
        if let [Numbers::Int(a), Numbers::Int(b), Numbers::Int(c)] = &numbers {
            let (a, b, c) = (a[0], b[0], c[0]);
            let span = if c < 0 { a - b } else { b - a };
            let step = i128::try_from(c.unsigned_abs()).unwrap_or(i128::MAX);
            let count = (span.max(0) + step - 1)
                .checked_div(step)
                .ok_or_else(zero)?;
            return Ok(Self {
                start: Number::Int(a),
                delta: Number::Int(c),
                count: checked_count(&[usize::try_from(count).unwrap_or(usize::MAX)])?,
            });
        }
        let [a, b, c] = numbers.map(|n| n.into_floats()[0]);
        if c == 0.0 {
            return Err(zero());
        }
        Ok(Self {
            start: Number::Float(a),
            delta: Number::Float(c),
            count: checked_count(&[((b - a) / c).ceil().max(0.0) as usize])?,
        })
    }

    fn tensor(&self, dtype: DType) -> Result<Tensor> {
        let steps = 0..self.count;
        let all = match (self.start, self.delta) {
            (Number::Int(a), Number::Int(c)) => {
                Numbers::Int(steps.map(|i| a + c * i as i128).collect())
            }
            (Number::Float(a), Number::Float(c)) => {
                Numbers::Float(steps.map(|i| a + c * i as f64).collect())
            }
            _ => return Err(Error::internal("both numbers of a range are of one kind")),
        };
        all.tensor(dtype, &[self.count])
    }
}

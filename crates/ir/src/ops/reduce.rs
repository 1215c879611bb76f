//! The Reduce family: one number for each row of a tensor.

use super::{Arity, AttrKind, OpDef, arith, attr, axes, rows};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Result, Tensor};

/// Since 18 the axes are an input; ReduceSum has them so since 13.
const SINCE: &[i64] = &[1, 11, 13, 18];
const LIMIT_SINCE: &[i64] = &[1, 11, 12, 13, 18, 20];

const BASE: OpDef = OpDef {
    inputs: Arity(1, 2),
    attrs: &[
        attr("axes", AttrKind::Ints),
        attr("keepdims", AttrKind::Int(Some(1))),
        attr("noop_with_empty_axes", AttrKind::Int(Some(0))),
    ],
    infer,
    ..OpDef::BASE
};

macro_rules! reductions {
    ($($name:ident $onnx:literal $since:expr, $eval:expr, $about:literal $($example:literal)*;)*)
    => { $(
        #[doc = $about]
        pub static $name: OpDef = OpDef {
            name: $onnx,
            since: $since,
            eval: Some($eval),
            examples: &[
                concat!($onnx, "(f32[2,3,4])"),
                concat!($onnx, "(f32[2,3,4], i64[2]{-1,0}) {keepdims=0}"),
                concat!($onnx, "@11(f32[2,3]) {axes=[1]}"),
                concat!($onnx, "(f32[2,0], i64[1]{1})"),
                concat!($onnx, "(i32[2,3], i64[0]{}) {noop_with_empty_axes=1}"),
                $($example,)*
            ],
            ..BASE
        };
    )* };
}

reductions! {
    REDUCE_SUM "ReduceSum" &[1, 11, 13], |cx| reduce(cx, |r| sum(r, |x| x), |r| r.iter().sum()),
        "ONNX ReduceSum; 0 for an empty row.";
    REDUCE_MEAN "ReduceMean" SINCE, |cx| reduce(cx, mean, int_mean), "ONNX ReduceMean.";
    REDUCE_MAX "ReduceMax" LIMIT_SINCE, |cx| limit(cx, true), "ONNX ReduceMax; the lowest value for an empty row."
        "ReduceMax(bool[2,2]{true,false,false,false}, i64[1]{1})";
    REDUCE_MIN "ReduceMin" LIMIT_SINCE, |cx| limit(cx, false), "ONNX ReduceMin; the highest value for an empty row."
        "ReduceMin(bool[2,2]{true,false,true,true}, i64[1]{1})";
    REDUCE_PROD "ReduceProd" SINCE, |cx| reduce(cx, |r| r.iter().product(), int_product),
        "ONNX ReduceProd; 1 for an empty row.";
    REDUCE_L1 "ReduceL1" SINCE, |cx| reduce(cx, |r| sum(r, f64::abs), |r| r.iter().map(|i| i.abs()).sum()),
        "ONNX ReduceL1: the sum of absolute values.";
    REDUCE_L2 "ReduceL2" SINCE, |cx| real(cx, |r| sum(r, |x| x * x).sqrt()),
        "ONNX ReduceL2: the root of the sum of squares.";
    REDUCE_LOG_SUM "ReduceLogSum" SINCE, |cx| real(cx, |r| sum(r, |x| x).ln()),
        "ONNX ReduceLogSum.";
    REDUCE_LOG_SUM_EXP "ReduceLogSumExp" SINCE, |cx| real(cx, log_sum_exp),
        "ONNX ReduceLogSumExp, without overflow.";
    REDUCE_SUM_SQUARE "ReduceSumSquare" SINCE,
        |cx| reduce(cx, |r| sum(r, |x| x * x), |r| r.iter().map(|i| i.wrapping_mul(*i)).sum()),
        "ONNX ReduceSumSquare.";
}

/// The axes to reduce of a tensor of `rank`: all where none are given, unless that means none.
///
/// # Errors
/// When an axis is outside the rank or is there twice.
pub fn marks(axes: Option<&[i64]>, noop: bool, rank: usize) -> Result<Vec<bool>> {
    match axes {
        Some(axes) if !axes.is_empty() => Ok(axes::marks(axes, rank)?.to_vec()),
        _ => Ok(vec![!noop; rank]),
    }
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let keep = cx.node.int("keepdims").unwrap_or(1) != 0;
    let noop = cx.node.int("noop_with_empty_axes").unwrap_or(0) != 0;
    let axes = axes::known(cx, "axes", 1);
    let shape = match (cx.shape(0), &axes) {
        (Some(s), axes::Param::Unknown) => keep.then(|| Shape::unknown(s.rank())),
        (Some(s), axes) => {
            let axes = match axes {
                axes::Param::Known(v) => Some(v.as_slice()),
                _ => None,
            };
            let marks = marks(axes, noop, s.rank())?;
            Some(reduced(s, &marks, keep))
        }
        _ => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

/// The shape after the marked axes are reduced.
pub fn reduced(shape: &Shape, marks: &[bool], keep: bool) -> Shape {
    let dims = shape.iter().zip(marks);
    dims.filter_map(|(d, &m)| match (m, keep) {
        (false, _) => Some(d.clone()),
        (true, true) => Some(Dim::Known(1)),
        (true, false) => None,
    })
    .collect()
}

fn reduce(
    cx: &EvalCx,
    float: impl Fn(&[f64]) -> f64,
    int: impl Fn(&[i128]) -> i128,
) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let axes = axes::given(cx, "axes", 1)?;
    let noop = cx.int("noop_with_empty_axes", 0) != 0;
    let rows = rows::rows(x, &marks(axes.as_deref(), noop, x.rank())?)?;
    let out = rows.map(float, int)?;
    let keep = cx.int("keepdims", 1) != 0;
    Ok(vec![out.tensor(x.dtype(), rows.dims(keep))?])
}

/// Integers by way of floats, their fractions cut off.
fn real(cx: &EvalCx, float: impl Fn(&[f64]) -> f64) -> Result<Vec<Tensor>> {
    let int = |r: &[i128]| {
        let row: Vec<f64> = r.iter().map(|&i| i as f64).collect();
        float(&row) as i128
    };
    reduce(cx, &float, int)
}

fn sum(row: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    row.iter().map(|&x| f(x)).sum::<f64>() + 0.0
}

fn mean(row: &[f64]) -> f64 {
    sum(row, |x| x) / row.len() as f64
}

fn int_mean(row: &[i128]) -> i128 {
    row.iter()
        .sum::<i128>()
        .checked_div(row.len() as i128)
        .unwrap_or(0)
}

fn int_product(row: &[i128]) -> i128 {
    row.iter().fold(1, |a, &b| a.wrapping_mul(b))
}

fn log_sum_exp(row: &[f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max.is_infinite() {
        return sum(row, f64::exp).ln();
    }
    sum(row, |x| (x - max).exp()).ln() + max
}

fn limit(cx: &EvalCx, max: bool) -> Result<Vec<Tensor>> {
    let infinity = if max {
        f64::NEG_INFINITY
    } else {
        f64::INFINITY
    };
    let better = |a: f64, b: f64| match (a.is_nan() || b.is_nan(), max) {
        (true, _) => f64::NAN,
        (false, true) => a.max(b),
        (false, false) => a.min(b),
    };
    let dtype = cx.input(0)?.dtype();
    reduce(
        cx,
        |r| r.iter().copied().fold(infinity, better),
        |r| {
            let best = if max { r.iter().max() } else { r.iter().min() };
            let (low, high) = arith::range(dtype);
            best.copied().unwrap_or(if max { low } else { high })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sum_exp_does_not_overflow() {
        let y = log_sum_exp(&[1000.0, 1000.0]);
        assert!((y - (1000.0 + 2f64.ln())).abs() < 1e-9);
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
    }

    #[test]
    fn empty_rows_give_the_neutral_element() {
        assert_eq!(sum(&[], |x| x).to_bits(), 0f64.to_bits());
    }
}

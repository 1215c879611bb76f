//! NonMaxSuppression: the best of boxes that overlap.

use super::numbers::Numbers;
use super::rows::compare;
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{DType, Error, Result, Tensor};

/// ONNX NonMaxSuppression.
pub static NON_MAX_SUPPRESSION: OpDef = OpDef {
    name: "NonMaxSuppression",
    since: &[10, 11],
    inputs: Arity(2, 5),
    attrs: &[attr("center_point_box", AttrKind::Int(Some(0)))],
    infer,
    eval: Some(eval),
    examples: &[
        "NonMaxSuppression(f32[1,5,4], f32[1,2,5], i64[1]{3}, f32[1]{0.5}, f32[1]{-1})",
        "NonMaxSuppression(f32[2,5,4], f32[2,1,5], i64[1]{2}) {center_point_box=1}",
        "NonMaxSuppression(f32[1,2,4], f32[1,1,2])",
    ],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let shape = Shape(smallvec::smallvec![Dim::Unknown, Dim::Known(3)]);
    cx.set_tensor(0, Some(DType::I64), Some(shape));
    Ok(())
}

/// Corners: the lower ones, then the upper ones.
type Corners = [f64; 4];

fn corners(b: &[f64], center: bool) -> Corners {
    if center {
        let (w, h) = (b[2] / 2.0, b[3] / 2.0);
        return [b[1] - h, b[0] - w, b[1] + h, b[0] + w];
    }
    [
        b[0].min(b[2]),
        b[1].min(b[3]),
        b[0].max(b[2]),
        b[1].max(b[3]),
    ]
}

/// The area that two boxes share over the area that they cover.
fn overlap(a: &Corners, b: &Corners) -> f64 {
    let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    let area = |b: &Corners| (b[2] - b[0]) * (b[3] - b[1]);
    let shared = side(0) * side(1);
    let covered = area(a) + area(b) - shared;
    if covered > 0.0 { shared / covered } else { 0.0 }
}

fn threshold(cx: &EvalCx, i: usize) -> Result<Option<f64>> {
    let Some(t) = cx.optional(i) else {
        return Ok(None);
    };
    Ok(Numbers::of(t)?.into_floats().first().copied())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (boxes, scores) = (cx.input(0)?, cx.input(1)?);
    let (&[batch, count, 4], &[batches, classes, scored]) = (boxes.dims(), scores.dims()) else {
        return Err(fault(boxes, scores));
    };
    if batch != batches || count != scored {
        return Err(fault(boxes, scores));
    }
    let most = cx.optional(2).map_or(Ok(0), axes::scalar)?;
    let most = usize::try_from(most).unwrap_or(0);
    let most_overlap = threshold(cx, 3)?.unwrap_or(0.0);
    let least_score = threshold(cx, 4)?.unwrap_or(f64::NEG_INFINITY);
    let center = cx.int("center_point_box", 0) != 0;
    let boxes: Vec<Corners> = Numbers::of(boxes)?
        .into_floats()
        .chunks(4)
        .map(|b| corners(b, center))
        .collect();
    let scores = Numbers::of(scores)?.into_floats();
    let mut out = Vec::new();
    for row in 0..batch * classes {
        let scores = &scores[row * count..][..count];
        let boxes = &boxes[row / classes * count..][..count];
        let mut order: Vec<usize> = (0..count).filter(|&i| scores[i] > least_score).collect();
        order.sort_by(|&a, &b| compare(&scores[b], &scores[a]));
        let mut kept: Vec<usize> = Vec::new();
        for i in order {
            if kept.len() >= most {
                break;
            }
            if kept
                .iter()
                .all(|&k| overlap(&boxes[k], &boxes[i]) <= most_overlap)
            {
                kept.push(i);
                out.extend([row / classes, row % classes, i].map(|n| n as i64));
            }
        }
    }
    Ok(vec![Tensor::from_vec(&[out.len() / 3, 3], out)?])
}

fn fault(boxes: &Tensor, scores: &Tensor) -> Error {
    Error::invalid(format!(
        "expected boxes [batch, boxes, 4] and scores [batch, classes, boxes], found {} and {}",
        boxes.ty(),
        scores.ty()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_shifted_squares_share_a_third() {
        let shared = overlap(&[0.0, 0.0, 1.0, 1.0], &[0.0, 0.5, 1.0, 1.5]);
        assert!((shared - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(corners(&[1.0, 2.0, 2.0, 4.0], true), [0.0, 0.0, 4.0, 2.0]);
    }
}

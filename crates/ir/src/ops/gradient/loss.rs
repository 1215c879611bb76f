//! Gradients of the losses of class indices, with respect to the scores.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{floats, from_floats};
use crate::ops::loss::{ATTRS, Targets};
use crate::ops::softmax::{map_lines, softmax_line};
use crate::ops::{Arity, EvalFn, OpDef};
use crate::{Result, Tensor};

const fn row(name: &'static str, eval: EvalFn, examples: &'static [&'static str]) -> OpDef {
    OpDef {
        name,
        inputs: Arity(4, 4),
        attrs: ATTRS,
        eval: Some(eval),
        examples,
        ..BASE
    }
}

/// `SoftmaxCrossEntropyLossGrad(scores, labels, weight, dLoss)`: weight · (softmax − one-hot) ·
/// dLoss, by the sum of weights where the loss is a mean.
pub static SOFTMAX_CROSS_ENTROPY_LOSS_GRAD: OpDef = row(
    "SoftmaxCrossEntropyLossGrad",
    |cx| gradient(cx, true),
    &[
        "edgesmith.SoftmaxCrossEntropyLossGrad(f32[3,5], i64[3]{1,0,4}, , f32[])",
        "edgesmith.SoftmaxCrossEntropyLossGrad(f32[2,3,2], i64[2,2]{2,1,-1,2}, f32[3], f32[2,2]) \
         {reduction=\"none\",ignore_index=-1}",
    ],
);

/// `NegativeLogLikelihoodLossGrad(input, labels, weight, dLoss)`.
pub static NEGATIVE_LOG_LIKELIHOOD_LOSS_GRAD: OpDef = row(
    "NegativeLogLikelihoodLossGrad",
    |cx| gradient(cx, false),
    &["edgesmith.NegativeLogLikelihoodLossGrad(f32[3,5], i64[3]{1,0,4}, , f32[])"],
);

fn gradient(cx: &EvalCx, of_scores: bool) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let targets = Targets::of(cx)?;
    let dloss = floats(cx.input(3)?)?;
    let inner: usize = x.dims()[2..].iter().product();
    let classes = x.dims()[1];
    let mut out = vec![0.0; x.count()];
    if of_scores {
        out = floats(x)?;
        map_lines(&mut out, classes, inner, softmax_line);
    }
    let total = targets.divisor(cx)?;
    for (i, target) in targets.each.iter().enumerate() {
        let factor = match (dloss.len(), target) {
            (_, None) => 0.0,
            (1, Some(t)) => t.weight * dloss[0] / total,
            (_, Some(t)) => t.weight * dloss.get(i).copied().unwrap_or(0.0) / total,
        };
        let first = i / inner * classes * inner + i % inner;
        for c in 0..classes {
            let at = first + c * inner;
            let hit = f64::from(u8::from(target.as_ref().is_some_and(|t| t.class == c)));
            out[at] = (out[at] - hit) * factor;
        }
    }
    Ok(vec![from_floats(x.dtype(), x.dims(), out)?])
}

//! NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss: how unlikely the right classes are.

use super::arith::{expect_dims, expect_rank, floats, from_floats};
use super::softmax::{log_softmax_line, map_lines};
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::Shape;
use crate::{Error, Result, Tensor};

const BASE: OpDef = OpDef {
    inputs: Arity(2, 3),
    attrs: &[
        attr("ignore_index", AttrKind::Int(None)),
        attr("reduction", AttrKind::String(Some("mean"))),
    ],
    infer,
    ..OpDef::BASE
};

/// ONNX NegativeLogLikelihoodLoss, of logarithms of probabilities.
pub static NEGATIVE_LOG_LIKELIHOOD_LOSS: OpDef = OpDef {
    name: "NegativeLogLikelihoodLoss",
    since: &[12, 13, 22],
    eval: Some(|cx| Ok(vec![loss(cx, &floats(cx.input(0)?)?)?])),
    examples: &[
        "NegativeLogLikelihoodLoss(f32[3,5], i64[3]{1,0,4})",
        "NegativeLogLikelihoodLoss(f32[2,3,2], i32[2,2]{2,1,9,2}, f32[3]) \
         {reduction=\"none\",ignore_index=9}",
    ],
    ..BASE
};

/// ONNX SoftmaxCrossEntropyLoss, of scores; the logarithms of probabilities as second output.
pub static SOFTMAX_CROSS_ENTROPY_LOSS: OpDef = OpDef {
    name: "SoftmaxCrossEntropyLoss",
    since: &[12, 13],
    outputs: Arity(1, 2),
    eval: Some(eval_entropy),
    examples: &[
        "SoftmaxCrossEntropyLoss(f32[3,5], i64[3]{1,0,4}) -> 2",
        "SoftmaxCrossEntropyLoss(f64[2,3,2], i64[2,2]{2,1,-1,2}, f64[3]) \
         {reduction=\"sum\",ignore_index=-1}",
    ],
    ..BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let dtype = cx.dtype(0);
    let shape = match cx.node.string("reduction") {
        Some("none") => cx.shape(1).cloned(),
        _ => Some(Shape::default()),
    };
    cx.set_tensor(0, dtype, shape);
    if cx.node.output(1).is_some() {
        cx.set_tensor(1, dtype, cx.shape(0).cloned());
    }
    Ok(())
}

fn eval_entropy(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    expect_rank("the scores", x, 2..=usize::MAX)?;
    let mut data = floats(x)?;
    let inner = x.dims()[2..].iter().product();
    map_lines(&mut data, x.dims()[1], inner, log_softmax_line);
    let loss = loss(cx, &data)?;
    Ok(vec![loss, from_floats(x.dtype(), x.dims(), data)?])
}

/// The loss of logarithms of probabilities of (batch, classes, …).
fn loss(cx: &EvalCx, data: &[f64]) -> Result<Tensor> {
    let (x, target) = (cx.input(0)?, cx.input(1)?);
    expect_rank("the input", x, 2..=usize::MAX)?;
    let (batch, classes) = (x.dims()[0], x.dims()[1]);
    expect_dims("the target", target, &[&[batch], &x.dims()[2..]].concat())?;
    let class_weights = match cx.optional(2) {
        Some(t) => {
            expect_dims("the weight", t, &[classes])?;
            Some(floats(t)?)
        }
        None => None,
    };
    let ignored = cx.node.int("ignore_index");
    let inner: usize = x.dims()[2..].iter().product();
    let targets = target.to_i64()?;
    let mut losses = Vec::with_capacity(targets.len());
    let mut total = 0.0;
    for (i, &class) in targets.iter().enumerate() {
        if ignored == Some(class) {
            losses.push(0.0);
            continue;
        }
        let class = usize::try_from(class).ok().filter(|&c| c < classes);
        let class = class.ok_or_else(|| {
            Error::invalid(format!(
                "the target {} is none of {classes} classes",
                targets[i]
            ))
        })?;
        let weight = class_weights.as_ref().map_or(1.0, |w| w[class]);
        let at = (i / inner * classes + class) * inner + i % inner;
        losses.push(-weight * data[at]);
        total += weight;
    }
    let sum = || losses.iter().sum::<f64>();
    let one = match cx.node.string("reduction").unwrap_or("mean") {
        "none" => return from_floats(x.dtype(), target.dims(), losses),
        "sum" => sum(),
        "mean" => sum() / total,
        other => {
            return Err(Error::unsupported(format!(
                "the reduction \"{other}\" is unknown"
            )));
        }
    };
    from_floats(x.dtype(), &[], vec![one])
}

#[cfg(test)]
mod tests {
    use crate::eval;
    use crate::text::parse;

    #[test]
    fn the_weighted_examples_of_onnx() {
        for (reduction, expected) in [("sum", -1.1f32), ("mean", -1.1 / 0.7)] {
            let model = parse(&format!(
                "opset 13 graph g() -> (y) {{
                x: f32[2,3,2] = {{1,2, 2,2, 3,2, 0,1, 2,2, 1,2}}
                t: i64[2,2] = {{2,1,0,2}} w: f32[3] = {{0.2,0.3,0.1}}
                y = NegativeLogLikelihoodLoss(x, t, w) {{reduction=\"{reduction}\"}} }}"
            ));
            let y = eval::evaluate(&model.unwrap(), &[]).unwrap();
            assert!((y[0].data::<f32>().unwrap()[0] - expected).abs() < 1e-6);
        }
    }
}

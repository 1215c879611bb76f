//! NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss: how unlikely the right classes are.

use super::arith::{expect_dims, expect_rank, floats, from_floats};
use super::softmax::{log_softmax_line, map_lines};
use super::{Arity, AttrDef, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::Shape;
use crate::{Error, Result, Tensor};

const BASE: OpDef = OpDef {
    inputs: Arity(2, 3),
    attrs: ATTRS,
    infer,
    ..OpDef::BASE
};

/// The attributes of both losses.
pub const ATTRS: &[AttrDef] = &[
    attr("ignore_index", AttrKind::Int(None)),
    attr("reduction", AttrKind::String(Some("mean"))),
];

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

/// A right class, and how much it counts.
pub struct Target {
    /// The class.
    pub class: usize,
    /// Its weight.
    pub weight: f64,
}

/// The right class of each element; `None` where it is ignored.
pub struct Targets {
    /// By element, row major.
    pub each: Vec<Option<Target>>,
}

impl Targets {
    /// The targets, input 1, with the weights of classes, input 2, for scores of (batch, classes, …), input 0.
    ///
    /// # Errors
    /// When shapes do not fit each other, or a target is no class.
    pub fn of(cx: &EvalCx) -> Result<Self> {
        let (x, target) = (cx.input(0)?, cx.input(1)?);
        expect_rank("the input", x, 2..=usize::MAX)?;
        let (batch, classes) = (x.dims()[0], x.dims()[1]);
        expect_dims("the target", target, &[&[batch], &x.dims()[2..]].concat())?;
        let weights = match cx.optional(2) {
            Some(t) => {
                expect_dims("the weight", t, &[classes])?;
                Some(floats(t)?)
            }
            None => None,
        };
        let ignored = cx.node.int("ignore_index");
        let find = |wanted: i64| {
            if ignored == Some(wanted) {
                return Ok(None);
            }
            let class = usize::try_from(wanted).ok().filter(|&c| c < classes);
            let class = class.ok_or_else(|| {
                Error::invalid(format!("the target {wanted} is none of {classes} classes"))
            })?;
            let weight = weights.as_ref().map_or(1.0, |w| w[class]);
            Ok(Some(Target { class, weight }))
        };
        let each: Result<Vec<_>> = target.to_i64()?.into_iter().map(find).collect();
        Ok(Self { each: each? })
    }

    /// What the sum of losses is divided by: the sum of weights where attribute `reduction` asks for a mean, else 1.
    ///
    /// # Errors
    /// When the reduction is unknown.
    pub fn divisor(&self, cx: &EvalCx) -> Result<f64> {
        match cx.node.string("reduction").unwrap_or("mean") {
            "none" | "sum" => Ok(1.0),
            "mean" => Ok(self.each.iter().flatten().map(|t| t.weight).sum()),
            other => Err(Error::unsupported(format!(
                "the reduction \"{other}\" is unknown"
            ))),
        }
    }
}

/// The loss of logarithms of probabilities of (batch, classes, …).
fn loss(cx: &EvalCx, data: &[f64]) -> Result<Tensor> {
    let (x, target) = (cx.input(0)?, cx.input(1)?);
    let targets = Targets::of(cx)?;
    let inner: usize = x.dims()[2..].iter().product();
    let at = |i: usize, class: usize| (i / inner * x.dims()[1] + class) * inner + i % inner;
    let of = |(i, t): (usize, &Option<Target>)| {
        t.as_ref().map_or(0.0, |t| -t.weight * data[at(i, t.class)])
    };
    let losses: Vec<f64> = targets.each.iter().enumerate().map(of).collect();
    if cx.node.string("reduction") == Some("none") {
        return from_floats(x.dtype(), target.dims(), losses);
    }
    let one = losses.iter().sum::<f64>() / targets.divisor(cx)?;
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

//! LinearRegressor and LinearClassifier.

use super::BASE;
use super::labels::{self, Labels, largest};
use super::samples::{self, Samples};
use super::transform::Transform;
use crate::eval::EvalCx;
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::{DType, Dim, Error, Node, Result, Tensor, checked_count};

/// `ai.onnx.ml.LinearRegressor`.
pub static LINEAR_REGRESSOR: OpDef = OpDef {
    name: "LinearRegressor",
    attrs: &[
        attr("coefficients", AttrKind::Floats),
        attr("intercepts", AttrKind::Floats),
        attr("post_transform", AttrKind::String(Some("NONE"))),
        attr("targets", AttrKind::Int(Some(1))),
    ],
    infer: |cx| {
        let shape = samples::results(cx, Dim::Known(targets(cx.node)?));
        cx.set_tensor(0, Some(DType::F32), Some(shape));
        Ok(())
    },
    eval: Some(regress),
    examples: &[
        "ai.onnx.ml.LinearRegressor(f32[3,2]) {coefficients=[0.5,-1.0], intercepts=[0.25]}",
        "ai.onnx.ml.LinearRegressor(i64[3,2]) {coefficients=[0.5,-1.0,2.0,1.5], targets=2, \
         post_transform=\"SOFTMAX\"}",
    ],
    ..BASE
};

/// `ai.onnx.ml.LinearClassifier`.
pub static LINEAR_CLASSIFIER: OpDef = OpDef {
    name: "LinearClassifier",
    outputs: Arity(2, 2),
    attrs: &[
        attr("classlabels_ints", AttrKind::Ints),
        attr("classlabels_strings", AttrKind::Strings),
        attr("coefficients", AttrKind::Floats),
        attr("intercepts", AttrKind::Floats),
        attr("multi_class", AttrKind::Int(Some(0))),
        attr("post_transform", AttrKind::String(Some("NONE"))),
    ],
    infer: |cx| {
        let labels = labels_of(cx.node)?;
        let scores = labels.count();
        labels::infer(cx, &labels, Dim::Known(scores));
        Ok(())
    },
    eval: Some(classify),
    examples: &[
        "ai.onnx.ml.LinearClassifier(f32[3,2]) {coefficients=[0.5,-1.0,2.0,1.5,0.0,1.0], \
         intercepts=[0.25,0.5,-0.5], classlabels_ints=[3,4,5], post_transform=\"SOFTMAX\"}",
        "ai.onnx.ml.LinearClassifier(f32[3,2]) {coefficients=[0.5,-1.0], intercepts=[0.25], \
         classlabels_strings=[\"no\",\"yes\"], post_transform=\"LOGISTIC\"}",
    ],
    ..BASE
};

fn labels_of(node: &Node) -> Result<Labels> {
    Labels::of(node, "classlabels_ints", "classlabels_strings")
}

fn targets(node: &Node) -> Result<usize> {
    let n = node.int("targets").unwrap_or(1);
    usize::try_from(n)
        .ok()
        .filter(|&n| n > 0 && checked_count(&[n]).is_ok())
        .ok_or_else(|| Error::invalid(format!("targets is {n}")))
}

/// The scores of each sample for `targets` rows of coefficients.
fn scores(node: &Node, samples: &Samples, targets: usize) -> Result<Vec<Vec<f64>>> {
    let coefficients = node.floats("coefficients").unwrap_or_default();
    if Some(coefficients.len()) != targets.checked_mul(samples.width) {
        return Err(Error::invalid(format!(
            "{} coefficients do not fit {targets} targets of {} features",
            coefficients.len(),
            samples.width
        )));
    }
    let intercepts = node.floats("intercepts").unwrap_or_default();
    let score = |sample: &[f64], t: usize| {
        let row = &coefficients[t * samples.width..][..samples.width];
        let sum: f64 = row.iter().zip(sample).map(|(&c, x)| f64::from(c) * x).sum();
        sum + f64::from(intercepts.get(t).copied().unwrap_or(0.0))
    };
    let all = samples.rows();
    Ok(all
        .map(|sample| (0..targets).map(|t| score(sample, t)).collect())
        .collect())
}

fn matrix(rows: Vec<Vec<f64>>, columns: usize) -> Result<Tensor> {
    let dims = [rows.len(), columns];
    let data = rows.into_iter().flatten().map(|v| v as f32).collect();
    Tensor::from_vec(&dims, data)
}

fn regress(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let samples = Samples::of(cx.input(0)?)?;
    let targets = targets(cx.node)?;
    let transform = Transform::of(cx.node)?;
    let mut rows = scores(cx.node, &samples, targets)?;
    // One score alone is only changed by the quantile function.
    if targets > 1 || transform == Transform::Probit {
        rows.iter_mut().for_each(|r| transform.apply(r));
    }
    Ok(vec![matrix(rows, targets)?])
}

fn classify(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let samples = Samples::of(cx.input(0)?)?;
    let labels = labels_of(cx.node)?;
    let transform = Transform::of(cx.node)?;
    let given = cx.node.floats("coefficients").unwrap_or_default().len() / samples.width;
    let single = given == 1 && labels.count() == 2;
    let mut rows = scores(cx.node, &samples, if single { 1 } else { labels.count() })?;
    let class = |r: &Vec<f64>| match r[..] {
        [score] => usize::from(score > 0.0),
        _ => largest(r),
    };
    let classes: Vec<usize> = rows.iter().map(class).collect();
    for r in &mut rows {
        match (single, transform) {
            (false, _) => transform.apply(r),
            (true, Transform::Logistic) => {
                *r = vec![-r[0], r[0]];
                transform.apply(r);
            }
            (true, _) => {
                *r = vec![1.0 - r[0], r[0]];
                if transform == Transform::Probit {
                    transform.apply(r);
                }
            }
        }
    }
    Ok(vec![
        labels.tensor(&classes)?,
        matrix(rows, labels.count())?,
    ])
}

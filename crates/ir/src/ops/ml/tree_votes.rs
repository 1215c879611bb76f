//! TreeEnsembleClassifier: the votes of trees for classes.

use super::BASE;
use super::labels::{self, Labels, largest};
use super::samples::Samples;
use super::transform::Transform;
use super::trees::{Aggregate, by_number, floats, ints, is_single};
use crate::eval::EvalCx;
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::{DType, Dim, Node, Result, Tensor};

/// `ai.onnx.ml.TreeEnsembleClassifier`.
///
/// Where all votes of a model of two classes are for one of them, the scores become those of both
/// as in ONNX Runtime. Where both get votes, the class of the larger score wins.
pub static TREE_ENSEMBLE_CLASSIFIER: OpDef = OpDef {
    name: "TreeEnsembleClassifier",
    since: &[1, 3, 5],
    outputs: Arity(2, 2),
    attrs: &[
        attr("base_values", AttrKind::Floats),
        attr("base_values_as_tensor", AttrKind::Tensor),
        attr("class_ids", AttrKind::Ints),
        attr("class_nodeids", AttrKind::Ints),
        attr("class_treeids", AttrKind::Ints),
        attr("class_weights", AttrKind::Floats),
        attr("class_weights_as_tensor", AttrKind::Tensor),
        attr("classlabels_int64s", AttrKind::Ints),
        attr("classlabels_strings", AttrKind::Strings),
        attr("nodes_falsenodeids", AttrKind::Ints),
        attr("nodes_featureids", AttrKind::Ints),
        attr("nodes_hitrates", AttrKind::Floats),
        attr("nodes_hitrates_as_tensor", AttrKind::Tensor),
        attr("nodes_missing_value_tracks_true", AttrKind::Ints),
        attr("nodes_modes", AttrKind::Strings),
        attr("nodes_nodeids", AttrKind::Ints),
        attr("nodes_treeids", AttrKind::Ints),
        attr("nodes_truenodeids", AttrKind::Ints),
        attr("nodes_values", AttrKind::Floats),
        attr("nodes_values_as_tensor", AttrKind::Tensor),
        attr("post_transform", AttrKind::String(Some("NONE"))),
    ],
    infer: |cx| {
        let labels = labels_of(cx.node)?;
        let scores = labels.count();
        labels::infer(cx, &labels, Dim::Known(scores));
        Ok(())
    },
    eval: Some(eval),
    examples: &[
        "ai.onnx.ml.TreeEnsembleClassifier(f32[4,2]) {nodes_treeids=[0,0,0], nodes_nodeids=[0,1,2], \
         nodes_featureids=[1,0,0], nodes_values=[0.5,0.0,0.0], \
         nodes_modes=[\"BRANCH_LEQ\",\"LEAF\",\"LEAF\"], nodes_truenodeids=[1,0,0], \
         nodes_falsenodeids=[2,0,0], class_treeids=[0,0,0], class_nodeids=[1,2,2], \
         class_ids=[0,1,2], class_weights=[1.5,0.25,0.75], classlabels_int64s=[3,4,5]}",
        "ai.onnx.ml.TreeEnsembleClassifier(i64[4,2]) {nodes_treeids=[0,0,0], nodes_nodeids=[0,1,2], \
         nodes_featureids=[1,0,0], nodes_values=[0.5,0.0,0.0], \
         nodes_modes=[\"BRANCH_GT\",\"LEAF\",\"LEAF\"], nodes_truenodeids=[1,0,0], \
         nodes_falsenodeids=[2,0,0], class_treeids=[0,0], class_nodeids=[1,2], class_ids=[0,0], \
         class_weights=[1.5,-0.25], classlabels_strings=[\"no\",\"yes\"], \
         post_transform=\"LOGISTIC\"}",
    ],
    ..BASE
};

fn labels_of(node: &Node) -> Result<Labels> {
    Labels::of(node, "classlabels_int64s", "classlabels_strings")
}

/// What the votes of a model are like.
struct Votes {
    classes: usize,
    /// All votes are for one of two classes.
    one_sided: bool,
    positive: bool,
    base: Vec<f64>,
    transform: Transform,
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let labels = labels_of(cx.node)?;
    let classes = labels.count();
    // Of one class, its votes and their opposite are told apart.
    let trees = by_number(cx.node, "class", classes)?;
    let ids = ints(cx.node, "class_ids");
    let votes = Votes {
        classes,
        one_sided: classes == 2 && ids.windows(2).all(|pair| pair[0] == pair[1]),
        positive: trees.votes.iter().flatten().all(|v| v.1 >= 0.0),
        base: floats(cx.node, "base_values")?,
        transform: Transform::of(cx.node)?,
    };
    let x = cx.input(0)?;
    let samples = Samples::of(x)?;
    let (mut chosen, mut scores) = (Vec::new(), Vec::new());
    for sample in samples.rows() {
        let sums = Aggregate::Sum.scores(&trees, sample, classes, is_single(x))?;
        let (class, of_sample) = votes.finish(sums);
        chosen.push(class);
        scores.extend(of_sample.into_iter().map(|s| s as f32));
    }
    let y = match (&labels, classes) {
        // One label says nothing of the other class: 1 and 0 stand for both.
        (_, 1) => match labels.dtype() {
            DType::String => Labels::Strings(vec!["0".into()]),
            _ => Labels::Ints(vec![0]),
        }
        .tensor(&chosen)?,
        _ => labels.tensor(&chosen)?,
    };
    Ok(vec![
        y,
        Tensor::from_vec(&[samples.count, classes], scores)?,
    ])
}

impl Votes {
    /// The class and the scores of a sample, from the sums of its votes.
    fn finish(&self, mut sums: Vec<Option<f64>>) -> (usize, Vec<f64>) {
        match (self.base.len(), self.classes) {
            (1, 2) => sums[0] = sums[0].map(|s| s + self.base[0]),
            (n, c) if n == c => {
                let both = sums.iter_mut().zip(&self.base);
                both.filter(|(s, _)| !self.one_sided || s.is_some())
                    .for_each(|(s, b)| *s = Some(s.unwrap_or(0.0) + b));
            }
            _ => {}
        }
        let limit = if self.positive && self.one_sided {
            0.5
        } else {
            0.0
        };
        if self.classes == 1 || self.classes == 2 && sums[1].is_none() {
            let score = sums[0].unwrap_or(0.0);
            return (usize::from(score > limit), self.alone(score));
        }
        let class = if self.one_sided {
            usize::from(sums[1].unwrap_or(0.0) > limit)
        } else {
            largest(
                &sums
                    .iter()
                    .map(|s| s.unwrap_or(f64::NEG_INFINITY))
                    .collect::<Vec<_>>(),
            )
        };
        let mut scores: Vec<f64> = sums.into_iter().map(Option::unwrap_or_default).collect();
        self.transform.apply(&mut scores);
        (class, scores)
    }

    /// The scores where only the first class has one.
    fn alone(&self, score: f64) -> Vec<f64> {
        let mut scores = match (self.classes, self.transform) {
            (1, Transform::Probit) => vec![score],
            (1, _) => return vec![score],
            (_, Transform::Logistic) => vec![-score, score],
            _ if self.positive => vec![1.0 - score, score],
            _ => vec![-score, score],
        };
        if matches!(self.transform, Transform::Logistic | Transform::Probit) {
            self.transform.apply(&mut scores);
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(positive: bool, transform: Transform) -> Votes {
        Votes {
            classes: 2,
            one_sided: true,
            positive,
            base: vec![],
            transform,
        }
    }

    /// Numbers of ONNX Runtime 1.31.1.
    #[test]
    fn one_sided_votes_become_scores_of_both_classes() {
        let probability = votes(true, Transform::None);
        assert_eq!(
            probability.finish(vec![Some(0.25), None]),
            (0, vec![0.75, 0.25])
        );
        let margin = votes(false, Transform::None);
        assert_eq!(
            margin.finish(vec![Some(-0.25), None]),
            (0, vec![0.25, -0.25])
        );
        let (class, scores) = votes(true, Transform::Logistic).finish(vec![Some(0.8), None]);
        assert_eq!(class, 1);
        assert!((scores[1] - 0.689_974_5).abs() < 1e-6);
    }

    #[test]
    fn the_larger_score_wins_where_both_classes_have_votes() {
        let both = Votes {
            one_sided: false,
            ..votes(true, Transform::None)
        };
        assert_eq!(both.finish(vec![Some(0.7), Some(0.3)]), (0, vec![0.7, 0.3]));
    }
}

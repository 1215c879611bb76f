//! TreeEnsemble of version 5, which keeps branches and leaves in lists of their own, and
//! TreeEnsembleRegressor.

use super::samples::{self, Samples};
use super::transform::Transform;
use super::trees::{
    Aggregate, Branch, Next, Test, Trees, by_number, expect_len, floats, ints, is_single, place,
    tensor,
};
use super::{BASE, trees};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::from_floats;
use crate::ops::{AttrDef, AttrKind, OpDef, attr};
use crate::{DType, Dim, Error, Node, Result, Tensor, checked_count};

/// `ai.onnx.ml.TreeEnsemble`.
pub static TREE_ENSEMBLE: OpDef = OpDef {
    name: "TreeEnsemble",
    since: &[5],
    attrs: &[
        attr("aggregate_function", AttrKind::Int(Some(1))),
        attr("leaf_targetids", AttrKind::Ints),
        attr("leaf_weights", AttrKind::Tensor),
        attr("membership_values", AttrKind::Tensor),
        attr("n_targets", AttrKind::Int(None)),
        attr("nodes_falseleafs", AttrKind::Ints),
        attr("nodes_falsenodeids", AttrKind::Ints),
        attr("nodes_featureids", AttrKind::Ints),
        attr("nodes_hitrates", AttrKind::Tensor),
        attr("nodes_missing_value_tracks_true", AttrKind::Ints),
        attr("nodes_modes", AttrKind::Tensor),
        attr("nodes_splits", AttrKind::Tensor),
        attr("nodes_trueleafs", AttrKind::Ints),
        attr("nodes_truenodeids", AttrKind::Ints),
        attr("post_transform", AttrKind::Int(Some(0))),
        attr("tree_roots", AttrKind::Ints),
    ],
    infer: |cx| infer(cx, cx.dtype(0)),
    eval: Some(|cx| {
        let aggregate = match cx.int("aggregate_function", 1) {
            0 => Aggregate::Average,
            1 => Aggregate::Sum,
            2 => Aggregate::Min,
            3 => Aggregate::Max,
            other => return Err(Error::invalid(format!("aggregate_function is {other}"))),
        };
        let transform = Transform::of_code(cx.int("post_transform", 0))?;
        let trees = by_lists(cx.node, targets(cx.node)?)?;
        regress(cx, &trees, aggregate, transform, &[], cx.input(0)?.dtype())
    }),
    examples: &[
        "ai.onnx.ml.TreeEnsemble@5(f32[4,2]) {n_targets=2, tree_roots=[0], \
                 nodes_featureids=[0,1], nodes_splits=f32[2]{0.25,-0.5}, nodes_modes=u8[2]{0,3}, \
                 nodes_truenodeids=[1,0], nodes_trueleafs=[0,1], nodes_falsenodeids=[2,1], \
                 nodes_falseleafs=[1,1], leaf_targetids=[0,1,0], leaf_weights=f32[3]{1,2,3}}",
    ],
    ..BASE
};

/// The attributes of nodes that TreeEnsembleRegressor and TreeEnsembleClassifier share, and those
/// of the regressor.
const REGRESSOR: &[AttrDef] = &[
    attr("aggregate_function", AttrKind::String(Some("SUM"))),
    attr("base_values", AttrKind::Floats),
    attr("base_values_as_tensor", AttrKind::Tensor),
    attr("n_targets", AttrKind::Int(None)),
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
    attr("target_ids", AttrKind::Ints),
    attr("target_nodeids", AttrKind::Ints),
    attr("target_treeids", AttrKind::Ints),
    attr("target_weights", AttrKind::Floats),
    attr("target_weights_as_tensor", AttrKind::Tensor),
];

/// `ai.onnx.ml.TreeEnsembleRegressor`.
pub static TREE_ENSEMBLE_REGRESSOR: OpDef = OpDef {
    name: "TreeEnsembleRegressor",
    since: &[1, 3, 5],
    attrs: REGRESSOR,
    infer: |cx| infer(cx, Some(DType::F32)),
    eval: Some(|cx| {
        let aggregate = match cx.node.string("aggregate_function").unwrap_or("SUM") {
            "AVERAGE" => Aggregate::Average,
            "SUM" => Aggregate::Sum,
            "MIN" => Aggregate::Min,
            "MAX" => Aggregate::Max,
            other => return Err(Error::invalid(format!("aggregate_function is \"{other}\""))),
        };
        let trees = by_number(cx.node, "target", targets(cx.node)?)?;
        let base = floats(cx.node, "base_values")?;
        let transform = Transform::of(cx.node)?;
        regress(cx, &trees, aggregate, transform, &base, DType::F32)
    }),
    examples: &[
        "ai.onnx.ml.TreeEnsembleRegressor(f32[4,2]) {n_targets=1, nodes_treeids=[0,0,0], \
                 nodes_nodeids=[0,1,2], nodes_featureids=[1,0,0], nodes_values=[0.5,0.0,0.0], \
                 nodes_modes=[\"BRANCH_LEQ\",\"LEAF\",\"LEAF\"], nodes_truenodeids=[1,0,0], \
                 nodes_falsenodeids=[2,0,0], target_treeids=[0,0], target_nodeids=[1,2], \
                 target_ids=[0,0], target_weights=[1.5,-2.0], base_values=[0.25]}",
    ],
    ..BASE
};

fn targets(node: &Node) -> Result<usize> {
    let n = node.int("n_targets").unwrap_or(1);
    usize::try_from(n)
        .ok()
        .filter(|&n| n > 0 && checked_count(&[n]).is_ok())
        .ok_or_else(|| Error::invalid(format!("n_targets is {n}")))
}

fn infer(cx: &mut InferCx, dtype: Option<DType>) -> Result<()> {
    let shape = samples::results(cx, Dim::Known(targets(cx.node)?));
    cx.set_tensor(0, dtype, Some(shape));
    Ok(())
}

fn regress(
    cx: &EvalCx,
    trees: &Trees,
    aggregate: Aggregate,
    transform: Transform,
    base: &[f64],
    dtype: DType,
) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let samples = Samples::of(x)?;
    let targets = targets(cx.node)?;
    let dims = [samples.count, targets];
    let mut y = Vec::with_capacity(checked_count(&dims)?);
    for sample in samples.rows() {
        let scores = aggregate.scores(trees, sample, targets, is_single(x))?;
        let mut scores: Vec<f64> = scores.into_iter().map(Option::unwrap_or_default).collect();
        if base.len() == targets {
            scores.iter_mut().zip(base).for_each(|(s, b)| *s += b);
        }
        // One score alone is only changed by the quantile function.
        if targets > 1 || transform == Transform::Probit {
            transform.apply(&mut scores);
        }
        y.extend(scores);
    }
    Ok(vec![from_floats(dtype, &dims, y)?])
}

/// The trees of TreeEnsemble.
fn by_lists(node: &Node, targets: usize) -> Result<Trees> {
    let modes = tensor(node, "nodes_modes")?;
    let n = modes.len();
    let splits = tensor(node, "nodes_splits")?;
    expect_len("nodes_splits", &splits, n)?;
    let list = |name: &str| {
        let list = ints(node, name);
        expect_len(name, list, n).map(|()| list)
    };
    let features = list("nodes_featureids")?;
    let (holds, fails) = (list("nodes_truenodeids")?, list("nodes_falsenodeids")?);
    let (holds_leaf, fails_leaf) = (list("nodes_trueleafs")?, list("nodes_falseleafs")?);
    let missing = ints(node, "nodes_missing_value_tracks_true");
    let weights = tensor(node, "leaf_weights")?;
    let ids = ints(node, "leaf_targetids");
    expect_len("leaf_targetids", ids, weights.len())?;
    let votes = ids.iter().zip(&weights);
    let votes = votes
        .map(|(&id, &w)| Ok(vec![(place(id, targets, "target")?, w)]))
        .collect::<Result<Vec<_>>>()?;
    let next = |to: i64, leaf: i64| match leaf {
        0 => place(to, n, "node").map(Next::Node),
        _ => place(to, weights.len(), "leaf").map(Next::Leaf),
    };
    let mut members = Members::of(node)?;
    let mut branches = Vec::with_capacity(n);
    for i in 0..n {
        branches.push(Branch {
            feature: place(features[i], usize::MAX, "feature")?,
            test: match modes[i] {
                0.0 => Test::LessOrEqual(splits[i]),
                1.0 => Test::Less(splits[i]),
                2.0 => Test::GreaterOrEqual(splits[i]),
                3.0 => Test::Greater(splits[i]),
                4.0 => Test::Equal(splits[i]),
                5.0 => Test::NotEqual(splits[i]),
                6.0 => Test::Member(members.next()?),
                other => return Err(Error::invalid(format!("the node mode {other} is unknown"))),
            },
            missing_holds: missing.get(i).is_some_and(|&m| m != 0),
            next: [
                next(holds[i], holds_leaf[i])?,
                next(fails[i], fails_leaf[i])?,
            ],
        });
    }
    let roots = trees::ints(node, "tree_roots").iter();
    let roots = roots.map(|&r| place(r, n, "root").map(Next::Node));
    Ok(Trees {
        branches,
        roots: roots.collect::<Result<_>>()?,
        votes,
    })
}

/// The sets of attribute `membership_values`, parted by what is no number.
struct Members(std::vec::IntoIter<Vec<f64>>);

impl Members {
    fn of(node: &Node) -> Result<Self> {
        let all = match node.tensor("membership_values") {
            Some(_) => tensor(node, "membership_values")?,
            None => Vec::new(),
        };
        let sets: Vec<Vec<f64>> = all.split(|v| v.is_nan()).map(<[f64]>::to_vec).collect();
        Ok(Self(sets.into_iter()))
    }

    fn next(&mut self) -> Result<Vec<f64>> {
        self.0
            .next()
            .ok_or_else(|| Error::invalid("membership_values has too few sets"))
    }
}

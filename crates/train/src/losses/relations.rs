//! Losses of how samples, or words, stand to each other.

use edgesmith_ir::{Attribute, Error, Node, ValueId};

use super::{Loss, Needs, by_at_least, mean_smooth, mean_square, normed, pair, same};
use crate::draft::Draft;

/// MiniLM's distribution of attention (W. Wang et al., 2020, equation 5).
pub static ATTENTION: Loss = Loss {
    name: "attention",
    about: "The distributions of attention of a layer (MiniLM, Wang et al. 2020); as many heads",
    formula: "mean over heads and words of KL(t || s), of probabilities along the last axis",
    source: "Wang et al., MiniLM, 2020, equation 5",
    needs: Needs::Pair,
    same: Some(same::probabilities),
    add: |draft, request| {
        let (s, t) = pair(draft, request)?;
        Ok(divergence(draft, t, s))
    },
};

/// MiniLM's relation of values (W. Wang et al., 2020, equation 6).
pub static VALUES: Loss = Loss {
    name: "value-relation",
    about: "How the values of a layer stand to each other (MiniLM, Wang et al. 2020); as many heads",
    formula: "mean of KL(r(t) || r(s)), r(V) = softmax(V V' / sqrt(width)), V [batch, heads, words, width]",
    source: "Wang et al., MiniLM, 2020, equation 6",
    needs: Needs::Pair,
    same: Some(same::values),
    add: |draft, request| {
        let (s, t) = pair(draft, request)?;
        let mut relations = Vec::new();
        for v in [s, t] {
            let width = draft.shape(v).and_then(|s| s.last()?.known());
            let width = width.ok_or_else(|| Error::unsupported("the width is not known"))?;
            let scores = products(draft, v);
            let scores = draft.scaled(scores, 1.0 / (width as f64).sqrt());
            relations.push(draft.op_with("Softmax", &[scores], "axis", -1));
        }
        Ok(divergence(draft, relations[1], relations[0]))
    },
};

/// Similarity-preserving distillation (F. Tung and G. Mori, 2019).
pub static SIMILARITY: Loss = Loss {
    name: "similarity",
    about: "How alike samples of a batch are (Tung and Mori 2019); widths may differ",
    formula: "mean of (G(s) - G(t))^2, G = F F' with rows of length 1, F [batch, features]",
    source: "Tung and Mori, Similarity-preserving knowledge distillation, 2019, section 3",
    needs: Needs::Pair,
    same: None,
    add: |draft, request| {
        let (s, t) = pair(draft, request)?;
        let [s, t] = [s, t].map(|v| {
            let flat = draft.op_with("Flatten", &[v], "axis", 1);
            let products = products(draft, flat);
            normed(draft, products, -1, 1e-8)
        });
        Ok(mean_square(draft, s, t))
    },
};

/// Relational distillation by distance (W. Park et al., 2019, equations 5 to 7).
pub static DISTANCE: Loss = Loss {
    name: "rkd-distance",
    about: "Distances between samples of a batch (Park et al. 2019, distance); widths may differ",
    formula: "mean over pairs of smoothL1(d(s) - d(t)), d = ||fi - fj|| by its mean over the batch",
    source: "Park et al., Relational knowledge distillation, 2019, equations 5 to 7",
    needs: Needs::Pair,
    same: None,
    add: |draft, request| {
        let (s, t) = pair(draft, request)?;
        let [s, t] = [s, t].map(|v| {
            let differences = differences(draft, v);
            let distances = lengths(draft, differences, -1, false);
            // The mean is of pairs that are apart: a sample is no pair with itself.
            let zero = draft.number(1e-6);
            let apart = draft.op("Greater", &[distances, zero]);
            let apart = draft.op_with("Cast", &[apart], "to", 1);
            let distances = draft.op("Mul", &[distances, apart]);
            let sum = draft.op_with("ReduceSum", &[distances], "keepdims", 0);
            let count = draft.op_with("ReduceSum", &[apart], "keepdims", 0);
            let mean = by_at_least(draft, sum, count, 1.0);
            by_at_least(draft, distances, mean, 1e-12)
        });
        Ok(mean_smooth(draft, s, t))
    },
};

/// Relational distillation by angle (W. Park et al., 2019, equations 8 and 9).
pub static ANGLE: Loss = Loss {
    name: "rkd-angle",
    about: "Angles between samples of a batch (Park et al. 2019, angle); widths may differ",
    formula: "mean over triples of smoothL1(cos(s) - cos(t)), cos = <eij, ekj>, e of length 1",
    source: "Park et al., Relational knowledge distillation, 2019, equations 8 and 9",
    needs: Needs::Pair,
    same: None,
    add: |draft, request| {
        let (s, t) = pair(draft, request)?;
        let [s, t] = [s, t].map(|v| {
            // [j, i, features]: from sample j to sample i.
            let differences = differences(draft, v);
            let length = lengths(draft, differences, -1, true);
            let directions = by_at_least(draft, differences, length, 1e-6);
            products(draft, directions)
        });
        Ok(mean_smooth(draft, s, t))
    },
};

/// X·Xᵀ of the last two axes.
fn products(draft: &mut Draft, x: ValueId) -> ValueId {
    let node = Node::new("FusedMatMul", "")
        .in_domain("com.microsoft")
        .with("transB", Attribute::Int(1));
    draft.add(node, &[x, x])
}

/// The differences of all pairs of samples, [batch, batch, features].
fn differences(draft: &mut Draft, v: ValueId) -> ValueId {
    let flat = draft.op_with("Flatten", &[v], "axis", 1);
    let [first, second] = [0i64, 1].map(|axis| {
        let axis = draft.list(&[axis]);
        draft.op("Unsqueeze", &[flat, axis])
    });
    draft.op("Sub", &[first, second])
}

/// ‖x‖ along an axis, with a square that is at least 1e-12, so that a zero has a gradient.
fn lengths(draft: &mut Draft, x: ValueId, axis: i64, keep: bool) -> ValueId {
    let square = draft.op("Mul", &[x, x]);
    let sum = draft.reduced("ReduceSum", square, &[axis], keep);
    let least = draft.number(1e-12);
    let sum = draft.op("Max", &[sum, least]);
    draft.op("Sqrt", &[sum])
}

/// The mean of KL(q‖p) along the last axis, of probabilities.
fn divergence(draft: &mut Draft, q: ValueId, p: ValueId) -> ValueId {
    let least = draft.number(1e-12);
    let [log_q, log_p] = [q, p].map(|v| {
        let v = draft.op("Max", &[v, least]);
        draft.op("Log", &[v])
    });
    let difference = draft.op("Sub", &[log_q, log_p]);
    let product = draft.op("Mul", &[q, difference]);
    let by_line = draft.reduced("ReduceSum", product, &[-1], false);
    draft.mean(by_line)
}

//! SVMRegressor and SVMClassifier: support vector machines, and linear ones without vectors.

use super::BASE;
use super::labels::{self, Labels, largest};
use super::samples::{self, Samples};
use super::transform::Transform;
use crate::eval::EvalCx;
use crate::ops::unary::sigmoid;
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::{DType, Dim, Error, Node, Result, Tensor};

/// `ai.onnx.ml.SVMRegressor`.
pub static SVM_REGRESSOR: OpDef = OpDef {
    name: "SVMRegressor",
    attrs: &[
        attr("coefficients", AttrKind::Floats),
        attr("kernel_params", AttrKind::Floats),
        attr("kernel_type", AttrKind::String(Some("LINEAR"))),
        attr("n_supports", AttrKind::Int(Some(0))),
        attr("one_class", AttrKind::Int(Some(0))),
        attr("post_transform", AttrKind::String(Some("NONE"))),
        attr("rho", AttrKind::Floats),
        attr("support_vectors", AttrKind::Floats),
    ],
    infer: |cx| {
        let shape = samples::results(cx, Dim::Known(1));
        cx.set_tensor(0, Some(DType::F32), Some(shape));
        Ok(())
    },
    eval: Some(regress),
    examples: &[
        "ai.onnx.ml.SVMRegressor(f32[3,2]) {coefficients=[0.5,-1.0], n_supports=2, \
         support_vectors=[1.0,0.0,0.5,-0.5], rho=[0.25], kernel_type=\"RBF\", \
         kernel_params=[0.5,0.0,3.0]}",
        "ai.onnx.ml.SVMRegressor(f32[3,2]) {coefficients=[0.5,-1.0], rho=[0.25], one_class=1, \
         kernel_params=[0.5,0.0,3.0]}",
    ],
    ..BASE
};

/// `ai.onnx.ml.SVMClassifier`. Without probabilities the scores are those of the pairs of classes,
/// as in ONNX Runtime.
pub static SVM_CLASSIFIER: OpDef = OpDef {
    name: "SVMClassifier",
    outputs: Arity(2, 2),
    attrs: &[
        attr("classlabels_ints", AttrKind::Ints),
        attr("classlabels_strings", AttrKind::Strings),
        attr("coefficients", AttrKind::Floats),
        attr("kernel_params", AttrKind::Floats),
        attr("kernel_type", AttrKind::String(Some("LINEAR"))),
        attr("post_transform", AttrKind::String(Some("NONE"))),
        attr("prob_a", AttrKind::Floats),
        attr("prob_b", AttrKind::Floats),
        attr("rho", AttrKind::Floats),
        attr("support_vectors", AttrKind::Floats),
        attr("vectors_per_class", AttrKind::Ints),
    ],
    infer: |cx| {
        let labels = labels_of(cx.node)?;
        let classes = labels.count();
        let pairs = vectors(cx.node) > 0 && floats(cx.node, "prob_a").is_empty() && classes > 2;
        let scores = if pairs {
            classes * (classes - 1) / 2
        } else {
            classes
        };
        labels::infer(cx, &labels, Dim::Known(scores));
        Ok(())
    },
    eval: Some(classify),
    examples: &[
        "ai.onnx.ml.SVMClassifier(f32[3,2]) {coefficients=[0.5,-0.25,-0.25], vectors_per_class=[1,2], \
         support_vectors=[1.0,0.0,0.5,-0.5,-1.0,1.0], rho=[0.25], kernel_type=\"RBF\", \
         kernel_params=[0.5,0.0,3.0], classlabels_ints=[3,4]}",
        "ai.onnx.ml.SVMClassifier(f32[3,2]) {coefficients=[0.5,-0.25,-0.25,1.0,0.5,-0.75], \
         vectors_per_class=[1,1,1], support_vectors=[1.0,0.0,0.5,-0.5,-1.0,1.0], \
         rho=[0.25,0.5,-0.5], prob_a=[-0.5,-1.0,-0.75], prob_b=[0.0,0.1,0.2], kernel_type=\"POLY\", \
         kernel_params=[0.5,0.5,2.0], classlabels_strings=[\"a\",\"b\",\"c\"]}",
    ],
    ..BASE
};

fn labels_of(node: &Node) -> Result<Labels> {
    Labels::of(node, "classlabels_ints", "classlabels_strings")
}

fn floats(node: &Node, name: &str) -> Vec<f64> {
    let list = node.floats(name).unwrap_or_default();
    list.iter().map(|&v| f64::from(v)).collect()
}

/// How many support vectors a classifier has.
fn vectors(node: &Node) -> usize {
    let counts = node.ints("vectors_per_class").unwrap_or_default();
    counts.iter().fold(0, |n: usize, &c| {
        n.saturating_add(usize::try_from(c).unwrap_or(0))
    })
}

/// The similarity of two vectors.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    kind: Kind,
    gamma: f64,
    offset: f64,
    degree: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linear,
    Polynomial,
    Radial,
    Sigmoid,
}

impl Kernel {
    fn of(node: &Node) -> Result<Self> {
        let kind = match node.string("kernel_type").unwrap_or("LINEAR") {
            "LINEAR" => Kind::Linear,
            "POLY" => Kind::Polynomial,
            "RBF" => Kind::Radial,
            "SIGMOID" => Kind::Sigmoid,
            other => return Err(Error::invalid(format!("kernel_type is \"{other}\""))),
        };
        let parameters = floats(node, "kernel_params");
        let parameter = |i: usize| parameters.get(i).copied().unwrap_or(0.0);
        Ok(Self {
            kind,
            gamma: parameter(0),
            offset: parameter(1),
            degree: parameter(2),
        })
    }

    fn apply(self, a: &[f64], b: &[f64]) -> f64 {
        let pairs = || a.iter().zip(b);
        let dot = || pairs().map(|(a, b)| a * b).sum::<f64>();
        match self.kind {
            Kind::Linear => dot(),
            Kind::Polynomial => (self.gamma * dot() + self.offset).powf(self.degree),
            Kind::Sigmoid => (self.gamma * dot() + self.offset).tanh(),
            Kind::Radial => {
                (-self.gamma * pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>()).exp()
            }
        }
    }
}

/// Checks the length of a list.
fn expect_len(name: &str, list: &[f64], len: usize) -> Result<()> {
    if list.len() >= len {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "attribute \"{name}\" should have {len} entries, found {}",
        list.len()
    )))
}

fn regress(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let samples = Samples::of(cx.input(0)?)?;
    let coefficients = floats(cx.node, "coefficients");
    let rho = floats(cx.node, "rho");
    expect_len("rho", &rho, 1)?;
    let count = usize::try_from(cx.int("n_supports", 0)).unwrap_or(0);
    let supports = floats(cx.node, "support_vectors");
    let sums: Vec<f64> = if count > 0 {
        expect_len("coefficients", &coefficients, count)?;
        let len = count.saturating_mul(samples.width);
        expect_len("support_vectors", &supports, len)?;
        let kernel = Kernel::of(cx.node)?;
        let sum = |x: &[f64]| {
            let each = supports.chunks(x.len()).zip(&coefficients[..count]);
            each.map(|(s, c)| c * kernel.apply(x, s)).sum()
        };
        samples.rows().map(sum).collect()
    } else {
        expect_len("coefficients", &coefficients, samples.width)?;
        let sum = |x: &[f64]| x.iter().zip(&coefficients).map(|(x, c)| x * c).sum();
        samples.rows().map(sum).collect()
    };
    let one_class = cx.int("one_class", 0) != 0;
    let y = sums.into_iter().map(|sum| match sum + rho[0] {
        s if !one_class => s as f32,
        s if s > 0.0 => 1.0,
        _ => -1.0,
    });
    Ok(vec![Tensor::from_vec(&[samples.count, 1], y.collect())?])
}

/// A classifier of pairs of classes.
struct Machine {
    kernel: Kernel,
    coefficients: Vec<f64>,
    rho: Vec<f64>,
    supports: Vec<f64>,
    /// Where the vectors of each class start, and where they end.
    ranges: Vec<std::ops::Range<usize>>,
    probability: Option<(Vec<f64>, Vec<f64>)>,
    width: usize,
}

impl Machine {
    fn of(node: &Node, classes: usize, width: usize) -> Result<Self> {
        let counts = node.ints("vectors_per_class").unwrap_or_default();
        if counts.len() != classes || counts.iter().any(|&c| c < 0) {
            return Err(Error::invalid(format!(
                "vectors_per_class has {} entries for {classes} classes",
                counts.len()
            )));
        }
        let total = vectors(node);
        let mut start = 0;
        let ranges = counts.iter().map(|&c| {
            let first = start;
            start += usize::try_from(c).unwrap_or(0);
            first..start
        });
        let ranges = ranges.collect();
        let pairs = classes * classes.saturating_sub(1) / 2;
        let list = |name: &str, len: usize| {
            let list = floats(node, name);
            expect_len(name, &list, len).map(|()| list)
        };
        let probability = match floats(node, "prob_a").is_empty() {
            true => None,
            false => Some((list("prob_a", pairs)?, list("prob_b", pairs)?)),
        };
        Ok(Self {
            kernel: Kernel::of(node)?,
            coefficients: list(
                "coefficients",
                total.saturating_mul(classes.saturating_sub(1)),
            )?,
            rho: list("rho", pairs)?,
            supports: list("support_vectors", total.saturating_mul(width))?,
            ranges,
            probability,
            width,
        })
    }

    /// The score of each pair of classes, and how many pairs each class wins.
    fn pairs(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let total = self.ranges.last().map_or(0, |r| r.end);
        let supports = self.supports.chunks(self.width).take(total);
        let similar: Vec<f64> = supports.map(|s| self.kernel.apply(x, s)).collect();
        let part = |row: usize, class: usize| -> f64 {
            let range = self.ranges[class].clone();
            let row = &self.coefficients[row * total..][..total];
            range.map(|i| row[i] * similar[i]).sum()
        };
        let classes = self.ranges.len();
        let (mut scores, mut wins) = (Vec::new(), vec![0.0; classes]);
        for i in 0..classes {
            for j in i + 1..classes {
                let score = part(j - 1, i) + part(i, j) + self.rho[scores.len()];
                wins[if score > 0.0 { i } else { j }] += 1.0;
                scores.push(score);
            }
        }
        (scores, wins)
    }
}

fn classify(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let samples = Samples::of(cx.input(0)?)?;
    let labels = labels_of(cx.node)?;
    let classes = labels.count();
    let transform = Transform::of(cx.node)?;
    let (mut chosen, mut all) = (Vec::new(), Vec::new());
    if vectors(cx.node) == 0 {
        let coefficients = floats(cx.node, "coefficients");
        let rho = floats(cx.node, "rho");
        expect_len("rho", &rho, 1)?;
        expect_len(
            "coefficients",
            &coefficients,
            classes.saturating_mul(samples.width),
        )?;
        for x in samples.rows() {
            let rows = coefficients.chunks(samples.width).take(classes);
            let dot = |row: &[f64]| x.iter().zip(row).map(|(x, c)| x * c).sum::<f64>();
            let mut scores: Vec<f64> = rows.map(|row| dot(row) + rho[0]).collect();
            chosen.push(largest(&scores));
            transform.apply(&mut scores);
            all.extend(scores);
        }
    } else if classes < 2 {
        return Err(Error::invalid(
            "support vectors tell two classes or more apart",
        ));
    } else {
        let machine = Machine::of(cx.node, classes, samples.width)?;
        for x in samples.rows() {
            let (scores, wins) = machine.pairs(x);
            chosen.push(largest(&wins));
            all.extend(finish(&machine, scores, classes, transform));
        }
    }
    let columns = all.len() / samples.count.max(1);
    let all = all.into_iter().map(|v| v as f32).collect();
    let scores = Tensor::from_vec(&[samples.count, columns], all)?;
    Ok(vec![labels.tensor(&chosen)?, scores])
}

/// The scores that are given out: probabilities of classes, or scores of pairs; of two classes
/// without probabilities, the score and its opposite.
fn finish(machine: &Machine, scores: Vec<f64>, classes: usize, transform: Transform) -> Vec<f64> {
    let mut out = match (&machine.probability, scores.as_slice()) {
        (Some((a, b)), _) => probabilities(&scores, a, b, classes),
        (None, &[score]) => match transform {
            Transform::None | Transform::Logistic | Transform::Probit => vec![-score, score],
            _ => return vec![1.0 - score, score],
        },
        (None, _) => scores,
    };
    transform.apply(&mut out);
    out
}

/// The probability of each class from the scores of pairs, by coupling (Wu, Lin and Weng,
/// "Probability estimates for multi-class classification by pairwise coupling", 2004).
fn probabilities(scores: &[f64], a: &[f64], b: &[f64], classes: usize) -> Vec<f64> {
    let n = classes;
    let mut r = vec![0.0; n * n];
    let mut pair = 0;
    for i in 0..n {
        for j in i + 1..n {
            let p = 1.0 - sigmoid(scores[pair] * a[pair] + b[pair]);
            let p = p.clamp(1e-7, 1.0 - 1e-7);
            (r[i * n + j], r[j * n + i]) = (p, 1.0 - p);
            pair += 1;
        }
    }
    let mut q = vec![0.0; n * n];
    for i in 0..n {
        for j in (0..n).filter(|&j| j != i) {
            q[i * n + i] += r[j * n + i].powi(2);
            q[i * n + j] = -r[j * n + i] * r[i * n + j];
        }
    }
    couple(&q, n)
}

/// The p with Σp = 1 that makes pᵀ·Q·p least, by the iteration of that paper.
fn couple(q: &[f64], n: usize) -> Vec<f64> {
    let mut p = vec![1.0 / n as f64; n];
    for _ in 0..100.max(n) {
        let mut qp: Vec<f64> = (0..n)
            .map(|i| (0..n).map(|j| q[i * n + j] * p[j]).sum())
            .collect();
        let mut pqp: f64 = p.iter().zip(&qp).map(|(p, q)| p * q).sum();
        let error = qp.iter().fold(0.0f64, |m, v| m.max((v - pqp).abs()));
        if error < 0.005 / n as f64 {
            break;
        }
        for i in 0..n {
            let diff = (pqp - qp[i]) / q[i * n + i];
            p[i] += diff;
            pqp = (pqp + diff * (diff * q[i * n + i] + 2.0 * qp[i])) / (1.0 + diff).powi(2);
            for j in 0..n {
                qp[j] = (qp[j] + diff * q[i * n + j]) / (1.0 + diff);
                p[j] /= 1.0 + diff;
            }
        }
    }
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_and_follow_the_scores() {
        let p = probabilities(&[2.0, 2.0, 0.0], &[-1.0; 3], &[0.0; 3], 3);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert_eq!(largest(&p), 0);
        // The iteration stops where two thousandths are left.
        assert!((p[1] - p[2]).abs() < 5e-3);
    }

    #[test]
    fn kernels_compare_vectors() {
        let kernel = |kind| Kernel {
            kind,
            gamma: 0.5,
            offset: 1.0,
            degree: 2.0,
        };
        let (a, b) = ([1.0, 2.0], [3.0, 0.5]);
        assert_eq!(kernel(Kind::Linear).apply(&a, &b), 4.0);
        assert_eq!(kernel(Kind::Polynomial).apply(&a, &b), 9.0);
        assert_eq!(kernel(Kind::Sigmoid).apply(&a, &b), 3f64.tanh());
        assert_eq!(kernel(Kind::Radial).apply(&a, &b), (-3.125f64).exp());
    }
}

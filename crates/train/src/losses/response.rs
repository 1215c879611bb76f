//! Losses of the teacher's answers.

use edgesmith_ir::{Attribute, Error, Node, Result, ValueId};

use super::labels::labels;
use super::{Loss, Needs, Request, mean_square};
use crate::draft::Draft;

/// The divergence of softened answers (G. Hinton et al., 2015).
pub static KD: Loss = Loss {
    name: "kd",
    about: "The teacher's softened probabilities (Hinton et al. 2015); labels are not needed",
    formula: "T^2 * mean over the batch of KL(softmax(t/T) || softmax(s/T))",
    source: "Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015, section 2 (equation 1, and the factor T^2)",
    needs: Needs::Teacher,
    same: None,
    add: kd,
};

/// The divergence in its two parts (B. Zhao et al., 2022).
pub static DKD: Loss = Loss {
    name: "dkd",
    about: "The right class against the rest, and the rest among themselves (Zhao et al. 2022)",
    formula: "T^2 * (KL of [class, rest] + beta * KL of the other classes), mean over the batch",
    source: "Zhao et al., Decoupled knowledge distillation, 2022, equation 7",
    needs: Needs::Labels,
    same: None,
    add: dkd,
};

/// The difference of scores.
pub static LOGITS_MSE: Loss = Loss {
    name: "logits-mse",
    about: "The teacher's scores, or its output where it is no classifier (Ba and Caruana 2014)",
    formula: "mean of (s - t)^2 over all elements",
    source: "Ba and Caruana, Do deep nets really need to be deep?, 2014, section 2",
    needs: Needs::Teacher,
    same: None,
    add: |draft, _| {
        let (s, t) = answers(draft)?;
        Ok(mean_square(draft, s, t))
    },
};

/// Scores of student and teacher, of as many classes.
fn answers(draft: &mut Draft) -> Result<(ValueId, ValueId)> {
    let (s, t) = (draft.logits()?, draft.taught(None)?);
    let last = |draft: &Draft, v| draft.shape(v).and_then(|s| s.last()?.known());
    match (last(draft, s), last(draft, t)) {
        (Some(own), Some(other)) if own != other => Err(Error::invalid(format!(
            "the student has {own} classes, the teacher {other}"
        ))
        .hint("give the student a last layer of the teacher's classes")),
        _ => Ok((s, t)),
    }
}

/// Logarithms of probabilities at a temperature, along the last axis.
fn softened(draft: &mut Draft, scores: ValueId, temperature: f64) -> ValueId {
    let scores = draft.scaled(scores, 1.0 / temperature);
    draft.op_with("LogSoftmax", &[scores], "axis", -1)
}

/// The mean over the batch of KL(q‖p), of logarithms of probabilities along the last axis.
fn divergence(draft: &mut Draft, log_q: ValueId, log_p: ValueId) -> ValueId {
    let q = draft.op("Exp", &[log_q]);
    let difference = draft.op("Sub", &[log_q, log_p]);
    let product = draft.op("Mul", &[q, difference]);
    let by_line = draft.reduced("ReduceSum", product, &[-1], false);
    draft.mean(by_line)
}

fn temperature(request: &Request) -> Result<f64> {
    let t = request.temperature();
    match t > 0.0 && t.is_finite() {
        true => Ok(t),
        false => Err(Error::usage(format!("the temperature {t} is not above 0"))),
    }
}

fn kd(draft: &mut Draft, request: &Request) -> Result<ValueId> {
    let t = temperature(request)?;
    let (student, teacher) = answers(draft)?;
    let (log_p, log_q) = (softened(draft, student, t), softened(draft, teacher, t));
    let mean = divergence(draft, log_q, log_p);
    Ok(draft.scaled(mean, t * t))
}

fn dkd(draft: &mut Draft, request: &Request) -> Result<ValueId> {
    if request.unlabelled {
        return Err(Error::usage("it needs the class of every sample").hint("\"kd\" needs none"));
    }
    if request.is_mixed {
        return Err(Error::usage("a mixed sample has no one class").hint("\"kd\" needs none"));
    }
    let t = temperature(request)?;
    let beta = request.beta();
    let (student, teacher) = answers(draft)?;
    let classes = draft.dims(student)?;
    let [classes] = classes[..] else {
        return Err(Error::unsupported("the scores are not of [batch, classes]"));
    };
    let labels = labels(draft);
    let depth = draft.list(&[classes as i64]);
    let values = draft.floats(&[0.0, 1.0]);
    let hit = draft.op("OneHot", &[labels, depth, values]);
    let one = draft.number(1.0);
    let rest = draft.op("Sub", &[one, hit]);
    let (log_p, log_q) = (softened(draft, student, t), softened(draft, teacher, t));
    // Two numbers a sample: the logarithms of p(class) and 1 − p(class).
    let [of_student, of_teacher] = [log_p, log_q].map(|log| binary(draft, log, hit, rest));
    let target = divergence(draft, of_teacher, of_student);
    // The others among themselves: the class is moved out of the way.
    let far = draft.scaled(hit, -1000.0);
    let [p, q] = [student, teacher].map(|scores| {
        let scores = draft.scaled(scores, 1.0 / t);
        let others = draft.op("Add", &[scores, far]);
        draft.op_with("LogSoftmax", &[others], "axis", -1)
    });
    let others = divergence(draft, q, p);
    let others = draft.scaled(others, beta);
    let both = draft.op("Add", &[target, others]);
    Ok(draft.scaled(both, t * t))
}

/// The logarithms of the probability of the class, and of all others together, \[batch, 2\].
fn binary(draft: &mut Draft, log: ValueId, hit: ValueId, rest: ValueId) -> ValueId {
    let p = draft.op("Exp", &[log]);
    let parts = [hit, rest].map(|mask| {
        let part = draft.op("Mul", &[p, mask]);
        draft.reduced("ReduceSum", part, &[-1], true)
    });
    let both = draft.add(
        Node::new("Concat", "").with("axis", Attribute::Int(-1)),
        &parts,
    );
    let least = draft.number(1e-12);
    let both = draft.op("Max", &[both, least]);
    draft.op("Log", &[both])
}

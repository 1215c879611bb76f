//! Losses of what is known of each sample: its class, or numbers.

use edgesmith_ir::types::TensorType;
use edgesmith_ir::{Attribute, DType, Error, Node, Result, ValueId};

use super::{Loss, Needs, Request, mean_square};
use crate::draft::{Draft, batched};
use crate::training::Wanted;

/// Cross entropy of classes.
pub static CROSS_ENTROPY: Loss = Loss {
    name: "cross-entropy",
    about: "The class of each sample; samples without one do not count",
    formula: "(1 - epsilon) * mean of -log softmax(s)[class] + epsilon * mean over all classes of -log softmax(s)",
    source: "Goodfellow, Bengio and Courville, Deep Learning, 2016, section 6.2.2.3; with epsilon, Szegedy et al., Rethinking the Inception Architecture, 2016, section 7",
    needs: Needs::Labels,
    same: None,
    add: cross_entropy,
};

/// Mean square of the difference to numbers.
pub static MSE: Loss = Loss {
    name: "mse",
    about: "The numbers that the output should be, or an input of the model (autoencoders)",
    formula: "mean of (s - target)^2 over all elements",
    source: "Goodfellow, Bengio and Courville, Deep Learning, 2016, section 5.1.4",
    needs: Needs::Targets,
    same: None,
    add: mse,
};

/// Cross entropy of independent answers yes or no.
pub static BINARY: Loss = Loss {
    name: "binary-cross-entropy",
    about: "Yes or no by a sigmoid: the class 0 or 1 of one score, or a number from 0 to 1 for each of several (several labels)",
    formula: "mean over all elements of -y log sigmoid(s) - (1 - y) log(1 - sigmoid(s)), y = (1 - epsilon) target + epsilon / 2",
    source: "Goodfellow, Bengio and Courville, Deep Learning, 2016, section 6.2.2.2",
    needs: Needs::Labels,
    same: None,
    add: binary,
};

/// Softplus(s) − y·s, which is the formula without its sigmoid, whose logarithm is not finite far out.
fn binary(draft: &mut Draft, request: &Request) -> Result<ValueId> {
    if request.is_mixed {
        return Err(Error::usage("a mixed sample has no one class"));
    }
    let scores = draft.odds()?;
    let shape = draft.shape(scores);
    let shape = shape.ok_or_else(|| Error::unsupported("the shape of the scores is not known"))?;
    let behind: Option<Vec<usize>> = shape.iter().skip(1).map(|d| d.known()).collect();
    let is_one = behind.is_some_and(|d| d.iter().product::<usize>() == 1);
    let (y, known) = match is_one {
        true => {
            let labels = labels(draft);
            let zero = draft.list(&[0]);
            let known = draft.op("GreaterOrEqual", &[labels, zero]);
            let like = draft.op("Shape", &[scores]);
            let float = i64::from(DType::F32.onnx());
            let [y, known] = [labels, known].map(|v| {
                let v = draft.op_with("Cast", &[v], "to", float);
                draft.op("Reshape", &[v, like])
            });
            (y, request.unlabelled.then_some(known))
        }
        false => {
            let ty = TensorType::new(DType::F32, shape);
            (draft.feed("targets", ty, Wanted::Targets, ""), None)
        }
    };
    let smoothing = smoothing(request)?;
    let mut y = draft.scaled(y, 1.0 - smoothing);
    if smoothing > 0.0 {
        let half = draft.number(smoothing / 2.0);
        y = draft.op("Add", &[y, half]);
    }
    let no = draft.op("Softplus", &[scores]);
    let yes = draft.op("Mul", &[y, scores]);
    let each = draft.op("Sub", &[no, yes]);
    Ok(match known {
        Some(known) => averaged(draft, each, known),
        None => draft.mean(each),
    })
}

/// The share that all answers have alike.
fn smoothing(request: &Request) -> Result<f64> {
    let smoothing = request.smoothing();
    match (0.0..1.0).contains(&smoothing) {
        true => Ok(smoothing),
        false => Err(Error::usage(format!("a label smoothing of {smoothing}"))
            .hint("it is a share from 0 to 1")),
    }
}

fn cross_entropy(draft: &mut Draft, request: &Request) -> Result<ValueId> {
    let scores = draft.logits()?;
    let rank = draft.shape(scores).map(|s| s.rank());
    if rank != Some(2) {
        return Err(Error::unsupported("the scores are not of [batch, classes]")
            .hint("a classifier has one score for each class; binary-cross-entropy takes others"));
    }
    let smoothing = smoothing(request)?;
    let (of_class, known) = match (request.is_mixed, request.unlabelled) {
        (true, true) => {
            return Err(Error::usage("mixup needs the class of every sample")
                .hint("\"kd\" without classes goes with it"));
        }
        (true, false) => (of_shares(draft, scores)?, None),
        (false, false) => {
            let labels = labels(draft);
            (draft.op("SoftmaxCrossEntropyLoss", &[scores, labels]), None)
        }
        (false, true) => {
            let (loss, known) = of_known(draft, scores);
            (loss, Some(known))
        }
    };
    if smoothing == 0.0 {
        return Ok(of_class);
    }
    // A share of all classes alike (C. Szegedy et al., 2016, section 7).
    let log = draft.op_with("LogSoftmax", &[scores], "axis", -1);
    let of_all = match known {
        None => draft.mean(log),
        Some(known) => {
            let each = draft.reduced("ReduceMean", log, &[-1], false);
            averaged(draft, each, known)
        }
    };
    let of_class = draft.scaled(of_class, 1.0 - smoothing);
    let of_all = draft.scaled(of_all, -smoothing);
    Ok(draft.op("Add", &[of_class, of_all]))
}

/// The class of each sample.
pub fn labels(draft: &mut Draft) -> ValueId {
    draft.feed("labels", batched(DType::I64, &[]), Wanted::Labels, "")
}

/// The mean over samples of −Σ q·log p, of the share q that each class has in a mixed sample.
fn of_shares(draft: &mut Draft, scores: ValueId) -> Result<ValueId> {
    let dims = draft.dims(scores)?;
    let [classes] = dims[..] else {
        return Err(Error::unsupported("the number of classes is not known"));
    };
    let ty = batched(DType::F32, &[classes]);
    let shares = draft.feed("shares", ty, Wanted::Shares(classes), "");
    let log = draft.op_with("LogSoftmax", &[scores], "axis", -1);
    let each = draft.op("Mul", &[shares, log]);
    let each = draft.reduced("ReduceSum", each, &[-1], false);
    let mean = draft.mean(each);
    Ok(draft.scaled(mean, -1.0))
}

/// The mean over samples with a class, and which those are, as 1 and 0.
fn of_known(draft: &mut Draft, scores: ValueId) -> (ValueId, ValueId) {
    let labels = labels(draft);
    let node = Node::new("SoftmaxCrossEntropyLoss", "")
        .with("ignore_index", Attribute::Int(-1))
        .with("reduction", Attribute::String("none".into()));
    let each = draft.add(node, &[scores, labels]);
    let zero = draft.list(&[0]);
    let known = draft.op("GreaterOrEqual", &[labels, zero]);
    let known = draft.op_with("Cast", &[known], "to", i64::from(DType::F32.onnx()));
    (averaged(draft, each, known), known)
}

/// The mean of the numbers of samples that are known; 0 where none is.
fn averaged(draft: &mut Draft, each: ValueId, known: ValueId) -> ValueId {
    let each = draft.op("Mul", &[each, known]);
    let sum = draft.op_with("ReduceSum", &[each], "keepdims", 0);
    let count = draft.op_with("ReduceSum", &[known], "keepdims", 0);
    let one = draft.number(1.0);
    let count = draft.op("Max", &[count, one]);
    draft.op("Div", &[sum, count])
}

fn mse(draft: &mut Draft, request: &Request) -> Result<ValueId> {
    let output = draft.output()?;
    if let Some(input) = &request.like_input {
        let input = draft.value(input)?;
        if draft.dims(input)? != draft.dims(output)? {
            return Err(Error::invalid("input and output differ in shape"));
        }
        return Ok(mean_square(draft, output, input));
    }
    let shape = draft
        .shape(output)
        .ok_or_else(|| Error::unsupported("the shape of the output is not known"))?;
    let ty = TensorType::new(DType::F32, shape);
    let targets = draft.feed("targets", ty, Wanted::Targets, "");
    Ok(mean_square(draft, output, targets))
}

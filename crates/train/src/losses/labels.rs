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
    formula: "mean of -log softmax(s)[class]",
    source: "Goodfellow, Bengio and Courville, Deep Learning, 2016, section 6.2.2.3; ONNX SoftmaxCrossEntropyLoss",
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

fn cross_entropy(draft: &mut Draft, request: &Request) -> Result<ValueId> {
    let scores = draft.logits()?;
    let rank = draft.shape(scores).map(|s| s.rank());
    if rank != Some(2) {
        return Err(Error::unsupported("the scores are not of [batch, classes]")
            .hint("a classifier has one score for each class"));
    }
    let labels = draft.feed("labels", batched(DType::I64, &[]), Wanted::Labels, "");
    if !request.unlabelled {
        return Ok(draft.op("SoftmaxCrossEntropyLoss", &[scores, labels]));
    }
    let node = Node::new("SoftmaxCrossEntropyLoss", "")
        .with("ignore_index", Attribute::Int(-1))
        .with("reduction", Attribute::String("sum".into()));
    let sum = draft.add(node, &[scores, labels]);
    // The number of labelled samples, at least 1: a batch may have none.
    let zero = draft.list(&[0]);
    let known = draft.op("GreaterOrEqual", &[labels, zero]);
    let known = draft.op_with("Cast", &[known], "to", i64::from(DType::F32.onnx()));
    let count = draft.op_with("ReduceSum", &[known], "keepdims", 0);
    let one = draft.number(1.0);
    let count = draft.op("Max", &[count, one]);
    Ok(draft.op("Div", &[sum, count]))
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

//! Growth that keeps the shape: elementwise operators, softmax, quantise and dequantise.

use edgesmith_ir::{Attribute, Node, Tensor};

use super::{Builder, Known};

pub(super) fn unary(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let ops = [
        "Relu",
        "Sigmoid",
        "Tanh",
        "Abs",
        "Neg",
        "LeakyRelu",
        "Identity",
        "HardSigmoid",
    ];
    let op = *b.rng.pick(&ops);
    let rounds = matches!(op, "Sigmoid" | "Tanh");
    let mut y = b.keeping(Node::new(op, ""), &x, &[]);
    y.exact &= !rounds;
    Some(y)
}

pub(super) fn clip(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let low = b.constant(Tensor::scalar(0f32));
    let high = b.constant(Tensor::scalar(6f32));
    Some(b.keeping(Node::new("Clip", ""), &x, &[low, high]))
}

/// With a constant that broadcasts: some of its axes are 1, some leading ones left out.
pub(super) fn with_constant(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let skip = b.rng.below(x.dims.len() + 1);
    let dims: Vec<usize> = x.dims[skip..]
        .iter()
        .map(|&d| if b.rng.one_in(2) { 1 } else { d })
        .collect();
    let c = b.weight(&dims, -1.0, 1.0);
    let op = *b.rng.pick(&["Add", "Mul", "Sub"]);
    if op == "Add" && b.rng.one_in(2) {
        let id = b.op(Node::new(op, ""), &[c, x.id]);
        return Some(Known { id, ..x });
    }
    Some(b.keeping(Node::new(op, ""), &x, &[c]))
}

pub(super) fn with_value(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let other = b.draw();
    if other.dims != x.dims {
        return None;
    }
    let op = *b.rng.pick(&["Add", "Sub", "Max"]);
    let y = b.keeping(Node::new(op, ""), &x, &[other.id]);
    Some(Known {
        exact: x.exact && other.exact,
        ..y
    })
}

pub(super) fn softmax(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let node = Node::new("Softmax", "").with("axis", Attribute::Int(-1));
    let y = b.keeping(node, &x, &[]);
    Some(Known { exact: false, ..y })
}

pub(super) fn quantised(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    if !x.exact {
        return None;
    }
    let scale = b.constant(Tensor::scalar(0.03125f32));
    let zero = b.constant(Tensor::scalar(120u8));
    let q = b.op(Node::new("QuantizeLinear", ""), &[x.id, scale, zero]);
    let id = b.op(Node::new("DequantizeLinear", ""), &[q, scale, zero]);
    Some(Known { id, ..x })
}

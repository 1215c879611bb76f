//! Growth that keeps the shape: elementwise operators, casts, comparisons, softmax.

use edgesmith_ir::{Attribute, DType, Node, Tensor};

use super::{Builder, Known, movement};

pub(super) fn unary(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let ops = [
        "Relu",
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
    if b.rng.one_in(4) {
        y.id = b.op(Node::new(op, ""), &[y.id]);
    }
    Some(y)
}

pub(super) fn clip(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let ends = [(0.0, 6.0), (-1.0, 1.0), (0.5, 0.75), (-3.0, 0.0)];
    let (low, high) = *b.rng.pick(&ends);
    let low = b.constant(Tensor::scalar(low as f32));
    let high = b.constant(Tensor::scalar(high as f32));
    let bounds = if b.rng.one_in(3) {
        vec![low]
    } else {
        vec![low, high]
    };
    Some(b.keeping(Node::new("Clip", ""), &x, &bounds))
}

/// With a constant that broadcasts: some of its axes are 1, some leading ones left out.
pub(super) fn with_constant(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let skip = b.rng.below(x.dims.len() + 1);
    let fixed = x.fixed();
    let dims: Vec<usize> = (skip..x.dims.len())
        .map(|a| match fixed.contains(&a) && b.rng.one_in(2) {
            true => x.dims[a],
            false => 1,
        })
        .collect();
    let c = b.weight(&dims, -1.0, 1.0);
    let op = *b.rng.pick(&["Add", "Mul", "Sub"]);
    if op == "Add" && b.rng.one_in(2) {
        return Some(x.with(b.op(Node::new(op, ""), &[c, x.id])));
    }
    Some(b.keeping(Node::new(op, ""), &x, &[c]))
}

pub(super) fn with_value(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let other = b.draw();
    if !other.same_shape(&x) {
        return None;
    }
    let op = *b.rng.pick(&["Add", "Sub", "Max", "Min"]);
    let y = b.keeping(Node::new(op, ""), &x, &[other.id]);
    Some(Known {
        exact: x.exact && other.exact,
        ..y
    })
}

/// Arithmetic that returns its operand, or nearly looks as if it did.
pub(super) fn neutral(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let ops = [
        ("Mul", 1.0),
        ("Div", 1.0),
        ("Add", -0.0),
        ("Add", 0.0),
        ("Sub", 0.0),
        ("Pow", 1.0),
    ];
    let (op, number) = *b.rng.pick(&ops);
    let deep = vec![1; b.rng.below(x.dims.len() + 2)];
    let data = Tensor::from_vec(&deep, vec![number as f32]).expect("one element");
    let c = b.constant(data);
    let mut y = b.keeping(Node::new(op, ""), &x, &[c]);
    if deep.len() > x.dims.len() {
        y.dims.insert(0, 1);
        y.batch = y.batch.map(|p| p + 1);
    }
    Some(y)
}

/// A comparison, some logic on its result, and a choice by it.
pub(super) fn logic(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    if !x.exact {
        return None;
    }
    let half = b.constant(Tensor::scalar(0.5f32));
    let mut mask = b.op(Node::new("Less", ""), &[x.id, half]);
    for _ in 0..b.rng.below(3) {
        let constant = b.rng.one_in(2);
        let bit = Tensor::from_bools(&[], &[constant]).expect("one element");
        let bit = b.constant(bit);
        mask = match *b.rng.pick(&["And", "Or", "Xor", "Not", "Cast"]) {
            "Not" => b.op(Node::new("Not", ""), &[mask]),
            "Cast" => {
                let there = cast(b, mask, DType::I32);
                cast(b, there, DType::Bool)
            }
            op => b.op(Node::new(op, ""), &[mask, bit]),
        };
    }
    let other = b.constant(Tensor::scalar(-1f32));
    Some(x.with(b.op(Node::new("Where", ""), &[mask, x.id, other])))
}

fn cast(b: &mut Builder, x: edgesmith_ir::ValueId, to: DType) -> edgesmith_ir::ValueId {
    let node = Node::new("Cast", "").with("to", Attribute::Int(i64::from(to.onnx())));
    b.op(node, &[x])
}

/// By way of one or two other types, back to f32.
pub(super) fn casts(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let wide = [DType::F64, DType::F32];
    let narrow = [DType::F64, DType::F16, DType::I32, DType::I64, DType::I8];
    let mut id = x.id;
    for _ in 0..b.rng.between(1, 3) {
        let to = if x.exact {
            *b.rng.pick(&narrow)
        } else {
            *b.rng.pick(&wide)
        };
        id = cast(b, id, to);
    }
    Some(x.with(cast(b, id, DType::F32)))
}

pub(super) fn softmax(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    if x.batch.is_some_and(|p| p + 1 == x.dims.len()) || x.dims.is_empty() {
        return None;
    }
    let node = Node::new("Softmax", "").with("axis", Attribute::Int(-1));
    let y = b.keeping(node, &x, &[]);
    Some(Known { exact: false, ..y })
}

/// With a smaller value that is stretched, by a node or by the operator.
pub(super) fn stretched(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let skip = b.rng.below(x.dims.len() + 1);
    let fixed = x.fixed();
    let dims: Vec<usize> = (skip..x.dims.len())
        .map(|a| if fixed.contains(&a) { x.dims[a] } else { 1 })
        .collect();
    let w = b.weight(&dims, -1.0, 1.0);
    let w = b.op(Node::new("Abs", ""), &[w]);
    let other = if b.rng.one_in(2) {
        let shape = b.op(Node::new("Shape", ""), &[x.id]);
        b.op(Node::new("Expand", ""), &[w, shape])
    } else {
        let axes = b.integers(&[0]);
        let known = Known {
            id: w,
            dims,
            batch: None,
            exact: true,
        };
        if known.dims.len() >= x.dims.len() {
            return None;
        }
        b.op(Node::new("Unsqueeze", ""), &[known.id, axes])
    };
    let op = *b.rng.pick(&["Add", "Mul", "Max"]);
    let y = x.with(b.op(Node::new(op, ""), &[x.id, other]));
    if b.rng.one_in(3) && y.dims.len() >= 2 {
        let swap = movement::last_two_swapped(y.dims.len());
        let node = Node::new("Transpose", "").with("perm", swap);
        let there = b.op(node.clone(), &[y.id]);
        return Some(y.with(b.op(node, &[there])));
    }
    Some(y)
}

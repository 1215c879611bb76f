//! Growth by quantise and dequantise.

use edgesmith_ir::{Node, Tensor, ValueId};

use super::{Builder, Known, int, ints, movement};

/// Scale and zero point of the tensor; few different ones, so that some meet their like.
fn grid(b: &mut Builder) -> [ValueId; 2] {
    let scale = *b.rng.pick(&[0.03125f32, 0.0371]);
    let scale = b.constant(Tensor::scalar(scale));
    let zero = match b.rng.below(4) {
        0 => Tensor::scalar(-128i8),
        1 => Tensor::scalar(3i8),
        2 => Tensor::scalar(120u8),
        _ => Tensor::scalar(0u8),
    };
    [scale, b.constant(zero)]
}

fn exact(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    x.exact.then_some(x)
}

/// Sometimes with an activation in front that the range makes up for.
pub(super) fn pair(b: &mut Builder) -> Option<Known> {
    let mut x = exact(b)?;
    if b.rng.one_in(2) {
        x.id = b.op(Node::new("Relu", ""), &[x.id]);
    }
    let [scale, zero] = grid(b);
    for _ in 0..b.rng.between(1, 2) {
        let q = b.op(Node::new("QuantizeLinear", ""), &[x.id, scale, zero]);
        x.id = b.op(Node::new("DequantizeLinear", ""), &[q, scale, zero]);
    }
    Some(x)
}

/// Pairs on both sides of something that only moves elements.
pub(super) fn around_mover(b: &mut Builder) -> Option<Known> {
    let mut x = exact(b)?;
    let [scale, zero] = grid(b);
    let other = if b.rng.one_in(4) {
        grid(b)
    } else {
        [scale, zero]
    };
    let before = b.rng.one_in(2);
    if before {
        let q = b.op(Node::new("QuantizeLinear", ""), &[x.id, scale, zero]);
        x.id = b.op(Node::new("DequantizeLinear", ""), &[q, scale, zero]);
    }
    b.values.push(x);
    let moves = [
        movement::transpose,
        movement::reshape,
        movement::squeeze,
        movement::slice,
        movement::flatten,
    ];
    let moved = (b.rng.pick(&moves))(b).filter(|y| y.exact)?;
    let q = b.op(
        Node::new("QuantizeLinear", ""),
        &[moved.id, other[0], other[1]],
    );
    let id = b.op(Node::new("DequantizeLinear", ""), &[q, other[0], other[1]]);
    Some(moved.with(id))
}

/// A scale for each index of an axis, and a Transpose before or behind.
pub(super) fn by_axis(b: &mut Builder) -> Option<Known> {
    let mut x = exact(b)?;
    let fixed = x.fixed();
    let axis = *fixed.get(b.rng.below(fixed.len().max(1)))?;
    let n = x.dims[axis];
    let scales: Vec<f32> = (0..n).map(|i| 0.03125 * (1.0 + (i % 3) as f32)).collect();
    let zeros: Vec<u8> = (0..n).map(|_| 100 + b.rng.below(50) as u8).collect();
    let (scale, zero) = (
        b.constant(Tensor::vector(scales)),
        b.constant(Tensor::vector(zeros)),
    );
    let with = |op: &str| Node::new(op, "").with("axis", int(axis));
    let q = b.op(with("QuantizeLinear"), &[x.id, scale, zero]);
    x.id = b.op(with("DequantizeLinear"), &[q, scale, zero]);
    let perm: Vec<usize> = (0..x.dims.len()).rev().collect();
    let id = b.op(
        Node::new("Transpose", "").with("perm", ints(&perm)),
        &[x.id],
    );
    let batch = x.batch.map(|p| x.dims.len() - 1 - p);
    let dims = perm.iter().map(|&p| x.dims[p]).collect();
    Some(Known {
        id,
        dims,
        batch,
        ..x
    })
}

//! Growth by moving elements, and by computing the same once more.

use edgesmith_ir::{Attribute, Node, ValueId};

use super::{Builder, Known, int, ints};

/// The target of a Reshape of `x` to `dims`, whose batch axis is `batch`: constant with 0 or −1,
/// or computed from the shape as exporters write it.
fn target(b: &mut Builder, x: &Known, dims: &[usize], batch: Option<usize>) -> ValueId {
    let mut numbers: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
    let Some(at) = batch else {
        if !numbers.is_empty() && b.rng.one_in(2) {
            let open = b.rng.below(numbers.len());
            numbers[open] = -1;
        }
        return b.integers(&numbers);
    };
    if b.rng.one_in(2) {
        numbers[at] = -1;
        if x.batch == Some(at) && b.rng.one_in(2) {
            numbers[at] = 0;
            if numbers.len() > 1 && b.rng.one_in(2) {
                let open = (at + 1) % numbers.len();
                numbers[open] = -1;
            }
        }
        return b.integers(&numbers);
    }
    let shape = b.op(Node::new("Shape", ""), &[x.id]);
    let from = x.batch.unwrap_or(0) as i64;
    let batch = if b.rng.one_in(2) {
        let place = b.integers(&[from]);
        b.op(Node::new("Gather", ""), &[shape, place])
    } else {
        let (start, end) = (b.integers(&[from]), b.integers(&[from + 1]));
        b.op(Node::new("Slice", ""), &[shape, start, end])
    };
    let mut parts = Vec::new();
    if at > 0 {
        parts.push(b.integers(&numbers[..at]));
    }
    parts.push(batch);
    if at + 1 < numbers.len() {
        if b.rng.one_in(3) {
            numbers[at + 1] = -1;
        }
        parts.push(b.integers(&numbers[at + 1..]));
    }
    b.op(Node::new("Concat", "").with("axis", int(0)), &parts)
}

/// Two neighbouring axes become one, or one becomes two.
pub(super) fn reshape(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let fixed = x.fixed();
    let at = fixed.get(b.rng.below(fixed.len().max(1))).copied()?;
    let (mut dims, mut batch) = (x.dims.clone(), x.batch);
    let moves = |batch: Option<usize>, by: isize| {
        batch.map(|p| if p > at { p.wrapping_add_signed(by) } else { p })
    };
    if fixed.contains(&(at + 1)) && b.rng.one_in(2) {
        let next = dims.remove(at + 1);
        dims[at] *= next;
        batch = moves(batch, -1);
    } else {
        let factor = *b.rng.pick(&[1, 2, 3]);
        if !dims[at].is_multiple_of(factor) || dims.len() > 4 {
            return None;
        }
        dims[at] /= factor;
        dims.insert(at + b.rng.below(2), factor);
        batch = moves(batch, 1);
    }
    let shape = target(b, &x, &dims, batch);
    let id = b.op(Node::new("Reshape", ""), &[x.id, shape]);
    Some(Known {
        id,
        dims,
        batch,
        ..x
    })
}

/// Through Shape: what exporters write for dynamic axes.
pub(super) fn reshape_to_own_shape(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let mut shape = b.op(Node::new("Shape", ""), &[x.id]);
    if b.rng.one_in(3) {
        let one = b.integers(&[1]);
        let op = *b.rng.pick(&["Mul", "Div"]);
        shape = b.op(Node::new(op, ""), &[shape, one]);
    }
    let id = b.op(Node::new("Reshape", ""), &[x.id, shape]);
    Some(x.with(id))
}

pub(super) fn flatten(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    if x.dims.is_empty() || x.batch.is_some_and(|p| p != 0) {
        return None;
    }
    let id = b.op(Node::new("Flatten", ""), &[x.id]);
    let dims = vec![x.dims[0], x.dims[1..].iter().product()];
    Some(Known { id, dims, ..x })
}

/// An axis of length 1 goes, or comes.
pub(super) fn squeeze(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let ones: Vec<usize> = x.fixed().into_iter().filter(|&a| x.dims[a] == 1).collect();
    let (mut dims, mut batch) = (x.dims.clone(), x.batch);
    let squeeze = !ones.is_empty() && b.rng.one_in(2);
    if !squeeze && dims.len() > 4 {
        return None;
    }
    let at = if squeeze {
        *b.rng.pick(&ones)
    } else {
        b.rng.below(dims.len() + 1)
    };
    if squeeze {
        dims.remove(at);
        batch = batch.map(|p| if p > at { p - 1 } else { p });
    } else {
        dims.insert(at, 1);
        batch = batch.map(|p| if p >= at { p + 1 } else { p });
    }
    let axes = b.integers(&[at as i64]);
    let op = if squeeze { "Squeeze" } else { "Unsqueeze" };
    let id = b.op(Node::new(op, ""), &[x.id, axes]);
    Some(Known {
        id,
        dims,
        batch,
        ..x
    })
}

pub(super) fn transpose(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let mut perm: Vec<usize> = (0..x.dims.len()).collect();
    for i in (1..perm.len()).rev() {
        let j = b.rng.below(i + 1);
        perm.swap(i, j);
    }
    let mut node = Node::new("Transpose", "").with("perm", ints(&perm));
    if b.rng.one_in(4) {
        node.attributes.clear();
        perm = (0..x.dims.len()).rev().collect();
    }
    let id = b.op(node, &[x.id]);
    let dims = perm.iter().map(|&p| x.dims[p]).collect();
    let batch = x.batch.and_then(|p| perm.iter().position(|&a| a == p));
    Some(Known {
        id,
        dims,
        batch,
        ..x
    })
}

/// With another value of the shape, with itself where there is none, or alone.
pub(super) fn concat(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let other = b.draw();
    let fixed = x.fixed();
    let axis = *fixed.get(b.rng.below(fixed.len().max(1)))?;
    let node = Node::new("Concat", "").with("axis", int(axis));
    if b.rng.one_in(4) {
        return Some(b.keeping(node, &x, &[]));
    }
    let other = if other.same_shape(&x) {
        other
    } else {
        x.clone()
    };
    let id = b.op(node.clone(), &[x.id, other.id]);
    let mut y = Known {
        exact: x.exact && other.exact,
        ..x.with(id)
    };
    y.dims[axis] *= 2;
    if b.rng.one_in(3) {
        y.id = b.op(node, &[x.id, y.id]);
        y.dims[axis] += x.dims[axis];
    }
    Some(y)
}

/// One or two in a row, from either end, with steps.
pub(super) fn slice(b: &mut Builder) -> Option<Known> {
    let mut x = b.draw();
    for _ in 0..b.rng.between(1, 2) {
        let fixed = x.fixed();
        let axis = *fixed.get(b.rng.below(fixed.len().max(1)))?;
        let n = x.dims[axis] as i64;
        let (start, end, step, left) = match b.rng.below(4) {
            0 => (0, i64::MAX, 1, n),
            1 if n > 1 => (1, n, 1, n - 1),
            2 => (-1, i64::MIN + 1, -1, n),
            3 => (0, n, 2, (n + 1) / 2),
            _ => (-n, n, 1, n),
        };
        let numbers = [start, end, axis as i64, step].map(|i| b.integers(&[i]));
        let [start, end, axes, steps] = numbers;
        let id = b.op(Node::new("Slice", ""), &[x.id, start, end, axes, steps]);
        x.id = id;
        x.dims[axis] = left as usize;
    }
    Some(x)
}

pub(super) fn pad(b: &mut Builder) -> Option<Known> {
    let mut x = b.draw();
    let filling = b.weight(&[], -1.0, 1.0);
    for _ in 0..b.rng.between(1, 2) {
        let rank = x.dims.len();
        let mut pads = vec![0i64; 2 * rank];
        for axis in x.fixed() {
            if b.rng.one_in(2) {
                pads[axis] = b.rng.below(2) as i64;
                pads[rank + axis] = b.rng.below(2) as i64;
                x.dims[axis] += (pads[axis] + pads[rank + axis]) as usize;
            }
        }
        let pads = b.integers(&pads);
        let mut inputs = vec![x.id, pads];
        if b.rng.one_in(2) {
            inputs.push(filling);
        }
        x.id = b.op(Node::new("Pad", ""), &inputs);
    }
    Some(x)
}

/// To its own shape, written down or computed.
pub(super) fn expand(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let shape = if b.rng.one_in(2) {
        b.op(Node::new("Shape", ""), &[x.id])
    } else {
        let length = |(a, &d): (usize, &usize)| if Some(a) == x.batch { 1 } else { d as i64 };
        let numbers: Vec<i64> = x.dims.iter().enumerate().map(length).collect();
        b.integers(&numbers)
    };
    let id = b.op(Node::new("Expand", ""), &[x.id, shape]);
    Some(x.with(id))
}

/// In halves, which are joined again or of which one is left.
pub(super) fn split(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let even = |a: &usize| x.dims[*a].is_multiple_of(2);
    let axis = x.fixed().into_iter().find(even)?;
    let half = x.dims[axis] / 2;
    let mut node = Node::new("Split", "").with("axis", int(axis));
    let mut inputs = vec![x.id];
    if b.opset < 18 || b.rng.one_in(2) {
        inputs.push(b.integers(&[half as i64, half as i64]));
    } else {
        node.set("num_outputs", int(2));
    }
    let parts = b.outs(node, &inputs, 2);
    if b.rng.one_in(2) {
        let node = Node::new("Concat", "").with("axis", int(axis));
        return Some(x.with(b.op(node, &parts)));
    }
    let mut y = x.with(*b.rng.pick(&parts));
    y.dims[axis] = half;
    Some(y)
}

pub(super) fn gather(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let fixed = x.fixed();
    let axis = *fixed.get(b.rng.below(fixed.len().max(1)))?;
    let n = x.dims[axis];
    if n == 0 {
        return None;
    }
    let picked: Vec<i64> = (0..b.rng.between(1, 3))
        .map(|_| b.rng.below(n) as i64 - if b.rng.one_in(2) { n as i64 } else { 0 })
        .collect();
    let count = picked.len();
    let indices = b.integers(&picked);
    let node = Node::new("Gather", "").with("axis", int(axis));
    let mut y = x.with(b.op(node, &[x.id, indices]));
    y.dims[axis] = count;
    Some(y)
}

/// A second node that computes what another one does.
pub(super) fn again(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let (id, 0) = b.graph.value(x.id).producer()? else {
        return None;
    };
    let node = b.graph.node(id).clone();
    if node.subgraphs().next().is_some() || node.outputs().len() > 1 {
        return None;
    }
    let inputs: Vec<_> = node.inputs().iter().copied().flatten().collect();
    if inputs.len() != node.inputs().len() {
        return None;
    }
    let mut copy = Node::new(&node.op, "").in_domain(&node.domain);
    copy.attributes = node.attributes;
    Some(x.with(b.op(copy, &inputs)))
}

/// In inference, with or without its mask.
pub(super) fn dropout(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let outputs = b.rng.between(1, 2);
    let made = b.outs(Node::new("Dropout", ""), &[x.id], outputs);
    if outputs == 2 && b.rng.one_in(2) {
        b.others.push(made[1]);
    }
    let y = x.with(made[0]);
    let node = Node::new("Identity", "");
    Some(match b.rng.one_in(2) {
        true => b.keeping(node, &y, &[]),
        false => y,
    })
}

/// The attribute of a Transpose that swaps the last two axes of `rank`.
pub(super) fn last_two_swapped(rank: usize) -> Attribute {
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    ints(&perm)
}

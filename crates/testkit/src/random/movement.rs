//! Growth by moving elements, and by computing the same once more.

use edgesmith_ir::{Node, Tensor};

use super::{Builder, Known, int, ints};

/// To two axes or to three, one length left to be found.
pub(super) fn reshape(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let count: usize = x.dims.iter().product();
    let first = x.dims[0];
    let (dims, target) = if b.rng.one_in(2) || !count.is_multiple_of(2 * first) {
        (vec![first, count / first], vec![first as i64, -1])
    } else {
        let rest = count / first / 2;
        (vec![first, 2, rest], vec![0, 2, -1])
    };
    let shape = b.constant(Tensor::vector(target));
    let id = b.op(Node::new("Reshape", ""), &[x.id, shape]);
    Some(Known { id, dims, ..x })
}

/// Through Shape: what exporters write for dynamic axes.
pub(super) fn reshape_to_own_shape(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let shape = b.op(Node::new("Shape", ""), &[x.id]);
    let id = b.op(Node::new("Reshape", ""), &[x.id, shape]);
    Some(Known { id, ..x })
}

pub(super) fn transpose(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let mut perm: Vec<usize> = (0..x.dims.len()).collect();
    for i in (1..perm.len()).rev() {
        let j = b.rng.below(i + 1);
        perm.swap(i, j);
    }
    let node = Node::new("Transpose", "").with("perm", ints(&perm));
    let id = b.op(node, &[x.id]);
    let dims = perm.iter().map(|&p| x.dims[p]).collect();
    Some(Known { id, dims, ..x })
}

/// With another value of the shape, with itself where there is none, or alone.
pub(super) fn concat(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let other = b.draw();
    let axis = b.rng.below(x.dims.len());
    let node = Node::new("Concat", "").with("axis", int(axis));
    if b.rng.one_in(4) {
        return Some(b.keeping(node, &x, &[]));
    }
    let other = if other.dims == x.dims {
        other
    } else {
        x.clone()
    };
    let id = b.op(node, &[x.id, other.id]);
    let mut dims = x.dims.clone();
    dims[axis] *= 2;
    let exact = x.exact && other.exact;
    Some(Known { id, dims, exact })
}

/// A second node that computes what another one does.
pub(super) fn again(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let (id, _) = b.graph.value(x.id).producer()?;
    let node = b.graph.node(id).clone();
    let inputs: Vec<_> = node.inputs().iter().copied().flatten().collect();
    if inputs.len() != node.inputs().len() {
        return None;
    }
    let id = b.op(node, &inputs);
    Some(Known { id, ..x })
}

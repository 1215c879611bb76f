//! Growth by layers with weights, and pools.

use edgesmith_ir::{Attribute, Node, Tensor, ValueId};

use super::{Builder, Known, int, ints};

/// A value `[batch, channels, height, width]`.
fn draw_image(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    (x.dims.len() == 4).then_some(x)
}

pub(super) fn conv(b: &mut Builder) -> Option<Known> {
    let x = draw_image(b)?;
    let pad = b.rng.below(2);
    convolve(b, &x, pad)
}

/// A Pad of zeros in front of the window.
pub(super) fn padded_conv(b: &mut Builder) -> Option<Known> {
    let x = draw_image(b)?;
    let pads = b.constant(Tensor::vector(vec![0i64, 0, 1, 0, 0, 0, 1, 2]));
    let id = b.op(Node::new("Pad", ""), &[x.id, pads]);
    let dims = vec![x.dims[0], x.dims[1], x.dims[2] + 2, x.dims[3] + 2];
    convolve(b, &Known { id, dims, ..x }, 0)
}

fn convolve(b: &mut Builder, x: &Known, pad: usize) -> Option<Known> {
    let [n, c, h, w] = *x.dims.as_slice() else {
        return None;
    };
    let kernel = *b.rng.pick(&[1, 2, 3]);
    let stride = b.rng.between(1, 2);
    if h + 2 * pad < kernel || w + 2 * pad < kernel {
        return None;
    }
    let depthwise = b.rng.one_in(3);
    let (group, channels) = if depthwise {
        (c, c * b.rng.between(1, 2))
    } else {
        (1, b.rng.between(1, 6))
    };
    let weight = b.weight(&[channels, c / group, kernel, kernel], -0.5, 0.5);
    let mut inputs = vec![x.id, weight];
    if b.rng.one_in(2) {
        inputs.push(b.weight(&[channels], -0.5, 0.5));
    }
    let node = Node::new("Conv", "")
        .with("group", int(group))
        .with("pads", ints(&[pad; 4]))
        .with("strides", ints(&[stride; 2]));
    let id = b.op(node, &inputs);
    let out = |d: usize| (d + 2 * pad - kernel) / stride + 1;
    let y = Known {
        id,
        dims: vec![n, channels, out(h), out(w)],
        exact: false,
    };
    if b.rng.one_in(2) {
        return Some(normalise(b, &y));
    }
    Some(y)
}

pub(super) fn norm(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    (x.dims.len() >= 2).then(|| normalise(b, &x))
}

fn normalise(b: &mut Builder, x: &Known) -> Known {
    let c = x.dims[1];
    let parameters: Vec<ValueId> = [(-1.0, 1.0), (-1.0, 1.0), (-1.0, 1.0), (0.5, 2.0)]
        .iter()
        .map(|&(low, high)| b.weight(&[c], low, high))
        .collect();
    let y = b.keeping(Node::new("BatchNormalization", ""), x, &parameters);
    Known { exact: false, ..y }
}

pub(super) fn pool(b: &mut Builder) -> Option<Known> {
    let x = draw_image(b)?;
    let [n, c, h, w] = *x.dims.as_slice() else {
        return None;
    };
    let op = *b.rng.pick(&["MaxPool", "AveragePool", "GlobalAveragePool"]);
    let exact = x.exact && op == "MaxPool";
    if op == "GlobalAveragePool" {
        let id = b.op(Node::new(op, ""), &[x.id]);
        let dims = vec![n, c, 1, 1];
        return Some(Known { id, dims, exact });
    }
    if h < 2 || w < 2 {
        return None;
    }
    let node = Node::new(op, "")
        .with("kernel_shape", ints(&[2, 2]))
        .with("strides", ints(&[2, 2]));
    let id = b.op(node, &[x.id]);
    let dims = vec![n, c, h / 2, w / 2];
    Some(Known { id, dims, exact })
}

pub(super) fn gemm(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let [m, k] = *x.dims.as_slice() else {
        return None;
    };
    let n = b.rng.between(1, 8);
    let transposed = b.rng.one_in(2);
    let dims = if transposed { [n, k] } else { [k, n] };
    let weight = b.weight(&dims, -0.5, 0.5);
    let mut node = Node::new("Gemm", "").with("transB", int(usize::from(transposed)));
    let mut inputs = vec![x.id, weight];
    if b.rng.one_in(2) {
        inputs.push(b.weight(&[n], -0.5, 0.5));
        node.set("beta", Attribute::Float(0.5));
    }
    let id = b.op(node, &inputs);
    let y = Known {
        id,
        dims: vec![m, n],
        exact: false,
    };
    if b.rng.one_in(3) {
        return Some(normalise(b, &y));
    }
    Some(y)
}

/// With a bias and a normalization behind it, or without.
pub(super) fn matmul(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let k = *x.dims.last()?;
    if x.dims.len() < 2 {
        return None;
    }
    let n = b.rng.between(1, 8);
    let weight = b.weight(&[k, n], -0.5, 0.5);
    let mut id = b.op(Node::new("MatMul", ""), &[x.id, weight]);
    let mut dims = x.dims.clone();
    *dims.last_mut()? = n;
    if b.rng.one_in(2) {
        let bias = b.weight(&[n], -0.5, 0.5);
        let swapped = b.rng.one_in(2);
        let inputs = if swapped { [bias, id] } else { [id, bias] };
        id = b.op(Node::new("Add", ""), &inputs);
    }
    let y = Known {
        id,
        dims,
        exact: false,
    };
    if b.rng.one_in(3) {
        return Some(normalise(b, &y));
    }
    Some(y)
}

//! Growth by layers with weights, and pools.

use edgesmith_ir::{Attribute, Node, ValueId};

use super::{Builder, Known, int, ints};

/// A value `[batch, channels, height, width]`.
fn draw_image(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    (x.dims.len() == 4 && x.batch.is_none_or(|a| a == 0)).then_some(x)
}

pub(super) fn conv(b: &mut Builder) -> Option<Known> {
    let x = draw_image(b)?;
    let pad = b.rng.below(2);
    convolve(b, &x, pad)
}

/// A Pad of zeros in front of the window.
pub(super) fn padded_conv(b: &mut Builder) -> Option<Known> {
    let x = draw_image(b)?;
    let pads = b.integers(&[0, 0, 1, 0, 0, 0, 1, 2]);
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
        batch: x.batch,
        exact: false,
    };
    Some(followed(b, y))
}

pub(super) fn conv_transpose(b: &mut Builder) -> Option<Known> {
    let x = draw_image(b)?;
    let [n, c, h, w] = *x.dims.as_slice() else {
        return None;
    };
    let group = if b.rng.one_in(3) { c } else { 1 };
    let each = b.rng.between(1, 3);
    let weight = b.weight(&[c, each, 2, 2], -0.5, 0.5);
    let mut inputs = vec![x.id, weight];
    if b.rng.one_in(2) {
        inputs.push(b.weight(&[each * group], -0.5, 0.5));
    }
    let node = Node::new("ConvTranspose", "").with("group", int(group));
    let y = Known {
        id: b.op(node, &inputs),
        dims: vec![n, each * group, h + 1, w + 1],
        batch: x.batch,
        exact: false,
    };
    Some(followed(b, y))
}

/// What often follows a layer: a normalization, a scale by channel, both or neither; without the
/// axis of length 1 that layers of one dimension may have.
fn followed(b: &mut Builder, y: Known) -> Known {
    if let Some(at) = (2..4).find(|&a| y.dims.get(a) == Some(&1))
        && b.rng.one_in(2)
    {
        let axes = b.integers(&[at as i64]);
        let id = b.op(Node::new("Squeeze", ""), &[y.id, axes]);
        let mut dims = y.dims.clone();
        dims.remove(at);
        return scale_channels(b, &Known { id, dims, ..y }, 1);
    }
    match b.rng.below(4) {
        0 => normalise(b, &y),
        1 => scale_channels(b, &y, 1),
        2 => {
            let y = scale_channels(b, &y, 1);
            normalise(b, &y)
        }
        _ => y,
    }
}

/// Mul, Div, Add or Sub by a constant of one element or one for each channel.
fn scale_channels(b: &mut Builder, x: &Known, axis: usize) -> Known {
    let mut dims = vec![1; x.dims.len()];
    if !b.rng.one_in(3) {
        dims[axis] = x.dims[axis];
    }
    let skip = b.rng.below(axis + 1);
    let c = b.weight(&dims[skip..], 0.5, 1.5);
    let op = *b.rng.pick(&["Mul", "Div", "Add", "Sub"]);
    let swapped = op != "Div" && b.rng.one_in(3);
    let inputs = if swapped { [c, x.id] } else { [x.id, c] };
    Known {
        exact: false,
        ..x.with(b.op(Node::new(op, ""), &inputs))
    }
}

/// A value with constants by channel, whatever made it.
pub(super) fn scaled(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let axes = x.fixed();
    let axis = *axes.last()?;
    let axis = if b.rng.one_in(2) && axes.contains(&1) {
        1
    } else {
        axis
    };
    Some(scale_channels(b, &x, axis))
}

pub(super) fn norm(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    (x.dims.len() >= 2 && x.batch != Some(1)).then(|| normalise(b, &x))
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
        return Some(Known {
            id,
            dims,
            exact,
            ..x
        });
    }
    if h < 2 || w < 2 {
        return None;
    }
    let node = Node::new(op, "")
        .with("kernel_shape", ints(&[2, 2]))
        .with("strides", ints(&[2, 2]));
    let outputs = if op == "MaxPool" && b.rng.one_in(4) {
        2
    } else {
        1
    };
    let id = b.outs(node, &[x.id], outputs)[0];
    let dims = vec![n, c, h / 2, w / 2];
    Some(Known {
        id,
        dims,
        exact,
        ..x
    })
}

/// With weights as they are or transposed, by an attribute or by a node.
pub(super) fn gemm(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let [m, k] = *x.dims.as_slice() else {
        return None;
    };
    if x.batch == Some(1) {
        return None;
    }
    let n = b.rng.between(1, 8);
    let transposed = b.rng.one_in(2);
    let dims = if transposed { [n, k] } else { [k, n] };
    let mut a = x.id;
    let mut node = Node::new("Gemm", "").with("transB", int(usize::from(transposed)));
    if b.rng.one_in(3) {
        a = b.op(Node::new("Transpose", "").with("perm", ints(&[1, 0])), &[a]);
        node.set("transA", int(1));
    }
    let weight = b.weight(&dims, -0.5, 0.5);
    let mut inputs = vec![a, weight];
    if b.rng.one_in(2) {
        let dims = b.rng.pick(&[vec![1], vec![], vec![1, 1], vec![n]]).clone();
        inputs.push(b.weight(&dims, -0.5, 0.5));
        node.set("beta", Attribute::Float(0.5));
    }
    let y = Known {
        id: b.op(node, &inputs),
        dims: vec![m, n],
        batch: x.batch,
        exact: false,
    };
    Some(followed(b, y))
}

/// As Einsum too, with a bias and what else is constant by channel behind it, or without.
pub(super) fn matmul(b: &mut Builder) -> Option<Known> {
    let x = b.draw();
    let k = *x.dims.last()?;
    let last = x.dims.len() - 1;
    if last == 0 || x.batch == Some(last) {
        return None;
    }
    let n = b.rng.between(1, 8);
    let product = if b.opset >= 12 && b.rng.one_in(4) {
        let weight = b.weight(&[n, k], -0.5, 0.5);
        let axes: String = ('a'..'k').take(last).collect();
        let equation = format!("{axes}k,nk->{axes}n");
        let node = Node::new("Einsum", "").with("equation", Attribute::String(equation.into()));
        b.op(node, &[x.id, weight])
    } else {
        let weight = b.weight(&[k, n], -0.5, 0.5);
        b.op(Node::new("MatMul", ""), &[x.id, weight])
    };
    let mut y = Known {
        exact: false,
        ..x.with(product)
    };
    y.dims[last] = n;
    if b.rng.one_in(2) {
        let bias = b.weight(&[n], -0.5, 0.5);
        let swapped = b.rng.one_in(2);
        let inputs = if swapped { [bias, y.id] } else { [y.id, bias] };
        y.id = b.op(Node::new("Add", ""), &inputs);
    }
    if b.rng.one_in(3) {
        y = scale_channels(b, &y, last);
    }
    if b.rng.one_in(3) && y.batch != Some(1) {
        return Some(normalise(b, &y));
    }
    Some(y)
}

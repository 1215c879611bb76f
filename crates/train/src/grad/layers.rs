//! Convolutions, pools, normalisations and losses.

use edgesmith_ir::ops::gradient::DOMAIN;
use edgesmith_ir::{Attribute, Error, Node, Result};

use super::Backward;

pub(super) fn conv(cx: &mut Backward) -> Result<()> {
    let inputs = [cx.x(0)?, cx.x(1)?, cx.dy()?].map(Some);
    let node = cx.own();
    cx.give_by(node, &inputs, &[0, 1, 2]);
    Ok(())
}

/// ConvTranspose is the input gradient of a Conv: its own gradients are that Conv, and its
/// weight gradient.
pub(super) fn conv_transpose(cx: &mut Backward) -> Result<()> {
    let (x, w, y, dy) = (cx.x(0)?, cx.x(1)?, cx.y(0)?, cx.dy()?);
    let node = cx.node();
    let is_plain = matches!(node.string("auto_pad"), None | Some("NOTSET"))
        && node.ints("output_shape").is_none();
    if !is_plain {
        return Err(Error::unsupported("auto_pad and output_shape are not done")
            .hint("write the padding as `pads`"));
    }
    let mut forward = Node::new("Conv", "");
    let keep = |name: &str| name != "output_padding" && name != "auto_pad";
    let attributes = node.attributes.iter().filter(|(n, _)| keep(n));
    forward.attributes = attributes.cloned().collect();
    if cx.wants(0) {
        let dx = cx.add(forward.clone(), &[dy, w]);
        cx.give(0, dx);
    }
    if cx.wants(1) {
        let mut node = Node::new("ConvGrad", "").in_domain(DOMAIN);
        node.attributes = forward.attributes;
        let made = cx.emit(node, &[dy, w, x].map(Some), &[false, true]);
        if let Some(dw) = made[1] {
            cx.give(1, dw);
        }
    }
    if cx.wants(2) {
        let rank = cx.rank(y)? as i64;
        let axes: Vec<i64> = (0..rank).filter(|&a| a != 1).collect();
        let axes = cx.list(&axes);
        let node = Node::new("ReduceSum", "").with("keepdims", Attribute::Int(0));
        let db = cx.add(node, &[dy, axes]);
        cx.give(2, db);
    }
    Ok(())
}

pub(super) fn pool(cx: &mut Backward) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let node = cx.own();
    let dx = cx.add(node, &[x, dy]);
    cx.give(0, dx);
    Ok(())
}

/// `<Norm>Grad(X, scale, dY)`.
pub(super) fn norm(cx: &mut Backward) -> Result<()> {
    let (x, scale, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let mut node = cx.own();
    let mut places = &[0, 1, 2][..];
    if matches!(
        cx.node().op.as_str(),
        "RMSNormalization" | "SimplifiedLayerNormalization"
    ) {
        node.op = "RMSNormalizationGrad".into();
        places = &[0, 1];
    }
    cx.give_by(node, &[x, scale, dy].map(Some), places);
    Ok(())
}

/// `ResizeGrad(X, roi, scales, sizes, dY)`.
pub(super) fn resize(cx: &mut Backward) -> Result<()> {
    if (1..4).any(|i| cx.wants(i)) {
        return Err(Error::unsupported(
            "the region and the scales of a Resize have no gradient",
        ));
    }
    let inputs = [0, 1, 2, 3].map(|i| cx.node().input(i));
    let inputs = [&inputs[..], &[Some(cx.dy()?)]].concat();
    let node = cx.own();
    cx.give_by(node, &inputs, &[0]);
    Ok(())
}

/// `GridSampleGrad(X, grid, dY)`.
pub(super) fn grid_sample(cx: &mut Backward) -> Result<()> {
    let inputs = [cx.x(0)?, cx.x(1)?, cx.dy()?].map(Some);
    let node = cx.own();
    cx.give_by(node, &inputs, &[0, 1]);
    Ok(())
}

/// BatchNormalization, by the statistics of the batch in training and by given ones else.
pub(super) fn batch_norm(cx: &mut Backward) -> Result<()> {
    if cx.node().int("training_mode").unwrap_or(0) != 0 {
        return norm(cx);
    }
    let (x, scale, mean, variance, dy) = (cx.x(0)?, cx.x(1)?, cx.x(3)?, cx.x(4)?, cx.dy()?);
    if cx.wants(3) || cx.wants(4) {
        return Err(Error::unsupported(
            "running statistics of a BatchNormalization have no gradient",
        ));
    }
    let epsilon = f64::from(cx.node().float("epsilon").unwrap_or(1e-5));
    let rank = cx.rank(x)? as i64;
    let line: Vec<i64> = [-1].into_iter().chain((2..rank).map(|_| 1)).collect();
    let epsilon = cx.number(variance, epsilon)?;
    let sum = cx.op("Add", &[variance, epsilon]);
    let deviation = cx.op("Sqrt", &[sum]);
    let line = cx.list(&line);
    let along = |cx: &mut Backward, v| cx.op("Reshape", &[v, line]);
    let deviation = along(cx, deviation);
    if cx.wants(0) {
        let scale = along(cx, scale);
        let factor = cx.op("Div", &[scale, deviation]);
        let dx = cx.op("Mul", &[dy, factor]);
        cx.give(0, dx);
    }
    let axes: Vec<i64> = (0..rank).filter(|&a| a != 1).collect();
    let axes = cx.list(&axes);
    let summed = |cx: &mut Backward, v| {
        let node = Node::new("ReduceSum", "").with("keepdims", Attribute::Int(0));
        cx.add(node, &[v, axes])
    };
    if cx.wants(1) {
        let mean = along(cx, mean);
        let centred = cx.op("Sub", &[x, mean]);
        let normal = cx.op("Div", &[centred, deviation]);
        let product = cx.op("Mul", &[dy, normal]);
        let dscale = summed(cx, product);
        cx.give(1, dscale);
    }
    if cx.wants(2) {
        let dbias = summed(cx, dy);
        cx.give(2, dbias);
    }
    Ok(())
}

/// `<Loss>Grad(scores, labels, weight, dLoss)`, and what comes by the logarithms of
/// probabilities, the second output.
pub(super) fn loss(cx: &mut Backward) -> Result<()> {
    if cx.wants(2) {
        return Err(Error::unsupported("weights of classes have no gradient"));
    }
    if let Some(dloss) = cx.dy_of(0) {
        let inputs = [
            Some(cx.x(0)?),
            Some(cx.x(1)?),
            cx.node().input(2),
            Some(dloss),
        ];
        let node = cx.own();
        cx.give_by(node, &inputs, &[0]);
    }
    if let Some(dy) = cx.dy_of(1) {
        let node = Node::new("LogSoftmaxGrad", "").in_domain(DOMAIN);
        let y = cx.y(1)?;
        let dx = cx.add(node.with("axis", Attribute::Int(1)), &[y, dy]);
        cx.give(0, dx);
    }
    Ok(())
}

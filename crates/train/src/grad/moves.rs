//! Operators that move elements, and change nothing of them.

use edgesmith_ir::{Attribute, Error, Node, Result, Tensor};

use super::Backward;
use super::backward::number;

pub(super) fn same(cx: &mut Backward) -> Result<()> {
    let dy = cx.dy()?;
    cx.give(0, dy);
    Ok(())
}

pub(super) fn reshaped(cx: &mut Backward) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let dx = cx.reshaped(dy, x);
    cx.give(0, dx);
    Ok(())
}

pub(super) fn expand(cx: &mut Backward) -> Result<()> {
    let dy = cx.dy()?;
    cx.give_broadcast(0, dy)
}

pub(super) fn transpose(cx: &mut Backward) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let rank = cx.rank(x)?;
    let back: Vec<i64> = match cx.node().ints("perm") {
        None => (0..rank as i64).rev().collect(),
        Some(perm) => {
            let place = |a: usize| perm.iter().position(|&p| p == a as i64);
            let back: Option<Vec<i64>> = (0..rank).map(|a| Some(place(a)? as i64)).collect();
            back.ok_or_else(|| Error::invalid("perm is no permutation"))?
        }
    };
    let node = Node::new("Transpose", "").with("perm", Attribute::Ints(back));
    let dx = cx.add(node, &[dy]);
    cx.give(0, dx);
    Ok(())
}

pub(super) fn trilu(cx: &mut Backward) -> Result<()> {
    let mut node = Node::new("Trilu", "");
    node.attributes.clone_from(&cx.node().attributes);
    let inputs = [Some(cx.dy()?), cx.node().input(1)];
    if let Some(dx) = cx.emit(node, &inputs, &[true])[0] {
        cx.give(0, dx);
    }
    Ok(())
}

/// `<Op>Grad(X, …, dY)`: the inputs of the node, all that it can have, and the gradient.
pub(super) fn moved(cx: &mut Backward) -> Result<()> {
    let node = cx.own();
    let given = cx.node().inputs().len();
    let mut inputs: Vec<_> = (0..given).map(|i| cx.node().input(i)).collect();
    inputs.push(Some(cx.dy()?));
    if let Some(dx) = cx.emit(node, &inputs, &[true])[0] {
        cx.give(0, dx);
    }
    Ok(())
}

/// Concat: each part gets its slice.
pub(super) fn concat(cx: &mut Backward) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let rank = cx.rank(y)?;
    let axis = edgesmith_ir::infer::axis(cx.node().int("axis").unwrap_or(0), rank)?;
    let mut lengths = Vec::new();
    for i in 0..cx.node().inputs().len() {
        let x = cx.x(i)?;
        let length = cx.shape(x).and_then(|s| s.get(axis)?.known());
        lengths.push(length.ok_or_else(|| {
            Error::unsupported(format!("the length of part {i} is not known"))
                .hint("give the model's dimensions numbers")
        })?);
    }
    let mut start = 0i64;
    for (i, length) in lengths.into_iter().enumerate() {
        let end = start + length as i64;
        if cx.wants(i) {
            let list = |cx: &mut Backward, n: i64| cx.constant(Tensor::vector(vec![n]));
            let (from, to) = (list(cx, start), list(cx, end));
            let along = list(cx, axis as i64);
            let part = cx.op("Slice", &[dy, from, to, along]);
            cx.give(i, part);
        }
        start = end;
    }
    Ok(())
}

/// Split: the gradients of the parts, zeros for those that the loss does not depend on.
pub(super) fn split(cx: &mut Backward) -> Result<()> {
    let x = cx.x(0)?;
    let mut parts = Vec::new();
    for o in 0..cx.node().outputs().len() {
        parts.push(match (cx.dy_of(o), cx.node().output(o)) {
            (Some(dy), _) => dy,
            (None, Some(y)) => {
                let data = number(cx.dtype(y)?, &cx.dims(y)?, 0.0)?;
                cx.constant(data)
            }
            (None, None) => {
                return Err(Error::unsupported(format!("part {o} is left out")));
            }
        });
    }
    let axis = cx.node().int("axis").unwrap_or(0);
    let axis = edgesmith_ir::infer::axis(axis, cx.rank(x)?)?;
    let node = Node::new("Concat", "").with("axis", Attribute::Int(axis as i64));
    let dx = cx.add(node, &parts);
    cx.give(0, dx);
    Ok(())
}

/// Dropout by its mask in training; else nothing was dropped.
pub(super) fn dropout(cx: &mut Backward) -> Result<()> {
    let is_training = cx.node().input(2).is_some();
    if is_training {
        return Err(
            Error::unsupported("a Dropout of its own random numbers is not done")
                .hint("the trainer puts a product with a mask in its place"),
        );
    }
    same(cx)
}

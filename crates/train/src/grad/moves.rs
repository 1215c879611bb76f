//! Operators that move elements, and change nothing of them.

use edgesmith_ir::ops::arith::from_floats;
use edgesmith_ir::ops::gradient::DOMAIN;
use edgesmith_ir::{Attribute, Error, Node, Result, ValueId};

use super::Backward;

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
    cx.give_by(node, &inputs, &[0]);
    Ok(())
}

/// `<Op>Grad(X, …, dY)`: the inputs of the node, all that it can have, and the gradient.
pub(super) fn moved(cx: &mut Backward) -> Result<()> {
    let node = cx.own();
    let given = cx.node().inputs().len();
    let mut inputs: Vec<_> = (0..given).map(|i| cx.node().input(i)).collect();
    inputs.push(Some(cx.dy()?));
    cx.give_by(node, &inputs, &[0]);
    Ok(())
}

/// ReverseSequence undoes itself.
pub(super) fn reverse_sequence(cx: &mut Backward) -> Result<()> {
    let mut node = Node::new("ReverseSequence", "");
    node.attributes.clone_from(&cx.node().attributes);
    let inputs = [cx.dy()?, cx.x(1)?];
    let dx = cx.add(node, &inputs);
    cx.give(0, dx);
    Ok(())
}

/// TopK: the gradients of the values go to where they were.
pub(super) fn top_k(cx: &mut Backward) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let places = match cx.node().output(1) {
        Some(places) => places,
        None => {
            let mut again = Node::new("TopK", "");
            again.attributes.clone_from(&cx.node().attributes);
            let inputs = [Some(x), cx.node().input(1)];
            let made = cx.emit(again, &inputs, &[true, true]);
            made[1].ok_or_else(|| Error::internal("two outputs were asked for"))?
        }
    };
    let axis = cx.node().int("axis").unwrap_or(-1);
    let node = Node::new("GatherElementsGrad", "").in_domain(DOMAIN);
    let dx = cx.add(node.with("axis", Attribute::Int(axis)), &[x, places, dy]);
    cx.give(0, dx);
    Ok(())
}

/// ScatterElements and ScatterND: what is written over has no gradient, what is added to has.
pub(super) fn scatter(cx: &mut Backward) -> Result<()> {
    let (indices, dy) = (cx.x(1)?, cx.dy()?);
    match cx.node().string("reduction").unwrap_or("none") {
        "none" => {
            let inputs = [cx.x(0)?, indices, cx.x(2)?, dy].map(Some);
            let node = cx.own();
            cx.give_by(node, &inputs, &[0, 2]);
        }
        "add" => {
            cx.give(0, dy);
            if cx.wants(2) {
                let updates = match cx.node().int("axis") {
                    _ if cx.node().is("ScatterND") => cx.op("GatherND", &[dy, indices]),
                    axis => {
                        let axis = axis.unwrap_or(0);
                        cx.op_with("GatherElements", &[dy, indices], "axis", axis)
                    }
                };
                cx.give(2, updates);
            }
        }
        other => {
            return Err(Error::unsupported(format!(
                "the gradient of the reduction \"{other}\" is not done"
            )));
        }
    }
    Ok(())
}

/// OneHot: the gradients of the values for hits and for all others.
pub(super) fn one_hot(cx: &mut Backward) -> Result<()> {
    if !cx.wants(2) {
        return Ok(());
    }
    let (indices, depth, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let axis = cx.node().int("axis").unwrap_or(-1);
    let marks = from_floats(cx.dtype(cx.y(0)?)?, &[2], vec![0.0, 1.0])?;
    let marks = cx.constant(marks);
    let hits = cx.op_with("OneHot", &[indices, depth, marks], "axis", axis);
    let hits = cx.op("Mul", &[hits, dy]);
    let one = cx.list(&[1]);
    let [on, all] = [hits, dy].map(|v| {
        let sum = cx.op_with("ReduceSum", &[v], "keepdims", 0);
        cx.op("Reshape", &[sum, one])
    });
    let off = cx.op("Sub", &[all, on]);
    let dvalues = cx.op_with("Concat", &[off, on], "axis", 0);
    cx.give(2, dvalues);
    Ok(())
}

/// Concat: each part gets its slice.
pub(super) fn concat(cx: &mut Backward) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let rank = cx.rank(y)?;
    let axis = edgesmith_ir::infer::axis(cx.node().int("axis").unwrap_or(0), rank)?;
    let along = cx.list(&[axis as i64]);
    let mut start = Place::Known(0);
    for i in 0..cx.node().inputs().len() {
        let x = cx.x(i)?;
        let end = start.after(cx, x, axis);
        if cx.wants(i) {
            let [from, to] = [start, end].map(|p| p.list(cx));
            let part = cx.op("Slice", &[dy, from, to, along]);
            cx.give(i, part);
        }
        start = end;
    }
    Ok(())
}

/// A place along an axis: a number, or a list of one that the graph computes.
#[derive(Clone, Copy)]
enum Place {
    Known(i64),
    Computed(ValueId),
}

impl Place {
    /// The place behind `x`, which starts here.
    fn after(self, cx: &mut Backward, x: ValueId, axis: usize) -> Self {
        if let (Self::Known(start), Some(length)) = (self, cx.length(x, axis)) {
            return Self::Known(start + length as i64);
        }
        let (start, length) = (self.list(cx), cx.length_of(x, axis));
        Self::Computed(cx.op("Add", &[start, length]))
    }

    fn list(self, cx: &mut Backward) -> ValueId {
        match self {
            Self::Known(n) => cx.list(&[n]),
            Self::Computed(v) => v,
        }
    }
}

/// Split: the gradients of the parts, zeros for those that the loss does not depend on.
pub(super) fn split(cx: &mut Backward) -> Result<()> {
    let x = cx.x(0)?;
    let mut parts = Vec::new();
    for o in 0..cx.node().outputs().len() {
        parts.push(match (cx.dy_of(o), cx.node().output(o)) {
            (Some(dy), _) => dy,
            (None, Some(y)) => {
                let shape = cx.op("Shape", &[y]);
                cx.filled(shape, y, 0.0)?
            }
            (None, None) => {
                return Err(Error::unsupported(format!("part {o} is left out")));
            }
        });
    }
    let axis = cx.node().int("axis").unwrap_or(0);
    let axis = edgesmith_ir::infer::axis(axis, cx.rank(x)?)?;
    let dx = cx.op_with("Concat", &parts, "axis", axis as i64);
    cx.give(0, dx);
    Ok(())
}

/// Dropout where nothing is dropped.
pub(super) fn dropout(cx: &mut Backward) -> Result<()> {
    let training = cx.node().input(2);
    if training.is_some_and(|v| cx.integers(v) != Some(vec![0])) {
        return Err(
            Error::unsupported("a Dropout of its own random numbers is not done")
                .hint("the trainer puts a product with a mask in its place"),
        );
    }
    same(cx)
}

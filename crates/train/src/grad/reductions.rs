//! Reductions along axes, and running sums.

use edgesmith_ir::{Attribute, Error, Node, Result, ValueId};

use super::Backward;

/// `v`, which has the shape of the output, with the reduced axes as axes of length 1.
fn with_axes(cx: &mut Backward, v: ValueId) -> Result<ValueId> {
    let x = cx.x(0)?;
    let rank = cx.rank(x)?;
    if cx.node().int("keepdims").unwrap_or(1) != 0 {
        return Ok(v);
    }
    let axes: Vec<i64> = axes(cx)?.into_iter().map(|a| a as i64).collect();
    if axes.len() == rank && rank > 0 {
        let ones = cx.list(&vec![1; rank]);
        return Ok(cx.op("Reshape", &[v, ones]));
    }
    if axes.is_empty() {
        return Ok(v);
    }
    let axes = cx.list(&axes);
    Ok(cx.op("Unsqueeze", &[v, axes]))
}

/// The reduced axes, rising.
fn axes(cx: &Backward) -> Result<Vec<usize>> {
    let rank = cx.rank(cx.x(0)?)?;
    let given = cx.list_of(1, "axes");
    if given.is_none() && cx.node().input(1).is_some() {
        return Err(Error::unsupported("axes that are computed are not done"));
    }
    let given = given.unwrap_or_default();
    if given.is_empty() {
        let none = cx.node().int("noop_with_empty_axes").unwrap_or(0) != 0;
        return Ok(if none {
            Vec::new()
        } else {
            (0..rank).collect()
        });
    }
    let mut axes = Vec::new();
    for a in given {
        axes.push(edgesmith_ir::infer::axis(a, rank)?);
    }
    axes.sort_unstable();
    Ok(axes)
}

/// `v` repeated to the shape of the input.
fn repeated(cx: &mut Backward, v: ValueId) -> Result<ValueId> {
    let x = cx.x(0)?;
    let v = with_axes(cx, v)?;
    let shape = cx.op("Shape", &[x]);
    Ok(cx.op("Expand", &[v, shape]))
}

pub(super) fn sum(cx: &mut Backward) -> Result<()> {
    let dy = cx.dy()?;
    let dx = repeated(cx, dy)?;
    cx.give(0, dx);
    Ok(())
}

pub(super) fn mean(cx: &mut Backward) -> Result<()> {
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    let shape = cx.shape(x).cloned();
    let mut count = Some(1);
    for a in axes(cx)? {
        let length = shape.as_ref().and_then(|s| s.get(a)?.known());
        count = count.zip(length).map(|(c, l): (usize, usize)| c * l);
    }
    let share = match count {
        Some(count) => cx.scaled(dy, y, 1.0 / count as f64)?,
        None => {
            let [all, left] = [x, y].map(|v| cx.op("Size", &[v]));
            let count = cx.op("Div", &[all, left]);
            let count = cx.cast_like(count, x)?;
            cx.op("Div", &[dy, count])
        }
    };
    let dx = repeated(cx, share)?;
    cx.give(0, dx);
    Ok(())
}

/// Each maximum (or minimum) of a group gets an equal share.
pub(super) fn extreme(cx: &mut Backward) -> Result<()> {
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    let (zero, one) = (cx.number(x, 0.0)?, cx.number(x, 1.0)?);
    let [y, dy] = [y, dy].map(|v| with_axes(cx, v));
    let (y, dy) = (y?, dy?);
    let hit = cx.op("Equal", &[x, y]);
    let hits = cx.op("Where", &[hit, one, zero]);
    let axes: Vec<i64> = axes(cx)?.into_iter().map(|a| a as i64).collect();
    let dx = if axes.is_empty() {
        dy
    } else {
        let axes = cx.list(&axes);
        let count = cx.op("ReduceSum", &[hits, axes]);
        let share = cx.op("Div", &[dy, count]);
        cx.op("Mul", &[hits, share])
    };
    cx.give(0, dx);
    Ok(())
}

pub(super) fn sum_square(cx: &mut Backward) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let dy = with_axes(cx, dy)?;
    let twice = cx.scaled(dy, x, 2.0)?;
    let dx = cx.op("Mul", &[x, twice]);
    cx.give(0, dx);
    Ok(())
}

pub(super) fn l1(cx: &mut Backward) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let dy = with_axes(cx, dy)?;
    let sign = cx.op("Sign", &[x]);
    let dx = cx.op("Mul", &[sign, dy]);
    cx.give(0, dx);
    Ok(())
}

/// dX = X·dY/‖X‖; 0 where the norm is.
pub(super) fn l2(cx: &mut Backward) -> Result<()> {
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    let (zero, one) = (cx.number(x, 0.0)?, cx.number(x, 1.0)?);
    let is_zero = cx.op("Equal", &[y, zero]);
    let safe = cx.op("Where", &[is_zero, one, y]);
    let ratio = cx.op("Div", &[dy, safe]);
    let ratio = with_axes(cx, ratio)?;
    let dx = cx.op("Mul", &[x, ratio]);
    cx.give(0, dx);
    Ok(())
}

/// `ReduceProdGrad(X, axes, dY)`.
pub(super) fn product(cx: &mut Backward) -> Result<()> {
    let node = cx.own();
    let inputs = [Some(cx.x(0)?), cx.node().input(1), Some(cx.dy()?)];
    cx.give_by(node, &inputs, &[0]);
    Ok(())
}

/// d ln Σ = dY/Σ, where Σ = exp(Y).
pub(super) fn log_sum(cx: &mut Backward) -> Result<()> {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let sum = cx.op("Exp", &[y]);
    let share = cx.op("Div", &[dy, sum]);
    let dx = repeated(cx, share)?;
    cx.give(0, dx);
    Ok(())
}

pub(super) fn log_sum_exp(cx: &mut Backward) -> Result<()> {
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    let [y, dy] = [y, dy].map(|v| with_axes(cx, v));
    let (y, dy) = (y?, dy?);
    let shifted = cx.op("Sub", &[x, y]);
    let share = cx.op("Exp", &[shifted]);
    let dx = cx.op("Mul", &[share, dy]);
    cx.give(0, dx);
    Ok(())
}

/// CumSum: the running sum the other way.
pub(super) fn cumulate(cx: &mut Backward) -> Result<()> {
    let (axis, dy) = (cx.x(1)?, cx.dy()?);
    let reverse = cx.node().int("reverse").unwrap_or(0) == 0;
    let exclusive = cx.node().int("exclusive").unwrap_or(0);
    let node = Node::new("CumSum", "")
        .with("reverse", Attribute::Int(i64::from(reverse)))
        .with("exclusive", Attribute::Int(exclusive));
    let dx = cx.add(node, &[dy, axis]);
    cx.give(0, dx);
    Ok(())
}

//! Operators that move, join, cut off or sum along axes.

use edgesmith_ir::ValueId;

use super::rules::Cx;

pub(super) fn concat(cx: &mut Cx) -> Result<(), String> {
    let y = cx.y()?;
    let rank = cx.rank(y);
    let axis = cx.node.int("axis").ok_or("it has no axis")?;
    let axis = cx.axis(axis, rank)?;
    let mut parts = Vec::new();
    for i in 0..cx.node.inputs().len() {
        let x = cx.x(i)?;
        if cx.rank(x) != rank {
            return Err("its parts have other axes".into());
        }
        parts.push((x, cx.length(x, axis)?));
    }
    let whole: usize = parts.iter().map(|(_, n)| n).sum();
    if cx.length(y, axis)? != whole {
        return Err("its parts do not make the whole".into());
    }
    let mut offset = 0;
    for (x, length) in parts {
        for i in 0..length {
            cx.tie_at((x, axis, i), (y, axis, offset + i));
        }
        offset += length;
        for a in (0..rank).filter(|&a| a != axis) {
            cx.tie((x, a), (y, a));
        }
    }
    Ok(())
}

pub(super) fn transpose(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let rank = cx.rank(x);
    let perm = match cx.node.ints("perm") {
        Some(perm) => perm.to_vec(),
        None => (0..rank as i64).rev().collect(),
    };
    if perm.len() != rank || cx.rank(y) != rank {
        return Err("its order does not fit its axes".into());
    }
    for (b, a) in perm.into_iter().enumerate() {
        let a = cx.axis(a, rank)?;
        cx.tie((x, a), (y, b));
    }
    Ok(())
}

/// The places of the axis that is looked up stay; the others go with the result.
pub(super) fn gather(cx: &mut Cx) -> Result<(), String> {
    let (x, at, y) = (cx.x(0)?, cx.x(1)?, cx.y()?);
    let (rank, new) = (cx.rank(x), cx.rank(at));
    let axis = cx.axis(cx.node.int("axis").unwrap_or(0), rank)?;
    if cx.rank(y) + 1 != rank + new {
        return Err("its axes are not known".into());
    }
    cx.hold(x, axis, "it looks up along this axis");
    for a in 0..new {
        cx.tie((at, a), (y, axis + a));
        cx.hold(at, a, "it looks up at these places");
    }
    for a in (0..rank).filter(|&a| a != axis) {
        cx.tie((x, a), (y, if a < axis { a } else { a + new - 1 }));
    }
    Ok(())
}

/// Ties the axes that are left, in their order.
fn left(
    cx: &mut Cx,
    (x, gone): (ValueId, &[usize]),
    (y, new): (ValueId, &[usize]),
) -> Result<(), String> {
    let from: Vec<usize> = (0..cx.rank(x)).filter(|a| !gone.contains(a)).collect();
    let to: Vec<usize> = (0..cx.rank(y)).filter(|a| !new.contains(a)).collect();
    if from.len() != to.len() {
        return Err("its axes are not known".into());
    }
    for (a, b) in from.into_iter().zip(to) {
        cx.tie((x, a), (y, b));
    }
    Ok(())
}

fn places(cx: &Cx, axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    axes.iter().map(|&a| cx.axis(a, rank)).collect()
}

pub(super) fn squeeze(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let axes = cx.ints("axes", 1)?.ok_or("its axes are not written down")?;
    let gone = places(cx, &axes, cx.rank(x))?;
    left(cx, (x, &gone), (y, &[]))
}

pub(super) fn unsqueeze(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let axes = cx.ints("axes", 1)?.ok_or("its axes are not written down")?;
    let new = places(cx, &axes, cx.rank(y))?;
    left(cx, (x, &[]), (y, &new))
}

pub(super) fn reduce(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let axes = cx.ints("axes", 1)?.ok_or("it is over all axes")?;
    let gone = places(cx, &axes, cx.rank(x))?;
    if gone.is_empty() {
        return Err("it is over all axes or none".into());
    }
    for &a in &gone {
        cx.hold(x, a, "it goes over this axis");
    }
    let stay = cx.node.int("keepdims").unwrap_or(1) != 0;
    left(cx, (x, &gone), (y, if stay { &gone } else { &[] }))
}

pub(super) fn softmax(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let rank = cx.rank(x);
    // Before opset 13 all axes from this one on are one line.
    let is_line = cx.model.opset() < 13;
    let axis = cx.node.int("axis").unwrap_or(if is_line { 1 } else { -1 });
    let axis = cx.axis(axis, rank)?;
    for a in 0..rank {
        cx.tie((x, a), (y, a));
        if a == axis || (is_line && a > axis) {
            cx.hold(x, a, "its sums are along this axis");
        }
    }
    Ok(())
}

pub(super) fn pad(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let rank = cx.rank(x);
    let pads = cx.ints("pads", 1)?.ok_or("it has no padding")?;
    let axes = match cx.node.input(3) {
        Some(_) => cx.ints("", 3)?.ok_or("its axes are not written down")?,
        None => (0..rank as i64).collect(),
    };
    let axes = places(cx, &axes, rank)?;
    if pads.len() != 2 * axes.len() {
        return Err("its padding does not fit its axes".into());
    }
    let (before, behind) = pads.split_at(axes.len());
    let is_padded = |a: usize| {
        let at = axes.iter().position(|&b| b == a);
        at.is_some_and(|i| before[i] != 0 || behind[i] != 0)
    };
    for a in 0..rank {
        if is_padded(a) {
            cx.hold(x, a, "it pads this axis");
            cx.hold(y, a, "it pads this axis");
        } else {
            cx.tie((x, a), (y, a));
        }
    }
    Ok(())
}

/// Batch and channels stay, where lengths are scaled and not written down.
pub(super) fn resize(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let rank = cx.rank(x);
    if cx.node.input(3).is_some() || rank < 2 || cx.rank(y) != rank {
        return Err("its lengths are written down".into());
    }
    for a in 0..rank {
        if a < 2 {
            cx.tie((x, a), (y, a));
        } else {
            cx.hold(x, a, "it resizes this axis");
            cx.hold(y, a, "it resizes this axis");
        }
    }
    Ok(())
}

//! Operators that move, join, cut off or sum along axes.

use crate::ValueId;

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

/// A table that is looked up keeps its places, and other axes go with the result. Where the places
/// are known, each place of the result goes with its own.
pub(super) fn gather(cx: &mut Cx) -> Result<(), String> {
    let (x, at, y) = (cx.x(0)?, cx.x(1)?, cx.y()?);
    let (rank, new) = (cx.rank(x), cx.rank(at));
    let axis = cx.axis(cx.node.int("axis").unwrap_or(0), rank)?;
    if cx.rank(y) + 1 != rank + new {
        return Err("its axes are not known".into());
    }
    let known = cx.model.graph.constant(at).and_then(|t| t.to_i64().ok());
    match (known, cx.length(x, axis)) {
        (Some(places), Ok(length)) if new == 1 => {
            for (j, place) in places.into_iter().enumerate() {
                let place = if place < 0 {
                    place + length as i64
                } else {
                    place
                };
                let place = usize::try_from(place).ok().filter(|&p| p < length);
                let place = place.ok_or("it looks up what is not there")?;
                cx.tie_at((x, axis, place), (y, axis, j));
            }
        }
        _ => {
            cx.hold(x, axis, "it looks up along this axis");
            for a in 0..new {
                cx.tie((at, a), (y, axis + a));
                cx.hold(at, a, "it looks up at these places");
            }
        }
    }
    for a in (0..rank).filter(|&a| a != axis) {
        cx.tie((x, a), (y, if a < axis { a } else { a + new - 1 }));
    }
    Ok(())
}

pub(super) fn split(cx: &mut Cx) -> Result<(), String> {
    let x = cx.x(0)?;
    let rank = cx.rank(x);
    let axis = cx.axis(cx.node.int("axis").unwrap_or(0), rank)?;
    let length = cx.length(x, axis)?;
    let outputs: Vec<Option<ValueId>> = cx.node.outputs().to_vec();
    let mut offset = 0;
    for y in outputs {
        let y = y.ok_or("an output is left out")?;
        if cx.rank(y) != rank {
            return Err("its parts have other axes".into());
        }
        let own = cx.length(y, axis)?;
        if offset + own > length {
            return Err("its parts do not make the whole".into());
        }
        for i in 0..own {
            cx.tie_at((x, axis, offset + i), (y, axis, i));
        }
        offset += own;
        for a in (0..rank).filter(|&a| a != axis) {
            cx.tie((x, a), (y, a));
        }
    }
    if offset != length {
        return Err("its parts do not make the whole".into());
    }
    Ok(())
}

/// Parts of axes, from one place to another.
pub(super) fn slice(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let rank = cx.rank(x);
    let starts = cx.ints("starts", 1)?.ok_or("it has no starts")?;
    let axes = match cx.ints("axes", 3)? {
        Some(axes) => axes,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = cx.ints("steps", 4)?.unwrap_or(vec![1; starts.len()]);
    if axes.len() != starts.len() || steps.len() != starts.len() {
        return Err("its starts do not fit its axes".into());
    }
    let axes = places(cx, &axes, rank)?;
    for a in 0..rank {
        let Some(at) = axes.iter().position(|&b| b == a) else {
            cx.tie((x, a), (y, a));
            continue;
        };
        let (Ok(length), Ok(own)) = (cx.length(x, a), cx.length(y, a)) else {
            cx.hold(x, a, "it takes a part of a length that is not known");
            cx.hold(y, a, "it takes a part of a length that is not known");
            continue;
        };
        let start = match starts[at] {
            s if s < 0 => s.saturating_add(length as i64),
            s => s,
        };
        let start = start.clamp(0, length as i64) as usize;
        if steps[at] != 1 || start + own > length {
            cx.hold(x, a, "it takes every so manieth");
            cx.hold(y, a, "it takes every so manieth");
            continue;
        }
        for i in 0..own {
            cx.tie_at((x, a, start + i), (y, a, i));
        }
    }
    Ok(())
}

/// Axes of length 1 that become longer are free: all their places hold the same.
pub(super) fn expand(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    if cx.ints("", 1)?.is_none() {
        return Err("its target is computed".into());
    }
    cx.broadcast(x, y);
    Ok(())
}

/// Each copy goes with what it is a copy of.
pub(super) fn tile(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let repeats = cx.ints("", 1)?.ok_or("its repeats are computed")?;
    if repeats.len() != cx.rank(x) {
        return Err("its repeats do not fit its axes".into());
    }
    for (a, n) in repeats.into_iter().enumerate() {
        if n == 1 {
            cx.tie((x, a), (y, a));
            continue;
        }
        let (length, whole) = (cx.length(x, a)?, cx.length(y, a)?);
        for i in 0..whole {
            cx.tie_at((x, a, i % length), (y, a, i));
        }
    }
    Ok(())
}

/// The channels that become pixels of one channel go with it.
fn blocks(cx: &mut Cx, deep: ValueId, wide: ValueId, is_blocks_first: bool) -> Result<(), String> {
    let size = cx.node.int("blocksize").unwrap_or(0);
    let size = usize::try_from(size).ok().filter(|&n| n > 0);
    let squares = size.and_then(|n| n.checked_mul(n));
    let squares = squares.ok_or("it has no size of blocks")?;
    if cx.rank(deep) != 4 || cx.rank(wide) != 4 {
        return Err("it is of no image".into());
    }
    let (from, to) = (cx.length(deep, 1)?, cx.length(wide, 1)?);
    if from != to * squares {
        return Err("its channels do not fit".into());
    }
    cx.tie((deep, 0), (wide, 0));
    for b in 0..squares {
        for c in 0..to {
            let at = if is_blocks_first {
                b * to + c
            } else {
                c * squares + b
            };
            cx.tie_at((deep, 1, at), (wide, 1, c));
        }
    }
    for v in [deep, wide] {
        for a in 2..4 {
            cx.hold(v, a, "pixels come of channels");
        }
    }
    Ok(())
}

pub(super) fn depth_to_space(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let is_blocks_first = cx.node.string("mode").unwrap_or("DCR") == "DCR";
    blocks(cx, x, y, is_blocks_first)
}

pub(super) fn space_to_depth(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    blocks(cx, y, x, true)
}

/// Scales and zero points of an axis go with it.
pub(super) fn quantised(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    if cx.node.int("block_size").unwrap_or(0) != 0 {
        return Err("its scales are of blocks".into());
    }
    let rank = cx.rank(x);
    for a in 0..rank {
        cx.tie((x, a), (y, a));
    }
    for i in 1..cx.node.inputs().len() {
        let Some(scale) = cx.node.input(i) else {
            continue;
        };
        match cx.rank(cx.ranked(scale)?) {
            0 => {}
            1 if cx.length(scale, 0) == Ok(1) => {}
            1 => {
                let axis = cx.axis(cx.node.int("axis").unwrap_or(1), rank)?;
                cx.tie((scale, 0), (x, axis));
            }
            _ => return Err("its scales are no list".into()),
        }
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
    let is_mean = cx.options.means && cx.node.is("ReduceMean") && gone.len() == 1;
    for &a in &gone {
        match is_mean && cx.is_f32(x) {
            true => cx.reads(0, a),
            false => cx.hold(x, a, "it goes over this axis"),
        }
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
    for a in 0..rank {
        let at = axes.iter().position(|&b| b == a);
        let [front, back] = at.map_or([0, 0], |i| [before[i], behind[i]]);
        if front == 0 && back == 0 {
            cx.tie((x, a), (y, a));
            continue;
        }
        let is_constant = cx.node.string("mode").unwrap_or("constant") == "constant";
        let lengths = cx.length(x, a).ok().zip(cx.length(y, a).ok());
        match lengths.filter(|_| is_constant && front >= 0 && back >= 0) {
            // Places that are padded hold a constant, and may go without others.
            Some((own, _)) => {
                for i in 0..own {
                    cx.tie_at((x, a, i), (y, a, front as usize + i));
                }
            }
            None => {
                cx.hold(x, a, "it pads this axis");
                cx.hold(y, a, "it pads this axis");
            }
        }
    }
    Ok(())
}

/// Batch and channels stay.
pub(super) fn resize(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let rank = cx.rank(x);
    if rank < 2 || cx.rank(y) != rank {
        return Err("its axes are not known".into());
    }
    if cx.node.input(3).is_some() {
        cx.ints("", 3)?;
    }
    if cx.node.attribute("axes").is_some()
        || cx.node.string("coordinate_transformation_mode") == Some("tf_crop_and_resize")
    {
        return Err("it resizes some axes or a box".into());
    }
    for a in 0..rank {
        if a < 2 {
            // Where channels are resized too, lengths differ and both are held.
            cx.tie((x, a), (y, a));
        } else {
            cx.hold(x, a, "it resizes this axis");
            cx.hold(y, a, "it resizes this axis");
        }
    }
    Ok(())
}

//! Concat, Slice and Split: parts along an axis.

use edgesmith_ir::{Error, NodeId, Result};

use super::{Moves, axis_of, ints, moved, ordered, put, walk};
use crate::lower::{Bounds, Held, Lowering};
use crate::program::Grid;

/// Concat: inputs one behind the other along an axis, in one grid of bytes or in floats.
pub(in crate::emit) fn concat(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let y = l.output(id, 0)?;
    let dims = l.typed(y)?.1;
    let axis = axis_of(node.int("axis").unwrap_or(0), dims.len())?;
    let tail = l.tail(y);
    let count = node.inputs().len();
    let parts: Vec<Held> = (0..count).map(|i| l.read(id, i)).collect::<Result<_>>()?;
    let first = parts
        .first()
        .cloned()
        .ok_or_else(|| Error::invalid("it has no inputs"))?;
    let grids: Option<Vec<Grid>> = parts.iter().map(|p| l.grid(p)).collect();
    // No grid but that of the result holds what parts of different grids do.
    let grid = grids.and_then(|all| tail.grid.or_else(|| common(&all)));
    let laid = alike(l, &parts, grid, &first.order)?;
    let element = l.of(&laid[0]).element;
    let mut at = 0;
    let mut copies = Vec::with_capacity(count);
    for part in &laid {
        let (from, to) = walk(part, &dims, &first.order);
        copies.push(ordered(
            &first.order,
            &part.dims,
            &from,
            &to,
            0,
            at * to[axis],
        ));
        at += part.dims[axis] as isize;
    }
    let layer = Moves::new(element, copies, None)?;
    let plain = tail.bounds == Bounds::NONE;
    let value = if grid.is_some() && tail.grid.is_some() && plain {
        tail.value
    } else {
        y
    };
    let name = l.graph.value(value).name.clone();
    let mut made = l.buffer(&name, element, &dims, grid);
    made.order.clone_from(&first.order);
    let reads: Vec<&Held> = laid.iter().collect();
    l.step(id, &reads, &made, layer);
    if value == y {
        l.hold(y, made);
    } else {
        l.finish(&tail, made);
    }
    Ok(())
}

/// The grid that all are on, if there is one.
fn common(grids: &[Grid]) -> Option<Grid> {
    let (first, others) = grids.split_first()?;
    let same = |g: &Grid| (g.scale, g.zero) == (first.scale, first.zero);
    others.iter().all(same).then_some(*first)
}

/// The parts in bytes of `grid`, or in floats where there is none, with their axes in `order`.
fn alike(
    l: &mut Lowering,
    parts: &[Held],
    grid: Option<Grid>,
    order: &[usize],
) -> Result<Vec<Held>> {
    let mut laid = Vec::with_capacity(parts.len());
    for part in parts {
        let part = match grid {
            Some(grid) => l.on_grid(part, grid),
            None => l.float(part)?,
        };
        laid.push(l.ordered(&part, order));
    }
    Ok(laid)
}

/// Slice by constant starts, ends and steps.
pub(in crate::emit) fn slice(l: &mut Lowering, id: NodeId) -> Result<()> {
    let y = l.output(id, 0)?;
    let x = l.read(id, 0)?;
    let starts = ints(l, id, 1, "starts")?.ok_or_else(|| Error::invalid("it has no starts"))?;
    let axes = ints(l, id, 3, "axes")?;
    let jumps = ints(l, id, 4, "steps")?;
    let dims = l.typed(y)?.1;
    let (mut from, to) = walk(&x, &dims, &x.order);
    let mut first = 0;
    for (i, &start) in starts.iter().enumerate() {
        let named = axes.as_ref().map_or(i as i64, |a| a[i]);
        let axis = axis_of(named, x.dims.len())?;
        let length = x.dims[axis] as i64;
        let jump = jumps.as_ref().map_or(1, |j| j[i]);
        let start = if start < 0 { start + length } else { start };
        let start = start.clamp(0, if jump < 0 { length - 1 } else { length });
        first += start as isize * from[axis];
        from[axis] *= jump as isize;
    }
    let made = moved(l, y, &x, &dims);
    let copies = ordered(&x.order, &dims, &from, &to, first, 0);
    put(l, id, y, &x, made, vec![copies])
}

/// Split: one slice for each output.
pub(in crate::emit) fn split(l: &mut Lowering, id: NodeId) -> Result<()> {
    let node = l.graph.node(id);
    let x = l.read(id, 0)?;
    let axis = axis_of(node.int("axis").unwrap_or(0), x.dims.len())?;
    let mut at = 0;
    for &y in node.outputs().iter().flatten() {
        let dims = l.typed(y)?.1;
        let (from, to) = walk(&x, &dims, &x.order);
        let copies = ordered(&x.order, &dims, &from, &to, at * from[axis], 0);
        at += dims[axis] as isize;
        if l.graph.value(y).consumers().is_empty() && !l.graph.is_output(y) {
            continue;
        }
        let made = moved(l, y, &x, &dims);
        put(l, id, y, &x, made, vec![copies])?;
    }
    Ok(())
}

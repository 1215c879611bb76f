//! Nodes that only move elements: views without a copy, permutations, parts, joins, casts.

use edgesmith_ir::{DType, NodeId, ValueId};
use edgesmith_kernels::permute::{gather_strided, permute};

use super::activations::present_layout;
use super::dequantize::{self, quantized_output};
use crate::plan::{Kernel, Layout, Planner, Spec, in_memory};

/// The value whose bytes node `id` moves, and the value that then holds them: bytes behind a
/// DQ → op → Q group of one quantisation, or its own input and output.
fn ends(planner: &Planner, id: NodeId) -> Option<(ValueId, ValueId, Vec<NodeId>, bool)> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    if let Some(from) = dequantize::source(planner, x)
        && let Some((q, to)) = quantized_output(planner, y)
        && from.quant == to.quant
        && from.signed == to.signed
    {
        return Some((from.value, to.value, vec![id, q], true));
    }
    Some((x, y, vec![id], false))
}

/// Reshape and its kin: the same bytes under another shape.
pub(crate) fn alias(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    if node.outputs().len() > 1 && node.output(1).is_some() {
        return None;
    }
    let (x, y, nodes, integer) = ends(planner, id)?;
    let (a, b) = (planner.typed(x)?, planner.typed(y)?);
    if a.0 != b.0 || a.1.iter().product::<usize>() != b.1.iter().product::<usize>() {
        return None;
    }
    view(planner, id, (x, &a.1), (y, &b.1))?;
    planner.fused(&nodes, id);
    if integer {
        planner.mark_integer(&nodes);
    }
    Some(())
}

/// Makes `y` the same bytes as `x`, channels-last where they are there in that order alone and
/// the axes behind the channels hold the same elements.
fn view(
    planner: &mut Planner,
    id: NodeId,
    (x, from): (ValueId, &[usize]),
    (y, to): (ValueId, &[usize]),
) -> Option<()> {
    let keeps_last = from.len() >= 3 && to.len() >= 3 && from[..2] == to[..2];
    if keeps_last && !planner.has_plain(x) && planner.has_last(x) {
        let slot = planner.read(x, Layout::Last)?;
        planner.aliased_last(id, y, slot);
    } else {
        let slot = planner.read(x, Layout::Plain)?;
        planner.aliased(id, y, slot);
    }
    Some(())
}

/// Dropout where it drops nothing: outside of training.
pub(crate) fn dropout(planner: &mut Planner, id: NodeId) -> Option<()> {
    let mode = planner.graph().node(id).input(2);
    let trains = mode.is_some_and(|v| {
        let off = planner.constant(v).and_then(|t| t.bools().ok());
        off.is_none_or(|off| off != [false])
    });
    if trains {
        return None;
    }
    alias(planner, id)
}

fn element(dtype: DType) -> Option<usize> {
    let size = dtype.bits() / 8;
    matches!(size, 1 | 2 | 4 | 8).then_some(size)
}

pub(crate) fn transpose(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y, nodes, integer) = ends(planner, id)?;
    let (dtype, dims) = planner.typed(x)?;
    planner.typed(y)?;
    let size = element(dtype)?;
    let rank = dims.len();
    let axes: Vec<usize> = match node.ints("perm") {
        Some(p) => p
            .iter()
            .map(|&a| usize::try_from(a).ok())
            .collect::<Option<_>>()?,
        None => (0..rank).rev().collect(),
    };
    // A plain [batch, spatial…, channels] is the channels-last form of its transpose, wherever
    // axes of length 1 stand.
    let is_last = || {
        let last = in_memory(&axes, Layout::Last);
        last.iter().filter(|&&a| dims[a] != 1).is_sorted()
    };
    if rank >= 3 && is_last() {
        let slot = planner.read(x, Layout::Plain)?;
        planner.aliased_last(id, y, slot);
        planner.fused(&nodes, id);
        return Some(());
    }
    let read = planner.read(x, Layout::Plain)?;
    let write = planner.write(y, Layout::Plain)?;
    planner.step(
        id,
        &nodes,
        Spec {
            kernel: "permute",
            integer,
            reads: vec![read],
            writes: vec![write],
            makes: vec![(y, Layout::Plain)],
            work: Box::new(move |ctx, x, y| permute(ctx, size, &dims, &axes, x[0], y[0])),
        },
    );
    Some(())
}

/// Concat, copied block by block.
pub(crate) fn concat(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let parts = node.inputs().iter().map(|v| Some(((*v)?, None)));
    let parts: Vec<_> = parts.collect::<Option<_>>()?;
    join(planner, id, parts, node.int("axis").unwrap_or(0))
}

/// A part of what is joined: its value, and what its bytes become where they do not stay.
pub(super) type JoinPart = (ValueId, Option<[u8; 256]>);

/// The step of node `id`, which joins values along an axis.
pub(super) fn join(
    planner: &mut Planner,
    id: NodeId,
    parts: Vec<JoinPart>,
    axis: i64,
) -> Option<()> {
    let y = planner.graph().node(id).output(0)?;
    let (dtype, dims) = planner.typed(y)?;
    let size = element(dtype)?;
    let axis = edgesmith_ir::infer::axis(axis, dims.len()).ok()?;
    if parts.iter().any(|&(v, _)| planner.typed(v).is_none()) {
        return None;
    }
    let last = dims.len() >= 3
        && parts
            .iter()
            .all(|&(v, _)| present_layout(planner, v) == Layout::Last);
    let layout = if last { Layout::Last } else { Layout::Plain };
    let at = match (layout, axis) {
        (Layout::Plain, a) => a,
        (Layout::Last, 0) => 0,
        (Layout::Last, 1) => dims.len() - 1,
        (Layout::Last, a) => a - 1,
    };
    let stored = in_memory(&dims, layout);
    let inner: usize = stored[at + 1..].iter().product::<usize>() * size;
    let outer: usize = stored[..at].iter().product();
    let (mut reads, mut widths, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    for (v, table) in parts {
        let constant = planner.constant(v).cloned();
        let (own, dims) = planner.typed(v)?;
        let width = dims[axis] * inner;
        let bytes = dims.iter().product::<usize>() * size;
        let is_whole = constant.as_ref().is_none_or(|t| t.byte_len() == bytes);
        if (own != dtype && table.is_none()) || width * outer != bytes || !is_whole {
            return None;
        }
        if constant.is_none() {
            reads.push(planner.read(v, layout)?);
        }
        widths.push(width);
        sources.push((constant, table));
    }
    let total: usize = widths.iter().sum();
    if total == 0 {
        return None;
    }
    let is_moved = sources.iter().any(|(_, table)| table.is_some());
    let write = planner.write(y, layout)?;
    let work: Kernel = Box::new(move |_, x, y| {
        let mut start = 0;
        let mut read = x.iter();
        for ((constant, table), &width) in sources.iter().zip(&widths) {
            let x: &[u8] = match constant {
                Some(t) => t.bytes(),
                None => read.next().map_or(&[], |x| x),
            };
            for o in 0..outer {
                let (x, y) = (
                    &x[o * width..][..width],
                    &mut y[0][o * total + start..][..width],
                );
                match table {
                    None => y.copy_from_slice(x),
                    Some(table) => {
                        let each = x.iter().zip(y);
                        each.for_each(|(x, y)| *y = table[usize::from(*x)]);
                    }
                }
            }
            start += width;
        }
    });
    planner.step(
        id,
        &[id],
        Spec {
            kernel: "copy",
            integer: is_moved,
            reads,
            writes: vec![write],
            makes: vec![(y, layout)],
            work,
        },
    );
    Some(())
}

/// Split into values, each a strided part.
pub(crate) fn split(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let x = node.input(0)?;
    let (dtype, dims) = planner.typed(x)?;
    let size = element(dtype)?;
    let axis = edgesmith_ir::infer::axis(node.int("axis").unwrap_or(0), dims.len()).ok()?;
    let outputs: Vec<ValueId> = node.outputs().iter().copied().collect::<Option<_>>()?;
    let lengths: Vec<usize> = outputs
        .iter()
        .map(|&y| Some(*planner.typed(y)?.1.get(axis)?))
        .collect::<Option<_>>()?;
    if lengths.iter().sum::<usize>() != dims[axis] {
        return None;
    }
    let read = planner.read(x, Layout::Plain)?;
    let inner: usize = dims[axis + 1..].iter().product::<usize>() * size;
    let row = dims[axis] * inner;
    let mut start = 0;
    for (y, length) in outputs.into_iter().zip(lengths) {
        let (from, width) = (start * inner, length * inner);
        let write = planner.write(y, Layout::Plain)?;
        let work: Kernel = Box::new(move |_, x, y| {
            if width > 0 {
                for (x, y) in x[0].chunks_exact(row).zip(y[0].chunks_exact_mut(width)) {
                    y.copy_from_slice(&x[from..][..width]);
                }
            }
        });
        planner.step(
            id,
            &[id],
            Spec {
                kernel: "copy",
                integer: false,
                reads: vec![read],
                writes: vec![write],
                makes: vec![(y, Layout::Plain)],
                work,
            },
        );
        start += length;
    }
    Some(())
}

/// Slice with constant bounds, in the form of opset 10 and later.
pub(crate) fn slice(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    if ["starts", "ends", "axes"]
        .iter()
        .any(|&name| node.ints(name).is_some())
    {
        return None;
    }
    let (x, y) = (node.input(0)?, node.output(0)?);
    let ((dtype, dims), (_, out)) = (planner.typed(x)?, planner.typed(y)?);
    let size = element(dtype)?;
    let ints = |i: usize| planner.constant(node.input(i)?)?.to_i64().ok();
    let starts = ints(1)?;
    let axes = match node.input(3) {
        Some(_) => ints(3)?,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match node.input(4) {
        Some(_) => ints(4)?,
        None => vec![1; starts.len()],
    };
    let mut strides = vec![1isize; dims.len()];
    for i in (0..dims.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * isize::try_from(dims[i + 1]).ok()?;
    }
    let mut offset = 0;
    let mut scaled = strides.clone();
    for ((start, a), step) in starts.into_iter().zip(axes).zip(steps) {
        let a = edgesmith_ir::infer::axis(a, dims.len()).ok()?;
        let n = i64::try_from(dims[a]).ok().filter(|&n| n > 0)?;
        let start = if start < 0 {
            start.saturating_add(n)
        } else {
            start
        };
        let start = if step > 0 {
            start.clamp(0, n)
        } else {
            start.clamp(0, n - 1)
        };
        offset += isize::try_from(start).ok()? * strides[a];
        scaled[a] = strides[a].checked_mul(isize::try_from(step).ok()?)?;
    }
    let start = usize::try_from(offset).ok()?;
    if out == dims && scaled == strides {
        return view(planner, id, (x, &dims), (y, &out));
    }
    let read = planner.read(x, Layout::Plain)?;
    let write = planner.write(y, Layout::Plain)?;
    planner.step(
        id,
        &[id],
        Spec {
            kernel: "copy",
            integer: false,
            reads: vec![read],
            writes: vec![write],
            makes: vec![(y, Layout::Plain)],
            work: Box::new(move |ctx, x, y| {
                gather_strided(ctx, size, &out, x[0], start, &scaled, y[0]);
            }),
        },
    );
    Some(())
}

/// The shape of a result in memory and the strides, in elements, of a row-major tensor of shape
/// `own` that is broadcast to it.
pub(crate) fn broadcast(
    own: &[usize],
    dims: &[usize],
    layout: Layout,
) -> Option<(Vec<usize>, Vec<isize>)> {
    let shift = dims.len().checked_sub(own.len())?;
    let mut strides = vec![0isize; dims.len()];
    let mut stride = 1isize;
    for (i, &n) in own.iter().enumerate().rev() {
        if n != 1 {
            if n != dims[shift + i] {
                return None;
            }
            strides[shift + i] = stride;
        }
        stride = stride.checked_mul(isize::try_from(n).ok()?)?;
    }
    if layout == Layout::Last {
        strides.get_mut(1..)?.rotate_left(1);
    }
    Some((in_memory(dims, layout), strides))
}

/// Expand to a shape that is known.
pub(crate) fn expand(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let ((dtype, own), (_, dims)) = (planner.typed(x)?, planner.typed(y)?);
    let size = element(dtype)?;
    let (shape, strides) = broadcast(&own, &dims, Layout::Plain)?;
    let read = planner.read(x, Layout::Plain)?;
    if own.iter().product::<usize>() == dims.iter().product::<usize>() {
        planner.aliased(id, y, read);
        return Some(());
    }
    let write = planner.write(y, Layout::Plain)?;
    let spec = Spec {
        kernel: "copy",
        integer: false,
        reads: vec![read],
        writes: vec![write],
        makes: vec![(y, Layout::Plain)],
        work: Box::new(move |ctx, x, y| {
            gather_strided(ctx, size, &shape, x[0], 0, &strides, y[0]);
        }),
    };
    planner.step(id, &[id], spec);
    Some(())
}

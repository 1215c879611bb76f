//! Normalisations and reductions over rows: LayerNormalization, Softmax, Reduce.

use std::ops::Range;

use edgesmith_ir::{NodeId, ValueId};
use edgesmith_kernels::norm::{self, Reduce};
use edgesmith_kernels::pool::{PoolGeometry, average_pool};

use super::activations::present_layout;
use super::operand::Operand;
use crate::plan::{Kernel, Layout, Planner};

mod batch;
mod groups;

pub(crate) use batch::{plan as batch, scale_and_shift};
pub(crate) use groups::plan as groups;

/// The elements of a row, of a norm over the last axes of lengths `dims`, as many as those of its
/// scale and bias, which are `inputs` of the node.
pub(super) fn row_of_norm(
    planner: &Planner,
    id: NodeId,
    dims: &[usize],
    mut inputs: Range<usize>,
) -> Option<usize> {
    let node = planner.graph().node(id);
    let first = edgesmith_ir::infer::axis(node.int("axis").unwrap_or(-1), dims.len()).ok()?;
    let width = dims[first..].iter().product();
    let fits = |v: ValueId| {
        let Some(own) = planner.float_dims(v) else {
            return false;
        };
        // Ones before the axes of the row repeat nothing.
        let ones = own.iter().take_while(|&&n| n == 1).count();
        dims.ends_with(&own[ones..]) && own.iter().product::<usize>() == width
    };
    let whole = inputs.all(|i| node.input(i).is_none_or(fits));
    (width > 0 && whole).then_some(width)
}

/// LayerNormalization over the last axes.
pub(crate) fn layer(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(x)?;
    if node.outputs().len() > 1 {
        return None;
    }
    row_of_norm(planner, id, &dims, 1..3)?;
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let mut reads = vec![planner.read_f32(x, Layout::Plain)?];
    let scale = Operand::of(planner, node.input(1)?, &mut reads)?;
    let bias = match node.input(2) {
        Some(b) => Some(Operand::of(planner, b, &mut reads)?),
        None => None,
    };
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (scale, bias) = (scale.get(x), bias.as_ref().map(|b| b.get(x)));
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        norm::layer_norm(ctx, x, scale, bias, epsilon, y);
    });
    planner.step_f32(id, &[id], (y, Layout::Plain), "rows", reads, work)
}

/// Softmax and LogSoftmax.
pub(crate) fn softmax(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(x)?;
    let old = planner.model().opset() < 13;
    let axis = node.int("axis").unwrap_or(if old { 1 } else { -1 });
    let axis = edgesmith_ir::infer::axis(axis, dims.len()).ok()?;
    // Before opset 13 all axes from `axis` on are one row.
    let behind = if old { dims.len() } else { axis + 1 };
    let width: usize = dims[axis..behind].iter().product();
    let inner: usize = dims[behind..].iter().product();
    if width * inner == 0 {
        return None;
    }
    let log = node.op == "LogSoftmax";
    let channels = dims.len() > 2 && (axis, behind) == (1, 2);
    let layout = match present_layout(planner, x) {
        Layout::Last if channels => Layout::Last,
        _ => Layout::Plain,
    };
    let inner = if layout == Layout::Last { 1 } else { inner };
    let read = planner.read_f32(x, layout)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        norm::softmax_along(ctx, log, x, [width, inner], y);
    });
    planner.step_f32(id, &[id], (y, layout), "rows", vec![read], work)
}

/// Reductions; of images, over their spatial axes, as they lie.
pub(crate) fn reduce(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(x)?;
    let axes = reduced_axes(planner, id, dims.len())?;
    let how = match node.op.as_str() {
        "ReduceMean" => Reduce::Mean,
        "ReduceSum" => Reduce::Sum,
        _ => Reduce::Max,
    };
    planner.float_dims(y)?;
    let is_last = present_layout(planner, x) == Layout::Last;
    if is_last && dims.len() == 4 && how == Reduce::Mean && axes == [2, 3] {
        let g = PoolGeometry::global([dims[2], dims[3]], dims[1]);
        let batch = dims[0];
        let read = planner.read_f32(x, Layout::Last)?;
        let work: Kernel = Box::new(move |ctx, x, y| {
            let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
            average_pool(ctx, &g, batch, false, x, y);
        });
        // One pixel: both layouts are the same bytes.
        return planner.step_f32(id, &[id], (y, Layout::Plain), "pool", vec![read], work);
    }
    let but_channels = (0..dims.len()).filter(|&a| a != 1).eq(axes.iter().copied());
    if is_last && but_channels && how != Reduce::Max && !dims.contains(&0) {
        let sizes = [dims.iter().product::<usize>() / dims[1], dims[1]];
        let read = planner.read_f32(x, Layout::Last)?;
        let work: Kernel = Box::new(move |ctx, x, y| {
            let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
            norm::reduce_columns(ctx, how, x, sizes, y);
        });
        return planner.step_f32(id, &[id], (y, Layout::Plain), "columns", vec![read], work);
    }
    let (&first, count) = (axes.first()?, axes.len());
    if count == dims.len() && how != Reduce::Max {
        return all(planner, id, how);
    }
    if !axes.iter().copied().eq(first..first + count) {
        return apart(planner, id, how, &axes);
    }
    let width: usize = dims[first..first + count].iter().product();
    let inner: usize = dims[first + count..].iter().product();
    if width == 0 || inner == 0 {
        return None;
    }
    let read = planner.read_f32(x, Layout::Plain)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        if inner == 1 {
            norm::reduce_rows(ctx, how, x, width, y);
        } else {
            norm::reduce_columns(ctx, how, x, [width, inner], y);
        }
    });
    planner.step_f32(id, &[id], (y, Layout::Plain), "rows", vec![read], work)
}

/// The axes of a reduction, rising; `None` where they are computed, or there are none.
fn reduced_axes(planner: &Planner, id: NodeId, rank: usize) -> Option<Vec<usize>> {
    let node = planner.graph().node(id);
    let given = match (node.input(1), node.ints("axes")) {
        (Some(v), _) => planner.constant(v)?.to_i64().ok()?,
        (None, Some(axes)) => axes.to_vec(),
        (None, None) => Vec::new(),
    };
    if given.is_empty() {
        let none = node.int("noop_with_empty_axes").unwrap_or(0) != 0;
        return (!none && rank > 0).then(|| (0..rank).collect());
    }
    let axes = given
        .iter()
        .map(|&a| edgesmith_ir::infer::axis(a, rank).ok());
    let mut axes: Vec<usize> = axes.collect::<Option<_>>()?;
    axes.sort_unstable();
    axes.dedup();
    Some(axes)
}

/// The sum or mean of all elements, in any order.
fn all(planner: &mut Planner, id: NodeId, how: Reduce) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let count: usize = planner.float_dims(x)?.iter().product();
    let read = planner.read_f32(x, present_layout(planner, x))?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        norm::sum_repeated(ctx, x, &[count], &[true], y);
        if how == Reduce::Mean {
            y.iter_mut().for_each(|y| *y /= count as f32);
        }
    });
    planner.step_f32(id, &[id], (y, Layout::Plain), "sums", vec![read], work)
}

/// Sums and means over axes that are no neighbours.
fn apart(planner: &mut Planner, id: NodeId, how: Reduce, axes: &[usize]) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(x)?;
    if how == Reduce::Max || dims.contains(&0) {
        return None;
    }
    let summed: Vec<bool> = (0..dims.len()).map(|a| axes.contains(&a)).collect();
    let count: usize = axes.iter().map(|&a| dims[a]).product();
    let read = planner.read_f32(x, Layout::Plain)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        norm::sum_repeated(ctx, x, &dims, &summed, y);
        if how == Reduce::Mean {
            y.iter_mut().for_each(|y| *y /= count as f32);
        }
    });
    planner.step_f32(id, &[id], (y, Layout::Plain), "sums", vec![read], work)
}

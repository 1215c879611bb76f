//! Normalisations and reductions over rows: LayerNormalization, Softmax, Reduce.

use edgesmith_ir::{NodeId, ValueId};
use edgesmith_kernels::norm::{self, Reduce};
use edgesmith_kernels::pool::{PoolGeometry, average_pool};

use super::activations::present_layout;
use super::operand::Operand;
use crate::plan::{Kernel, Layout, Planner};

mod batch;

pub(crate) use batch::{plan as batch, scale_and_shift};

/// The elements of a row, of a norm over the last axes, as long as its scale and bias.
pub(super) fn row_of_norm(planner: &Planner, id: NodeId, dims: &[usize]) -> Option<usize> {
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
    let whole = (1..3).all(|i| node.input(i).is_none_or(fits));
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
    row_of_norm(planner, id, &dims)?;
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

/// Softmax and LogSoftmax over the last axis.
pub(crate) fn softmax(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(x)?;
    let rank = dims.len() as i64;
    let default = if planner.model().opset() < 13 { 1 } else { -1 };
    let axis = node.int("axis").unwrap_or(default);
    // Before opset 13 all axes from `axis` on are one row: the same where it is the last.
    if axis != -1 && axis != rank - 1 {
        return None;
    }
    let width = *dims.last()?;
    if width == 0 {
        return None;
    }
    let log = node.op == "LogSoftmax";
    let read = planner.read_f32(x, Layout::Plain)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        if log {
            norm::log_softmax(ctx, x, width, y)
        } else {
            norm::softmax(ctx, x, width, y)
        }
    });
    planner.step_f32(id, &[id], (y, Layout::Plain), "rows", vec![read], work)
}

/// Reductions over neighbouring axes, and means over the spatial axes of images.
pub(crate) fn reduce(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(x)?;
    let rank = dims.len() as i64;
    let axes = match node.input(1) {
        Some(v) => planner.constant(v)?.to_i64().ok()?,
        None => node.ints("axes")?.to_vec(),
    };
    let mut axes: Vec<i64> = axes
        .into_iter()
        .map(|a| if a < 0 { a + rank } else { a })
        .collect();
    axes.sort_unstable();
    let how = match node.op.as_str() {
        "ReduceMean" => Reduce::Mean,
        "ReduceSum" => Reduce::Sum,
        _ => Reduce::Max,
    };
    planner.float_dims(y)?;
    if axes == [2, 3]
        && rank == 4
        && node.op == "ReduceMean"
        && present_layout(planner, x) == Layout::Last
    {
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
    let first = *axes.first()?;
    if first < 0 || !axes.iter().zip(first..rank).all(|(&a, b)| a == b) {
        return None;
    }
    let first = usize::try_from(first).ok()?;
    let width: usize = dims.get(first..first + axes.len())?.iter().product();
    let inner: usize = dims[first + axes.len()..].iter().product();
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

//! Normalisations and reductions over rows: BatchNormalization, LayerNormalization, Softmax, Reduce.

use edgesmith_ir::NodeId;
use edgesmith_kernels::elementwise::{Binary, Operand, binary, binary_in_place};
use edgesmith_kernels::norm::{self, Reduce};
use edgesmith_kernels::pool::{PoolGeometry, average_pool};

use super::activations::present_layout;
use crate::plan::{Kernel, Layout, Planner};

/// BatchNormalization as a scale and a shift of each channel.
pub(crate) fn batch(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let rank = planner.float_dims(x)?.len();
    if node.outputs().len() > 1 || rank < 2 || node.int("training_mode").unwrap_or(0) != 0 {
        return None;
    }
    let (scale, shift) = scale_and_shift(planner, id)?;
    let layout = if rank == 2 {
        Layout::Plain
    } else {
        Layout::Last
    };
    let read = planner.read_f32(x, layout)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let y = bytemuck::cast_slice_mut(y[0]);
        binary(
            ctx,
            Binary::Mul,
            Operand::Full(bytemuck::cast_slice(x[0])),
            Operand::Row(&scale),
            y,
        );
        binary_in_place(ctx, Binary::Add, y, Operand::Row(&shift));
    });
    planner.step_f32(id, &[id], (y, layout), "scale-shift", vec![read], work)
}

/// What a BatchNormalization of constants multiplies each channel by, and adds to it.
pub(crate) fn scale_and_shift(planner: &Planner, id: NodeId) -> Option<(Vec<f32>, Vec<f32>)> {
    let node = planner.graph().node(id);
    let p = |i: usize| planner.floats(node.input(i)?);
    let (gamma, beta, mean, variance) = (p(1)?, p(2)?, p(3)?, p(4)?);
    let channels = *planner.float_dims(node.input(0)?)?.get(1)?;
    let all = [&gamma, &beta, &mean, &variance];
    if all.iter().any(|p| p.len() != channels) {
        return None;
    }
    let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
    let factor = |i: usize| f64::from(gamma[i]) / (f64::from(variance[i]) + epsilon).sqrt();
    let scale: Vec<f32> = (0..gamma.len()).map(|i| factor(i) as f32).collect();
    let shift = |i: usize| (f64::from(beta[i]) - f64::from(mean[i]) * factor(i)) as f32;
    let shift: Vec<f32> = (0..gamma.len()).map(shift).collect();
    Some((scale, shift))
}

/// LayerNormalization over the last axis.
pub(crate) fn layer(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(x)?;
    let axis = node.int("axis").unwrap_or(-1);
    if node.outputs().len() > 1 || (axis != -1 && axis != dims.len() as i64 - 1) {
        return None;
    }
    let scale = planner.floats(node.input(1)?)?;
    let bias = match node.input(2) {
        Some(b) => Some(planner.floats(b)?),
        None => None,
    };
    if dims.last() != Some(&scale.len()) || bias.as_ref().is_some_and(|b| b.len() != scale.len()) {
        return None;
    }
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let read = planner.read_f32(x, Layout::Plain)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        norm::layer_norm(ctx, x, &scale, bias.as_deref(), epsilon, y);
    });
    planner.step_f32(id, &[id], (y, Layout::Plain), "rows", vec![read], work)
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

/// One number for each column of each matrix of `rows` rows and `columns` columns.
fn reduce_columns(how: Reduce, x: &[f32], [rows, columns]: [usize; 2], y: &mut [f32]) {
    for (x, y) in x
        .chunks_exact(rows * columns)
        .zip(y.chunks_exact_mut(columns))
    {
        y.copy_from_slice(&x[..columns]);
        for row in x[columns..].chunks_exact(columns) {
            for (y, &x) in y.iter_mut().zip(row) {
                *y = match how {
                    Reduce::Max if y.is_nan() || *y >= x => *y,
                    Reduce::Max => x,
                    _ => *y + x,
                };
            }
        }
        if how == Reduce::Mean {
            y.iter_mut().for_each(|y| *y /= rows as f32);
        }
    }
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
            reduce_columns(how, x, [width, inner], y);
        }
    });
    planner.step_f32(id, &[id], (y, Layout::Plain), "rows", vec![read], work)
}

//! Gradients of values that were repeated or picked: sums.

use edgesmith_ir::error::At;
use edgesmith_ir::ops::gather::place;
use edgesmith_ir::{DType, NodeId, Result};
use edgesmith_kernels::norm::{column_sums, sum_repeated};
use edgesmith_kernels::select::add_at;

use super::super::activations::present_layout;
use super::super::binary::along;
use super::super::operand::{Indices, Operand};
use crate::plan::{Checked, Kernel, Layout, Planner};

/// `Unbroadcast(dY, like)`: dY summed along the axes on which `like` was repeated.
pub(super) fn unbroadcast(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (dy, dx) = (node.input(0)?, node.output(0)?);
    let (dims, to) = (planner.float_dims(dy)?, planner.float_dims(dx)?);
    let shift = dims.len().checked_sub(to.len())?;
    let like = |i: usize| i.checked_sub(shift).map_or(1, |i| to[i]);
    if (0..dims.len()).any(|i| like(i) != 1 && like(i) != dims[i]) {
        return None;
    }
    let by_channel = present_layout(planner, dy) == Layout::Last && along(&to, &dims, 1);
    if by_channel {
        let read = planner.read_f32(dy, Layout::Last)?;
        let work: Kernel = Box::new(|ctx, x, y| {
            let (dy, dx) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
            column_sums(ctx, dy, dx);
        });
        return planner.step_f32(id, &[id], (dx, Layout::Plain), "columns", vec![read], work);
    }
    let summed: Vec<bool> = (0..dims.len()).map(|i| like(i) != dims[i]).collect();
    let read = planner.read_f32(dy, Layout::Plain)?;
    if !summed.contains(&true) && planner.typed(dy)?.0 == planner.typed(dx)?.0 {
        planner.aliased(id, dx, read);
        return Some(());
    }
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (dy, dx) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        sum_repeated(ctx, dy, &dims, &summed, dx);
    });
    planner.step_f32(id, &[id], (dx, Layout::Plain), "sums", vec![read], work)
}

/// `GatherGrad(data, indices, dY)`: each part of dY added at its index.
pub(super) fn gather(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (indices, dy, dx) = (node.input(1)?, node.input(2)?, node.output(0)?);
    let (dtype, dims) = planner.typed(dx)?;
    let axis = edgesmith_ir::infer::axis(node.int("axis").unwrap_or(0), dims.len()).ok()?;
    let (len, block) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
    let of_indices = planner.typed(indices)?.1;
    let wanted = [&dims[..axis], &of_indices[..], &dims[axis + 1..]].concat();
    if dtype != DType::F32 || dims.contains(&0) || planner.float_dims(dy)? != wanted {
        return None;
    }
    let mut reads = Vec::new();
    let dy = Operand::of(planner, dy, &mut reads)?;
    let indices = Indices::of(planner, indices, &mut reads)?;
    let write = planner.write(dx, Layout::Plain)?;
    let name = node.place();
    let work: Checked = Box::new(move |ctx, x, y| {
        let places = indices.get(x).into_iter().map(|i| place(i, len));
        let places: Result<Vec<usize>> = places.collect();
        let places = places.at(|| name.clone())?;
        let dx = bytemuck::cast_slice_mut(y[0]);
        add_at(ctx, dy.get(x), [len, block], &places, dx);
        Ok(())
    });
    planner.checked_plain_step(id, "sums", reads, (dx, write), work);
    Some(())
}

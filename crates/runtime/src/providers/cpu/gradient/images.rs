//! Gradients of convolutions and pools, channels-last.

use edgesmith_ir::{DType, NodeId, ValueId};
use edgesmith_kernels::conv::ConvGeometry;
use edgesmith_kernels::conv::gradient::{InputGradient, weight_gradient};
use edgesmith_kernels::norm::column_sums;
use edgesmith_kernels::pool::{average_pool_gradient, max_pool_gradient};

use super::super::conv::geometry;
use super::super::operand::Operand;
use super::super::pool;
use crate::plan::{Kernel, Layout, Planner, Spec};

/// `ConvGrad(X, W, dY) -> dX, dW, dB`: a step for dX, and one for dW and dB.
pub(super) fn conv(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, w, dy) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let (g, batch) = geometry(planner, id, x, w)?;
    let (xd, wd) = (planner.float_dims(x)?, planner.float_dims(w)?);
    if wd.contains(&0) || wd[1].checked_mul(g.groups)? != g.channels_in {
        return None;
    }
    let yd = planner.float_dims(dy)?;
    let pixels: usize = g.output().iter().product();
    if yd.len() != xd.len() || yd[..2] != [batch, g.channels_out] {
        return None;
    }
    let fits = yd[2..].iter().product::<usize>() == pixels;
    let outputs = [0, 1, 2].map(|i| node.output(i));
    let f32s = outputs.iter().flatten().all(|&v| {
        let known = planner.typed(v);
        known.is_some_and(|t| t.0 == DType::F32)
    });
    if !fits || !f32s || (outputs[0].is_some() && !InputGradient::is_possible(&g)) {
        return None;
    }
    if let Some(dx) = outputs[0] {
        of_input(planner, id, (w, dy, dx), (g, batch))?;
    }
    if outputs[1].is_some() || outputs[2].is_some() {
        of_weights(planner, id, (x, dy), [outputs[1], outputs[2]], (g, batch))?;
    }
    Some(())
}

fn of_input(
    planner: &mut Planner,
    id: NodeId,
    (w, dy, dx): (ValueId, ValueId, ValueId),
    (g, batch): (ConvGeometry, usize),
) -> Option<()> {
    let mut reads = vec![planner.read_f32(dy, Layout::Last)?];
    let weights = Operand::of(planner, w, &mut reads)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let gradient = InputGradient::prepare(ctx, g, weights.get(x))
            .expect("the geometry was checked when this was planned");
        let (dy, dx) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        gradient.run(ctx, batch, dy, dx);
    });
    planner.step_f32(id, &[id], (dx, Layout::Last), "of the input", reads, work)
}

fn of_weights(
    planner: &mut Planner,
    id: NodeId,
    (x, dy): (ValueId, ValueId),
    [dw, db]: [Option<ValueId>; 2],
    (g, batch): (ConvGeometry, usize),
) -> Option<()> {
    let mut reads = vec![planner.read_f32(dy, Layout::Last)?];
    if dw.is_some() {
        reads.push(planner.read_f32(x, Layout::Last)?);
    }
    let (mut writes, mut makes) = (Vec::new(), Vec::new());
    for v in [dw, db].into_iter().flatten() {
        writes.push(planner.write(v, Layout::Plain)?);
        makes.push((v, Layout::Plain));
    }
    let work: Kernel = Box::new(move |ctx, x, y| {
        let dy = bytemuck::cast_slice(x[0]);
        let images = [x.get(1).map_or(&[][..], |x| bytemuck::cast_slice(x)), dy];
        match (dw, y) {
            (None, [db]) => column_sums(ctx, dy, bytemuck::cast_slice_mut(db)),
            (Some(_), [dw]) => {
                let dw = bytemuck::cast_slice_mut(dw);
                weight_gradient(ctx, &g, batch, images, dw, None);
            }
            (Some(_), [dw, db]) => {
                let (dw, db) = (bytemuck::cast_slice_mut(dw), bytemuck::cast_slice_mut(db));
                weight_gradient(ctx, &g, batch, images, dw, Some(db));
            }
            _ => {}
        }
    });
    let spec = Spec {
        kernel: "of the weights",
        integer: false,
        reads,
        writes,
        makes,
        work,
    };
    planner.step(id, &[id], spec);
    Some(())
}

/// `MaxPoolGrad(X, dY)` and `GlobalMaxPoolGrad(X, dY)`, with the gradient of a Relu whose output X
/// is behind it.
pub(super) fn max_pool(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, dy, dx) = (node.input(0)?, node.input(1)?, node.output(0)?);
    if node.int("storage_order").unwrap_or(0) != 0 {
        return None;
    }
    let (g, batch) = pool::geometry(planner, id, x)?;
    planner.float_dims(dx)?;
    let relu = rectifier(planner, x, dx);
    let (nodes, result) = match relu {
        Some((relu, result)) => (vec![id, relu], result),
        None => (vec![id], dx),
    };
    let rectified = relu.is_some();
    let reads = vec![
        planner.read_f32(x, Layout::Last)?,
        planner.read_f32(dy, Layout::Last)?,
    ];
    let work: Kernel = Box::new(move |ctx, x, y| {
        let images = [0, 1].map(|i| bytemuck::cast_slice(x[i]));
        let dx = bytemuck::cast_slice_mut(y[0]);
        max_pool_gradient(ctx, &g, batch, images, rectified, dx);
    });
    planner.step_f32(id, &nodes, (result, Layout::Last), "pool", reads, work)
}

/// The node that alone reads `d` and is the gradient of a Relu whose output is `y`, and its result.
fn rectifier(planner: &Planner, y: ValueId, d: ValueId) -> Option<(NodeId, ValueId)> {
    let id = planner.only_reader(d)?;
    let node = planner.graph().node(id);
    let fits = node.op == "ReluGrad"
        && node.domain == edgesmith_ir::ops::gradient::DOMAIN
        && node.input(0) == Some(y)
        && node.input(1) == Some(d);
    fits.then_some((id, node.output(0)?))
}

/// `AveragePoolGrad(X, dY)` and `GlobalAveragePoolGrad(X, dY)`.
pub(super) fn average_pool(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, dy, dx) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let include_pad = node.int("count_include_pad").unwrap_or(0) != 0;
    let (g, batch) = pool::geometry(planner, id, x)?;
    planner.float_dims(dx)?;
    let read = planner.read_f32(dy, Layout::Last)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (dy, dx) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        average_pool_gradient(ctx, &g, batch, include_pad, dy, dx);
    });
    planner.step_f32(id, &[id], (dx, Layout::Last), "pool", vec![read], work)
}

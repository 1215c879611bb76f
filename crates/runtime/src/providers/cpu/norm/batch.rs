//! BatchNormalization by given statistics, or by those of the batch.

use edgesmith_ir::{DType, NodeId, ValueId};
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::norm::{column_moments, scale_shift};

use super::super::activations;
use super::super::operand::Operand;
use crate::plan::{Kernel, Layout, Planner, SlotId, Spec};

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let dims = planner.float_dims(node.input(0)?)?;
    if dims.len() < 2 || node.int("spatial") == Some(0) {
        return None;
    }
    let trains = node.int("training_mode").unwrap_or(0) != 0;
    if trains {
        return by_batch(planner, id, &dims);
    }
    if node.outputs().len() > 1 {
        return None;
    }
    constant(planner, id).or_else(|| computed(planner, id, dims[1]))
}

/// The layout in which channels are the columns of a matrix.
fn layout(planner: &Planner, x: ValueId) -> Option<Layout> {
    let rank = planner.float_dims(x)?.len();
    Some(if rank == 2 {
        Layout::Plain
    } else {
        Layout::Last
    })
}

/// By constants: a scale and a shift of each channel.
fn constant(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let (scale, shift) = scale_and_shift(planner, id)?;
    let layout = layout(planner, x)?;
    let read = planner.read_f32(x, layout)?;
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        scale_shift(ctx, x, &scale, &shift, Activation::None, y);
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

/// Scale, bias, mean and variance of node `id`, of a number for each channel.
fn parameters(
    planner: &mut Planner,
    id: NodeId,
    channels: usize,
    reads: &mut Vec<SlotId>,
) -> Option<Vec<Operand>> {
    let mut all = Vec::new();
    for i in 1..5 {
        let v = planner.graph().node(id).input(i)?;
        if planner.float_dims(v)? != [channels] {
            return None;
        }
        all.push(Operand::of(planner, v, reads)?);
    }
    Some(all)
}

/// `[scale, shift]` of each channel, of `[scale, bias, mean, variance]`.
fn factors(of: [&[f32]; 4], epsilon: f32) -> [Vec<f32>; 2] {
    let [scale, bias, mean, variance] = of;
    let factor = |i: usize| {
        let deviation = (f64::from(variance[i]) + f64::from(epsilon)).sqrt();
        f64::from(scale[i]) / deviation
    };
    let shift = |i: usize| (f64::from(bias[i]) - f64::from(mean[i]) * factor(i)) as f32;
    let channels = 0..scale.len();
    [
        channels.clone().map(|i| factor(i) as f32).collect(),
        channels.map(shift).collect(),
    ]
}

/// By statistics of which some are computed.
fn computed(planner: &mut Planner, id: NodeId, channels: usize) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let layout = layout(planner, x)?;
    let mut reads = vec![planner.read_f32(x, layout)?];
    let parameters = parameters(planner, id, channels, &mut reads)?;
    let after = activations::after(planner, y);
    let (nodes, activation, result) = match after {
        Some((f, activation, result)) => (vec![id, f], activation, result),
        None => (vec![id], Activation::None, y),
    };
    let work: Kernel = Box::new(move |ctx, x, y| {
        let [scale, shift] = factors([0, 1, 2, 3].map(|i| parameters[i].get(x)), epsilon);
        let (x, y) = (bytemuck::cast_slice(x[0]), bytemuck::cast_slice_mut(y[0]));
        scale_shift(ctx, x, &scale, &shift, activation, y);
    });
    planner.step_f32(id, &nodes, (result, layout), "scale-shift", reads, work)
}

/// By the statistics of the batch, which the running ones then come nearer to.
fn by_batch(planner: &mut Planner, id: NodeId, dims: &[usize]) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let running = [node.output(1), node.output(2)];
    let all = node.inputs().iter().chain(node.outputs()).flatten();
    let f32s = all
        .into_iter()
        .all(|&v| planner.typed(v).is_some_and(|t| t.0 == DType::F32));
    if !f32s || node.outputs().len() > 3 || dims.contains(&0) {
        return None;
    }
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let momentum = node.float("momentum").unwrap_or(0.9);
    let (layout, channels) = (layout(planner, x)?, dims[1]);
    let mut reads = vec![planner.read_f32(x, layout)?];
    let parameters = parameters(planner, id, channels, &mut reads)?;
    let (nodes, activation, result) = match activations::after(planner, y) {
        Some((f, activation, result)) => (vec![id, f], activation, result),
        None => (vec![id], Activation::None, y),
    };
    let (mut writes, mut makes) = (vec![planner.write(result, layout)?], vec![(result, layout)]);
    for v in running.into_iter().flatten() {
        writes.push(planner.write(v, Layout::Plain)?);
        makes.push((v, Layout::Plain));
    }
    let work: Kernel = Box::new(move |ctx, x, y| {
        let [scale, bias, means, variances] = [0, 1, 2, 3].map(|i| parameters[i].get(x));
        let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
        let x = bytemuck::cast_slice(x[0]);
        column_moments(ctx, x, &mut mean, &mut variance);
        let [scale, shift] = factors([scale, bias, &mean, &variance], epsilon);
        let Some((y, others)) = y.split_first_mut() else {
            return;
        };
        let y = bytemuck::cast_slice_mut(y);
        scale_shift(ctx, x, &scale, &shift, activation, y);
        let news = [(means, &mean), (variances, &variance)];
        let there = news.into_iter().zip(running).filter(|(_, v)| v.is_some());
        for (((old, new), _), to) in there.zip(others) {
            let to: &mut [f32] = bytemuck::cast_slice_mut(to);
            for (to, (old, new)) in to.iter_mut().zip(old.iter().zip(new)) {
                *to = old * momentum + new * (1.0 - momentum);
            }
        }
    });
    let spec = Spec {
        kernel: "batch statistics",
        integer: false,
        reads,
        writes,
        makes,
        work,
    };
    planner.step(id, &nodes, spec);
    Some(())
}

//! InstanceNormalization and GroupNormalization.

use edgesmith_ir::NodeId;
use edgesmith_kernels::activation::Activation;
use edgesmith_kernels::norm::{column_moments, group_norm, scale_shift};

use super::super::activations::present_layout;
use super::super::operand::Operand;
use crate::plan::{Kernel, Layout, Planner};

pub(crate) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, y) = (node.input(0)?, node.output(0)?);
    let dims = planner.float_dims(x)?;
    let [batch, channels, ref plane @ ..] = *dims.as_slice() else {
        return None;
    };
    let pixels: usize = plane.iter().product();
    if batch * channels * pixels == 0 {
        return None;
    }
    let groups = match node.int("num_groups") {
        Some(groups) => usize::try_from(groups).ok()?,
        None => channels,
    };
    // Before opset 21, GroupNormalization has a scale for each group.
    let by_channel = |i: usize| Some(planner.float_dims(node.input(i)?)? == [channels]);
    if groups == 0 || !channels.is_multiple_of(groups) || !by_channel(1)? || !by_channel(2)? {
        return None;
    }
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let (scale, bias) = (node.input(1)?, node.input(2)?);
    let layout = match present_layout(planner, x) {
        Layout::Last if groups == channels => Layout::Last,
        _ => Layout::Plain,
    };
    let mut reads = vec![planner.read_f32(x, layout)?];
    let scale = Operand::of(planner, scale, &mut reads)?;
    let bias = Operand::of(planner, bias, &mut reads)?;
    let work: Kernel = Box::new(move |ctx, r, w| {
        let (x, y): (&[f32], &mut [f32]) =
            (bytemuck::cast_slice(r[0]), bytemuck::cast_slice_mut(w[0]));
        let parameters = [scale.get(r), bias.get(r)];
        if layout == Layout::Plain {
            return group_norm(ctx, x, [groups, pixels], parameters, epsilon, y);
        }
        let images = x.chunks_exact(pixels * channels);
        for (x, y) in images.zip(y.chunks_exact_mut(pixels * channels)) {
            let (mut mean, mut factor) = (vec![0.0; channels], vec![0.0; channels]);
            column_moments(ctx, x, &mut mean, &mut factor);
            let [scale, bias] = parameters;
            let each = mean.iter_mut().zip(&mut factor);
            for ((mean, factor), (scale, bias)) in each.zip(scale.iter().zip(bias)) {
                *factor = scale / (*factor + epsilon).sqrt();
                *mean = bias - *mean * *factor;
            }
            scale_shift(ctx, x, &factor, &mean, Activation::None, y);
        }
    });
    planner.step_f32(id, &[id], (y, layout), "groups", reads, work)
}

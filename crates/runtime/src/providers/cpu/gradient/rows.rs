//! Gradients of softmax and of norms.

use edgesmith_ir::{DType, NodeId};
use edgesmith_kernels::norm::{
    RowNorm, batch_norm_gradient, log_softmax_gradient, softmax_gradient,
};

use super::super::norm::row_of_norm;
use super::super::operand::Operand;
use crate::plan::{Kernel, Layout, Planner, Spec};

/// `SoftmaxGrad(Y, dY)` and `LogSoftmaxGrad(Y, dY)` over the last axis.
pub(super) fn softmax(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let (y, dy, dx) = (node.input(0)?, node.input(1)?, node.output(0)?);
    let dims = planner.float_dims(y)?;
    let default = if planner.model().opset() < 13 { 1 } else { -1 };
    let axis = node.int("axis").unwrap_or(default);
    let width = *dims.last()?;
    if (axis != -1 && axis != dims.len() as i64 - 1) || width == 0 {
        return None;
    }
    if planner.float_dims(dy)? != dims {
        return None;
    }
    planner.float_dims(dx)?;
    let is_log = node.op == "LogSoftmaxGrad";
    let reads = vec![
        planner.read_f32(y, Layout::Plain)?,
        planner.read_f32(dy, Layout::Plain)?,
    ];
    let work: Kernel = Box::new(move |ctx, x, y| {
        let both = [0, 1].map(|i| bytemuck::cast_slice(x[i]));
        let dx = bytemuck::cast_slice_mut(y[0]);
        if is_log {
            log_softmax_gradient(ctx, both, width, dx);
        } else {
            softmax_gradient(ctx, both, width, dx);
        }
    });
    planner.step_f32(id, &[id], (dx, Layout::Plain), "rows", reads, work)
}

/// The sums of scale and bias, and dX where it is wanted, of `[x, scale, dY]`.
type Gradients =
    Box<dyn Fn(&edgesmith_kernels::Ctx, [&[f32]; 3], Option<&mut [f32]>, &mut [f32]) + Send + Sync>;

/// `LayerNormalizationGrad(X, scale, dY)` and `RMSNormalizationGrad(X, scale, dY)`.
pub(super) fn norm(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let dims = planner.float_dims(node.input(0)?)?;
    let width = row_of_norm(planner, id, &dims, 1..2)?;
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let centred = node.op == "LayerNormalizationGrad";
    let gradients: Gradients = Box::new(move |ctx, [x, scale, dy], dx, sums| {
        let of = RowNorm {
            x,
            scale,
            dy,
            epsilon,
            centred,
        };
        of.gradients(ctx, dx, sums);
    });
    scaled(planner, id, Layout::Plain, width, gradients)
}

/// `BatchNormalizationGrad(X, scale, dY)`.
pub(super) fn batch_norm(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    let dims = planner.float_dims(node.input(0)?)?;
    let channels = *dims.get(1)?;
    if dims.contains(&0) || planner.float_dims(node.input(1)?)? != [channels] {
        return None;
    }
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let layout = if dims.len() == 2 {
        Layout::Plain
    } else {
        Layout::Last
    };
    let gradients: Gradients = Box::new(move |ctx, all, dx, sums| {
        batch_norm_gradient(ctx, all, epsilon, dx, sums);
    });
    scaled(planner, id, layout, channels, gradients)
}

/// The step of a norm whose scale has `width` numbers.
fn scaled(
    planner: &mut Planner,
    id: NodeId,
    layout: Layout,
    width: usize,
    gradients: Gradients,
) -> Option<()> {
    let node = planner.graph().node(id);
    let (x, scale, dy) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let outputs = [0, 1, 2].map(|i| node.output(i));
    if planner.float_dims(dy)? != planner.float_dims(x)? {
        return None;
    }
    let f32s = outputs.iter().flatten().all(|&v| {
        let known = planner.typed(v);
        known.is_some_and(|t| t.0 == DType::F32)
    });
    if !f32s || outputs.iter().all(Option::is_none) {
        return None;
    }
    let mut reads = vec![planner.read_f32(x, layout)?, planner.read_f32(dy, layout)?];
    let scale = Operand::of(planner, scale, &mut reads)?;
    let layouts = [layout, Layout::Plain, Layout::Plain];
    let (mut writes, mut makes) = (Vec::new(), Vec::new());
    for (v, layout) in outputs.into_iter().zip(layouts) {
        if let Some(v) = v {
            writes.push(planner.write(v, layout)?);
            makes.push((v, layout));
        }
    }
    let work: Kernel = Box::new(move |ctx, x, y| {
        let all = [
            bytemuck::cast_slice(x[0]),
            scale.get(x),
            bytemuck::cast_slice(x[1]),
        ];
        let mut sums = vec![0f32; 2 * width];
        let mut to = y.iter_mut();
        let dx = outputs[0].and_then(|_| to.next());
        gradients(
            ctx,
            all,
            dx.map(|dx| bytemuck::cast_slice_mut(dx)),
            &mut sums,
        );
        for (wanted, sums) in outputs[1..].iter().zip(sums.chunks_exact(width)) {
            if let (Some(_), Some(to)) = (wanted, wanted.and_then(|_| to.next())) {
                bytemuck::cast_slice_mut(to).copy_from_slice(sums);
            }
        }
    });
    let spec = Spec {
        kernel: "norm",
        integer: false,
        reads,
        writes,
        makes,
        work,
    };
    planner.step(id, &[id], spec);
    Some(())
}

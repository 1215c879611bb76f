//! Gradients of functions of one element.

use edgesmith_ir::{Node, NodeId};
use edgesmith_kernels::activation::Derivative;
use edgesmith_kernels::quantize::bounded_gradient;

use super::super::activations::{byte_bounds, present_layout};
use super::super::dequantize::bytes;
use crate::plan::{Kernel, Layout, Planner};

/// The derivative of a node, where kernels have it.
fn of(planner: &Planner, node: &Node) -> Option<Derivative> {
    let float = |name: &str, default: f32| node.float(name).unwrap_or(default);
    Some(match node.op.as_str() {
        "AbsGrad" => Derivative::Abs,
        "ClipGrad" => {
            let bound = |i: usize, name: &str, default: f32| match node.input(i) {
                Some(v) => planner.floats(v)?.first().copied(),
                None => Some(float(name, default)),
            };
            Derivative::Clip {
                min: bound(1, "min", f32::NEG_INFINITY)?,
                max: bound(2, "max", f32::INFINITY)?,
            }
        }
        "ErfGrad" => Derivative::Erf,
        "ExpGrad" => Derivative::Exp,
        "GeluGrad" => match node.string("approximate").unwrap_or("none") {
            "none" => Derivative::Gelu,
            "tanh" => Derivative::GeluTanh,
            _ => return None,
        },
        "HardSigmoidGrad" => Derivative::HardSigmoid {
            alpha: float("alpha", 0.2),
            beta: float("beta", 0.5),
        },
        "HardSwishGrad" => Derivative::HardSwish,
        "LeakyReluGrad" => Derivative::LeakyRelu {
            alpha: float("alpha", 0.01),
        },
        "ReciprocalGrad" => Derivative::Reciprocal,
        "ReluGrad" => Derivative::Relu,
        "SigmoidGrad" => Derivative::Sigmoid,
        "SqrtGrad" => Derivative::Sqrt,
        "SwishGrad" => Derivative::Swish {
            alpha: float("alpha", 1.0),
        },
        "TanhGrad" => Derivative::Tanh,
        _ => return None,
    })
}

/// `<Op>Grad(X, dY)` or `(Y, dY)`, in a layout in which one of them is there.
pub(super) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let node = planner.graph().node(id);
    if let Some(bounds) = byte_bounds(planner, node) {
        return bounded(planner, id, bounds);
    }
    let last = node.inputs().len().checked_sub(1)?;
    let (a, dy, dx) = (node.input(0)?, node.input(last)?, node.output(0)?);
    let derivative = of(planner, node)?;
    let dims = planner.float_dims(dx)?;
    if planner.float_dims(a)? != dims || planner.float_dims(dy)? != dims {
        return None;
    }
    let is_last = [a, dy].map(|v| present_layout(planner, v) == Layout::Last);
    let layout = if is_last.contains(&true) {
        Layout::Last
    } else {
        Layout::Plain
    };
    let reads = vec![planner.read_f32(a, layout)?, planner.read_f32(dy, layout)?];
    let work: Kernel = Box::new(move |ctx, x, y| {
        let [a, dy] = [0, 1].map(|i| bytemuck::cast_slice(x[i]));
        derivative.apply_to(ctx, a, dy, bytemuck::cast_slice_mut(y[0]));
    });
    planner.step_f32(id, &[id], (dx, layout), "elementwise", reads, work)
}

/// `ClipGrad(Q, min, max, dY)` of bytes, in the layout of Q.
fn bounded(planner: &mut Planner, id: NodeId, (signed, bounds): (bool, [i32; 2])) -> Option<()> {
    let node = planner.graph().node(id);
    let (q, dy, dx) = (node.input(0)?, node.input(3)?, node.output(0)?);
    if planner.float_dims(dy)? != planner.float_dims(dx)? {
        return None;
    }
    let layout = present_layout(planner, q);
    let reads = vec![planner.read(q, layout)?, planner.read_f32(dy, layout)?];
    let work: Kernel = Box::new(move |ctx, x, y| {
        let (dy, dq) = (bytemuck::cast_slice(x[1]), bytemuck::cast_slice_mut(y[0]));
        bounded_gradient(ctx, bytes(x[0], signed), bounds, dy, dq);
    });
    planner.step_f32(id, &[id], (dx, layout), "elementwise", reads, work)
}

//! Gradients of RNN, LSTM and GRU.

use edgesmith_ir::{DType, NodeId};
use edgesmith_kernels::recurrent::{Cell, Gradients, Inputs, Slopes, gradients};

use super::super::operand::Operand;
use super::super::recurrent::{Computed, Form, Given, kept_for, operand};
use crate::plan::{Layout, Planner, Spec};

/// `<Op>Grad(X, W, R, B, sequence_lens, initial_h, …, dY, dY_h, …) -> dX, dW, dR, dB, dInitial_h, …`
/// without weights of the cell.
pub(super) fn plan(planner: &mut Planner, id: NodeId) -> Option<()> {
    let form = Form::of(planner, id)?;
    let node = planner.graph().node(id);
    let is_lstm = form.cell == Cell::Lstm;
    let outputs: Vec<_> = (0..6).map(|o| node.output(o)).collect();
    let of_cells = is_lstm && (node.input(7).is_some() || node.output(6).is_some());
    if of_cells || !form.cell.has_gradient() || form.sizes.input == 0 {
        return None;
    }
    let [wide, tall, bias] = form.weight_dims();
    let states = form.state_dims().to_vec();
    let x = vec![form.steps, form.batch, form.sizes.input];
    let dims = [x, wide, tall, bias, states.clone(), states.clone()];
    for (v, dims) in outputs.iter().zip(dims) {
        if let Some(v) = v
            && planner.typed(*v)? != (DType::F32, dims)
        {
            return None;
        }
    }
    let mut reads = vec![planner.read(node.input(0)?, Layout::Plain)?];
    let weights = Computed::of(planner, id, &form, &mut reads)?;
    let given = Given::of(planner, id, &form, &mut reads)?;
    let first = if is_lstm { 8 } else { 6 };
    let [d, batch, hidden] = form.state_dims();
    let all = vec![form.steps, d, batch, hidden];
    let mut slopes: [Option<Operand>; 3] = [None, None, None];
    for (i, (slope, dims)) in slopes
        .iter_mut()
        .zip([all, states.clone(), states])
        .enumerate()
    {
        if let Some(v) = node.input(first + i) {
            *slope = Some(operand(planner, v, &dims, &mut reads)?);
        }
    }
    let kept = kept_for(planner, id).map(|slot| {
        reads.push(slot);
        reads.len() - 1
    });
    let told = kept.map(|_| "by gates that were kept".to_owned());
    let (mut writes, mut makes) = (Vec::new(), Vec::new());
    for &v in outputs.iter().flatten() {
        writes.push(planner.write(v, Layout::Plain)?);
        makes.push((v, Layout::Plain));
    }
    let wanted: Vec<bool> = outputs.iter().map(Option::is_some).collect();
    let spec = Spec {
        kernel: "through time",
        integer: false,
        reads,
        writes,
        makes,
        work: Box::new(move |ctx, x, y| {
            let mut y = y.iter_mut().map(|y| bytemuck::cast_slice_mut(y));
            let mut next = |o: usize| wanted[o].then(|| y.next()).flatten();
            let to = Gradients {
                x: next(0),
                w: next(1),
                r: next(2),
                bias: next(3),
                state: next(4),
                cell: next(5),
            };
            let lengths = given.lengths(form.steps, x);
            let inputs = Inputs {
                sizes: form.extent(),
                x: bytemuck::cast_slice(x[0]),
                start: given.start(x),
                lengths: lengths.as_deref(),
            };
            let of = |i: usize| slopes[i].as_ref().map(|s: &Operand| s.get(x));
            let slopes = Slopes {
                all: of(0),
                state: of(1),
                cell: of(2),
            };
            let kept = kept.map(|i| bytemuck::cast_slice(x[i]));
            gradients(ctx, form.kernel(), weights.get(x), inputs, kept, slopes, to);
        }),
    };
    planner.step(id, &[id], spec);
    planner.tell(&[id], told);
    Some(())
}

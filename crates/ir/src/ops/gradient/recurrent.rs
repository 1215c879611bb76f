//! Gradients of RNN, GRU and LSTM: `<Op>Grad(X, W, R, B, sequence_lens, initial_h, …, dY, dY_h, …)
//! -> dX, dW, dR, dB, dInitial_h, …`.
//!
//! The inputs are all those of the operator in ONNX's order, then the gradients of its outputs; what
//! is left out is zero. The forward pass is run again inside: there is no saved state.

use super::BASE;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::from_floats;
use crate::ops::recurrent::ATTRS;
use crate::ops::recurrent::cell::{self, Cell, State};
use crate::ops::recurrent::run::{Run, or_zeros};
use crate::ops::{Arity, EvalFn, OpDef};
use crate::{Dim, Item, Result, Shape, Tensor};

mod steps;

use steps::{Step, Sums};

const fn row(
    name: &'static str,
    inputs: usize,
    outputs: usize,
    eval: EvalFn,
    examples: &'static [&'static str],
) -> OpDef {
    OpDef {
        name,
        inputs: Arity(3, inputs),
        outputs: Arity(1, outputs),
        attrs: ATTRS,
        infer,
        eval: Some(eval),
        examples,
        ..BASE
    }
}

/// The gradients of RNN: of X, W, R, B and initial_h; each may be left out.
pub static RNN_GRAD: OpDef = row(
    "RNNGrad",
    8,
    5,
    |cx| gradients(cx, &cell::RNN, steps::rnn),
    &[
        "edgesmith.RNNGrad(f32[4,2,3], f32[1,5,3], f32[1,5,5], , , , f32[4,1,2,5]) -> 5",
        "edgesmith.RNNGrad(f32[4,2,3], f32[1,5,3], f32[1,5,5], f32[1,10], i32[2]{4,0}, \
         f32[1,2,5], f32[4,1,2,5]) -> 5",
        "edgesmith.RNNGrad(f32[2,4,3], f32[1,5,3], f32[1,5,5], f32[1,10], i32[2]{4,2}, \
         f32[2,1,5], , f32[2,1,5]) {layout=1, direction=\"reverse\"} -> 3",
    ],
);

/// The gradients of GRU, as [`RNN_GRAD`].
pub static GRU_GRAD: OpDef = row(
    "GRUGrad",
    8,
    5,
    |cx| gradients(cx, &cell::GRU, steps::gru),
    &[
        "edgesmith.GRUGrad(f32[4,2,3], f32[1,15,3], f32[1,15,5], f32[1,30], , , f32[4,1,2,5]) -> 5",
        "edgesmith.GRUGrad(f32[4,2,3], f32[1,15,3], f32[1,15,5], f32[1,30], , f32[1,2,5], \
         f32[4,1,2,5], f32[1,2,5]) {linear_before_reset=1} -> 5",
    ],
);

/// The gradients of LSTM: of X, W, R, B, initial_h, initial_c and P; each may be left out.
pub static LSTM_GRAD: OpDef = row(
    "LSTMGrad",
    11,
    7,
    |cx| gradients(cx, &cell::LSTM, steps::lstm),
    &[
        "edgesmith.LSTMGrad(f32[4,2,3], f32[1,20,3], f32[1,20,5], f32[1,40], , , , , \
         f32[4,1,2,5]) -> 4",
        "edgesmith.LSTMGrad(f32[4,2,3], f32[2,20,3], f32[2,20,5], f32[2,40], i32[2]{4,3}, \
         f32[2,2,5], f32[2,2,5], f32[2,15], f32[4,2,2,5], f32[2,2,5], f32[2,2,5]) \
         {direction=\"bidirectional\"} -> 7",
    ],
);

/// How many inputs the forward operator has.
fn forward_inputs(cell: &Cell) -> usize {
    if cell.gates == 4 { 8 } else { 6 }
}

fn gradients(cx: &EvalCx, cell: &Cell, back: Step) -> Result<Vec<Tensor>> {
    let given = forward_inputs(cell);
    let inputs: Vec<Option<Item>> = (0..given).map(|i| cx.item(i).cloned()).collect();
    let own = cx.with_inputs(&inputs);
    let mut run = Run::of(&own, cell)?;
    let states = run.extent.state_dims();
    let dy = or_zeros(cx, given, &run.extent.output_dims())?;
    let last = [given + 1, given + 2].map(|i| or_zeros(cx, i, &states));
    let [dhidden, dcells] = last;
    let (dhidden, dcells) = (dhidden?, dcells?);
    let mut dx = vec![0.0; run.x.len()];
    let mut sums: Vec<Sums> = run.weights.iter().map(Sums::of).collect();
    for (d, b) in run.each() {
        let times = run.times(d, b);
        let before = replay(&run, cell, (d, b), &times);
        let at = run.extent.state(d, b);
        let mut slope = State {
            hidden: dhidden[at.clone()].to_vec(),
            cell: dcells[at].to_vec(),
        };
        for (&t, before) in times.iter().zip(&before).rev() {
            let shown = &dy[run.extent.output(t, d, b)];
            slope
                .hidden
                .iter_mut()
                .zip(shown)
                .for_each(|(s, d)| *s += d);
            let place = run.extent.input(t, b);
            let x = &run.x[place.clone()];
            sums[d].step(&run.weights[d], x, &mut dx[place], |at| {
                back(at, before, &mut slope);
            });
        }
        run.set_state(d, b, &slope);
    }
    outputs(&own, run, dx, sums)
}

/// The states of a sample before each of its steps.
fn replay(run: &Run, cell: &Cell, (d, b): (usize, usize), times: &[usize]) -> Vec<State> {
    let mut state = run.state(d, b);
    let mut before = Vec::with_capacity(times.len());
    for &t in times {
        before.push(state.clone());
        let x = &run.x[run.extent.input(t, b)];
        (cell.step)(&run.weights[d], x, &mut state);
    }
    before
}

/// The gradients as tensors; the states of `run` are by now those of the initial states.
fn outputs(cx: &EvalCx, run: Run, dx: Vec<f64>, sums: Vec<Sums>) -> Result<Vec<Tensor>> {
    let (x, w, r) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let joined = |part: fn(&Sums) -> &Vec<f64>| -> Vec<f64> {
        sums.iter().flat_map(|s| part(s).iter().copied()).collect()
    };
    let e = &run.extent;
    let bias = [e.directions, 2 * w.dims()[1]];
    let peephole = [e.directions, 3 * e.size];
    Ok(vec![
        from_floats(x.dtype(), x.dims(), dx)?,
        from_floats(w.dtype(), w.dims(), joined(|s| &s.w))?,
        from_floats(r.dtype(), r.dims(), joined(|s| &s.r))?,
        from_floats(w.dtype(), &bias, joined(|s| &s.bias))?,
        from_floats(x.dtype(), &e.state_dims(), run.hidden)?,
        from_floats(x.dtype(), &e.state_dims(), run.cells)?,
        from_floats(w.dtype(), &peephole, joined(|s| &s.peephole))?,
    ])
}

fn infer(cx: &mut InferCx) -> Result<()> {
    for (o, i) in [0, 1, 2, 3, 5, 6, 7].into_iter().enumerate() {
        // Inputs from 6 on are states and weights of an LSTM only.
        let has = cx.has(i) && (i < 6 || cx.node.op == "LSTMGrad");
        match cx.ty(i).cloned().filter(|_| has) {
            Some(ty) => cx.set(o, ty),
            None => cx.set_tensor(o, cx.dtype(0), None),
        }
    }
    let twice = |d: &Dim| match d {
        Dim::Known(n) => n.checked_mul(2).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    };
    if let (false, Some(w)) = (cx.has(3), cx.shape(1).filter(|w| w.rank() == 3)) {
        let bias: Shape = [w[0].clone(), twice(&w[1])].into_iter().collect();
        cx.set_tensor(3, cx.dtype(1), Some(bias));
    }
    Ok(())
}

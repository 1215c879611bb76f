//! RNN, GRU and LSTM: the loop over time, directions and lengths that they share.

use super::arith::from_floats;
use super::{Arity, AttrDef, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::{Dim, Error, Result, Shape, Tensor, checked_count};

pub mod cell;
pub mod functions;
pub mod run;

use cell::{Cell, Narrow};
use run::{Run, direction};

/// The attributes of all three.
pub const ATTRS: &[AttrDef] = &[
    attr("activation_alpha", AttrKind::Floats),
    attr("activation_beta", AttrKind::Floats),
    attr("activations", AttrKind::Strings),
    attr("clip", AttrKind::Float(None)),
    attr("direction", AttrKind::String(Some("forward"))),
    attr("hidden_size", AttrKind::Int(None)),
    attr("input_forget", AttrKind::Int(Some(0))),
    attr("layout", AttrKind::Int(Some(0))),
    attr("linear_before_reset", AttrKind::Int(Some(0))),
    attr("output_sequence", AttrKind::Int(None)),
];

/// ONNX RNN.
pub static RNN: OpDef = OpDef {
    name: "RNN",
    since: &[1, 7, 14, 22],
    inputs: Arity(3, 6),
    outputs: Arity(0, 2),
    attrs: ATTRS,
    infer: |cx| infer(cx, 1),
    eval: Some(|cx| eval(cx, &cell::RNN, None)),
    examples: &["RNN(f32[4,2,3], f32[1,5,3], f32[1,5,5])"],
    ..OpDef::BASE
};

/// ONNX GRU; gates in the order update, reset, hidden.
pub static GRU: OpDef = OpDef {
    name: "GRU",
    since: &[1, 3, 7, 14, 22],
    inputs: Arity(3, 6),
    outputs: Arity(0, 2),
    attrs: ATTRS,
    infer: |cx| infer(cx, 1),
    eval: Some(|cx| eval(cx, &cell::GRU, None)),
    examples: &["GRU(f32[4,2,3], f32[1,15,3], f32[1,15,5], f32[1,30])"],
    ..OpDef::BASE
};

/// ONNX LSTM; gates in the order input, output, forget, cell.
pub static LSTM: OpDef = OpDef {
    name: "LSTM",
    since: &[1, 7, 14, 22],
    inputs: Arity(3, 8),
    outputs: Arity(0, 3),
    attrs: ATTRS,
    infer: |cx| infer(cx, 2),
    eval: Some(|cx| lstm(cx, None)),
    examples: &[
        "LSTM(f32[4,2,3], f32[1,20,3], f32[1,20,5], f32[1,40])",
        "LSTM(f32[4,2,3], f32[2,20,3], f32[2,20,5]) {direction=\"bidirectional\"}",
    ],
    ..OpDef::BASE
};

/// LSTM of the inputs in ONNX's order. Where `narrow` is given, it rounds the input as a whole,
/// and the hidden state of each sample before each step.
///
/// # Errors
/// When the inputs do not fit each other.
pub fn lstm(cx: &EvalCx, narrow: Option<Narrow>) -> Result<Vec<Tensor>> {
    eval(cx, &cell::LSTM, narrow)
}

fn eval(cx: &EvalCx, cell: &Cell, narrow: Option<Narrow>) -> Result<Vec<Tensor>> {
    let mut run = Run::of(cx, cell)?;
    if let Some(narrow) = narrow {
        run.x = narrow(&run.x)?;
    }
    let mut y = vec![0.0; checked_count(&run.extent.output_dims())?];
    for (d, b) in run.each() {
        let mut state = run.state(d, b);
        for t in run.times(d, b) {
            if let Some(narrow) = narrow {
                state.hidden = narrow(&state.hidden)?;
            }
            (cell.step)(&run.weights[d], &run.x[run.extent.input(t, b)], &mut state);
            y[run.extent.output(t, d, b)].copy_from_slice(&state.hidden);
        }
        run.set_state(d, b, &state);
    }
    let (e, dtype) = (&run.extent, cx.input(0)?.dtype());
    let mut out = vec![
        from_floats(dtype, &e.output_dims(), y)?,
        from_floats(dtype, &e.state_dims(), run.hidden)?,
    ];
    if cell.gates == 4 {
        out.push(from_floats(dtype, &e.state_dims(), run.cells)?);
    }
    Ok(out)
}

/// The rule of all three: `states` state outputs follow the sequence of outputs.
fn infer(cx: &mut InferCx, states: usize) -> Result<()> {
    let directions = Dim::Known(direction(cx.node.string("direction"))?);
    let dim = |i: usize, axis: usize| match cx.shape(i) {
        None => Ok(Dim::Unknown),
        Some(s) if s.rank() == 3 => Ok(s[axis].clone()),
        Some(s) => Err(Error::invalid(format!(
            "input {i} should have 3 axes, found {s}"
        ))),
    };
    let size = dim(2, 2)?;
    let (first, second) = (dim(0, 0)?, dim(0, 1)?);
    let (sequence, state): (Shape, Shape) = if cx.node.int("layout").unwrap_or(0) != 0 {
        (
            [first.clone(), second, directions.clone(), size.clone()]
                .into_iter()
                .collect(),
            [first, directions, size].into_iter().collect(),
        )
    } else {
        (
            [first, directions.clone(), second.clone(), size.clone()]
                .into_iter()
                .collect(),
            [directions, second, size].into_iter().collect(),
        )
    };
    let dtype = cx.dtype(0);
    cx.set_tensor(0, dtype, Some(sequence));
    for o in 1..=states {
        cx.set_tensor(o, dtype, Some(state.clone()));
    }
    Ok(())
}

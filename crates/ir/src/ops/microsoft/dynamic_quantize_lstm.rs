//! DynamicQuantizeLSTM: LSTM with quantised weights, whose input and hidden state are quantised
//! over their own ranges.

use super::BASE;
use crate::eval::{EvalCx, items};
use crate::infer::InferCx;
use crate::ops::arith::{broadcast_indices, expect_rank, floats, integers};
use crate::ops::quantize::quantize_dynamically;
use crate::ops::recurrent::lstm;
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::{DType, Dim, Error, Result, Tensor};

/// `com.microsoft.DynamicQuantizeLSTM`. Inputs: those of LSTM with weights transposed, then scales
/// and zero points of both weights, by direction or by direction and column.
///
/// The input is quantised as a whole and the hidden state of each sample at each step; ONNX
/// Runtime quantises the states of several samples together.
pub static DYNAMIC_QUANTIZE_LSTM: OpDef = OpDef {
    name: "DynamicQuantizeLSTM",
    inputs: Arity(12, 12),
    outputs: Arity(0, 3),
    attrs: &[
        attr("activation_alpha", AttrKind::Floats),
        attr("activation_beta", AttrKind::Floats),
        attr("activations", AttrKind::Strings),
        attr("clip", AttrKind::Float(None)),
        attr("direction", AttrKind::String(Some("forward"))),
        attr("hidden_size", AttrKind::Int(None)),
        attr("input_forget", AttrKind::Int(Some(0))),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "com.microsoft.DynamicQuantizeLSTM(f32[4,2,3], i8[1,3,20], i8[1,5,20], f32[1,40], _, _, \
                 _, _, f32[1]{0.05}, i8[1]{0}, f32[1]{0.02}, i8[1]{0}) {hidden_size=5}",
    ],
    ..BASE
};

/// The weight in input `i`, real, with its last two axes swapped. Scale and zero point are the
/// inputs from `parameters` on.
fn weight(cx: &EvalCx, i: usize, parameters: usize) -> Result<Tensor> {
    let w = cx.input(i)?;
    expect_rank("a weight", w, 3..=3)?;
    let [directions, rows, columns] = *w.dims() else {
        return Err(Error::internal("three axes were checked"));
    };
    let of = |t: &Tensor| {
        let dims = match *t.dims() {
            [d] => vec![d, 1, 1],
            [d, n] => vec![d, 1, n],
            _ => t.dims().to_vec(),
        };
        broadcast_indices(&dims, w.dims())
    };
    let (scale, zero) = (cx.input(parameters)?, cx.input(parameters + 1)?);
    let (of_scale, of_zero) = (of(scale)?, of(zero)?);
    let (codes, scales, zeros) = (integers(w)?, floats(scale)?, integers(zero)?);
    let mut y = vec![0.0; codes.len()];
    for (at, &code) in codes.iter().enumerate() {
        let (d, r, c) = (at / columns / rows, at / columns % rows, at % columns);
        y[(d * columns + c) * rows + r] = (code - zeros[of_zero[at]]) as f64 * scales[of_scale[at]];
    }
    Tensor::from_vec(&[directions, columns, rows], y)
}

/// Numbers as 8 bits over their range hold them.
fn narrow(values: &[f64]) -> Result<Vec<f64>> {
    let single = values.iter().map(|&v| v as f32).collect();
    let (q, scale, zero) = quantize_dynamically(&Tensor::vector::<f32>(single))?;
    let q = integers(&q)?.into_iter();
    Ok(q.map(|q| (q - i128::from(zero)) as f64 * f64::from(scale))
        .collect())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let mut inputs: Vec<Option<Tensor>> = (0..8).map(|i| cx.optional(i).cloned()).collect();
    inputs[1] = Some(weight(cx, 1, 8)?);
    inputs[2] = Some(weight(cx, 2, 10)?);
    if cx.input(0)?.dtype() != DType::F32 {
        return Err(Error::invalid("the input should be of f32"));
    }
    lstm(&cx.with_inputs(&items(inputs)), Some(narrow))
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let directions = match cx.node.string("direction") {
        Some("bidirectional") => 2,
        _ => 1,
    };
    let dim = |i: usize, a: usize| {
        let shape = cx.shape(i).filter(|s| s.rank() == 3);
        shape.map_or(Dim::Unknown, |s| s[a].clone())
    };
    let (steps, batch, size) = (dim(0, 0), dim(0, 1), dim(2, 1));
    let directions = Dim::Known(directions);
    let y = [steps, directions.clone(), batch.clone(), size.clone()];
    let state = [directions, batch, size];
    cx.set_tensor(0, Some(DType::F32), Some(y.into_iter().collect()));
    for o in [1, 2] {
        let state = state.iter().cloned().collect();
        cx.set_tensor(o, Some(DType::F32), Some(state));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowed_numbers_keep_zero_and_the_ends() {
        let y = narrow(&[-1.0, 0.0, 0.3, 1.55]).unwrap();
        assert_eq!(y[1], 0.0);
        assert!((y[2] - 0.3).abs() < 0.006 && (y[3] - 1.55).abs() < 1e-6);
    }
}

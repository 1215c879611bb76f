//! QAttention: Attention of a quantised input and quantised weights.

use super::BASE;
use super::attention;
use crate::eval::{EvalCx, items};
use crate::infer::InferCx;
use crate::ops::arith::floats;
use crate::ops::quantize::{centred, scale_indices};
use crate::ops::quantized::{scale_dims, single};
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::{Dim, Error, Result, Shape, Tensor};

/// `com.microsoft.QAttention`. Inputs: input, weights, bias, their scales, mask, their zero points,
/// past.
pub static Q_ATTENTION: OpDef = OpDef {
    name: "QAttention",
    inputs: Arity(5, 9),
    outputs: Arity(1, 2),
    attrs: &[
        attr("do_rotary", AttrKind::Int(Some(0))),
        attr("mask_filter_value", AttrKind::Float(Some(-10000.0))),
        attr("num_heads", AttrKind::Int(None)),
        attr("past_present_share_buffer", AttrKind::Int(None)),
        attr("scale", AttrKind::Float(None)),
        attr("unidirectional", AttrKind::Int(Some(0))),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "com.microsoft.QAttention(u8[2,3,4], i8[4,12], f32[12], f32{0.1}, f32{0.2}, \
         i32[2,3]{1,1,0,1,1,1}, u8{4}, i8{1}) {num_heads=2}",
        "com.microsoft.QAttention(u8[1,3,4], u8[4,12], f32[12], f32{0.1}, \
         f32[12]{1,2,3,4,5,6,7,8,9,10,11,12}, _, u8{4}, u8[12]{1,2,3,4,5,6,7,8,9,10,11,12}, \
         f32[2,1,2,2,2]) {num_heads=2, unidirectional=1} -> 2",
    ],
    ..BASE
};

/// The numbers of a quantised operand, with scales and zero points of all or of its columns.
fn dequantised(x: &Tensor, scale: &Tensor, zero: Option<&Tensor>) -> Result<Tensor> {
    let scales = floats(scale)?;
    let of = scale_indices(x.dims(), &scale_dims(scales.len()), -1, 0)?;
    let centred = centred(x, zero, -1)?.into_iter().zip(of);
    let y = centred.map(|(q, s)| q as f64 * scales[s]).collect();
    Tensor::from_vec::<f64>(x.dims(), y)
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    single(cx, 3)?;
    let bias = cx.input(2)?;
    let x = dequantised(cx.input(0)?, cx.input(3)?, cx.optional(6))?;
    let w = dequantised(cx.input(1)?, cx.input(4)?, cx.optional(7))?;
    let inputs = [
        Some(x),
        Some(w),
        Some(bias.clone()),
        cx.optional(5).cloned(),
        cx.optional(8).cloned(),
    ];
    let eval = attention::ATTENTION
        .eval
        .ok_or_else(|| Error::internal("Attention is evaluated"))?;
    let outputs = eval(&cx.with_inputs(&items(inputs)))?.into_iter();
    outputs
        .map(|y| crate::ops::arith::from_floats(bias.dtype(), y.dims(), floats(&y)?))
        .collect()
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let n = attention::heads(cx.node)?;
    let x = cx.shape(0).filter(|x| x.rank() == 3);
    let dim = |a: usize| x.map_or(Dim::Unknown, |x| x[a].clone());
    let columns = cx.shape(1).and_then(|w| w.last()?.known());
    let known =
        |f: fn(usize, usize) -> usize| columns.map_or(Dim::Unknown, |c| Dim::Known(f(c, n)));
    let total = if cx.has(8) { Dim::Unknown } else { dim(1) };
    let (width, size) = (known(|c, _| c / 3), known(|c, n| c / 3 / n));
    let y: Shape = [dim(0), dim(1), width].into_iter().collect();
    let present = [Dim::Known(2), dim(0), Dim::Known(n), total, size];
    cx.set_tensor(0, cx.dtype(2), Some(y));
    cx.set_tensor(1, cx.dtype(2), Some(present.into_iter().collect()));
    Ok(())
}

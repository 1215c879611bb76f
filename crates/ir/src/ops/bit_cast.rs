//! BitCast: the same bits as another type of equal width.

use super::{AttrKind, OpDef, attr, cast};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::{DType, Error, Result, Tensor};

/// ONNX BitCast.
pub static BIT_CAST: OpDef = OpDef {
    name: "BitCast",
    since: &[26],
    attrs: &[attr("to", AttrKind::Int(None))],
    infer,
    eval: Some(eval),
    examples: &["BitCast(f32[2]{1,-2}) {to=6}", "BitCast(i8[3]) {to=2}"],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let dtype = cast::to(cx.node)?;
    cx.set_tensor(0, Some(dtype), cx.shape(0).cloned());
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, dtype) = (cx.input(0)?, cast::to(cx.node)?);
    if dtype.bits() != x.dtype().bits() || dtype == DType::String {
        return Err(Error::invalid(format!(
            "{} and {dtype} differ in width",
            x.dtype()
        )));
    }
    Ok(vec![Tensor::from_bytes(
        dtype,
        x.dims(),
        x.bytes().clone(),
    )?])
}

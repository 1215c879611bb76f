//! Where: elements of one of two tensors by a condition.

use super::layout::{self, Run};
use super::{Arity, OpDef};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::{Result, Tensor};

/// ONNX Where.
pub static WHERE: OpDef = OpDef {
    name: "Where",
    since: &[9, 16],
    inputs: Arity(3, 3),
    infer,
    eval: Some(eval),
    examples: &[
        "Where(bool[2]{true,false}, f32[2], f32[2])",
        "Where(bool[2,1], i64[3], i64[])",
    ],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let shape = infer::broadcast(&[cx.shape(0), cx.shape(1), cx.shape(2)])?;
    cx.set_tensor(0, cx.dtype(1).or(cx.dtype(2)), shape);
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (c, x, y) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let dims = layout::broadcast_dims(&[c.dims(), x.dims(), y.dims()])?;
    let condition = layout::broadcast(c, &dims)?.bools()?;
    let places = |t: &Tensor| layout::walk(&dims, &layout::broadcast_strides(t.dims(), &dims)?, 0);
    let runs = condition
        .into_iter()
        .zip(places(x)?.zip(places(y)?))
        .map(|(c, (x, y))| Run {
            source: usize::from(!c),
            start: if c { x } else { y },
            len: 1,
        });
    Ok(vec![layout::assemble(&[x, y], &dims, runs)?])
}

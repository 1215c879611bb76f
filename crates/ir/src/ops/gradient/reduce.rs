//! Gradients of reductions that ONNX's operators do not express: `<Op>Grad(X, axes, dY) -> dX`.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{broadcast_indices, floats, from_floats};
use crate::ops::reduce::{REDUCE_PROD, marks};
use crate::ops::{Arity, OpDef, axes};
use crate::{Error, Result, Tensor};

/// The gradient of ReduceProd: for each element the product of the others, zeros or not.
pub static REDUCE_PROD_GRAD: OpDef = OpDef {
    name: "ReduceProdGrad",
    inputs: Arity(3, 3),
    attrs: REDUCE_PROD.attrs,
    eval: Some(eval),
    examples: &[
        "edgesmith.ReduceProdGrad(f32[2,3,4], i64[2]{-1,0}, f32[3]) {keepdims=0}",
        "edgesmith.ReduceProdGrad(f32[2,3], , f32[1,1])",
    ],
    ..BASE
};

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, dy) = (cx.input(0)?, cx.input(2)?);
    let given = axes::given(cx, "axes", 1)?;
    let noop = cx.int("noop_with_empty_axes", 0) != 0;
    let marks = marks(given.as_deref(), noop, x.rank())?;
    let one = |(&d, &m): (&usize, &bool)| if m { 1 } else { d };
    let kept: Vec<usize> = x.dims().iter().zip(&marks).map(one).collect();
    let (data, dy_data) = (floats(x)?, floats(dy)?);
    if dy_data.len() != kept.iter().product::<usize>() {
        let (x, dy) = (x.ty(), dy.ty());
        return Err(Error::invalid(format!(
            "the gradient {dy} is not of the products of {x}"
        )));
    }
    let mut groups = vec![Vec::new(); dy_data.len()];
    for (i, group) in broadcast_indices(&kept, x.dims())?.into_iter().enumerate() {
        groups[group].push(i);
    }
    let mut dx = vec![0.0; data.len()];
    for (group, d) in groups.iter().zip(dy_data) {
        let mut before = d;
        for &i in group {
            dx[i] = before;
            before *= data[i];
        }
        let mut behind = 1.0;
        for &i in group.iter().rev() {
            dx[i] *= behind;
            behind *= data[i];
        }
    }
    Ok(vec![from_floats(x.dtype(), x.dims(), dx)?])
}

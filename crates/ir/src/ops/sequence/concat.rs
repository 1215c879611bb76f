//! ConcatFromSequence: the tensors of a sequence as one.

use super::element;
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::ops::{AttrKind, OpDef, attr, concat};
use crate::types::{Dim, TensorType};
use crate::{Error, Item, Result, Tensor};

/// ONNX ConcatFromSequence.
pub static CONCAT_FROM_SEQUENCE: OpDef = OpDef {
    name: "ConcatFromSequence",
    since: &[11],
    attrs: &[
        attr("axis", AttrKind::Int(None)),
        attr("new_axis", AttrKind::Int(Some(0))),
    ],
    infer,
    eval_items: Some(eval),
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let stacks = cx.node.int("new_axis").unwrap_or(0) != 0;
    let axis = cx.node.int("axis").unwrap_or(0);
    let Some(ty) = element(cx, 0).and_then(|t| t.tensor()).cloned() else {
        return Ok(());
    };
    let mut shape = ty.shape;
    if let Some(s) = &mut shape {
        let at = infer::axis(axis, s.rank() + usize::from(stacks))?;
        if stacks {
            s.0.insert(at, Dim::Unknown);
        } else {
            s.0[at] = Dim::Unknown;
        }
    }
    let dtype = ty.dtype;
    cx.set(0, TensorType { dtype, shape });
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Item>> {
    let axis = cx.int("axis", 0);
    let items = cx.sequence(0)?.iter().map(Item::as_tensor);
    let tensors: Vec<&Tensor> = items.collect::<Result<_>>()?;
    let Some(first) = tensors.first() else {
        return Err(Error::invalid("an empty sequence cannot be joined"));
    };
    if cx.int("new_axis", 0) == 0 {
        return Ok(vec![concat::join(&tensors, axis)?.into()]);
    }
    let at = infer::axis(axis, first.rank() + 1)?;
    let one = |t: &&Tensor| {
        let mut dims = t.dims().to_vec();
        dims.insert(at.min(dims.len()), 1);
        t.reshaped(&dims)
    };
    let stacked = tensors.iter().map(one).collect::<Result<Vec<Tensor>>>()?;
    let joined = concat::join(&stacked.iter().collect::<Vec<_>>(), axis)?;
    Ok(vec![joined.into()])
}

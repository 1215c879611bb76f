//! SplitToSequence: a tensor in pieces.

use super::sequence_of;
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::ops::control::without_axis;
use crate::ops::{Arity, AttrKind, OpDef, attr, axes, layout};
use crate::types::{Dim, TensorType};
use crate::{Error, Item, Result, Tensor, checked_count};

/// ONNX SplitToSequence.
pub static SPLIT_TO_SEQUENCE: OpDef = OpDef {
    name: "SplitToSequence",
    since: &[11, 24],
    inputs: Arity(1, 2),
    attrs: &[
        attr("axis", AttrKind::Int(Some(0))),
        attr("keepdims", AttrKind::Int(Some(1))),
    ],
    infer,
    eval_items: Some(eval),
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let axis = cx.node.int("axis").unwrap_or(0);
    let drop = !cx.has(1) && cx.node.int("keepdims") == Some(0);
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let mut shape = cx.shape(0).cloned();
    if let Some(s) = &mut shape {
        let axis = infer::axis(axis, s.rank())?;
        if drop {
            *s = without_axis(s, axis);
        } else {
            s.0[axis] = if cx.has(1) {
                Dim::Unknown
            } else {
                Dim::Known(1)
            };
        }
    }
    cx.set(0, sequence_of(TensorType { dtype, shape }.into()));
    Ok(())
}

/// Bytes that a piece takes beside its elements.
const PIECE: usize = 128;

/// The lengths of the pieces of an axis of length `n`.
fn lengths(split: Option<&Tensor>, n: usize) -> Result<Vec<usize>> {
    let Some(split) = split else {
        checked_count(&[n, PIECE])?;
        return Ok(vec![1; n]);
    };
    if split.rank() == 0 {
        let size = usize::try_from(axes::scalar(split)?)
            .ok()
            .filter(|&s| s > 0);
        let size = size.ok_or_else(|| Error::invalid("pieces need a length over 0"))?;
        let pieces = n.div_ceil(size);
        checked_count(&[pieces, PIECE])?;
        return Ok((0..pieces).map(|i| size.min(n - i * size)).collect());
    }
    let lengths: Option<Vec<usize>> = split
        .to_i64()?
        .into_iter()
        .map(|l| usize::try_from(l).ok())
        .collect();
    let sum = |l: &Vec<usize>| l.iter().try_fold(0usize, |a, &b| a.checked_add(b));
    lengths.filter(|l| sum(l) == Some(n)).ok_or_else(|| {
        Error::invalid(format!(
            "the pieces do not add up to the axis of length {n}"
        ))
    })
}

fn eval(cx: &EvalCx) -> Result<Vec<Item>> {
    let x = cx.input(0)?;
    let axis = infer::axis(cx.int("axis", 0), x.rank())?;
    let split = cx.optional(1);
    let drop = split.is_none() && cx.int("keepdims", 1) == 0;
    let strides = layout::strides(x.dims());
    let step = usize::try_from(strides[axis]).unwrap_or(0);
    let mut pieces = Vec::new();
    let mut start = 0;
    for length in lengths(split, x.dims()[axis])? {
        let mut dims = layout::Dims::from_slice(x.dims());
        dims[axis] = length;
        let piece = layout::strided(x, &dims, &strides, start * step)?;
        start += length;
        if drop {
            dims.remove(axis);
        }
        pieces.push(piece.reshaped(&dims)?);
    }
    Ok(vec![Item::tensors(pieces)])
}

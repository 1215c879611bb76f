//! Squeeze and Unsqueeze: axes of length 1 taken away and put in.

use super::{Arity, AttrKind, OpDef, attr, axes, layout};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor};

/// ONNX Squeeze.
pub static SQUEEZE: OpDef = OpDef {
    name: "Squeeze",
    since: &[1, 11, 13, 21, 23, 24, 25],
    inputs: Arity(1, 2),
    attrs: &[attr("axes", AttrKind::Ints)],
    infer: infer_squeeze,
    eval: Some(eval_squeeze),
    examples: &[
        "Squeeze(f32[1,3,1])",
        "Squeeze(f32[1,3,1], i64[1]{-1})",
        "Squeeze@11(f32[1,3,1]) {axes=[0]}",
    ],
    ..OpDef::BASE
};

/// ONNX Unsqueeze.
pub static UNSQUEEZE: OpDef = OpDef {
    name: "Unsqueeze",
    since: &[1, 11, 13, 21, 23, 24, 25],
    inputs: Arity(1, 2),
    attrs: &[attr("axes", AttrKind::Ints)],
    infer: infer_unsqueeze,
    eval: Some(eval_unsqueeze),
    examples: &[
        "Unsqueeze(f32[3,4], i64[2]{0,-1})",
        "Unsqueeze(f32[], i64[1]{0})",
        "Unsqueeze@11(f32[3,4]) {axes=[1]}",
    ],
    ..OpDef::BASE
};

fn squeezed<D: Clone>(dims: &[D], axes: &[i64], is_one: impl Fn(&D) -> bool) -> Result<Vec<D>> {
    let marks = axes::marks(axes, dims.len())?;
    let mut out = Vec::new();
    for (i, d) in dims.iter().enumerate() {
        if !marks[i] {
            out.push(d.clone());
        } else if !is_one(d) {
            return Err(Error::invalid(format!(
                "axis {i} cannot be squeezed, its length is not 1"
            )));
        }
    }
    Ok(out)
}

fn unsqueezed<D: Clone>(dims: &[D], axes: &[i64], one: &D) -> Result<Vec<D>> {
    let marks = axes::marks(axes, dims.len() + axes.len())?;
    let mut rest = dims.iter();
    Ok(marks
        .iter()
        .filter_map(|&new| {
            if new {
                Some(one.clone())
            } else {
                rest.next().cloned()
            }
        })
        .collect())
}

fn eval_squeeze(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let dims: Vec<usize> = match axes::given(cx, "axes", 1)? {
        Some(axes) => squeezed(x.dims(), &axes, |&d| d == 1)?,
        None => x.dims().iter().copied().filter(|&d| d != 1).collect(),
    };
    Ok(vec![x.reshaped(&dims)?])
}

fn eval_unsqueeze(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let axes = axes::given(cx, "axes", 1)?.ok_or_else(|| Error::invalid("the axes are missing"))?;
    let dims: layout::Dims = unsqueezed(x.dims(), &axes, &1)?.into();
    Ok(vec![x.reshaped(&dims)?])
}

fn keep_contents(cx: &mut InferCx, shape: Option<&Shape>) {
    if let Some(contents) = cx.contents(0).map(<[Dim]>::to_vec)
        && shape.is_some_and(|s| s.rank() <= 1)
    {
        cx.set_contents(0, contents);
    }
}

fn infer_squeeze(cx: &mut InferCx) -> Result<()> {
    let shape: Option<Shape> = match (cx.shape(0), axes::known(cx, "axes", 1)) {
        (Some(s), axes::Param::Known(axes)) => {
            let one = |d: &Dim| d.known().is_none_or(|n| n == 1);
            Some(squeezed(s, &axes, one)?.into_iter().collect())
        }
        (Some(s), axes::Param::Absent) if s.iter().all(|d| d.known().is_some()) => {
            Some(s.iter().filter(|d| **d != Dim::Known(1)).cloned().collect())
        }
        _ => None,
    };
    keep_contents(cx, shape.as_ref());
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn infer_unsqueeze(cx: &mut InferCx) -> Result<()> {
    let shape: Option<Shape> = match (cx.shape(0), axes::known(cx, "axes", 1)) {
        (Some(s), axes::Param::Known(axes)) => {
            Some(unsqueezed(s, &axes, &Dim::Known(1))?.into_iter().collect())
        }
        _ => None,
    };
    keep_contents(cx, shape.as_ref());
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

//! Split: a tensor cut along an axis.

use super::{Arity, AttrKind, MANY, OpDef, attr, axes, layout};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor};

/// ONNX Split: by lengths, or into equal parts of which the last may be shorter.
pub static SPLIT: OpDef = OpDef {
    name: "Split",
    since: &[1, 2, 11, 13, 18],
    inputs: Arity(1, 2),
    outputs: Arity(1, MANY),
    attrs: &[
        attr("axis", AttrKind::Int(Some(0))),
        attr("split", AttrKind::Ints),
        attr("num_outputs", AttrKind::Int(None)),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "Split(f32[6], i64[2]{2,4}) -> 2",
        "Split(f32[2,7]) {axis=1,num_outputs=3} -> 3",
        "Split@11(f32[2,6]) {axis=-1,split=[1,5]} -> 2",
        "Split@13(f32[4,2]) -> 2",
    ],
    ..OpDef::BASE
};

fn parts(len: usize, split: Option<&[i64]>, outputs: usize) -> Result<Vec<usize>> {
    let lengths = match split {
        Some(split) => split
            .iter()
            .map(|&n| axes::length(n, "a part"))
            .collect::<Result<Vec<usize>>>()?,
        None => {
            let chunk = len.div_ceil(outputs.max(1));
            (0..outputs)
                .map(|i| chunk.min(len.saturating_sub(chunk * i)))
                .collect()
        }
    };
    let sum = lengths.iter().try_fold(0usize, |s, &n| s.checked_add(n));
    if sum != Some(len) {
        return Err(Error::invalid(format!(
            "parts of {lengths:?} do not make up an axis of {len}"
        )));
    }
    Ok(lengths)
}

fn outputs(node: &crate::Node) -> usize {
    let wanted = node
        .int("num_outputs")
        .and_then(|n| usize::try_from(n).ok());
    wanted
        .filter(|n| *n <= node.outputs().len())
        .unwrap_or(node.outputs().len())
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let (dtype, outputs) = (cx.dtype(0), outputs(cx.node));
    let Some(shape) = cx.shape(0).cloned() else {
        for o in 0..outputs {
            cx.set_tensor(o, dtype, None);
        }
        return Ok(());
    };
    let axis = infer::axis(cx.node.int("axis").unwrap_or(0), shape.rank())?;
    let split = axes::known(cx, "split", 1);
    let lengths: Option<Vec<Dim>> = match (&split, &shape[axis]) {
        (axes::Param::Unknown, _) => None,
        (axes::Param::Known(v), Dim::Known(n)) => Some(fixed(parts(*n, Some(v), outputs)?)),
        (axes::Param::Absent, Dim::Known(n)) => Some(fixed(parts(*n, None, outputs)?)),
        (axes::Param::Known(v), _) => Some(
            v.iter()
                .map(|&n| usize::try_from(n).map_or(Dim::Unknown, Dim::Known))
                .collect(),
        ),
        (axes::Param::Absent, _) => None,
    };
    for o in 0..outputs {
        let length = lengths.as_ref().and_then(|l| l.get(o).cloned());
        let mut part: Shape = shape.clone();
        part.0[axis] = length.unwrap_or(Dim::Unknown);
        cx.set_tensor(o, dtype, Some(part));
    }
    Ok(())
}

fn fixed(lengths: Vec<usize>) -> Vec<Dim> {
    lengths.into_iter().map(Dim::Known).collect()
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let axis = infer::axis(cx.int("axis", 0), x.rank())?;
    let split = axes::given(cx, "split", 1)?;
    let lengths = parts(x.dims()[axis], split.as_deref(), outputs(cx.node))?;
    let strides = layout::strides(x.dims());
    let mut first = 0;
    let mut out = Vec::new();
    for length in lengths {
        let mut dims = layout::Dims::from_slice(x.dims());
        dims[axis] = length;
        let offset = first * usize::try_from(strides[axis]).unwrap_or(0);
        out.push(layout::strided(x, &dims, &strides, offset)?);
        first += length;
    }
    Ok(out)
}

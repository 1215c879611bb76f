//! Concat: tensors one after the other along an axis.

use super::layout::{self, Run};
use super::{Arity, AttrKind, MANY, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor};

/// ONNX Concat.
pub static CONCAT: OpDef = OpDef {
    name: "Concat",
    since: &[1, 4, 11, 13],
    inputs: Arity(1, MANY),
    attrs: &[attr("axis", AttrKind::Int(None))],
    infer,
    eval: Some(eval),
    examples: &[
        "Concat(f32[2,3], f32[2,1]) {axis=1}",
        "Concat(f32[2,3], f32[1,3], f32[0,3]) {axis=-2}",
        "Concat(i64[1]{2}, i64[2]{3,-1}) {axis=0}",
        "Concat(f32[2,3]) {axis=0}",
    ],
    ..OpDef::BASE
};

fn axis(axis: Option<i64>, version: i64) -> Result<i64> {
    // Before version 4 the axis had a default.
    let default = if version < 4 { Some(1) } else { None };
    axis.or(default)
        .ok_or_else(|| Error::invalid("attribute \"axis\" is missing"))
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let inputs = cx.inputs();
    if let Some(parts) = (0..inputs)
        .map(|i| cx.contents(i))
        .collect::<Option<Vec<_>>>()
        && parts.iter().map(|p| p.len()).sum::<usize>() <= infer::MAX_CONTENTS
    {
        let contents = parts.concat();
        cx.set_contents(0, contents);
    }
    let shapes: Option<Vec<&Shape>> = (0..inputs).map(|i| cx.shape(i)).collect();
    let shape = match shapes {
        Some(shapes) => Some(joined(&shapes, axis(cx.node.int("axis"), cx.version)?)?),
        None => (0..inputs)
            .find_map(|i| cx.shape(i))
            .map(|s| Shape::unknown(s.rank())),
    };
    let dtype = (0..inputs).find_map(|i| cx.dtype(i));
    cx.set_tensor(0, dtype, shape);
    Ok(())
}

/// The shape of tensors of these shapes, of which there is at least one, joined along `axis`.
///
/// # Errors
/// When the axis is outside, or ranks or other lengths differ.
pub fn joined(shapes: &[&Shape], axis: i64) -> Result<Shape> {
    let mut out = shapes[0].clone();
    let axis = infer::axis(axis, out.rank())?;
    for s in &shapes[1..] {
        let mut other = (*s).clone();
        if other.rank() == out.rank() {
            let sum = sum(&out[axis], &other[axis]);
            other.0[axis] = sum.clone();
            out.0[axis] = sum;
        }
        out = out.unify(&other).ok_or_else(|| {
            Error::invalid(format!(
                "{} and {s} cannot be joined along axis {axis}",
                shapes[0]
            ))
        })?;
    }
    Ok(out)
}

/// The sum of two lengths, where it is known.
pub fn sum(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(a), Dim::Known(b)) => a.checked_add(*b).map_or(Dim::Unknown, Dim::Known),
        (Dim::Known(0), d) | (d, Dim::Known(0)) => d.clone(),
        _ => Dim::Unknown,
    }
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let parts: Vec<&Tensor> = (0..cx.inputs())
        .map(|i| cx.input(i))
        .collect::<Result<_>>()?;
    let axis = axis(cx.node.int("axis"), cx.version)?;
    Ok(vec![join(&parts, axis)?])
}

/// The tensors one after the other along `axis`.
///
/// # Errors
/// When there are none, or their element types, ranks or other lengths differ.
pub fn join(parts: &[&Tensor], axis: i64) -> Result<Tensor> {
    let shapes: Vec<Shape> = parts.iter().map(|t| Shape::fixed(t.dims())).collect();
    let shapes: Vec<&Shape> = shapes.iter().collect();
    if shapes.is_empty() {
        return Err(Error::invalid("there is nothing to join"));
    }
    let dims = joined(&shapes, axis)?
        .known()
        .ok_or_else(|| Error::invalid("the joined tensor would be too large"))?;
    let axis = infer::axis(axis, dims.len())?;
    let rows: usize = dims[..axis].iter().product();
    let lens: Vec<usize> = parts
        .iter()
        .map(|t| t.dims()[axis..].iter().product())
        .collect();
    let runs = (0..rows).flat_map(|row| {
        lens.iter().enumerate().map(move |(source, &len)| Run {
            source,
            start: row * len,
            len,
        })
    });
    layout::assemble(parts, &dims, runs)
}

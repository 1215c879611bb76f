//! Expand and Tile: a tensor repeated along its axes.

use super::{Arity, AttrKind, OpDef, attr, axes, layout};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor};

/// ONNX Expand: numpy broadcasting to a shape, both ways.
pub static EXPAND: OpDef = OpDef {
    name: "Expand",
    since: &[8, 13],
    inputs: Arity(2, 2),
    infer: infer_expand,
    eval: Some(eval_expand),
    examples: &[
        "Expand(f32[3,1], i64[3]{2,1,4})",
        "Expand(f32[], i64[2]{2,2})",
        "Expand(f32[2,3], i64[1]{1})",
    ],
    ..OpDef::BASE
};

/// ONNX Tile.
pub static TILE: OpDef = OpDef {
    name: "Tile",
    since: &[1, 6, 13],
    inputs: Arity(2, 3),
    attrs: &[attr("axis", AttrKind::Int(None))],
    infer: infer_tile,
    eval: Some(eval_tile),
    examples: &["Tile(f32[2,3], i64[2]{2,1})", "Tile(f32[2], i64[1]{0})"],
    ..OpDef::BASE
};

fn lengths(t: &Tensor) -> Result<layout::Dims> {
    t.to_i64()?
        .into_iter()
        .map(|d| axes::length(d, "a length"))
        .collect()
}

fn infer_expand(cx: &mut InferCx) -> Result<()> {
    let wanted: Option<Shape> = match (cx.contents(1), cx.shape(1)) {
        (Some(dims), _) => Some(dims.iter().cloned().collect()),
        (None, Some(s)) if s.rank() == 1 => s[0].known().map(Shape::unknown),
        _ => None,
    };
    let shape = infer::broadcast(&[cx.shape(0), wanted.as_ref()])?;
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval_expand(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let wanted = lengths(cx.input(1)?)?;
    let dims = layout::broadcast_dims(&[x.dims(), &wanted])?;
    Ok(vec![layout::broadcast(x, &dims)?])
}

fn infer_tile(cx: &mut InferCx) -> Result<()> {
    let shape = match (cx.shape(0), cx.ints(1)) {
        (Some(s), Some(repeats)) if cx.inputs() == 2 && repeats.len() == s.rank() => Some(
            s.iter()
                .zip(repeats)
                .map(|(d, r)| match (d, usize::try_from(r)) {
                    (Dim::Known(n), Ok(r)) => n.checked_mul(r).map_or(Dim::Unknown, Dim::Known),
                    (d, Ok(1)) => d.clone(),
                    _ => Dim::Unknown,
                })
                .collect(),
        ),
        (Some(s), _) => Some(Shape::unknown(s.rank())),
        _ => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

/// Repeats for each axis; before version 6 a count and an axis were given.
fn repeats(cx: &EvalCx, rank: usize) -> Result<layout::Dims> {
    let given = lengths(cx.input(1)?)?;
    let Some(axis) = cx.optional(2) else {
        return Ok(given);
    };
    let axis = axis.to_i64()?.first().copied().unwrap_or(0);
    let mut out: layout::Dims = smallvec::smallvec![1; rank];
    out[infer::axis(axis, rank)?] = given.first().copied().unwrap_or(1);
    Ok(out)
}

fn eval_tile(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let repeats = repeats(cx, x.rank())?;
    if repeats.len() != x.rank() {
        return Err(Error::invalid(format!(
            "expected {} repeats, found {}",
            x.rank(),
            repeats.len()
        )));
    }
    // Each axis becomes two, of which the first repeats.
    let own = layout::strides(x.dims());
    let (mut dims, mut strides) = (layout::Dims::new(), Vec::new());
    let mut out = layout::Dims::new();
    for (i, (&d, &r)) in x.dims().iter().zip(&repeats).enumerate() {
        dims.extend([r, d]);
        strides.extend([0, own[i]]);
        let long = d.checked_mul(r);
        out.push(long.ok_or_else(|| Error::invalid(format!("{r} repeats are too many")))?);
    }
    Ok(vec![
        layout::strided(x, &dims, &strides, 0)?.reshaped(&out)?,
    ])
}

//! DepthToSpace and SpaceToDepth: channels moved into space and back.

use super::{AttrKind, OpDef, attr, layout};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor};

/// ONNX DepthToSpace.
pub static DEPTH_TO_SPACE: OpDef = OpDef {
    name: "DepthToSpace",
    since: &[1, 11, 13],
    attrs: &[
        attr("blocksize", AttrKind::Int(None)),
        attr("mode", AttrKind::String(Some("DCR"))),
    ],
    infer: |cx| infer(cx, true),
    eval: Some(eval_depth),
    examples: &[
        "DepthToSpace(f32[1,8,2,3]) {blocksize=2}",
        "DepthToSpace(f32[1,8,2,3]) {blocksize=2,mode=\"CRD\"}",
    ],
    ..OpDef::BASE
};

/// ONNX SpaceToDepth.
pub static SPACE_TO_DEPTH: OpDef = OpDef {
    name: "SpaceToDepth",
    since: &[1, 13],
    attrs: &[attr("blocksize", AttrKind::Int(None))],
    infer: |cx| infer(cx, false),
    eval: Some(eval_space),
    examples: &["SpaceToDepth(f32[2,1,4,6]) {blocksize=2}"],
    ..OpDef::BASE
};

fn block(node: &crate::Node) -> Result<usize> {
    let b = node.int("blocksize").unwrap_or(0);
    usize::try_from(b)
        .ok()
        .filter(|b| (1..1 << 20).contains(b))
        .ok_or_else(|| Error::invalid(format!("the block size should be positive, found {b}")))
}

fn divided(n: usize, by: usize) -> Result<usize> {
    if n.is_multiple_of(by) {
        return Ok(n / by);
    }
    Err(Error::invalid(format!("length {n} is no multiple of {by}")))
}

fn infer(cx: &mut InferCx, to_space: bool) -> Result<()> {
    let b = block(cx.node)?;
    let less = |d: &Dim, by: usize| match d {
        Dim::Known(n) => divided(*n, by).map(Dim::Known),
        _ => Ok(Dim::Unknown),
    };
    let more = |d: &Dim, by: usize| match d {
        Dim::Known(n) => n.checked_mul(by).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    };
    let shape: Option<Shape> = match cx.shape(0).map(|s| s.0.as_slice()) {
        Some([n, c, h, w]) if to_space => {
            let dims = [n.clone(), less(c, b * b)?, more(h, b), more(w, b)];
            Some(dims.into_iter().collect())
        }
        Some([n, c, h, w]) => {
            let dims = [n.clone(), more(c, b * b), less(h, b)?, less(w, b)?];
            Some(dims.into_iter().collect())
        }
        Some(_) => return Err(Error::invalid("expected [batch, channels, h, w]")),
        None => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn image(x: &Tensor) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(x.dims()).map_err(|_| {
        Error::invalid(format!(
            "expected [batch, channels, h, w], found {}",
            x.ty()
        ))
    })
}

/// The tensor as six axes, in another order, as `dims`.
fn moved(x: &Tensor, six: [usize; 6], order: [usize; 6], dims: &[usize]) -> Result<Tensor> {
    let own = layout::strides(&six);
    let strides = order.map(|a| own[a]);
    layout::strided(x, &order.map(|a| six[a]), &strides, 0)?.reshaped(dims)
}

fn eval_depth(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, b) = (cx.input(0)?, block(cx.node)?);
    let [n, c, h, w] = image(x)?;
    let rest = divided(c, b * b)?;
    let dims = [n, rest, h * b, w * b];
    let y = match cx.node.string("mode").unwrap_or("DCR") {
        "CRD" => moved(x, [n, rest, b, b, h, w], [0, 1, 4, 2, 5, 3], &dims)?,
        "DCR" => moved(x, [n, b, b, rest, h, w], [0, 3, 4, 1, 5, 2], &dims)?,
        mode => {
            return Err(Error::unsupported(format!(
                "the mode \"{mode}\" is unknown"
            )));
        }
    };
    Ok(vec![y])
}

fn eval_space(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, b) = (cx.input(0)?, block(cx.node)?);
    let [n, c, h, w] = image(x)?;
    let (rows, columns) = (divided(h, b)?, divided(w, b)?);
    let six = [n, c, rows, b, columns, b];
    let dims = [n, c * b * b, rows, columns];
    Ok(vec![moved(x, six, [0, 3, 5, 1, 2, 4], &dims)?])
}

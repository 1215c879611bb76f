//! Gradients of operators that only move elements: `<Op>Grad(X, …, dY) -> dX`.
//!
//! Each runs its operator on the numbers of the elements, which tells where every element of the
//! output comes from, and adds the gradient there.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{expect_dims, floats, from_floats};
use crate::ops::{Arity, OpDef, depth_to_space, expand, gather, pad, slice};
use crate::{DType, Error, Item, Result, Tensor};

const fn row(
    of: &'static OpDef,
    name: &'static str,
    inputs: Arity,
    eval: crate::ops::EvalFn,
    examples: &'static [&'static str],
) -> OpDef {
    OpDef {
        name,
        inputs,
        attrs: of.attrs,
        eval: Some(eval),
        examples,
        ..BASE
    }
}

/// The gradient of Slice.
pub static SLICE_GRAD: OpDef = row(
    &slice::SLICE,
    "SliceGrad",
    Arity(2, 6),
    |cx| moved(cx, &slice::SLICE),
    &["edgesmith.SliceGrad(f32[4,5], i64[1]{1}, i64[1]{3}, i64[1]{1}, i64[1]{1}, f32[4,2])"],
);

/// The gradient of Pad.
pub static PAD_GRAD: OpDef = row(
    &pad::PAD,
    "PadGrad",
    Arity(2, 5),
    |cx| moved(cx, &pad::PAD),
    &["edgesmith.PadGrad(f32[2,3], i64[4]{0,1,0,2}, , , f32[2,6])"],
);

/// The gradient of Tile.
pub static TILE_GRAD: OpDef = row(
    &expand::TILE,
    "TileGrad",
    Arity(3, 3),
    |cx| moved(cx, &expand::TILE),
    &["edgesmith.TileGrad(f32[2,3], i64[2]{2,1}, f32[4,3])"],
);

/// The gradient of Gather with respect to the data.
pub static GATHER_GRAD: OpDef = row(
    &gather::GATHER,
    "GatherGrad",
    Arity(3, 3),
    |cx| moved(cx, &gather::GATHER),
    &[
        "edgesmith.GatherGrad(f32[5,3], i64[2,2]{0,4,-1,1}, f32[2,2,3])",
        "edgesmith.GatherGrad(f32[2,5], i32[3]{1,1,0}, f32[2,3]) {axis=1}",
    ],
);

/// The gradient of GatherElements with respect to the data.
pub static GATHER_ELEMENTS_GRAD: OpDef = row(
    &gather::GATHER_ELEMENTS,
    "GatherElementsGrad",
    Arity(3, 3),
    |cx| moved(cx, &gather::GATHER_ELEMENTS),
    &["edgesmith.GatherElementsGrad(f32[3,2], i64[2,2]{0,1,2,0}, f32[2,2])"],
);

/// The gradient of GatherND with respect to the data.
pub static GATHER_ND_GRAD: OpDef = row(
    &gather::GATHER_ND,
    "GatherNDGrad",
    Arity(3, 3),
    |cx| moved(cx, &gather::GATHER_ND),
    &["edgesmith.GatherNDGrad(f32[3,2], i64[2,1]{0,2}, f32[2,2])"],
);

/// The gradient of DepthToSpace.
pub static DEPTH_TO_SPACE_GRAD: OpDef = row(
    &depth_to_space::DEPTH_TO_SPACE,
    "DepthToSpaceGrad",
    Arity(2, 2),
    |cx| moved(cx, &depth_to_space::DEPTH_TO_SPACE),
    &["edgesmith.DepthToSpaceGrad(f32[1,4,2,3], f32[1,1,4,6]) {blocksize=2}"],
);

/// The gradient of SpaceToDepth.
pub static SPACE_TO_DEPTH_GRAD: OpDef = row(
    &depth_to_space::SPACE_TO_DEPTH,
    "SpaceToDepthGrad",
    Arity(2, 2),
    |cx| moved(cx, &depth_to_space::SPACE_TO_DEPTH),
    &["edgesmith.SpaceToDepthGrad(f32[1,1,4,6], f32[1,4,2,3]) {blocksize=2}"],
);

/// The numbers of the elements, from 1 on: a padding is 0.
fn numbered(dims: &[usize]) -> Result<Tensor> {
    let count = crate::checked_count(dims)?;
    Tensor::from_vec(
        dims,
        (1..=count as i64).map(|i| i as f64).collect::<Vec<f64>>(),
    )
}

/// Adds each element of the gradient, the last input, where the element comes from.
fn moved(cx: &EvalCx, of: &OpDef) -> Result<Vec<Tensor>> {
    let last = cx.inputs().saturating_sub(1);
    let (x, dy) = (cx.input(0)?, cx.input(last)?);
    let mut inputs: Vec<Option<Item>> = (0..last).map(|i| cx.item(i).cloned()).collect();
    inputs[0] = Some(numbered(x.dims())?.into());
    if of.name == "Pad" && last > 2 {
        inputs[2] = None; // What is padded with is no element.
    }
    let of = of
        .eval
        .ok_or_else(|| Error::unsupported(format!("{} is not evaluated", of.name)))?;
    let sources = of(&cx.as_default(&inputs))?;
    let sources = &sources[0];
    debug_assert_eq!(sources.dtype(), DType::F64);
    expect_dims("the gradient", dy, sources.dims())?;
    let mut dx = vec![0.0; x.count()];
    for (&from, dy) in sources.data::<f64>()?.iter().zip(floats(dy)?) {
        let at = (from as usize).checked_sub(1).and_then(|i| dx.get_mut(i));
        if let Some(at) = at {
            *at += dy;
        }
    }
    Ok(vec![from_floats(x.dtype(), x.dims(), dx)?])
}

//! Gradients of operators that only move elements: `<Op>Grad(X, …, dY) -> dX`, and also the
//! gradient of what is written over X.
//!
//! Each runs its operator on the numbers of the elements, which tells where every element of the
//! output comes from, and adds the gradient there.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{expect_dims, floats, from_floats};
use crate::ops::{
    Arity, OpDef, center_crop_pad, depth_to_space, expand, gather, nonzero, pad, scatter, slice,
    unfold,
};
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

/// The gradient of CenterCropPad.
pub static CENTER_CROP_PAD_GRAD: OpDef = row(
    &center_crop_pad::CENTER_CROP_PAD,
    "CenterCropPadGrad",
    Arity(3, 3),
    |cx| moved(cx, &center_crop_pad::CENTER_CROP_PAD),
    &["edgesmith.CenterCropPadGrad(f32[5,4], i64[2]{2,7}, f32[2,7])"],
);

/// The gradient of Compress.
pub static COMPRESS_GRAD: OpDef = row(
    &nonzero::COMPRESS,
    "CompressGrad",
    Arity(3, 3),
    |cx| moved(cx, &nonzero::COMPRESS),
    &["edgesmith.CompressGrad(f32[2,3], bool[3]{true,false,true}, f32[2,2]) {axis=1}"],
);

/// The gradient of MaxUnpool with respect to the maxima.
pub static MAX_UNPOOL_GRAD: OpDef = row(
    &unfold::MAX_UNPOOL,
    "MaxUnpoolGrad",
    Arity(3, 4),
    |cx| moved(cx, &unfold::MAX_UNPOOL),
    &[
        "edgesmith.MaxUnpoolGrad(f32[1,1,2,2], i64[1,1,2,2]{5,7,13,15}, f32[1,1,4,4]) \
         {kernel_shape=[2,2],strides=[2,2]}",
    ],
);

/// A row whose second result is the gradient of the updates, its third input.
const fn written(
    of: &'static OpDef,
    name: &'static str,
    eval: crate::ops::EvalFn,
    examples: &'static [&'static str],
) -> OpDef {
    OpDef {
        outputs: Arity(1, 2),
        infer: |cx| {
            for (o, i) in [(0, 0), (1, 2)] {
                if let Some(ty) = cx.ty(i).cloned() {
                    cx.set(o, ty);
                }
            }
            Ok(())
        },
        ..row(of, name, Arity(4, 4), eval, examples)
    }
}

/// The gradients of ScatterElements without a reduction: `(X, indices, updates, dY) -> dX,
/// dUpdates`.
pub static SCATTER_ELEMENTS_GRAD: OpDef = written(
    &scatter::SCATTER_ELEMENTS,
    "ScatterElementsGrad",
    |cx| moved_from(cx, &scatter::SCATTER_ELEMENTS, &[0, 2]),
    &["edgesmith.ScatterElementsGrad(f32[2,3], i64[2,1]{-1,0}, f32[2,1], f32[2,3]) {axis=1} -> 2"],
);

/// The gradients of ScatterND without a reduction, as [`SCATTER_ELEMENTS_GRAD`].
pub static SCATTER_ND_GRAD: OpDef = written(
    &scatter::SCATTER_ND,
    "ScatterNDGrad",
    |cx| moved_from(cx, &scatter::SCATTER_ND, &[0, 2]),
    &["edgesmith.ScatterNDGrad(f32[3,2], i64[2,1]{-1,0}, f32[2,2], f32[3,2]) -> 2"],
);

/// Adds each element of the gradient, the last input, where the element comes from.
fn moved(cx: &EvalCx, of: &OpDef) -> Result<Vec<Tensor>> {
    moved_from(cx, of, &[0])
}

/// As [`moved`], for elements that come from several inputs: the gradient of each of `sources`.
fn moved_from(cx: &EvalCx, of: &OpDef, sources: &[usize]) -> Result<Vec<Tensor>> {
    let last = cx.inputs().saturating_sub(1);
    let dy = cx.input(last)?;
    let mut inputs: Vec<Option<Item>> = (0..last).map(|i| cx.item(i).cloned()).collect();
    // Elements are numbered from 1 on, through all sources: a padding is 0.
    let mut count = 0;
    for &source in sources {
        let x = cx.input(source)?;
        let numbers = count + 1..count + 1 + x.count();
        count += x.count();
        let numbers: Vec<f64> = numbers.map(|i| i as f64).collect();
        inputs[source] = Some(Tensor::from_vec(x.dims(), numbers)?.into());
    }
    if of.name == "Pad" && last > 2 {
        inputs[2] = None; // What is padded with is no element.
    }
    let of = of
        .eval
        .ok_or_else(|| Error::unsupported(format!("{} is not evaluated", of.name)))?;
    let moved = of(&cx.as_default(&inputs))?;
    let moved = &moved[0];
    debug_assert_eq!(moved.dtype(), DType::F64);
    expect_dims("the gradient", dy, moved.dims())?;
    let mut all = vec![0.0; count];
    for (&from, dy) in moved.data::<f64>()?.iter().zip(floats(dy)?) {
        let at = (from as usize).checked_sub(1).and_then(|i| all.get_mut(i));
        if let Some(at) = at {
            *at += dy;
        }
    }
    let mut rest = all.into_iter();
    let each = sources.iter().map(|&source| {
        let x = cx.input(source)?;
        let own = rest.by_ref().take(x.count()).collect();
        from_floats(x.dtype(), x.dims(), own)
    });
    each.collect()
}

//! Operators that ONNX took over later, with few differences: Trilu, ExpandDims, GridSample, Pad,
//! Unique, Range, GatherND.

use super::BASE;
use crate::eval::items;
use crate::infer::{self, InferCx};
use crate::ops::{
    Arity, AttrKind, OpDef, attr, axes, gather, grid_sample, pad, range, trilu, unique,
};
use crate::{DType, Dim, Result, Shape};

/// `com.microsoft.Trilu`.
pub static TRILU: OpDef = OpDef {
    domain: BASE.domain,
    since: BASE.since,
    examples: &[
        "com.microsoft.Trilu(f32[2,3,4])",
        "com.microsoft.Trilu(i64[3,3], i64[]{-1}) {upper=0}",
    ],
    ..trilu::TRILU
};

/// `com.microsoft.GridSample`, whose modes have other names.
pub static GRID_SAMPLE: OpDef = OpDef {
    domain: BASE.domain,
    since: BASE.since,
    attrs: &[
        attr("align_corners", AttrKind::Int(Some(0))),
        attr("mode", AttrKind::String(Some("bilinear"))),
        attr("padding_mode", AttrKind::String(Some("zeros"))),
    ],
    examples: &[
        "com.microsoft.GridSample(f32[1,2,4,4], f32[1,3,2,2])",
        "com.microsoft.GridSample(f32[1,1,4,3], f32[1,3,2,2]) {mode=\"bicubic\"}",
    ],
    ..grid_sample::GRID_SAMPLE
};

/// `com.microsoft.Pad`.
pub static PAD: OpDef = OpDef {
    domain: BASE.domain,
    since: BASE.since,
    inputs: Arity(2, 3),
    attrs: &[attr("mode", AttrKind::String(Some("constant")))],
    examples: &[
        "com.microsoft.Pad(f32[2,3], i64[4]{0,1,2,0}, f32{1.5})",
        "com.microsoft.Pad(f32[2,3], i64[1,4]{0,1,1,0}) {mode=\"reflect\"}",
    ],
    ..pad::PAD
};

/// `com.microsoft.Range`.
pub static RANGE: OpDef = OpDef {
    domain: BASE.domain,
    since: BASE.since,
    inputs: Arity(2, 3),
    eval: Some(|cx| {
        let start = cx.input(0)?;
        let one = match start.dtype().is_float() {
            true => crate::ops::arith::from_floats(start.dtype(), &[], vec![1.0])?,
            false => crate::ops::arith::from_integers(start.dtype(), &[], &[1])?,
        };
        let step = cx.optional(2).cloned().unwrap_or(one);
        let inputs = [start.clone(), cx.input(1)?.clone(), step].map(Some);
        range::eval(&cx.with_inputs(&items(inputs)))
    }),
    examples: &[
        "com.microsoft.Range(f32{1}, f32{5}, f32{1.5})",
        "com.microsoft.Range(i64{3}, i64{6})",
    ],
    ..range::RANGE
};

/// `com.microsoft.GatherND`.
pub static GATHER_ND: OpDef = OpDef {
    domain: BASE.domain,
    since: BASE.since,
    attrs: &[],
    examples: &["com.microsoft.GatherND(f32[2,3,4], i64[2,2]{0,1,1,2})"],
    ..gather::GATHER_ND
};

/// `com.microsoft.ExpandDims`: Unsqueeze at one axis that is an input.
pub static EXPAND_DIMS: OpDef = OpDef {
    name: "ExpandDims",
    inputs: Arity(2, 2),
    infer: infer_expand_dims,
    eval: Some(|cx| {
        let x = cx.input(0)?;
        let at = infer::axis(axes::scalar(cx.input(1)?)?, x.rank() + 1)?;
        let mut dims = x.dims().to_vec();
        dims.insert(at, 1);
        Ok(vec![x.reshaped(&dims)?])
    }),
    examples: &[
        "com.microsoft.ExpandDims(f32[2,3], i32{1})",
        "com.microsoft.ExpandDims(f32[2,3], i32{-1})",
    ],
    ..BASE
};

/// `com.microsoft.Unique`: different elements in the order in which they come, the place of each
/// element among them, and how often they come.
pub static UNIQUE: OpDef = OpDef {
    name: "Unique",
    outputs: Arity(3, 3),
    infer: |cx| {
        cx.set_tensor(0, cx.dtype(0), Some(Shape::unknown(1)));
        let places = cx.shape(0).cloned().unwrap_or(Shape::unknown(1));
        cx.set_tensor(1, Some(DType::I64), Some(places));
        cx.set_tensor(2, Some(DType::I64), Some(Shape::unknown(1)));
        Ok(())
    },
    eval: Some(|cx| {
        let x = cx.input(0)?;
        crate::ops::arith::expect_rank("the input", x, 1..=1)?;
        let [values, _, places, counts] = unique::unique(x, 0, false)?;
        Ok(vec![values, places, counts])
    }),
    examples: &["com.microsoft.Unique(f32[6]{2,1,1,3,4,3})"],
    ..BASE
};

fn infer_expand_dims(cx: &mut InferCx) -> Result<()> {
    let shape = match (cx.shape(0), cx.ints(1).as_deref()) {
        (Some(x), Some(&[at])) => {
            let mut dims: Vec<Dim> = x.to_vec();
            dims.insert(infer::axis(at, x.rank() + 1)?, Dim::Known(1));
            Some(dims.into_iter().collect())
        }
        (Some(x), _) => Some(Shape::unknown(x.rank() + 1)),
        _ => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

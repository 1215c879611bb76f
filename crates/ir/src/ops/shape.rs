//! Shape and Size: the lengths of the axes and their product, as data.

use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, TensorType};
use crate::{DType, Result, Tensor};

/// ONNX Shape.
pub static SHAPE: OpDef = OpDef {
    name: "Shape",
    since: &[1, 13, 15, 19, 21, 23, 24, 25],
    attrs: &[
        attr("start", AttrKind::Int(Some(0))),
        attr("end", AttrKind::Int(None)),
    ],
    infer: infer_shape,
    eval: Some(eval_shape),
    examples: &[
        "Shape(f32[2,3,4])",
        "Shape(f32[2,3,4]) {start=1,end=-1}",
        "Shape(f32[2,3,4]) {start=-9,end=9}",
        "Shape(f32[])",
    ],
    ..OpDef::BASE
};

/// ONNX Size.
pub static SIZE: OpDef = OpDef {
    name: "Size",
    since: &[1, 13, 19, 21, 23, 24, 25],
    inputs: Arity(1, 1),
    infer: infer_size,
    eval: Some(|cx| {
        let n = i64::try_from(cx.input(0)?.count()).unwrap_or(i64::MAX);
        Ok(vec![Tensor::scalar(n)])
    }),
    examples: &["Size(f32[2,3])"],
    ..OpDef::BASE
};

fn range(start: i64, end: Option<i64>, rank: usize) -> std::ops::Range<usize> {
    let r = i64::try_from(rank).unwrap_or(i64::MAX);
    let clamp = |i: i64| {
        let i = if i < 0 { i.saturating_add(r) } else { i };
        usize::try_from(i.clamp(0, r)).unwrap_or(rank)
    };
    let (start, end) = (clamp(start), end.map_or(rank, clamp));
    start..end.max(start)
}

fn infer_shape(cx: &mut InferCx) -> Result<()> {
    let (start, end) = (cx.node.int("start").unwrap_or(0), cx.node.int("end"));
    let dims: Option<Vec<Dim>> = cx.shape(0).map(|s| s[range(start, end, s.rank())].to_vec());
    let shape = vec![dims.as_ref().map_or(Dim::Unknown, |d| Dim::Known(d.len()))];
    cx.set(0, TensorType::new(DType::I64, shape.into_iter().collect()));
    if let Some(dims) = dims {
        cx.set_contents(0, dims);
    }
    Ok(())
}

fn eval_shape(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let dims = cx.input(0)?.dims();
    let part = &dims[range(cx.int("start", 0), cx.node.int("end"), dims.len())];
    let part = part.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX));
    Ok(vec![Tensor::vector(part.collect::<Vec<i64>>())])
}

fn infer_size(cx: &mut InferCx) -> Result<()> {
    cx.set(0, TensorType::fixed(DType::I64, &[]));
    if let Some(n) = cx.shape(0).and_then(|s| s.count()) {
        cx.set_contents(0, vec![Dim::Known(n)]);
    }
    Ok(())
}

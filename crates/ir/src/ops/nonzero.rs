//! NonZero and Compress: elements chosen by whether something is zero.

use super::layout::{self, Run};
use super::numbers::Numbers;
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::{Dim, Shape};
use crate::{DType, Error, Result, Tensor};

/// ONNX NonZero.
pub static NON_ZERO: OpDef = OpDef {
    name: "NonZero",
    since: &[9, 13],
    infer: infer_non_zero,
    eval: Some(eval_non_zero),
    examples: &[
        "NonZero(i32[2,3])",
        "NonZero(bool[4])",
        "NonZero(f32[]{2})",
        "NonZero(string[2]{\"\",\"a\"})",
        "NonZero(c64[3])",
    ],
    ..OpDef::BASE
};

/// ONNX Compress.
pub static COMPRESS: OpDef = OpDef {
    name: "Compress",
    since: &[9, 11],
    inputs: Arity(2, 2),
    attrs: &[attr("axis", AttrKind::Int(None))],
    infer: infer_compress,
    eval: Some(eval_compress),
    examples: &[
        "Compress(f32[2,3], bool[3]{true,false,true}) {axis=1}",
        "Compress(f32[2,3], bool[4]{false,true,false,true})",
    ],
    ..OpDef::BASE
};

fn infer_non_zero(cx: &mut InferCx) -> Result<()> {
    let rank = cx.shape(0).map_or(Dim::Unknown, |s| Dim::Known(s.rank()));
    let shape = Shape(smallvec::smallvec![rank, Dim::Unknown]);
    cx.set_tensor(0, Some(DType::I64), Some(shape));
    Ok(())
}

fn eval_non_zero(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let set = truth(x)?;
    let found: Vec<usize> = (0..set.len()).filter(|&i| set[i]).collect();
    let mut out = Vec::with_capacity(found.len() * x.rank());
    for (stride, d) in layout::strides(x.dims()).into_iter().zip(x.dims()) {
        let stride = usize::try_from(stride).unwrap_or(1);
        out.extend(found.iter().map(|i| (i / stride % d) as i64));
    }
    Ok(vec![Tensor::from_vec(&[x.rank(), found.len()], out)?])
}

/// Whether each element is other than zero: numbers as such, complex numbers where one of their
/// parts is, texts where they are not empty.
fn truth(x: &Tensor) -> Result<Vec<bool>> {
    let parts = |dtype: DType| {
        let dims = [x.count(), 2];
        let parts = Tensor::from_bytes(dtype, &dims, x.bytes().clone())?;
        let set = truth(&parts)?;
        Ok(set.chunks(2).map(|c| c[0] || c[1]).collect())
    };
    match x.dtype() {
        DType::String => Ok(x.strings()?.iter().map(|s| !s.is_empty()).collect()),
        DType::C64 => parts(DType::F32),
        DType::C128 => parts(DType::F64),
        _ => Ok(match Numbers::of(x)? {
            Numbers::Float(v) => v.into_iter().map(|x| x != 0.0).collect(),
            Numbers::Int(v) => v.into_iter().map(|i| i != 0).collect(),
        }),
    }
}

fn infer_compress(cx: &mut InferCx) -> Result<()> {
    let shape = match (cx.node.int("axis"), cx.shape(0)) {
        (Some(axis), Some(s)) => {
            let mut s = s.clone();
            let axis = infer::axis(axis, s.rank())?;
            s.0[axis] = Dim::Unknown;
            Some(s)
        }
        (None, _) => Some(Shape::unknown(1)),
        _ => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval_compress(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, condition) = (cx.input(0)?, cx.input(1)?.bools()?);
    let flat;
    let (x, axis) = match cx.node.int("axis") {
        Some(axis) => (x, infer::axis(axis, x.rank())?),
        None => {
            flat = x.reshaped(&[x.count()])?;
            (&flat, 0)
        }
    };
    let len = x.dims()[axis];
    let kept: Vec<usize> = (0..condition.len()).filter(|&i| condition[i]).collect();
    if let Some(&last) = kept.last().filter(|&&l| l >= len) {
        return Err(Error::invalid(format!(
            "the condition keeps element {last} of an axis of {len}"
        )));
    }
    let mut dims = layout::Dims::from_slice(x.dims());
    dims[axis] = kept.len();
    let run: usize = x.dims()[axis + 1..].iter().product();
    let outer: usize = x.dims()[..axis].iter().product();
    let runs = (0..outer).flat_map(|o| {
        kept.iter().map(move |k| Run {
            source: 0,
            start: (o * len + k) * run,
            len: run,
        })
    });
    Ok(vec![layout::assemble(&[x], &dims, runs)?])
}

//! Trilu and EyeLike: triangles and diagonals of matrices.

use super::layout::{self, Run};
use super::numbers::Numbers;
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::{DType, Error, Result, Tensor};

/// ONNX Trilu.
pub static TRILU: OpDef = OpDef {
    name: "Trilu",
    since: &[14],
    inputs: Arity(1, 2),
    attrs: &[attr("upper", AttrKind::Int(Some(1)))],
    eval: Some(eval_trilu),
    examples: &[
        "Trilu(f32[2,3,4])",
        "Trilu(i64[3,3], i64[]{-1}) {upper=0}",
        "Trilu(f32[3,3], i64[]{1})",
    ],
    ..OpDef::BASE
};

/// ONNX EyeLike.
pub static EYE_LIKE: OpDef = OpDef {
    name: "EyeLike",
    since: &[9, 22],
    attrs: &[
        attr("dtype", AttrKind::Int(None)),
        attr("k", AttrKind::Int(Some(0))),
    ],
    infer: infer_eye,
    eval: Some(eval_eye),
    examples: &["EyeLike(f32[2,3])", "EyeLike(f32[3,3]) {dtype=7,k=-1}"],
    ..OpDef::BASE
};

fn eval_trilu(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let [.., rows, columns] = *x.dims() else {
        return Err(Error::invalid(format!(
            "expected matrices, found {}",
            x.ty()
        )));
    };
    let k = cx.optional(1).map_or(Ok(0), axes::scalar)?;
    let upper = cx.int("upper", 1) != 0;
    let zero = layout::zeros(x.dtype(), &[])?;
    let runs = (0..x.count()).map(|i| {
        let (row, column) = (i / columns % rows, i % columns);
        let over = column as i128 - row as i128 - i128::from(k);
        let kept = if upper { over >= 0 } else { over <= 0 };
        Run {
            source: usize::from(!kept),
            start: if kept { i } else { 0 },
            len: 1,
        }
    });
    Ok(vec![layout::assemble(&[x, &zero], x.dims(), runs)?])
}

fn eye_type(node: &crate::Node, input: DType) -> Result<DType> {
    let Some(code) = node.int("dtype") else {
        return Ok(input);
    };
    i32::try_from(code)
        .ok()
        .and_then(DType::from_onnx)
        .ok_or_else(|| Error::invalid(format!("{code} is no element type")))
}

fn infer_eye(cx: &mut InferCx) -> Result<()> {
    let dtype = eye_type(cx.node, cx.dtype(0).unwrap_or(DType::F32))?;
    cx.set_tensor(0, Some(dtype), cx.shape(0).cloned());
    Ok(())
}

fn eval_eye(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let [_, columns] = *x.dims() else {
        return Err(Error::invalid(format!(
            "expected a matrix, found {}",
            x.ty()
        )));
    };
    let k = i128::from(cx.int("k", 0));
    let one = |i: usize| (i % columns) as i128 - (i / columns) as i128 == k;
    let eye = Numbers::Int((0..x.count()).map(|i| i128::from(one(i))).collect());
    Ok(vec![eye.tensor(eye_type(cx.node, x.dtype())?, x.dims())?])
}

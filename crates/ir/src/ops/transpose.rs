//! Transpose: axes in another order.

use smallvec::SmallVec;

use super::{AttrKind, OpDef, attr, axes, layout};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::{Error, Result, Tensor};

/// ONNX Transpose; without `perm` the axes are reversed.
pub static TRANSPOSE: OpDef = OpDef {
    name: "Transpose",
    since: &[1, 13, 21, 23, 24, 25],
    attrs: &[attr("perm", AttrKind::Ints)],
    infer,
    eval: Some(eval),
    examples: &[
        "Transpose(f32[2,3,4])",
        "Transpose(i8[2,3,4]) {perm=[0,2,1]}",
        "Transpose(f32[])",
    ],
    ..OpDef::BASE
};

fn permutation(perm: Option<&[i64]>, rank: usize) -> Result<SmallVec<[usize; 6]>> {
    let Some(perm) = perm else {
        return Ok((0..rank).rev().collect());
    };
    if perm.len() != rank {
        return Err(Error::invalid(format!(
            "expected a permutation of {rank} axes, found {perm:?}"
        )));
    }
    axes::resolve(perm, rank)
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let shape = match cx.shape(0) {
        Some(s) => {
            let perm = permutation(cx.node.ints("perm"), s.rank())?;
            Some(perm.iter().map(|&a| s[a].clone()).collect())
        }
        None => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let perm = permutation(cx.node.ints("perm"), x.rank())?;
    let strides = layout::strides(x.dims());
    let dims: layout::Dims = perm.iter().map(|&a| x.dims()[a]).collect();
    let strides: SmallVec<[isize; 6]> = perm.iter().map(|&a| strides[a]).collect();
    Ok(vec![layout::strided(x, &dims, &strides, 0)?])
}

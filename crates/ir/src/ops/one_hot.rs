//! OneHot: a row for each index with one element set.

use super::layout::{self, Run};
use super::numbers::Numbers;
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::Dim;
use crate::{Error, Result, Tensor};

/// ONNX OneHot; indices outside the depth set nothing.
pub static ONE_HOT: OpDef = OpDef {
    name: "OneHot",
    since: &[9, 11],
    inputs: Arity(3, 3),
    attrs: &[attr("axis", AttrKind::Int(Some(-1)))],
    infer,
    eval: Some(eval),
    examples: &[
        "OneHot(i64[3]{0,-1,7}, i64[]{4}, f32[2]{0,1})",
        "OneHot(i32[2,2], f32[1]{3}, i32[2]{5,2}) {axis=1}",
    ],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let depth = cx.constant(1).and_then(|t| depth(t).ok());
    let shape = match cx.shape(0) {
        Some(s) => {
            let axis = infer::axis(cx.node.int("axis").unwrap_or(-1), s.rank() + 1)?;
            let mut s = s.clone();
            s.0.insert(axis, depth.map_or(Dim::Unknown, Dim::Known));
            Some(s)
        }
        None => None,
    };
    cx.set_tensor(0, cx.dtype(2), shape);
    Ok(())
}

fn depth(t: &Tensor) -> Result<usize> {
    let fault = || {
        Error::invalid(format!(
            "the depth should be one positive number: {}",
            t.ty()
        ))
    };
    match Numbers::of(t)?.into_ints().as_slice() {
        [d] => usize::try_from(*d).map_err(|_| fault()),
        _ => Err(fault()),
    }
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (indices, values) = (cx.input(0)?, cx.input(2)?);
    let depth = depth(cx.input(1)?)?;
    if values.dims() != [2] {
        return Err(Error::invalid(format!(
            "expected the values [off, on], found {}",
            values.ty()
        )));
    }
    let axis = infer::axis(cx.int("axis", -1), indices.rank() + 1)?;
    let mut dims = layout::Dims::from_slice(indices.dims());
    dims.insert(axis, depth);
    crate::checked_count(&dims)?;
    let n = depth as i128;
    let at = Numbers::of(indices)?.into_ints();
    let at: Vec<i128> = at
        .into_iter()
        .map(|i| if i < 0 { i.saturating_add(n) } else { i })
        .collect();
    let inner: usize = indices.dims()[axis..].iter().product();
    let outer: usize = indices.dims()[..axis].iter().product();
    let runs = (0..outer).flat_map(|o| {
        let row = &at[o * inner..][..inner];
        (0..depth).flat_map(move |d| {
            row.iter().map(move |&i| Run {
                source: 0,
                start: usize::from(i == d as i128),
                len: 1,
            })
        })
    });
    Ok(vec![layout::assemble(&[values], &dims, runs)?])
}

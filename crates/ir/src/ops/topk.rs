//! TopK, ArgMax and ArgMin: the largest or smallest elements of each row and where they are.

use std::cmp::Ordering;

use super::rows::{self, along, compare};
use super::{Arity, AttrKind, OpDef, attr, axes, gather, layout};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::Dim;
use crate::{DType, Error, Result, Tensor};

/// ONNX TopK; of equal elements the first come first.
pub static TOP_K: OpDef = OpDef {
    name: "TopK",
    since: &[1, 10, 11, 24],
    inputs: Arity(1, 2),
    outputs: Arity(2, 2),
    attrs: &[
        attr("axis", AttrKind::Int(Some(-1))),
        attr("k", AttrKind::Int(None)),
        attr("largest", AttrKind::Int(Some(1))),
        attr("sorted", AttrKind::Int(Some(1))),
    ],
    infer: infer_top_k,
    eval: Some(eval_top_k),
    examples: &[
        "TopK(f32[2,5], i64[1]{3})",
        "TopK(i32[4,2], i64[1]{2}) {axis=0,largest=0}",
        "TopK(f32[2,3,4], i64[1]{0}) {axis=1}",
        "TopK@1(f32[2,5]) {k=2}",
    ],
    ..OpDef::BASE
};

fn infer_top_k(cx: &mut InferCx) -> Result<()> {
    let k = match (cx.node.int("k"), cx.ints(1).as_deref()) {
        (Some(k), _) | (None, Some(&[k])) => usize::try_from(k).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    };
    let shape = match cx.shape(0).cloned() {
        Some(mut s) => {
            let axis = infer::axis(cx.node.int("axis").unwrap_or(-1), s.rank())?;
            s.0[axis] = k;
            Some(s)
        }
        None => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape.clone());
    cx.set_tensor(1, Some(DType::I64), shape);
    Ok(())
}

fn eval_top_k(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let k = match (cx.node.int("k"), cx.optional(1)) {
        (Some(k), _) => k,
        (None, Some(t)) => axes::scalar(t)?,
        (None, None) => return Err(Error::invalid("k is missing")),
    };
    let k = axes::length(k, "k")?;
    let along = along(x, cx.int("axis", -1))?;
    let len = along.rows.len;
    if k > len {
        return Err(Error::invalid(format!(
            "k is {k}, the axis has {len} elements"
        )));
    }
    let largest = cx.int("largest", 1) != 0;
    let order = |o: Ordering| if largest { o.reverse() } else { o };
    let mut places = Vec::new();
    for row in along.sorted(order) {
        places.extend(row[..k].iter().map(|&i| i as i64));
    }
    let mut dims = layout::Dims::from_slice(x.dims());
    dims[along.axis] = k;
    let indices = Tensor::from_vec(&dims, along.unrowed(&places, k))?;
    let axis = cx.int("axis", -1);
    let picked = gather::element_places(x.dims(), &indices, axis)?;
    Ok(vec![layout::pick(x, &dims, picked.into_iter())?, indices])
}

const ARG: OpDef = OpDef {
    since: &[1, 11, 12, 13],
    attrs: &[
        attr("axis", AttrKind::Int(Some(0))),
        attr("keepdims", AttrKind::Int(Some(1))),
        attr("select_last_index", AttrKind::Int(Some(0))),
    ],
    infer: infer_arg,
    ..OpDef::BASE
};

/// ONNX ArgMax.
pub static ARG_MAX: OpDef = OpDef {
    name: "ArgMax",
    eval: Some(|cx| eval_arg(cx, Ordering::Greater)),
    examples: &[
        "ArgMax(f32[2,3])",
        "ArgMax(i8[2,3,4]) {axis=-1,keepdims=0}",
        "ArgMax(f32[3]{1,2,2}) {select_last_index=1}",
    ],
    ..ARG
};

/// ONNX ArgMin.
pub static ARG_MIN: OpDef = OpDef {
    name: "ArgMin",
    eval: Some(|cx| eval_arg(cx, Ordering::Less)),
    examples: &["ArgMin(f32[2,3])", "ArgMin(f64[2,3,4]) {axis=1,keepdims=0}"],
    ..ARG
};

fn infer_arg(cx: &mut InferCx) -> Result<()> {
    let keep = cx.node.int("keepdims").unwrap_or(1) != 0;
    let shape = match cx.shape(0) {
        Some(s) => {
            let axis = cx.node.int("axis").unwrap_or(0);
            let marks = axes::marks(&[axis], s.rank())?;
            Some(super::reduce::reduced(s, &marks, keep))
        }
        None => None,
    };
    cx.set_tensor(0, Some(DType::I64), shape);
    Ok(())
}

fn eval_arg(cx: &EvalCx, better: Ordering) -> Result<Vec<Tensor>> {
    fn best<T: PartialOrd>(row: &[T], better: Ordering, last: bool) -> usize {
        let mut at = 0;
        for (i, x) in row.iter().enumerate().skip(1) {
            let order = compare(x, &row[at]);
            if order == better || last && order == Ordering::Equal {
                at = i;
            }
        }
        at
    }
    let x = cx.input(0)?;
    let marks = axes::marks(&[cx.int("axis", 0)], x.rank())?;
    let rows = rows::rows(x, &marks)?;
    if rows.len == 0 {
        return Err(Error::invalid("an axis without elements has no best one"));
    }
    let last = cx.int("select_last_index", 0) != 0;
    let found = rows.map(
        |r| best(r, better, last) as f64,
        |r| best(r, better, last) as i128,
    )?;
    let keep = cx.int("keepdims", 1) != 0;
    Ok(vec![found.tensor(DType::I64, rows.dims(keep))?])
}

//! Gather, GatherElements and GatherND: elements picked by index tensors.

use super::layout::{self, Run};
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::{Dim, Shape, TensorType};
use crate::{Error, Result, Tensor};

/// ONNX Gather: slices along one axis.
pub static GATHER: OpDef = OpDef {
    name: "Gather",
    since: &[1, 11, 13],
    inputs: Arity(2, 2),
    attrs: &[attr("axis", AttrKind::Int(Some(0)))],
    infer: infer_gather,
    eval: Some(eval_gather),
    examples: &[
        "Gather(f32[3,4], i64[2]{0,-1})",
        "Gather(f32[3,4], i32[1,2]{3,0}) {axis=1}",
        "Gather(i64[3]{5,6,7}, i64[]{1})",
    ],
    ..OpDef::BASE
};

/// ONNX GatherElements: one element for each index.
pub static GATHER_ELEMENTS: OpDef = OpDef {
    name: "GatherElements",
    since: &[11, 13],
    inputs: Arity(2, 2),
    attrs: &[attr("axis", AttrKind::Int(Some(0)))],
    infer: infer_elements,
    eval: Some(eval_elements),
    examples: &[
        "GatherElements(f32[2,3], i64[1,3]{1,0,-1})",
        "GatherElements(f32[2,3], i64[2,2]{1,0,2,1}) {axis=1}",
    ],
    ..OpDef::BASE
};

/// ONNX GatherND: slices by tuples of indices.
pub static GATHER_ND: OpDef = OpDef {
    name: "GatherND",
    since: &[11, 12, 13],
    inputs: Arity(2, 2),
    attrs: &[attr("batch_dims", AttrKind::Int(Some(0)))],
    infer: infer_nd,
    eval: Some(eval_nd),
    examples: &[
        "GatherND(f32[2,3], i64[2,2]{0,1,-1,2})",
        "GatherND(f32[2,3,4], i64[2,1]{1,0})",
        "GatherND(f32[2,3,4], i64[2,1]{1,0}) {batch_dims=1}",
    ],
    ..OpDef::BASE
};

/// An index counted from the front.
///
/// # Errors
/// When it is outside `-len..len`.
pub fn place(index: i64, len: usize) -> Result<usize> {
    let n = i64::try_from(len).unwrap_or(i64::MAX);
    let i = if index < 0 {
        index.saturating_add(n)
    } else {
        index
    };
    usize::try_from(i)
        .ok()
        .filter(|&i| i < len)
        .ok_or_else(|| Error::invalid(format!("index {index} is outside an axis of {len}")))
}

fn infer_gather(cx: &mut InferCx) -> Result<()> {
    let (data, indices) = (cx.shape(0), cx.shape(1));
    let shape: Option<Shape> = match (data, indices) {
        (Some(d), Some(i)) => {
            let axis = infer::axis(cx.node.int("axis").unwrap_or(0), d.rank())?;
            Some(
                [&d[..axis], i, &d[axis + 1..]]
                    .concat()
                    .into_iter()
                    .collect(),
            )
        }
        _ => None,
    };
    let one_axis = indices.is_some_and(|s| s.rank() <= 1) && data.is_some_and(|s| s.rank() == 1);
    if let (true, Some(from), Some(at)) = (one_axis, cx.contents(0), cx.ints(1)) {
        let picked = at
            .into_iter()
            .map(|i| place(i, from.len()).map(|i| from[i].clone()))
            .collect::<Result<Vec<Dim>>>()?;
        cx.set_contents(0, picked);
    }
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval_gather(cx: &EvalCx) -> Result<Vec<Tensor>> {
    Ok(vec![gather(cx.input(0)?, cx.input(1)?, cx.int("axis", 0))?])
}

/// The slices of `x` along `axis` that `indices` name.
///
/// # Errors
/// When the axis or an index is outside.
pub fn gather(x: &Tensor, indices: &Tensor, axis: i64) -> Result<Tensor> {
    let axis = infer::axis(axis, x.rank())?;
    let len = x.dims()[axis];
    let places = indices
        .to_i64()?
        .into_iter()
        .map(|i| place(i, len))
        .collect::<Result<Vec<usize>>>()?;
    let (outer, inner) = (&x.dims()[..axis], &x.dims()[axis + 1..]);
    let dims = [outer, indices.dims(), inner].concat();
    let (rows, run): (usize, usize) = (outer.iter().product(), inner.iter().product());
    let runs = (0..rows).flat_map(|row| {
        places.iter().map(move |p| Run {
            source: 0,
            start: (row * len + p) * run,
            len: run,
        })
    });
    layout::assemble(&[x], &dims, runs)
}

fn infer_elements(cx: &mut InferCx) -> Result<()> {
    if let (Some(a), Some(b)) = (cx.shape(0), cx.shape(1)) {
        same_rank(a.rank(), b.rank())?;
        infer::axis(cx.node.int("axis").unwrap_or(0), a.rank())?;
    }
    cx.set_tensor(0, cx.dtype(0), cx.shape(1).cloned());
    Ok(())
}

fn same_rank(data: usize, indices: usize) -> Result<()> {
    if data == indices {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the data has {data} axes, the indices have {indices}"
    )))
}

/// For each element of `indices`: its place in a tensor of `dims`, that is its own index with the
/// one of `axis` replaced by the element.
///
/// # Errors
/// When ranks differ or an index is outside.
pub fn element_places(dims: &[usize], indices: &Tensor, axis: i64) -> Result<Vec<usize>> {
    same_rank(dims.len(), indices.rank())?;
    let axis = infer::axis(axis, dims.len())?;
    for (i, (&d, &n)) in dims.iter().zip(indices.dims()).enumerate() {
        if i != axis && n > d {
            return Err(Error::invalid(format!(
                "the indices have length {n} at axis {i}, the data {d}"
            )));
        }
    }
    let mut strides = layout::strides(dims);
    let step = usize::try_from(strides[axis]).unwrap_or(usize::MAX);
    strides[axis] = 0;
    layout::walk(indices.dims(), &strides, 0)?
        .zip(indices.to_i64()?)
        .map(|(base, i)| Ok(base + place(i, dims[axis])? * step))
        .collect()
}

fn eval_elements(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let places = element_places(x.dims(), indices, cx.int("axis", 0))?;
    Ok(vec![layout::pick(x, indices.dims(), places.into_iter())?])
}

/// Where the tuples of `indices` point into a tensor of `dims` after `batch` common axes: the
/// first elements, and how many elements each tuple picks.
///
/// # Errors
/// When lengths do not fit or an index is outside.
pub fn tuple_places(dims: &[usize], indices: &Tensor, batch: i64) -> Result<(Vec<usize>, usize)> {
    let batch = usize::try_from(batch).unwrap_or(usize::MAX);
    let Some((&width, tuples)) = indices.dims().split_last() else {
        return Err(Error::invalid("the indices should have an axis"));
    };
    let end = batch.saturating_add(width);
    if batch > tuples.len() || end > dims.len() || dims[..batch] != tuples[..batch] {
        return Err(Error::invalid(format!(
            "indices of {} do not fit data of {} with {batch} batch axes",
            Shape::fixed(indices.dims()),
            Shape::fixed(dims)
        )));
    }
    let run: usize = dims[end..].iter().product();
    let each: usize = dims[batch..].iter().product();
    let per_batch: usize = tuples[batch..].iter().product();
    let numbers = indices.to_i64()?;
    let count = tuples.iter().product();
    let mut places = Vec::with_capacity(count);
    for t in 0..count {
        let mut at = 0;
        for (&i, &d) in numbers[t * width..][..width].iter().zip(&dims[batch..]) {
            at = at * d + place(i, d)?;
        }
        places.push(t / per_batch.max(1) * each + at * run);
    }
    Ok((places, run))
}

fn infer_nd(cx: &mut InferCx) -> Result<()> {
    let batch = usize::try_from(cx.node.int("batch_dims").unwrap_or(0)).unwrap_or(usize::MAX);
    let shape = match (cx.shape(0), cx.shape(1).and_then(|s| s.split_last())) {
        (Some(data), Some((Dim::Known(width), tuples))) => {
            let end = batch.saturating_add(*width);
            if end > data.rank() {
                return Err(Error::invalid(format!(
                    "tuples of {width} indices after {batch} batch axes do not fit {data}"
                )));
            }
            Some([tuples, &data[end..]].concat().into_iter().collect())
        }
        _ => None,
    };
    if let Some(dtype) = cx.dtype(0) {
        cx.set(0, TensorType { dtype, shape });
    }
    Ok(())
}

fn eval_nd(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let batch = cx.int("batch_dims", 0);
    let (places, len) = tuple_places(x.dims(), indices, batch)?;
    let skip = axes_left(x, indices, batch);
    let tuples = &indices.dims()[..indices.rank() - 1];
    let dims = [tuples, &x.dims()[skip..]].concat();
    let runs = places.into_iter().map(|start| Run {
        source: 0,
        start,
        len,
    });
    Ok(vec![layout::assemble(&[x], &dims, runs)?])
}

/// The first axis of the data that the tuples leave whole; the lengths are already checked.
fn axes_left(x: &Tensor, indices: &Tensor, batch: i64) -> usize {
    let width = indices.dims().last().copied().unwrap_or(0);
    usize::try_from(batch)
        .unwrap_or(0)
        .saturating_add(width)
        .min(x.rank())
}

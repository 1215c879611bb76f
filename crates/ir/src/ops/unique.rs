//! Unique: the different elements or slices of a tensor.

use std::collections::BTreeMap;

use super::numbers::Numbers;
use super::rows::compare;
use super::{Arity, AttrKind, OpDef, attr, gather, layout};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::{Dim, Shape};
use crate::{DType, Result, Tensor};

/// ONNX Unique.
pub static UNIQUE: OpDef = OpDef {
    name: "Unique",
    since: &[11],
    outputs: Arity(1, 4),
    attrs: &[
        attr("axis", AttrKind::Int(None)),
        attr("sorted", AttrKind::Int(Some(1))),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "Unique(f32[6]{2,1,1,3,4,3}) -> 4",
        "Unique(i64[4]{3,1,3,2}) {sorted=0} -> 4",
        "Unique(i32[3,2]{1,0,1,0,2,3}) {axis=0} -> 4",
    ],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let shape = match (cx.node.int("axis"), cx.shape(0)) {
        (None, _) => Some(Shape::unknown(1)),
        (Some(axis), Some(s)) => {
            let mut s = s.clone();
            let axis = infer::axis(axis, s.rank())?;
            s.0[axis] = Dim::Unknown;
            Some(s)
        }
        _ => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    for o in 1..4 {
        cx.set_tensor(o, Some(DType::I64), Some(Shape::unknown(1)));
    }
    Ok(())
}

/// Elements as their places in the order of all: equal elements have equal places.
fn ordinals(t: &Tensor) -> Result<Vec<usize>> {
    fn places<T: PartialOrd>(values: &[T]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| compare(&values[a], &values[b]));
        let mut out = vec![0; values.len()];
        let mut place = 0;
        for pair in order.windows(2) {
            place += usize::from(compare(&values[pair[0]], &values[pair[1]]).is_ne());
            out[pair[1]] = place;
        }
        out
    }
    if t.dtype() == DType::String {
        return t.strings().map(places);
    }
    Ok(match Numbers::of(t)? {
        Numbers::Float(v) => places(&v),
        Numbers::Int(v) => places(&v),
    })
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let flat;
    let (x, axis) = match (cx.node.int("axis"), cx.input(0)?) {
        (Some(axis), x) => (x, infer::axis(axis, x.rank())?),
        (None, x) => {
            flat = x.reshaped(&[x.count()])?;
            (&flat, 0)
        }
    };
    unique(x, axis, cx.int("sorted", 1) != 0).map(Vec::from)
}

/// The different slices of `x` along `axis`, the places where each comes first, the place of each
/// slice of `x` among them, and how often they come; sorted, or in the order in which they come.
///
/// # Errors
/// For element types without an order.
pub fn unique(x: &Tensor, axis: usize, sorted: bool) -> Result<[Tensor; 4]> {
    let all = ordinals(x)?;
    let strides = layout::strides(x.dims());
    let mut rest = layout::Dims::from_slice(x.dims());
    rest[axis] = 1;
    let step = usize::try_from(strides[axis]).unwrap_or(0);
    let mut found: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for i in 0..x.dims()[axis] {
        let key = layout::walk(&rest, &strides, i * step)?
            .map(|p| all[p])
            .collect();
        found.entry(key).or_default().push(i);
    }
    let mut groups: Vec<Vec<usize>> = found.into_values().collect();
    if !sorted {
        groups.sort_by_key(|g| g[0]);
    }
    let mut inverse = vec![0i64; x.dims()[axis]];
    for (at, group) in groups.iter().enumerate() {
        group.iter().for_each(|&i| inverse[i] = at as i64);
    }
    let first: Vec<i64> = groups.iter().map(|g| g[0] as i64).collect();
    let counts: Vec<i64> = groups.iter().map(|g| g.len() as i64).collect();
    let first = Tensor::vector(first);
    let y = gather::gather(x, &first, axis as i64)?;
    Ok([y, first, Tensor::vector(inverse), Tensor::vector(counts)])
}

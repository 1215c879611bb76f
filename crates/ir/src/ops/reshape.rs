//! Reshape and Flatten: the same elements under other lengths.

use super::{Arity, AttrKind, OpDef, attr, axes, layout};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor};

/// ONNX Reshape: 0 keeps a length (unless `allowzero`), −1 is worked out.
pub static RESHAPE: OpDef = OpDef {
    name: "Reshape",
    since: &[1, 5, 13, 14, 19, 21, 23, 24, 25],
    inputs: Arity(1, 2),
    attrs: &[
        attr("shape", AttrKind::Ints),
        attr("allowzero", AttrKind::Int(Some(0))),
        attr("consumed_inputs", AttrKind::Ints),
    ],
    infer: infer_reshape,
    eval: Some(eval_reshape),
    examples: &[
        "Reshape(f32[2,3,4], i64[2]{0,-1})",
        "Reshape(f32[2,3], i64[1]{-1})",
        "Reshape(f32[0,3], i64[2]{3,0}) {allowzero=1}",
        "Reshape@1(f32[2,3]) {shape=[3,2]}",
    ],
    ..OpDef::BASE
};

/// ONNX Flatten.
pub static FLATTEN: OpDef = OpDef {
    name: "Flatten",
    since: &[1, 9, 11, 13, 21, 23, 24, 25],
    attrs: &[attr("axis", AttrKind::Int(Some(1)))],
    infer: infer_flatten,
    eval: Some(eval_flatten),
    examples: &[
        "Flatten(f32[2,3,4])",
        "Flatten(f32[2,3,4]) {axis=-1}",
        "Flatten(f32[2,3]) {axis=0}",
    ],
    ..OpDef::BASE
};

fn eval_reshape(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let target = axes::given(cx, "shape", 1)?
        .ok_or_else(|| Error::invalid("the target shape is missing"))?;
    let allow_zero = cx.int("allowzero", 0) != 0;
    let refuse = || Error::invalid(format!("{} cannot be reshaped to {target:?}", x.ty()));
    let mut dims = layout::Dims::new();
    let mut open = None;
    for (i, &d) in target.iter().enumerate() {
        dims.push(match d {
            0 if !allow_zero => *x.dims().get(i).ok_or_else(refuse)?,
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            _ => usize::try_from(d).map_err(|_| refuse())?,
        });
    }
    if let Some(i) = open {
        let rest = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let rest = rest
            .filter(|&n| n > 0 && x.count() % n == 0)
            .ok_or_else(refuse)?;
        dims[i] = x.count() / rest;
    }
    Ok(vec![x.reshaped(&dims).map_err(|_| refuse())?])
}

fn infer_reshape(cx: &mut InferCx) -> Result<()> {
    let shape = target(cx).map(|target| resolve(cx, &target)).transpose()?;
    if let Some(contents) = cx.contents(0)
        && shape.as_ref().is_some_and(|s| s.rank() <= 1)
    {
        let contents = contents.to_vec();
        cx.set_contents(0, contents);
    }
    let shape = shape.or_else(|| cx.shape_of_rank(1));
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

/// A length of the target as far as it is known.
enum Wanted {
    Length(Dim),
    Kept,
    WorkedOut,
}

fn target(cx: &InferCx) -> Option<Vec<Wanted>> {
    let allow_zero = cx.node.int("allowzero").unwrap_or(0) != 0;
    let number = |d: i64| match d {
        0 if !allow_zero => Wanted::Kept,
        _ => usize::try_from(d).map_or(Wanted::WorkedOut, |n| Wanted::Length(Dim::Known(n))),
    };
    if let axes::Param::Known(v) = axes::known(cx, "shape", 1) {
        return Some(v.into_iter().map(number).collect());
    }
    let dim = |d: &Dim| match d {
        Dim::Known(n) => number(i64::try_from(*n).unwrap_or(-1)),
        Dim::Symbol(_) => Wanted::Length(d.clone()),
        Dim::Unknown => Wanted::WorkedOut,
    };
    Some(cx.contents(1)?.iter().map(dim).collect())
}

fn resolve(cx: &InferCx, target: &[Wanted]) -> Result<Shape> {
    let input = cx.shape(0);
    let mut open = Vec::new();
    let mut out = Shape::default();
    for (i, w) in target.iter().enumerate() {
        out.0.push(match (w, input) {
            (Wanted::Length(d), _) => d.clone(),
            (Wanted::Kept, Some(s)) => s.get(i).cloned().ok_or_else(|| {
                Error::invalid(format!("length 0 at axis {i} keeps an axis that {s} lacks"))
            })?,
            (Wanted::Kept, None) => Dim::Unknown,
            (Wanted::WorkedOut, _) => {
                open.push(i);
                Dim::Unknown
            }
        });
    }
    if let (Some(s), [i]) = (input, open.as_slice()) {
        out.0[*i] = quotient(s, &out, *i);
    }
    if let (Some(have), Some(want)) = (input.and_then(Shape::count), out.count())
        && have != want
    {
        return Err(Error::invalid(format!(
            "{have} elements cannot be reshaped to {out}"
        )));
    }
    Ok(out)
}

/// The length at axis `open` of `to` with which it has as many elements as `from`.
fn quotient(from: &Shape, to: &Shape, open: usize) -> Dim {
    let mut symbols: Vec<&Dim> = Vec::new();
    let (mut over, mut under) = (Some(1usize), Some(1usize));
    for d in from.iter() {
        match d {
            Dim::Known(n) => over = over.and_then(|p| p.checked_mul(*n)),
            Dim::Symbol(_) => symbols.push(d),
            Dim::Unknown => over = None,
        }
    }
    for (_, d) in to.iter().enumerate().filter(|(i, _)| *i != open) {
        match (d, symbols.iter().position(|s| *s == d)) {
            (Dim::Known(n), _) => under = under.and_then(|p| p.checked_mul(*n)),
            (Dim::Symbol(_), Some(i)) => drop(symbols.remove(i)),
            _ => under = None,
        }
    }
    match (over, under, symbols.as_slice()) {
        (Some(a), Some(b), []) if b > 0 && a % b == 0 => Dim::Known(a / b),
        (Some(a), Some(b), [one]) if a == b && b > 0 => (*one).clone(),
        _ => Dim::Unknown,
    }
}

fn flatten_axis(axis: i64, rank: usize) -> Result<usize> {
    if i64::try_from(rank) == Ok(axis) {
        return Ok(rank);
    }
    infer::axis(axis, rank)
}

fn eval_flatten(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let axis = flatten_axis(cx.int("axis", 1), x.rank())?;
    let (rows, columns) = x.dims().split_at(axis);
    let dims = [rows.iter().product(), columns.iter().product()];
    Ok(vec![x.reshaped(&dims)?])
}

fn infer_flatten(cx: &mut InferCx) -> Result<()> {
    let mut shape = Shape::unknown(2);
    if let Some(s) = cx.shape(0) {
        let axis = flatten_axis(cx.node.int("axis").unwrap_or(1), s.rank())?;
        shape = [&s[..axis], &s[axis..]].into_iter().map(product).collect();
    }
    cx.set_tensor(0, cx.dtype(0), Some(shape));
    Ok(())
}

/// The product of lengths; a symbol survives where all others are 1.
fn product(dims: &[Dim]) -> Dim {
    let mut others = dims.iter().filter(|d| **d != Dim::Known(1));
    match (others.next(), others.next()) {
        (None, _) => Dim::Known(1),
        (Some(one), None) => one.clone(),
        _ => {
            let shape: Shape = dims.iter().cloned().collect();
            shape.count().map_or(Dim::Unknown, Dim::Known)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_on_both_sides_cancels() {
        let from: Shape = [Dim::symbol("n"), 4.into(), 6.into()].into_iter().collect();
        let to: Shape = [Dim::symbol("n"), Dim::Unknown, 3.into()]
            .into_iter()
            .collect();
        assert_eq!(quotient(&from, &to, 1), Dim::Known(8));
        let flat: Shape = [Dim::Unknown, 24.into()].into_iter().collect();
        assert_eq!(quotient(&from, &flat, 0), Dim::symbol("n"));
        let odd: Shape = [Dim::Unknown, 5.into()].into_iter().collect();
        assert_eq!(quotient(&from, &odd, 0), Dim::Unknown);
    }
}

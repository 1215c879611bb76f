//! ScatterElements, Scatter and ScatterND: elements written over by index tensors.

use super::gather::{element_places, tuple_places};
use super::layout::{self, Run};
use super::numbers::Numbers;
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::{Error, Result, Tensor};

const ELEMENTS: OpDef = OpDef {
    inputs: Arity(3, 3),
    attrs: &[
        attr("axis", AttrKind::Int(Some(0))),
        attr("reduction", AttrKind::String(Some("none"))),
    ],
    eval: Some(eval_elements),
    ..OpDef::BASE
};

/// ONNX ScatterElements.
pub static SCATTER_ELEMENTS: OpDef = OpDef {
    name: "ScatterElements",
    since: &[11, 13, 16, 18],
    examples: &[
        "ScatterElements(f32[2,3], i64[1,2]{1,0}, f32[1,2])",
        "ScatterElements(f32[2,3], i64[2,1]{-1,0}, f32[2,1]) {axis=1}",
        "ScatterElements(f32[3], i64[3]{1,1,0}, f32[3]) {reduction=\"add\"}",
        "ScatterElements(i32[3], i64[3]{1,1,0}, i32[3]) {reduction=\"max\"}",
    ],
    ..ELEMENTS
};

/// ONNX Scatter: the older name of ScatterElements.
pub static SCATTER: OpDef = OpDef {
    name: "Scatter",
    since: &[9, 11],
    examples: &["Scatter@9(f32[2,3], i64[1,2]{1,0}, f32[1,2])"],
    ..ELEMENTS
};

/// ONNX ScatterND.
pub static SCATTER_ND: OpDef = OpDef {
    name: "ScatterND",
    since: &[11, 13, 16, 18],
    inputs: Arity(3, 3),
    attrs: &[attr("reduction", AttrKind::String(Some("none")))],
    eval: Some(eval_nd),
    examples: &[
        "ScatterND(f32[4], i64[2,1]{3,0}, f32[2])",
        "ScatterND(f32[3,2], i64[2,1]{-1,0}, f32[2,2]) {reduction=\"mul\"}",
        "ScatterND(i8[2,2], i64[1,2]{0,1}, i8[1]) {reduction=\"min\"}",
    ],
    ..OpDef::BASE
};

fn eval_elements(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    if indices.dims() != updates.dims() {
        return Err(Error::invalid(format!(
            "{} of indices do not fit {} of updates",
            indices.ty(),
            updates.ty()
        )));
    }
    let places = element_places(x.dims(), indices, cx.int("axis", 0))?;
    scatter(cx, x, &places, 1, updates)
}

fn eval_nd(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (places, run) = tuple_places(x.dims(), indices, 0)?;
    if places.len().checked_mul(run) != Some(updates.count()) {
        return Err(Error::invalid(format!(
            "indices {} into {} do not fit updates {}",
            indices.ty(),
            x.ty(),
            updates.ty()
        )));
    }
    scatter(cx, x, &places, run, updates)
}

/// Writes runs of `run` updates to `places`, the later over the earlier.
fn scatter(
    cx: &EvalCx,
    x: &Tensor,
    places: &[usize],
    run: usize,
    updates: &Tensor,
) -> Result<Vec<Tensor>> {
    let targets = places.iter().flat_map(|&p| p..p + run).enumerate();
    let reduction = cx.node.string("reduction").unwrap_or("none");
    if reduction == "none" {
        let mut from: Vec<Option<usize>> = vec![None; x.count()];
        for (u, p) in targets {
            from[p] = Some(u);
        }
        let runs = from.into_iter().enumerate().map(|(i, u)| Run {
            source: usize::from(u.is_some()),
            start: u.unwrap_or(i),
            len: 1,
        });
        return Ok(vec![layout::assemble(&[x, updates], x.dims(), runs)?]);
    }
    let numbers = match (Numbers::of(x)?, Numbers::of(updates)?) {
        (Numbers::Float(mut x), Numbers::Float(u)) => {
            let join = float(reduction)?;
            targets.for_each(|(i, p)| x[p] = join(x[p], u[i]));
            Numbers::Float(x)
        }
        (Numbers::Int(mut x), Numbers::Int(u)) => {
            let join = int(reduction)?;
            targets.for_each(|(i, p)| x[p] = join(x[p], u[i]));
            Numbers::Int(x)
        }
        _ => {
            return Err(Error::invalid(format!(
                "updates {} do not fit {}",
                updates.ty(),
                x.ty()
            )));
        }
    };
    Ok(vec![numbers.tensor(x.dtype(), x.dims())?])
}

fn float(reduction: &str) -> Result<fn(f64, f64) -> f64> {
    Ok(match reduction {
        "add" => |a, b| a + b,
        "mul" => |a, b| a * b,
        "max" => |a, b| if b > a || b.is_nan() { b } else { a },
        "min" => |a, b| if b < a || b.is_nan() { b } else { a },
        _ => return Err(unknown(reduction)),
    })
}

fn int(reduction: &str) -> Result<fn(i128, i128) -> i128> {
    Ok(match reduction {
        "add" => i128::wrapping_add,
        "mul" => i128::wrapping_mul,
        "max" => Ord::max,
        "min" => Ord::min,
        _ => return Err(unknown(reduction)),
    })
}

fn unknown(reduction: &str) -> Error {
    Error::unsupported(format!("the reduction \"{reduction}\" is unknown"))
}

//! TensorScatter: new steps written into a cache.

use super::layout::{self, Run};
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer;
use crate::{Error, Result, Tensor};

/// ONNX TensorScatter.
pub static TENSOR_SCATTER: OpDef = OpDef {
    name: "TensorScatter",
    since: &[24],
    inputs: Arity(2, 3),
    attrs: &[
        attr("axis", AttrKind::Int(Some(-2))),
        attr("mode", AttrKind::String(Some("linear"))),
    ],
    eval: Some(eval),
    examples: &[
        "TensorScatter(f32[2,1,4,3], f32[2,1,2,3], i64[2]{0,2})",
        "TensorScatter(f32[2,4,3], f32[2,2,3], i64[2]{3,1}) {mode=\"circular\"}",
        "TensorScatter(f16[1,4,3], f16[1,4,3])",
    ],
    ..OpDef::BASE
};

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (cache, update) = (cx.input(0)?, cx.input(1)?);
    let axis = infer::axis(cx.int("axis", -2), cache.rank())?;
    let mut wanted = cache.dims().to_vec();
    let (length, new) = (wanted[axis], update.dims().get(axis).copied().unwrap_or(0));
    wanted[axis] = new;
    if axis == 0 || update.dims() != wanted || new > length {
        return Err(Error::invalid(format!(
            "an update of {} does not fit a cache of {} at axis {axis}",
            update.ty(),
            cache.ty()
        )));
    }
    let batch = cache.dims()[0];
    let starts = match cx.optional(2) {
        Some(t) => t.to_i64()?,
        None => vec![0; batch],
    };
    let circular = cx.node.string("mode") == Some("circular");
    let place = |start: i64| {
        let start = usize::try_from(start).ok()?;
        (start < length && (circular || start + new <= length) || new == 0).then_some(start)
    };
    let starts: Option<Vec<usize>> = starts.into_iter().map(place).collect();
    let starts = starts.filter(|s| s.len() == batch).ok_or_else(|| {
        Error::invalid(format!(
            "expected {batch} places in a cache of {length} steps"
        ))
    })?;
    let inner: usize = cache.dims()[axis + 1..].iter().product();
    let between: usize = cache.dims()[1..axis].iter().product();
    let runs = (0..batch * between * length).map(|i| {
        let (row, step) = (i / length, i % length);
        let start = starts[row / between.max(1)];
        let behind = (step + length - start % length) % length;
        let fresh = behind < new;
        Run {
            source: usize::from(fresh),
            start: if fresh { row * new + behind } else { i } * inner,
            len: inner,
        }
    });
    Ok(vec![layout::assemble(
        &[cache, update],
        cache.dims(),
        runs,
    )?])
}

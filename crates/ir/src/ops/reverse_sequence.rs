//! ReverseSequence: the first elements of each sequence in reverse.

use super::{Arity, AttrKind, OpDef, attr, layout};
use crate::eval::EvalCx;
use crate::infer;
use crate::{Error, Result, Tensor};

/// ONNX ReverseSequence.
pub static REVERSE_SEQUENCE: OpDef = OpDef {
    name: "ReverseSequence",
    since: &[10],
    inputs: Arity(2, 2),
    attrs: &[
        attr("batch_axis", AttrKind::Int(Some(1))),
        attr("time_axis", AttrKind::Int(Some(0))),
    ],
    eval: Some(eval),
    examples: &[
        "ReverseSequence(f32[4,2,3], i64[2]{3,0})",
        "ReverseSequence(i8[2,4], i64[2]{1,4}) {batch_axis=0,time_axis=1}",
    ],
    ..OpDef::BASE
};

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, lengths) = (cx.input(0)?, cx.input(1)?.to_i64()?);
    let batch = infer::axis(cx.int("batch_axis", 1), x.rank())?;
    let time = infer::axis(cx.int("time_axis", 0), x.rank())?;
    let steps = x.dims()[time];
    let fits = |&n: &i64| usize::try_from(n).ok().filter(|&n| n <= steps);
    let lengths: Option<Vec<usize>> = lengths.iter().map(fits).collect();
    let lengths = lengths
        .filter(|l| l.len() == x.dims()[batch] && batch != time)
        .ok_or_else(|| {
            Error::invalid(format!(
                "expected {} lengths from 0 to {steps}, and two axes",
                x.dims()[batch]
            ))
        })?;
    let strides = layout::strides(x.dims());
    let (by_batch, by_time) = (strides[batch] as usize, strides[time] as usize);
    let place = |i: usize| {
        let (b, t) = (i / by_batch % x.dims()[batch], i / by_time % steps);
        if t < lengths[b] {
            i - t * by_time + (lengths[b] - 1 - t) * by_time
        } else {
            i
        }
    };
    Ok(vec![layout::pick(x, x.dims(), (0..x.count()).map(place))?])
}

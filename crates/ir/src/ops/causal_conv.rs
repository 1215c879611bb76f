//! CausalConvWithState: each channel convolved with its own past, which is carried along.

use super::arith::{expect_dims, expect_rank, floats, from_floats};
use super::conv::bias;
use super::{Arity, AttrKind, OpDef, attr, concat, layout};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor};

/// ONNX CausalConvWithState.
pub static CAUSAL_CONV_WITH_STATE: OpDef = OpDef {
    name: "CausalConvWithState",
    since: &[27],
    inputs: Arity(2, 4),
    outputs: Arity(2, 2),
    attrs: &[attr("activation", AttrKind::String(Some("none")))],
    infer,
    eval: Some(eval),
    examples: &[
        "CausalConvWithState@27(f32[1,2,5], f32[2,1,3]) -> 2",
        "CausalConvWithState@27(f32[2,2,1], f32[2,1,3], f32[2], f32[2,2,2]) \
         {activation=\"silu\"} -> 2",
    ],
    ..OpDef::BASE
};

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, weight) = (cx.input(0)?, cx.input(1)?);
    expect_rank("the input", x, 3..=3)?;
    expect_rank("the weight", weight, 3..=3)?;
    let &[batch, channels, length] = x.dims() else {
        return Err(Error::internal("the input has 3 axes"));
    };
    let taps = weight.dims()[2];
    expect_dims("the weight", weight, &[channels, 1, taps])?;
    let carried = taps
        .checked_sub(1)
        .ok_or_else(|| Error::invalid("the kernel is empty"))?;
    let dims = [batch, channels, carried];
    let past = match cx.optional(3) {
        Some(t) => {
            expect_dims("the state", t, &dims)?;
            t.clone()
        }
        None => layout::zeros(x.dtype(), &dims)?,
    };
    let padded = concat::join(&[&past, x], 2)?;
    let total = padded.dims()[2];
    let present = layout::strided(&padded, &dims, &layout::strides(padded.dims()), length)?;
    let (data, w) = (floats(&padded)?, floats(weight)?);
    let bias = bias(cx.optional(2), channels)?;
    let activation = match cx.node.string("activation").unwrap_or("none") {
        "none" => |v: f64| v,
        "silu" | "swish" => |v: f64| v / (1.0 + (-v).exp()),
        other => {
            return Err(Error::unsupported(format!(
                "the activation \"{other}\" is unknown"
            )));
        }
    };
    let at = |i: usize| {
        let (row, t) = (i / length, i % length);
        let channel = row % channels;
        let window = &data[row * total + t..][..taps];
        let kernel = &w[channel * taps..][..taps];
        let sum: f64 = window.iter().zip(kernel).map(|(a, b)| a * b).sum();
        activation(sum + bias[channel])
    };
    let y = (0..x.count()).map(at).collect();
    Ok(vec![from_floats(x.dtype(), x.dims(), y)?, present])
}

fn infer(cx: &mut InferCx) -> Result<()> {
    infer::like_first(cx)?;
    if cx.node.output(1).is_none() {
        return Ok(());
    }
    let carried = match cx.shape(1).map(|s| &s[..]) {
        Some([.., Dim::Known(taps)]) => Dim::Known(taps.saturating_sub(1)),
        _ => Dim::Unknown,
    };
    let shape = match cx.shape(0).map(|s| &s[..]) {
        Some([b, c, _]) => Some(Shape::from_iter([b.clone(), c.clone(), carried])),
        _ => None,
    };
    cx.set_tensor(1, cx.dtype(0), shape);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::eval;
    use crate::text::parse;

    #[test]
    fn a_sequence_in_two_parts_gives_what_it_gives_at_once() {
        let model = parse(
            "opset 27 graph g() -> (y, s, first, second, t) {
            w: f32[1,1,3] = {1,10,100} x: f32[1,1,4] = {1,2,3,4}
            y, s = CausalConvWithState(x, w)
            a: f32[1,1,1] = {1} b: f32[1,1,3] = {2,3,4}
            first, u = CausalConvWithState(a, w)
            second, t = CausalConvWithState(b, w, _, u) }",
        );
        let out = eval::evaluate(&model.unwrap(), &[]).unwrap();
        let data = |i: usize| out[i].data::<f32>().unwrap().to_vec();
        assert_eq!(data(0), [100.0, 210.0, 321.0, 432.0]);
        assert_eq!(data(1), [3.0, 4.0]);
        assert_eq!([data(2), data(3)].concat(), data(0));
        assert_eq!(data(4), data(1));
    }
}

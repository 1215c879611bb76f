//! FusedConv: Conv, a sum with another tensor, and an activation.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{expect_dims, floats, from_floats};
use crate::ops::conv::{self, Convolution, add_bias, bias};
use crate::ops::unary::sigmoid;
use crate::ops::{Arity, AttrDef, AttrKind, OpDef, attr};
use crate::{Error, Node, Result, Tensor};

/// `activation(Conv(X, W, B) + Z)`.
pub static FUSED_CONV: OpDef = OpDef {
    name: "FusedConv",
    inputs: Arity(2, 4),
    attrs: &ATTRS,
    infer: |cx| conv::infer(cx, 1, cx.dtype(0)),
    eval: Some(eval),
    examples: &[
        "com.microsoft.FusedConv(f32[1,4,5,5], f32[6,4,3,3], f32[6]) {pads=[1,1,1,1], activation=\"Relu\"}",
        "com.microsoft.FusedConv(f32[1,2,4], f32[3,2,1], , f32[1,3,4]) {activation=\"Clip\", activation_params=[-0.5,0.5]}",
        "com.microsoft.FusedConv(f32[1,2,4], f32[3,2,1]) {activation=\"LeakyRelu\", activation_params=[0.1]}",
        "com.microsoft.FusedConv(f32[1,2,4], f32[3,2,1])",
    ],
    ..BASE
};

const ATTRS: [AttrDef; 8] = [
    attr("activation", AttrKind::String(None)),
    attr("activation_params", AttrKind::Floats),
    conv::ATTRS[0],
    conv::ATTRS[1],
    conv::ATTRS[2],
    conv::ATTRS[3],
    conv::ATTRS[4],
    conv::ATTRS[5],
];

/// The activation of a fused node, where it is known.
///
/// # Errors
/// When its name or the number of its parameters is not ONNX Runtime's.
pub fn activation(node: &Node) -> Result<Box<dyn Fn(f64) -> f64>> {
    let name = node.string("activation").unwrap_or("");
    let given = node.floats("activation_params").unwrap_or(&[]);
    let p: Vec<f64> = given.iter().map(|&x| f64::from(x)).collect();
    Ok(match (name, p.as_slice()) {
        ("", _) => Box::new(|x| x),
        ("Relu", _) => Box::new(|x| if x < 0.0 { 0.0 } else { x }),
        ("Sigmoid", _) => Box::new(sigmoid),
        ("Tanh", _) => Box::new(f64::tanh),
        ("LeakyRelu", &[alpha]) => Box::new(move |x| if x < 0.0 { alpha * x } else { x }),
        ("Clip", &[low, high]) => Box::new(move |x| {
            let x = if x < low { low } else { x };
            if x > high { high } else { x }
        }),
        ("HardSigmoid", &[alpha, beta]) => Box::new(move |x| (alpha * x + beta).clamp(0.0, 1.0)),
        _ => {
            return Err(Error::unsupported(format!(
                "activation \"{name}\" with {} parameters is not known",
                p.len()
            )));
        }
    })
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let conv = Convolution::of(cx.node, x, w)?;
    let mut y = conv.convolve(&floats(x)?, &floats(w)?);
    let bias = bias(cx.optional(2), conv.dims[1])?;
    add_bias(&mut y, &bias, conv.dims[2..].iter().product());
    if let Some(z) = cx.optional(3) {
        expect_dims("input Z", z, &conv.dims)?;
        y.iter_mut().zip(floats(z)?).for_each(|(y, z)| *y += z);
    }
    let f = activation(cx.node)?;
    let y = y.into_iter().map(f).collect();
    Ok(vec![from_floats(x.dtype(), &conv.dims, y)?])
}

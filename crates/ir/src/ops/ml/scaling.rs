//! Numbers prepared one by one or by row: Scaler, Normalizer, Binarizer, Imputer.

use super::BASE;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::any;
use crate::ops::elementwise::map_numbers;
use crate::ops::numbers::Numbers;
use crate::ops::softmax::map_lines;
use crate::ops::{AttrKind, OpDef, attr};
use crate::{DType, Error, Result, Tensor};

/// `ai.onnx.ml.Scaler`: (x − offset) · scale.
pub static SCALER: OpDef = OpDef {
    name: "Scaler",
    attrs: &[
        attr("offset", AttrKind::Floats),
        attr("scale", AttrKind::Floats),
    ],
    infer: infer_floats,
    eval: Some(scale),
    examples: &[
        "ai.onnx.ml.Scaler(f32[3,2]) {offset=[0.5,1.0], scale=[2.0,0.25]}",
        "ai.onnx.ml.Scaler(i64[3,2]) {offset=[0.5], scale=[2.0]}",
    ],
    ..BASE
};

/// `ai.onnx.ml.Normalizer`: each row over its largest element, sum of magnitudes or length.
pub static NORMALIZER: OpDef = OpDef {
    name: "Normalizer",
    attrs: &[attr("norm", AttrKind::String(Some("MAX")))],
    infer: infer_floats,
    eval: Some(normalize),
    examples: &[
        "ai.onnx.ml.Normalizer(f32[3,2])",
        "ai.onnx.ml.Normalizer(f64[3,2]) {norm=\"L2\"}",
        "ai.onnx.ml.Normalizer(i32[3]) {norm=\"L1\"}",
    ],
    ..BASE
};

/// `ai.onnx.ml.Binarizer`.
pub static BINARIZER: OpDef = OpDef {
    name: "Binarizer",
    attrs: &[attr("threshold", AttrKind::Float(Some(0.0)))],
    eval: Some(|cx| {
        let threshold = f64::from(cx.float("threshold", 0.0));
        let over = |x: f64| if x > threshold { 1.0 } else { 0.0 };
        map_numbers(cx.input(0)?, over, |i| over(i as f64) as i128)
    }),
    examples: &["ai.onnx.ml.Binarizer(f32[3,2]) {threshold=0.5}"],
    ..BASE
};

/// `ai.onnx.ml.Imputer`.
pub static IMPUTER: OpDef = OpDef {
    name: "Imputer",
    attrs: &[
        attr("imputed_value_floats", AttrKind::Floats),
        attr("imputed_value_int64s", AttrKind::Ints),
        attr("replaced_value_float", AttrKind::Float(Some(0.0))),
        attr("replaced_value_int64", AttrKind::Int(Some(0))),
    ],
    eval: Some(impute),
    examples: &[
        "ai.onnx.ml.Imputer(f32[2,2]{1,nan,nan,3}) \
         {imputed_value_floats=[7.0,8.0], replaced_value_float=bits 2143289344}",
        "ai.onnx.ml.Imputer(i64[3,2]) {imputed_value_int64s=[5], replaced_value_int64=1}",
    ],
    ..BASE
};

/// Floats of the shape of input 0.
fn infer_floats(cx: &mut InferCx) -> Result<()> {
    let shape = cx.shape(0).cloned();
    cx.set_tensor(0, Some(DType::F32), shape);
    Ok(())
}

/// The length of the last axis, which attributes by feature follow.
fn width(x: &Tensor) -> usize {
    x.dims().last().copied().unwrap_or(1).max(1)
}

fn misfit(name: &str, found: usize, x: &Tensor) -> Error {
    Error::invalid(format!(
        "attribute \"{name}\" has {found} entries for {}",
        x.ty()
    ))
}

fn scale(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let width = width(x);
    let list = |name: &str, default: f32| match cx.node.floats(name).filter(|v| !v.is_empty()) {
        None => Ok(vec![default; width]),
        Some([one]) => Ok(vec![*one; width]),
        Some(v) if v.len() == width => Ok(v.to_vec()),
        Some(v) => Err(misfit(name, v.len(), x)),
    };
    let (offset, scale) = (list("offset", 0.0)?, list("scale", 1.0)?);
    let y = any(x)?.into_iter().enumerate().map(|(i, v)| {
        let f = i % width;
        ((v - f64::from(offset[f])) * f64::from(scale[f])) as f32
    });
    Ok(vec![Tensor::from_vec(x.dims(), y.collect())?])
}

fn normalize(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let norm: fn(&[f64]) -> f64 = match cx.node.string("norm").unwrap_or("MAX") {
        "MAX" => |row| row.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "L1" => |row| row.iter().map(|v| v.abs()).sum(),
        "L2" => |row| row.iter().map(|v| v * v).sum::<f64>().sqrt(),
        other => return Err(Error::invalid(format!("norm is \"{other}\""))),
    };
    let mut data = any(x)?;
    map_lines(&mut data, width(x), 1, |row| {
        let norm = norm(row);
        if norm != 0.0 {
            row.iter_mut().for_each(|v| *v /= norm);
        }
    });
    let y = data.into_iter().map(|v| v as f32).collect();
    Ok(vec![Tensor::from_vec(x.dims(), y)?])
}

fn impute(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let width = width(x);
    let at = |len: usize, i: usize| if len == 1 { 0 } else { i % width };
    let check = |name: &str, len: usize| match len {
        _ if len == 1 || len == width => Ok(()),
        _ => Err(misfit(name, len, x)),
    };
    let mut numbers = Numbers::of(x)?;
    match &mut numbers {
        Numbers::Float(data) => {
            let values = cx.node.floats("imputed_value_floats").unwrap_or_default();
            check("imputed_value_floats", values.len())?;
            let gone = f64::from(cx.float("replaced_value_float", 0.0));
            let is_gone = |v: f64| v == gone || v.is_nan() && gone.is_nan();
            let places = data.iter_mut().enumerate().filter(|(_, v)| is_gone(**v));
            places.for_each(|(i, v)| *v = f64::from(values[at(values.len(), i)]));
        }
        Numbers::Int(data) => {
            let values = cx.node.ints("imputed_value_int64s").unwrap_or_default();
            check("imputed_value_int64s", values.len())?;
            let gone = i128::from(cx.int("replaced_value_int64", 0));
            let places = data.iter_mut().enumerate().filter(|(_, v)| **v == gone);
            places.for_each(|(i, v)| *v = i128::from(values[at(values.len(), i)]));
        }
    }
    Ok(vec![numbers.tensor(x.dtype(), x.dims())?])
}

//! Constant and ConstantOfShape: tensors that the model holds or fills.

use super::{Arity, AttrKind, OpDef, attr, axes, layout};
use crate::eval::EvalCx;
use crate::graph::{Attribute, Node};
use crate::infer::InferCx;
use crate::types::Dim;
use crate::{DType, Error, Result, Tensor};

/// ONNX Constant; `sparse_value` is not done.
pub static CONSTANT: OpDef = OpDef {
    name: "Constant",
    since: &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25],
    inputs: Arity(0, 0),
    attrs: &[
        attr("value", AttrKind::Tensor),
        attr("value_float", AttrKind::Float(None)),
        attr("value_floats", AttrKind::Floats),
        attr("value_int", AttrKind::Int(None)),
        attr("value_ints", AttrKind::Ints),
        attr("value_string", AttrKind::String(None)),
        attr("value_strings", AttrKind::Strings),
    ],
    infer: infer_constant,
    eval: Some(|cx| Ok(vec![value(cx.node)?])),
    examples: &[
        "Constant() {value=f32[2]{1,2.5}}",
        "Constant() {value_int=3}",
        "Constant() {value_ints=[1,-2]}",
        "Constant() {value_float=1.5}",
        "Constant() {value_floats=[1.5,2.0]}",
        "Constant() {value_string=\"a\"}",
        "Constant() {value_strings=[\"a\",\"b\"]}",
    ],
    ..OpDef::BASE
};

/// The tensor that a Constant node stands for, whichever attribute holds it.
///
/// # Errors
/// When no attribute that is understood is there.
pub fn value(node: &Node) -> Result<Tensor> {
    let text = |b: &bytes::Bytes| {
        String::from_utf8(b.to_vec()).map_err(|_| Error::invalid("the string is not UTF-8"))
    };
    for (name, a) in &node.attributes {
        let tensor = match (name.as_str(), a) {
            ("value", Attribute::Tensor(t)) => t.clone(),
            ("value_int", Attribute::Int(i)) => Tensor::scalar(*i),
            ("value_float", Attribute::Float(x)) => Tensor::scalar(*x),
            ("value_ints", Attribute::Ints(v)) => Tensor::vector(v.clone()),
            ("value_floats", Attribute::Floats(v)) => Tensor::vector(v.clone()),
            ("value_string", Attribute::String(s)) => Tensor::from_strings(&[], vec![text(s)?])?,
            ("value_strings", Attribute::Strings(v)) => {
                Tensor::from_strings(&[v.len()], v.iter().map(text).collect::<Result<_>>()?)?
            }
            _ => continue,
        };
        return Ok(tensor);
    }
    Err(Error::unsupported(
        "the constant holds none of the values that are understood",
    ))
}

fn infer_constant(cx: &mut InferCx) -> Result<()> {
    let Ok(value) = value(cx.node) else {
        return Ok(());
    };
    if value.dtype() == DType::I64 && value.rank() <= 1 && value.count() <= 1024 {
        let known = |i: i64| usize::try_from(i).map_or(Dim::Unknown, Dim::Known);
        cx.set_contents(0, value.to_i64()?.into_iter().map(known).collect());
    }
    cx.set(0, value.ty());
    Ok(())
}

/// ONNX ConstantOfShape.
pub static CONSTANT_OF_SHAPE: OpDef = OpDef {
    name: "ConstantOfShape",
    since: &[9, 20, 21, 23, 24, 25],
    attrs: &[attr("value", AttrKind::Tensor)],
    infer: infer_of_shape,
    eval: Some(eval_of_shape),
    examples: &[
        "ConstantOfShape(i64[2]{2,3})",
        "ConstantOfShape(i64[1]{3}) {value=i64[1]{7}}",
        "ConstantOfShape(i64[0]{})",
    ],
    ..OpDef::BASE
};

fn infer_of_shape(cx: &mut InferCx) -> Result<()> {
    let dtype = cx.node.tensor("value").map_or(DType::F32, Tensor::dtype);
    if let (Some(t), Some([Dim::Known(n)])) = (cx.node.tensor("value"), cx.contents(0))
        && *n <= 1024
        && t.dtype() == DType::I64
        && let Some(&v) = t.to_i64()?.first()
    {
        let v = usize::try_from(v).map_or(Dim::Unknown, Dim::Known);
        cx.set_contents(0, vec![v; *n]);
    }
    let shape = match cx.contents(0) {
        Some(dims) => Some(dims.iter().cloned().collect()),
        None => cx.shape_of_rank(0),
    };
    cx.set_tensor(0, Some(dtype), shape);
    Ok(())
}

fn eval_of_shape(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let dims = cx.input(0)?.to_i64()?;
    let dims: layout::Dims = dims
        .into_iter()
        .map(|d| axes::length(d, "a length"))
        .collect::<Result<_>>()?;
    let zero = Tensor::scalar(0.0f32);
    let value = cx.node.tensor("value").unwrap_or(&zero);
    if value.count() != 1 {
        return Err(Error::invalid(format!(
            "attribute \"value\" should have one element, found {}",
            value.ty()
        )));
    }
    let value = value.reshaped(&[])?;
    Ok(vec![layout::broadcast(&value, &dims)?])
}

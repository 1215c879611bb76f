//! Cast and CastLike: elements converted to another type.

use super::numbers::Numbers;
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::packed::{self, ScaleRounding};
use crate::{DType, Error, Result, Tensor};

/// ONNX Cast.
pub static CAST: OpDef = OpDef {
    name: "Cast",
    since: &[1, 6, 9, 13, 19, 21, 23, 24, 25],
    attrs: &[
        attr("to", AttrKind::Int(None)),
        attr("saturate", AttrKind::Int(Some(1))),
        attr("round_mode", AttrKind::String(Some("up"))),
    ],
    infer: infer_cast,
    eval: Some(eval_cast),
    examples: &[
        "Cast(f32[2,3]) {to=7}",
        "Cast(i64[3]) {to=1}",
        "Cast(f32[3]{-1.5,300,0}) {to=2}",
        "Cast(i64[2]) {to=10}",
        "Cast(i64[2]{3,4}) {to=6}",
        "Cast(f32[2]{0,2}) {to=9}",
        "Cast(f32[3]{1,2.5,1000}) {to=17,saturate=0}",
        "Cast(f32[3]{1,2.5,1000}) {to=24,round_mode=\"down\"}",
        "Cast(f8e5m2[3]) {to=10}",
        "Cast(i4[3]) {to=3}",
        "Cast(i32[3]) {to=21}",
        "Cast(f64[2]{1.5,-2}) {to=8}",
        "Cast(string[2]{\"1.5\",\"-inf\"}) {to=1}",
    ],
    ..OpDef::BASE
};

/// ONNX CastLike.
pub static CAST_LIKE: OpDef = OpDef {
    name: "CastLike",
    since: &[15, 19, 21, 23, 24, 25],
    inputs: Arity(2, 2),
    attrs: &[
        attr("saturate", AttrKind::Int(Some(1))),
        attr("round_mode", AttrKind::String(Some("up"))),
    ],
    infer: infer_like,
    eval: Some(eval_like),
    examples: &["CastLike(f32[2,3], i32[1])"],
    ..OpDef::BASE
};

/// The element type in attribute "to".
///
/// # Errors
/// When it is missing or no type.
pub fn to(node: &crate::Node) -> Result<DType> {
    let code = node
        .int("to")
        .ok_or_else(|| Error::invalid("attribute \"to\" is missing"))?;
    i32::try_from(code)
        .ok()
        .and_then(DType::from_onnx)
        .ok_or_else(|| Error::invalid(format!("{code} is no element type")))
}

fn infer_cast(cx: &mut InferCx) -> Result<()> {
    // Before version 6 the type was given by name.
    let dtype = match cx.node.string("to") {
        Some(_) => None,
        None => Some(to(cx.node)?),
    };
    if matches!(dtype, Some(DType::I64 | DType::I32))
        && let Some(contents) = cx.contents(0).map(<[_]>::to_vec)
    {
        cx.set_contents(0, contents);
    }
    cx.set_tensor(0, dtype, cx.shape(0).cloned());
    Ok(())
}

fn infer_like(cx: &mut InferCx) -> Result<()> {
    cx.set_tensor(0, cx.dtype(1), cx.shape(0).cloned());
    Ok(())
}

fn eval_cast(cx: &EvalCx) -> Result<Vec<Tensor>> {
    convert(cx, to(cx.node)?)
}

fn eval_like(cx: &EvalCx) -> Result<Vec<Tensor>> {
    convert(cx, cx.input(1)?.dtype())
}

fn convert(cx: &EvalCx, dtype: DType) -> Result<Vec<Tensor>> {
    let (x, saturate) = (cx.input(0)?, cx.int("saturate", 1) != 0);
    let rounding = match cx.node.string("round_mode") {
        Some("down") => ScaleRounding::Down,
        Some("nearest") => ScaleRounding::Nearest,
        _ => ScaleRounding::Up,
    };
    if dtype != DType::F8E8M0 || x.dtype() == dtype {
        return Ok(vec![cast(x, dtype, saturate)?]);
    }
    let values = Numbers::of(x)?.into_floats();
    let codes = values
        .iter()
        .map(|&v| packed::encode_scale(v as f32, rounding, saturate));
    Ok(vec![packed::from_codes(
        dtype,
        x.dims(),
        &codes.collect::<Vec<u8>>(),
    )?])
}

/// `t` converted element by element. `saturate` is for the 8-bit float types: what is too large
/// becomes the largest number instead of NaN or infinity.
///
/// # Errors
/// When a string is no number, and for complex numbers.
pub fn cast(t: &Tensor, dtype: DType, saturate: bool) -> Result<Tensor> {
    if t.dtype() == dtype {
        return Ok(t.clone());
    }
    let numbers = match t.dtype() {
        DType::String => parse(t.strings()?, dtype)?,
        _ => Numbers::of(t)?,
    };
    if dtype == DType::String {
        return Tensor::from_strings(t.dims(), print(&numbers, t.dtype()));
    }
    if packed::is_packed(dtype) && dtype.is_float() {
        return packed::encode_floats(dtype, t.dims(), &numbers.into_floats(), saturate);
    }
    numbers.tensor(dtype, t.dims())
}

fn parse(texts: &[String], dtype: DType) -> Result<Numbers> {
    let refuse = |s: &String| Error::invalid(format!("\"{s}\" is no number"));
    if dtype.is_float() {
        let float = |s: &String| s.trim().parse::<f64>().map_err(|_| refuse(s));
        return Ok(Numbers::Float(
            texts.iter().map(float).collect::<Result<_>>()?,
        ));
    }
    let int = |s: &String| match (s.trim().parse::<i128>(), s.trim().parse::<f64>()) {
        (Ok(i), _) => Ok(i),
        (Err(_), Ok(x)) => Ok(x as i128),
        _ => Err(refuse(s)),
    };
    Ok(Numbers::Int(texts.iter().map(int).collect::<Result<_>>()?))
}

/// The shortest digits that read back as the same number of the type.
fn print(numbers: &Numbers, dtype: DType) -> Vec<String> {
    let float = |x: f64| match dtype {
        _ if x.is_nan() => "NaN".to_owned(),
        _ if x.is_infinite() => if x > 0.0 { "INF" } else { "-INF" }.to_owned(),
        DType::F64 => format!("{x:?}"),
        _ => format!("{:?}", x as f32),
    };
    let int = |i: i128| match dtype {
        DType::Bool => if i == 0 { "False" } else { "True" }.to_owned(),
        _ => i.to_string(),
    };
    match numbers {
        Numbers::Float(v) => v.iter().map(|&x| float(x)).collect(),
        Numbers::Int(v) => v.iter().map(|&i| int(i)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_turn_into_each_other() {
        let t = Tensor::vector(vec![1.5f32, 0.47892547, f32::INFINITY]);
        let s = cast(&t, DType::String, true).unwrap();
        assert_eq!(s.strings().unwrap(), ["1.5", "0.47892547", "INF"]);
        assert_eq!(cast(&s, DType::F32, true).unwrap(), t);
        let bad = Tensor::from_strings(&[1], vec!["x".into()]).unwrap();
        assert!(cast(&bad, DType::I32, true).is_err());
    }

    #[test]
    fn fractions_are_cut_towards_zero() {
        let t = Tensor::vector(vec![-1.9f32, 1.9]);
        assert_eq!(
            cast(&t, DType::I32, true).unwrap().to_i64().unwrap(),
            [-1, 1]
        );
    }
}

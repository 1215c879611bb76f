//! QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear, and the scales and zero points
//! that every quantised operator shares.

use super::arith::{any, floats, from_floats, from_integers, integers, range, rounded};
use super::{Arity, AttrDef, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::{DType, Error, Result, Shape, Tensor, packed};

/// ONNX QuantizeLinear: by tensor, by axis or by block.
pub static QUANTIZE_LINEAR: OpDef = OpDef {
    name: "QuantizeLinear",
    since: &[10, 13, 19, 21, 23, 24, 25],
    inputs: Arity(2, 3),
    attrs: ATTRS,
    infer: infer_quantize,
    eval: Some(eval_quantize),
    examples: &[
        "QuantizeLinear(f32[2,3], f32{0.1}, u8{128})",
        "QuantizeLinear(f32[2,3], f32[3]{0.1,0.2,0.3}, i8[3]{0,1,-1})",
        "QuantizeLinear(f32[2,4], f32[2,2]{0.1,0.2,0.3,0.4}) {block_size=2, output_dtype=3}",
    ],
    ..OpDef::BASE
};

/// ONNX DequantizeLinear: by tensor, by axis or by block.
pub static DEQUANTIZE_LINEAR: OpDef = OpDef {
    name: "DequantizeLinear",
    since: &[10, 13, 19, 21, 23, 24, 25],
    inputs: Arity(2, 3),
    attrs: ATTRS,
    infer: infer_dequantize,
    eval: Some(eval_dequantize),
    examples: &[
        "DequantizeLinear(u8[2,3], f32{0.1}, u8{128})",
        "DequantizeLinear(i8[2,3], f32[3]{0.1,0.2,0.3})",
    ],
    ..OpDef::BASE
};

/// ONNX DynamicQuantizeLinear: scale and zero point from the range of the data.
pub static DYNAMIC_QUANTIZE_LINEAR: OpDef = OpDef {
    name: "DynamicQuantizeLinear",
    since: &[11],
    outputs: Arity(1, 3),
    infer: |cx| {
        let shape = cx.shape(0).cloned();
        cx.set_tensor(0, Some(DType::U8), shape);
        cx.set_tensor(1, Some(DType::F32), Some(Shape::default()));
        cx.set_tensor(2, Some(DType::U8), Some(Shape::default()));
        Ok(())
    },
    eval: Some(eval_dynamic),
    examples: &[
        "DynamicQuantizeLinear(f32[2,3])",
        "DynamicQuantizeLinear(f32[2,3]) -> 3",
    ],
    ..OpDef::BASE
};

/// The attributes of both directions.
pub const ATTRS: &[AttrDef] = &[
    attr("axis", AttrKind::Int(Some(1))),
    attr("block_size", AttrKind::Int(Some(0))),
    attr("output_dtype", AttrKind::Int(Some(0))),
    attr("precision", AttrKind::Int(Some(0))),
    attr("saturate", AttrKind::Int(Some(1))),
];

/// For each element of `dims`, the index of its scale among those of lengths `scale`.
///
/// # Errors
/// When the scale is neither one number, nor one for each index of `axis`, nor one for each
/// block of `block` elements along `axis`.
pub fn scale_indices(
    dims: &[usize],
    scale: &[usize],
    axis: i64,
    block: usize,
) -> Result<Vec<usize>> {
    let count = dims.iter().product();
    if block == 0 && scale.iter().product::<usize>() == 1 && scale.len() <= 1 {
        return Ok(vec![0; count]);
    }
    let misfit = || {
        Error::invalid(format!(
            "a scale of {} does not fit {} at axis {axis} with blocks of {block}",
            Shape::fixed(scale),
            Shape::fixed(dims)
        ))
    };
    let axis = infer::axis(axis, dims.len())?;
    let inner: usize = dims[axis + 1..].iter().product();
    let length = dims[axis];
    if block == 0 {
        if scale != [length] {
            return Err(misfit());
        }
        return Ok((0..count).map(|i| i / inner % length).collect());
    }
    let mut expected = dims.to_vec();
    expected[axis] = length.div_ceil(block);
    if scale != expected {
        return Err(misfit());
    }
    let index = |i: usize| {
        let (outer, at) = (i / (inner * length), i / inner % length);
        (outer * expected[axis] + at / block) * inner + i % inner
    };
    Ok((0..count).map(index).collect())
}

/// Scale and zero point of each element of a tensor.
pub struct Scales {
    /// The scales.
    pub scale: Vec<f64>,
    /// The zero point of each scale.
    pub zero: Vec<f64>,
    /// Which scale each element has.
    pub of: Vec<usize>,
}

impl Scales {
    /// The scales, input 1, and zero points, input 2, of a tensor of lengths `dims`.
    ///
    /// # Errors
    /// When they do not fit it.
    pub fn of(cx: &EvalCx, dims: &[usize]) -> Result<Self> {
        let (scale, zero) = (cx.input(1)?, cx.optional(2));
        if let Some(zero) = zero.filter(|z| z.count() != scale.count()) {
            let (zero, scale) = (zero.ty(), scale.ty());
            return Err(Error::invalid(format!(
                "zero point {zero} and scale {scale} differ in shape"
            )));
        }
        let block = cx.int("block_size", 0);
        let block =
            usize::try_from(block).map_err(|_| Error::invalid(format!("block_size is {block}")))?;
        Ok(Self {
            of: scale_indices(dims, scale.dims(), cx.int("axis", 1), block)?,
            zero: match zero {
                Some(zero) => any(zero)?,
                None => vec![0.0; scale.count()],
            },
            scale: floats(scale)?,
        })
    }
}

/// The type of attribute `name`, where it is given and not 0.
fn dtype_attribute(node: &crate::Node, name: &str) -> Result<Option<DType>> {
    match node.int(name).unwrap_or(0) {
        0 => Ok(None),
        code => i32::try_from(code)
            .ok()
            .and_then(DType::from_onnx)
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("{name} {code} is no element type"))),
    }
}

fn eval_quantize(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let scales = Scales::of(cx, x.dims())?;
    let asked = dtype_attribute(cx.node, "output_dtype")?;
    let found = cx.optional(2).map(Tensor::dtype);
    if let (Some(a), Some(f)) = (asked, found)
        && a != f
    {
        return Err(Error::invalid(format!(
            "output_dtype is {a}, the zero point is of {f}"
        )));
    }
    let dtype = found.or(asked).unwrap_or(DType::U8);
    // The quotient is rounded to the type that the standard names, then to the grid.
    let precision = match dtype_attribute(cx.node, "precision")? {
        Some(p) => p,
        None if x.dtype().is_float() => cx.input(1)?.dtype(),
        None => DType::F32,
    };
    let quotients = any(x)?.into_iter().zip(&scales.of);
    let quotients = quotients.map(|(v, &s)| v / scales.scale[s]).collect();
    let quotients = rounded(precision, quotients)?;
    let y = quantize(
        dtype,
        x.dims(),
        &quotients,
        &scales,
        cx.int("saturate", 1) != 0,
    )?;
    Ok(vec![y])
}

fn quantize(
    dtype: DType,
    dims: &[usize],
    quotients: &[f64],
    scales: &Scales,
    saturate: bool,
) -> Result<Tensor> {
    let shifted = quotients.iter().zip(&scales.of);
    if dtype.is_integer() {
        let y: Vec<i128> = shifted
            .map(|(&q, &s)| to_grid(q, scales.zero[s], dtype))
            .collect();
        return from_integers(dtype, dims, &y);
    }
    let y: Vec<f64> = shifted.map(|(&q, &s)| q + scales.zero[s]).collect();
    packed::encode_floats(dtype, dims, &y, saturate)
}

/// `quotient`, rounded half to even, plus `zero`, kept in the range of `dtype`; NaN is `zero`.
pub fn to_grid(quotient: f64, zero: f64, dtype: DType) -> i128 {
    let (low, high) = range(dtype);
    ((quotient.round_ties_even() as i128).saturating_add(zero as i128)).clamp(low, high)
}

fn eval_dequantize(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let scales = Scales::of(cx, x.dims())?;
    let found = cx.input(1)?.dtype();
    let dtype = dtype_attribute(cx.node, "output_dtype")?.unwrap_or(match found {
        DType::F8E8M0 => DType::F32,
        other => other,
    });
    let y = any(x)?.into_iter().zip(&scales.of);
    let y = y.map(|(v, &s)| (v - scales.zero[s]) * scales.scale[s]);
    Ok(vec![from_floats(dtype, x.dims(), y.collect())?])
}

fn eval_dynamic(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (y, scale, zero) = quantize_dynamically(cx.input(0)?)?;
    Ok(vec![y, Tensor::scalar(scale), Tensor::scalar(zero)])
}

/// `x` in unsigned 8 bits over its range with zero, and its scale and zero point.
///
/// # Errors
/// When `x` is not of f32.
pub fn quantize_dynamically(x: &Tensor) -> Result<(Tensor, f32, u8)> {
    let data = x.data::<f32>()?;
    let low = data.iter().fold(0f32, |m, &v| m.min(v));
    let high = data.iter().fold(0f32, |m, &v| m.max(v));
    let scale = match (high - low) / 255.0 {
        0.0 => 1.0,
        s => s,
    };
    let zero = (-low / scale).clamp(0.0, 255.0).round_ties_even();
    let y: Vec<i128> = data
        .iter()
        .map(|&v| to_grid(f64::from(v / scale), f64::from(zero), DType::U8))
        .collect();
    Ok((from_integers(DType::U8, x.dims(), &y)?, scale, zero as u8))
}

fn infer_quantize(cx: &mut InferCx) -> Result<()> {
    let asked = dtype_attribute(cx.node, "output_dtype")?;
    let dtype = match cx.has(2) {
        true => cx.dtype(2),
        false => Some(asked.unwrap_or(DType::U8)),
    };
    let shape = cx.shape(0).cloned();
    cx.set_tensor(0, dtype, shape);
    Ok(())
}

fn infer_dequantize(cx: &mut InferCx) -> Result<()> {
    let asked = dtype_attribute(cx.node, "output_dtype")?;
    let dtype = asked.or(cx.dtype(1).map(|d| match d {
        DType::F8E8M0 => DType::F32,
        other => other,
    }));
    let shape = cx.shape(0).cloned();
    cx.set_tensor(0, dtype, shape);
    Ok(())
}

/// The integers of a tensor less its zero points: none, one, or one for each index of `axis`.
///
/// # Errors
/// When the zero points do not fit.
pub fn centred(x: &Tensor, zero: Option<&Tensor>, axis: i64) -> Result<Vec<i64>> {
    for t in [Some(x), zero].into_iter().flatten() {
        if t.dtype().bits() > 16 {
            let ty = t.ty();
            return Err(Error::invalid(format!(
                "expected 8-bit integers, found {ty}"
            )));
        }
    }
    let values = integers(x)?;
    let Some(zero) = zero else {
        return Ok(values.into_iter().map(|v| v as i64).collect());
    };
    let of = scale_indices(x.dims(), zero.dims(), axis, 0)?;
    let zero = integers(zero)?;
    let values = values.into_iter().zip(of);
    Ok(values.map(|(v, z)| (v - zero[z]) as i64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_share_a_scale_along_their_axis() {
        assert_eq!(
            scale_indices(&[2, 3], &[2, 2], 1, 2).unwrap(),
            [0, 0, 1, 2, 2, 3]
        );
        assert_eq!(
            scale_indices(&[3, 2], &[2, 2], 0, 2).unwrap(),
            [0, 1, 0, 1, 2, 3]
        );
        assert_eq!(scale_indices(&[2, 2], &[2], 0, 0).unwrap(), [0, 0, 1, 1]);
        assert!(scale_indices(&[2, 2], &[3], 0, 0).is_err());
        assert!(scale_indices(&[], &[3], 1, 0).is_err());
    }

    #[test]
    fn halves_go_to_even_and_ends_hold() {
        assert_eq!(to_grid(2.5, 0.0, DType::I8), 2);
        assert_eq!(to_grid(3.5, 0.0, DType::I8), 4);
        assert_eq!(to_grid(1e30, 5.0, DType::U4), 15);
        assert_eq!(to_grid(-1e30, 5.0, DType::I4), -8);
        assert_eq!(to_grid(f64::NAN, 5.0, DType::U8), 5);
    }
}

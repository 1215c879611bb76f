//! Products of integers: MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv.

use super::arith::{any, floats, from_integers, integers};
use super::conv::{self, Convolution, add_bias};
use super::matmul::{Product, product_shape};
use super::quantize::{centred, scale_indices, to_grid};
use super::{Arity, OpDef};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::{DType, Error, Result, Tensor};

/// ONNX MatMulInteger.
pub static MAT_MUL_INTEGER: OpDef = OpDef {
    name: "MatMulInteger",
    since: &[10],
    inputs: Arity(2, 4),
    infer: |cx| infer_product(cx, 1, Some(DType::I32)),
    eval: Some(|cx| {
        let (a, b) = (cx.input(0)?, cx.input(1)?);
        let (dims, sums) = multiply(a, cx.optional(2), b, cx.optional(3))?;
        Ok(vec![sums_tensor(&dims, &sums)?])
    }),
    examples: &["MatMulInteger(u8[2,3], i8[3,4], u8{7})"],
    ..OpDef::BASE
};

/// ONNX QLinearMatMul.
pub static Q_LINEAR_MAT_MUL: OpDef = OpDef {
    name: "QLinearMatMul",
    since: &[10, 21],
    inputs: Arity(8, 8),
    infer: |cx| infer_product(cx, 3, cx.dtype(7)),
    eval: Some(eval_matmul),
    examples: &[
        "QLinearMatMul(u8[2,3], f32{0.1}, u8{128}, u8[3,4], f32{0.2}, u8{127}, f32{0.3}, u8{120})",
    ],
    ..OpDef::BASE
};

/// ONNX ConvInteger.
pub static CONV_INTEGER: OpDef = OpDef {
    name: "ConvInteger",
    since: &[10],
    inputs: Arity(2, 4),
    attrs: conv::ATTRS,
    infer: |cx| conv::infer(cx, 1, Some(DType::I32)),
    eval: Some(|cx| {
        let (x, w) = (cx.input(0)?, cx.input(1)?);
        let conv = Convolution::of(cx.node, x, w)?;
        let x = centred(x, cx.optional(2), 1)?;
        let w = centred(w, cx.optional(3), 0)?;
        Ok(vec![sums_tensor(&conv.dims, &conv.convolve(&x, &w))?])
    }),
    examples: &["ConvInteger(u8[1,2,5,5], i8[3,2,3,3], u8{128})"],
    ..OpDef::BASE
};

/// ONNX QLinearConv.
pub static Q_LINEAR_CONV: OpDef = OpDef {
    name: "QLinearConv",
    since: &[10],
    inputs: Arity(8, 9),
    attrs: conv::ATTRS,
    infer: |cx| conv::infer(cx, 3, cx.dtype(7)),
    eval: Some(eval_conv),
    examples: &[
        "QLinearConv(u8[1,2,5,5], f32{0.1}, u8{128}, i8[3,2,3,3], f32{0.2}, i8{0}, f32{0.3}, u8{9})",
    ],
    ..OpDef::BASE
};

fn sums_tensor(dims: &[usize], sums: &[i64]) -> Result<Tensor> {
    Tensor::from_vec(dims, sums.iter().map(|&v| v as i32).collect())
}

/// Dimensions and sums of a product of integers. Zero points are by row of `a` or by column
/// of `b`.
///
/// # Errors
/// When the lengths of the operands or of their zero points do not fit.
pub fn multiply(
    a: &Tensor,
    a_zero: Option<&Tensor>,
    b: &Tensor,
    b_zero: Option<&Tensor>,
) -> Result<(Vec<usize>, Vec<i64>)> {
    let product = Product::of(a.dims(), b.dims())?;
    let a = centred(a, a_zero, -2)?;
    let b = centred(b, b_zero, -1)?;
    let sums = product.multiply(&a, &b)?;
    Ok((product.dims, sums))
}

/// The rule of matrix products: input 0 times input `b`, of element type `dtype`.
///
/// # Errors
/// When known lengths do not fit.
pub fn infer_product(cx: &mut InferCx, b: usize, dtype: Option<DType>) -> Result<()> {
    let shape = product_shape(cx.shape(0), cx.shape(b))?;
    cx.set_tensor(0, dtype, shape);
    Ok(())
}

/// The one number in an input.
///
/// # Errors
/// When the input is missing or does not hold one number.
pub fn single(cx: &EvalCx, i: usize) -> Result<f64> {
    let t = cx.input(i)?;
    match any(t)?[..] {
        [v] => Ok(v),
        _ => Err(Error::invalid(format!(
            "input {i} should be one number, found {}",
            t.ty()
        ))),
    }
}

/// Sums times the real scale of each, over the output's scale, on the output's grid. The factor
/// is made in single precision, as runtimes do.
///
/// # Errors
/// When `dims` does not fit the sums.
pub fn requantize(
    dims: &[usize],
    sums: &[i64],
    factor: impl Fn(usize) -> f32,
    zero: f64,
    dtype: DType,
) -> Result<Tensor> {
    let y: Vec<i128> = sums
        .iter()
        .enumerate()
        .map(|(i, &sum)| to_grid(f64::from(sum as f32 * factor(i)), zero, dtype))
        .collect();
    from_integers(dtype, dims, &y)
}

fn eval_matmul(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (a, b) = (cx.input(0)?, cx.input(3)?);
    let (dims, sums) = multiply(a, cx.optional(2), b, cx.optional(5))?;
    let rows = floats(cx.input(1)?)?;
    let columns = floats(cx.input(4)?)?;
    let of_row = scale_indices(&dims, &scale_dims(rows.len()), -2, 0)?;
    let of_column = scale_indices(&dims, &scale_dims(columns.len()), -1, 0)?;
    let out = single(cx, 6)? as f32;
    let factor = |i: usize| rows[of_row[i]] as f32 * columns[of_column[i]] as f32 / out;
    let y = requantize(&dims, &sums, factor, single(cx, 7)?, cx.input(7)?.dtype())?;
    Ok(vec![y])
}

/// The shape that stands for `count` scales, wherever their tensor has axes of length 1.
pub fn scale_dims(count: usize) -> Vec<usize> {
    if count == 1 { Vec::new() } else { vec![count] }
}

/// QLinearConv on data of (batch, channels, spatial).
///
/// # Errors
/// When shapes, scales and attributes do not fit each other.
pub fn eval_conv(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (x, w) = (cx.input(0)?, cx.input(3)?);
    let conv = Convolution::of(cx.node, x, w)?;
    let mut sums = conv.convolve(
        &centred(x, cx.optional(2), 1)?,
        &centred(w, cx.optional(5), 0)?,
    );
    let (filters, plane) = (conv.dims[1], conv.dims[2..].iter().product::<usize>());
    if let Some(b) = cx.optional(8) {
        super::arith::expect_dims("the bias", b, &[filters])?;
        let bias: Vec<i64> = integers(b)?.into_iter().map(|v| v as i64).collect();
        add_bias(&mut sums, &bias, plane);
    }
    let scales = floats(cx.input(4)?)?;
    let of = scale_indices(&[filters], &scale_dims(scales.len()), 0, 0)?;
    let (x_scale, out) = (single(cx, 1)? as f32, single(cx, 6)? as f32);
    let factor = |i: usize| x_scale * scales[of[i / plane % filters]] as f32 / out;
    let (zero, dtype) = (single(cx, 7)?, cx.input(7)?.dtype());
    Ok(vec![requantize(&conv.dims, &sums, factor, zero, dtype)?])
}

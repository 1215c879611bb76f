//! Products with quantised operands: QGemm, MatMulIntegerToFloat, DynamicQuantizeMatMul,
//! MatMulInteger16.

use super::BASE;
use super::grid::Grid;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::{expand, expect_dims, expect_rank, floats, from_floats, integers};
use crate::ops::quantize::{quantize_dynamically, scale_indices};
use crate::ops::quantized::{infer_product, multiply, requantize, scale_dims, single};
use crate::ops::{Arity, AttrKind, OpDef, attr, layout};
use crate::{DType, Dim, Error, Result, Shape, Tensor};

/// `com.microsoft.QGemm`: quantised where scale and zero point of the result are given, float
/// without.
pub static Q_GEMM: OpDef = OpDef {
    name: "QGemm",
    inputs: Arity(6, 9),
    attrs: &[
        attr("alpha", AttrKind::Float(Some(1.0))),
        attr("transA", AttrKind::Int(Some(0))),
        attr("transB", AttrKind::Int(Some(0))),
    ],
    infer: infer_gemm,
    eval: Some(eval_gemm),
    examples: &[
        "com.microsoft.QGemm(u8[2,3], f32{0.1}, u8{4}, i8[3,4], f32{0.2}, i8{1}, i32[4], f32{0.3}, u8{9})",
        "com.microsoft.QGemm(u8[3,2], f32{0.1}, u8{4}, i8[4,3], f32[4]{0.1,0.2,0.3,0.4}, \
         i8[4]{0,1,2,3}) {transA=1, transB=1, alpha=0.5}",
    ],
    ..BASE
};

/// `com.microsoft.MatMulIntegerToFloat`: a product of integers, scaled, plus a bias.
pub static MAT_MUL_INTEGER_TO_FLOAT: OpDef = OpDef {
    name: "MatMulIntegerToFloat",
    inputs: Arity(4, 7),
    infer: |cx| infer_product(cx, 1, cx.dtype(2)),
    eval: Some(|cx| {
        let (a, b) = (cx.input(0)?, cx.input(1)?);
        let (dims, sums) = multiply(a, cx.optional(4), b, cx.optional(5))?;
        let scale = cx.input(2)?;
        let rows: Vec<f32> = floats(scale)?.into_iter().map(|s| s as f32).collect();
        let y = scaled(cx, &dims, &sums, &rows, (3, 6))?;
        Ok(vec![from_floats(scale.dtype(), &dims, y)?])
    }),
    examples: &[
        "com.microsoft.MatMulIntegerToFloat(u8[2,3], i8[3,4], f32{0.1}, f32[4]{0.1,0.2,0.3,0.4}, \
         u8{3}, i8[4]{0,1,2,3}, f32[4])",
        "com.microsoft.MatMulIntegerToFloat(i8[5,2,3], i8[3,4], f32{0.1}, f32{0.2})",
    ],
    ..BASE
};

/// `com.microsoft.DynamicQuantizeMatMul`: the first operand in 8 bits over its own range, times
/// quantised weights.
pub static DYNAMIC_QUANTIZE_MAT_MUL: OpDef = OpDef {
    name: "DynamicQuantizeMatMul",
    inputs: Arity(3, 5),
    infer: |cx| infer_product(cx, 1, cx.dtype(0)),
    eval: Some(|cx| {
        let (a, a_scale, a_zero) = quantize_dynamically(cx.input(0)?)?;
        let zero = Tensor::scalar(a_zero);
        let (dims, sums) = multiply(&a, Some(&zero), cx.input(1)?, cx.optional(3))?;
        let y = scaled(cx, &dims, &sums, &[a_scale], (2, 4))?;
        Ok(vec![from_floats(DType::F32, &dims, y)?])
    }),
    examples: &[
        "com.microsoft.DynamicQuantizeMatMul(f32[2,3], i8[3,4], f32[4]{0.1,0.2,0.3,0.4}, _, f32[4])",
        "com.microsoft.DynamicQuantizeMatMul(f32[5,2,3], u8[3,4], f32{0.1}, u8{7})",
    ],
    ..BASE
};

/// `com.microsoft.MatMulInteger16`: a product of 16-bit integers in 32 bits.
pub static MAT_MUL_INTEGER_16: OpDef = OpDef {
    name: "MatMulInteger16",
    inputs: Arity(2, 2),
    infer: |cx| {
        let unsigned = cx.dtype(0) == Some(DType::U16) && cx.dtype(1) == Some(DType::U16);
        let dtype = if unsigned { DType::U32 } else { DType::I32 };
        infer_product(cx, 1, Some(dtype))
    },
    eval: Some(|cx| {
        let (a, b) = (cx.input(0)?, cx.input(1)?);
        let (dims, sums) = multiply(a, None, b, None)?;
        let sums = sums.into_iter();
        Ok(vec![match (a.dtype(), b.dtype()) {
            (DType::U16, DType::U16) => Tensor::from_vec(&dims, sums.map(|v| v as u32).collect())?,
            _ => Tensor::from_vec(&dims, sums.map(|v| v as i32).collect())?,
        }])
    }),
    examples: &["com.microsoft.MatMulInteger16(i16[2,3], i16[3,4])"],
    ..BASE
};

/// Sums times the scales of rows and of columns (input `columns`), plus the bias in input `bias`.
/// The arithmetic is in single precision.
fn scaled(
    cx: &EvalCx,
    dims: &[usize],
    sums: &[i64],
    rows: &[f32],
    (columns, bias): (usize, usize),
) -> Result<Vec<f64>> {
    let columns = floats(cx.input(columns)?)?;
    let of_row = scale_indices(dims, &scale_dims(rows.len()), -2, 0)?;
    let of_column = scale_indices(dims, &scale_dims(columns.len()), -1, 0)?;
    let bias = match cx.optional(bias) {
        None => vec![0.0; sums.len()],
        Some(b) => {
            expect_dims("the bias", b, &dims[dims.len().saturating_sub(1)..])?;
            expand(&floats(b)?, b.dims(), dims)?
        }
    };
    let y = sums.iter().enumerate().map(|(i, &sum)| {
        let scale = rows[of_row[i]] * columns[of_column[i]] as f32;
        f64::from(sum as f32 * scale + bias[i] as f32)
    });
    Ok(y.collect())
}

/// The matrix in input `i`, transposed where attribute `name` says so.
fn matrix(cx: &EvalCx, i: usize, name: &str) -> Result<Tensor> {
    let t = cx.input(i)?;
    expect_rank(&format!("input {i}"), t, 2..=2)?;
    if cx.int(name, 0) == 0 {
        return Ok(t.clone());
    }
    let (rows, columns) = (t.dims()[0], t.dims()[1]);
    let step = isize::try_from(columns).map_err(|_| Error::invalid("the matrix is too wide"))?;
    layout::strided(t, &[columns, rows], &[1, step], 0)
}

fn eval_gemm(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (a, b) = (matrix(cx, 0, "transA")?, matrix(cx, 3, "transB")?);
    let (dims, mut sums) = multiply(&a, cx.optional(2), &b, cx.optional(5))?;
    if let Some(c) = cx.optional(6) {
        let c = expand(&integers(c)?, c.dims(), &dims)?;
        sums.iter_mut().zip(c).for_each(|(s, c)| *s += c as i64);
    }
    let alpha = cx.float("alpha", 1.0) * single(cx, 1)? as f32;
    let columns = floats(cx.input(4)?)?;
    let of_column = scale_indices(&dims, &scale_dims(columns.len()), -1, 0)?;
    let factor = |i: usize| alpha * columns[of_column[i]] as f32;
    if cx.optional(7).is_none() {
        let y = sums.iter().enumerate().map(|(i, &s)| s as f32 * factor(i));
        return Ok(vec![Tensor::from_vec(&dims, y.collect())?]);
    }
    let to = Grid::of(cx, 7, cx.input(8)?.dtype())?;
    let y = requantize(
        &dims,
        &sums,
        |i| factor(i) / to.scale,
        to.zero as f64,
        to.dtype,
    )?;
    Ok(vec![y])
}

fn infer_gemm(cx: &mut InferCx) -> Result<()> {
    let length = |i: usize, name: &str, axis: usize| {
        let swap = usize::from(cx.node.int(name).unwrap_or(0) != 0);
        let shape = cx.shape(i).filter(|s| s.rank() == 2);
        shape.map_or(Dim::Unknown, |s| s[axis ^ swap].clone())
    };
    let (rows, columns) = (length(0, "transA", 0), length(3, "transB", 1));
    let (a, b) = (length(0, "transA", 1), length(3, "transB", 0));
    if a.unify(&b).is_none() {
        return Err(Error::invalid(format!(
            "the summed axes have lengths {a} and {b}"
        )));
    }
    let dtype = match cx.has(7) {
        true => cx.dtype(8),
        false => Some(DType::F32),
    };
    let shape: Shape = [rows, columns].into_iter().collect();
    cx.set_tensor(0, dtype, Some(shape));
    Ok(())
}

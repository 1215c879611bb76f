//! MatMul with numpy's rules and Gemm, of floats and integers.

use std::num::Wrapping;
use std::ops::{Add, Mul};

use super::arith::{
    broadcast_dims, broadcast_indices, expand, expect_rank, floats, from_floats, from_integers,
    integers,
};
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::{Dim, Error, Result, Shape, Tensor, checked_count};

/// ONNX MatMul, numpy's `matmul`.
pub static MAT_MUL: OpDef = OpDef {
    name: "MatMul",
    since: &[1, 9, 13],
    inputs: Arity(2, 2),
    infer: infer_first_type,
    eval: Some(eval_matmul),
    examples: &[
        "MatMul(f32[2,3], f32[3,4])",
        "MatMul(f32[5,2,3], f32[3])",
        "MatMul(f32[2,1,2,3], f32[4,3,2])",
    ],
    ..OpDef::BASE
};

/// ONNX Gemm: α · A · B + β · C.
pub static GEMM: OpDef = OpDef {
    name: "Gemm",
    since: &[1, 6, 7, 9, 11, 13],
    inputs: Arity(2, 3),
    attrs: &[
        attr("alpha", AttrKind::Float(Some(1.0))),
        attr("beta", AttrKind::Float(Some(1.0))),
        attr("broadcast", AttrKind::Int(None)),
        attr("transA", AttrKind::Int(Some(0))),
        attr("transB", AttrKind::Int(Some(0))),
    ],
    infer: infer_gemm,
    eval: Some(eval_gemm),
    examples: &[
        "Gemm(f32[2,3], f32[3,4], f32[4])",
        "Gemm(f32[2,3], f32[4,3]) {transB=1}",
    ],
    ..OpDef::BASE
};

/// A number that products are summed in.
pub trait Number: Copy + Default + Add<Output = Self> + Mul<Output = Self> {}

impl Number for f64 {}
impl Number for i64 {}
impl Number for Wrapping<i64> {}

/// The shapes of a matrix product: rows, the summed axis, columns, and the axes in front.
pub struct Product {
    /// Rows of a matrix of the first operand.
    pub m: usize,
    /// The axis summed over.
    pub k: usize,
    /// Columns of a matrix of the second operand.
    pub n: usize,
    /// Lengths of the axes in front, broadcast.
    pub batch: Vec<usize>,
    /// Lengths of the result.
    pub dims: Vec<usize>,
    batch_a: Vec<usize>,
    batch_b: Vec<usize>,
}

impl Product {
    /// The product of operands of lengths `a` and `b`.
    ///
    /// # Errors
    /// When an operand has no axes, or the lengths do not fit.
    pub fn of(a: &[usize], b: &[usize]) -> Result<Self> {
        let mismatch = || {
            Error::invalid(format!(
                "{} and {} cannot be multiplied",
                Shape::fixed(a),
                Shape::fixed(b)
            ))
        };
        let (Some(&k), false) = (a.last(), b.is_empty()) else {
            return Err(mismatch());
        };
        let (row, column) = (a.len() == 1, b.len() == 1);
        let m = if row { 1 } else { a[a.len() - 2] };
        let (inner, n) = if column {
            (b[0], 1)
        } else {
            (b[b.len() - 2], b[b.len() - 1])
        };
        if inner != k {
            return Err(mismatch());
        }
        let batch_a = a[..a.len().saturating_sub(2)].to_vec();
        let batch_b = b[..b.len().saturating_sub(2)].to_vec();
        let batch = broadcast_dims(&[&batch_a, &batch_b])?;
        let mut dims = batch.clone();
        if !row {
            dims.push(m);
        }
        if !column {
            dims.push(n);
        }
        checked_count(&dims)?;
        Ok(Self {
            m,
            k,
            n,
            batch,
            dims,
            batch_a,
            batch_b,
        })
    }

    /// The elements of the product.
    ///
    /// # Errors
    /// When the result is too large.
    pub fn multiply<T: Number>(&self, a: &[T], b: &[T]) -> Result<Vec<T>> {
        let (m, k, n) = (self.m, self.k, self.n);
        let mut y = vec![T::default(); checked_count(&self.dims)?];
        if y.is_empty() {
            return Ok(y);
        }
        let of_a = broadcast_indices(&self.batch_a, &self.batch)?;
        let of_b = broadcast_indices(&self.batch_b, &self.batch)?;
        let pairs = of_a.into_iter().zip(of_b);
        for (y, (ia, ib)) in y.chunks_mut(m * n).zip(pairs) {
            let (a, b) = (&a[ia * m * k..][..m * k], &b[ib * k * n..][..k * n]);
            for (row, y) in y.chunks_mut(n).enumerate() {
                for i in 0..k {
                    let factor = a[row * k + i];
                    for (y, &b) in y.iter_mut().zip(&b[i * n..]) {
                        *y = *y + factor * b;
                    }
                }
            }
        }
        Ok(y)
    }
}

fn eval_matmul(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    same_types(a, b)?;
    let product = Product::of(a.dims(), b.dims())?;
    if a.dtype().is_float() {
        let y = product.multiply(&floats(a)?, &floats(b)?)?;
        return Ok(vec![from_floats(a.dtype(), &product.dims, y)?]);
    }
    let wide = |t: &Tensor| -> Result<Vec<Wrapping<i64>>> {
        Ok(integers(t)?
            .into_iter()
            .map(|v| Wrapping(v as i64))
            .collect())
    };
    let y = product.multiply(&wide(a)?, &wide(b)?)?;
    let y: Vec<i128> = y.into_iter().map(|v| i128::from(v.0)).collect();
    Ok(vec![from_integers(a.dtype(), &product.dims, &y)?])
}

fn same_types(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dtype() == b.dtype() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "operands of one type expected, found {} and {}",
        a.ty(),
        b.ty()
    )))
}

fn eval_gemm(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    same_types(a, b)?;
    expect_rank("operand A", a, 2..=2)?;
    expect_rank("operand B", b, 2..=2)?;
    let (a_dims, a_data) = transposed(a, cx.int("transA", 0) != 0)?;
    let (b_dims, b_data) = transposed(b, cx.int("transB", 0) != 0)?;
    let product = Product::of(&a_dims, &b_dims)?;
    let alpha = f64::from(cx.float("alpha", 1.0));
    let beta = f64::from(cx.float("beta", 1.0));
    let mut y = product.multiply(&a_data, &b_data)?;
    y.iter_mut().for_each(|v| *v *= alpha);
    if let Some(c) = cx.optional(2) {
        let c = expand(&super::arith::any(c)?, c.dims(), &product.dims)?;
        y.iter_mut().zip(c).for_each(|(v, c)| *v += beta * c);
    }
    if a.dtype().is_float() {
        return Ok(vec![from_floats(a.dtype(), &product.dims, y)?]);
    }
    let y: Vec<i128> = y.into_iter().map(|v| v as i128).collect();
    Ok(vec![from_integers(a.dtype(), &product.dims, &y)?])
}

fn transposed(t: &Tensor, swap: bool) -> Result<([usize; 2], Vec<f64>)> {
    let data = super::arith::any(t)?;
    let (rows, columns) = (t.dims()[0], t.dims()[1]);
    if !swap {
        return Ok(([rows, columns], data));
    }
    let swapped = (0..columns)
        .flat_map(|c| (0..rows).map(move |r| r * columns + c))
        .map(|i| data[i])
        .collect();
    Ok(([columns, rows], swapped))
}

fn infer_first_type(cx: &mut InferCx) -> Result<()> {
    let shape = product_shape(cx.shape(0), cx.shape(1))?;
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

/// The shape of the matrix product of two shapes; `None` where a rank is unknown.
///
/// # Errors
/// When an operand has no axes, or known lengths do not fit.
pub fn product_shape(a: Option<&Shape>, b: Option<&Shape>) -> Result<Option<Shape>> {
    let (Some(a), Some(b)) = (a, b) else {
        return Ok(None);
    };
    let mismatch = || Error::invalid(format!("{a} and {b} cannot be multiplied"));
    if a.rank() == 0 || b.rank() == 0 {
        return Err(mismatch());
    }
    let inner = &b[b.rank().saturating_sub(2)];
    a[a.rank() - 1].unify(inner).ok_or_else(mismatch)?;
    let front = |s: &Shape| {
        s[..s.rank().saturating_sub(2)]
            .iter()
            .cloned()
            .collect::<Shape>()
    };
    let mut out = infer::broadcast(&[Some(&front(a)), Some(&front(b))])?.unwrap_or_default();
    if a.rank() > 1 {
        out.0.push(a[a.rank() - 2].clone());
    }
    if b.rank() > 1 {
        out.0.push(b[b.rank() - 1].clone());
    }
    Ok(Some(out))
}

fn infer_gemm(cx: &mut InferCx) -> Result<()> {
    let side = |i: usize, attr: &str, axis: usize| -> Result<Dim> {
        let swap = usize::from(cx.node.int(attr).unwrap_or(0) != 0);
        match cx.shape(i) {
            None => Ok(Dim::Unknown),
            Some(s) if s.rank() == 2 => Ok(s[axis ^ swap].clone()),
            Some(s) => Err(Error::invalid(format!(
                "operand {i} should have 2 axes, found {s}"
            ))),
        }
    };
    let (inner_a, inner_b) = (side(0, "transA", 1)?, side(1, "transB", 0)?);
    if inner_a.unify(&inner_b).is_none() {
        return Err(Error::invalid(format!(
            "the summed axes have lengths {inner_a} and {inner_b}"
        )));
    }
    let shape = [side(0, "transA", 0)?, side(1, "transB", 1)?]
        .into_iter()
        .collect();
    cx.set_tensor(0, cx.dtype(0), Some(shape));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_times_a_stack_of_matrices_drops_its_axis() {
        let p = Product::of(&[2], &[3, 2, 2]).unwrap();
        assert_eq!(p.dims, [3, 2]);
        let b: Vec<i64> = (0..12).collect();
        assert_eq!(
            p.multiply(&[1, 10], &b).unwrap(),
            [20, 31, 64, 75, 108, 119]
        );
        assert!(Product::of(&[], &[1]).is_err());
        assert!(Product::of(&[2, 3], &[2, 3]).is_err());
    }

    #[test]
    fn shapes_follow_symbols_through_a_product() {
        let a = Shape([Dim::symbol("n"), Dim::Known(3)].into_iter().collect());
        let y = product_shape(Some(&a), Some(&Shape::fixed(&[3, 5])))
            .unwrap()
            .unwrap();
        assert_eq!(y[0], Dim::symbol("n"));
        assert_eq!(y[1], Dim::Known(5));
    }
}

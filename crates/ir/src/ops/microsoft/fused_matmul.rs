//! FusedMatMul: a matrix product with a factor, of operands that may be transposed.

use super::BASE;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::{floats, from_floats};
use crate::ops::layout;
use crate::ops::matmul::{Product, product_shape};
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::{Error, Node, Result, Shape, Tensor};

/// `alpha · A · B`, numpy's `matmul`; `transA` swaps the last two axes of A, `transBatchA` moves
/// its first axis to the one before the last, and so for B. Operands of one axis are not
/// transposed.
pub static FUSED_MATMUL: OpDef = OpDef {
    name: "FusedMatMul",
    inputs: Arity(2, 2),
    attrs: &[
        attr("alpha", AttrKind::Float(Some(1.0))),
        attr("transA", AttrKind::Int(Some(0))),
        attr("transB", AttrKind::Int(Some(0))),
        attr("transBatchA", AttrKind::Int(Some(0))),
        attr("transBatchB", AttrKind::Int(Some(0))),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "com.microsoft.FusedMatMul(f32[2,3], f32[3,4]) {alpha=0.5}",
        "com.microsoft.FusedMatMul(f32[2,4,3], f32[5,3]) {transB=1}",
        "com.microsoft.FusedMatMul(f32[2,3,4], f32[2,5,3]) {transA=1, transB=1, alpha=-2.0}",
        "com.microsoft.FusedMatMul(f32[3,2,4], f32[2,4,5]) {transBatchA=1}",
        "com.microsoft.FusedMatMul(f32[2,3,4], f32[5,2,4]) {transB=1, transBatchB=1}",
    ],
    ..BASE
};

/// The order of the axes of operand A or B of a node, before it is multiplied.
///
/// # Errors
/// When `transBatch` is asked of fewer than three axes.
pub fn order(node: &Node, operand: &str, rank: usize) -> Result<Vec<usize>> {
    let is_set = |what: &str| node.int(&format!("{what}{operand}")).unwrap_or(0) != 0;
    let mut order: Vec<usize> = (0..rank).collect();
    if is_set("transBatch") {
        if rank < 3 {
            return Err(Error::invalid(format!(
                "transBatch{operand} needs three axes, operand {operand} has {rank}"
            )));
        }
        order[..rank - 1].rotate_left(1);
    }
    if is_set("trans") && rank > 1 {
        order.swap(rank - 2, rank - 1);
    }
    Ok(order)
}

fn operand(cx: &EvalCx, i: usize, name: &str) -> Result<Tensor> {
    let t = cx.input(i)?;
    let strides = layout::strides(t.dims());
    let order = order(cx.node, name, t.rank())?;
    let dims: layout::Dims = order.iter().map(|&a| t.dims()[a]).collect();
    let strides: Vec<isize> = order.iter().map(|&a| strides[a]).collect();
    layout::strided(t, &dims, &strides, 0)
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (a, b) = (operand(cx, 0, "A")?, operand(cx, 1, "B")?);
    let product = Product::of(a.dims(), b.dims())?;
    let alpha = f64::from(cx.float("alpha", 1.0));
    let mut y = product.multiply(&floats(&a)?, &floats(&b)?)?;
    y.iter_mut().for_each(|v| *v *= alpha);
    Ok(vec![from_floats(a.dtype(), &product.dims, y)?])
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let side = |i: usize, name: &str| -> Result<Option<Shape>> {
        let Some(shape) = cx.shape(i) else {
            return Ok(None);
        };
        let order = order(cx.node, name, shape.rank())?;
        Ok(Some(order.iter().map(|&a| shape[a].clone()).collect()))
    };
    let (a, b) = (side(0, "A")?, side(1, "B")?);
    let shape = product_shape(a.as_ref(), b.as_ref())?;
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

//! Gradients of what is done to the lines of one axis: `<Op>Grad(X, dY) -> dX`.

use super::BASE;
use crate::eval::EvalCx;
use crate::ops::arith::{expect_dims, expect_rank, floats, from_floats};
use crate::ops::norm::{LP_NORMALIZATION, LRN, Lrn};
use crate::ops::{Arity, EvalFn, OpDef};
use crate::{Result, Tensor, infer};

const fn row(
    of: &'static OpDef,
    name: &'static str,
    eval: EvalFn,
    examples: &'static [&'static str],
) -> OpDef {
    OpDef {
        name,
        inputs: Arity(2, 2),
        attrs: of.attrs,
        eval: Some(eval),
        examples,
        ..BASE
    }
}

/// Makes each line of input 1, the gradient, that of the result, by the line of input 0; a line has
/// `length` elements, `inner` apart.
///
/// # Errors
/// When the two inputs differ in shape, or hold no floats.
pub fn along(
    cx: &EvalCx,
    length: usize,
    inner: usize,
    f: impl Fn(&[f64], &mut [f64]),
) -> Result<Vec<Tensor>> {
    let (y, dy) = (cx.input(0)?, cx.input(1)?);
    expect_dims("the gradient", dy, y.dims())?;
    let (ys, mut ds) = (floats(y)?, floats(dy)?);
    let block = (length * inner).max(1);
    let (mut line, mut grad) = (vec![0.0; length], vec![0.0; length]);
    for (ys, ds) in ys.chunks(block).zip(ds.chunks_mut(block)) {
        for i in 0..inner {
            for k in 0..length {
                (line[k], grad[k]) = (ys[k * inner + i], ds[k * inner + i]);
            }
            f(&line, &mut grad);
            for k in 0..length {
                ds[k * inner + i] = grad[k];
            }
        }
    }
    Ok(vec![from_floats(y.dtype(), y.dims(), ds)?])
}

/// The gradient of LpNormalization; 0 where the norm is.
pub static LP_NORMALIZATION_GRAD: OpDef = row(
    &LP_NORMALIZATION,
    "LpNormalizationGrad",
    |cx| {
        let x = cx.input(0)?;
        let axis = infer::axis(cx.int("axis", -1), x.rank())?;
        let inner = x.dims()[axis + 1..].iter().product();
        let of_absolutes = cx.int("p", 2) == 1;
        along(cx, x.dims()[axis], inner, |x, d| {
            let square: f64 = x.iter().map(|v| v * v).sum();
            let absolutes: f64 = x.iter().map(|v| v.abs()).sum();
            let norm = if of_absolutes {
                absolutes
            } else {
                square.sqrt()
            };
            let dot: f64 = x.iter().zip(&*d).map(|(x, d)| x * d).sum();
            for (d, &x) in d.iter_mut().zip(x) {
                let slope = match of_absolutes {
                    true if x == 0.0 => 0.0,
                    true => x.signum(),
                    false => x / norm,
                };
                *d = (*d - slope * dot / norm) / norm;
                if norm == 0.0 {
                    *d = 0.0;
                }
            }
        })
    },
    &[
        "edgesmith.LpNormalizationGrad(f32[2,3], f32[2,3]) {axis=0, p=1}",
        "edgesmith.LpNormalizationGrad(f32[2,3,4], f32[2,3,4]) {axis=1}",
    ],
);

/// The gradient of LRN.
pub static LRN_GRAD: OpDef = row(
    &LRN,
    "LRNGrad",
    |cx| {
        let x = cx.input(0)?;
        expect_rank("the input", x, 2..=usize::MAX)?;
        let (lrn, plane) = (Lrn::of(cx)?, x.dims()[2..].iter().product());
        let channels = x.dims()[1];
        along(cx, channels, plane, |x, d| {
            let bases: Vec<f64> = (0..channels).map(|c| lrn.base(x, c)).collect();
            let each = x.iter().zip(&*d).zip(&bases);
            let shares: Vec<f64> = each
                .map(|((x, d), s)| d * x * s.powf(-lrn.beta - 1.0))
                .collect();
            for (d, s) in d.iter_mut().zip(&bases) {
                *d *= s.powf(-lrn.beta);
            }
            for (c, share) in shares.iter().enumerate() {
                for k in lrn.neighbours(c, channels) {
                    d[k] -= 2.0 * lrn.beta * lrn.factor * share * x[k];
                }
            }
        })
    },
    &[
        "edgesmith.LRNGrad(f32[1,5,2,2], f32[1,5,2,2]) {size=3}",
        "edgesmith.LRNGrad(f32[2,4,3], f32[2,4,3]) {size=4, alpha=0.5, bias=2.0}",
    ],
);

//! Inverse of matrices, and CDist, the distances of rows.

use super::BASE;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::{expect_rank, floats, from_floats};
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::{Dim, Error, Result, Tensor, checked_count};

/// `com.microsoft.Inverse`, of each matrix of a batch.
pub static INVERSE: OpDef = OpDef {
    name: "Inverse",
    eval: Some(|cx| {
        let x = cx.input(0)?;
        let [.., rows, columns] = *x.dims() else {
            return Err(Error::invalid(format!(
                "expected matrices, found {}",
                x.ty()
            )));
        };
        if rows != columns {
            return Err(Error::invalid(format!("{} is not square", x.ty())));
        }
        let mut data = floats(x)?;
        for matrix in data.chunks_mut((rows * rows).max(1)) {
            let inverse = inverse(matrix, rows);
            matrix.copy_from_slice(&inverse);
        }
        Ok(vec![from_floats(x.dtype(), x.dims(), data)?])
    }),
    examples: &["com.microsoft.Inverse(f32[2,2,2]{2,1,1,1,4,0,0,0.5})"],
    ..BASE
};

/// `com.microsoft.CDist`.
pub static C_DIST: OpDef = OpDef {
    name: "CDist",
    inputs: Arity(2, 2),
    attrs: &[attr("metric", AttrKind::String(Some("sqeuclidean")))],
    infer: |cx: &mut InferCx| {
        let rows = |i: usize| cx.shape(i).and_then(|s| s.first().cloned());
        let dims = [0, 1].map(|i| rows(i).unwrap_or(Dim::Unknown));
        cx.set_tensor(0, cx.dtype(0), Some(dims.into_iter().collect()));
        Ok(())
    },
    eval: Some(distances),
    examples: &[
        "com.microsoft.CDist(f32[2,3], f32[4,3])",
        "com.microsoft.CDist(f32[2,3], f32[4,3]) {metric=\"euclidean\"}",
    ],
    ..BASE
};

/// The inverse of a matrix of `n` rows, by elimination with the largest pivot of each column.
/// Where there is none, infinities and what is no number stand in it.
fn inverse(matrix: &[f64], n: usize) -> Vec<f64> {
    let mut a = matrix.to_vec();
    let mut y: Vec<f64> = (0..n * n)
        .map(|i| if i / n == i % n { 1.0 } else { 0.0 })
        .collect();
    for c in 0..n {
        let pivot = (c..n).fold(c, |best, r| {
            if a[r * n + c].abs() > a[best * n + c].abs() {
                r
            } else {
                best
            }
        });
        for k in 0..n {
            a.swap(c * n + k, pivot * n + k);
            y.swap(c * n + k, pivot * n + k);
        }
        let scale = 1.0 / a[c * n + c];
        for k in 0..n {
            a[c * n + k] *= scale;
            y[c * n + k] *= scale;
        }
        for r in (0..n).filter(|&r| r != c) {
            let factor = a[r * n + c];
            for k in 0..n {
                a[r * n + k] -= factor * a[c * n + k];
                y[r * n + k] -= factor * y[c * n + k];
            }
        }
    }
    y
}

fn distances(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    expect_rank("the first operand", a, 2..=2)?;
    expect_rank("the second operand", b, 2..=2)?;
    let width = a.dims()[1];
    if width != b.dims()[1] {
        return Err(Error::invalid(format!(
            "rows of {} and {} differ in length",
            a.ty(),
            b.ty()
        )));
    }
    let root = match cx.node.string("metric").unwrap_or("sqeuclidean") {
        "sqeuclidean" => false,
        "euclidean" => true,
        other => {
            return Err(Error::unsupported(format!(
                "the metric \"{other}\" is not done"
            )));
        }
    };
    let dims = [a.dims()[0], b.dims()[0]];
    let count = checked_count(&dims)?;
    let (x, y) = (floats(a)?, floats(b)?);
    let distance = |i: usize| {
        let (r, s) = (i / dims[1] * width, i % dims[1] * width);
        let pairs = x[r..r + width].iter().zip(&y[s..s + width]);
        let square: f64 = pairs.map(|(p, q)| (p - q).powi(2)).sum();
        if root { square.sqrt() } else { square }
    };
    let z = (0..count).map(distance).collect();
    Ok(vec![from_floats(a.dtype(), &dims, z)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_without_first_pivot_has_an_inverse() {
        assert_eq!(inverse(&[0.0, 2.0, 4.0, 0.0], 2), [0.0, 0.25, 0.5, 0.0]);
        assert!(inverse(&[0.0], 1)[0].is_infinite());
    }
}

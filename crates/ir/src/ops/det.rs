//! Det: determinants of square matrices.

use super::OpDef;
use super::numbers::Numbers;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::{Error, Result, Tensor};

/// ONNX Det.
pub static DET: OpDef = OpDef {
    name: "Det",
    since: &[11, 22],
    infer,
    eval: Some(eval),
    examples: &["Det(f32[2,3,3])", "Det(f64[2,2]{1,2,3,4})"],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let shape = match cx.shape(0).map(|s| s.0.as_slice()) {
        Some([batch @ .., _, _]) => Some(batch.iter().cloned().collect()),
        Some(_) => return Err(Error::invalid("expected square matrices")),
        None => None,
    };
    cx.set_tensor(0, cx.dtype(0), shape);
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let (batch, n) = match x.dims() {
        [batch @ .., a, b] if a == b => (batch, *a),
        _ => {
            return Err(Error::invalid(format!(
                "expected square matrices, found {}",
                x.ty()
            )));
        }
    };
    let values = Numbers::of(x)?.into_floats();
    let count = batch.iter().product();
    let size = n * n;
    let one = |i: usize| determinant(values[i * size..(i + 1) * size].to_vec(), n);
    let out = Numbers::Float((0..count).map(one).collect());
    Ok(vec![out.tensor(x.dtype(), batch)?])
}

/// Gaussian elimination with the largest pivot of each column.
fn determinant(mut m: Vec<f64>, n: usize) -> f64 {
    let mut out = 1.0;
    for k in 0..n {
        let size = |r: &usize| m[r * n + k].abs();
        let pivot = (k..n)
            .max_by(|a, b| size(a).total_cmp(&size(b)))
            .unwrap_or(k);
        if pivot != k {
            (0..n).for_each(|j| m.swap(k * n + j, pivot * n + j));
            out = -out;
        }
        let head = m[k * n + k];
        out *= head;
        if head == 0.0 {
            return out;
        }
        for r in k + 1..n {
            let factor = m[r * n + k] / head;
            for j in k..n {
                m[r * n + j] -= factor * m[k * n + j];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swapped_identity_has_determinant_minus_one() {
        assert_eq!(determinant(vec![0.0, 1.0, 1.0, 0.0], 2), -1.0);
        assert_eq!(determinant(vec![1.0, 2.0, 2.0, 4.0], 2), 0.0);
        assert_eq!(determinant(Vec::new(), 0), 1.0);
    }
}

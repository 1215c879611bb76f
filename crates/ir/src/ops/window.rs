//! Windows over a signal: Hann, Hamming and Blackman.

use std::f64::consts::PI;

use super::numbers::{self, Numbers};
use super::{AttrDef, AttrKind, EvalFn, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{DType, Result, Tensor, checked_count};

const ATTRS: &[AttrDef] = &[
    attr("output_datatype", AttrKind::Int(Some(1))),
    attr("periodic", AttrKind::Int(Some(1))),
];

const fn row(name: &'static str, eval: EvalFn, examples: &'static [&'static str]) -> OpDef {
    OpDef {
        name,
        since: &[17],
        attrs: ATTRS,
        infer,
        eval: Some(eval),
        examples,
        ..OpDef::BASE
    }
}

/// ONNX HannWindow.
pub static HANN_WINDOW: OpDef = row(
    "HannWindow",
    |cx| window(cx, [0.5, -0.5, 0.0]),
    &["HannWindow(i64[]{7})", "HannWindow(i32[]{1}) {periodic=0}"],
);

/// ONNX HammingWindow, of the coefficients 25/46 and 21/46.
pub static HAMMING_WINDOW: OpDef = row(
    "HammingWindow",
    |cx| window(cx, [25.0 / 46.0, -21.0 / 46.0, 0.0]),
    &["HammingWindow(i64[]{6}) {output_datatype=11}"],
);

/// ONNX BlackmanWindow.
pub static BLACKMAN_WINDOW: OpDef = row(
    "BlackmanWindow",
    |cx| window(cx, [0.42, -0.5, 0.08]),
    &["BlackmanWindow(i32[]{5}) {periodic=0,output_datatype=10}"],
);

fn infer(cx: &mut InferCx) -> Result<()> {
    let dtype = numbers::dtype(cx.node, "output_datatype")?.unwrap_or(DType::F32);
    let size = cx.ints(0).and_then(|v| usize::try_from(*v.first()?).ok());
    let dim = size.map_or(Dim::Unknown, Dim::Known);
    cx.set_tensor(0, Some(dtype), Some(Shape::from_iter([dim])));
    Ok(())
}

/// Σ cₖ · cos(2πk·n/N); a window of one element whose ends are alike is 1.
fn values(size: usize, periodic: bool, c: [f64; 3]) -> Vec<f64> {
    if size == 1 && !periodic {
        return vec![1.0];
    }
    let whole = if periodic { size } else { size - 1 } as f64;
    let at = |n: usize| {
        let x = 2.0 * PI * n as f64 / whole;
        c[0] + c[1] * x.cos() + c[2] * (2.0 * x).cos()
    };
    (0..size).map(at).collect()
}

fn window(cx: &EvalCx, c: [f64; 3]) -> Result<Vec<Tensor>> {
    let size = axes::length(axes::scalar(cx.input(0)?)?, "the window")?;
    checked_count(&[size])?;
    let dtype = numbers::dtype(cx.node, "output_datatype")?.unwrap_or(DType::F32);
    let values = match size {
        0 => Vec::new(),
        _ => values(size, cx.int("periodic", 1) != 0, c),
    };
    Ok(vec![Numbers::Float(values).tensor(dtype, &[size])?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_scipy() {
        // scipy.signal.windows.hann(4, sym=True), hann(4, sym=False), blackman(5, sym=True).
        let close = |a: Vec<f64>, b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        let hann = [0.5, -0.5, 0.0];
        assert!(close(values(4, false, hann), &[0.0, 0.75, 0.75, 0.0]));
        assert!(close(values(4, true, hann), &[0.0, 0.5, 1.0, 0.5]));
        let blackman = values(5, false, [0.42, -0.5, 0.08]);
        assert!(close(blackman, &[0.0, 0.34, 1.0, 0.34, 0.0]));
        assert_eq!(values(1, false, hann), [1.0]);
    }
}

//! MelWeightMatrix: the triangles that gather a spectrum into bands of the mel scale.

use super::numbers::{self, Numbers};
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{DType, Error, Result, Tensor, checked_count};

/// ONNX MelWeightMatrix.
pub static MEL_WEIGHT_MATRIX: OpDef = OpDef {
    name: "MelWeightMatrix",
    since: &[17],
    inputs: Arity(5, 5),
    attrs: &[attr("output_datatype", AttrKind::Int(Some(1)))],
    infer,
    eval: Some(eval),
    examples: &[
        "MelWeightMatrix(i64[]{8}, i64[]{16}, i64[]{8192}, f32[]{0}, f32[]{4096})",
        "MelWeightMatrix(i32[]{3}, i32[]{32}, i32[]{16000}, f64[]{20}, f64[]{7600}) \
         {output_datatype=11}",
    ],
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let dtype = numbers::dtype(cx.node, "output_datatype")?.unwrap_or(DType::F32);
    let known = |i: usize| cx.ints(i).and_then(|v| usize::try_from(*v.first()?).ok());
    let bins = known(1).map_or(Dim::Unknown, |n| Dim::Known(n / 2 + 1));
    let bands = known(0).map_or(Dim::Unknown, Dim::Known);
    cx.set_tensor(0, Some(dtype), Some(Shape::from_iter([bins, bands])));
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let whole = |i: usize, what: &str| axes::length(axes::scalar(cx.input(i)?)?, what);
    let bands = whole(0, "the number of bands")?;
    let length = whole(1, "the length of the transform")?;
    let rate = whole(2, "the sample rate")?;
    let (low, high) = (numbers::real(cx.input(3)?)?, numbers::real(cx.input(4)?)?);
    let bins = length / 2 + 1;
    checked_count(&[bins, bands])?;
    let edges = edges(bands, length, rate, (low, high));
    let edges = edges
        .filter(|e| e.iter().all(|&e| e < bins))
        .ok_or_else(|| {
            Error::invalid(format!(
                "bands from {low} to {high} Hz lie outside a spectrum of {bins} bins at {rate} Hz"
            ))
        })?;
    let weights = triangles(&edges, bins, bands);
    let dtype = numbers::dtype(cx.node, "output_datatype")?.unwrap_or(DType::F32);
    Ok(vec![Numbers::Float(weights).tensor(dtype, &[bins, bands])?])
}

/// The bins where bands begin, peak and end: band `i` has the edges `i` to `i + 2`.
fn edges(bands: usize, length: usize, rate: usize, range: (f64, f64)) -> Option<Vec<usize>> {
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let (low, high) = (mel(range.0), mel(range.1));
    let step = (high - low) / (bands + 2) as f64;
    let bin = |i: usize| {
        let hertz = 700.0 * (10f64.powf((low + step * i as f64) / 2595.0) - 1.0);
        let bin = ((length + 1) as f64 * hertz / rate as f64).floor();
        (0.0..1e15).contains(&bin).then_some(bin as usize)
    };
    (0..bands + 2).map(bin).collect()
}

fn triangles(edges: &[usize], bins: usize, bands: usize) -> Vec<f64> {
    let mut out = vec![0.0; bins * bands];
    for (band, e) in edges.windows(3).enumerate() {
        let (low, centre, high) = (e[0], e[1], e[2]);
        for bin in low..centre {
            out[bin * bands + band] = (bin - low) as f64 / (centre - low) as f64;
        }
        out[centre * bands + band] = 1.0;
        for bin in centre..high {
            out[bin * bands + band] = (high - bin) as f64 / (high - centre) as f64;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_of_the_example_of_onnx() {
        let edges = edges(8, 16, 8192, (0.0, 4096.0)).unwrap();
        let w = triangles(&edges, 9, 8);
        let row = |i: usize| &w[i * 8..(i + 1) * 8];
        assert_eq!(row(0), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(row(1), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(row(4), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(row(5), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    }
}

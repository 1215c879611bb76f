//! Weights as f64, and back in the type that they came in.

use edgesmith_ir::{DType, Result, Tensor};
use half::{bf16, f16};

/// The elements of a tensor of f64, f32, f16 or bf16; `None` for other types.
pub(crate) fn to_f64(t: &Tensor) -> Option<Vec<f64>> {
    match t.dtype() {
        DType::F64 => Some(t.data::<f64>().ok()?.into_owned()),
        DType::F32 | DType::F16 | DType::BF16 => {
            Some(t.to_f32().ok()?.iter().map(|&x| f64::from(x)).collect())
        }
        _ => None,
    }
}

/// The elements rounded to `dtype`, one of those that [`to_f64`] reads.
///
/// # Errors
/// When the length of `data` is not the product of `dims`.
pub(crate) fn from_f64(dtype: DType, dims: &[usize], data: &[f64]) -> Result<Tensor> {
    match dtype {
        DType::F64 => Tensor::from_vec(dims, data.to_vec()),
        DType::F16 => Tensor::from_vec(dims, data.iter().map(|&x| f16::from_f64(x)).collect()),
        DType::BF16 => Tensor::from_vec(dims, data.iter().map(|&x| bf16::from_f64(x)).collect()),
        _ => Tensor::from_vec(dims, data.iter().map(|&x| x as f32).collect()),
    }
}

/// Each run of `run` elements times the factor of its place, rounded to the type that they came
/// in; `None` for other types than [`to_f64`] reads.
pub(crate) fn scale(t: &Tensor, run: usize, factor: impl Fn(usize) -> f64) -> Option<Tensor> {
    if t.dtype() != DType::F32 {
        let mut data = to_f64(t)?;
        for (i, part) in data.chunks_mut(run).enumerate() {
            let factor = factor(i);
            part.iter_mut().for_each(|x| *x *= factor);
        }
        return from_f64(t.dtype(), t.dims(), &data).ok();
    }
    let mut data = t.data::<f32>().ok()?.into_owned();
    for (i, part) in data.chunks_mut(run).enumerate() {
        let factor = factor(i);
        let scaled = |x: &mut f32| *x = (f64::from(*x) * factor) as f32;
        part.iter_mut().for_each(scaled);
    }
    Tensor::from_vec(t.dims(), data).ok()
}

/// True where `holds` for every element; `None` for other types than [`to_f64`] reads.
pub(crate) fn all(t: &Tensor, holds: impl Fn(f64) -> bool) -> Option<bool> {
    if t.dtype() != DType::F32 {
        return Some(to_f64(t)?.into_iter().all(holds));
    }
    Some(t.data::<f32>().ok()?.iter().all(|&x| holds(f64::from(x))))
}

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

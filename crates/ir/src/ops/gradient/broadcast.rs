//! Unbroadcast: the sum over the axes along which a value was repeated.

use super::BASE;
use crate::ops::arith::{broadcast_indices, floats, from_floats};
use crate::ops::{Arity, OpDef};
use crate::{Result, Tensor};

/// `Unbroadcast(dY, like)`: dY summed to the shape of `like`, which broadcasts to that of dY.
pub static UNBROADCAST: OpDef = OpDef {
    name: "Unbroadcast",
    inputs: Arity(2, 2),
    infer: |cx| {
        let (dtype, shape) = (cx.dtype(0), cx.shape(1).cloned());
        cx.set_tensor(0, dtype, shape);
        Ok(())
    },
    eval: Some(|cx| {
        let (dy, like) = (cx.input(0)?, cx.input(1)?);
        let sums = unbroadcast(&floats(dy)?, dy.dims(), like.dims())?;
        Ok(vec![from_floats(dy.dtype(), like.dims(), sums)?])
    }),
    examples: &[
        "edgesmith.Unbroadcast(f32[2,3,4], f32[3,1])",
        "edgesmith.Unbroadcast(f32[2,3], f32[])",
        "edgesmith.Unbroadcast(f32[6,5], f32[5])",
    ],
    ..BASE
};

/// The sums of `data` of lengths `dims` at each element of `to`, which broadcasts to `dims`.
///
/// # Errors
/// When it does not.
pub fn unbroadcast(data: &[f64], dims: &[usize], to: &[usize]) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; crate::checked_count(to)?];
    for (&x, i) in data.iter().zip(broadcast_indices(to, dims)?) {
        sums[i] += x;
    }
    Ok(sums)
}

/// As [`unbroadcast`], as a tensor of the type and lengths of `like`.
///
/// # Errors
/// When `like` does not broadcast to `dims`.
pub fn summed_like(data: &[f64], dims: &[usize], like: &Tensor) -> Result<Tensor> {
    from_floats(
        like.dtype(),
        like.dims(),
        unbroadcast(data, dims, like.dims())?,
    )
}

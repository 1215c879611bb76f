//! Tensors and shapes whose channels are the last axis, brought to ONNX's order and back.

use crate::ops::layout;
use crate::{Error, Result, Shape, Tensor};

/// `order[i]` is the axis of the source that becomes axis `i`.
fn order(rank: usize, to_first: bool) -> Result<Vec<usize>> {
    if rank < 2 {
        return Err(Error::invalid(format!(
            "expected batch and channels, found {rank} axes"
        )));
    }
    let spatial = 1..rank - 1;
    Ok(if to_first {
        [0, rank - 1].into_iter().chain(spatial).collect()
    } else {
        std::iter::once(0).chain(2..rank).chain([1]).collect()
    })
}

fn permuted(t: &Tensor, to_first: bool) -> Result<Tensor> {
    let own = layout::strides(t.dims());
    let order = order(t.rank(), to_first)?;
    let dims: Vec<usize> = order.iter().map(|&a| t.dims()[a]).collect();
    let strides: Vec<isize> = order.iter().map(|&a| own[a]).collect();
    layout::strided(t, &dims, &strides, 0)
}

/// (batch, spatial…, channels) as (batch, channels, spatial…).
///
/// # Errors
/// When there are under two axes.
pub fn to_first(t: &Tensor) -> Result<Tensor> {
    permuted(t, true)
}

/// (batch, channels, spatial…) as (batch, spatial…, channels).
///
/// # Errors
/// When there are under two axes.
pub fn to_last(t: &Tensor) -> Result<Tensor> {
    permuted(t, false)
}

/// The shape rule `f` of ONNX's order for a shape whose channels are last.
///
/// # Errors
/// When there are under two axes, and what `f` says.
pub fn shape(x: &Shape, f: impl FnOnce(&Shape) -> Result<Shape>) -> Result<Shape> {
    let first: Shape = order(x.rank(), true)?
        .iter()
        .map(|&a| x[a].clone())
        .collect();
    let y = f(&first)?;
    Ok(order(y.rank(), false)?
        .iter()
        .map(|&a| y[a].clone())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_go_to_the_front_and_back() {
        let t = Tensor::from_vec(&[1, 2, 2, 3], (0..12u8).collect()).unwrap();
        let first = to_first(&t).unwrap();
        assert_eq!(first.dims(), [1, 3, 2, 2]);
        assert_eq!(&first.bytes()[..4], [0, 3, 6, 9]);
        assert_eq!(to_last(&first).unwrap(), t);
        assert!(to_first(&Tensor::vector(vec![1u8])).is_err());
    }
}

//! The numbers of a tensor in the two domains that evaluation works in: `f64` for floating
//! point, `i128` for integers. Results are rounded, or wrapped, once on their way back.

use half::{bf16, f16};

use crate::{DType, Element, Error, Result, Tensor, packed};

fn elements<T: Element, U>(t: &Tensor, f: impl Fn(T) -> U) -> Result<Vec<U>> {
    Ok(t.data::<T>()?.iter().map(|&x| f(x)).collect())
}

/// The elements of a floating-point tensor, exactly.
///
/// # Errors
/// For other element types.
pub fn floats(t: &Tensor) -> Result<Vec<f64>> {
    match t.dtype() {
        DType::F64 => Ok(t.data::<f64>()?.into_owned()),
        DType::F32 => elements(t, |x: f32| x.into()),
        DType::F16 => elements(t, f16::to_f64),
        DType::BF16 => elements(t, bf16::to_f64),
        d if d.is_float() => Ok(packed::decode_floats(t)?
            .into_iter()
            .map(f64::from)
            .collect()),
        _ => Err(Error::invalid(format!(
            "expected a tensor of floats, found {}",
            t.ty()
        ))),
    }
}

/// The elements of an integer or bool tensor.
///
/// # Errors
/// For other element types.
pub fn integers(t: &Tensor) -> Result<Vec<i128>> {
    match t.dtype() {
        DType::I64 => elements(t, |x: i64| x.into()),
        DType::I32 => elements(t, |x: i32| x.into()),
        DType::I16 => elements(t, |x: i16| x.into()),
        DType::I8 => elements(t, |x: i8| x.into()),
        DType::U64 => elements(t, |x: u64| x.into()),
        DType::U32 => elements(t, |x: u32| x.into()),
        DType::U16 => elements(t, |x: u16| x.into()),
        DType::U8 => elements(t, |x: u8| x.into()),
        DType::Bool => Ok(t.bytes().iter().map(|&b| i128::from(b != 0)).collect()),
        d if d.is_integer() => Ok(packed::decode_integers(t)?
            .into_iter()
            .map(i128::from)
            .collect()),
        _ => Err(Error::invalid(format!(
            "expected a tensor of integers, found {}",
            t.ty()
        ))),
    }
}

/// The elements of any numeric tensor as `f64`; 64-bit integers are rounded.
///
/// # Errors
/// For strings and complex numbers.
pub fn any(t: &Tensor) -> Result<Vec<f64>> {
    if t.dtype().is_float() {
        floats(t)
    } else {
        Ok(integers(t)?.into_iter().map(|x| x as f64).collect())
    }
}

/// The floating-point tensor nearest to `values`. Small floats saturate.
///
/// # Errors
/// For other element types, and when `dims` does not fit `values`.
pub fn from_floats(dtype: DType, dims: &[usize], values: Vec<f64>) -> Result<Tensor> {
    fn round<T: Element>(dims: &[usize], v: &[f64], f: impl Fn(f64) -> T) -> Result<Tensor> {
        Tensor::from_vec(dims, v.iter().map(|&x| f(x)).collect())
    }
    match dtype {
        DType::F64 => Tensor::from_vec(dims, values),
        DType::F32 => round(dims, &values, |x| x as f32),
        DType::F16 => round(dims, &values, |x| f16::from_f32(to_odd(x))),
        DType::BF16 => round(dims, &values, |x| bf16::from_f32(to_odd(x))),
        d if d.is_float() => packed::encode_floats(d, dims, &values, true),
        _ => Err(Error::invalid(format!(
            "expected a floating-point type, found {dtype}"
        ))),
    }
}

/// `x` cut to an `f32` whose last bit is set where something was lost: rounding it on to a
/// shorter type gives what rounding `x` itself would.
pub fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    if back == x || x.is_nan() || near.to_bits() & 1 == 1 {
        return near;
    }
    let away = back.abs() > x.abs();
    f32::from_bits(if away {
        near.to_bits() - 1
    } else {
        near.to_bits() + 1
    })
}

/// `values` rounded to what `dtype` can hold, still as `f64`.
///
/// # Errors
/// For types that are not floating point.
pub fn rounded(dtype: DType, values: Vec<f64>) -> Result<Vec<f64>> {
    let n = values.len();
    floats(&from_floats(dtype, &[n], values)?)
}

/// The integer tensor that keeps the low bits of `values`; any number but 0 is true for bool.
///
/// # Errors
/// For other element types, and when `dims` does not fit `values`.
pub fn from_integers(dtype: DType, dims: &[usize], values: &[i128]) -> Result<Tensor> {
    fn wrap<T: Element>(dims: &[usize], v: &[i128], f: impl Fn(i128) -> T) -> Result<Tensor> {
        Tensor::from_vec(dims, v.iter().map(|&x| f(x)).collect())
    }
    match dtype {
        DType::I64 => wrap(dims, values, |x| x as i64),
        DType::I32 => wrap(dims, values, |x| x as i32),
        DType::I16 => wrap(dims, values, |x| x as i16),
        DType::I8 => wrap(dims, values, |x| x as i8),
        DType::U64 => wrap(dims, values, |x| x as u64),
        DType::U32 => wrap(dims, values, |x| x as u32),
        DType::U16 => wrap(dims, values, |x| x as u16),
        DType::U8 => wrap(dims, values, |x| x as u8),
        DType::Bool => {
            let truth: Vec<bool> = values.iter().map(|&x| x != 0).collect();
            Tensor::from_bools(dims, &truth)
        }
        d if d.is_integer() => packed::encode_integers(d, dims, values.iter().copied()),
        _ => Err(Error::invalid(format!(
            "expected an integer type, found {dtype}"
        ))),
    }
}

/// The least and the largest number of an integer type.
pub fn range(dtype: DType) -> (i128, i128) {
    let bits = dtype.bits();
    if dtype.is_signed_integer() {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    }
}

/// The index into a tensor of `from` lengths for each element of `to`, which `from` broadcasts
/// to, row major.
///
/// # Errors
/// When `from` does not broadcast to `to`, or `to` is too large.
pub fn broadcast_indices(from: &[usize], to: &[usize]) -> Result<Vec<usize>> {
    let count = crate::checked_count(to)?;
    let shift = to.len().checked_sub(from.len());
    let fits = shift.is_some_and(|s| from.iter().zip(&to[s..]).all(|(&f, &t)| f == t || f == 1));
    let Some(shift) = shift.filter(|_| fits) else {
        return Err(Error::invalid(format!(
            "{} does not broadcast to {}",
            crate::Shape::fixed(from),
            crate::Shape::fixed(to)
        )));
    };
    let mut indices = vec![0usize];
    indices.reserve(count);
    if count == 0 {
        return Ok(Vec::new());
    }
    for (axis, &n) in to.iter().enumerate() {
        let own = axis.checked_sub(shift).map_or(1, |a| from[a]);
        let step = usize::from(own != 1);
        indices = indices
            .iter()
            .flat_map(|&i| (0..n).map(move |k| i * own + k * step))
            .collect();
    }
    Ok(indices)
}

/// The lengths that numpy-style broadcasting gives.
///
/// # Errors
/// When two lengths differ and neither is 1.
pub fn broadcast_dims(all: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = all.iter().map(|d| d.len()).max().unwrap_or(0);
    let mut out = vec![1usize; rank];
    for dims in all {
        for (o, &d) in out[rank - dims.len()..].iter_mut().zip(*dims) {
            match (*o, d) {
                (_, 1) => {}
                (1, _) => *o = d,
                (a, b) if a == b => {}
                (a, b) => {
                    return Err(Error::invalid(format!(
                        "lengths {a} and {b} do not broadcast"
                    )));
                }
            }
        }
    }
    Ok(out)
}

/// `data` of lengths `from`, repeated along the axes that broadcast to `to`.
///
/// # Errors
/// As [`broadcast_indices`].
pub fn expand<T: Copy>(data: &[T], from: &[usize], to: &[usize]) -> Result<Vec<T>> {
    Ok(broadcast_indices(from, to)?
        .into_iter()
        .map(|i| data[i])
        .collect())
}

/// Checks the number of axes of an operand.
///
/// # Errors
/// Says what was expected and found.
pub fn expect_rank(what: &str, t: &Tensor, range: std::ops::RangeInclusive<usize>) -> Result<()> {
    if range.contains(&t.rank()) {
        return Ok(());
    }
    let (low, high) = (range.start(), range.end());
    let axes = if low == high {
        low.to_string()
    } else if *high == usize::MAX {
        format!("at least {low}")
    } else {
        format!("{low} to {high}")
    };
    Err(Error::invalid(format!(
        "{what} should have {axes} axes, found {}",
        t.ty()
    )))
}

/// Checks the lengths of an operand.
///
/// # Errors
/// Says what was expected and found.
pub fn expect_dims(what: &str, t: &Tensor, dims: &[usize]) -> Result<()> {
    if t.dims() == dims {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what} should be of shape {}, found {}",
        crate::Shape::fixed(dims),
        t.ty()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_broadcasts_along_rows() {
        assert_eq!(
            broadcast_indices(&[2, 1], &[2, 3]).unwrap(),
            [0, 0, 0, 1, 1, 1]
        );
        assert_eq!(
            broadcast_indices(&[3], &[2, 3]).unwrap(),
            [0, 1, 2, 0, 1, 2]
        );
        assert_eq!(broadcast_indices(&[], &[2]).unwrap(), [0, 0]);
        assert!(broadcast_indices(&[2], &[3]).is_err());
    }

    #[test]
    fn integers_wrap_like_their_type() {
        let t = from_integers(DType::U8, &[2], &[256, -1]).unwrap();
        assert_eq!(integers(&t).unwrap(), [0, 255]);
        assert_eq!(range(DType::I4), (-8, 7));
        assert_eq!(range(DType::U64), (0, i128::from(u64::MAX)));
    }
}

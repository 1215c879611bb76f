//! The elements of a tensor of any numeric type, wide enough that none is rounded.

use half::{bf16, f16};

use crate::{DType, Element, Error, Result, Tensor};

/// Elements as f64 or as wide integers; booleans are 0 and 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// Of a float type.
    Float(Vec<f64>),
    /// Of an integer type or bool.
    Int(Vec<i128>),
}

fn floats<T: Element>(t: &Tensor, f: impl Fn(T) -> f64) -> Result<Numbers> {
    Ok(Numbers::Float(
        t.data::<T>()?.iter().map(|&x| f(x)).collect(),
    ))
}

fn ints<T: Element + Into<i128>>(t: &Tensor) -> Result<Numbers> {
    Ok(Numbers::Int(
        t.data::<T>()?.iter().map(|&x| x.into()).collect(),
    ))
}

impl Numbers {
    /// The elements of `t`.
    ///
    /// # Errors
    /// For strings and complex numbers.
    pub fn of(t: &Tensor) -> Result<Self> {
        match t.dtype() {
            DType::F64 => floats(t, |x: f64| x),
            DType::F32 => floats(t, |x: f32| f64::from(x)),
            DType::F16 => floats(t, f16::to_f64),
            DType::BF16 => floats(t, bf16::to_f64),
            DType::I64 => ints::<i64>(t),
            DType::I32 => ints::<i32>(t),
            DType::I16 => ints::<i16>(t),
            DType::I8 => ints::<i8>(t),
            DType::U64 => ints::<u64>(t),
            DType::U32 => ints::<u32>(t),
            DType::U16 => ints::<u16>(t),
            DType::U8 => ints::<u8>(t),
            DType::Bool => Ok(Self::Int(t.bools()?.into_iter().map(i128::from).collect())),
            _ => Err(unsupported(t.dtype())),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Float(v) => v.len(),
            Self::Int(v) => v.len(),
        }
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As f64; integers beyond 2^53 are rounded.
    pub fn into_floats(self) -> Vec<f64> {
        match self {
            Self::Float(v) => v,
            Self::Int(v) => v.into_iter().map(|i| i as f64).collect(),
        }
    }

    /// As integers: fractions are cut off, what is no number is 0.
    pub fn into_ints(self) -> Vec<i128> {
        match self {
            Self::Float(v) => v.into_iter().map(|x| x as i128).collect(),
            Self::Int(v) => v,
        }
    }

    /// A tensor of these elements: floats are rounded to the nearest, integers wrap around, and
    /// everything but 0 is true.
    ///
    /// # Errors
    /// When there are not as many as `dims` asks for, and for strings and complex numbers.
    pub fn tensor(self, dtype: DType, dims: &[usize]) -> Result<Tensor> {
        fn floats<T: Element>(n: Numbers, dims: &[usize], f: impl Fn(f64) -> T) -> Result<Tensor> {
            Tensor::from_vec(dims, n.into_floats().into_iter().map(f).collect())
        }
        fn ints<T: Element>(n: Numbers, dims: &[usize], f: impl Fn(i128) -> T) -> Result<Tensor> {
            Tensor::from_vec(dims, n.into_ints().into_iter().map(f).collect())
        }
        match dtype {
            DType::F64 => floats(self, dims, |x| x),
            DType::F32 => floats(self, dims, |x| x as f32),
            DType::F16 => floats(self, dims, |x| f16::from_f32(to_odd(x))),
            DType::BF16 => floats(self, dims, |x| bf16::from_f32(to_odd(x))),
            DType::I64 => ints(self, dims, |i| i as i64),
            DType::I32 => ints(self, dims, |i| i as i32),
            DType::I16 => ints(self, dims, |i| i as i16),
            DType::I8 => ints(self, dims, |i| i as i8),
            DType::U64 => ints(self, dims, |i| i as u64),
            DType::U32 => ints(self, dims, |i| i as u32),
            DType::U16 => ints(self, dims, |i| i as u16),
            DType::U8 => ints(self, dims, |i| i as u8),
            DType::Bool => {
                let bits: Vec<bool> = match self {
                    Self::Float(v) => v.into_iter().map(|x| x != 0.0).collect(),
                    Self::Int(v) => v.into_iter().map(|i| i != 0).collect(),
                };
                Tensor::from_bools(dims, &bits)
            }
            _ => Err(unsupported(dtype)),
        }
    }
}

/// The f32 from which rounding to a narrower type gives what rounding `x` itself would: cut off,
/// with the last bit set where something was lost (rounding to odd).
pub fn to_odd(x: f64) -> f32 {
    let y = x as f32;
    if f64::from(y) == x || x.is_nan() {
        return y;
    }
    let cut = u32::from(f64::from(y).abs() > x.abs());
    f32::from_bits((y.to_bits() - cut) | 1)
}

fn unsupported(dtype: DType) -> Error {
    Error::unsupported(format!("arithmetic on {dtype} is not done"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_integer_comes_back_and_wraps_when_narrowed() {
        let t = Tensor::vector(vec![u64::MAX, 0, 300]);
        let n = Numbers::of(&t).unwrap();
        assert_eq!(n.clone().tensor(DType::U64, &[3]).unwrap(), t);
        let narrow = n.tensor(DType::U8, &[3]).unwrap();
        assert_eq!(&*narrow.data::<u8>().unwrap(), &[255, 0, 44]);
    }

    #[test]
    fn halves_are_rounded_once() {
        // Between two halves, a little over the middle: by way of f32 it would be a tie.
        let x = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        let t = Numbers::Float(vec![x]).tensor(DType::F16, &[1]).unwrap();
        assert_eq!(t.data::<f16>().unwrap()[0].to_f64(), 1.0 + 2f64.powi(-10));
    }
}

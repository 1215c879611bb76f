//! The elements of a tensor of any numeric type, wide enough that none is rounded.

use super::arith;
use crate::graph::Node;
use crate::{DType, Error, Result, Tensor};

/// Elements as f64 or as wide integers; booleans are 0 and 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// Of a float type.
    Float(Vec<f64>),
    /// Of an integer type or bool.
    Int(Vec<i128>),
}

impl Numbers {
    /// The elements of `t`.
    ///
    /// # Errors
    /// For strings and complex numbers.
    pub fn of(t: &Tensor) -> Result<Self> {
        if t.dtype().is_float() {
            Ok(Self::Float(arith::floats(t)?))
        } else if t.dtype().is_integer() || t.dtype() == DType::Bool {
            Ok(Self::Int(arith::integers(t)?))
        } else {
            Err(unsupported(t.dtype()))
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

    /// The elements of a float type.
    pub fn floats(&self) -> Option<&[f64]> {
        if let Self::Float(v) = self {
            Some(v)
        } else {
            None
        }
    }

    /// The elements of an integer type.
    pub fn ints(&self) -> Option<&[i128]> {
        if let Self::Int(v) = self {
            Some(v)
        } else {
            None
        }
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
    /// everything but 0 is true. Small floats saturate.
    ///
    /// # Errors
    /// When there are not as many as `dims` asks for, and for strings and complex numbers.
    pub fn tensor(self, dtype: DType, dims: &[usize]) -> Result<Tensor> {
        match (dtype, self) {
            (DType::Bool, Self::Float(v)) => {
                let truth: Vec<bool> = v.into_iter().map(|x| x != 0.0).collect();
                Tensor::from_bools(dims, &truth)
            }
            (d, numbers) if d.is_float() => arith::from_floats(d, dims, numbers.into_floats()),
            (d, numbers) if d.is_integer() || d == DType::Bool => {
                arith::from_integers(d, dims, &numbers.into_ints())
            }
            (d, _) => Err(unsupported(d)),
        }
    }
}

/// The element type in an attribute, where that is a number's.
///
/// # Errors
/// When it is no numeric type.
pub fn dtype(node: &Node, name: &str) -> Result<Option<DType>> {
    let Some(code) = node.int(name) else {
        return Ok(None);
    };
    let dtype = i32::try_from(code).ok().and_then(DType::from_onnx);
    dtype
        .filter(|d| d.is_float() || d.is_integer() || *d == DType::Bool)
        .map(Some)
        .ok_or_else(|| Error::invalid(format!("{code} is no type of numbers")))
}

/// The one number of `t`.
///
/// # Errors
/// When it does not hold one number.
pub fn real(t: &Tensor) -> Result<f64> {
    match Numbers::of(t)?.into_floats().as_slice() {
        [one] => Ok(*one),
        _ => Err(Error::invalid(format!(
            "expected one number, found {}",
            t.ty()
        ))),
    }
}

fn unsupported(dtype: DType) -> Error {
    Error::unsupported(format!("arithmetic on {dtype} is not done"))
}

#[cfg(test)]
mod tests {
    use half::f16;

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

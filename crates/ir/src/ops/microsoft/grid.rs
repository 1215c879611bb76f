//! The grid that the integers of a quantised tensor lie on: real = scale · (integer − zero).

use crate::eval::EvalCx;
use crate::ops::arith::{from_integers, integers};
use crate::ops::quantize::to_grid;
use crate::ops::quantized::single;
use crate::{DType, Error, Result, Tensor};

/// Scale, zero point and element type. Arithmetic is in single precision, as runtimes do it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// The distance of neighbouring integers.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero: i128,
    /// The type of the integers.
    pub dtype: DType,
}

impl Grid {
    /// The grid of `dtype` whose scale is input `scale`, and whose zero point is the input after
    /// it or 0.
    ///
    /// # Errors
    /// When one of them does not hold one number, or the zero point is of another type.
    pub fn of(cx: &EvalCx, scale: usize, dtype: DType) -> Result<Self> {
        if !dtype.is_integer() || dtype.bits() > 16 {
            return Err(Error::invalid(format!(
                "expected integers of 8 or 16 bits, found {dtype}"
            )));
        }
        let zero = match cx.optional(scale + 1) {
            None => 0,
            Some(z) if z.dtype() == dtype && z.count() == 1 => integers(z)?[0],
            Some(z) => {
                return Err(Error::invalid(format!(
                    "a zero point should be one {dtype}, found {}",
                    z.ty()
                )));
            }
        };
        Ok(Self {
            scale: single(cx, scale)? as f32,
            zero,
            dtype,
        })
    }

    /// The quantised input `i`, whose scale and zero point are the inputs after it.
    ///
    /// # Errors
    /// As [`Grid::of`].
    pub fn operand<'a>(cx: &EvalCx<'a>, i: usize) -> Result<(&'a Tensor, Self)> {
        let x = cx.input(i)?;
        Ok((x, Self::of(cx, i + 1, x.dtype())?))
    }

    /// The integers of `x` less the zero point.
    ///
    /// # Errors
    /// When `x` holds no integers.
    pub fn centred(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(integers(x)?
            .into_iter()
            .map(|q| (q - self.zero) as f32)
            .collect())
    }

    /// The numbers that the integers of `x` stand for.
    ///
    /// # Errors
    /// When `x` holds no integers.
    pub fn reals(&self, x: &Tensor) -> Result<Vec<f32>> {
        let centred = self.centred(x)?.into_iter();
        Ok(centred.map(|c| c * self.scale).collect())
    }

    /// The integer nearest to `x`: the quotient is rounded half to even, then shifted.
    pub fn nearest(&self, x: f32) -> i128 {
        to_grid(f64::from(x / self.scale), self.zero as f64, self.dtype)
    }

    /// The integer nearest to a quotient that holds the zero point already.
    pub fn nearest_shifted(&self, shifted: f32) -> i128 {
        to_grid(f64::from(shifted), 0.0, self.dtype)
    }

    /// The tensor of these integers.
    ///
    /// # Errors
    /// When `dims` does not fit.
    pub fn tensor(&self, dims: &[usize], y: &[i128]) -> Result<Tensor> {
        from_integers(self.dtype, dims, y)
    }

    /// `x`, of grid `from`, on this grid; unchanged where both are one.
    ///
    /// # Errors
    /// When `x` holds no integers.
    pub fn moved(&self, x: &Tensor, from: &Self) -> Result<Tensor> {
        if self == from {
            return Ok(x.clone());
        }
        let y: Vec<i128> = from
            .reals(x)?
            .into_iter()
            .map(|r| self.nearest(r))
            .collect();
        self.tensor(x.dims(), &y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_is_rounded_before_or_after_the_shift() {
        let grid = Grid {
            scale: 1.0,
            zero: 1,
            dtype: DType::U8,
        };
        assert_eq!(grid.nearest(0.5), 1);
        assert_eq!(grid.nearest_shifted(1.5), 2);
    }
}

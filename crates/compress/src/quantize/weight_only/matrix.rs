//! A weight as a matrix: a row for each output, a column for each input.

use std::borrow::Cow;
use std::ops::Range;

use edgesmith_ir::{Result, Tensor};

/// How a weight lies in its tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lies {
    /// `[inputs, outputs]`: MatMul, and Gemm without `transB`.
    InputsFirst,
    /// `[outputs, inputs]`: Gemm with `transB`, 1×1 Conv, and the rows of Gather.
    OutputsFirst,
}

/// `n` rows of `k` numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// Row by row.
    pub data: Vec<f32>,
}

impl Matrix {
    /// The matrix of a tensor of two axes, or of more where those behind are 1.
    ///
    /// # Errors
    /// When the elements cannot be read as f32.
    pub fn of(t: &Tensor, lies: Lies) -> Result<Self> {
        let data = t.to_f32()?;
        let (first, second) = (t.dims()[0], t.dims()[1]);
        Ok(match lies {
            Lies::OutputsFirst => Self {
                n: first,
                k: second,
                data: data.into_owned(),
            },
            Lies::InputsFirst => Self {
                n: second,
                k: first,
                data: turned(&data, first, second),
            },
        })
    }

    /// Rows and columns of the matrix of a tensor.
    pub fn size(t: &Tensor, lies: Lies) -> [usize; 2] {
        let (first, second) = (t.dims()[0], t.dims()[1]);
        match lies {
            Lies::OutputsFirst => [first, second],
            Lies::InputsFirst => [second, first],
        }
    }

    /// Some rows of [`Matrix::of`]; no others are read.
    ///
    /// # Errors
    /// When the elements cannot be read as f32.
    pub fn part(t: &Tensor, lies: Lies, rows: Range<usize>) -> Result<Self> {
        let [all, k] = Self::size(t, lies);
        let n = rows.len();
        let data = match lies {
            Lies::OutputsFirst => numbers(t, rows.start * k, n * k)?,
            Lies::InputsFirst => {
                let mut columns = Vec::with_capacity(n * k);
                for input in 0..k {
                    columns.extend(numbers(t, input * all + rows.start, n)?);
                }
                turned(&columns, k, n)
            }
        };
        Ok(Self { n, k, data })
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.k..][..self.k]
    }
}

/// `count` elements from the one numbered `first`.
fn numbers(t: &Tensor, first: usize, count: usize) -> Result<Vec<f32>> {
    let size = t.byte_len() / t.count().max(1);
    let bytes = t.bytes().slice(first * size..(first + count) * size);
    let part = Tensor::from_bytes(t.dtype(), &[count], bytes)?;
    part.to_f32().map(Cow::into_owned)
}

/// The transposed of a matrix of `rows` rows and `columns` columns.
pub fn turned<T: Copy>(data: &[T], rows: usize, columns: usize) -> Vec<T> {
    let column = |c: usize| (0..rows).map(move |r| data[r * columns + c]);
    (0..columns).flat_map(column).collect()
}

impl Matrix {
    /// With column `j` times `s[j]`.
    #[must_use]
    pub fn scaled(&self, s: &[f32]) -> Self {
        let row = |row: &[f32]| row.iter().zip(s).map(|(w, s)| w * s).collect::<Vec<_>>();
        Self {
            data: self.data.chunks(self.k.max(1)).flat_map(row).collect(),
            ..*self
        }
    }
}

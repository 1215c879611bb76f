//! A tensor seen as rows: the elements that one reduction joins stand next to each other.

use super::layout::{self, Dims};
use super::numbers::Numbers;
use crate::{Result, Tensor};

/// Elements in rows of equal length, one row for each element of the reduced tensor.
pub struct Rows {
    /// The elements, row after row.
    pub numbers: Numbers,
    /// Elements of a row.
    pub len: usize,
    /// The axes that are left, those that were reduced left out.
    pub kept: Dims,
    /// All axes, those that were reduced of length 1.
    pub with_ones: Dims,
}

/// The rows of `t` along the marked axes.
///
/// # Errors
/// For element types without arithmetic.
pub fn rows(t: &Tensor, reduced: &[bool]) -> Result<Rows> {
    let split = |want: bool| (0..t.rank()).filter(move |&a| reduced[a] == want);
    let own = layout::strides(t.dims());
    let order: Vec<usize> = split(false).chain(split(true)).collect();
    let dims: Dims = order.iter().map(|&a| t.dims()[a]).collect();
    let strides: Vec<isize> = order.iter().map(|&a| own[a]).collect();
    let moved = layout::strided(t, &dims, &strides, 0)?;
    let with_ones = |a: usize| if reduced[a] { 1 } else { t.dims()[a] };
    Ok(Rows {
        numbers: Numbers::of(&moved)?,
        len: split(true).map(|a| t.dims()[a]).product(),
        kept: split(false).map(|a| t.dims()[a]).collect(),
        with_ones: (0..t.rank()).map(with_ones).collect(),
    })
}

impl Rows {
    /// The shape of the result.
    pub fn dims(&self, keep: bool) -> &[usize] {
        if keep { &self.with_ones } else { &self.kept }
    }

    /// Each row through the function of its kind.
    ///
    /// # Errors
    /// When the result would be too large.
    pub fn map(
        &self,
        float: impl Fn(&[f64]) -> f64,
        int: impl Fn(&[i128]) -> i128,
    ) -> Result<Numbers> {
        let count = crate::checked_count(&self.kept)?;
        let row = |i: usize| i * self.len..(i + 1) * self.len;
        Ok(match &self.numbers {
            Numbers::Float(v) => Numbers::Float((0..count).map(|i| float(&v[row(i)])).collect()),
            Numbers::Int(v) => Numbers::Int((0..count).map(|i| int(&v[row(i)])).collect()),
        })
    }
}

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

/// Rows along one axis, put back to where they came from.
pub struct Along {
    /// The axis, from the front.
    pub axis: usize,
    /// The rows in order of the other axes.
    pub rows: Rows,
    inner: usize,
}

/// The rows of `t` along `axis`.
///
/// # Errors
/// When the axis is outside, and for element types without arithmetic.
pub fn along(t: &Tensor, axis: i64) -> Result<Along> {
    let axis = crate::infer::axis(axis, t.rank())?;
    let marks: Vec<bool> = (0..t.rank()).map(|a| a == axis).collect();
    Ok(Along {
        axis,
        rows: rows(t, &marks)?,
        inner: t.dims()[axis + 1..].iter().product(),
    })
}

impl Along {
    /// The row-major elements of a tensor that has `rows`, of `len` elements each, along the axis.
    pub fn unrowed<T: Copy>(&self, rows: &[T], len: usize) -> Vec<T> {
        let block = len * self.inner;
        let at = |i: usize| {
            let (outer, rest) = (i / block, i % block);
            rows[(outer * self.inner + rest % self.inner) * len + rest / self.inner]
        };
        (0..rows.len()).map(at).collect()
    }

    /// The indices that sort each row, by `order` of two elements.
    pub fn sorted(
        &self,
        order: impl Fn(std::cmp::Ordering) -> std::cmp::Ordering,
    ) -> Vec<Vec<usize>> {
        fn sort<T: PartialOrd>(
            row: &[T],
            order: &impl Fn(std::cmp::Ordering) -> std::cmp::Ordering,
        ) -> Vec<usize> {
            let mut at: Vec<usize> = (0..row.len()).collect();
            at.sort_by(|&a, &b| order(compare(&row[a], &row[b])));
            at
        }
        let len = self.rows.len.max(1);
        match &self.rows.numbers {
            Numbers::Float(v) => v.chunks(len).map(|r| sort(r, &order)).collect(),
            Numbers::Int(v) => v.chunks(len).map(|r| sort(r, &order)).collect(),
        }
    }
}

/// A total order in which what is no number is the largest.
pub fn compare<T: PartialOrd>(a: &T, b: &T) -> std::cmp::Ordering {
    let nan = |x: &T| x.partial_cmp(x).is_none();
    a.partial_cmp(b).unwrap_or_else(|| nan(a).cmp(&nan(b)))
}

//! Integer parameters that older opsets give as attributes and newer ones as inputs.

use smallvec::SmallVec;

use crate::eval::EvalCx;
use crate::infer::{self, InferCx};
use crate::{Error, Result};

/// The integers in attribute `name`, else those in input `i`; `None` where neither is given.
///
/// # Errors
/// When the input holds no integers.
pub fn given(cx: &EvalCx, name: &str, i: usize) -> Result<Option<Vec<i64>>> {
    match (cx.node.ints(name), cx.optional(i)) {
        (Some(v), _) => Ok(Some(v.to_vec())),
        (None, Some(t)) => t.to_i64().map(Some),
        (None, None) => Ok(None),
    }
}

/// What is known of such a parameter before the model runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// It is left out.
    Absent,
    /// Its value.
    Known(Vec<i64>),
    /// It is an input that only a run knows.
    Unknown,
}

/// As [`given`], for shape rules.
pub fn known(cx: &InferCx, name: &str, i: usize) -> Param {
    if let Some(v) = cx.node.ints(name) {
        return Param::Known(v.to_vec());
    }
    if !cx.has(i) {
        return Param::Absent;
    }
    cx.ints(i).map_or(Param::Unknown, Param::Known)
}

/// `axes` counted from the front.
///
/// # Errors
/// When one is outside the rank or is there twice.
pub fn resolve(axes: &[i64], rank: usize) -> Result<SmallVec<[usize; 6]>> {
    let mut out = SmallVec::new();
    for &a in axes {
        let axis = infer::axis(a, rank)?;
        if out.contains(&axis) {
            return Err(Error::invalid(format!("axis {a} is given twice")));
        }
        out.push(axis);
    }
    Ok(out)
}

/// `axes` counted from the front, in a row with a mark for each axis.
///
/// # Errors
/// As [`resolve`].
pub fn marks(axes: &[i64], rank: usize) -> Result<SmallVec<[bool; 6]>> {
    let mut out: SmallVec<[bool; 6]> = smallvec::smallvec![false; rank];
    for a in resolve(axes, rank)? {
        out[a] = true;
    }
    Ok(out)
}

/// A length or count from outside as `usize`.
///
/// # Errors
/// When it is negative.
pub fn length(n: i64, what: &str) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::invalid(format!("{what} should not be negative: {n}")))
}

/// The one integer of `t`.
///
/// # Errors
/// When it does not hold one integer.
pub fn scalar(t: &crate::Tensor) -> Result<i64> {
    match t.to_i64()?.as_slice() {
        [one] => Ok(*one),
        _ => Err(Error::invalid(format!(
            "expected one integer, found {}",
            t.ty()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_given_twice_is_refused() {
        assert_eq!(resolve(&[-1, 0], 3).unwrap().as_slice(), &[2, 0]);
        assert!(resolve(&[1, -2], 3).is_err());
        assert!(resolve(&[3], 3).is_err());
    }
}

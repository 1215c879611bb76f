//! Sums along the axes on which a value was repeated.

use smallvec::SmallVec;

use super::{Reduce, reduce_columns, reduce_rows};
use crate::Ctx;
use crate::arena::with_scratch;

/// Numbers of a row, where all of a long tensor become one number.
const ROW: usize = 1024;

/// Makes `y` the sums of `x`, a tensor of lengths `dims`, along the axes that `summed` names.
pub fn sum_repeated(ctx: &Ctx, x: &[f32], dims: &[usize], summed: &[bool], y: &mut [f32]) {
    assert_eq!(dims.len(), summed.len(), "an answer for each axis");
    assert_eq!(x.len(), dims.iter().product::<usize>(), "elements of x");
    let kept = dims.iter().zip(summed).filter(|(_, s)| !**s);
    let kept: usize = kept.map(|(d, _)| d).product();
    assert_eq!(y.len(), kept, "an element for each place that is kept");
    if x.is_empty() {
        return y.fill(0.0);
    }
    // Neighbours of one kind are one axis; axes of length 1 are none.
    let mut axes: SmallVec<[(usize, bool); 8]> = SmallVec::new();
    for (&d, &s) in dims.iter().zip(summed).filter(|(d, _)| **d > 1) {
        match axes.last_mut() {
            Some((length, kind)) if *kind == s => *length *= d,
            _ => axes.push((d, s)),
        }
    }
    reduce(ctx, x, &axes, y);
}

/// Sums the last axis that is to be summed, then the others.
fn reduce(ctx: &Ctx, x: &[f32], axes: &[(usize, bool)], y: &mut [f32]) {
    let Some(at) = axes.iter().rposition(|(_, summed)| *summed) else {
        return y.copy_from_slice(x);
    };
    let length = axes[at].0;
    let inner: usize = axes[at + 1..].iter().map(|(d, _)| d).product();
    let step = |to: &mut [f32]| match inner {
        1 if to.len() == 1 && length > 2 * ROW => total(ctx, x, to),
        1 => reduce_rows(ctx, Reduce::Sum, x, length, to),
        _ => reduce_columns(ctx, Reduce::Sum, x, [length, inner], to),
    };
    if !axes[..at].iter().any(|(_, summed)| *summed) {
        return step(y);
    }
    // What is kept before and after the axis is one axis from now on.
    let mut rest: SmallVec<[(usize, bool); 8]> = axes[..at].into();
    match rest.last_mut() {
        Some((before, _)) => *before *= inner,
        None => rest.push((inner, false)),
    }
    with_scratch(x.len() / length, |sums: &mut [f32]| {
        step(sums);
        reduce(ctx, sums, &rest, y);
    });
}

/// The sum of all: of rows, and of the row of their sums.
fn total(ctx: &Ctx, x: &[f32], y: &mut [f32]) {
    let (whole, rest) = x.split_at(x.len() / ROW * ROW);
    let mut row = [0.0; ROW];
    super::column_sums(ctx, whole, &mut row);
    row.iter_mut().zip(rest).for_each(|(r, x)| *r += x);
    reduce_rows(ctx, Reduce::Sum, &row, ROW, y);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    #[test]
    fn sums_are_taken_along_any_axes() {
        let mut random = Random::new(45);
        for round in 0..200 {
            let rank = random.below(5);
            let dims: Vec<usize> = (0..rank).map(|_| random.pick(&[1, 2, 3, 7, 16])).collect();
            let summed: Vec<bool> = (0..rank).map(|_| random.below(2) == 0).collect();
            let count: usize = if round == 7 { 0 } else { dims.iter().product() };
            let dims = if round == 7 { vec![3, 0] } else { dims };
            let summed = if round == 7 {
                vec![false, true]
            } else {
                summed
            };
            let x = random.floats(count);
            let kept = dims.iter().zip(&summed).filter(|(_, s)| !**s);
            let mut want = vec![0f64; kept.map(|(d, _)| *d).product()];
            for (i, x) in x.iter().enumerate() {
                let (mut rest, mut at, mut step) = (i, 0, 1);
                for (d, s) in dims.iter().zip(&summed).rev() {
                    if !s {
                        at += rest % d * step;
                        step *= d;
                    }
                    rest /= d;
                }
                want[at] += f64::from(*x);
            }
            let want: Vec<f32> = want.into_iter().map(|x| x as f32).collect();
            for ctx in contexts() {
                let mut y = vec![f32::NAN; want.len()];
                sum_repeated(&ctx, &x, &dims, &summed, &mut y);
                close(&y, &want, 1e-5, &format!("{dims:?} {summed:?}"));
            }
        }
    }

    #[test]
    fn all_of_a_long_tensor_is_one_number() {
        let mut random = Random::new(46);
        let x = random.floats(50_001);
        let want = x.iter().map(|x| f64::from(*x)).sum::<f64>() as f32;
        for ctx in contexts() {
            let mut y = [0.0];
            sum_repeated(&ctx, &x, &[50_001], &[true], &mut y);
            close(&y, &[want], 1e-5, "all");
        }
    }
}

//! Reshapes: axes that become one, and one that becomes several.

use std::ops::Range;

use crate::{Dim, ValueId};

use super::Split;
use super::rules::Cx;

pub(super) fn flatten(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let rank = cx.rank(x);
    let axis = cx.node.int("axis").unwrap_or(1);
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    let axis = usize::try_from(axis).ok().filter(|&a| a <= rank);
    let axis = axis.ok_or("there is no such axis")?;
    merge(cx, (x, 0..axis), (y, 0))?;
    merge(cx, (x, axis..rank), (y, 1))
}

pub(super) fn reshape(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let target = cx.node.input(1).and_then(|v| cx.model.graph.constant(v));
    if target.is_none() {
        return Err("its target is computed".into());
    }
    let shapes = [x, y].map(|v| cx.shape(v).unwrap_or_default());
    let runs = runs(&shapes[0], &shapes[1])?;
    for (from, to) in runs {
        match (from.len(), to.len()) {
            (_, 1) => merge(cx, (x, from), (y, to.start))?,
            (1, _) => merge(cx, (y, to), (x, from.start))?,
            _ => {
                from.for_each(|a| cx.hold(x, a, "it cuts axes anew"));
                to.for_each(|a| cx.hold(y, a, "it cuts axes anew"));
            }
        }
    }
    Ok(())
}

/// Ties axes of `x` to the one axis of `y` that has the product of their lengths: each index of
/// the first or the last of them that is longer than 1 to all places that it has there. The others
/// are held.
fn merge(
    cx: &mut Cx,
    (x, axes): (ValueId, Range<usize>),
    (y, b): (ValueId, usize),
) -> Result<(), String> {
    if axes.len() == 1 {
        cx.tie((x, axes.start), (y, b));
        return Ok(());
    }
    let lengths: Option<Vec<usize>> = axes.clone().map(|a| cx.length(x, a).ok()).collect();
    let product = lengths.as_ref().map(|l| l.iter().product::<usize>());
    let (Some(lengths), Ok(whole)) = (lengths, cx.length(y, b)) else {
        axes.for_each(|a| cx.hold(x, a, "lengths are not known"));
        cx.hold(y, b, "lengths are not known");
        return Ok(());
    };
    if product != Some(whole) {
        return Err("its lengths do not fit".into());
    }
    let long = |n: &usize| *n > 1;
    let chosen = match cx.options.split {
        Split::Outer => lengths.iter().position(long),
        Split::Inner => lengths.iter().rposition(long),
    };
    let Some(chosen) = chosen else {
        return Ok(());
    };
    let inner: usize = lengths[chosen + 1..].iter().product();
    for p in 0..whole {
        let c = p / inner.max(1) % lengths[chosen];
        cx.tie_at((x, axes.start + chosen, c), (y, b, p));
    }
    for (i, a) in axes.enumerate() {
        if i != chosen {
            cx.hold(x, a, "it becomes a part of another axis");
        }
    }
    Ok(())
}

/// Axes of one shape, and those of another that hold the same numbers.
type Run = (Range<usize>, Range<usize>);

/// Axes of both shapes that hold the same numbers, from the first on.
fn runs(x: &[Dim], y: &[Dim]) -> Result<Vec<Run>, String> {
    let mut runs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < x.len() && j < y.len() {
        let (from, to) = (i, j);
        if x[i].same(&y[j]) {
            (i, j) = (i + 1, j + 1);
            runs.push((from..i, to..j));
            continue;
        }
        let known = |d: &Dim| d.known().ok_or("its lengths are not known");
        let (mut p, mut q) = (known(&x[i])?, known(&y[j])?);
        (i, j) = (i + 1, j + 1);
        while p != q {
            let (side, at, n) = if p < q {
                (x, &mut i, &mut p)
            } else {
                (y, &mut j, &mut q)
            };
            let next = side.get(*at).ok_or("its lengths do not fit")?;
            *n = n
                .checked_mul(known(next)?)
                .ok_or("its lengths do not fit")?;
            *at += 1;
        }
        runs.push((from..i, to..j));
    }
    let is_one = |d: &Dim| d.known() == Some(1);
    if x[i..].iter().chain(&y[j..]).all(is_one) {
        return Ok(runs);
    }
    Err("its lengths do not fit".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(x: &[i64], y: &[i64]) -> Result<Vec<Run>, String> {
        let dims = |list: &[i64]| -> Vec<Dim> {
            let dim = |&n: &i64| usize::try_from(n).map_or(Dim::symbol("n"), Dim::Known);
            list.iter().map(dim).collect()
        };
        runs(&dims(x), &dims(y))
    }

    #[test]
    fn axes_are_cut_where_both_shapes_have_a_border() {
        assert_eq!(
            of(&[-1, 4, 3, 3], &[-1, 36]),
            Ok(vec![(0..1, 0..1), (1..4, 1..2)])
        );
        let split = vec![(0..1, 0..1), (1..2, 1..2), (2..3, 2..4)];
        assert_eq!(of(&[-1, 7, 8], &[-1, 7, 2, 4]), Ok(split));
        assert_eq!(
            of(&[2, 3, 4], &[6, 4, 1]),
            Ok(vec![(0..2, 0..1), (2..3, 1..2)])
        );
        assert_eq!(of(&[4, 6], &[3, 8]), Ok(vec![(0..2, 0..2)]));
        assert!(of(&[-1, 6], &[6, -1]).is_err());
    }
}

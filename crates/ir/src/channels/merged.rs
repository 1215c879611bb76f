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

/// Axes of both shapes that hold the same numbers: from the first on as far as lengths are known,
/// then from the last on; one axis of each may be left between, which is as long in both.
fn runs(x: &[Dim], y: &[Dim]) -> Result<Vec<Run>, String> {
    const FIT: &str = "its lengths do not fit";
    let mut front = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let Some((p, q)) = run(&x[i..], &y[j..]) {
        front.push((i..i + p, j..j + q));
        (i, j) = (i + p, j + q);
    }
    let turned = |s: &[Dim]| -> Vec<Dim> { s.iter().rev().cloned().collect() };
    let (back_x, back_y) = (turned(&x[i..]), turned(&y[j..]));
    let mut back = Vec::new();
    let (mut m, mut n) = (0, 0);
    while let Some((p, q)) = run(&back_x[m..], &back_y[n..]) {
        let (end_x, end_y) = (x.len() - m, y.len() - n);
        back.push((end_x - p..end_x, end_y - q..end_y));
        (m, n) = (m + p, n + q);
    }
    let (left_x, left_y) = (i..x.len() - m, j..y.len() - n);
    let is_one = |d: &Dim| d.known() == Some(1);
    let is_ones = |s: &[Dim]| s.iter().all(is_one);
    match (left_x.len(), left_y.len()) {
        _ if is_ones(&x[left_x.clone()]) && is_ones(&y[left_y.clone()]) => {}
        (1, 1) if x[i].known().is_none() || y[j].known().is_none() => front.push((left_x, left_y)),
        _ if x[left_x]
            .iter()
            .chain(&y[left_y])
            .any(|d| d.known().is_none()) =>
        {
            return Err("its lengths are not known".into());
        }
        _ => return Err(FIT.into()),
    }
    front.extend(back.into_iter().rev());
    Ok(front)
}

/// How many axes of both, from the first on, hold the same numbers: as few as do.
fn run(x: &[Dim], y: &[Dim]) -> Option<(usize, usize)> {
    let (first, other) = (x.first()?, y.first()?);
    if first.same(other) {
        return Some((1, 1));
    }
    let (mut p, mut q) = (first.known()?, other.known()?);
    let (mut i, mut j) = (1, 1);
    while p != q {
        let (side, at, n) = if p < q {
            (x, &mut i, &mut p)
        } else {
            (y, &mut j, &mut q)
        };
        *n = n.checked_mul(side.get(*at)?.known()?)?;
        *at += 1;
    }
    Some((i, j))
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
        let heads = vec![(0..1, 0..1), (1..2, 1..2), (2..3, 2..4)];
        assert_eq!(of(&[-1, 5, 24], &[-1, 5, 4, 6]), Ok(heads.clone()));
        assert!(of(&[-1, 6], &[6, -1]).is_err());
        assert!(of(&[4, 6], &[5, 5]).is_err());
        let unknown = |list: &[usize]| -> Vec<Dim> {
            let dim = |&n: &usize| if n == 0 { Dim::Unknown } else { Dim::Known(n) };
            list.iter().map(dim).collect()
        };
        let found = runs(&unknown(&[2, 0, 24]), &unknown(&[2, 0, 4, 6]));
        assert_eq!(found, Ok(heads));
        assert!(runs(&unknown(&[0, 0, 24]), &unknown(&[0, 0, 4, 6])).is_err());
    }
}

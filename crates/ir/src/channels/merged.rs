//! Reshapes: axes that become one, and one that becomes several.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::{Dim, Graph, NodeId, ValueId};

use super::rules::Cx;
use super::{Axis, Split, Ties};

pub(super) fn flatten(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let rank = cx.rank(x);
    let axis = cx.node.int("axis").unwrap_or(1);
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    let axis = usize::try_from(axis).ok().filter(|&a| a <= rank);
    let axis = axis.ok_or("there is no such axis")?;
    merge(cx, (x, 0..axis), (y, 0..1))?;
    merge(cx, (x, axis..rank), (y, 1..2))
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
        merge(cx, (x, from), (y, to))?;
    }
    Ok(())
}

/// Axes of two values that hold the same numbers, of which one has several.
pub(super) struct Merge {
    node: NodeId,
    x: Vec<Axis>,
    y: Vec<Axis>,
}

/// Axes that are one to one are tied. What of others can be made smaller is settled when all else
/// is known.
fn merge(
    cx: &mut Cx,
    (x, from): (ValueId, Range<usize>),
    (y, to): (ValueId, Range<usize>),
) -> Result<(), String> {
    if from.len() == 1 && to.len() == 1 {
        cx.tie((x, from.start), (y, to.start));
        return Ok(());
    }
    let merge = Merge {
        node: cx.id,
        x: from.map(|a| Axis::of(x, a)).collect(),
        y: to.map(|a| Axis::of(y, a)).collect(),
    };
    let whole = |axes: &[Axis]| -> Option<usize> {
        let lengths = axes.iter().map(|a| cx.ties.length(*a));
        lengths.product()
    };
    match (whole(&merge.x), whole(&merge.y)) {
        (Some(m), Some(n)) if m != n => return Err("its lengths do not fit".into()),
        (Some(_), Some(_)) => cx.ties.merges.push(merge),
        _ => {
            for a in merge.x.iter().chain(&merge.y) {
                cx.hold(a.value, a.axis, "lengths are not known");
            }
        }
    }
    Ok(())
}

/// A factor of the lengths on both sides of a Reshape, and where it lies: the axis, and how many
/// numbers follow it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Factor {
    length: usize,
    x: (usize, usize),
    y: (usize, usize),
}

impl Factor {
    /// The index of this factor at a place of an axis.
    fn index(&self, behind: usize, place: usize) -> usize {
        place / behind % self.length
    }
}

/// The common factors of lengths on both sides, the outermost first; `None` where an axis of one
/// side ends within what cannot be divided on the other.
fn factors(x: &[usize], y: &[usize]) -> Option<Vec<Factor>> {
    let mut found = Vec::new();
    let (mut i, mut j) = (0, 0);
    let (mut p, mut q) = (1, 1);
    loop {
        // What is left of an axis of each side.
        while p == 1 && i < x.len() {
            (p, i) = (x[i], i + 1);
        }
        while q == 1 && j < y.len() {
            (q, j) = (y[j], j + 1);
        }
        if p == 1 || q == 1 {
            return (p == q).then_some(found);
        }
        let length = p.min(q);
        if p % length != 0 || q % length != 0 {
            return None;
        }
        (p, q) = (p / length, q / length);
        found.push(Factor {
            length,
            x: (i - 1, p),
            y: (j - 1, q),
        });
    }
}

/// Ties axes that a Reshape makes of others: each index of one factor of their lengths to all
/// places that it has on both sides. The others are held. Of the factors that nothing else holds it
/// is the outermost or the innermost.
pub(super) fn settle(ties: &mut Ties, graph: &Graph, merge: &Merge, split: Split) {
    let node = graph.node(merge.node);
    let lengths = |axes: &[Axis]| -> Vec<usize> {
        let lengths = axes.iter().map(|a| ties.length(*a).unwrap_or(0));
        lengths.collect()
    };
    let Some(mut factors) = factors(&lengths(&merge.x), &lengths(&merge.y)) else {
        let reason = ties.reason(node, "it cuts axes anew");
        for axis in merge.x.iter().chain(&merge.y) {
            ties.hold(*axis, reason);
        }
        return;
    };
    if split == Split::Inner {
        factors.reverse();
    }
    let free = factors.iter().position(|f| is_free(ties, merge, f));
    let Some(factor) = factors.get(free.unwrap_or(0)) else {
        return;
    };
    let (x, y) = (merge.x[factor.x.0], merge.y[factor.y.0]);
    for (axis, behind) in [(x, factor.x.1), (y, factor.y.1)] {
        for place in 0..ties.length(axis).unwrap_or(0) {
            let index = factor.index(behind, place);
            ties.unite((axis, place), (x, index * factor.x.1));
        }
    }
    let reason = ties.reason(node, "it becomes a part of another axis");
    for axis in merge.x.iter().chain(&merge.y) {
        if ![x, y].contains(axis) {
            ties.hold(*axis, reason);
        }
    }
}

/// True where at least two indices of a factor are held by nothing, and not tied to each other.
fn is_free(ties: &mut Ties, merge: &Merge, factor: &Factor) -> bool {
    let sides = [
        (merge.x[factor.x.0], factor.x.1),
        (merge.y[factor.y.0], factor.y.1),
    ];
    let mut roots: Vec<Option<usize>> = vec![None; factor.length];
    let mut is_held = vec![false; factor.length];
    for (axis, behind) in sides {
        for place in 0..ties.length(axis).unwrap_or(0) {
            let index = factor.index(behind, place);
            let slot = ties.slot(axis, place);
            let root = ties.root(slot);
            is_held[index] |= ties.held[root] != 0;
            roots[index].get_or_insert(root);
        }
    }
    let free = roots.into_iter().zip(is_held).filter(|(_, held)| !held);
    let free: BTreeSet<Option<usize>> = free.map(|(root, _)| root).collect();
    free.len() > 1
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

    /// A factor: its length, and its axis and what follows it on each side.
    type Told = (usize, (usize, usize), (usize, usize));

    #[test]
    fn factors_are_those_of_both_sides() {
        let of = |x: &[usize], y: &[usize]| -> Option<Vec<Told>> {
            let found = factors(x, y)?;
            Some(found.iter().map(|f| (f.length, f.x, f.y)).collect())
        };
        assert_eq!(
            of(&[12], &[3, 4]),
            Some(vec![(3, (0, 4), (0, 1)), (4, (0, 1), (1, 1))])
        );
        assert_eq!(
            of(&[6, 1, 5, 5], &[2, 75]),
            Some(vec![
                (2, (0, 3), (0, 1)),
                (3, (0, 1), (1, 25)),
                (5, (2, 1), (1, 5)),
                (5, (3, 1), (1, 1)),
            ])
        );
        assert_eq!(of(&[4, 6], &[3, 8]), None);
        assert_eq!(of(&[1, 1], &[1]), Some(vec![]));
    }
}

//! Groups that have to stay equally wide, though which of their channels go is free: channels of
//! different groups are tied to each other so that as many of each go.

use std::collections::BTreeMap;

use crate::{Graph, NodeId};

use super::{Axis, Ties};

/// An axis whose indices are parted into as many groups as are equally wide, one after another.
pub(super) struct Grouped {
    pub node: NodeId,
    pub axis: Axis,
    pub groups: usize,
}

/// Classes of one form that have this many indices in one of the groups, and none in the others.
type Alike = BTreeMap<(Vec<(Axis, usize)>, usize), Vec<Vec<usize>>>;

/// Ties classes until each has as many indices in every group, of every axis of groups. First those
/// of the same form go together, one of each group.
pub(super) fn settle(ties: &mut Ties, graph: &Graph, all: &[Grouped]) {
    // Each round leaves fewer classes that something can be tied to, or that are not held.
    loop {
        let mut changed = false;
        for grouped in all {
            changed |= even_out(ties, graph, grouped);
        }
        if !changed {
            return;
        }
    }
}

/// True where something was tied or held.
fn even_out(ties: &mut Ties, graph: &Graph, grouped: &Grouped) -> bool {
    let length = ties.length(grouped.axis).unwrap_or(0);
    let wide = length / grouped.groups.max(1);
    if wide == 0 {
        return false;
    }
    let mut counts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for place in 0..length {
        let slot = ties.slot(grouped.axis, place);
        let root = ties.root(slot);
        if ties.held[root] == 0 {
            let own = counts
                .entry(root)
                .or_insert_with(|| vec![0; grouped.groups]);
            own[place / wide] += 1;
        }
    }
    counts.retain(|_, own| own.iter().any(|n| *n != own[0]));
    if counts.is_empty() {
        return false;
    }
    let forms = forms(ties, &counts);
    let mut alike: Alike = BTreeMap::new();
    let mut mixed = Vec::new();
    for (root, own) in &counts {
        let mut some = own.iter().enumerate().filter(|(_, n)| **n > 0);
        match (some.next(), some.next()) {
            (Some((group, n)), None) => {
                let form = forms.get(root).cloned().unwrap_or_default();
                let lists = alike.entry((form, *n)).or_default();
                lists.resize(grouped.groups, Vec::new());
                lists[group].push(*root);
            }
            _ => mixed.push(*root),
        }
    }
    // Those that are in several groups already take the same places of the others.
    if !mixed.is_empty() {
        for place in 0..length {
            let slot = ties.slot(grouped.axis, place);
            if mixed.contains(&ties.root(slot)) {
                for group in 0..grouped.groups {
                    let other = group * wide + place % wide;
                    ties.unite((grouped.axis, place), (grouped.axis, other));
                }
            }
        }
        return true;
    }
    let mut left: BTreeMap<usize, Vec<Vec<usize>>> = BTreeMap::new();
    for ((_, n), mut lists) in alike {
        together(ties, &mut lists);
        let own = left.entry(n).or_default();
        own.resize(grouped.groups, Vec::new());
        for (own, list) in own.iter_mut().zip(lists) {
            own.extend(list);
        }
    }
    let reason = ties.reason(
        graph.node(grouped.node),
        "its groups have to be equally wide",
    );
    for lists in left.values_mut() {
        together(ties, lists);
        for root in lists.iter().flatten() {
            ties.held[*root] = reason;
        }
    }
    true
}

/// Ties the first of all lists, the second of all, and so on, and takes them out.
fn together(ties: &mut Ties, lists: &mut [Vec<usize>]) {
    let count = lists.iter().map(Vec::len).min().unwrap_or(0);
    for i in 0..count {
        for list in &lists[1..] {
            ties.join(lists[0][i], list[i]);
        }
    }
    for list in lists {
        list.drain(..count);
    }
}

/// The axes of these classes, with how many indices of each.
fn forms(
    ties: &mut Ties,
    roots: &BTreeMap<usize, Vec<usize>>,
) -> BTreeMap<usize, Vec<(Axis, usize)>> {
    let mut forms: BTreeMap<usize, Vec<(Axis, usize)>> = BTreeMap::new();
    for axis in ties.all() {
        for place in 0..ties.length(axis).unwrap_or(0) {
            let slot = ties.slot(axis, place);
            let root = ties.root(slot);
            if !roots.contains_key(&root) {
                continue;
            }
            let form = forms.entry(root).or_default();
            match form.last_mut().filter(|(a, _)| *a == axis) {
                Some((_, n)) => *n += 1,
                None => form.push((axis, 1)),
            }
        }
    }
    forms
}

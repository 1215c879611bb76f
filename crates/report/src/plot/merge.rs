//! Brings the nodes of several variants into one list by name, in the order they run.

use std::collections::BTreeMap;

use crate::evidence::{Evidence, NodeRow};

/// A name and a figure for each variant asked for.
pub(super) type Merged = (String, Vec<Option<f64>>);

/// One line for each node name of the variants `series` that has a finite figure, by depth. A node
/// that only one variant has stands after the node that runs before it there; figures of nodes of
/// the same name in one variant are added up.
pub(super) fn merge(
    evidence: &Evidence,
    series: &[usize],
    get: fn(&NodeRow) -> Option<f64>,
) -> Vec<Merged> {
    let mut lines: Vec<Merged> = Vec::new();
    for (column, &variant) in series.iter().enumerate() {
        let mut known: BTreeMap<String, usize> = lines
            .iter()
            .enumerate()
            .map(|(i, line)| (line.0.clone(), i))
            .collect();
        let mut fresh: Vec<(usize, Merged)> = Vec::new();
        let mut after = 0;
        for (i, node) in evidence.variants[variant].nodes.iter().enumerate() {
            let name = shown_name(node, i);
            let value = get(node).filter(|v| v.is_finite());
            let line = match known.get(&name) {
                Some(&at) if at < lines.len() => {
                    after = at + 1;
                    &mut lines[at]
                }
                Some(&at) => &mut fresh[at - lines.len()].1,
                None => {
                    known.insert(name.clone(), lines.len() + fresh.len());
                    fresh.push((after, (name, vec![None; series.len()])));
                    let last = fresh.len() - 1;
                    &mut fresh[last].1
                }
            };
            if let Some(value) = value {
                *line.1[column].get_or_insert(0.0) += value;
            }
        }
        insert(&mut lines, fresh);
    }
    lines.retain(|line| line.1.iter().any(Option::is_some));
    lines
}

/// The node's name, or its operator and place where it has none.
fn shown_name(node: &NodeRow, place: usize) -> String {
    if node.name.is_empty() {
        format!("{} #{}", node.op, place + 1)
    } else {
        node.name.clone()
    }
}

/// Puts each fresh line before the line whose index it carries, keeping their order.
fn insert(lines: &mut Vec<Merged>, mut fresh: Vec<(usize, Merged)>) {
    fresh.sort_by_key(|(at, _)| *at);
    let mut fresh = fresh.into_iter().peekable();
    let mut out = Vec::with_capacity(lines.len() + fresh.len());
    for (i, line) in lines.drain(..).enumerate() {
        while let Some((_, new)) = fresh.next_if(|(at, _)| *at <= i) {
            out.push(new);
        }
        out.push(line);
    }
    out.extend(fresh.map(|(_, new)| new));
    *lines = out;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Variant;

    fn variant(nodes: &[(&str, f64)]) -> Variant {
        let node = |&(name, ms): &(&str, f64)| NodeRow {
            name: name.into(),
            op: "Op".into(),
            ms: Some(ms),
            ..NodeRow::default()
        };
        Variant {
            nodes: nodes.iter().map(node).collect(),
            ..Variant::default()
        }
    }

    #[test]
    fn nodes_of_one_variant_stand_where_they_run() {
        let a = variant(&[("a", 1.0), ("b", 2.0), ("c", f64::NAN)]);
        let b = variant(&[
            ("q", 5.0),
            ("a", 3.0),
            ("x", 4.0),
            ("x", 4.0),
            ("c", 6.0),
            ("", 7.0),
        ]);
        let evidence = Evidence {
            variants: vec![a, b],
            ..Evidence::default()
        };
        let merged = merge(&evidence, &[0, 1], |n| n.ms);
        let want: [(&str, [Option<f64>; 2]); 6] = [
            ("q", [None, Some(5.0)]),
            ("a", [Some(1.0), Some(3.0)]),
            ("x", [None, Some(8.0)]),
            ("b", [Some(2.0), None]),
            ("c", [None, Some(6.0)]),
            ("Op #6", [None, Some(7.0)]),
        ];
        let want: Vec<Merged> = want.map(|(name, v)| (name.to_string(), v.to_vec())).into();
        assert_eq!(merged, want);
    }
}

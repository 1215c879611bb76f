//! The names that values and nodes have in a file: those of the model, made unique where they are not.

use std::collections::HashSet;

use edgesmith_ir::{Graph, ValueId};

/// The names of a graph's values, by [`ValueId::index`].
pub struct Names(Vec<String>);

impl Names {
    /// The names of a graph; `captured` are those that its captures have outside, in order.
    ///
    /// A value that stands for one outside has the name from there; another of that name, of no
    /// name, or of one that is taken gets a fresh one. Inputs and outputs come first.
    pub fn of(graph: &Graph, captured: &[String]) -> Self {
        let mut names = vec![None; graph.value_slots()];
        let mut taken = HashSet::new();
        for (capture, name) in graph.captures.iter().zip(captured) {
            names[capture.inner.index()] = Some(name.clone());
            taken.insert(name.clone());
        }
        let ends = graph.inputs.iter().chain(&graph.outputs).copied();
        for id in ends.chain(graph.values().map(|(id, _)| id)) {
            if names[id.index()].is_some() {
                continue;
            }
            let wanted = graph.value(id).name.as_str();
            let name = fresh(wanted, &taken);
            taken.insert(name.clone());
            names[id.index()] = Some(name);
        }
        Self(names.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// The name of a value.
    pub fn get(&self, id: ValueId) -> &str {
        &self.0[id.index()]
    }

    /// The names of values, empty where one is left out.
    pub fn all(&self, ids: &[Option<ValueId>]) -> Vec<String> {
        let name = |id: &Option<ValueId>| id.map_or("", |id| self.get(id)).to_owned();
        ids.iter().map(name).collect()
    }
}

/// Gives another name to all but the first of those that have the same; nodes may be without one.
pub fn distinguish<'a>(names: impl Iterator<Item = &'a mut String>) {
    let names: Vec<&mut String> = names.filter(|n| !n.is_empty()).collect();
    let all: HashSet<String> = names.iter().map(|n| (**n).clone()).collect();
    if all.len() == names.len() {
        return;
    }
    let (mut seen, mut taken) = (HashSet::new(), all);
    for name in names {
        if !seen.insert(name.clone()) {
            *name = fresh(name, &taken);
            taken.insert(name.clone());
        }
    }
}

fn fresh(wanted: &str, taken: &HashSet<String>) -> String {
    if !wanted.is_empty() && !taken.contains(wanted) {
        return wanted.to_owned();
    }
    let stem = if wanted.is_empty() { "value" } else { wanted };
    (1u32..)
        .map(|i| format!("{stem}_{i}"))
        .find(|name| !taken.contains(name))
        .expect("there are more numbers than values")
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgesmith_ir::Capture;

    #[test]
    fn nodes_of_one_name_get_names_of_their_own() {
        let mut names = ["a", "b", "", "a", "a_1", "", "a"].map(str::to_owned);
        distinguish(names.iter_mut());
        assert_eq!(names, ["a", "b", "", "a_2", "a_1", "", "a_3"]);
    }

    #[test]
    fn a_captured_name_wins_over_a_local_one() {
        let mut g = Graph::new("body");
        let inner = g.add_value("old", None);
        let (local, nameless) = (g.add_value("x", None), g.add_value("", None));
        let outer = inner;
        g.captures.push(Capture { outer, inner });
        let names = Names::of(&g, &["x".into()]);
        assert_eq!(names.get(inner), "x");
        assert_eq!(names.get(local), "x_1");
        assert_eq!(names.get(nameless), "value_1");
    }
}

//! Names that no value of a graph has.

use std::collections::{HashMap, HashSet};

use edgesmith_ir::Graph;

/// The names of a graph's values, and of those that are added to it.
pub struct Names {
    taken: HashSet<String>,
    next: HashMap<String, usize>,
}

impl Names {
    /// Those of `graph`.
    pub fn of(graph: &Graph) -> Self {
        Self {
            taken: graph.values().map(|(_, v)| v.name.clone()).collect(),
            next: HashMap::new(),
        }
    }

    /// A new name: `wanted`, or `wanted_1`, …
    pub fn fresh(&mut self, wanted: &str) -> String {
        let next = self.next.entry(wanted.into()).or_insert(0);
        loop {
            let name = match *next {
                0 => wanted.to_owned(),
                i => format!("{wanted}_{i}"),
            };
            *next += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

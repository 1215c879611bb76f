//! Names of values while a model is read, through all levels of nested graphs.

use std::collections::HashMap;

use edgesmith_ir::{Capture, Graph, ValueId};

/// A graph that is being built, with the names of its values.
#[derive(Default)]
pub struct Level {
    /// The graph so far.
    pub graph: Graph,
    /// The first so many values are inputs.
    pub inputs: usize,
    names: HashMap<String, ValueId>,
}

impl Level {
    /// Adds a value of a new name; `None` where the name is taken.
    pub fn define(&mut self, name: &str) -> Option<ValueId> {
        if self.names.contains_key(name) {
            return None;
        }
        let id = self.graph.add_value(name, None);
        self.names.insert(name.to_owned(), id);
        Some(id)
    }

    /// The value of that name in this graph.
    pub fn get(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }
}

/// The graphs around the one that is being read, the outermost first.
#[derive(Default)]
pub struct Scope {
    /// The innermost is the last.
    pub levels: Vec<Level>,
}

impl Scope {
    /// The innermost graph.
    pub fn top(&mut self) -> &mut Level {
        self.levels.last_mut().expect("a graph is being read")
    }

    /// The value that `name` means in the innermost graph. Where an outer graph has it, every
    /// graph between captures it.
    pub fn resolve(&mut self, name: &str) -> Option<ValueId> {
        let found = self
            .levels
            .iter()
            .rposition(|l| l.names.contains_key(name))?;
        let mut id = self.levels[found].names[name];
        for i in found + 1..self.levels.len() {
            let ty = self.levels[i - 1].graph.value(id).ty.clone();
            let level = &mut self.levels[i];
            let inner = level.graph.add_value(name, ty);
            level.names.insert(name.to_owned(), inner);
            level.graph.captures.push(Capture { outer: id, inner });
            id = inner;
        }
        Some(id)
    }
}

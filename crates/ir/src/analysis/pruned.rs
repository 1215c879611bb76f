//! Which constants of a model were pruned: what its metadata says, so that later steps keep zeros.

use std::collections::BTreeMap;

use crate::Model;

/// The metadata of a model that names a pruned constant is this, and its name; the value is the
/// pattern of its zeros and their share.
pub const PRUNED: &str = "edgesmith.pruned:";

/// What metadata says of a pruned constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Pruned {
    /// `unstructured`, `N:M` (N of M inputs stay) or `RxC` (R outputs and C inputs go together).
    pub pattern: String,
    /// The share of its numbers that are masked.
    pub sparsity: f64,
}

/// The pruned constants by name, as metadata has them.
pub fn pruned(model: &Model) -> BTreeMap<String, Pruned> {
    let entry = |(key, value): &(String, String)| {
        let name = key.strip_prefix(PRUNED)?;
        let (pattern, sparsity) = value.split_once(' ')?;
        let sparsity = sparsity.parse().ok().filter(|s| (0.0..=1.0).contains(s))?;
        let pattern = pattern.to_owned();
        Some((name.to_owned(), Pruned { pattern, sparsity }))
    };
    model.metadata.iter().filter_map(entry).collect()
}

/// Says in the metadata of a model that a constant is pruned.
pub fn mark_pruned(model: &mut Model, name: &str, what: &Pruned) {
    let key = format!("{PRUNED}{name}");
    model.metadata.retain(|(k, _)| *k != key);
    let value = format!("{} {}", what.pattern, what.sparsity);
    model.metadata.push((key, value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_found_and_the_last_word_counts() {
        let mut model = Model::default();
        model.metadata.push(("author".into(), "somebody".into()));
        model.metadata.push((format!("{PRUNED}odd"), "2:4".into()));
        let two_of_four = |sparsity| Pruned {
            pattern: "2:4".into(),
            sparsity,
        };
        mark_pruned(&mut model, "a weight: w", &two_of_four(0.25));
        mark_pruned(&mut model, "a weight: w", &two_of_four(0.5));
        let found = pruned(&model);
        assert_eq!(found.len(), 1);
        assert_eq!(found["a weight: w"], two_of_four(0.5));
        assert_eq!(model.metadata.len(), 3);
    }
}

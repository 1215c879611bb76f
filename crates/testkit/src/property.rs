//! Asks of many random models whether something holds, and shows the smallest for which it does
//! not.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use edgesmith_ir::Model;
use edgesmith_ir::text::print;

use crate::random;
use crate::shrink::shrink;

/// What should hold for a model; the error says what does not.
pub type Property<'a> = &'a dyn Fn(&Model) -> Result<(), String>;

/// A model for which a property does not hold.
#[derive(Debug)]
pub struct Counterexample {
    /// The seed of the random model.
    pub seed: u64,
    /// What does not hold for the small model.
    pub message: String,
    /// The small model, in text form.
    pub text: String,
}

/// Checks random models by seed; the first for which `property` does not hold, or in which
/// something panics, is made small and returned.
///
/// # Errors
/// The counterexample.
pub fn holds(
    seeds: impl IntoIterator<Item = u64>,
    property: Property,
) -> Result<(), Box<Counterexample>> {
    for seed in seeds {
        let model = random::graph(seed);
        if let Some(message) = fault(&model, property) {
            let kind = kind_of(&message);
            let same = |m: &Model| fault(m, property).is_some_and(|f| kind_of(&f) == kind);
            let small = shrink(&model, &mut |m| same(m));
            return Err(Box::new(Counterexample {
                seed,
                message: fault(&small, property).unwrap_or(message),
                text: print(&small).unwrap_or_else(|e| format!("no text: {e}")),
            }));
        }
    }
    Ok(())
}

/// The first `most` counterexamples among the seeds.
pub fn counterexamples(
    seeds: std::ops::Range<u64>,
    most: usize,
    property: Property,
) -> Vec<Counterexample> {
    let mut found = Vec::new();
    let mut next = seeds.start;
    while found.len() < most
        && let Err(fault) = holds(next..seeds.end, property)
    {
        next = fault.seed + 1;
        found.push(*fault);
    }
    found
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}\n{}", self.seed, self.message, self.text)
    }
}

/// The first word: shrinking should not lead to a fault of another kind.
fn kind_of(message: &str) -> String {
    message.split(':').next().unwrap_or_default().to_owned()
}

fn fault(model: &Model, property: Property) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| property(model))) {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Some(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counterexample_is_small_and_names_its_seed() {
        let without = |m: &Model| match m.graph.nodes().any(|(_, n)| n.is("Softmax")) {
            true => Err("softmax: there is one".into()),
            false => Ok(()),
        };
        let found = holds(0..500, &without).unwrap_err();
        assert_eq!(found.message, "softmax: there is one");
        assert!(found.text.lines().count() < 10, "{}", found.text);
    }
}

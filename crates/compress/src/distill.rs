//! Training as a step: a model, examples, losses of labels and of a teacher.

mod examples;
mod judge;
mod taught;
mod terms;

pub use examples::{DATA_KEYS, Examples, Fed, Judged};
pub(crate) use examples::{told, unlabelled};
pub use judge::judge;
pub use taught::{Shelf, Taught};
pub use terms::TermGiven;

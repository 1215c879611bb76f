//! Samples for calibration and evaluation: npz files checked against a model's inputs, read in batches.

mod cast;
mod dataset;

pub use cast::cast;
pub use dataset::{Batch, Batches, Dataset};

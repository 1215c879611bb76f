//! Samples: npz files for calibration and evaluation, checked against a model's inputs and read in batches;
//! sources for training, read one by one in any order, prepared by a seed.

pub mod augment;
mod cast;
mod dataset;
mod digest;
mod fit;
mod loader;
pub mod normalize;
pub mod source;
pub mod tokenizer;
mod words;

pub use cast::cast;
pub use dataset::{Batch, Batches, Dataset};
pub use digest::digest;
pub use loader::{Feed, Loader, Preparation, Seen, Targets};
pub use source::{Sample, Source, Target};

//! One pass over calibration data that sees every value and keeps a fixed number of facts.

mod histogram;
pub mod observers;
mod statistics;

pub use histogram::Histogram;
pub use statistics::{Channels, Statistics, ValueStatistics};

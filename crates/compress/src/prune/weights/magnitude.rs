//! Magnitude: the smallest numbers go.
//!
//! S. Han et al., "Learning both Weights and Connections for Efficient Neural Networks" (2015).
//! Scores are squares, so that those of a block are what its loss adds to the squared error of the
//! weight.

use edgesmith_ir::Result;

use super::criteria::Job;

/// The square of each number.
///
/// # Errors
/// None.
pub fn scores(job: &Job) -> Result<Vec<f64>> {
    Ok(job
        .weight
        .data
        .iter()
        .map(|&w| f64::from(w).powi(2))
        .collect())
}

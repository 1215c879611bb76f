//! Wanda: numbers go whose input and size together are least, of each output the same share.
//!
//! M. Sun et al., "A Simple and Effective Pruning Approach for Large Language Models" (2024),
//! equation 1: |w| times the root of the mean square of what it multiplies. Scores are squares of
//! that. Weights of a window of a convolution multiply what lies there.

use edgesmith_ir::Result;

use super::criteria::Job;

/// w² · E\[x²\] of each number.
///
/// # Errors
/// When nobody saw what the weight multiplies.
pub fn scores(job: &Job) -> Result<Vec<f64>> {
    let seen = job.seen()?;
    let rows_of_group = job.lengths.rows / seen.groups;
    let squares: Vec<Vec<f64>> = (0..seen.groups)
        .map(|g| seen.mean_squares(g).collect())
        .collect();
    let rows = job
        .weight
        .data
        .chunks_exact(job.lengths.columns)
        .enumerate();
    let row = |(r, row): (usize, &[f32])| {
        let squares = &squares[r / rows_of_group];
        let score = |(w, x): (&f32, &f64)| f64::from(*w).powi(2) * x;
        row.iter().zip(squares).map(score).collect::<Vec<f64>>()
    };
    Ok(rows.flat_map(row).collect())
}

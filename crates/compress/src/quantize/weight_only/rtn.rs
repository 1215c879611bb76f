//! Rounding to nearest: each number by itself.

use edgesmith_ir::Result;

use super::blocks::{Blocks, Grid, Row, Scheme};
use super::method::Job;
use super::range;

/// Rounds each number to the nearest code of its block.
///
/// # Errors
/// None; it has the type of a method.
pub fn round(job: &Job) -> Result<Blocks> {
    let scheme = job.scheme;
    Ok(by_blocks(job, |_, w| match job.settings.search_range {
        true => range::least_error(w, |_| 1.0, scheme),
        false => range::whole(w, scheme),
    }))
}

/// Rounds to nearest with the grid that `choose` gives for each block, from where it starts in
/// the row and its numbers.
pub fn by_blocks(job: &Job, choose: impl Fn(usize, &[f32]) -> Grid + Sync) -> Blocks {
    let (w, scheme) = (job.weight, job.scheme);
    let length = scheme.length(w.k);
    let row = |i: usize| {
        let mut row = Row::default();
        for (b, block) in w.row(i).chunks(length).enumerate() {
            row.push(choose(b * length, block), block, scheme);
        }
        row
    };
    Blocks::of_rows(w.n, w.k, scheme, job.rows(row))
}

impl Row {
    /// Adds a block rounded to nearest.
    pub fn push(&mut self, grid: Grid, block: &[f32], scheme: Scheme) {
        let most = scheme.most();
        self.codes.extend(block.iter().map(|&w| grid.code(w, most)));
        self.grids.push(grid);
    }
}

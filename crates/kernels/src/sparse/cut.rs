//! The cut of a product with lists into tasks.

use std::ops::Range;

/// Tasks: blocks of rows of A, each with a part of the outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    rows: usize,
    fours: usize,
    row_step: usize,
    four_step: usize,
}

impl Cut {
    /// For `rows` rows, of which `tile` are worth a task, and outputs in `fours`. Rows are turned to
    /// columns once for each part of the outputs, so these are cut only where rows are few.
    pub(super) fn new(threads: usize, rows: usize, tile: usize, fours: usize) -> Self {
        let (mut row_step, mut four_step) = (rows, fours);
        if threads > 1 {
            let wanted = threads * 3;
            row_step = rows.div_ceil(wanted).next_multiple_of(tile);
            let parts = threads.div_ceil(rows.div_ceil(row_step.max(1)).max(1));
            four_step = fours.div_ceil(parts);
        }
        Self {
            rows,
            fours,
            row_step: row_step.max(1),
            four_step: four_step.max(1),
        }
    }

    pub(super) fn tasks(self) -> usize {
        self.rows.div_ceil(self.row_step) * self.fours.div_ceil(self.four_step)
    }

    /// The rows and fours of outputs of task `i`.
    pub(super) fn task(self, i: usize) -> (Range<usize>, Range<usize>) {
        let across = self.fours.div_ceil(self.four_step);
        let (r, f) = (i / across * self.row_step, i % across * self.four_step);
        (
            r..self.rows.min(r + self.row_step),
            f..self.fours.min(f + self.four_step),
        )
    }
}

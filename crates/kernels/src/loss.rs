//! Softmax cross entropy of rows of scores and the class of each row.

use crate::Ctx;
use crate::activation::GRAIN;
use crate::norm::{log_softmax, softmax};
use crate::threads::Shared;

/// The classes of rows, and what each row counts.
#[derive(Clone, Copy, Debug)]
pub struct Classes<'a> {
    /// A class for each row, below the number of columns; `None`: the row counts nothing.
    pub of_rows: &'a [Option<usize>],
    /// A weight for each class, if they are not all 1.
    pub weights: Option<&'a [f32]>,
}

impl Classes<'_> {
    /// What row `i` counts, and its class.
    fn get(&self, i: usize) -> Option<(usize, f32)> {
        let class = self.of_rows[i]?;
        Some((class, self.weights.map_or(1.0, |w| w[class])))
    }

    /// What all rows count together.
    pub fn total(&self) -> f64 {
        let each = (0..self.of_rows.len()).filter_map(|i| self.get(i));
        each.map(|(_, weight)| f64::from(weight)).sum()
    }

    fn check(&self, scores: usize, columns: usize) {
        assert_eq!(scores, self.of_rows.len() * columns, "a row for each class");
        assert!(
            self.of_rows.iter().flatten().all(|c| *c < columns),
            "classes are columns"
        );
        assert!(
            self.weights.is_none_or(|w| w.len() == columns),
            "a weight for each class"
        );
    }
}

/// Makes `logs` the logarithms of the softmax of each row of `columns` scores, and `losses` minus
/// that of the row's class times its weight; 0 where a row counts nothing.
pub fn cross_entropy(
    ctx: &Ctx,
    scores: &[f32],
    columns: usize,
    classes: Classes,
    logs: &mut [f32],
    losses: &mut [f32],
) {
    classes.check(scores.len(), columns);
    assert_eq!(losses.len(), classes.of_rows.len(), "a loss for each row");
    log_softmax(ctx, scores, columns, logs);
    for (i, loss) in losses.iter_mut().enumerate() {
        *loss = match classes.get(i) {
            Some((class, weight)) => -weight * logs[i * columns + class],
            None => 0.0,
        };
    }
}

/// The gradient of the losses with respect to the scores: `weight (softmax - one) factor` in each
/// row, where `factors` has one number for all rows or one for each; rows that count nothing get 0.
pub fn cross_entropy_gradient(
    ctx: &Ctx,
    scores: &[f32],
    columns: usize,
    classes: Classes,
    factors: &[f32],
    dx: &mut [f32],
) {
    classes.check(scores.len(), columns);
    assert_eq!(scores.len(), dx.len(), "a gradient for each score");
    let rows = classes.of_rows.len();
    assert!(
        matches!(factors.len(), 1) || factors.len() == rows,
        "a factor for each row"
    );
    if dx.is_empty() {
        return;
    }
    let alone = ctx.on_one_thread();
    let shared = Shared::new(dx);
    let grain = (GRAIN / 4 / columns).max(1);
    ctx.threads().parallel_ranges(rows, grain, |rows| {
        let range = rows.start * columns..rows.end * columns;
        // SAFETY: every row belongs to one task.
        let dx = unsafe { shared.slice(range.clone()) };
        softmax(&alone, &scores[range], columns, dx);
        for (i, dx) in rows.zip(dx.chunks_exact_mut(columns)) {
            let Some((class, weight)) = classes.get(i) else {
                dx.fill(0.0);
                continue;
            };
            dx[class] -= 1.0;
            let factor = weight
                * if factors.len() == 1 {
                    factors[0]
                } else {
                    factors[i]
                };
            dx.iter_mut().for_each(|d| *d *= factor);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    #[test]
    fn gradients_are_the_slopes_of_losses() {
        let mut random = Random::new(91);
        for (rows, columns) in [(0, 3), (1, 1), (5, 10), (40, 17)] {
            let scores = random.floats(rows * columns);
            let of_rows: Vec<Option<usize>> = (0..rows)
                .map(|i| (i % 4 != 1).then(|| random.below(columns)))
                .collect();
            let weights = random.floats(columns);
            for weights in [None, Some(&weights[..])] {
                let classes = Classes {
                    of_rows: &of_rows,
                    weights,
                };
                let loss = |scores: &[f32]| -> f64 {
                    let row = |i: usize| {
                        let Some((class, weight)) = classes.get(i) else {
                            return 0.0;
                        };
                        let row = scores[i * columns..][..columns].iter();
                        let row: Vec<f64> = row.map(|x| f64::from(*x)).collect();
                        let total: f64 = row.iter().map(|x| x.exp()).sum();
                        f64::from(weight) * (total.ln() - row[class])
                    };
                    (0..rows).map(row).sum()
                };
                for ctx in contexts() {
                    let (mut logs, mut losses) = (vec![0.0; scores.len()], vec![9.0; rows]);
                    cross_entropy(&ctx, &scores, columns, classes, &mut logs, &mut losses);
                    close(
                        &[losses.iter().sum()],
                        &[loss(&scores) as f32],
                        1e-5,
                        "loss",
                    );
                    let mut dx = vec![f32::NAN; scores.len()];
                    cross_entropy_gradient(&ctx, &scores, columns, classes, &[0.5], &mut dx);
                    for i in (0..scores.len()).step_by(7) {
                        let moved = |by: f32| {
                            let mut moved = scores.clone();
                            moved[i] += by;
                            loss(&moved)
                        };
                        let slope = (moved(0.0625) - moved(-0.0625)) / 0.125;
                        close(&[dx[i]], &[0.5 * slope as f32], 2e-3, "slope");
                    }
                }
            }
        }
    }
}

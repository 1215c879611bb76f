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

#[cfg(test)]
mod tests {
    use edgesmith_kernels::Ctx;

    use super::super::criteria::{MAGNITUDE, WANDA};
    use super::super::pattern::Pattern;
    use super::super::scope::Scope;
    use super::super::select::Lengths;
    use super::super::{Settings, criteria};
    use super::*;
    use crate::calibrate::Sums;
    use crate::quantize::testing::numbers;
    use crate::quantize::weight_only::matrix::Matrix;

    fn kept(
        criterion: &'static criteria::Criterion,
        pattern: &str,
        weight: &Matrix,
        seen: &Sums,
    ) -> Vec<bool> {
        let pattern: Pattern = pattern.parse().unwrap();
        let mut settings = Settings::new(criterion, pattern, 0.4);
        settings.scope = Scope::Row;
        let job = Job {
            weight,
            lengths: Lengths {
                rows: weight.n,
                columns: weight.k,
                taps: 1,
            },
            number: 0,
            amount: settings.amount,
            seen: Some(seen),
            scheme: None,
            settings: &settings,
            ctx: &Ctx::serial(),
        };
        criterion.solve(&job).unwrap().kept
    }

    #[test]
    fn inputs_of_one_size_leave_magnitude_by_row() {
        for (groups, rows, k) in [(1, 6, 20), (3, 6, 8)] {
            let weight = Matrix {
                n: rows,
                k,
                data: numbers(rows * k, 3),
            };
            let seen = Sums::testing(groups, k, &vec![0.5; groups * k * 4]);
            for pattern in ["unstructured", "2:4", "2x1"] {
                let own = kept(&WANDA, pattern, &weight, &seen);
                assert_eq!(own, kept(&MAGNITUDE, pattern, &weight, &seen), "{pattern}");
            }
        }
    }

    #[test]
    fn a_large_input_keeps_a_small_weight() {
        let weight = Matrix {
            n: 2,
            k: 4,
            data: vec![0.1, 1.0, 1.1, 1.2, 0.1, 1.0, 1.1, 1.2],
        };
        // Two groups: the first input of the second one is large.
        let turned = [1.0f32, 1.0, 1.0, 1.0, 100.0, 1.0, 1.0, 1.0];
        let seen = Sums::testing(2, 4, &turned);
        let own = kept(&WANDA, "2:4", &weight, &seen);
        assert_eq!(own, [false, false, true, true, true, false, false, true]);
    }

    #[test]
    fn the_same_inputs_twice_change_nothing() {
        let turned = numbers(8 * 30, 5);
        let twice: Vec<f32> = turned.chunks(30).flat_map(|r| [r, r].concat()).collect();
        let (once, twice) = (Sums::testing(1, 8, &turned), Sums::testing(1, 8, &twice));
        for (a, b) in once.mean_squares(0).zip(twice.mean_squares(0)) {
            assert!((a - b).abs() < 1e-6 * a);
        }
    }
}

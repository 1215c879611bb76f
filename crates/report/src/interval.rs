//! Confidence intervals for a share that was counted, such as accuracy.

/// The standard normal quantile at 0.975, for two-sided 95 % intervals.
const Z_95: f64 = 1.959_963_984_540_054;

/// The 95 % Wilson score interval of `correct` out of `total`, both ends in `0.0..=1.0`.
///
/// Unlike the normal approximation it stays inside the unit range and keeps its coverage near
/// 0 and 1, where accuracies live. With no samples nothing is known: the answer is `(0.0, 1.0)`.
/// Counts above `total` are taken as `total`.
///
/// Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
/// Journal of the American Statistical Association 22 (1927), 209–212.
#[must_use]
pub fn wilson_95(correct: u64, total: u64) -> (f64, f64) {
    if total == 0 {
        return (0.0, 1.0);
    }
    let n = total as f64;
    let p = correct.min(total) as f64 / n;
    let z2 = Z_95 * Z_95;
    let scale = 1.0 / (1.0 + z2 / n);
    let centre = scale * (p + z2 / (2.0 * n));
    let half = scale * Z_95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::wilson_95;

    fn assert_close(got: (f64, f64), want: (f64, f64)) {
        assert!(
            (got.0 - want.0).abs() < 5e-5 && (got.1 - want.1).abs() < 5e-5,
            "{got:?} {want:?}"
        );
    }

    /// Ends are the roots of `(p - x)^2 = z^2 x (1 - x) / n`, found here by bisection.
    #[test]
    fn ends_solve_the_score_equation() {
        for (correct, total) in [(81_u64, 263_u64), (15, 148), (1, 29), (0, 20), (1804, 2000)] {
            let (n, p) = (total as f64, correct as f64 / total as f64);
            let excess = |x: f64| (p - x).powi(2) - 3.841_458_820_694_124 * x * (1.0 - x) / n;
            let root = |mut outside: f64, mut inside: f64| {
                for _ in 0..200 {
                    let middle = 0.5 * (outside + inside);
                    if excess(middle) > 0.0 {
                        outside = middle
                    } else {
                        inside = middle
                    }
                }
                inside
            };
            assert_close(wilson_95(correct, total), (root(0.0, p), root(1.0, p)));
        }
    }

    #[test]
    fn known_values_hold() {
        assert_close(wilson_95(81, 263), (0.2553, 0.3662));
        assert_close(wilson_95(0, 20), (0.0, 0.1611));
        assert_close(wilson_95(20, 20), (0.8389, 1.0));
    }

    #[test]
    fn nothing_counted_means_nothing_known() {
        assert_eq!(wilson_95(0, 0), (0.0, 1.0));
    }
}

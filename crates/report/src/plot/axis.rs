//! A linear axis with ticks at round numbers.

/// Maps values to pixels; its ends are ticks.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    low: f64,
    step: f64,
    steps: usize,
    from: f64,
    to: f64,
}

impl Axis {
    /// The axis from pixel `from` to pixel `to` that holds `low` and `high`, with about `ticks`
    /// ticks at multiples of 1, 2, 2.5 or 5 times a power of ten.
    pub(super) fn new(low: f64, high: f64, ticks: usize, from: f64, to: f64) -> Self {
        let span = if high > low {
            high - low
        } else {
            high.abs().max(1.0)
        };
        let rough = (span / ticks as f64).max(f64::MIN_POSITIVE);
        let power = 10_f64.powf(rough.log10().floor());
        let nice = [1.0, 2.0, 2.5, 5.0]
            .into_iter()
            .find(|m| m * power >= rough * 0.999);
        let step = nice.unwrap_or(10.0) * power;
        let first = (low / step + 1e-9).floor();
        let last = (low.max(high) / step - 1e-9).ceil().max(first + 1.0);
        Self {
            low: first * step,
            step,
            steps: (last - first) as usize,
            from,
            to,
        }
    }

    /// The pixel of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.step * self.steps as f64);
        self.from + share * (self.to - self.from)
    }

    /// The ticks: pixel and label.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let decimals = (0..9)
            .find(|d| {
                let scaled = self.step * 10_f64.powi(*d);
                (scaled - scaled.round()).abs() < 1e-6 * scaled
            })
            .unwrap_or(9) as usize;
        let tick = |i: usize| {
            let value = self.low + i as f64 * self.step;
            let value = if value.abs() < self.step * 1e-6 {
                0.0
            } else {
                value
            };
            (
                self.at(value),
                format!("{value:.decimals$}").replace('-', "−"),
            )
        };
        (0..=self.steps).map(tick).collect()
    }
}

/// The numbers from 1 to `count` that stand at an axis: the first, and at most some dozen at equal
/// distances.
pub(super) fn counted(count: usize) -> impl Iterator<Item = usize> {
    let every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
    let every = every.into_iter().find(|n| count / n <= 12).unwrap_or(2000);
    (1..=count).filter(move |i| i % every == 0 || *i == 1)
}

#[cfg(test)]
mod tests {
    use super::{Axis, counted};

    fn labels(low: f64, high: f64) -> Vec<String> {
        Axis::new(low, high, 5, 0.0, 100.0)
            .ticks()
            .into_iter()
            .map(|t| t.1)
            .collect()
    }

    #[test]
    fn ticks_are_round_and_hold_the_values() {
        assert_eq!(
            labels(0.0, 0.418),
            ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]
        );
        assert_eq!(labels(89.61, 92.32), ["89", "90", "91", "92", "93"]);
        assert_eq!(labels(-3.0, 12.0), ["−5", "0", "5", "10", "15"]);
        assert_eq!(
            labels(0.0, 12.5),
            ["0.0", "2.5", "5.0", "7.5", "10.0", "12.5"]
        );
    }

    #[test]
    fn an_empty_range_still_has_two_ticks() {
        for value in [0.0, 100.0, -4.0, 1e-300] {
            assert!(labels(value, value).len() >= 2);
        }
    }

    #[test]
    fn many_numbers_are_not_all_written() {
        assert_eq!(counted(3).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(counted(40).count(), 9);
        assert_eq!(counted(0).count(), 0);
    }

    #[test]
    fn values_map_to_pixels() {
        let axis = Axis::new(0.0, 10.0, 5, 200.0, 100.0);
        assert_eq!(
            (axis.at(0.0), axis.at(5.0), axis.at(10.0)),
            (200.0, 150.0, 100.0)
        );
    }
}

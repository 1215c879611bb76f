//! A histogram of fixed size whose bins double in width when the data outgrows them.
//!
//! Widths are powers of two and bins touch zero, so growing merges neighbours exactly: the counts
//! depend on the data alone, not on its order or on how it was cut into batches.

use edgesmith_kernels::survey::{self, Bins};
use serde::{Deserialize, Serialize};

/// Bins on each side of zero.
pub const HALF: usize = 2048;

/// The exponent of the narrowest bin: that of the smallest f32.
const FINEST: i32 = -149;

/// Below this exponent the inverse of the width is no f32.
const LEAST_INVERSE: i32 = -126;

/// Counts of finite numbers. Bin `i` holds `(i − HALF)·w ≤ x < (i − HALF + 1)·w`, `w` the width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    exponent: i32,
    bins: Vec<u64>,
}

/// The bins of a histogram, as those who count see them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// One over the width of a bin.
    pub inverse: f32,
    /// Where the bins end.
    end: f64,
}

impl Scale {
    /// True where numbers from the first to the second lie within the bins.
    pub fn holds(&self, (min, max): (f32, f32)) -> bool {
        f64::from(max) < self.end && f64::from(min) >= -self.end
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            exponent: FINEST,
            bins: vec![0; 2 * HALF],
        }
    }
}

impl Histogram {
    /// The width of a bin.
    pub fn width(&self) -> f64 {
        f64::from(self.exponent).exp2()
    }

    /// The counts, from the most negative bin on.
    pub fn bins(&self) -> &[u64] {
        &self.bins
    }

    /// Where bin `i` starts.
    pub fn edge(&self, i: usize) -> f64 {
        (i as f64 - HALF as f64) * self.width()
    }

    /// Counts finite numbers, all within `min` and `max`.
    pub fn add(&mut self, data: &[f32], min: f32, max: f32) {
        self.fit(min, max);
        self.add_few(data);
    }

    /// Counts finite numbers that all lie within the bins.
    pub(super) fn add_few(&mut self, data: &[f32]) {
        if let Some(scale) = self.scale() {
            return survey::count_few(data, scale.inverse, &mut self.bins);
        }
        let inverse = f64::from(-self.exponent).exp2();
        for &x in data {
            self.bins[((f64::from(x) * inverse).floor() as i64 + HALF as i64) as usize] += 1;
        }
    }

    /// Takes over counts made at this [`Histogram::scale`] of numbers that lie between the ends.
    pub(super) fn take(&mut self, bins: &mut Bins, ends: (f32, f32)) {
        if let Some(scale) = self.scale() {
            bins.take(ends, scale.inverse, &mut self.bins);
        }
    }

    /// How numbers are counted; `None` while bins are so narrow that one over their width is no f32.
    pub(super) fn scale(&self) -> Option<Scale> {
        (self.exponent >= LEAST_INVERSE).then(|| Scale {
            inverse: f32::from_bits(((127 - self.exponent) as u32) << 23),
            end: HALF as f64 * self.width(),
        })
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        let exponent = self.exponent.max(other.exponent);
        self.grow(exponent);
        let shift = exponent - other.exponent;
        for (i, &n) in other.bins.iter().enumerate().filter(|(_, n)| **n > 0) {
            self.bins[coarser(i, shift)] += n;
        }
    }

    /// Widens the bins until they hold both.
    pub(super) fn fit(&mut self, min: f32, max: f32) {
        let (min, max) = (f64::from(min), f64::from(max));
        let mut exponent = self.exponent;
        let half = HALF as f64;
        while max >= half * f64::from(exponent).exp2() || min < -half * f64::from(exponent).exp2() {
            exponent += 1;
        }
        self.grow(exponent);
    }

    fn grow(&mut self, exponent: i32) {
        let shift = exponent - self.exponent;
        if shift == 0 {
            return;
        }
        let mut bins = vec![0; 2 * HALF];
        for (i, &n) in self.bins.iter().enumerate().filter(|(_, n)| **n > 0) {
            bins[coarser(i, shift)] += n;
        }
        self.exponent = exponent;
        self.bins = bins;
    }
}

/// The bin that takes over bin `i` when bins are `2^shift` times as wide.
fn coarser(i: usize, shift: i32) -> usize {
    let k = i as i64 - HALF as i64;
    ((k >> shift.min(63)) + HALF as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data: &[f32]) -> Histogram {
        let mut h = Histogram::default();
        for &x in data {
            h.add(&[x], x, x);
        }
        h
    }

    #[test]
    fn counts_do_not_depend_on_order_or_batches() {
        let data: Vec<f32> = (0..1000)
            .map(|i| ((i * 7919) % 1009) as f32 * 0.37 - 150.0)
            .chain([1e-30, -1e-30, 0.0, -0.0, 3e4, -2.5])
            .collect();
        let mut reversed = data.clone();
        reversed.reverse();
        let one_by_one = of(&data);
        assert_eq!(one_by_one, of(&reversed));
        let mut whole = Histogram::default();
        whole.add(&data, -150.0, 3e4);
        assert_eq!(one_by_one, whole);
        let mut merged = of(&data[..300]);
        merged.merge(&of(&data[300..]));
        assert_eq!(one_by_one, merged);
    }

    #[test]
    fn every_number_lies_in_its_bin() {
        for x in [
            0.0f32,
            1.0,
            -1.0,
            0.3,
            -7.7,
            1e30,
            -1e-40,
            f32::MAX,
            f32::MIN,
        ] {
            let h = of(&[x]);
            let i = h.bins().iter().position(|&n| n == 1).unwrap();
            assert!(
                h.edge(i) <= f64::from(x) && f64::from(x) < h.edge(i + 1),
                "{x}"
            );
        }
    }
}

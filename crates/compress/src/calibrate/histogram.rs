//! A histogram of fixed size whose bins double in width when the data outgrows them.
//!
//! Widths are powers of two and bins touch zero, so growing merges neighbours exactly: the counts
//! depend on the data alone, not on its order or on how it was cut into batches.

use serde::{Deserialize, Serialize};

/// Bins on each side of zero.
pub const HALF: usize = 2048;

/// The exponent of the narrowest bin: that of the smallest f32.
const FINEST: i32 = -149;

/// Below this exponent the inverse of the width is no f32.
const LEAST_INVERSE: i32 = -126;

/// Tables that count in turn, so that equal numbers do not wait for each other.
const TABLES: usize = 4;

/// Numbers whose bins are found at once.
const PART: usize = 512;

/// The bin of `x`, where `inverse` is that of the width: `⌊x·inverse⌋ + HALF`. A negative number
/// whose product is too small for an f32 is still negative.
fn bin(x: f32, inverse: f32) -> i32 {
    let scaled = x * inverse;
    let shifted = scaled + SHIFT;
    let nearest = shifted - SHIFT;
    let below = (nearest > scaled) | ((nearest == 0.0) & (x < 0.0));
    let integer = (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32);
    integer - i32::from(below) + HALF as i32
}

/// 1.5·2²³: added to a small number it leaves the nearest integer in the lowest bits.
const SHIFT: f32 = 12_582_912.0;

/// Counts of finite numbers. Bin `i` holds `(i − HALF)·w ≤ x < (i − HALF + 1)·w`, `w` the width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    exponent: i32,
    bins: Vec<u64>,
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
        self.fit(f64::from(min), f64::from(max));
        if self.exponent < LEAST_INVERSE {
            let inverse = f64::from(-self.exponent).exp2();
            for &x in data {
                self.bins[((f64::from(x) * inverse).floor() as i64 + HALF as i64) as usize] += 1;
            }
            return;
        }
        let inverse = f32::from_bits(((127 - self.exponent) as u32) << 23);
        if data.len() < 4 * HALF {
            for &x in data {
                self.bins[bin(x, inverse) as usize] += 1;
            }
            return;
        }
        let mut tables = [const { [0u32; 2 * HALF] }; TABLES];
        let mut indices = [0i32; PART];
        for part in data.chunks(PART) {
            for (i, &x) in indices.iter_mut().zip(part) {
                *i = bin(x, inverse);
            }
            let (groups, rest) = indices[..part.len()].as_chunks::<TABLES>();
            for group in groups {
                for t in 0..TABLES {
                    tables[t][group[t] as usize % (2 * HALF)] += 1;
                }
            }
            for &i in rest {
                tables[0][i as usize] += 1;
            }
        }
        for (i, n) in self.bins.iter_mut().enumerate() {
            *n += tables.iter().map(|t| u64::from(t[i])).sum::<u64>();
        }
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

    fn fit(&mut self, min: f64, max: f64) {
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
    fn many_numbers_at_once_lie_where_each_alone_does() {
        let mut data: Vec<f32> = (0..20_001)
            .map(|i| ((i * 7919) % 10_007) as f32 * 0.013 - 40.0)
            .collect();
        data.extend([-1e-45, 1e-45, -0.0, -1e-30, 3.4e38, -16.0, 16.0]);
        for scale in [1e-38f32, 1e-3, 1.0] {
            let data: Vec<f32> = data.iter().map(|x| x * scale).collect();
            let (lo, hi) = data
                .iter()
                .fold((0f32, 0f32), |(l, h), &x| (l.min(x), h.max(x)));
            let mut whole = Histogram::default();
            whole.add(&data, lo, hi);
            assert_eq!(whole, of(&data), "{scale}");
        }
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

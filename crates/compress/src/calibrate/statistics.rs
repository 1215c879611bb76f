//! What one pass over the calibration data leaves behind of each value, in fixed memory.

use std::collections::BTreeMap;

use edgesmith_ir::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::gram::Gram;
use super::histogram::Histogram;

/// What was seen of each value of a model, by its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Samples that were run.
    pub samples: u64,
    /// By the name of the value.
    pub values: BTreeMap<String, ValueStatistics>,
    /// XᵀX of the values of which it was asked for, by name.
    pub grams: BTreeMap<String, Gram>,
    /// What makes the numbers less trustworthy, as sentences.
    pub warnings: Vec<String>,
}

impl Statistics {
    /// What was seen of that value, where any finite number was.
    pub fn of(&self, name: &str) -> Option<&ValueStatistics> {
        self.values.get(name).filter(|s| s.count > 0)
    }

    /// XᵀX of that value, where any row was seen.
    pub fn gram(&self, name: &str) -> Option<&Gram> {
        self.grams.get(name).filter(|g| g.rows > 0)
    }
}

/// What was seen of one value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValueStatistics {
    /// Finite numbers seen.
    pub count: u64,
    /// How many of them were zero.
    pub zeros: u64,
    /// NaN and infinities seen; they count nowhere else.
    pub not_finite: u64,
    /// The smallest; ∞ before the first.
    pub min: f32,
    /// The largest; −∞ before the first.
    pub max: f32,
    /// Σx.
    pub sum: f64,
    /// Σx².
    pub sum_squares: f64,
    /// Sums of the smallest and of the largest number of each row along the first axis, and how many
    /// rows there were: what a mean of samples' ranges needs, whatever the batch.
    pub row_ends: (f64, f64, u64),
    /// Where they lie.
    pub histogram: Histogram,
    /// Sums by channel, where they were asked for.
    pub channels: Option<Channels>,
}

/// Sums along every axis but one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Channels {
    /// The axis of the channels; negative ones count from the back.
    pub axis: i64,
    /// Σx of each channel; empty before the first tensor.
    pub sums: Vec<f64>,
    /// Σx² of each channel.
    pub squares: Vec<f64>,
    /// The smallest x of each channel.
    pub min: Vec<f32>,
    /// The largest x of each channel.
    pub max: Vec<f32>,
    /// Numbers in each sum.
    pub count: u64,
}

impl Channels {
    /// The mean of each channel.
    pub fn means(&self) -> Vec<f64> {
        let n = self.count.max(1) as f64;
        self.sums.iter().map(|s| s / n).collect()
    }

    /// The mean of x² of each channel.
    pub fn mean_squares(&self) -> Vec<f64> {
        let n = self.count.max(1) as f64;
        self.squares.iter().map(|s| s / n).collect()
    }

    /// The largest |x| of each channel.
    pub fn magnitudes(&self) -> Vec<f32> {
        let ends = self.min.iter().zip(&self.max);
        ends.map(|(lo, hi)| hi.max(-lo)).collect()
    }

    /// Adds a tensor in row-major order. One of another rank or length ends the sums: they would
    /// mean nothing.
    fn add(&mut self, dims: &[usize], data: &[f32]) {
        let rank = dims.len() as i64;
        let axis = if self.axis < 0 {
            self.axis + rank
        } else {
            self.axis
        };
        let Some(&length) = usize::try_from(axis).ok().and_then(|a| dims.get(a)) else {
            return;
        };
        if self.count == 0 {
            self.sums = vec![0.0; length];
            self.squares = vec![0.0; length];
            self.min = vec![f32::INFINITY; length];
            self.max = vec![f32::NEG_INFINITY; length];
        }
        if self.sums.len() != length || data.is_empty() {
            return;
        }
        let inner: usize = dims[axis as usize + 1..].iter().product();
        if inner == 1 {
            for row in data.chunks_exact(length) {
                for (sum, &x) in self.sums.iter_mut().zip(row) {
                    *sum += f64::from(x);
                }
                for (sum, &x) in self.squares.iter_mut().zip(row) {
                    *sum += f64::from(x) * f64::from(x);
                }
                for ((lo, hi), &x) in self.min.iter_mut().zip(&mut self.max).zip(row) {
                    *lo = if x < *lo { x } else { *lo };
                    *hi = if x > *hi { x } else { *hi };
                }
            }
        } else {
            for (i, row) in data.chunks_exact(inner).enumerate() {
                let (c, row) = (i % length, Row::of(row));
                self.sums[c] += row.sum;
                self.squares[c] += row.sum_squares;
                self.min[c] = self.min[c].min(row.min);
                self.max[c] = self.max[c].max(row.max);
            }
        }
        self.count += (data.len() / length) as u64;
    }
}

/// Numbers that are summed apart, so that sums do not wait for each other.
const LANES: usize = 8;

/// Groups of [`LANES`] that are looked at again while they are in the cache.
const BLOCK: usize = 64;

/// Facts of the finite numbers of one row, which no batch cuts.
#[derive(Debug, Clone, Copy)]
struct Row {
    finite: u64,
    zeros: u64,
    min: f32,
    max: f32,
    sum: f64,
    sum_squares: f64,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            finite: 0,
            zeros: 0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            sum: 0.0,
            sum_squares: 0.0,
        }
    }
}

impl Row {
    fn of(data: &[f32]) -> Self {
        let row = Self::of_finite(data);
        if row.sum_squares.is_finite() {
            return row;
        }
        let finite: Vec<f32> = data.iter().copied().filter(|x| x.is_finite()).collect();
        Self::of_finite(&finite)
    }

    fn of_finite(data: &[f32]) -> Self {
        let mut lanes = [Self::default(); LANES];
        let (parts, rest) = data.as_chunks::<LANES>();
        let (mut least, mut most) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (mut sums, mut squares) = ([0.0f64; LANES], [0.0f64; LANES]);
        let mut zeros = [0u32; LANES];
        for part in parts.chunks(BLOCK) {
            for eight in part {
                for i in 0..LANES {
                    least[i] = if eight[i] < least[i] {
                        eight[i]
                    } else {
                        least[i]
                    };
                    most[i] = if eight[i] > most[i] {
                        eight[i]
                    } else {
                        most[i]
                    };
                }
            }
            for eight in part {
                for i in 0..LANES {
                    zeros[i] += u32::from(eight[i] == 0.0);
                    sums[i] += f64::from(eight[i]);
                }
            }
            for eight in part {
                for i in 0..LANES {
                    let wide = f64::from(eight[i]);
                    squares[i] += wide * wide;
                }
            }
        }
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = Self {
                finite: parts.len() as u64,
                zeros: u64::from(zeros[i]),
                min: least[i],
                max: most[i],
                sum: sums[i],
                sum_squares: squares[i],
            };
        }
        let single = |&x: &f32| Self {
            finite: 1,
            zeros: u64::from(x == 0.0),
            min: x,
            max: x,
            sum: f64::from(x),
            sum_squares: f64::from(x) * f64::from(x),
        };
        lanes
            .into_iter()
            .chain(rest.iter().map(single))
            .fold(Self::default(), Self::and)
    }

    fn and(self, other: Self) -> Self {
        Self {
            finite: self.finite + other.finite,
            zeros: self.zeros + other.zeros,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            sum: self.sum + other.sum,
            sum_squares: self.sum_squares + other.sum_squares,
        }
    }
}

impl ValueStatistics {
    /// Nothing seen yet; `channels` is the axis along which sums are wanted.
    pub fn new(channels: Option<i64>) -> Self {
        Self {
            count: 0,
            zeros: 0,
            not_finite: 0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            sum: 0.0,
            sum_squares: 0.0,
            row_ends: (0.0, 0.0, 0),
            histogram: Histogram::default(),
            channels: channels.map(|axis| Channels {
                axis,
                ..Channels::default()
            }),
        }
    }

    /// Adds the elements of a float tensor.
    ///
    /// # Errors
    /// When its elements cannot be read as f32.
    pub fn add(&mut self, tensor: &Tensor) -> Result<()> {
        let data = tensor.to_f32()?;
        let row = tensor.dims().iter().skip(1).product::<usize>().max(1);
        let before = Row {
            sum: self.sum,
            sum_squares: self.sum_squares,
            ..Row::default()
        };
        let row_ends = &mut self.row_ends;
        let mut note = |r: &Row| {
            if r.finite > 0 {
                row_ends.0 += f64::from(r.min);
                row_ends.1 += f64::from(r.max);
                row_ends.2 += 1;
            }
        };
        let rows = data.chunks(row).map(Row::of).inspect(|r| note(r));
        let all = rows.fold(before, Row::and);
        self.not_finite += data.len() as u64 - all.finite;
        if all.finite == 0 {
            return Ok(());
        }
        self.count += all.finite;
        self.zeros += all.zeros;
        (self.sum, self.sum_squares) = (all.sum, all.sum_squares);
        self.min = self.min.min(all.min);
        self.max = self.max.max(all.max);
        if all.finite == data.len() as u64 {
            self.histogram.add(&data, all.min, all.max);
        } else {
            let finite: Vec<f32> = data.iter().copied().filter(|x| x.is_finite()).collect();
            self.histogram.add(&finite, all.min, all.max);
        }
        if let Some(channels) = &mut self.channels {
            channels.add(tensor.dims(), &data);
        }
        Ok(())
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// The range seen, widened so that it holds zero.
    pub fn range(&self) -> (f64, f64) {
        if self.count == 0 {
            return (0.0, 0.0);
        }
        (f64::from(self.min).min(0.0), f64::from(self.max).max(0.0))
    }

    /// The mean over samples of the range of each, widened so that it holds zero.
    pub fn mean_range(&self) -> (f64, f64) {
        let (lo, hi, rows) = self.row_ends;
        let n = rows.max(1) as f64;
        ((lo / n).min(0.0), (hi / n).max(0.0))
    }

    /// True where every number seen was the same.
    pub fn is_constant(&self) -> bool {
        self.count > 0 && self.min == self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_summed_along_their_axis() {
        let t =
            Tensor::from_vec(&[2, 2, 2], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).unwrap();
        let mut s = ValueStatistics::new(Some(1));
        s.add(&t).unwrap();
        let channels = s.channels.unwrap();
        assert_eq!(channels.means(), [3.5, 5.5]);
        assert_eq!(
            (channels.min[1], channels.magnitudes()),
            (3.0, vec![6.0, 8.0])
        );
        assert_eq!(channels.mean_squares(), [16.5, 34.5]);
        let mut s = ValueStatistics::new(Some(-1));
        s.add(&t).unwrap();
        let channels = s.channels.unwrap();
        assert_eq!(channels.means(), [4.0, 5.0]);
        assert_eq!(
            (channels.min[1], channels.magnitudes()),
            (2.0, vec![7.0, 8.0])
        );
        assert_eq!(channels.mean_squares(), [21.0, 30.0]);
    }

    #[test]
    fn what_is_not_finite_is_counted_and_left_out() {
        let mut s = ValueStatistics::new(None);
        s.add(&Tensor::vector(vec![
            1.0f32,
            f32::NAN,
            -2.0,
            f32::INFINITY,
            0.0,
        ]))
        .unwrap();
        assert_eq!((s.count, s.not_finite, s.zeros), (3, 2, 1));
        assert_eq!((s.min, s.max, s.sum, s.sum_squares), (-2.0, 1.0, -1.0, 5.0));
        assert_eq!(s.histogram.bins().iter().sum::<u64>(), 3);
    }

    #[test]
    fn batches_may_be_cut_anywhere() {
        let data: Vec<f32> = (0..96).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let mut whole = ValueStatistics::new(Some(1));
        whole
            .add(&Tensor::from_vec(&[8, 4, 3], data.clone()).unwrap())
            .unwrap();
        let mut parts = ValueStatistics::new(Some(1));
        for part in data.chunks(24) {
            parts
                .add(&Tensor::from_vec(&[2, 4, 3], part.to_vec()).unwrap())
                .unwrap();
        }
        assert_eq!(whole, parts);
    }
}

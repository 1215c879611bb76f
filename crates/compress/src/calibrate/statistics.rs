//! What one pass over the calibration data leaves behind of each value, in fixed memory.

use std::collections::BTreeMap;

use edgesmith_ir::{Result, Tensor};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::survey::Columns;
use edgesmith_runtime::View;
use serde::{Deserialize, Serialize};

use super::gram::Gram;
use super::histogram::Histogram;
use super::parts::{Parts, Tables};

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

    /// Adds a sample. One with another number of channels ends the sums: they would mean nothing.
    fn add(&mut self, facts: &Columns, count: usize) {
        if self.count == 0 {
            let empty = Columns::new(facts.min.len());
            (self.sums, self.squares) = (empty.sums, empty.squares);
            (self.min, self.max) = (empty.min, empty.max);
        }
        if self.sums.len() != facts.min.len() || count == 0 {
            return;
        }
        for c in 0..self.sums.len() {
            self.sums[c] += facts.sums[c];
            self.squares[c] += facts.squares[c];
            self.min[c] = self.min[c].min(facts.min[c]);
            self.max[c] = self.max[c].max(facts.max[c]);
        }
        self.count += (count / facts.min.len()) as u64;
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
        self.add_view(&View::of(&Ctx::serial(), tensor), &mut Tables::default())
    }

    /// Adds the elements of a float value where it lies; `tables` is room to count in.
    ///
    /// # Errors
    /// When its elements cannot be read as f32.
    pub(super) fn add_view(&mut self, value: &View, tables: &mut Tables) -> Result<()> {
        let parts = Parts::of(value, self.channels.as_ref().map(|c| c.axis))?;
        for sample in parts.survey(&mut self.histogram, tables) {
            let all = sample.facts.whole();
            let count = parts.sample_len();
            self.not_finite += sample.not_finite;
            let finite = count as u64 - sample.not_finite;
            if finite == 0 {
                continue;
            }
            self.count += finite;
            self.zeros += all.zeros;
            self.sum += all.sums[0];
            self.sum_squares += all.squares[0];
            self.min = self.min.min(all.min[0]);
            self.max = self.max.max(all.max[0]);
            let ends = (f64::from(all.min[0]), f64::from(all.max[0]), 1);
            let (lo, hi, rows) = match value.dims().len() {
                0 | 1 => (all.sums[0], all.sums[0], finite),
                _ => ends,
            };
            self.row_ends.0 += lo;
            self.row_ends.1 += hi;
            self.row_ends.2 += rows;
            if let Some(channels) = &mut self.channels {
                channels.add(&sample.facts, count);
            }
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

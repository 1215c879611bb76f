//! The range that keeps most information: the smallest Kullback-Leibler divergence between what was
//! seen and what is left of it after clipping and rounding.
//!
//! As TensorRT's calibration (Migacz 2017, "8-bit inference with TensorRT") and its followers, with
//! what they get wrong put right: there are many more bins than levels, so that there is a choice;
//! the levels are those of the target type, on both sides of zero or on one; zeros, which stay exact,
//! count nowhere; and each level stands for a range of bins in proportion, not for a whole number of
//! them.

use super::{Levels, Observer, Tuning, even};
use crate::calibrate::histogram::HALF;
use crate::calibrate::statistics::ValueStatistics;

/// The observer.
pub static ENTROPY: Observer = Observer {
    name: "entropy",
    about: "the range whose rounded histogram diverges least from what was seen (KL)",
    range,
};

/// Ranges that are tried.
const TRIES: usize = 128;

/// Ranges are tried from this share of the whole one on.
const LEAST: f64 = 0.1;

fn range(seen: &ValueStatistics, levels: Levels, tuning: &Tuning) -> (f64, f64) {
    let (lo, hi) = even(seen.range(), levels);
    let bins = binned(seen, tuning.entropy_bins);
    let width = seen.histogram.width() * (2 * HALF / bins.len()) as f64;
    let half = bins.len() / 2;
    let steps = f64::from(levels.max - levels.min);
    let mut best = (f64::INFINITY, (lo, hi));
    for i in 0..TRIES {
        let share = 1.0 - (1.0 - LEAST) * i as f64 / TRIES as f64;
        let (a, b) = (lo * share, hi * share);
        let first = half - ((-a / width).ceil() as usize).min(half);
        let last = half + ((b / width).ceil() as usize).min(half);
        let step = ((b - a) / steps / width).max(1.0);
        let divergence = divergence(&bins, first..last.max(first + 1), step);
        if divergence < best.0 {
            best = (divergence, (a, b));
        }
    }
    best.1
}

/// The counts without exact zeros, in `2·half` bins of equal width.
fn binned(seen: &ValueStatistics, half: usize) -> Vec<f64> {
    let merged = (HALF / half.clamp(1, HALF)).max(1);
    let merged = merged.next_power_of_two().min(HALF);
    let mut counts: Vec<f64> = seen.histogram.bins().iter().map(|&n| n as f64).collect();
    counts[HALF] -= seen.zeros as f64;
    counts.chunks(merged).map(|c| c.iter().sum()).collect()
}

/// KL of the counts, with what lies outside `kept` in its end bins, from those that rounding to
/// levels of `step` bins leaves, spread over the bins that were not empty.
fn divergence(bins: &[f64], kept: std::ops::Range<usize>, step: f64) -> f64 {
    let inside = &bins[kept.clone()];
    let mut p = inside.to_vec();
    let end = p.len() - 1;
    p[0] += bins[..kept.start].iter().sum::<f64>();
    p[end] += bins[kept.end..].iter().sum::<f64>();
    let mut q = vec![0.0; inside.len()];
    let (mut i, mut level) = (0, 1.0);
    while i < inside.len() {
        let until = ((level * step).round() as usize).clamp(i + 1, inside.len());
        let total: f64 = inside[i..until].iter().sum();
        let full = p[i..until].iter().filter(|n| **n > 0.0).count();
        for (q, _) in q[i..until]
            .iter_mut()
            .zip(&p[i..until])
            .filter(|(_, p)| **p > 0.0)
        {
            *q = total / full as f64;
        }
        (i, level) = (until, level + 1.0);
    }
    let (sum_p, sum_q) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
    if sum_p <= 0.0 || sum_q <= 0.0 {
        return f64::INFINITY;
    }
    // An empty q under a full p would be infinitely far; it holds at least a part of a number.
    let floor = 1e-3 / sum_q;
    let pairs = p.iter().zip(&q).filter(|(p, _)| **p > 0.0);
    pairs
        .map(|(p, q)| {
            let (p, q) = (p / sum_p, (q / sum_q).max(floor));
            p * (p / q).ln()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::Tensor;

    use super::*;

    fn seen(data: Vec<f32>) -> ValueStatistics {
        let mut s = ValueStatistics::new(None);
        s.add(&Tensor::vector(data)).unwrap();
        s
    }

    fn bell(n: u32) -> Vec<f32> {
        let at = |i: u32| {
            let u = (f64::from(i) + 0.5) / f64::from(n);
            ((u / (1.0 - u)).ln() * 0.5) as f32
        };
        (0..n).map(at).collect()
    }

    #[test]
    fn the_divergence_is_that_of_its_definition() {
        let bins = [4.0, 2.0, 0.0, 6.0, 1.0, 1.0];
        // Kept 1..5 in steps of 2: p = [6, 0, 6, 2], q = [2, 0, 3.5, 3.5].
        let (p, q) = ([6.0, 6.0, 2.0], [2.0, 3.5, 3.5]);
        let expected: f64 = p
            .iter()
            .zip(q)
            .map(|(&p, q): (&f64, f64)| p / 14.0 * (p / 14.0 / (q / 9.0)).ln())
            .sum();
        assert!((divergence(&bins, 1..5, 2.0) - expected).abs() < 1e-12);
        assert!(divergence(&bins, 0..6, 1.0).abs() < 1e-12);
    }

    #[test]
    fn outliers_are_clipped_and_the_bulk_is_kept() {
        let mut data = bell(50_000);
        data.extend([60.0, -50.0]);
        let bytes = Levels {
            min: 0,
            max: 255,
            symmetric: false,
        };
        let (lo, hi) = range(&seen(data), bytes, &Tuning::default());
        assert!(
            (3.0..30.0).contains(&hi) && (-25.0..-2.0).contains(&lo),
            "{lo} {hi}"
        );
    }

    #[test]
    fn the_range_beats_the_others_tried_whatever_the_bins() {
        let mut data = bell(20_000);
        data.push(40.0);
        let s = seen(data);
        let few = Levels {
            min: -7,
            max: 7,
            symmetric: true,
        };
        for entropy_bins in [128, 512, HALF] {
            let tuning = Tuning {
                entropy_bins,
                ..Tuning::default()
            };
            let (lo, hi) = range(&s, few, &tuning);
            assert_eq!(lo, -hi);
            assert!(hi < 20.0 && hi > 1.0, "{hi} with {entropy_bins}");
        }
    }
}

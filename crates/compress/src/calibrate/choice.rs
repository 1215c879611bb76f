//! Which samples are used, where not all.

use std::collections::BTreeSet;
use std::ops::Range;

use edgesmith_ir::random::Random;
use edgesmith_ir::{Error, Result};

use super::Settings;
use crate::samples::{Batch, Samples};

/// The samples of a calibration, and how many of them are run at once.
pub struct Choice {
    /// How many are used.
    pub count: usize,
    /// The number after the last.
    pub end: usize,
    batch: usize,
    chosen: Option<BTreeSet<usize>>,
}

impl Choice {
    /// What the settings take of the samples.
    ///
    /// # Errors
    /// When there are none.
    pub fn of(samples: &dyn Samples, settings: &Settings) -> Result<Self> {
        let all = samples.count();
        let count = settings.samples.map_or(all, |n| n.min(all));
        if count == 0 {
            return Err(Error::invalid("there are no samples to calibrate with"));
        }
        let chosen = settings.seed.map(|seed| chosen(count, all, seed));
        let last = |c: &BTreeSet<usize>| c.last().map_or(0, |i| i + 1);
        Ok(Self {
            count,
            end: chosen.as_ref().map_or(count, last),
            batch: match settings.seed {
                Some(_) => 1,
                None => batch_of(count, all, settings.batch),
            },
            chosen,
        })
    }

    /// The batches that have a sample of them.
    pub fn batches<'s>(
        &'s self,
        samples: &'s dyn Samples,
    ) -> impl Iterator<Item = Result<Batch>> + 's {
        let within = |b: &Result<Batch>| b.as_ref().map_or(true, |(r, _)| r.start < self.end);
        let taken = |b: &Result<Batch>| b.as_ref().map_or(true, |(r, _)| self.takes(r));
        samples.batches(self.batch).take_while(within).filter(taken)
    }

    fn takes(&self, range: &Range<usize>) -> bool {
        let is_chosen = |i: usize| self.chosen.as_ref().is_none_or(|c| c.contains(&i));
        range.clone().any(is_chosen)
    }
}

/// The size of batches that end with sample `count` of `all`: at most `most`.
fn batch_of(count: usize, all: usize, most: usize) -> usize {
    let most = most.clamp(1, count);
    let ends = |n: &usize| count == all || count.is_multiple_of(*n);
    (1..=most).rev().find(ends).unwrap_or(1)
}

/// `count` of the numbers below `all`, the same for the same seed: a partial shuffle by Fisher and
/// Yates.
pub fn chosen(count: usize, all: usize, seed: u64) -> BTreeSet<usize> {
    Random::new(seed).some(count, all).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn as_many_as_asked_for_are_chosen_and_another_seed_chooses_others() {
        assert_eq!(chosen(10, 100, 1).len(), 10);
        assert_eq!(chosen(10, 100, 1), chosen(10, 100, 1));
        assert_ne!(chosen(10, 100, 1), chosen(10, 100, 2));
        assert_eq!(
            chosen(9, 5, 3).into_iter().collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
        assert!(chosen(0, 5, 3).is_empty() && chosen(3, 0, 3).is_empty());
    }

    #[test]
    fn every_sample_is_chosen_as_often() {
        let mut counts = [0usize; 20];
        for seed in 0..4000 {
            chosen(5, 20, seed).into_iter().for_each(|i| counts[i] += 1);
        }
        assert!(counts.iter().all(|n| (900..1100).contains(n)), "{counts:?}");
    }
}

//! Each sample of a batch mixed with another.

use edgesmith_ir::random::Random;
use edgesmith_ir::{Error, Result};

use super::{Apply, AugmentDef};

/// The augmentation (Zhang et al. 2018).
pub static MIXUP: AugmentDef = AugmentDef {
    name: "mixup",
    about: "Mix each sample with another of the batch; the amount is alpha of the beta distribution",
    amount: 0.2,
    apply: Apply::Batch(drawn),
};

/// How the samples of a batch are mixed: `weight` of each, and the rest of its partner.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// The partner of each sample, by number in the batch.
    pub partners: Vec<usize>,
    /// From 0 to 1.
    pub weight: f32,
}

/// One weight for the batch, and partners in an order by chance.
fn drawn(random: &mut Random, alpha: f32, samples: usize) -> Mix {
    let weight = match alpha > 0.0 {
        true => random.beta(f64::from(alpha)) as f32,
        false => 1.0,
    };
    Mix {
        partners: random.some(samples, samples),
        weight,
    }
}

impl Mix {
    /// Mixes rows of a batch of so many samples.
    pub fn blend(&self, data: &mut [f32], samples: usize) {
        let row = data.len().checked_div(samples).unwrap_or(0);
        if row == 0 {
            return;
        }
        let before = data.to_vec();
        for (row_of, partner) in data.chunks_exact_mut(row).zip(&self.partners) {
            let other = &before[partner * row..][..row];
            for (x, y) in row_of.iter_mut().zip(other) {
                *x = self.weight * *x + (1.0 - self.weight) * y;
            }
        }
    }

    /// What the classes of a batch become: `[samples, classes]`, the share of each class.
    ///
    /// # Errors
    /// When a label is none of so many classes.
    pub fn shares(&self, labels: &[i64], classes: usize) -> Result<Vec<f32>> {
        let mut shares = vec![0.0; labels.len() * classes];
        let class = |label: i64| {
            let class = usize::try_from(label).ok().filter(|&c| c < classes);
            class.ok_or_else(|| {
                Error::invalid(format!("the label {label} is none of {classes} classes"))
            })
        };
        for ((row, &label), &partner) in shares
            .chunks_exact_mut(classes.max(1))
            .zip(labels)
            .zip(&self.partners)
        {
            row[class(label)?] += self.weight;
            row[class(labels[partner])?] += 1.0 - self.weight;
        }
        Ok(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_classes_are_mixed_alike() {
        let mix = Mix {
            partners: vec![1, 0, 2],
            weight: 0.75,
        };
        let mut data = [4.0, 0.0, 0.0, 4.0, 1.0, 1.0];
        mix.blend(&mut data, 3);
        assert_eq!(data, [3.0, 1.0, 1.0, 3.0, 1.0, 1.0]);
        let shares = mix.shares(&[0, 1, 1], 2).unwrap();
        assert_eq!(shares, [0.75, 0.25, 0.25, 0.75, 0.0, 1.0]);
        assert!(mix.shares(&[0, 2, 1], 2).is_err() && mix.shares(&[0, -1, 1], 2).is_err());
    }

    #[test]
    fn without_an_amount_samples_stay_as_they_are() {
        assert_eq!(drawn(&mut Random::new(1), 0.0, 3).weight, 1.0);
    }
}

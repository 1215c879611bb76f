//! Whether calibration samples look like those that a model is judged on.

use edgesmith_ir::{Progress, Result, Tensor};

use crate::samples::{Part, Samples};

/// Samples of each set that are looked at.
const LOOKED_AT: usize = 256;

/// A mean that is so many standard deviations off, a spread that differs by such a factor, or such a
/// share of numbers outside of the range is worth a warning.
const FAR: f64 = 0.5;
const WIDER: f64 = 2.0;
const OUTSIDE: f64 = 0.01;

/// What is known of an input.
#[derive(Debug, Clone, Default)]
struct Input {
    name: String,
    count: f64,
    sum: f64,
    squares: f64,
    min: f64,
    max: f64,
}

impl Input {
    fn add(&mut self, tensor: &Tensor) -> Result<()> {
        for &x in tensor.to_f32()?.iter().filter(|x| x.is_finite()) {
            let x = f64::from(x);
            let is_first = self.count == 0.0;
            self.min = if is_first { x } else { self.min.min(x) };
            self.max = if is_first { x } else { self.max.max(x) };
            self.count += 1.0;
            self.sum += x;
            self.squares += x * x;
        }
        Ok(())
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1.0)
    }

    fn deviation(&self) -> f64 {
        (self.squares / self.count.max(1.0) - self.mean().powi(2))
            .max(0.0)
            .sqrt()
    }

    /// How the numbers of others differ, in words.
    fn unlike(&self, other: &Self, outside: f64) -> Option<String> {
        let (own, theirs) = (self.deviation(), other.deviation());
        let off = (other.mean() - self.mean()).abs() / own.max(f64::from(f32::MIN_POSITIVE));
        let factor = theirs.max(own) / theirs.min(own).max(f64::from(f32::MIN_POSITIVE));
        if self.count == 0.0 || other.count == 0.0 {
            return None;
        }
        let what = if outside > OUTSIDE {
            let share = outside * 100.0;
            format!("{share:.1} % of the numbers lie outside of what calibration sees")
        } else if off > FAR {
            format!("their mean lies {off:.1} standard deviations apart")
        } else if factor > WIDER {
            format!("they spread {factor:.1} times as much or as little")
        } else {
            return None;
        };
        Some(format!(
            "the calibration samples look unlike those that are judged: of \"{}\" {what}",
            self.name
        ))
    }
}

/// Says of each float input how the samples that are judged differ from those of calibration, where
/// they do: a mean half a standard deviation apart, twice the spread, or over 1 % of their numbers
/// outside of the range. At most 256 samples of each are looked at.
///
/// # Errors
/// When samples cannot be read, or the user cancels.
pub fn unlike(
    calibration: &dyn Samples,
    judged: &dyn Samples,
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    let own = inputs(calibration, progress)?;
    let theirs = inputs(judged, progress)?;
    let mut outside = vec![0.0f64; own.len()];
    for batch in Part::new(judged, 0..LOOKED_AT).batches(1) {
        progress.check()?;
        for (name, tensor) in batch?.1 {
            let Some(i) = own.iter().position(|x| x.name == name) else {
                continue;
            };
            let beyond = |&&x: &&f32| f64::from(x) < own[i].min || f64::from(x) > own[i].max;
            outside[i] += tensor.to_f32()?.iter().filter(beyond).count() as f64;
        }
    }
    let pairs = own.iter().zip(&outside);
    let told = pairs.filter_map(|(input, outside)| {
        let other = theirs.iter().find(|x| x.name == input.name)?;
        input.unlike(other, outside / other.count.max(1.0))
    });
    Ok(told.collect())
}

fn inputs(samples: &dyn Samples, progress: &dyn Progress) -> Result<Vec<Input>> {
    let mut all: Vec<Input> = Vec::new();
    for batch in Part::new(samples, 0..LOOKED_AT).batches(1) {
        progress.check()?;
        for (name, tensor) in batch?.1 {
            if !tensor.dtype().is_float() {
                continue;
            }
            let known = all.iter().position(|x| x.name == name);
            let i = known.unwrap_or_else(|| {
                all.push(Input {
                    name,
                    ..Input::default()
                });
                all.len() - 1
            });
            all[i].add(&tensor)?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::NoProgress;

    use super::*;
    use crate::quantize::testing::numbers;
    use crate::samples::InMemory;

    fn samples(seed: u32, change: impl Fn(f32) -> f32) -> InMemory {
        let rows = numbers(300 * 8, seed).into_iter().map(change).collect();
        InMemory {
            name: "x".into(),
            rows: Tensor::from_vec(&[300, 8], rows).unwrap(),
            labels: None,
        }
    }

    #[test]
    fn samples_of_one_kind_are_alike() {
        let found = unlike(&samples(1, |x| x), &samples(2, |x| x), &NoProgress).unwrap();
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn samples_that_were_prepared_otherwise_are_told() {
        for (change, says) in [
            ((|x| x * 127.5 + 127.5) as fn(f32) -> f32, "outside"),
            (|x| x * 0.3 + 0.5, "standard deviations apart"),
            (|x| x / 4.0, "4.0 times"),
        ] {
            let found = unlike(&samples(1, |x| x), &samples(2, change), &NoProgress).unwrap();
            assert!(found.len() == 1 && found[0].contains(says), "{found:?}");
        }
    }
}

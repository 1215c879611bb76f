//! Chance: what every other criterion must do better than.

use edgesmith_ir::Result;
use edgesmith_ir::random::Random;

use super::criteria::Job;

/// A random number for each, of the seed and the place of the weight in the model.
///
/// # Errors
/// None.
pub fn scores(job: &Job) -> Result<Vec<f64>> {
    let mut random = Random::of(&[job.settings.seed, 0x9121, job.number as u64]);
    Ok(job.weight.data.iter().map(|_| random.unit()).collect())
}

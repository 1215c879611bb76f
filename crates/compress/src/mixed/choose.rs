//! Chooses settings of INT8 by the noise that they leave at the outputs.

use edgesmith_ir::{NoProgress, Progress, Result};

use super::noise::{Noise, Shares};
use crate::calibrate::observers::{OBSERVERS, Observer};
use crate::quantize::changes::Rounding;
use crate::quantize::int8::{Ready, Settings};

/// Adaptive rounding is taken back where outputs are noisier by so many standard errors. It lowers
/// the error of every product on all its rows, which says more than a few outputs by chance.
const BEYOND_CHANCE: f64 = 1.0;

/// So many of the best observers are compared again where weights are rounded by what they multiply.
const AGAIN: usize = 2;

/// Observers with the noise that they leave.
type Found = Vec<(&'static Observer, Shares)>;

/// What was found of the observers.
pub struct Compared {
    /// With weights rounded to nearest, the one to take first and then the least noise; where two are
    /// equal the earlier one of the list comes first.
    found: Found,
    /// The noise with the observer that the settings have.
    given: Shares,
}

impl Compared {
    /// The settings with the observer to take.
    pub fn settings(&self, settings: &Settings) -> Settings {
        with(settings, self.found[0].0)
    }

    /// Signal to noise in dB with each, the one to take first.
    pub fn observers(&self) -> Vec<(&'static str, f64)> {
        self.found.iter().map(|(o, s)| (o.name, s.db())).collect()
    }
}

fn with(settings: &Settings, observer: &'static Observer) -> Settings {
    Settings {
        observer,
        ..settings.clone()
    }
}

/// Compares all observers, with weights rounded to nearest.
///
/// # Errors
/// When nothing can be quantised, a model does not run, or the user cancels.
pub fn observers(
    ready: &Ready,
    settings: &Settings,
    noise: &mut Noise,
    progress: &dyn Progress,
) -> Result<Compared> {
    let found = compare(OBSERVERS, ready, settings, noise, progress)?;
    let own = found.iter().find(|(o, _)| o.name == settings.observer.name);
    let given = own.unwrap_or(&found[0]).1.clone();
    Ok(Compared { found, given })
}

/// Compares the best observers with weights rounded by what they multiply, and these with weights
/// rounded to nearest. `ready` forgets the former where outputs speak against it: they are noisier
/// beyond chance, or noisier than with the observer that was given and weights rounded to nearest.
///
/// # Errors
/// When a model does not run, or the user cancels.
pub fn rounding(
    ready: &mut Ready,
    settings: &Settings,
    compared: &mut Compared,
    noise: &mut Noise,
    progress: &dyn Progress,
) -> Result<Rounding> {
    let best = &compared.found[..AGAIN.min(compared.found.len())];
    let best: Vec<&'static Observer> = best.iter().map(|(o, _)| *o).collect();
    let adaptive = compare(&best, ready, settings, noise, progress)?;
    let (observer, adaptive) = &adaptive[0];
    let nearest = compared.found[0].1.clone();
    let is_adaptive = is_kept(adaptive, &nearest, &compared.given);
    if is_adaptive {
        compared.found.sort_by_key(|(o, _)| o.name != observer.name);
    } else {
        ready.forget();
    }
    Ok(Rounding {
        is_adaptive,
        adaptive_db: adaptive.db(),
        nearest_db: nearest.db(),
        samples: noise.samples(),
    })
}

/// The noise with each observer, the least first.
fn compare(
    observers: &[&'static Observer],
    ready: &Ready,
    settings: &Settings,
    noise: &mut Noise,
    progress: &dyn Progress,
) -> Result<Found> {
    let mut found = Found::new();
    progress.start("compare observers", observers.len() as u64);
    for &observer in observers {
        progress.check()?;
        let (model, _) = ready.quantize(&with(settings, observer))?;
        found.push((observer, noise.of(&model, &NoProgress)?));
        progress.advance(1);
    }
    progress.finish();
    found.sort_by(|a, b| a.1.total().total_cmp(&b.1.total()));
    Ok(found)
}

/// True where nothing speaks against adaptive rounding.
fn is_kept(adaptive: &Shares, nearest: &Shares, given: &Shares) -> bool {
    let is_worse = adaptive.noisier_than(nearest) > BEYOND_CHANCE;
    !is_worse && adaptive.total() <= given.total()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_rounding_is_taken_back_where_it_is_worse_beyond_chance_or_than_what_was_given() {
        let of = |shares: [f64; 4]| Shares::testing(&shares);
        let (nearest, given) = (of([1.0, 2.0, 3.0, 4.0]), of([2.0, 3.0, 4.0, 5.0]));
        let (by_chance, worse) = (of([0.6, 2.4, 2.6, 4.8]), of([1.1, 2.1, 3.1, 4.2]));
        assert!(is_kept(&of([0.9, 1.9, 2.9, 3.9]), &nearest, &given));
        assert!(is_kept(&by_chance, &nearest, &given));
        assert!(!is_kept(&worse, &nearest, &given));
        assert!(!is_kept(&by_chance, &nearest, &nearest));
    }
}

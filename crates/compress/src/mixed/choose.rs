//! Chooses settings of INT8 by the noise that they leave at the outputs.

use edgesmith_ir::{NoProgress, Progress, Result};

use super::noise::{Noise, Shares};
use crate::calibrate::observers::{OBSERVERS, Observer};
use crate::quantize::changes::Rounding;
use crate::quantize::int8::{Ready, Settings};

/// Adaptive rounding is taken back where outputs are noisier by so many standard errors. It lowers
/// the error of every product on all its rows, which says more than a few outputs by chance.
const BEYOND_CHANCE: f64 = 1.0;

/// What was found of the observers.
pub struct Compared {
    /// The settings with the observer whose ranges leave the least noise.
    pub settings: Settings,
    /// Signal to noise in dB with each, the best first; where two are equal the earlier one of the
    /// list comes first.
    pub observers: Vec<(&'static str, f64)>,
    /// The noise of the best, and of the one that the settings had.
    best: Shares,
    given: Shares,
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
    let mut found: Vec<(&'static Observer, Shares)> = Vec::new();
    progress.start("compare observers", OBSERVERS.len() as u64);
    for &observer in OBSERVERS {
        progress.check()?;
        let (model, _) = ready.quantize(&Settings {
            observer,
            ..settings.clone()
        })?;
        found.push((observer, noise.of(&model, &NoProgress)?));
        progress.advance(1);
    }
    progress.finish();
    let own = found.iter().find(|(o, _)| o.name == settings.observer.name);
    let given = own.map_or_else(|| found[0].1.clone(), |(_, shares)| shares.clone());
    found.sort_by(|a, b| a.1.total().total_cmp(&b.1.total()));
    Ok(Compared {
        settings: Settings {
            observer: found[0].0,
            ..settings.clone()
        },
        observers: found.iter().map(|(o, s)| (o.name, s.db())).collect(),
        best: found[0].1.clone(),
        given,
    })
}

/// Compares weights rounded by what they multiply with weights rounded to nearest, and has `ready`
/// forget the former where outputs speak against it: they are noisier beyond chance, or noisier than
/// with the observer that was given and weights rounded to nearest.
///
/// # Errors
/// When a model does not run, or the user cancels.
pub fn rounding(
    ready: &mut Ready,
    compared: &Compared,
    noise: &mut Noise,
    progress: &dyn Progress,
) -> Result<Rounding> {
    progress.start("compare roundings", 1);
    let (model, _) = ready.quantize(&compared.settings)?;
    let adaptive = noise.of(&model, progress)?;
    progress.finish();
    let is_adaptive = is_kept(&adaptive, &compared.best, &compared.given);
    if !is_adaptive {
        ready.forget();
    }
    Ok(Rounding {
        is_adaptive,
        adaptive_db: adaptive.db(),
        nearest_db: compared.best.db(),
        samples: noise.samples(),
    })
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

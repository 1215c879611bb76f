//! Static INT8 from a float model and samples: calibration, and the steps before and after it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use edgesmith_ir::{Model, Progress, Result};

use super::correct::correct_biases;
use super::{Format, Settings, needs, qoperator, quantize};
use crate::calibrate::{self, Statistics, calibrate};
use crate::quantize::changes::Changes;
use crate::quantize::equalize::equalize;
use crate::quantize::smooth::smooth;
use crate::samples::Samples;

/// Where statistics come from: looks at the named values of a model.
pub type Look<'a> = dyn FnMut(&Model, BTreeSet<String>) -> Result<Statistics> + 'a;

/// A [`Look`] that runs the samples each time it is asked.
pub fn look<'a>(
    samples: &'a dyn Samples,
    settings: &'a calibrate::Settings,
    progress: &'a dyn Progress,
) -> impl FnMut(&Model, BTreeSet<String>) -> Result<Statistics> + 'a {
    move |model, only| {
        let settings = calibrate::Settings {
            only: Some(only),
            ..settings.clone()
        };
        calibrate(model, samples, &settings, progress)
    }
}

/// Quantises a float model with all that the settings ask for. The warnings of the statistics come
/// first in those of the changes.
///
/// # Errors
/// Those of [`quantize`], and of running the model on the samples.
pub fn post_training(
    model: &Model,
    look: &mut Look,
    samples: &dyn Samples,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<(Model, Changes)> {
    let mut statistics = look(model, needs(model, settings)?)?;
    let mut model = Cow::Borrowed(model);
    let mut rescaled = BTreeSet::new();
    if settings.equalize {
        let (equal, changed) = equalize(&model, &statistics)?;
        if !changed.is_empty() {
            rescaled.extend(changed.iter().cloned());
            refresh(&mut statistics, look, &equal, changed, settings)?;
            model = Cow::Owned(equal);
        }
    }
    if settings.smooth {
        let levels = settings.activations.levels(settings.symmetric);
        let (smoothed, changed) = smooth(&model, &statistics, f64::from(levels.max - levels.min))?;
        if !changed.is_empty() {
            rescaled.extend(changed.iter().cloned());
            refresh(&mut statistics, look, &smoothed, changed, settings)?;
            model = Cow::Owned(smoothed);
        }
    }
    let pairs = Settings {
        format: Format::Qdq,
        ..settings.clone()
    };
    let (mut quantized, mut changes) = quantize(&model, &statistics, &pairs)?;
    if settings.bias_samples > 0 {
        let count = settings.bias_samples.min(samples.count());
        let rejected = correct_biases(&model, &mut quantized, samples, count, progress)?;
        changes.warnings.extend(rejected);
    }
    if settings.format == Format::QOperator {
        qoperator::fuse(&mut quantized)?;
    }
    changes.rescaled = rescaled.into_iter().collect();
    changes.warnings.splice(0..0, statistics.warnings);
    Ok((quantized, changes))
}

/// Looks again at what changed and is needed, and at what was not needed before.
fn refresh(
    statistics: &mut Statistics,
    look: &mut Look,
    model: &Model,
    changed: BTreeSet<String>,
    settings: &Settings,
) -> Result<()> {
    let mut wanted = needs(model, settings)?;
    wanted.retain(|name| changed.contains(name) || !statistics.values.contains_key(name));
    let fresh = look(model, wanted)?;
    statistics.values.extend(fresh.values);
    Ok(())
}

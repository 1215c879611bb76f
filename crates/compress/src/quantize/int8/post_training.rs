//! Static INT8 from a float model and samples: calibration, and the steps before and after it.

use std::collections::BTreeSet;

use edgesmith_ir::{Model, Progress, Result};

use super::adaptive::Inputs;
use super::blocks::round_by_blocks;
use super::correct::correct_biases;
use super::{Format, RoundBy, Settings, needs, prepared, qoperator, quantize_knowing};
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

/// A float model that is ready to be quantised, with what was seen of it.
#[derive(Debug)]
pub struct Ready {
    /// The model, with what the settings do to it in floats.
    pub model: Model,
    /// What was seen of its values.
    pub statistics: Statistics,
    /// What products multiply, where weights are rounded by it.
    inputs: Option<Inputs>,
    /// Values whose channels were multiplied by factors that their readers take back.
    rescaled: BTreeSet<String>,
}

impl Ready {
    /// Runs the samples, and does to the model what is done in floats.
    ///
    /// # Errors
    /// Those of running the model on the samples.
    pub fn of(model: &Model, look: &mut Look, settings: &Settings) -> Result<Self> {
        let mut statistics = look(model, needs(model, settings)?)?;
        let mut model = model.clone();
        let mut rescaled = BTreeSet::new();
        if settings.equalize {
            let (equal, changed) = equalize(&model, &statistics)?;
            if !changed.is_empty() {
                rescaled.extend(changed.iter().cloned());
                refresh(&mut statistics, look, &equal, changed, settings)?;
                model = equal;
            }
        }
        if settings.smooth {
            let levels = settings.activations.levels(settings.symmetric);
            let (smoothed, changed) =
                smooth(&model, &statistics, f64::from(levels.max - levels.min))?;
            if !changed.is_empty() {
                rescaled.extend(changed.iter().cloned());
                refresh(&mut statistics, look, &smoothed, changed, settings)?;
                model = smoothed;
            }
        }
        Ok(Self {
            model,
            statistics,
            inputs: None,
            rescaled,
        })
    }

    /// Runs the samples again for what the settings round weights by, where that is anything.
    ///
    /// # Errors
    /// Those of running the model on the samples.
    pub fn learn(
        &mut self,
        samples: &dyn Samples,
        settings: &Settings,
        progress: &dyn Progress,
    ) -> Result<()> {
        let count = settings.adaptive_samples.min(samples.count());
        if count > 0 {
            let (model, seen) = (&self.model, &self.statistics);
            self.inputs = Some(Inputs::of(model, seen, settings, samples, count, progress)?);
        }
        Ok(())
    }

    /// Weights are rounded to nearest again.
    pub fn forget(&mut self) {
        self.inputs = None;
    }

    /// The model in INT8, as pairs of quantise and dequantise.
    ///
    /// # Errors
    /// Those of [`quantize`].
    pub fn quantize(&self, settings: &Settings) -> Result<(Model, Changes)> {
        let pairs = Settings {
            format: Format::Qdq,
            ..settings.clone()
        };
        quantize_knowing(&self.model, &self.statistics, self.inputs.as_ref(), &pairs)
    }

    /// The model in INT8 with all that the settings ask for.
    ///
    /// # Errors
    /// Those of [`quantize`], and of running the model on the samples.
    pub fn finish(
        &self,
        samples: &dyn Samples,
        settings: &Settings,
        progress: &dyn Progress,
    ) -> Result<(Model, Changes)> {
        let (mut quantized, mut changes) = self.quantize(settings)?;
        if settings.round_by == RoundBy::Blocks && self.inputs.is_some() {
            let float = prepared(&self.model, settings)?;
            let count = settings.adaptive_samples.min(samples.count());
            let (sources, seen) = (&mut changes.sources, (samples, count));
            let done = round_by_blocks(&float, &mut quantized, sources, seen, progress)?;
            changes.blocks = done.blocks;
            changes.warnings.extend(done.warnings);
        }
        if settings.bias_samples > 0 {
            let count = settings.bias_samples.min(samples.count());
            let rejected = correct_biases(&self.model, &mut quantized, samples, count, progress)?;
            changes.warnings.extend(rejected);
        }
        if settings.format == Format::QOperator {
            qoperator::fuse(&mut quantized)?;
        }
        let left = self.inputs.as_ref().and_then(Inputs::warning);
        changes.warnings.extend(left);
        changes.rescaled = self.rescaled.iter().cloned().collect();
        let seen = self.statistics.warnings.iter().cloned();
        changes.warnings.splice(0..0, seen);
        Ok((quantized, changes))
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
    let mut ready = Ready::of(model, look, settings)?;
    ready.learn(samples, settings, progress)?;
    ready.finish(samples, settings, progress)
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

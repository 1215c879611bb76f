//! Steps: what can be done to a model by name, each with its settings.
//!
//! To add one: write its file and its row. To add a setting: a [`Key`] in a group of the step's
//! file, and a line where that file reads its settings; the command line and recipes follow.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use edgesmith_ir::{Error, Model, NoStore, Progress, Result};
use edgesmith_train::Watch;

use crate::calibrate::{self, Statistics, Stores};
use crate::mixed::judge::Size;
use crate::prune::weights::masks::Masks;
use crate::quantize::changes::Changes;
use crate::samples::Samples;

pub mod average;
pub mod convert;
mod given;
pub mod lottery;
pub mod optimize;
pub mod prune;
pub mod quantize;
pub mod student;
pub mod train;

pub(crate) use given::{GROUPS, LAYER_TYPES, check};
pub use given::{Given, Group, Key, Kind, LAYER_KEYS, LayerGiven, Setting};

/// Whether a step looks at calibration data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Never.
    Unused,
    /// Where there is any.
    Useful,
    /// It cannot do without.
    Needed,
}

/// Opens a model by the path that a recipe names.
pub type Open<'a> = dyn Fn(&str) -> Result<Model> + 'a;

/// Reads masks of a pruned model by the path that a recipe names.
pub type ReadMasks<'a> = dyn Fn(&str) -> Result<Masks> + 'a;

/// What a step may use beside its settings and the model.
pub struct Work<'a> {
    /// The samples to look at.
    pub samples: Option<&'a dyn Samples>,
    /// The first so many of them, where not all.
    pub count: Option<usize>,
    /// The seed that chooses them, where not the first ones are taken.
    pub seed: Option<u64>,
    /// The samples that goals are judged by, where not those.
    pub evaluate: Option<&'a dyn Samples>,
    /// Tells the bytes of the file that a model would be.
    pub size: Option<&'a Size<'a>>,
    /// Where statistics are kept between runs.
    pub stores: Option<&'a dyn Stores>,
    /// Where paths of settings start.
    pub base: &'a Path,
    /// Opens another model by its path.
    pub open: Option<&'a Open<'a>>,
    /// Reads masks by their path.
    pub read_masks: Option<&'a ReadMasks<'a>>,
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// Who follows training.
    pub follow: &'a dyn Watch,
    /// What was to be said of the data.
    pub warnings: Vec<String>,
}

impl Work<'_> {
    /// Runs the samples through `model` and looks at the values `only`, and at XᵀX of `grams`.
    ///
    /// # Errors
    /// When there are no samples, or calibration fails.
    pub fn look(
        &mut self,
        model: &Model,
        only: Option<BTreeSet<String>>,
        grams: BTreeMap<String, i64>,
    ) -> Result<Statistics> {
        let samples = self.samples.ok_or_else(quantize::no_data)?;
        let settings = self.calibration(only, grams);
        let kept = self
            .stores
            .map(|s| s.store(&calibrate::key(model, &settings)));
        let store = kept.as_deref().unwrap_or(&NoStore);
        let found = calibrate::calibrate_kept(model, samples, &settings, store, self.progress)?;
        self.warn(&found.warnings);
        Ok(found)
    }

    /// The masks in a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn masks(&self, path: &str) -> Result<Masks> {
        let read = self.read_masks;
        read.ok_or_else(|| Error::internal("nobody reads masks"))?(path)
    }

    /// How calibration looks at the values `only`, and at XᵀX of `grams`.
    pub fn calibration(
        &self,
        only: Option<BTreeSet<String>>,
        grams: BTreeMap<String, i64>,
    ) -> calibrate::Settings {
        calibrate::Settings {
            samples: self.count,
            seed: self.seed,
            only,
            grams,
            ..calibrate::Settings::default()
        }
    }

    /// Adds what is to be said of the data, once.
    pub fn warn(&mut self, warnings: &[String]) {
        for warning in warnings {
            if !self.warnings.contains(warning) {
                self.warnings.push(warning.clone());
            }
        }
    }

    /// Looks at every value, where there are samples.
    ///
    /// # Errors
    /// When calibration fails.
    pub fn look_at_all(&mut self, model: &Model) -> Result<Option<Statistics>> {
        match self.samples {
            None => Ok(None),
            Some(_) => self.look(model, None, BTreeMap::new()).map(Some),
        }
    }
}

/// A row of the list of steps.
pub struct StepDef {
    /// Its name in recipes.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Its settings.
    pub groups: &'static [Group],
    /// Settings of nodes by name, as `[[step.layer]]`, are taken.
    pub layers: bool,
    /// Checks the settings against each other; whether data is looked at.
    pub data: fn(&Given) -> Result<Data>,
    /// Bits of a weight afterwards, where that is known before.
    pub bits: fn(&Given) -> Option<u64>,
    /// Changes a model; what became of its nodes, where the step says so.
    pub apply: fn(&Given, &Model, &mut Work) -> Result<(Model, Changes)>,
}

impl std::fmt::Debug for StepDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl StepDef {
    /// Every setting.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.groups.iter().flat_map(|g| g.keys)
    }
}

/// Every step, in the order in which they are mostly used.
pub static STEPS: &[&StepDef] = &[
    &convert::CONVERT,
    &student::STUDENT,
    &train::TRAIN,
    &lottery::LOTTERY,
    &average::AVERAGE,
    &optimize::OPTIMIZE,
    &prune::PRUNE,
    &quantize::QUANTIZE,
];

/// The step of that name.
pub fn find(name: &str) -> Option<&'static StepDef> {
    STEPS.iter().copied().find(|s| s.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_has_a_key_twice() {
        for step in STEPS {
            let mut names: Vec<&str> = step.keys().map(|k| k.name).collect();
            names.extend(["do", "layer"]);
            names.sort_unstable();
            assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
        }
    }
}

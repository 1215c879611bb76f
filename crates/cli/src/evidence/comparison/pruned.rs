//! Pruned variants of a comparison: what goes, and how much of it.

use std::path::Path;
use std::str::FromStr;

use edgesmith_compress::Samples;
use edgesmith_compress::steps::prune::PRUNE;
use edgesmith_compress::steps::{Given, Setting, Work};
use edgesmith_data::Dataset;
use edgesmith_ir::{Error, Model, NoProgress, Progress, Result};

use crate::{groups, sparsity};

/// A structure of `prune`, and an amount where the structure does not say it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pruning {
    structure: String,
    amount: Option<f64>,
}

impl FromStr for Pruning {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fault = || {
            Error::usage(format!("\"{text}\" is no way to prune"))
                .hint("a structure of `edgesmith prune` and a share: channel=0.3, 4x1=0.8, 2:4")
        };
        let (structure, amount) = match text.split_once('=') {
            Some((structure, amount)) => (structure, Some(amount.parse().map_err(|_| fault())?)),
            None => (text, None),
        };
        let pruning = Self {
            structure: structure.into(),
            amount,
        };
        // What the step refuses is refused before anything is read.
        let given = pruning.given()?;
        (PRUNE.data)(&given)?;
        Ok(pruning)
    }
}

impl Pruning {
    fn given(&self) -> Result<Given> {
        let mut given = Given::new(&PRUNE, "--prune");
        let structure = Setting::Text(self.structure.clone());
        given.set("structure", structure, "--prune")?;
        if let Some(amount) = self.amount {
            given.set("amount", Setting::Number(amount), "--prune")?;
        }
        Ok(given)
    }

    /// What its files are called: as short as the column of a table is.
    pub fn name(&self) -> String {
        let short = match self.structure.as_str() {
            "channel" => "c".to_owned(),
            "head" => "h".to_owned(),
            "head-width" => "hw".to_owned(),
            "layer" => "l".to_owned(),
            "unstructured" => "u".to_owned(),
            "width" => "w".to_owned(),
            other => format!("{}-", other.replace(':', "of")),
        };
        match self.amount {
            Some(amount) => format!("{short}{:.0}", 100.0 * amount),
            None => short.trim_end_matches('-').to_owned(),
        }
    }

    /// The pruned model, and what was done in a line.
    ///
    /// # Errors
    /// When it cannot be pruned so.
    pub fn of(
        &self,
        model: &Model,
        samples: &Dataset,
        progress: &dyn Progress,
    ) -> Result<(Model, String)> {
        let mut work = Work {
            samples: Some(samples as &dyn Samples),
            count: None,
            seed: None,
            evaluate: None,
            size: None,
            stores: None,
            base: Path::new(""),
            open: None,
            read_masks: None,
            progress,
            follow: &NoProgress,
            warnings: Vec::new(),
        };
        let (model, changes) = (PRUNE.apply)(&self.given()?, model, &mut work)?;
        let about = match (&changes.structured, &changes.pruned) {
            (Some(of), _) => groups::summary(of),
            (None, Some(of)) => sparsity::summary(of),
            (None, None) => "nothing was to go".into(),
        };
        Ok((model, about))
    }
}

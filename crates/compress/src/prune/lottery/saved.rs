//! Runs that are over, kept so that a search that was broken off goes on behind them.

use edgesmith_ir::{Error, Result, Tensor};
use edgesmith_train::Training;
use serde::{Deserialize, Serialize};

use super::{Judged, Run};
use crate::calibrate::{Stores, sealed, unsealed, written};

/// Where runs are kept, and what tells this search from others.
#[derive(Clone)]
pub struct Shelf<'a> {
    /// A store for each run.
    pub stores: &'a dyn Stores,
    /// Of the model, the data and all settings.
    pub key: String,
}

/// What of a run is asked for later.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    /// Its row alone.
    Row,
    /// Its numbers too, of which the next masks are made.
    Numbers,
    /// Its model too, which is what is written.
    Model,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    trial: usize,
    early_step: usize,
    early: [f64; 2],
    end: f64,
    tested: Option<f64>,
    kept: Option<Vec<Vec<f32>>>,
    last: Vec<Vec<f32>>,
    /// Parameters and states of the model, where it is kept.
    model: Option<[Vec<Vec<f32>>; 2]>,
}

impl Shelf<'_> {
    fn store(&self, number: usize) -> Box<dyn edgesmith_ir::Store + '_> {
        self.stores.store(&format!("{} run {number}", self.key))
    }

    /// A run that is over; `None` where it is not, or is of something else.
    pub(super) fn load(&self, number: usize, training: &Training) -> Option<Run> {
        let bytes = self.store(number).load()?;
        let saved: Saved = postcard::from_bytes(unsealed(&bytes)?).ok()?;
        let model = match saved.model {
            None => None,
            Some([shown, states]) => {
                let shown: Vec<&[f32]> = shown.iter().map(Vec::as_slice).collect();
                let begun = training.states.iter().zip(states);
                let states = begun.map(|(s, data)| Tensor::from_vec(s.data.dims(), data));
                let states: Vec<Tensor> = states.collect::<Result<_>>().ok()?;
                Some(training.model_with(&shown, &states).ok()?)
            }
        };
        Some(Run {
            trial: saved.trial,
            early_step: saved.early_step,
            early: Judged {
                loss: saved.early[0],
                right: saved.early[1],
            },
            end: saved.end,
            tested: saved.tested,
            kept: saved.kept,
            last: saved.last,
            model,
        })
    }

    /// Keeps a run.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn save(
        &self,
        number: usize,
        run: &Run,
        keeps: Keeps,
        training: &Training,
    ) -> Result<()> {
        let model = match (&run.model, keeps) {
            (Some(model), Keeps::Model) => {
                let numbers = |v: Option<edgesmith_ir::ValueId>| -> Result<Vec<f32>> {
                    let data = v.and_then(|v| model.graph.constant(v));
                    let data = data.ok_or_else(|| Error::internal("a trained number is gone"))?;
                    Ok(data.to_f32()?.into_owned())
                };
                let shown = training.parameters.iter().map(|p| match p.value {
                    Some(_) => numbers(p.value),
                    None => Ok(Vec::new()),
                });
                let states = training.states.iter().map(|s| numbers(Some(s.value)));
                Some([
                    shown.collect::<Result<_>>()?,
                    states.collect::<Result<_>>()?,
                ])
            }
            _ => None,
        };
        let saved = Saved {
            trial: run.trial,
            early_step: run.early_step,
            early: [run.early.loss, run.early.right],
            end: run.end,
            tested: run.tested,
            kept: run.kept.clone(),
            last: match keeps {
                Keeps::Row => Vec::new(),
                _ => run.last.clone(),
            },
            model,
        };
        self.store(number).save(&sealed(&written(&saved)?))
    }

    /// Drops all runs up to this one.
    pub(super) fn forget(&self, count: usize) {
        (0..count).for_each(|number| self.store(number).forget());
    }
}

//! Weights times their gradients on samples, summed over slices: what the Taylor criterion asks for.

use std::collections::BTreeMap;

use edgesmith_ir::{Error, Model, Progress, Result, Tensor};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::draft::{self, Draft};
use edgesmith_train::losses::{self, Request};
use edgesmith_train::training::{Training, Wanted};

use super::criteria::sums;
use crate::samples::{Samples, named};

/// Samples of a batch.
const BATCH: usize = 32;

/// Σ w·∂L/∂w over each slice of each weight along each axis, for each batch: by the name of the
/// weight and the axis.
#[derive(Debug, Default)]
pub struct Gradients {
    /// In the order of batches.
    pub batches: Vec<BTreeMap<(String, usize), Vec<f64>>>,
}

impl Gradients {
    /// Of the cross entropy of the first `count` samples: of their labels, or, where they have none,
    /// of the class that the model finds.
    ///
    /// # Errors
    /// When the model is no classifier that can be differentiated, or the user cancels.
    pub fn of(
        model: &Model,
        samples: &dyn Samples,
        count: usize,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let options = draft::Options {
            freeze_norms_from: Some(0.0),
            ..draft::Options::default()
        };
        let mut draft = Draft::new(model, &options)?;
        let loss = losses::find("cross-entropy")?;
        draft.add_term(loss, 1.0, &Request::default())?;
        let training = draft.finish()?;
        let options = Options {
            integer: false,
            batch_bytes: usize::MAX,
            ..Options::default()
        };
        let mut session = Session::prepare(&training.graph, &options)?;
        let mut own = match samples.labels() {
            Some(_) => None,
            None => Some(Session::prepare(model, &options)?),
        };
        let labels_of = training.fed.iter().find(|f| f.wanted == Wanted::Labels);
        let labels_of = labels_of.ok_or_else(|| Error::internal("the loss takes labels"))?;
        let mut all = Self::default();
        progress.start("gradients", count as u64);
        for batch in samples.batches(BATCH) {
            progress.check()?;
            let (range, mut fed) = batch?;
            if range.start >= count {
                break;
            }
            let labels: Vec<i64> = match (samples.labels(), &mut own) {
                (Some(labels), _) => labels[range.clone()].to_vec(),
                (None, Some(own)) => classes(&own.run(&named(&fed))?)?,
                (None, None) => return Err(Error::internal("nothing tells the classes")),
            };
            fed.push((labels_of.name.clone(), Tensor::vector(labels)));
            fed.extend(training.initial_inputs());
            for (mask, dims) in training.masks.iter().zip(training.lengths_of_masks(&fed)?) {
                let ones = vec![1.0f32; dims.iter().product()];
                fed.push((mask.name.clone(), Tensor::from_vec(&dims, ones)?));
            }
            let outputs = session.run(&named(&fed))?;
            all.batches.push(products(&training, &outputs)?);
            progress.advance(range.len() as u64);
        }
        progress.finish();
        match all.batches.is_empty() {
            true => Err(Error::invalid("there are no samples to take gradients on")),
            false => Ok(all),
        }
    }
}

/// Σ w·g over the slices of each parameter.
fn products(
    training: &Training,
    outputs: &[Tensor],
) -> Result<BTreeMap<(String, usize), Vec<f64>>> {
    let mut found = BTreeMap::new();
    let gradients = &outputs[1 + training.terms.len()..];
    for (p, gradient) in training.parameters.iter().zip(gradients) {
        let g = gradient.to_f32()?;
        for axis in 0..p.data.rank() {
            let sums = sums(&p.data, axis, |i, w| f64::from(w) * f64::from(g[i]))?;
            found.insert((p.name.clone(), axis), sums);
        }
    }
    Ok(found)
}

/// The largest of each row of the first output.
fn classes(outputs: &[Tensor]) -> Result<Vec<i64>> {
    let first = outputs
        .first()
        .ok_or_else(|| Error::invalid("the model has no output"))?;
    let data = first.to_f32()?;
    let width = first.dims().last().copied().unwrap_or(1).max(1);
    let best = |line: &[f32]| (0..line.len()).reduce(|a, b| if line[b] > line[a] { b } else { a });
    let rows = data.chunks(width);
    Ok(rows.map(|l| best(l).unwrap_or(0) as i64).collect())
}

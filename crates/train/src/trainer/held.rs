//! The loss on samples that nothing is learned from.

use edgesmith_ir::{Attribute, Error, NodeId, Result, Tensor};
use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_runtime::{Options, Session};

use super::weights::Weights;
use super::{Data, Settings, number};
use crate::training::Training;

/// The forward part of a training graph, as the model will be used.
pub(super) struct Held<'a> {
    training: &'a Training,
    session: Session,
    /// The last weight of each term.
    factors: Vec<f64>,
}

impl<'a> Held<'a> {
    /// # Errors
    /// When the graph cannot be prepared.
    pub fn new(training: &'a Training, settings: &Settings) -> Result<Self> {
        let mut model = training.graph.clone();
        model.graph.outputs.truncate(1);
        let norms = model.graph.nodes();
        let norms: Vec<NodeId> = norms
            .filter(|(_, n)| n.is("BatchNormalization"))
            .map(|(id, _)| id)
            .collect();
        for id in norms {
            model.graph.set_output(id, 2, None);
            model.graph.set_output(id, 1, None);
            let node = model.graph.node_mut(id);
            node.set("training_mode", Attribute::Int(0));
        }
        let run = RunOptions {
            only: &["remove_dead_nodes"],
            ..RunOptions::default()
        };
        optimize(&mut model, Level::Basic, &run)?;
        let options = Options {
            threads: settings.threads,
            bf16: settings.bf16,
            integer: false,
            ..Options::default()
        };
        let terms = training.terms.iter().enumerate();
        let last = |i: usize| settings.last_weights.get(i).copied();
        Ok(Self {
            session: Session::prepare(&model, &options)?,
            factors: terms.map(|(i, t)| last(i).unwrap_or(t.weight)).collect(),
            training,
        })
    }

    /// The mean loss of all samples, `size` at a time.
    ///
    /// # Errors
    /// When a batch cannot be had or does not run.
    pub fn loss(&mut self, weights: &Weights, data: &mut dyn Data, size: usize) -> Result<f64> {
        let samples: Vec<usize> = (0..data.count()).collect();
        let mut sum = 0.0;
        for samples in samples.chunks(size.max(1)) {
            let mut fed = data.batch(samples, 0)?;
            let lengths = self.training.lengths_of_masks(&fed)?;
            for (mask, dims) in self.training.masks.iter().zip(lengths) {
                let ones = vec![1f32; dims.iter().product()];
                fed.push((mask.name.clone(), Tensor::from_vec(&dims, ones)?));
            }
            let terms = self.training.terms.iter().zip(&self.factors);
            fed.extend(terms.map(|(t, f)| (t.input.clone(), Tensor::scalar(*f as f32))));
            weights.feed_shown(&mut fed)?;
            let named: Vec<(&str, Tensor)> =
                fed.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
            let outputs = self.session.run(&named)?;
            let loss = outputs
                .first()
                .ok_or_else(|| Error::internal("a loss is an output"))?;
            sum += f64::from(number(loss)?) * samples.len() as f64;
        }
        Ok(sum / data.count().max(1) as f64)
    }
}

//! INT8 with products that stay float where the goal needs it.

use edgesmith_ir::analysis::{cost, lengths};
use edgesmith_ir::{Model, NoProgress, Progress, Result, Tensor, infer};

use super::sense::{Sense, Sensor};
use super::{Maker, Move};
use crate::quantize::changes::{Changes, Fate};
use crate::quantize::int8::{Ready, Settings};
use crate::quantize::{Layer, rules};
use crate::samples::Samples;

/// Makes models of INT8 with some products in float.
pub struct Bytes<'a> {
    ready: &'a Ready,
    settings: &'a Settings,
    samples: &'a dyn Samples,
    progress: &'a dyn Progress,
    moves: Vec<Move>,
}

impl<'a> Bytes<'a> {
    /// Finds out what each product costs: `judged` are the samples with labels, where the sense is
    /// the loss.
    ///
    /// # Errors
    /// When no product can be quantised, a model does not run, or the user cancels.
    pub fn new(
        ready: &'a Ready,
        settings: &'a Settings,
        sense: Sense,
        samples: &'a dyn Samples,
        judged: &dyn Samples,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let mut all = Self {
            ready,
            settings,
            samples,
            progress,
            moves: Vec::new(),
        };
        let products = all.products()?;
        let sensed = if sense == Sense::Loss {
            judged
        } else {
            samples
        };
        let mut sensor = Sensor::new(sense, &ready.model, sensed)?;
        progress.start("find what layers cost", products.len() as u64);
        for product in &products {
            progress.check()?;
            let others = products.iter().filter(|p| p.name != product.name);
            let alone = others.map(|p| p.name.clone()).collect();
            let made = ready.quantize(&all.without(alone))?;
            all.moves.push(Move {
                layers: vec![Layer::float(&product.name)],
                bytes: product.bytes,
                macs: product.macs,
                gain: sensor.cost(&made.0, &NoProgress)?,
            });
            progress.advance(1);
        }
        progress.finish();
        Ok(all)
    }

    fn without(&self, mut names: Vec<String>) -> Settings {
        names.extend_from_slice(&self.settings.exclude);
        Settings {
            exclude: names,
            ..self.settings.clone()
        }
    }

    /// The products that become INT8 where nothing is kept, by name.
    fn products(&self) -> Result<Vec<Product>> {
        let graph = &self.ready.model.graph;
        let (_, changes) = self.ready.quantize(self.settings)?;
        let inputs = lengths::workable_inputs(&self.ready.model, &[]).unwrap_or_default();
        let types = infer::infer(&self.ready.model, &inputs)?;
        let costs = cost::node_costs(&self.ready.model, &types)?;
        let mut found: Vec<Product> = Vec::new();
        for ((id, node), change) in graph.nodes().zip(&changes.nodes) {
            let is_product = rules::find(node).is_some_and(rules::Rule::is_product);
            if !is_product || change.fate != Fate::Converted {
                continue;
            }
            let weight = node.input(1).and_then(|v| graph.constant(v));
            // From a byte to four.
            let bytes = weight.map_or(0, Tensor::count) as u64 * 3;
            let own = costs.iter().find(|c| c.node == id);
            let macs = own.map_or(0, |c| c.cost.macs);
            match found.iter_mut().find(|p| p.name == node.name) {
                Some(same) => {
                    same.bytes += bytes;
                    same.macs += macs;
                }
                None => found.push(Product {
                    name: node.name.clone(),
                    bytes,
                    macs,
                }),
            }
        }
        Ok(found)
    }
}

struct Product {
    name: String,
    bytes: u64,
    macs: u64,
}

impl Maker for Bytes<'_> {
    fn moves(&self) -> &[Move] {
        &self.moves
    }

    fn cost(&self, _: &Move) -> u64 {
        1
    }

    fn make(&mut self, taken: &[usize]) -> Result<(Model, Changes)> {
        let kept = taken.iter().flat_map(|&i| &self.moves[i].layers);
        let kept = kept.map(|l| l.pattern.clone()).collect();
        self.ready
            .finish(self.samples, &self.without(kept), self.progress)
    }
}

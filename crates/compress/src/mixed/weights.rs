//! Weights alone, of which some have more bits where the goal needs it.

use std::collections::BTreeMap;

use edgesmith_ir::{Model, Progress, Result};

use super::{Maker, Move};
use crate::calibrate::Statistics;
use crate::quantize::Layer;
use crate::quantize::changes::Changes;
use crate::quantize::weight_only::{self, Known, Priced, Settings};

/// Bits of a code, fewest first; after the last a weight is left float.
const RUNGS: &[usize] = &[2, 3, 4, 8];

/// Bytes of a float.
const FLOAT: u64 = 4;

/// Makes models of which some weights have more bits.
pub struct Weights<'a> {
    model: &'a Model,
    statistics: Option<&'a Statistics>,
    settings: &'a Settings,
    progress: &'a dyn Progress,
    known: Known,
    moves: Vec<Move>,
}

impl<'a> Weights<'a> {
    /// Finds out what each weight costs with each number of bits, rounded to nearest.
    ///
    /// # Errors
    /// When no weight can be rounded, or the user cancels.
    pub fn new(
        model: &'a Model,
        statistics: Option<&'a Statistics>,
        settings: &'a Settings,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let first = settings.scheme.bits;
        let is_table = settings.method.name == weight_only::method::NF4.name;
        let rungs = RUNGS
            .iter()
            .copied()
            .filter(|&b| b == first || b > first && !is_table);
        let rungs: Vec<usize> = rungs.collect();
        let priced = weight_only::prices(model, statistics, settings, &rungs, progress)?;
        let mut by_weight: BTreeMap<&str, Vec<&Priced>> = BTreeMap::new();
        for price in &priced {
            by_weight.entry(&price.weight).or_default().push(price);
        }
        let moves = by_weight
            .values()
            .flat_map(|prices| steps(prices))
            .collect();
        Ok(Self {
            model,
            statistics,
            settings,
            progress,
            known: Known::default(),
            moves,
        })
    }
}

/// From each number of bits to the next, and to float, of one weight.
fn steps(prices: &[&Priced]) -> Vec<Move> {
    let mut moves = Vec::new();
    for (i, price) in prices.iter().enumerate() {
        let next = prices.get(i + 1);
        let bytes = next.map_or(price.numbers * FLOAT, |n| n.bytes);
        let layer = |name: &String| match next {
            Some(n) => Layer::bits(name, n.bits),
            None => Layer::float(name),
        };
        moves.push(Move {
            layers: price.nodes.iter().map(layer).collect(),
            bytes: bytes.saturating_sub(price.bytes),
            macs: price.numbers,
            gain: price.error - next.map_or(0.0, |n| n.error),
        });
    }
    moves
}

impl Maker for Weights<'_> {
    fn moves(&self) -> &[Move] {
        &self.moves
    }

    fn cost(&self, of: &Move) -> u64 {
        of.bytes
    }

    fn make(&mut self, taken: &[usize]) -> Result<(Model, Changes)> {
        let mut settings = self.settings.clone();
        let given = taken.iter().flat_map(|&i| &self.moves[i].layers);
        settings.layers.extend(given.cloned());
        weight_only::quantize_knowing(
            self.model,
            self.statistics,
            &settings,
            Some(&mut self.known),
            self.progress,
        )
    }
}

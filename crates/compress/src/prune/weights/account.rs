//! The account of what was pruned: counts, costs and masks, and whether a model has its zeros.

use std::collections::BTreeMap;

use edgesmith_ir::analysis::pruned;
use edgesmith_ir::{Error, Model, Result, Tensor};

use super::criteria;
use super::masks::{Mask, Masks};
use super::pattern::Pattern;
use super::scope::Scope;
use super::select;
use super::sites::{Choice, Site, Sites};
use crate::calibrate::model_digest;

/// What became of a weight.
#[derive(Debug, Clone, PartialEq)]
pub struct PrunedWeight {
    /// The name of the constant.
    pub weight: String,
    /// The nodes that read it.
    pub nodes: Vec<String>,
    /// Outputs and inputs.
    pub dims: [usize; 2],
    /// Numbers that were set to zero.
    pub gone: usize,
    /// `‖X(W − Ŵ)ᵀ‖² / ‖XWᵀ‖²`, where the inputs were seen.
    pub output_error: Option<f64>,
    /// The same where the smallest numbers go, of the same inputs and the same pattern.
    pub output_error_of_magnitude: Option<f64>,
}

/// What pruning did.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparsity {
    /// The name of the criterion.
    pub criterion: &'static str,
    /// The name of the scope.
    pub scope: &'static str,
    /// A row for each weight.
    pub weights: Vec<PrunedWeight>,
    /// Numbers of the weights of the model, those that were left among them.
    pub all: usize,
    /// The masks.
    pub masks: Masks,
}

impl Sparsity {
    /// Numbers that were set to zero, and numbers of the weights that were pruned.
    pub fn counts(&self) -> [usize; 2] {
        let gone = self.weights.iter().map(|w| w.gone).sum();
        [
            gone,
            self.weights.iter().map(|w| w.dims[0] * w.dims[1]).sum(),
        ]
    }

    /// The geometric mean of the output errors, each beside that of magnitude; `None` where no inputs
    /// were seen.
    pub fn ratio(&self) -> Option<f64> {
        let one = |w: &PrunedWeight| {
            let (own, plain) = (w.output_error?, w.output_error_of_magnitude?);
            (own > 0.0 && plain > 0.0).then(|| (own / plain).ln())
        };
        let all: Vec<f64> = self.weights.iter().filter_map(one).collect();
        (!all.is_empty()).then(|| (all.iter().sum::<f64>() / all.len() as f64).exp())
    }
}

impl Sparsity {
    /// Checks that a model has the zeros, in the constants that it still has and says are pruned, and that they lie as the
    /// pattern says.
    ///
    /// # Errors
    /// When a number that was to go is there.
    pub fn hold(&self, model: &Model) -> Result<()> {
        let everything = Choice {
            everything: true,
            ..Choice::default()
        };
        let marks = pruned(model);
        for site in Sites::of(model, &everything)?.all {
            let mask = self.masks.all.get(&site.name);
            let Some(mask) = mask.filter(|_| marks.contains_key(&site.name)) else {
                continue;
            };
            let dims = model.graph.constant(site.weight).map(Tensor::dims);
            if dims != Some(&mask.dims[..]) {
                continue;
            }
            let matrix = site.matrix(&model.graph)?;
            let kept = site.by_rows(mask.kept());
            let is_there = matrix.data.iter().zip(&kept).any(|(x, k)| !k && *x != 0.0);
            let broken = select::broken(&matrix.data, site.lengths, self.masks.pattern);
            if is_there || broken.is_some() {
                let what = format!("\"{}\" does not have its zeros", site.name);
                return Err(Error::internal(what));
            }
        }
        Ok(())
    }
}

/// What is zero in the weights of a model that was pruned while it learned.
///
/// # Errors
/// When zeros do not lie as the pattern says.
pub fn found(model: &Model, sites: &[Site], pattern: Pattern, scope: Scope) -> Result<Sparsity> {
    let (mut weights, mut masks) = (Vec::new(), BTreeMap::new());
    for site in sites {
        let matrix = site.matrix(&model.graph)?;
        if let Some([row, _]) = select::broken(&matrix.data, site.lengths, pattern) {
            let what = format!("row {row} of \"{}\" does not keep {pattern}", site.name);
            return Err(Error::internal(what));
        }
        let kept: Vec<bool> = matrix.data.iter().map(|x| *x != 0.0).collect();
        let t = model.graph.constant(site.weight);
        let node = |id| model.graph.node(id).name.clone();
        weights.push(PrunedWeight {
            weight: site.name.clone(),
            nodes: site.nodes.iter().copied().map(node).collect(),
            dims: [site.lengths.rows, site.lengths.columns],
            gone: kept.iter().filter(|k| !**k).count(),
            output_error: None,
            output_error_of_magnitude: None,
        });
        let mask = Mask::of(
            t.map(Tensor::dims).unwrap_or_default(),
            &site.in_order(kept),
        );
        masks.insert(site.name.clone(), mask);
    }
    Ok(Sparsity {
        criterion: criteria::MAGNITUDE.name,
        scope: scope.name(),
        weights,
        all: all_weights(model),
        masks: Masks {
            pattern,
            model: model_digest(model),
            all: masks,
        },
    })
}

/// Numbers of all constants that products read.
pub(super) fn all_weights(model: &Model) -> usize {
    let everything = Choice {
        everything: true,
        ..Choice::default()
    };
    let sites = Sites::of(model, &everything)
        .map(|s| s.all)
        .unwrap_or_default();
    sites
        .iter()
        .map(|s| s.lengths.rows * s.lengths.columns)
        .sum()
}

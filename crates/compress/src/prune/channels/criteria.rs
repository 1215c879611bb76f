//! What says how much a channel, unit or head is worth.

use std::cell::RefCell;
use std::collections::BTreeMap;

use edgesmith_ir::channels::{Axis, Class};
use edgesmith_ir::eval::{EvalCx, evaluate_node};
use edgesmith_ir::{Error, Item, Node, Result, Tensor, ValueId};

use super::Seen;
use crate::prune::groups::{Group, Groups};

pub mod activation;
mod geometric_median;
mod lamp;
mod norm;
mod norm_scale;
mod random;
mod taylor;

/// What a criterion looks at beside the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Statistics of samples.
    Samples,
    /// Gradients on samples.
    Gradients,
}

/// A row of the list.
pub struct Criterion {
    /// Its name on the command line and in recipes.
    pub name: &'static str,
    /// One sentence, with the source.
    pub about: &'static str,
    /// What it looks at.
    pub needs: Needs,
    /// The worth of each class of a group, in order: the least goes first.
    pub score: fn(&Cx, &Group) -> Result<Vec<f64>>,
}

impl std::fmt::Debug for Criterion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every criterion, the plain ones first, the control last.
pub static CRITERIA: &[&Criterion] = &[
    &norm::L1,
    &norm::L2,
    &norm_scale::NORM_SCALE,
    &geometric_median::GEOMETRIC_MEDIAN,
    &lamp::LAMP,
    &activation::ACTIVATION,
    &activation::WANDA,
    &taylor::TAYLOR,
    &random::RANDOM,
];

/// The criterion of that name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Criterion> {
    let found = CRITERIA.iter().find(|c| c.name == name);
    found
        .copied()
        .ok_or_else(|| Error::unknown("criterion", name, CRITERIA.iter().map(|c| c.name)))
}

/// What criteria see.
pub struct Cx<'a> {
    /// The model and its groups.
    pub groups: &'a Groups,
    /// What was looked at.
    pub seen: &'a Seen<'a>,
    /// Of what chance decides.
    pub seed: u64,
    weights: RefCell<BTreeMap<ValueId, Option<Tensor>>>,
}

impl<'a> Cx<'a> {
    /// Of a model whose weights were not looked at yet.
    pub fn new(groups: &'a Groups, seen: &'a Seen<'a>, seed: u64) -> Self {
        Self {
            groups,
            seen,
            seed,
            weights: RefCell::default(),
        }
    }

    /// The numbers of a weight of two axes or more, as f32: a constant, or an integer one as it is
    /// dequantised; `None` for other values.
    pub fn weight(&self, v: ValueId) -> Option<Tensor> {
        if let Some(known) = self.weights.borrow().get(&v) {
            return known.clone();
        }
        let found = self.read(v).filter(|t| t.rank() > 1);
        self.weights.borrow_mut().insert(v, found.clone());
        found
    }

    fn read(&self, v: ValueId) -> Option<Tensor> {
        let model = &self.groups.model;
        let as_floats = |t: &Tensor| Tensor::from_vec(t.dims(), t.to_f32().ok()?.to_vec()).ok();
        if let Some(data) = model.graph.constant(v) {
            return as_floats(data).filter(|_| data.dtype().is_float());
        }
        let (id, _) = model.graph.value(v).producer()?;
        let node: &Node = model.graph.node(id);
        if !node.is("DequantizeLinear") {
            return None;
        }
        let constant = |v: &Option<ValueId>| Some(Item::from(model.graph.constant((*v)?)?.clone()));
        let inputs: Vec<Option<Item>> = node.inputs().iter().map(constant).collect();
        if inputs.first()?.is_none() {
            return None;
        }
        let made = evaluate_node(&EvalCx::new(model, node, &inputs)).ok()?;
        as_floats(made.first()?.as_tensor().ok()?)
    }

    /// The weights that a group makes or is read by, with their axis of it. One that is both is
    /// there once for each axis.
    pub fn weights(&self, group: &Group) -> Vec<(Axis, Tensor)> {
        let axes = group.axes();
        axes.filter_map(|a| Some((a, self.weight(a.value)?)))
            .collect()
    }

    /// The weights that make a group.
    pub fn makers(&self, group: &Group) -> Vec<(Axis, Tensor)> {
        let axes = group.makers.iter();
        axes.filter_map(|a| Some((*a, self.weight(a.value)?)))
            .collect()
    }
}

/// The sum over the indices of each class of what `of` says of an index of an axis.
pub(super) fn by_class(group: &Group, axis: Axis, of: &[f64]) -> Vec<f64> {
    let sum = |class: &Class| {
        let indices = class.get(&axis).into_iter().flatten();
        indices.filter_map(|&i| of.get(i)).sum()
    };
    group.dimension.classes.iter().map(sum).collect()
}

/// Adds numbers to others, one by one.
pub(super) fn add(to: &mut [f64], more: &[f64]) {
    to.iter_mut().zip(more).for_each(|(a, b)| *a += b);
}

/// The sum of `f` over each slice of a tensor along an axis.
pub(super) fn sums(t: &Tensor, axis: usize, f: impl Fn(usize, f32) -> f64) -> Result<Vec<f64>> {
    let data = t.to_f32()?;
    let length = t.dims()[axis];
    let inner: usize = t.dims()[axis + 1..].iter().product();
    let mut sums = vec![0.0; length];
    for (line, values) in data.chunks(inner.max(1)).enumerate() {
        let first = line * inner;
        let line_sum: f64 = values
            .iter()
            .enumerate()
            .map(|(i, &x)| f(first + i, x))
            .sum();
        sums[line % length.max(1)] += line_sum;
    }
    Ok(sums)
}

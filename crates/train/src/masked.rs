//! Masks of parameters: numbers that are zero and stay zero while the others learn.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use edgesmith_ir::analysis::{Pruned, pruned};
use edgesmith_ir::{Error, Model, Result, Tensor};

/// True for each number of a parameter that learns, by the name of the constant.
pub type Kept = BTreeMap<String, Vec<bool>>;

/// Chooses masks while a model is trained.
pub trait Gradual: fmt::Debug + Send + Sync {
    /// The parameters that are masked, by the name of the constant.
    fn names(&self) -> Vec<String>;

    /// The step from which on masks stay as they are; before it what is masked counts as zero and keeps
    /// its number, so that it can come back.
    fn fixed_from(&self, total: usize) -> usize;

    /// The share that is zero in a step, where masks are to be chosen before it.
    fn due(&self, step: usize, total: usize) -> Option<f64>;

    /// True for each number that stays, of parameters in the order of [`Gradual::names`].
    ///
    /// # Errors
    /// When a parameter has other lengths.
    fn choose(&self, parameters: &[&[f32]], sparsity: f64) -> Result<Vec<Vec<bool>>>;
}

/// What a model says of its zeros, and masks that were given for its constants.
pub struct Marks<'a> {
    marks: BTreeMap<String, Pruned>,
    given: &'a Kept,
    /// The least share of zeros of constants that the model no longer has by name.
    lost: Option<f64>,
}

impl<'a> Marks<'a> {
    /// Those of a model.
    pub fn of(model: &Model, given: &'a Kept) -> Self {
        let marks = pruned(model);
        let mut found = BTreeSet::new();
        for (_, value) in model.graph.values().filter(|(_, v)| v.constant.is_some()) {
            found.extend(origin(&value.name, marks.keys()));
        }
        let lost = marks.iter().filter(|(name, _)| !found.contains(*name));
        let lost = lost.map(|(_, p)| p.sparsity).reduce(f64::min);
        Self { marks, given, lost }
    }

    /// The mask of the constant `name`, of these numbers: the one that was given; else the numbers that
    /// are not zero, where the model says that the constant was pruned. A weight whose name is none of
    /// those, in a model that has lost some of them, was pruned where as many of its numbers are zero.
    ///
    /// # Errors
    /// When the mask that was given has other lengths, or the numbers cannot be read as f32.
    pub fn mask(&self, name: &str, data: &Tensor) -> Result<Option<Vec<bool>>> {
        if let Some(key) = origin(name, self.given.keys()) {
            let mask = &self.given[key];
            if mask.len() != data.count() {
                let (own, other) = (data.count(), mask.len());
                let what = format!("\"{name}\" has {own} numbers, its mask {other}");
                return Err(Error::invalid(what).hint("the masks are of another model"));
            }
            return Ok(Some(mask.clone()));
        }
        if self.marks.is_empty() || data.rank() < 2 {
            return Ok(None);
        }
        let kept: Vec<bool> = data.to_f32()?.iter().map(|x| *x != 0.0).collect();
        let gone = kept.iter().filter(|k| !**k).count();
        let as_lost = |lost: f64| gone > 0 && gone as f64 >= lost * kept.len() as f64 - 1.0;
        let is_pruned = origin(name, self.marks.keys()).is_some() || self.lost.is_some_and(as_lost);
        Ok(is_pruned.then_some(kept))
    }
}

/// The constant that this one was made of, by its name: the same, or one that it continues.
fn origin<'k>(name: &str, keys: impl Iterator<Item = &'k String>) -> Option<&'k String> {
    let continues = |key: &&String| {
        let rest = name.strip_prefix(key.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '/']))
    };
    keys.filter(continues).max_by_key(|k| k.len())
}

/// Sets what does not stay to zero.
pub fn apply(mask: &[bool], numbers: &mut [f32]) {
    for (x, stays) in numbers.iter_mut().zip(mask) {
        if !stays {
            *x = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::analysis::mark_pruned;
    use edgesmith_ir::text::parse;

    use super::*;

    fn model() -> Model {
        let text = "opset 17 graph g(x: f32[1,2]) -> (y) {
            w: f32[2,2] = {0,2,0,4} w_q: f32[2,2] = {1,0,0,4} v: f32[2,2] = {1,0,3,4} b: f32[2] = {0,1}
            p = MatMul(x, w) q = MatMul(p, w_q) r = MatMul(q, v) y = Add(r, b) }";
        parse(text).unwrap()
    }

    fn mark(model: &mut Model, name: &str, sparsity: f64) {
        let pattern = "unstructured".into();
        mark_pruned(model, name, &Pruned { pattern, sparsity });
    }

    fn masks(model: &Model, given: &Kept) -> BTreeMap<String, Vec<bool>> {
        let marks = Marks::of(model, given);
        let constants = model.graph.values().filter(|(_, v)| v.constant.is_some());
        let mask = |(_, v): (_, &edgesmith_ir::graph::Value)| {
            let mask = marks.mask(&v.name, v.constant.as_ref().unwrap()).unwrap();
            Some((v.name.clone(), mask?))
        };
        constants.filter_map(mask).collect()
    }

    #[test]
    fn zeros_of_marked_constants_and_of_those_made_of_them_stay() {
        let mut model = model();
        assert!(masks(&model, &Kept::new()).is_empty());
        mark(&mut model, "w", 0.5);
        let found = masks(&model, &Kept::new());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["w", "w_q"]);
        assert_eq!(found["w"], [false, true, false, true]);
    }

    #[test]
    fn where_names_are_lost_as_many_zeros_tell() {
        let mut model = model();
        mark(&mut model, "gone", 0.5);
        let found = masks(&model, &Kept::new());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["v", "w", "w_q"]);
        let mut model = self::model();
        mark(&mut model, "gone", 1.0);
        assert!(masks(&model, &Kept::new()).is_empty());
    }

    #[test]
    fn a_given_mask_stands_above_zeros_and_must_fit() {
        let mut model = model();
        mark(&mut model, "w", 0.5);
        let given = Kept::from([("w".to_owned(), vec![true, true, false, true])]);
        assert_eq!(masks(&model, &given)["w"], [true, true, false, true]);
        let given = Kept::from([("w".to_owned(), vec![true])]);
        let marks = Marks::of(&model, &given);
        assert!(marks.mask("w", &Tensor::vector(vec![1.0f32, 2.0])).is_err());
    }
}

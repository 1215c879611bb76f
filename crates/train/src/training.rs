//! A model made ready for training: one graph with forward, loss and gradients.

use std::sync::Arc;

use edgesmith_ir::{Error, Model, Result, Tensor, Type, ValueId, infer};

use crate::masked::Gradual;
use crate::thaw::{self, Thawed};

/// A tensor that training moves.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name in the model, and of the input of the training graph.
    pub name: String,
    /// The constant of the model; `None` where only training has it.
    pub value: Option<ValueId>,
    /// Where it begins.
    pub data: Tensor,
    /// What its learning rate is multiplied by.
    pub rate: f64,
    /// What its gradient is multiplied by.
    pub gradient: f64,
    /// It stays above 0: a scale.
    pub is_positive: bool,
    /// What weight decay is multiplied by: 1 of weights, 0 of biases and scales.
    pub decay: f64,
    /// True for each number that learns; the others are zero and stay zero. `None`: all learn.
    pub mask: Option<Vec<bool>>,
}

/// A tensor that a step renews beside the parameters: running statistics of a normalisation.
#[derive(Debug, Clone)]
pub struct State {
    /// Its name in the model, and of the input of the training graph.
    pub name: String,
    /// The constant of the model.
    pub value: ValueId,
    /// Where it begins.
    pub data: Tensor,
}

/// A term of the loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// The loss and what it compares.
    pub name: String,
    /// Its formula.
    pub formula: String,
    /// The numbers of the formula that were chosen, by their names in it.
    pub numbers: Vec<(&'static str, f64)>,
    /// Where the formula stands.
    pub source: &'static str,
    /// Its weight; the training graph takes it as an input of this name.
    pub weight: f64,
    /// The input of the weight.
    pub input: String,
}

/// A mask of a Dropout, an input of the training graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    /// The name of the input.
    pub name: String,
    /// The value of the model that it is as long as.
    pub of: ValueId,
    /// The part that is dropped.
    pub ratio: f64,
}

/// What is wanted of each sample beside the inputs of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A class, i64 \[batch\]; -1 where it is not known.
    Labels,
    /// The share of each of so many classes, f32 \[batch, classes\].
    Shares(usize),
    /// Numbers of the shape of the output.
    Targets,
    /// A value of the teacher.
    Teacher,
}

/// An input of the training graph that is neither of the model nor a parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Fed {
    /// Its name.
    pub name: String,
    /// What it is.
    pub wanted: Wanted,
    /// The teacher's value.
    pub of: String,
}

/// A model made ready for training.
///
/// The inputs of `graph` are those of the model, then `fed`, weights of terms and masks, parameters
/// and states; its outputs are the loss, each term, the gradient of each parameter, and each
/// state renewed, in order.
#[derive(Debug, Clone)]
pub struct Training {
    /// The model as it is written: parameters are its constants.
    pub base: Model,
    /// The training graph.
    pub graph: Model,
    /// The graph that takes its place from a part of the run on, of the same inputs and outputs: the
    /// statistics of normalisations are frozen in it.
    pub late: Option<(f64, Model)>,
    /// What is trained.
    pub parameters: Vec<Parameter>,
    /// What a step renews beside.
    pub states: Vec<State>,
    /// What the loss is the sum of.
    pub terms: Vec<Term>,
    /// What a batch brings.
    pub fed: Vec<Fed>,
    /// Masks of Dropout.
    pub masks: Vec<Mask>,
    /// The constants that would be trained and stay because they are to.
    pub frozen: Vec<String>,
    /// What is to be told of the model.
    pub notes: Vec<String>,
    /// What are integers in the file.
    pub thawed: Thawed,
    /// What chooses masks while it is trained, where anything does.
    pub gradual: Option<Arc<dyn Gradual>>,
}

impl Training {
    /// The number of trained numbers.
    pub fn count(&self) -> usize {
        self.parameters.iter().map(|p| p.data.count()).sum()
    }

    /// What the training graph is fed beside a batch and masks in a first step, by name: weights of
    /// terms, parameters and states.
    pub fn initial_inputs(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        let weight = |t: &Term| (t.input.clone(), Tensor::scalar(t.weight as f32));
        let parameters = self.parameters.iter();
        let states = self.states.iter();
        (self.terms.iter().map(weight))
            .chain(parameters.map(|p| (p.name.clone(), p.data.clone())))
            .chain(states.map(|s| (s.name.clone(), s.data.clone())))
    }

    /// The lengths of each mask for a batch of the model's inputs.
    ///
    /// # Errors
    /// When they do not follow from it.
    pub fn lengths_of_masks(&self, batch: &[(String, Tensor)]) -> Result<Vec<Vec<usize>>> {
        if self.masks.is_empty() {
            return Ok(Vec::new());
        }
        let graph = &self.base.graph;
        let input = |(name, data): &(String, Tensor)| {
            let v = graph.find_value(name).filter(|&v| graph.is_input(v))?;
            Some((v, Type::from(data.ty())))
        };
        let inputs: Vec<(ValueId, Type)> = batch.iter().filter_map(input).collect();
        let inferred = infer::infer(&self.base, &inputs)?;
        let lengths = |mask: &Mask| {
            let dims = inferred.dims(mask.of).map(|d| d.to_vec());
            let what = "how many numbers there are to drop does not follow from the inputs";
            dims.ok_or_else(|| Error::unsupported(what).at(mask.name.clone()))
        };
        self.masks.iter().map(lengths).collect()
    }

    /// The model with these parameters and states, in order.
    ///
    /// # Errors
    /// When there are not as many numbers as the model has.
    pub fn model_with(&self, parameters: &[&[f32]], states: &[Tensor]) -> Result<Model> {
        let mut model = self.base.clone();
        for (p, data) in self.parameters.iter().zip(parameters) {
            if let Some(v) = p.value {
                let data = Tensor::from_vec(p.data.dims(), data.to_vec())?;
                model.graph.value_mut(v).constant = Some(data);
            }
        }
        for (s, data) in self.states.iter().zip(states) {
            if data.dims() != s.data.dims() {
                let what = format!("the state \"{}\" has other lengths", s.name);
                return Err(Error::internal(what));
            }
            model.graph.value_mut(s.value).constant = Some(data.clone());
        }
        thaw::freeze(&mut model, &self.thawed)?;
        Ok(model)
    }
}

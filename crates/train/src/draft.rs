//! The training graph while it is made: parameters become inputs, normalisations and Dropout get
//! their training behaviour back, losses are added.

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::pattern::matches;
use edgesmith_ir::random::Random;
use edgesmith_ir::types::{Dim, Shape, TensorType, Type};
use edgesmith_ir::{DType, Error, Model, NodeId, Result, Tensor, ValueId, verify};
use edgesmith_passes::{Level, RunOptions, convert_opset, optimize};

use crate::grad::{Keep, differentiate_keeping};
use crate::losses::{Loss, Request};
use crate::masked::{Kept, Marks, apply};
use crate::thaw::{Thawed, thaw};
use crate::trainable;
use crate::training::{Fed, Mask, Parameter, State, Term, Training, Wanted};

mod build;
mod clip;
mod dropout;
mod norms;
mod open;
mod still;

use open::open_batch;

/// The name of the open length of a batch.
pub const BATCH: &str = "batch";

/// Which parameters are trained, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Parameters of these names stay; `*` stands for any text.
    pub freeze: Vec<String>,
    /// The scales of a quantised model stay: its weights alone learn.
    pub freeze_scales: bool,
    /// Bounds of activations learn as PACT has them, where those are from 0 on.
    pub pact: bool,
    /// Normalisations keep their statistics from this part of the run on: from 0 on always, `None` never.
    pub freeze_norms_from: Option<f64>,
    /// The part of numbers that is dropped where such networks have a Dropout and the file has none; 0 adds
    /// none.
    pub dropout: f64,
    /// Values of the forward pass are computed again where that takes less memory.
    pub recompute: bool,
    /// Masks of constants by name; where there is none, zeros of what the model says was pruned stay.
    pub masks: Kept,
    /// Of the numbers with which projections begin.
    pub seed: u64,
}

/// A training graph under construction.
pub struct Draft {
    base: Model,
    model: Model,
    inferred: Inferred,
    parameters: Vec<(Parameter, ValueId)>,
    states: Vec<(State, ValueId)>,
    terms: Vec<(Term, ValueId, ValueId)>,
    fed: Vec<(Fed, ValueId)>,
    masks: Vec<Mask>,
    frozen: Vec<String>,
    notes: Vec<String>,
    seed: u64,
    keep: Keep<'static>,
    freeze_norms_from: Option<f64>,
    teacher: Option<(Model, Inferred)>,
    thawed: Thawed,
}

impl Draft {
    /// Begins with a model of floats.
    ///
    /// # Errors
    /// When it has no parameters, or its batch cannot be opened.
    pub fn new(model: &Model, options: &Options) -> Result<Self> {
        let mut base = model.clone();
        // Weights in Constant nodes and calls of functions: what the rules look for.
        let only = [
            "inline_functions",
            "fold_constants",
            "drop_identity",
            "remove_dead_nodes",
        ];
        let run = RunOptions {
            only: &only,
            ..RunOptions::default()
        };
        optimize(&mut base, Level::Basic, &run)?;
        if base.opset() < 13 {
            convert_opset(&mut base, 13)?;
        }
        open_batch(&mut base)?;
        let thawed = thaw(&mut base)?;
        let mut draft = Self {
            model: base.clone(),
            inferred: infer::infer(&base, &[])?,
            base,
            parameters: Vec::new(),
            states: Vec::new(),
            terms: Vec::new(),
            fed: Vec::new(),
            masks: Vec::new(),
            frozen: Vec::new(),
            notes: Vec::new(),
            seed: options.seed,
            keep: match options.recompute {
                true => Keep::Chosen,
                false => Keep::Everything,
            },
            freeze_norms_from: options.freeze_norms_from.filter(|from| *from < 1.0),
            teacher: None,
            thawed,
        };
        draft.take_parameters(options)?;
        if options.pact && !options.freeze_scales {
            draft.clip_activations();
        }
        draft.wake_norms(options)?;
        if !(0.0..1.0).contains(&options.dropout) {
            let what = format!("a dropout of {} is no part below 1", options.dropout);
            return Err(Error::usage(what).hint("networks are trained with 0.1 to 0.5"));
        }
        if options.dropout > 0.0 {
            draft.add_dropout(options.dropout)?;
        }
        draft.wake_dropout();
        Ok(draft)
    }

    /// Makes the constants that are trained inputs.
    fn take_parameters(&mut self, options: &Options) -> Result<()> {
        let stays = |name: &str| options.freeze.iter().any(|p| matches(p, name));
        let marks = Marks::of(&self.base, &options.masks);
        let mut masked = Vec::new();
        for place in trainable::places(&self.base)? {
            let v = place.value;
            let value = self.base.graph.value(v);
            let Some(data) = value.constant.clone() else {
                continue;
            };
            if stays(&value.name) {
                self.frozen.push(value.name.clone());
                continue;
            }
            let mask = marks.mask(&value.name, &data)?;
            let data = match &mask {
                Some(mask) => {
                    masked.push([mask.iter().filter(|k| !**k).count(), mask.len()]);
                    let mut numbers = data.to_f32()?.into_owned();
                    apply(mask, &mut numbers);
                    Tensor::from_vec(data.dims(), numbers)?
                }
                None => data,
            };
            let parameter = Parameter {
                name: value.name.clone(),
                value: Some(v),
                rate: 1.0,
                gradient: 1.0,
                is_positive: false,
                decay: f64::from(u8::from(place.decays(data.rank()))),
                data,
                mask,
            };
            self.make_input(v);
            self.parameters.push((parameter, v));
        }
        if !masked.is_empty() {
            let [gone, of] = [0, 1].map(|i| masked.iter().map(|m| m[i]).sum::<usize>());
            self.notes.push(format!(
                "{} weights were pruned and keep their zeros: {gone} of {of} numbers ({:.1} %)",
                masked.len(),
                100.0 * gone as f64 / of.max(1) as f64
            ));
        }
        if !options.freeze_scales {
            self.take_scales(&stays)?;
        }
        if self.parameters.is_empty() {
            return Err(Error::unsupported("the model has no parameters to train")
                .hint("parameters are f32 constants, or integers that DequantizeLinear reads"));
        }
        Ok(())
    }

    /// Makes the scales of a quantised model parameters: a step of theirs is a part of them, since
    /// they are small beside weights. Their gradients are those of LSQ, divided by √(N·Q) for N
    /// numbers of a sample in Q steps (S. Esser et al., 2020, section 2.2), in parts of the scale,
    /// so that a gradient descent without second moments moves them as there.
    fn take_scales(&mut self, stays: &dyn Fn(&str) -> bool) -> Result<()> {
        for scale in self.thawed.scales.clone() {
            let v = scale.value;
            let value = self.base.graph.value(v);
            let Some(data) = value
                .constant
                .clone()
                .filter(|t| t.dtype() == DType::F32 && !stays(&value.name))
            else {
                continue;
            };
            let numbers = data.to_f32()?;
            let mean =
                numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / numbers.len().max(1) as f64;
            let numbers = self.numbers(scale.of) as f64 / data.count().max(1) as f64;
            let gradient = 1.0 / ((numbers * scale.most).max(1.0).sqrt() * mean.max(1e-30));
            let parameter = Parameter {
                name: value.name.clone(),
                value: Some(v),
                rate: mean,
                gradient,
                is_positive: true,
                decay: 0.0,
                data: data.clone(),
                mask: None,
            };
            self.make_input(v);
            self.parameters.push((parameter, v));
        }
        Ok(())
    }

    /// The numbers of a constant, or those of a sample of a value as far as its lengths are known.
    fn numbers(&self, v: ValueId) -> usize {
        if let Some(data) = &self.base.graph.value(v).constant {
            return data.count();
        }
        let shape = self.inferred.tensor(v).and_then(|t| t.shape.as_ref());
        let lengths = shape.map_or(&[][..], |s| s.get(1..).unwrap_or_default());
        lengths.iter().filter_map(Dim::known).product()
    }

    /// Makes a constant of the training graph an input.
    fn make_input(&mut self, v: ValueId) {
        let value = self.model.graph.value_mut(v);
        if let Some(data) = value.constant.take() {
            value.ty = Some(data.ty().into());
        }
        if !self.model.graph.is_input(v) {
            self.model.graph.inputs.push(v);
        }
    }

    fn of_op(&self, op: &str) -> Vec<NodeId> {
        let nodes = self.model.graph.nodes();
        nodes.filter(|(_, n)| n.is(op)).map(|(id, _)| id).collect()
    }

    /// The value of that name in the model.
    ///
    /// # Errors
    /// When there is none; names that are written alike are told.
    pub fn value(&self, name: &str) -> Result<ValueId> {
        self.model.graph.find_value(name).ok_or_else(|| {
            let close = |n: &&str| n.contains(name) || name.contains(*n);
            let values = self.base.graph.values().map(|(_, v)| v.name.as_str());
            let near: Vec<&str> = values
                .filter(|n| !n.is_empty())
                .filter(close)
                .take(5)
                .collect();
            let error = Error::usage(format!("the model has no value \"{name}\""));
            if near.is_empty() {
                error.hint("`edgesmith inspect` lists the nodes; a value is called as in the file")
            } else {
                error.hint(format!("there is {}", near.join(", ")))
            }
        })
    }

    /// The first output; where it is a Softmax, what that takes: scores.
    ///
    /// # Errors
    /// When the model has no output.
    pub fn logits(&mut self) -> Result<ValueId> {
        let scores = scores(&self.base)?;
        let what = "the loss takes the scores in front of the Softmax at the output";
        if scores != self.output()? && !self.notes.iter().any(|n| n == what) {
            self.notes.push(what.into());
        }
        Ok(scores)
    }

    /// The first output; where it is a Sigmoid, what that takes.
    ///
    /// # Errors
    /// When the model has no output.
    pub fn odds(&mut self) -> Result<ValueId> {
        let output = self.output()?;
        let Some(id) = self.base.graph.producer_is(output, "Sigmoid") else {
            return Ok(output);
        };
        let what = "the loss takes the scores in front of the Sigmoid at the output";
        if !self.notes.iter().any(|n| n == what) {
            self.notes.push(what.into());
        }
        let taken = self.base.graph.node(id).input(0);
        taken.ok_or_else(|| Error::invalid("a Sigmoid has an input"))
    }

    /// The first output.
    ///
    /// # Errors
    /// When the model has none.
    pub fn output(&self) -> Result<ValueId> {
        let output = self.base.graph.outputs.first().copied();
        output.ok_or_else(|| Error::invalid("the model has no output"))
    }

    /// The lengths of a value behind its batch, which are known.
    ///
    /// # Errors
    /// When they are not.
    pub fn dims(&self, v: ValueId) -> Result<Vec<usize>> {
        let shape = self.inferred.tensor(v).and_then(|t| t.shape.clone());
        let dims: Option<Vec<usize>> =
            shape.and_then(|s| s.iter().skip(1).map(Dim::known).collect());
        dims.ok_or_else(|| {
            let name = &self.model.graph.value(v).name;
            Error::unsupported(format!("the lengths of \"{name}\" are not known"))
        })
    }

    /// The shape of a value, as far as it is known.
    pub fn shape(&self, v: ValueId) -> Option<Shape> {
        self.inferred.tensor(v).and_then(|t| t.shape.clone())
    }

    /// Adds an input that each batch brings, or finds it where it is there already.
    pub fn feed(&mut self, name: &str, ty: TensorType, wanted: Wanted, of: &str) -> ValueId {
        if let Some((_, v)) = self
            .fed
            .iter()
            .find(|(f, _)| f.wanted == wanted && f.of == of)
        {
            return *v;
        }
        let name = self.model.graph.fresh_name(name);
        let v = self.model.graph.add_input(&name, Type::from(ty));
        let fed = Fed {
            name,
            wanted,
            of: of.into(),
        };
        self.fed.push((fed, v));
        v
    }

    /// Sets the model that teaches.
    ///
    /// # Errors
    /// When its types cannot be inferred, its inputs are none of the student's, or it is made for another
    /// vocabulary.
    pub fn set_teacher(&mut self, teacher: &Model) -> Result<()> {
        let names = |m: &Model| -> Vec<String> {
            let inputs = m.graph.inputs.iter().map(|&v| m.graph.value(v));
            inputs
                .filter(|v| v.constant.is_none())
                .map(|v| v.name.clone())
                .collect()
        };
        let own = names(&self.base);
        if let Some(name) = names(teacher).iter().find(|n| !own.contains(n)) {
            return Err(Error::invalid(format!(
                "the teacher has the input \"{name}\", which the student has not"
            ))
            .hint(format!("the student's inputs are {}", own.join(", "))));
        }
        crate::vocabulary::check_alike(&self.base, teacher)?;
        self.teacher = Some((teacher.clone(), infer::infer(teacher, &[])?));
        Ok(())
    }

    /// A value of the teacher, as an input; its scores where no name is given.
    ///
    /// # Errors
    /// When there is no teacher, or no such value.
    pub fn taught(&mut self, name: Option<&str>) -> Result<ValueId> {
        let (teacher, inferred) = self
            .teacher
            .as_ref()
            .ok_or_else(|| Error::usage("this loss needs a teacher").hint("--teacher MODEL"))?;
        let v = match name {
            Some(name) => teacher
                .graph
                .find_value(name)
                .ok_or_else(|| Error::usage(format!("the teacher has no value \"{name}\"")))?,
            None => scores(teacher)?,
        };
        let name = teacher.graph.value(v).name.clone();
        let shape = inferred.tensor(v).and_then(|t| t.shape.clone());
        let shape = shape.ok_or_else(|| {
            Error::unsupported(format!(
                "the shape of the teacher's \"{name}\" is not known"
            ))
        })?;
        // The student's batch is the teacher's; other open lengths are read from the batch.
        let dims = shape.iter().enumerate().map(|(i, d)| match (i, d) {
            (0, _) => Dim::symbol(BATCH),
            (_, Dim::Known(n)) => Dim::Known(*n),
            _ => Dim::Unknown,
        });
        let ty = TensorType::new(DType::F32, dims.collect());
        let fed = self.feed(&format!("teacher/{name}"), ty, Wanted::Teacher, &name);
        self.inferred = infer::infer(&self.model, &[])?;
        Ok(fed)
    }

    /// A parameter that only training has: a projection of the student's features.
    pub fn projection(&mut self, name: &str, dims: &[usize]) -> Result<ValueId> {
        let name = self.model.graph.fresh_name(name);
        let fan: usize = dims[1..].iter().product::<usize>().max(1);
        let mut random = Random::of(&[self.seed, self.parameters.len() as u64]);
        let scale = (1.0 / fan as f64).sqrt();
        let data = (0..dims.iter().product()).map(|_| (random.normal() * scale) as f32);
        let data = Tensor::from_vec(dims, data.collect())?;
        let v = self.model.graph.add_input(&name, Type::from(data.ty()));
        let parameter = Parameter {
            name,
            value: None,
            rate: 1.0,
            gradient: 1.0,
            is_positive: false,
            data,
            decay: 1.0,
            mask: None,
        };
        self.parameters.push((parameter, v));
        Ok(v)
    }

    /// Adds a term to the loss.
    ///
    /// # Errors
    /// When it does not fit the model.
    pub fn add_term(&mut self, loss: &Loss, weight: f64, request: &Request) -> Result<()> {
        let value = (loss.add)(self, request).map_err(|e| e.at(format!("loss {}", loss.name)))?;
        let input = self
            .model
            .graph
            .fresh_name(&format!("weight/{}", loss.name));
        let ty = TensorType::fixed(DType::F32, &[]);
        let factor = self.model.graph.add_input(&input, Type::from(ty));
        let weighed = self.op("Mul", &[value, factor]);
        let term = Term {
            name: request.describe(loss.name),
            formula: loss.formula.into(),
            numbers: loss.numbers(request),
            source: loss.source,
            weight,
            input,
        };
        self.terms.push((term, value, weighed));
        Ok(())
    }

    /// Differentiates the sum of the terms, and drops what it does not depend on.
    ///
    /// # Errors
    /// When there is no term, or a value on the way has no gradient.
    pub fn finish(mut self) -> Result<Training> {
        let Some((_, _, first)) = self.terms.first() else {
            return Err(Error::usage("there is no loss to train by"));
        };
        let mut loss = *first;
        for (_, _, v) in self.terms.clone().iter().skip(1) {
            loss = self.op("Add", &[loss, *v]);
        }
        let still = self.told_of_still(loss);
        self.notes.extend(still);
        let late = match self.freeze_norms_from {
            Some(from) if !self.states.is_empty() => Some((from, self.with_steady_norms())),
            _ => None,
        };
        let late = late.map(|(from, model)| Ok::<_, Error>((from, self.graph_of(model, loss)?.0)));
        let late = late.transpose()?;
        let (graph, found) = self.graph_of(self.model.clone(), loss)?;
        let mut parameters = Vec::new();
        for ((p, _), is_moved) in self.parameters.into_iter().zip(found) {
            match is_moved {
                true => parameters.push(p),
                false => self.notes.push(format!(
                    "the loss does not depend on \"{}\": it stays",
                    p.name
                )),
            }
        }
        Ok(Training {
            base: self.base,
            graph,
            late,
            parameters,
            states: self.states.into_iter().map(|(s, _)| s).collect(),
            terms: self.terms.into_iter().map(|(t, _, _)| t).collect(),
            fed: self.fed.into_iter().map(|(f, _)| f).collect(),
            masks: self.masks,
            frozen: self.frozen,
            notes: self.notes,
            thawed: self.thawed,
            gradual: None,
        })
    }
}

impl Draft {
    /// The training graph of `model`, in which `loss` stands: its outputs are the loss, each term, the
    /// gradient of each parameter that it depends on, and each state. Also which parameters those are.
    fn graph_of(&self, mut model: Model, loss: ValueId) -> Result<(Model, Vec<bool>)> {
        let wanted: Vec<ValueId> = self.parameters.iter().map(|(_, v)| *v).collect();
        let found = differentiate_keeping(&mut model, loss, &wanted, self.keep)?;
        let mut outputs = vec![loss];
        outputs.extend(self.terms.iter().map(|(_, v, _)| *v));
        for ((p, v), gradient) in self.parameters.iter().zip(&found) {
            match gradient {
                Some(g) => outputs.push(*g),
                None => {
                    model.graph.value_mut(*v).constant = Some(p.data.clone());
                    model.graph.inputs.retain(|i| i != v);
                }
            }
        }
        outputs.extend(self.states.iter().map(|(_, v)| *v));
        model.graph.outputs = outputs;
        let only = ["remove_dead_nodes"];
        let run = RunOptions {
            only: &only,
            ..RunOptions::default()
        };
        optimize(&mut model, Level::Basic, &run)?;
        if let Err(faults) = verify::verify(&model) {
            let first = faults.into_iter().next();
            return Err(first.unwrap_or_else(|| Error::internal("the training graph is not sound")));
        }
        Ok((model, found.iter().map(Option::is_some).collect()))
    }
}

/// The first output of a classifier; where it is a Softmax, what that takes.
fn scores(model: &Model) -> Result<ValueId> {
    let graph = &model.graph;
    let output = graph.outputs.first().copied();
    let y = output.ok_or_else(|| Error::invalid("the model has no output"))?;
    let producer = graph.value(y).producer();
    let of_softmax = producer.and_then(|(id, _)| {
        let node = graph.node(id);
        node.is("Softmax").then(|| node.input(0))?
    });
    Ok(of_softmax.unwrap_or(y))
}

/// A type whose first axis is the batch.
pub fn batched(dtype: DType, dims: &[usize]) -> TensorType {
    let rest = dims.iter().map(|&d| Dim::Known(d));
    let shape: Shape = std::iter::once(Dim::symbol(BATCH)).chain(rest).collect();
    TensorType::new(dtype, shape)
}

//! The training graph while it is made: parameters become inputs, normalisations and Dropout get
//! their training behaviour back, losses are added.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::types::{Dim, Shape, TensorType, Type};
use edgesmith_ir::{Attribute, DType, Error, Model, Node, NodeId, Result, Tensor, ValueId, verify};
use edgesmith_passes::{Level, RunOptions, convert_opset, optimize};

use crate::grad::differentiate;
use crate::losses::{Loss, Request};
use crate::random::Random;
use crate::trainable;
use crate::training::{Fed, Mask, Parameter, State, Term, Training, Wanted};

/// The name of the open length of a batch.
pub const BATCH: &str = "batch";

/// Which parameters are trained, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Parameters of these names stay; `*` stands for any text.
    pub freeze: Vec<String>,
    /// Normalisations keep their statistics.
    pub freeze_norms: bool,
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
    notes: Vec<String>,
    seed: u64,
    teacher: Option<(Model, Inferred)>,
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
        let mut draft = Self {
            model: base.clone(),
            inferred: infer::infer(&base, &[])?,
            base,
            parameters: Vec::new(),
            states: Vec::new(),
            terms: Vec::new(),
            fed: Vec::new(),
            masks: Vec::new(),
            notes: Vec::new(),
            seed: options.seed,
            teacher: None,
        };
        draft.take_parameters(options)?;
        draft.wake_norms(options)?;
        draft.wake_dropout()?;
        Ok(draft)
    }

    /// Makes the constants that are trained inputs.
    fn take_parameters(&mut self, options: &Options) -> Result<()> {
        let stays = |name: &str| options.freeze.iter().any(|p| matches(p, name));
        for v in trainable::parameters(&self.base)? {
            let value = self.base.graph.value(v);
            let Some(data) = value.constant.clone().filter(|_| !stays(&value.name)) else {
                continue;
            };
            let parameter = Parameter {
                name: value.name.clone(),
                value: Some(v),
                decays: data.rank() > 1,
                data,
            };
            self.make_input(v);
            self.parameters.push((parameter, v));
        }
        if self.parameters.is_empty() {
            return Err(Error::unsupported("the model has no parameters to train")
                .hint("parameters are f32 constants: a quantised model is trained before it is quantised"));
        }
        Ok(())
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

    /// Lets BatchNormalization go by the statistics of the batch, and renew the running ones.
    fn wake_norms(&mut self, options: &Options) -> Result<()> {
        let norms = self.of_op("BatchNormalization");
        if norms.is_empty() && !self.of_op("Conv").is_empty() {
            let what = "no BatchNormalization is in the model: if there were any, they are folded into their convolutions, and stay so";
            self.notes.push(what.into());
        }
        if options.freeze_norms {
            return Ok(());
        }
        for id in norms {
            let node = self.model.graph.node(id).clone();
            let running = [3, 4].map(|i| node.input(i));
            let [Some(mean), Some(variance)] = running else {
                continue;
            };
            let data = [mean, variance].map(|v| self.base.graph.value(v).constant.clone());
            let [Some(m), Some(s)] = data else { continue };
            let graph = &mut self.model.graph;
            graph.node_mut(id).set("training_mode", Attribute::Int(1));
            for (i, (v, data)) in [(mean, m), (variance, s)].into_iter().enumerate() {
                let name = self.model.graph.value(v).name.clone();
                let fresh = self.model.graph.fresh_name(&format!("{name}/renewed"));
                let renewed = self.model.graph.add_value(&fresh, Some(data.ty().into()));
                self.model.graph.set_output(id, i + 1, Some(renewed));
                self.make_input(v);
                let state = State {
                    name,
                    value: v,
                    data,
                };
                self.states.push((state, renewed));
            }
        }
        Ok(())
    }

    /// Puts a product with a mask in the place of each Dropout.
    fn wake_dropout(&mut self) -> Result<()> {
        for id in self.of_op("Dropout") {
            let node = self.model.graph.node(id).clone();
            let (Some(x), Some(y)) = (node.input(0), node.output(0)) else {
                continue;
            };
            let ratio = match node.input(1) {
                Some(r) => {
                    let ratio = self.base.graph.value(r).constant.as_ref();
                    let ratio = ratio.and_then(|t| t.to_f32().ok()?.first().copied());
                    ratio.map_or(0.5, f64::from)
                }
                None => node.float("ratio").map_or(0.5, f64::from),
            };
            let shape = self.inferred.tensor(x).and_then(|t| t.shape.clone());
            let known = |s: Shape| {
                s.iter()
                    .skip(1)
                    .map(Dim::known)
                    .collect::<Option<Vec<usize>>>()
            };
            let Some(dims) = shape.and_then(known) else {
                self.notes.push(format!(
                    "the Dropout \"{}\" is left out: its lengths are not known",
                    node.name
                ));
                continue;
            };
            let name = self.model.graph.fresh_name(&format!("{}/mask", node.name));
            let ty = batched(DType::F32, &dims);
            let mask = self.model.graph.add_input(&name, Type::from(ty));
            self.model.graph.remove_node(id);
            let product = Node::new("Mul", &node.name);
            self.model
                .graph
                .add_node(product, &[Some(x), Some(mask)], &[Some(y)]);
            self.masks.push(Mask { name, dims, ratio });
        }
        Ok(())
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
    /// When its types cannot be inferred, or its inputs are none of the student's.
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

    /// Adds a node with one result.
    pub fn add(&mut self, node: Node, inputs: &[ValueId]) -> ValueId {
        let op = node.op.clone();
        let name = format!("loss/{op}");
        let mut node = node;
        node.name.clone_from(&name);
        if !node.domain.is_empty() {
            self.model.opsets.entry(node.domain.clone()).or_insert(1);
        }
        self.model.graph.add_op(node, inputs, &name)
    }

    /// Adds an operator without attributes.
    pub fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.add(Node::new(op, ""), inputs)
    }

    /// Adds an operator with an attribute of whole numbers.
    pub fn op_with(&mut self, op: &str, inputs: &[ValueId], name: &str, value: i64) -> ValueId {
        self.add(Node::new(op, "").with(name, Attribute::Int(value)), inputs)
    }

    /// Adds a number.
    pub fn number(&mut self, x: f64) -> ValueId {
        let name = self.model.graph.fresh_name("loss/number");
        self.model
            .graph
            .add_constant(&name, Tensor::scalar(x as f32))
    }

    /// Adds a list of numbers.
    pub fn floats(&mut self, list: &[f32]) -> ValueId {
        let name = self.model.graph.fresh_name("loss/list");
        let data = Tensor::vector(list.to_vec());
        self.model.graph.add_constant(&name, data)
    }

    /// Adds a list of whole numbers.
    pub fn list(&mut self, list: &[i64]) -> ValueId {
        let name = self.model.graph.fresh_name("loss/list");
        self.model
            .graph
            .add_constant(&name, Tensor::vector(list.to_vec()))
    }

    /// `v` times a number.
    pub fn scaled(&mut self, v: ValueId, x: f64) -> ValueId {
        if x == 1.0 {
            return v;
        }
        let x = self.number(x);
        self.op("Mul", &[v, x])
    }

    /// The mean of all elements.
    pub fn mean(&mut self, v: ValueId) -> ValueId {
        self.op_with("ReduceMean", &[v], "keepdims", 0)
    }

    /// A reduction along the axes, which stay with length 1 where `keep` says so.
    pub fn reduced(&mut self, op: &str, v: ValueId, axes: &[i64], keep: bool) -> ValueId {
        let keep = Attribute::Int(i64::from(keep));
        // Before opset 18 all but ReduceSum have their axes as an attribute.
        if op != "ReduceSum" && self.model.opset() < 18 {
            let node = Node::new(op, "").with("keepdims", keep);
            return self.add(node.with("axes", Attribute::Ints(axes.to_vec())), &[v]);
        }
        let axes = self.list(axes);
        self.add(Node::new(op, "").with("keepdims", keep), &[v, axes])
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
            data,
            decays: true,
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
        let wanted: Vec<ValueId> = self.parameters.iter().map(|(_, v)| *v).collect();
        let found = differentiate(&mut self.model, loss, &wanted)?;
        let mut outputs = vec![loss];
        outputs.extend(self.terms.iter().map(|(_, v, _)| *v));
        let mut parameters = Vec::new();
        for ((p, v), gradient) in self.parameters.into_iter().zip(found) {
            match gradient {
                Some(g) => {
                    outputs.push(g);
                    parameters.push(p);
                }
                None => {
                    self.notes.push(format!(
                        "the loss does not depend on \"{}\": it stays",
                        p.name
                    ));
                    self.model.graph.value_mut(v).constant = Some(p.data);
                    self.model.graph.inputs.retain(|i| *i != v);
                }
            }
        }
        outputs.extend(self.states.iter().map(|(_, v)| *v));
        self.model.graph.outputs = outputs;
        let only = ["remove_dead_nodes"];
        let run = RunOptions {
            only: &only,
            ..RunOptions::default()
        };
        optimize(&mut self.model, Level::Basic, &run)?;
        if let Err(faults) = verify::verify(&self.model) {
            let first = faults.into_iter().next();
            return Err(first.unwrap_or_else(|| Error::internal("the training graph is not sound")));
        }
        Ok(Training {
            base: self.base,
            graph: self.model,
            parameters,
            states: self.states.into_iter().map(|(s, _)| s).collect(),
            terms: self.terms.into_iter().map(|(t, _, _)| t).collect(),
            fed: self.fed.into_iter().map(|(f, _)| f).collect(),
            masks: self.masks,
            notes: self.notes,
        })
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

/// True where `name` is the pattern, in which `*` stands for any text.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|i| rest.is_char_boundary(i) && matches(tail, &rest[i..]))
        }),
    }
}

/// Opens the first axis of the inputs, where the file fixes it, and in shapes that repeat it.
fn open_batch(model: &mut Model) -> Result<()> {
    let before = infer::infer(model, &[])?;
    let inputs: BTreeSet<ValueId> = model.graph.inputs.iter().copied().collect();
    let mut fixed = BTreeMap::new();
    for &v in &inputs {
        let value = model.graph.value_mut(v);
        if value.constant.is_some() {
            continue;
        }
        let Some(Type::Tensor(ty)) = &mut value.ty else {
            continue;
        };
        let Some(first) = ty.shape.as_mut().and_then(|s| s.0.first_mut()) else {
            continue;
        };
        if let Dim::Known(n) = *first {
            *first = Dim::symbol(BATCH);
            fixed.insert(v, n);
        }
    }
    let Some(&old) = fixed.values().next() else {
        return Ok(());
    };
    if fixed.values().any(|n| *n != old) {
        return Err(Error::unsupported(
            "inputs begin with different lengths: their batch is not known",
        ));
    }
    // Declared types of the file repeat the old length.
    let slots: Vec<ValueId> = model.graph.values().map(|(v, _)| v).collect();
    for v in slots {
        let value = model.graph.value_mut(v);
        if value.constant.is_none() && !inputs.contains(&v) {
            value.ty = None;
        }
    }
    let reshapes: Vec<NodeId> = model
        .graph
        .nodes()
        .filter(|(_, n)| n.is("Reshape"))
        .map(|(id, _)| id)
        .collect();
    for id in reshapes {
        let node = model.graph.node(id);
        let (Some(x), Some(s)) = (node.input(0), node.input(1)) else {
            continue;
        };
        let first = before.dims(x).and_then(|d| d.first().copied());
        let shape = model
            .graph
            .value(s)
            .constant
            .as_ref()
            .and_then(|t| t.to_i64().ok());
        let Some(mut shape) = shape else { continue };
        let zero = node.int("allowzero").unwrap_or(0) == 0;
        if first == Some(old) && shape.first() == Some(&(old as i64)) && zero {
            shape[0] = 0;
            let name = model.graph.fresh_name("open_shape");
            let open = model.graph.add_constant(&name, Tensor::vector(shape));
            model.graph.set_input(id, 1, Some(open));
        }
    }
    let after = infer::infer(model, &[])?;
    let batch = Dim::symbol(BATCH);
    let opened = model.graph.outputs.iter().all(|&v| {
        let shape = after.tensor(v).and_then(|t| t.shape.as_ref());
        shape
            .and_then(|s| s.first())
            .is_some_and(|d| d.same(&batch))
    });
    if opened {
        return Ok(());
    }
    Err(
        Error::unsupported(format!("the model is made for a batch of {old} only"))
            .hint("write it with an open batch"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("a*c", "abc") && matches("*", "") && matches("*.w", "x.w"));
        assert!(!matches("a*c", "abd") && !matches("a", "ab"));
    }
}

//! The reference interpreter: slow, plain, right. Everything else is measured against it.

use std::collections::BTreeMap;

use crate::analysis::cost;
use crate::budget::{self, Budget, Limits};
use crate::error::At;
use crate::graph::{Attribute, Function, Graph, Model, Node, ValueId};
use crate::infer::{MAX_DEPTH, infer_node};
use crate::ops::{self, OpDef};
use crate::tensor::within;
use crate::{Error, Item, Result, Tensor};

/// What the reference evaluation of an operator sees of one node.
pub struct EvalCx<'a> {
    /// The node.
    pub node: &'a Node,
    /// The opset version of the node's domain.
    pub version: i64,
    inputs: &'a [Option<Item>],
    scope: Scope<'a>,
}

/// Where subgraphs find functions, versions and the values around them.
#[derive(Clone, Copy)]
struct Scope<'a> {
    functions: &'a [Function],
    opsets: &'a BTreeMap<String, i64>,
    outer: &'a [Option<Item>],
    depth: usize,
    budget: Option<&'a Budget>,
    bodies: Option<&'a dyn Bodies>,
}

/// Runs the graphs inside a node in another way than node by node.
pub trait Bodies {
    /// The outputs of the graph in attribute `name` for these inputs; `None` where it is left to
    /// the evaluation.
    ///
    /// # Errors
    /// When a node inside fails.
    fn run(&self, name: &str, inputs: &[Option<Item>]) -> Result<Option<Vec<Item>>>;
}

impl<'a> EvalCx<'a> {
    /// A context for one node of `model` outside any run: `inputs` by position.
    /// Nodes with captured values cannot be evaluated this way.
    pub fn new(model: &'a Model, node: &'a Node, inputs: &'a [Option<Item>]) -> Self {
        Self {
            node,
            version: model.opsets.get(&node.domain).copied().unwrap_or(1),
            inputs,
            scope: Scope {
                functions: &model.functions,
                opsets: &model.opsets,
                outer: &[],
                depth: 0,
                budget: None,
                bodies: None,
            },
        }
    }

    /// As [`EvalCx::new`], for a node whose subgraphs read values of the graph that it stands in:
    /// `outer` has a row for each of those, by [`ValueId::index`].
    pub fn within(
        model: &'a Model,
        node: &'a Node,
        inputs: &'a [Option<Item>],
        outer: &'a [Option<Item>],
    ) -> Self {
        let mut cx = Self::new(model, node, inputs);
        cx.scope.outer = outer;
        cx
    }

    /// The same, within a budget.
    #[must_use]
    pub fn under(mut self, budget: &'a Budget) -> Self {
        self.scope.budget = Some(budget);
        self
    }

    /// The same, with somebody who runs the graphs inside the node.
    #[must_use]
    pub fn with_bodies(mut self, bodies: &'a dyn Bodies) -> Self {
        self.scope.bodies = Some(bodies);
        self
    }

    /// Bytes of the values that are there; 0 without a budget.
    pub(crate) fn held(&self) -> u64 {
        self.scope.budget.map_or(0, Budget::held)
    }

    /// Counts `bytes` in place of all that came after `held`.
    ///
    /// # Errors
    /// When there is no room for them.
    pub(crate) fn hold_after(&self, held: u64, bytes: u64) -> Result<()> {
        let Some(budget) = self.scope.budget else {
            return Ok(());
        };
        budget.release_to(held);
        budget.hold(bytes)
    }

    /// The same node on other inputs: for operators that are defined by another one.
    /// [`items`] makes them of tensors.
    pub fn with_inputs<'b>(&self, inputs: &'b [Option<Item>]) -> EvalCx<'b>
    where
        'a: 'b,
    {
        EvalCx {
            node: self.node,
            version: self.version,
            inputs,
            scope: self.scope,
        }
    }

    /// As [`EvalCx::with_inputs`], as a node of the default domain.
    pub fn as_default<'b>(&self, inputs: &'b [Option<Item>]) -> EvalCx<'b>
    where
        'a: 'b,
    {
        let version = self.scope.opsets.get("").copied();
        EvalCx {
            version: version.unwrap_or(self.version),
            ..self.with_inputs(inputs)
        }
    }

    /// Number of inputs, left-out ones included.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Input `i`, a tensor.
    ///
    /// # Errors
    /// When the node leaves it out, or it is no tensor.
    pub fn input(&self, i: usize) -> Result<&'a Tensor> {
        self.get(i)?.as_tensor()
    }

    /// Input `i`, where the node gives it and it is a tensor.
    pub fn optional(&self, i: usize) -> Option<&'a Tensor> {
        match self.item(i) {
            Some(Item::Tensor(t)) => Some(t),
            _ => None,
        }
    }

    /// Input `i` of any kind, where the node gives it.
    pub fn item(&self, i: usize) -> Option<&'a Item> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    /// Input `i` of any kind.
    ///
    /// # Errors
    /// When the node leaves it out.
    pub fn get(&self, i: usize) -> Result<&'a Item> {
        self.item(i)
            .ok_or_else(|| Error::invalid(format!("input {i} is missing")))
    }

    /// Input `i`, a sequence.
    ///
    /// # Errors
    /// When the node leaves it out, or it is no sequence.
    pub fn sequence(&self, i: usize) -> Result<&'a [Item]> {
        self.get(i)?.as_sequence()
    }

    /// The INT attribute, or `default`.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.node.int(name).unwrap_or(default)
    }

    /// The FLOAT attribute, or `default`.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.node.float(name).unwrap_or(default)
    }

    /// Runs the graph in attribute `name` (the body of If, Loop, Scan) on `inputs`.
    ///
    /// # Errors
    /// When the attribute is missing or a node inside fails.
    pub fn subgraph(&self, name: &str, inputs: Vec<Option<Item>>) -> Result<Vec<Item>> {
        let graph = self.node.graph_of(name, inputs.len())?;
        let held = self.held();
        if let Some(bodies) = self.scope.bodies
            && let Some(outputs) = bodies.run(name, &inputs)?
        {
            self.hold_after(held, budget::bytes_of(&outputs))?;
            return Ok(outputs);
        }
        let mut values: Vec<Option<Item>> = vec![None; graph.value_slots()];
        for c in &graph.captures {
            values[c.inner.index()] = self.scope.outer.get(c.outer.index()).cloned().flatten();
        }
        for (&v, t) in graph.inputs.iter().zip(inputs) {
            values[v.index()] = t;
        }
        let outputs = run(graph, values, self.scope, &mut |_, _| ())?;
        self.hold_after(held, budget::bytes_of(&outputs))?;
        Ok(outputs)
    }
}

/// Tensors as the inputs of an [`EvalCx`].
pub fn items(tensors: impl IntoIterator<Item = Option<Tensor>>) -> Vec<Option<Item>> {
    let one = |t: Option<Tensor>| t.map(Item::Tensor);
    tensors.into_iter().map(one).collect()
}

/// Evaluates the node that `cx` shows: by the model's function, or by its operator's definition.
///
/// # Errors
/// When the operator is unknown or its evaluation fails; the error names the node.
pub fn evaluate_node(cx: &EvalCx) -> Result<Vec<Item>> {
    let node = cx.node;
    let function = cx
        .scope
        .functions
        .iter()
        .find(|f| f.name == node.op && f.domain == node.domain && f.overload == node.overload);
    let result = match (function, ops::find(&node.domain, &node.op)) {
        (Some(function), _) => counted(cx, &|| call(function, cx)),
        (None, Some(def)) => foreseen(cx).and_then(|()| counted(cx, &|| by_definition(def, cx))),
        (None, None) => Err(Error::unsupported("the operator is unknown")
            .hint("`edgesmith ops` lists what can be run; the model can still be inspected")),
    };
    result.at(|| node.place())
}

/// Refuses a node that would make or do more than the budget has left, before it does.
fn foreseen(cx: &EvalCx) -> Result<()> {
    let (Some(budget), node) = (cx.scope.budget, cx.node) else {
        return Ok(());
    };
    if node.subgraphs().next().is_some() {
        return Ok(());
    }
    let types = infer_node(node, cx.scope.opsets, cx.inputs)?;
    let tensors = types.iter().filter_map(|(_, ty)| ty.tensor());
    let bytes = tensors.clone().filter_map(|t| t.bytes());
    budget.check(bytes.fold(0, |sum, n| sum.saturating_add(n as u64)))?;
    let dims = |i: usize| Some(cx.optional(i)?.dims().into());
    let first = types.iter().find(|(o, _)| *o == 0);
    let output = first.and_then(|(_, ty)| ty.tensor()?.shape.as_ref()?.known());
    let read = (0..cx.inputs()).filter_map(|i| Some(cx.optional(i)?.count()));
    let made = tensors.filter_map(|t| t.shape.as_ref()?.count());
    let elements = read
        .chain(made)
        .fold(0u64, |sum, n| sum.saturating_add(n as u64));
    let macs = cost::macs_of(node, &dims, output).unwrap_or(0);
    budget.work(macs.saturating_add(elements.saturating_mul(window(node))))
}

/// How often an element is read or made at the most: the size of a window that an attribute gives.
fn window(node: &Node) -> u64 {
    let lengths = node.ints("kernel_shape").unwrap_or_default();
    let lengths = lengths.iter().map(|&n| n.max(1).unsigned_abs());
    lengths.fold(1, u64::saturating_mul)
}

/// Evaluates, counting one step and what it makes.
fn counted(cx: &EvalCx, evaluate: &dyn Fn() -> Result<Vec<Item>>) -> Result<Vec<Item>> {
    let Some(budget) = cx.scope.budget else {
        let outputs = evaluate()?;
        budget::new_bytes(&outputs, &[])?;
        return Ok(outputs);
    };
    budget.step(1)?;
    let held = budget.held();
    let outputs = within(budget.room(), evaluate)?;
    cx.hold_after(held, budget::new_bytes(&outputs, cx.inputs)?)?;
    Ok(outputs)
}

fn by_definition(def: &OpDef, cx: &EvalCx) -> Result<Vec<Item>> {
    def.check_arity(cx.node)?;
    if let Some(eval) = def.eval_items {
        return eval(cx);
    }
    let eval = def
        .eval
        .ok_or_else(|| Error::unsupported("the operator is known but not evaluated"))?;
    for item in cx.inputs.iter().flatten() {
        item.as_tensor()?;
    }
    Ok(eval(cx)?.into_iter().map(Item::Tensor).collect())
}

/// As [`evaluate_node`], where all outputs are tensors.
///
/// # Errors
/// As [`evaluate_node`], and when an output is no tensor.
pub fn evaluate_tensors(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let tensors = evaluate_node(cx)?.into_iter().map(Item::into_tensor);
    tensors.collect::<Result<_>>().at(|| cx.node.place())
}

/// Runs a function of the model: its attributes are put in place of the references to them.
fn call(function: &Function, cx: &EvalCx) -> Result<Vec<Item>> {
    let mut graph = function.graph.clone();
    let given = |name: &str| {
        let default = function
            .defaults
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, a)| a);
        cx.node.attribute(name).or(default).cloned()
    };
    bind_attributes(&mut graph, &given);
    let mut values: Vec<Option<Item>> = vec![None; graph.value_slots()];
    for (i, v) in graph.inputs.iter().enumerate() {
        values[v.index()] = cx.item(i).cloned();
    }
    let scope = Scope {
        opsets: &function.opsets,
        outer: &[],
        bodies: None,
        ..cx.scope
    };
    run(&graph, values, scope, &mut |_, _| ())
}

/// Replaces references to a function's attributes by what `given` says; those it does not know
/// are left out.
pub fn bind_attributes(graph: &mut Graph, given: &dyn Fn(&str) -> Option<Attribute>) {
    let ids: Vec<_> = graph.nodes().map(|(id, _)| id).collect();
    for id in ids {
        let node = graph.node_mut(id);
        node.attributes.retain_mut(|(_, a)| {
            let Attribute::Reference(name, _) = a else {
                return true;
            };
            match given(name) {
                Some(value) => {
                    *a = value;
                    true
                }
                None => false,
            }
        });
        for inner in node.subgraphs_mut() {
            bind_attributes(inner, given);
        }
    }
}

/// Evaluates a model of tensors: outputs in order, for inputs by name.
///
/// # Errors
/// When an input is missing or unknown, a node fails, or an output is no tensor.
pub fn evaluate(model: &Model, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
    evaluate_with(model, inputs, &mut |_, _| ())
}

/// As [`evaluate`], showing every tensor to `watch` as soon as it is there.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_with(
    model: &Model,
    inputs: &[(&str, Tensor)],
    watch: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<Tensor>> {
    let items = inputs.iter().map(|(n, t)| (*n, Item::from(t.clone())));
    let items: Vec<(&str, Item)> = items.collect();
    let outputs = main_graph(model, &items, Limits::default(), watch)?;
    outputs.into_iter().map(Item::into_tensor).collect()
}

/// Evaluates a model: outputs in order, for inputs by name, of any kind.
///
/// # Errors
/// When an input is missing or unknown, or a node fails.
pub fn evaluate_items(model: &Model, inputs: &[(&str, Item)]) -> Result<Vec<Item>> {
    evaluate_within(model, inputs, Limits::default())
}

/// As [`evaluate_items`], within other limits than the default ones.
///
/// # Errors
/// As [`evaluate_items`], and when a limit is passed; the error names the node.
pub fn evaluate_within(
    model: &Model,
    inputs: &[(&str, Item)],
    limits: Limits,
) -> Result<Vec<Item>> {
    main_graph(model, inputs, limits, &mut |_, _| ())
}

fn main_graph(
    model: &Model,
    inputs: &[(&str, Item)],
    limits: Limits,
    watch: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<Item>> {
    let graph = &model.graph;
    let mut values: Vec<Option<Item>> = vec![None; graph.value_slots()];
    for (name, item) in inputs {
        let v = graph
            .inputs
            .iter()
            .find(|&&v| graph.value(v).name == *name)
            .ok_or_else(|| Error::invalid(format!("the model has no input \"{name}\"")))?;
        if let Item::Tensor(tensor) = item {
            watch(*v, tensor);
        }
        values[v.index()] = Some(item.clone());
    }
    let budget = Budget::new(limits);
    let scope = Scope {
        functions: &model.functions,
        opsets: &model.opsets,
        outer: &[],
        depth: 0,
        budget: Some(&budget),
        bodies: None,
    };
    run(graph, values, scope, watch)
}

fn run(
    graph: &Graph,
    mut values: Vec<Option<Item>>,
    scope: Scope,
    watch: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<Item>> {
    if scope.depth > MAX_DEPTH {
        return Err(Error::invalid(format!(
            "functions and subgraphs nest deeper than {MAX_DEPTH}"
        )));
    }
    if let Some(budget) = scope.budget {
        budget.step(1 + (graph.value_slots() / 16) as u64)?;
    }
    for (id, value) in graph.values() {
        if values[id.index()].is_none() {
            values[id.index()] = value.constant.clone().map(Item::Tensor);
        }
    }
    for id in graph.order()? {
        let node = graph.node(id);
        let mut inputs = Vec::with_capacity(node.inputs().len());
        for v in node.inputs() {
            inputs.push(match v {
                Some(v) => Some(take(graph, &values, *v).at(|| node.place())?),
                None => None,
            });
        }
        let cx = EvalCx {
            node,
            version: scope.opsets.get(&node.domain).copied().unwrap_or(1),
            inputs: &inputs,
            scope: Scope {
                outer: &values,
                depth: scope.depth + 1,
                bodies: None,
                ..scope
            },
        };
        let outputs = evaluate_node(&cx)?;
        for (o, item) in outputs.into_iter().enumerate() {
            if let Some(v) = node.output(o) {
                if let Item::Tensor(tensor) = &item {
                    watch(v, tensor);
                }
                values[v.index()] = Some(item);
            }
        }
    }
    graph
        .outputs
        .iter()
        .map(|&v| take(graph, &values, v))
        .collect()
}

fn take(graph: &Graph, values: &[Option<Item>], v: ValueId) -> Result<Item> {
    values[v.index()]
        .clone()
        .ok_or_else(|| Error::invalid(format!("value \"{}\" was never made", graph.value(v).name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DType, TensorType};

    #[test]
    fn an_unknown_operator_is_named() {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[1]));
        let y = g.add_op(Node::new("Frobnicate", "f"), &[x], "y");
        g.outputs.push(y);
        let model = Model::new(g, 17);
        let e = evaluate(&model, &[("x", Tensor::vector(vec![1.0f32]))]).unwrap_err();
        assert!(
            e.to_string()
                .starts_with("Frobnicate \"f\": the operator is unknown")
        );
    }

    #[test]
    fn a_missing_input_is_an_error() {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[1]));
        let y = g.add_op(Node::new("Relu", "r"), &[x], "y");
        g.outputs.push(y);
        let model = Model::new(g, 17);
        assert!(
            evaluate(&model, &[])
                .unwrap_err()
                .to_string()
                .contains("\"x\" was never made")
        );
    }
}

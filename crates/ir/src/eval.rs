//! The reference interpreter: slow, plain, right. Everything else is measured against it.

use std::collections::BTreeMap;

use crate::error::At;
use crate::graph::{Attribute, Function, Graph, Model, Node, ValueId};
use crate::infer::MAX_DEPTH;
use crate::ops;
use crate::{Error, Result, Tensor};

/// What the reference evaluation of an operator sees of one node.
pub struct EvalCx<'a> {
    /// The node.
    pub node: &'a Node,
    /// The opset version of the node's domain.
    pub version: i64,
    inputs: &'a [Option<Tensor>],
    scope: Scope<'a>,
}

/// Where subgraphs find functions, versions and the values around them.
#[derive(Clone, Copy)]
struct Scope<'a> {
    functions: &'a [Function],
    opsets: &'a BTreeMap<String, i64>,
    outer: &'a [Option<Tensor>],
    depth: usize,
}

impl<'a> EvalCx<'a> {
    /// A context for one node of `model` outside any run: `inputs` by position.
    /// Nodes with captured values cannot be evaluated this way.
    pub fn new(model: &'a Model, node: &'a Node, inputs: &'a [Option<Tensor>]) -> Self {
        Self {
            node,
            version: model.opsets.get(&node.domain).copied().unwrap_or(1),
            inputs,
            scope: Scope {
                functions: &model.functions,
                opsets: &model.opsets,
                outer: &[],
                depth: 0,
            },
        }
    }

    /// As [`EvalCx::new`], for a node whose subgraphs read values of the graph that it stands in:
    /// `outer` has a row for each of those, by [`ValueId::index`].
    pub fn within(
        model: &'a Model,
        node: &'a Node,
        inputs: &'a [Option<Tensor>],
        outer: &'a [Option<Tensor>],
    ) -> Self {
        let mut cx = Self::new(model, node, inputs);
        cx.scope.outer = outer;
        cx
    }

    /// The same node on other inputs: for operators that are defined by another one.
    pub fn with_inputs<'b>(&self, inputs: &'b [Option<Tensor>]) -> EvalCx<'b>
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

    /// Number of inputs, left-out ones included.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Input `i`.
    ///
    /// # Errors
    /// When the node leaves it out.
    pub fn input(&self, i: usize) -> Result<&'a Tensor> {
        self.optional(i)
            .ok_or_else(|| Error::invalid(format!("input {i} is missing")))
    }

    /// Input `i`, where the node gives it.
    pub fn optional(&self, i: usize) -> Option<&'a Tensor> {
        self.inputs.get(i).and_then(Option::as_ref)
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
    pub fn subgraph(&self, name: &str, inputs: Vec<Option<Tensor>>) -> Result<Vec<Tensor>> {
        let graph = self
            .node
            .graph(name)
            .ok_or_else(|| Error::invalid(format!("attribute \"{name}\" is missing")))?;
        let mut values: Vec<Option<Tensor>> = vec![None; graph.value_slots()];
        for c in &graph.captures {
            values[c.inner.index()] = self.scope.outer.get(c.outer.index()).cloned().flatten();
        }
        for (&v, t) in graph.inputs.iter().zip(inputs) {
            values[v.index()] = t;
        }
        run(graph, values, self.scope, &mut |_, _| ())
    }
}

/// Evaluates the node that `cx` shows: by its operator's definition, or by the model's function.
///
/// # Errors
/// When the operator is unknown or its evaluation fails; the error names the node.
pub fn evaluate_node(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let node = cx.node;
    let function = cx
        .scope
        .functions
        .iter()
        .find(|f| f.name == node.op && f.domain == node.domain && f.overload == node.overload);
    let result = match (function, ops::find(&node.domain, &node.op)) {
        (Some(function), _) => call(function, cx),
        (None, Some(def)) => match def.eval {
            Some(eval) => def.check_arity(node).and_then(|()| eval(cx)),
            None => Err(Error::unsupported(
                "the operator is known but not evaluated",
            )),
        },
        (None, None) => Err(Error::unsupported("the operator is unknown")
            .hint("`edgesmith ops` lists what can be run; the model can still be inspected")),
    };
    result.at(|| node.place())
}

/// Runs a function of the model: its attributes are put in place of the references to them.
fn call(function: &Function, cx: &EvalCx) -> Result<Vec<Tensor>> {
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
    let mut values: Vec<Option<Tensor>> = vec![None; graph.value_slots()];
    for (i, v) in graph.inputs.iter().enumerate() {
        values[v.index()] = cx.optional(i).cloned();
    }
    let scope = Scope {
        opsets: &function.opsets,
        outer: &[],
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

/// Evaluates a model: outputs in order, for inputs by name.
///
/// # Errors
/// When an input is missing or unknown, or a node fails.
pub fn evaluate(model: &Model, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
    evaluate_with(model, inputs, &mut |_, _| ())
}

/// As [`evaluate`], showing every value to `watch` as soon as it is there.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_with(
    model: &Model,
    inputs: &[(&str, Tensor)],
    watch: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<Tensor>> {
    let graph = &model.graph;
    let mut values: Vec<Option<Tensor>> = vec![None; graph.value_slots()];
    for (name, tensor) in inputs {
        let v = graph
            .inputs
            .iter()
            .find(|&&v| graph.value(v).name == *name)
            .ok_or_else(|| Error::invalid(format!("the model has no input \"{name}\"")))?;
        watch(*v, tensor);
        values[v.index()] = Some(tensor.clone());
    }
    let scope = Scope {
        functions: &model.functions,
        opsets: &model.opsets,
        outer: &[],
        depth: 0,
    };
    run(graph, values, scope, watch)
}

fn run(
    graph: &Graph,
    mut values: Vec<Option<Tensor>>,
    scope: Scope,
    watch: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<Tensor>> {
    if scope.depth > MAX_DEPTH {
        return Err(Error::invalid(format!(
            "functions and subgraphs nest deeper than {MAX_DEPTH}"
        )));
    }
    for (id, value) in graph.values() {
        if values[id.index()].is_none() {
            values[id.index()] = value.constant.clone();
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
                ..scope
            },
        };
        let outputs = evaluate_node(&cx)?;
        for (o, tensor) in outputs.into_iter().enumerate() {
            if let Some(v) = node.output(o) {
                watch(v, &tensor);
                values[v.index()] = Some(tensor);
            }
        }
    }
    graph
        .outputs
        .iter()
        .map(|&v| take(graph, &values, v))
        .collect()
}

fn take(graph: &Graph, values: &[Option<Tensor>], v: ValueId) -> Result<Tensor> {
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

//! Checks that a model is well formed: what every pass relies on and has to leave behind.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::error::Kind;
use crate::graph::{Graph, Model, Node, ValueId};
use crate::infer::{self, MAX_DEPTH};
use crate::{Error, ops};

/// Checks the graph, its subgraphs and the model's functions; all faults found are returned.
///
/// Value names are unique in their graph; what is read comes from one place (a node, a constant,
/// a graph input, a capture); no node depends on itself; known operators have as many inputs,
/// outputs and attributes of the types that ONNX asks for; each domain in use has an opset;
/// declared element types are those that the operators give. Shapes that the file declares
/// otherwise than inference are no fault here: [`infer::infer`] reports them as conflicts.
///
/// # Errors
/// The faults, in the order of the graph.
pub fn verify(model: &Model) -> Result<(), Vec<Error>> {
    let mut errors = structure(model);
    if errors.is_empty() {
        check_types(model, &mut errors);
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// The faults of [`verify`] that are not of types and shapes, in the order of the graph.
pub fn structure(model: &Model) -> Vec<Error> {
    let mut errors = Vec::new();
    let main = Checker::new(model, &model.opsets);
    main.graph(&model.graph, 0, &mut errors);
    for f in &model.functions {
        let place = format!("function \"{}\"", f.name);
        let mut found = Vec::new();
        Checker::new(model, &f.opsets).graph(&f.graph, 0, &mut found);
        errors.extend(found.into_iter().map(|e| e.at(place.clone())));
    }
    errors
}

/// Checks what inference finds: broken shape rules and element types declared otherwise.
fn check_types(model: &Model, errors: &mut Vec<Error>) {
    let inferred = match infer::infer(model, &[]) {
        Ok(inferred) => inferred,
        Err(e) if e.kind == Kind::Unsupported => return,
        Err(e) => return errors.push(e),
    };
    for (id, value) in model.graph.values() {
        if let (Some(declared), Some(found)) = (value.tensor_type(), inferred.tensor(id))
            && declared.dtype != found.dtype
        {
            errors.push(
                Error::invalid(format!(
                    "declared as {}, its operator gives {}",
                    declared.dtype, found.dtype
                ))
                .at(place_of(&model.graph, id)),
            );
        }
    }
}

fn place_of(graph: &Graph, v: ValueId) -> String {
    format!("value \"{}\"", graph.value(v).name)
}

struct Checker<'a> {
    model: &'a Model,
    opsets: &'a BTreeMap<String, i64>,
}

impl<'a> Checker<'a> {
    fn new(model: &'a Model, opsets: &'a BTreeMap<String, i64>) -> Self {
        Self { model, opsets }
    }

    fn graph(&self, graph: &Graph, depth: usize, errors: &mut Vec<Error>) {
        if depth > MAX_DEPTH {
            let message = format!("subgraphs nest deeper than {MAX_DEPTH}");
            return errors.push(Error::invalid(message));
        }
        if !ids_are_in_range(graph) {
            let message = "an input, output or capture is no value of the graph";
            return errors.push(Error::invalid(message).at(format!("graph \"{}\"", graph.name)));
        }
        check_sources(graph, errors);
        check_names(graph, errors);
        if let Err(e) = graph.order() {
            errors.push(e);
        }
        for (_, node) in graph.nodes() {
            self.node(node, errors);
            for inner in node.subgraphs() {
                let mut found = Vec::new();
                self.graph(inner, depth + 1, &mut found);
                errors.extend(found.into_iter().map(|e| e.at(node.place())));
            }
        }
    }

    fn node(&self, node: &Node, errors: &mut Vec<Error>) {
        let alias = node.domain == "ai.onnx";
        let before_opsets = self.model.ir_version < 3 && (node.domain.is_empty() || alias);
        let has_opset = self.opsets.contains_key(&node.domain)
            || (alias && self.opsets.contains_key(""))
            || before_opsets;
        if !has_opset {
            let message = format!("no opset version is given for domain \"{}\"", node.domain);
            errors.push(Error::invalid(message).at(node.place()));
        }
        let arity = match (self.model.function(node), ops::find(&node.domain, &node.op)) {
            (Some(f), _) => {
                let (i, o) = (f.graph.inputs.len(), f.graph.outputs.len());
                if node.inputs().len() <= i && node.outputs().len() <= o {
                    Ok(())
                } else {
                    Err(Error::invalid(format!(
                        "the function takes {i} inputs and gives {o} outputs"
                    )))
                }
            }
            (None, Some(def)) => def.check_arity(node),
            (None, None) => Ok(()),
        };
        if let Err(e) = arity {
            errors.push(e.at(node.place()));
        }
    }
}

/// The lists that callers write freely hold ids of the graph and of the graph around it.
fn ids_are_in_range(graph: &Graph) -> bool {
    let slots = graph.value_slots();
    let own = graph.inputs.iter().chain(&graph.outputs).copied();
    let inner = graph.captures.iter().map(|c| c.inner);
    let captured = graph
        .nodes()
        .flat_map(|(_, n)| n.subgraphs())
        .flat_map(|g| g.captures.iter().map(|c| c.outer));
    own.chain(inner).chain(captured).all(|v| v.index() < slots)
}

/// Every value has one source, and those that are read have one.
fn check_sources(graph: &Graph, errors: &mut Vec<Error>) {
    let mut sources = vec![0u8; graph.value_slots()];
    let mut count = |v: ValueId| sources[v.index()] = sources[v.index()].saturating_add(1);
    graph.inputs.iter().copied().for_each(&mut count);
    graph.captures.iter().for_each(|c| count(c.inner));
    for (_, node) in graph.nodes() {
        node.outputs()
            .iter()
            .flatten()
            .copied()
            .for_each(&mut count);
    }
    let inputs: HashSet<ValueId> = graph.inputs.iter().copied().collect();
    for (id, value) in graph.values() {
        if value.constant.is_some() && !inputs.contains(&id) {
            count(id);
        }
    }
    for (id, _) in graph.values() {
        if sources[id.index()] > 1 {
            let message = "comes from more than one place (node, input, constant, capture)";
            errors.push(Error::invalid(message).at(place_of(graph, id)));
        }
    }
    for (_, node) in graph.nodes() {
        for &v in node.inputs().iter().flatten() {
            if sources[v.index()] == 0 {
                errors.push(never_made(graph, v).at(node.place()));
            }
        }
        let mut captured = BTreeSet::new();
        for c in node.subgraphs().flat_map(|g| &g.captures) {
            if sources[c.outer.index()] == 0 && captured.insert(c.outer) {
                errors.push(never_made(graph, c.outer).at(node.place()));
            }
        }
    }
    for &v in &graph.outputs {
        if sources[v.index()] == 0 {
            errors.push(never_made(graph, v).at("output"));
        }
    }
}

fn never_made(graph: &Graph, v: ValueId) -> Error {
    Error::invalid(format!(
        "reads value \"{}\", which nothing makes",
        graph.value(v).name
    ))
}

/// Names of values that are in use are unique.
fn check_names(graph: &Graph, errors: &mut Vec<Error>) {
    let mut used = vec![false; graph.value_slots()];
    let ends = graph.inputs.iter().chain(&graph.outputs).copied();
    let edges = graph
        .nodes()
        .flat_map(|(_, n)| n.inputs().iter().chain(n.outputs()).flatten().copied());
    for v in ends
        .chain(graph.captures.iter().map(|c| c.inner))
        .chain(edges)
    {
        used[v.index()] = true;
    }
    let mut names = HashSet::new();
    for (id, value) in graph.values() {
        if (used[id.index()] || value.constant.is_some()) && !names.insert(value.name.as_str()) {
            let message = "another value has the same name";
            errors.push(Error::invalid(message).at(place_of(graph, id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Capture};
    use crate::{DType, Tensor, TensorType};

    fn faults(model: &Model) -> String {
        let errors = verify(model).expect_err("the model is broken");
        let lines: Vec<String> = errors.iter().map(Error::to_string).collect();
        lines.join("\n")
    }

    fn relu() -> Model {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[2]));
        let y = g.add_op(Node::new("Relu", "r"), &[x], "y");
        g.outputs.push(y);
        Model::new(g, 17)
    }

    #[test]
    fn a_sound_model_passes() {
        verify(&relu()).unwrap();
    }

    #[test]
    fn inputs_that_are_left_out_at_the_end_do_not_count() {
        let mut m = relu();
        let x = m.graph.inputs[0];
        let z = m.graph.add_value("z", None);
        let sum = Node::new("Add", "s");
        m.graph.add_node(sum, &[Some(x), None], &[Some(z)]);
        m.graph.outputs.push(z);
        let found = faults(&m);
        assert!(
            found.contains("Add \"s\": expected 2 inputs, found 1"),
            "{found}"
        );
    }

    #[test]
    fn a_value_without_source_is_found_with_its_reader() {
        let mut m = relu();
        let lost = m.graph.add_value("lost", None);
        let z = m.graph.add_op(Node::new("Relu", "s"), &[lost], "z");
        m.graph.outputs.push(z);
        assert!(faults(&m).contains("Relu \"s\": reads value \"lost\""));
    }

    #[test]
    fn two_values_of_one_name_and_two_sources_are_found() {
        let mut m = relu();
        let y = m.graph.outputs[0];
        m.graph.value_mut(y).name = "x".into();
        m.graph.value_mut(y).constant = Some(Tensor::scalar(1f32));
        let text = faults(&m);
        assert!(text.contains("another value has the same name"), "{text}");
        assert!(text.contains("more than one place"), "{text}");
    }

    #[test]
    fn arity_opset_and_element_type_are_checked() {
        let mut m = relu();
        let x = m.graph.inputs[0];
        let z = m.graph.add_op(Node::new("Relu", "two"), &[x, x], "z");
        m.graph.outputs.push(z);
        let w = m
            .graph
            .add_op(Node::new("Q", "q").in_domain("my"), &[x], "w");
        m.graph.outputs.push(w);
        let text = faults(&m);
        assert!(text.contains("Relu \"two\": expected 1 inputs"), "{text}");
        assert!(text.contains("domain \"my\""), "{text}");

        let mut m = relu();
        let y = m.graph.outputs[0];
        m.graph.value_mut(y).ty = Some(TensorType::fixed(DType::I8, &[2]).into());
        assert!(faults(&m).contains("declared as i8"));
    }

    #[test]
    fn a_stray_capture_in_a_subgraph_is_a_fault_and_no_panic() {
        let mut m = relu();
        let mut inner = Graph::new("body");
        let v = inner.add_value("x", None);
        inner.outputs.push(v);
        for _ in 0..9 {
            m.graph.add_value("pad", None);
        }
        let far = m.graph.values().last().unwrap().0;
        inner.captures.push(Capture {
            outer: far,
            inner: v,
        });
        let node = Node::new("If", "i").with("then_branch", Attribute::Graph(Box::new(inner)));
        let mut m2 = relu();
        m2.graph.add_node(node, &[], &[]);
        assert!(faults(&m2).contains("no value of the graph"));
    }

    #[test]
    fn a_cycle_is_found() {
        let mut m = relu();
        let y = m.graph.outputs[0];
        let (id, _) = m.graph.value(y).producer().unwrap();
        m.graph.set_input(id, 0, Some(y));
        assert!(faults(&m).contains("depends on its own output"));
    }
}

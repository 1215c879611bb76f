//! Which constants of a model are parameters: those that stand where weights, biases, scales and
//! embeddings stand.

use std::collections::BTreeSet;

use edgesmith_ir::{DType, Model, Node, NodeId, Result, ValueId};

/// What a parameter is before training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// Uniform numbers of variance 2 / inputs of a sum (K. He et al., 2015), for layers before a Relu.
    He,
    /// Uniform numbers of variance 2 / (inputs + outputs) (X. Glorot and Y. Bengio, 2010).
    Glorot,
    /// Uniform numbers up to 1 / the root of the hidden units, as recurrent layers have them.
    Recurrent,
    /// Normal numbers of deviation 0.02, as BERT's tables have them (J. Devlin et al., 2019).
    Table,
    /// This number.
    Filled(f32),
}

use Start::{Filled, Glorot, He, Recurrent, Table};

const ONES: Start = Filled(1.0);
const ZEROS: Start = Filled(0.0);

/// The inputs of an operator that are parameters where they are constants, and how they begin.
static PLACES: &[(&str, &[(usize, Start)])] = &[
    ("BatchNormalization", &[(1, ONES), (2, ZEROS)]),
    ("BiasGelu", &[(1, ZEROS)]),
    ("Conv", &[(1, He), (2, ZEROS)]),
    ("ConvTranspose", &[(1, He), (2, ZEROS)]),
    ("FastGelu", &[(1, ZEROS)]),
    ("FusedConv", &[(1, He), (2, ZEROS)]),
    ("FusedGemm", &[(1, He), (2, ZEROS)]),
    ("FusedMatMul", &[(0, Glorot), (1, Glorot)]),
    ("GRU", &[(1, Recurrent), (2, Recurrent), (3, ZEROS)]),
    ("Gather", &[(0, Table)]),
    ("Gemm", &[(1, He), (2, ZEROS)]),
    ("GroupNormalization", &[(1, ONES), (2, ZEROS)]),
    ("InstanceNormalization", &[(1, ONES), (2, ZEROS)]),
    ("LSTM", &[(1, Recurrent), (2, Recurrent), (3, ZEROS)]),
    ("LayerNormalization", &[(1, ONES), (2, ZEROS)]),
    ("MatMul", &[(0, Glorot), (1, Glorot)]),
    ("PRelu", &[(1, Filled(0.25))]),
    ("QuantizeLinear", &[(0, Glorot)]),
    ("RMSNormalization", &[(1, ONES)]),
    ("RNN", &[(1, Recurrent), (2, Recurrent), (3, ZEROS)]),
    ("SimplifiedLayerNormalization", &[(1, ONES)]),
    (
        "SkipLayerNormalization",
        &[(2, ONES), (3, ZEROS), (4, ZEROS)],
    ),
];

/// Arithmetic whose constants are parameters where the other operand comes of one: a bias behind
/// a product, a scale behind a normalisation, but not the mean that is taken off an image.
static ARITHMETIC: &[(&str, Start)] =
    &[("Add", ZEROS), ("Div", ONES), ("Mul", ONES), ("Sub", ZEROS)];

/// A parameter and where it stands first.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The constant.
    pub value: ValueId,
    /// The node that reads it first.
    pub node: NodeId,
    /// Which of its inputs.
    pub input: usize,
    /// How it begins.
    pub start: Start,
}

/// The parameters of the main graph, in the order in which nodes read them. Numbers alone are
/// none: they are factors and bounds.
///
/// # Errors
/// When the graph has a cycle.
pub fn parameters(model: &Model) -> Result<Vec<ValueId>> {
    Ok(places(model)?.iter().map(|p| p.value).collect())
}

/// The parameters of the main graph, and where each stands.
///
/// # Errors
/// When the graph has a cycle.
pub fn places(model: &Model) -> Result<Vec<Place>> {
    let graph = &model.graph;
    let mut learns: BTreeSet<ValueId> = BTreeSet::new();
    let mut found = Vec::new();
    for node in graph.order()? {
        for (input, start) in places_of(model, graph.node(node), &learns) {
            if let Some(value) = graph.node(node).input(input)
                && learns.insert(value)
            {
                found.push(Place {
                    value,
                    node,
                    input,
                    start,
                });
            }
        }
        let node = graph.node(node);
        if node.inputs().iter().flatten().any(|v| learns.contains(v)) {
            learns.extend(node.outputs().iter().flatten().copied());
        }
    }
    Ok(found)
}

fn places_of(model: &Model, node: &Node, learns: &BTreeSet<ValueId>) -> Vec<(usize, Start)> {
    let graph = &model.graph;
    let constant = |input: usize| {
        let value = node.input(input).filter(|v| !graph.is_input(*v))?;
        let constant = graph.value(value).constant.as_ref();
        constant.filter(|t| t.dtype() == DType::F32 && t.count() > 0)
    };
    if let Some((_, places)) = PLACES.iter().find(|(op, _)| *op == node.op) {
        let is_weight = |p: &&(usize, Start)| constant(p.0).is_some();
        return places.iter().filter(is_weight).copied().collect();
    }
    let arithmetic = ARITHMETIC.iter().find(|(op, _)| *op == node.op);
    let Some((_, start)) = arithmetic.filter(|_| node.domain.is_empty()) else {
        return Vec::new();
    };
    let follows = [0, 1]
        .iter()
        .any(|i| node.input(*i).is_some_and(|v| learns.contains(&v)));
    if !follows {
        return Vec::new();
    }
    let place = |i: usize| {
        let t = constant(i).filter(|t| t.count() > 1)?;
        // A matrix that is added is a table of places, and no bias.
        let rows = t.dims().iter().filter(|&&n| n > 1).count();
        Some((
            i,
            if rows > 1 && *start == ZEROS {
                Table
            } else {
                *start
            },
        ))
    };
    [0, 1].into_iter().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text::parse;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        let model = parse(text).unwrap();
        let found = parameters(&model).unwrap();
        found
            .iter()
            .map(|&v| model.graph.value(v).name.clone())
            .collect()
    }

    #[test]
    fn weights_and_biases_are_parameters_and_means_and_factors_are_not() {
        let text = "opset 17 graph g(x: f32[1,2]) -> (y) {
            mean: f32[2] = {1,2} w: f32[2,2] = {1,2,3,4} b: f32[2] = {1,2} two: f32[] = {2}
            c = Sub(x, mean) p = MatMul(c, w) s = Add(p, b) y = Mul(s, two) }";
        assert_eq!(names(text), ["w", "b"]);
    }

    #[test]
    fn a_tied_weight_is_one_parameter() {
        let text = "opset 17 graph g(x: f32[1,2]) -> (y) {
            w: f32[2,2] = {1,2,3,4} p = MatMul(x, w) y = MatMul(p, w) }";
        assert_eq!(names(text), ["w"]);
    }
}

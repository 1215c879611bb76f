//! Which constants of a model are parameters: those that stand where weights, biases, scales and
//! embeddings stand.

use std::collections::BTreeSet;

use edgesmith_ir::{DType, Model, Node, Result, ValueId};

/// The inputs of an operator that are parameters where they are constants.
static PLACES: &[(&str, &[usize])] = &[
    ("BatchNormalization", &[1, 2]),
    ("BiasGelu", &[1]),
    ("Conv", &[1, 2]),
    ("ConvTranspose", &[1, 2]),
    ("FastGelu", &[1]),
    ("FusedConv", &[1, 2]),
    ("FusedGemm", &[1, 2]),
    ("FusedMatMul", &[0, 1]),
    ("GRU", &[1, 2, 3]),
    ("Gather", &[0]),
    ("Gemm", &[1, 2]),
    ("GroupNormalization", &[1, 2]),
    ("InstanceNormalization", &[1, 2]),
    ("LSTM", &[1, 2, 3]),
    ("LayerNormalization", &[1, 2]),
    ("MatMul", &[0, 1]),
    ("PRelu", &[1]),
    ("QuantizeLinear", &[0]),
    ("RMSNormalization", &[1]),
    ("RNN", &[1, 2, 3]),
    ("SimplifiedLayerNormalization", &[1]),
    ("SkipLayerNormalization", &[2, 3, 4]),
];

/// Arithmetic whose constants are parameters where the other operand comes of one: a bias behind
/// a product, a scale behind a normalisation, but not the mean that is taken off an image.
static ARITHMETIC: &[&str] = &["Add", "Div", "Mul", "Sub"];

/// The parameters of the main graph, in the order in which nodes read them. Numbers alone are
/// none: they are factors and bounds.
///
/// # Errors
/// When the graph has a cycle.
pub fn parameters(model: &Model) -> Result<Vec<ValueId>> {
    let graph = &model.graph;
    let mut learns: BTreeSet<ValueId> = BTreeSet::new();
    let mut found = Vec::new();
    for id in graph.order()? {
        let node = graph.node(id);
        for v in places(model, node, &learns) {
            if learns.insert(v) {
                found.push(v);
            }
        }
        if node.inputs().iter().flatten().any(|v| learns.contains(v)) {
            learns.extend(node.outputs().iter().flatten().copied());
        }
    }
    Ok(found)
}

fn places(model: &Model, node: &Node, learns: &BTreeSet<ValueId>) -> Vec<ValueId> {
    let graph = &model.graph;
    let is_weight = |v: &ValueId| {
        let constant = graph.value(*v).constant.as_ref();
        let is_input = graph.is_input(*v);
        constant.is_some_and(|t| t.dtype() == DType::F32 && t.count() > 0) && !is_input
    };
    let at = |i: &usize| node.input(*i).filter(is_weight);
    if let Some((_, places)) = PLACES.iter().find(|(op, _)| *op == node.op) {
        return places.iter().filter_map(at).collect();
    }
    if !node.domain.is_empty() || !ARITHMETIC.contains(&node.op.as_str()) {
        return Vec::new();
    }
    let operands = [0, 1].map(|i| node.input(i));
    let follows = operands.iter().flatten().any(|v| learns.contains(v));
    let several = |v: &ValueId| {
        let constant = graph.value(*v).constant.as_ref();
        constant.is_some_and(|t| t.count() > 1)
    };
    let both = [at(&0), at(&1)].into_iter().flatten().filter(several);
    if follows { both.collect() } else { Vec::new() }
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

//! Which constants of a model are parameters: those that stand where weights, biases, scales and
//! embeddings stand.

use std::collections::BTreeSet;

use edgesmith_ir::{DType, Model, Node, NodeId, Result, Tensor, ValueId};

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

/// An operator's domain, empty for any, its name, and its inputs that are parameters.
type Row = (&'static str, &'static str, &'static [(usize, Start)]);

/// The inputs of an operator that are parameters where they are constants, and how they begin.
static PLACES: &[Row] = &[
    ("", "BatchNormalization", &[(1, ONES), (2, ZEROS)]),
    ("", "BiasGelu", &[(1, ZEROS)]),
    ("", "Conv", &[(1, He), (2, ZEROS)]),
    ("", "ConvTranspose", &[(1, He), (2, ZEROS)]),
    (
        "",
        "Einsum",
        &[(0, Glorot), (1, Glorot), (2, Glorot), (3, Glorot)],
    ),
    ("", "FastGelu", &[(1, ZEROS)]),
    ("", "FusedConv", &[(1, He), (2, ZEROS)]),
    ("", "FusedGemm", &[(1, He), (2, ZEROS)]),
    ("", "FusedMatMul", &[(0, Glorot), (1, Glorot)]),
    ("", "GRU", &[(1, Recurrent), (2, Recurrent), (3, ZEROS)]),
    ("", "Gather", &[(0, Table)]),
    ("", "Gemm", &[(1, He), (2, ZEROS)]),
    ("", "GroupNormalization", &[(1, ONES), (2, ZEROS)]),
    ("", "InstanceNormalization", &[(1, ONES), (2, ZEROS)]),
    ("", "LSTM", &[(1, Recurrent), (2, Recurrent), (3, ZEROS)]),
    ("", "LayerNormalization", &[(1, ONES), (2, ZEROS)]),
    ("", "MatMul", &[(0, Glorot), (1, Glorot)]),
    ("", "PRelu", &[(1, Filled(0.25))]),
    ("", "QuantizeLinear", &[(0, Glorot)]),
    ("", "RMSNormalization", &[(1, ONES)]),
    ("", "RNN", &[(1, Recurrent), (2, Recurrent), (3, ZEROS)]),
    ("", "SimplifiedLayerNormalization", &[(1, ONES)]),
    ("com.microsoft", "Attention", &[(1, Glorot), (2, ZEROS)]),
    (
        "com.microsoft",
        "EmbedLayerNormalization",
        &[(2, Table), (3, Table), (4, Table), (5, ONES), (6, ZEROS)],
    ),
    ("com.microsoft", "MultiHeadAttention", &[(3, ZEROS)]),
    (
        "com.microsoft",
        "SkipLayerNormalization",
        &[(2, ONES), (3, ZEROS), (4, ZEROS)],
    ),
    (
        "com.microsoft",
        "SkipSimplifiedLayerNormalization",
        &[(2, ONES), (3, ZEROS)],
    ),
    (
        "com.microsoft",
        "TransposeMatMul",
        &[(0, Glorot), (1, Glorot)],
    ),
];

/// Operators that end a linear layer: one number that is added to what they make is a bias too.
static LINEAR: &[&str] = &[
    "Conv",
    "ConvTranspose",
    "Einsum",
    "FusedMatMul",
    "Gemm",
    "MatMul",
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

impl Place {
    /// Whether weight decay is for what stands there: for weights and tables, not for biases, scales
    /// and slopes.
    pub fn decays(&self, rank: usize) -> bool {
        match self.start {
            Filled(_) => false,
            // What is quantised in the graph may be a bias.
            Glorot => rank > 1,
            He | Recurrent | Table => true,
        }
    }
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
    let mut places = PLACES.iter();
    let here = places
        .find(|(domain, op, _)| *op == node.op && (domain.is_empty() || *domain == node.domain));
    if let Some((_, _, places)) = here {
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
    // A bias of one number has an axis; a number without one is a factor or a bound.
    let is_bias = |i: usize, t: &Tensor| {
        let maker = node
            .input(1 - i)
            .and_then(|v| Some(graph.node(graph.value(v).producer()?.0)));
        *start == ZEROS && t.rank() > 0 && maker.is_some_and(|m| LINEAR.contains(&m.op.as_str()))
    };
    let place = |i: usize| {
        let t = constant(i).filter(|t| t.count() > 1 || is_bias(i, t))?;
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

    /// The model of a text in which `fill` stands for a constant of ones.
    fn model(text: &str) -> Model {
        let mut out = String::new();
        for (i, part) in text.split("] = fill").enumerate() {
            if i > 0 {
                let dims = out.rsplit('[').next().unwrap();
                let count: usize = dims
                    .split(',')
                    .map(|d| d.parse::<usize>().unwrap())
                    .product();
                let ones = vec!["1"; count].join(",");
                out.push_str(&format!("] = {{{ones}}}"));
            }
            out.push_str(part);
        }
        parse(&out).unwrap()
    }

    fn names(text: &str) -> Vec<String> {
        let model = model(text);
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
    fn a_bias_of_one_number_behind_a_product_is_a_parameter_and_a_bound_is_not() {
        let text = "opset 17 graph g(x: f32[1,2]) -> (y) {
            w: f32[2,1] = {1,2} b: f32[1] = {1} least: f32[1] = {0.001} s: f32[] = {3}
            p = MatMul(x, w) a = Add(b, p) q = Sqrt(a) r = Add(q, least) y = Add(r, s) }";
        assert_eq!(names(text), ["w", "b"]);
    }

    #[test]
    fn weights_of_fused_operators_and_of_einsum_are_parameters() {
        let text = "opset 17 opset \"com.microsoft\" 1 graph g(i: i32[1,2], x: f32[1,2,4]) -> (y) {
            words: f32[3,4] = fill rows: f32[2,4] = fill g: f32[4] = fill b: f32[4] = fill
            w: f32[4,12] = fill wb: f32[12] = fill s: f32[4] = fill sb: f32[4] = fill
            t: f32[4,3] = fill mb: f32[12] = fill
            e = com.microsoft.EmbedLayerNormalization(i, _, words, rows, _, g, b)
            a = com.microsoft.Attention(e, w, wb) {num_heads=2}
            n = com.microsoft.SkipSimplifiedLayerNormalization(a, e, s, sb)
            m = com.microsoft.MultiHeadAttention(n, n, n, mb) {num_heads=2}
            y = Einsum(m, t) {equation=\"bsd,dc->bsc\"} }";
        let all = ["words", "rows", "g", "b", "w", "wb", "s", "sb", "mb", "t"];
        assert_eq!(names(text), all);
    }

    #[test]
    fn weights_decay_and_biases_scales_and_slopes_do_not_whatever_their_axes() {
        let text = "opset 17 graph g(x: f32[3,1,2], z: f32[1,2,4,4]) -> (y, c) {
            w: f32[1,8,2] = fill r: f32[1,8,2] = fill b: f32[1,16] = fill
            k: f32[3,2,1,1] = fill kb: f32[1,3,1,1] = fill ks: f32[1,3,1,1] = fill
            slope: f32[3,1,1] = fill
            y = LSTM(x, w, r, b) {hidden_size=2}
            p = Conv(z, k) q = Add(p, kb) m = Mul(q, ks) c = PRelu(m, slope) }";
        let model = model(text);
        let of = |p: &Place| {
            let value = model.graph.value(p.value);
            let rank = value.constant.as_ref().unwrap().rank();
            (value.name.clone(), p.decays(rank))
        };
        let found: Vec<(String, bool)> = places(&model).unwrap().iter().map(of).collect();
        let decaying: Vec<&str> = found
            .iter()
            .filter(|(_, d)| *d)
            .map(|(n, _)| n.as_str())
            .collect();
        assert_eq!(found.len(), 7);
        assert_eq!(decaying, ["w", "r", "k"]);
    }

    #[test]
    fn a_tied_weight_is_one_parameter() {
        let text = "opset 17 graph g(x: f32[1,2]) -> (y) {
            w: f32[2,2] = {1,2,3,4} p = MatMul(x, w) y = MatMul(p, w) }";
        assert_eq!(names(text), ["w"]);
    }
}

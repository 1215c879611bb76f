//! Random models that are sound, and random inputs for any model.

use edgesmith_ir::analysis::concrete_inputs;
use edgesmith_ir::{Attribute, DType, Dim, Graph, Model, Node, Shape, Tensor, TensorType, ValueId};

use crate::rng::Rng;

mod control;
mod examples;
mod layers;
mod movement;
mod pointwise;
mod quantised;

/// The length of the axis called `batch` while a graph grows.
const BATCH: usize = 2;

/// A value of the growing graph: f32 of known shape.
#[derive(Debug, Clone)]
struct Known {
    id: ValueId,
    dims: Vec<usize>,
    /// The axis that the graph calls `batch`; its length is known only to a run.
    batch: Option<usize>,
    /// False where rounding may differ between equal graphs: such a value is not quantised, since
    /// a difference in its last bit would grow to a whole step.
    exact: bool,
}

impl Known {
    /// The same value with another id.
    fn with(&self, id: ValueId) -> Self {
        Self { id, ..self.clone() }
    }

    fn same_shape(&self, other: &Self) -> bool {
        self.dims == other.dims && self.batch == other.batch
    }

    /// The axes whose lengths the graph says.
    fn fixed(&self) -> Vec<usize> {
        let axes = 0..self.dims.len();
        axes.filter(|&a| Some(a) != self.batch).collect()
    }
}

/// What grows the graph: an operator (or a few) on values that are there. `None` where it does not
/// fit the value that was drawn.
type Grow = fn(&mut Builder) -> Option<Known>;

/// Every way to grow.
const WAYS: &[Grow] = &[
    pointwise::unary,
    pointwise::unary,
    pointwise::clip,
    pointwise::with_constant,
    pointwise::with_constant,
    pointwise::with_value,
    pointwise::neutral,
    pointwise::logic,
    pointwise::casts,
    pointwise::softmax,
    pointwise::stretched,
    quantised::pair,
    quantised::pair,
    quantised::around_mover,
    quantised::by_axis,
    layers::conv,
    layers::conv,
    layers::conv_transpose,
    layers::padded_conv,
    layers::norm,
    layers::pool,
    layers::gemm,
    layers::matmul,
    layers::scaled,
    movement::reshape,
    movement::reshape,
    movement::reshape_to_own_shape,
    movement::flatten,
    movement::squeeze,
    movement::transpose,
    movement::transpose,
    movement::concat,
    movement::slice,
    movement::pad,
    movement::expand,
    movement::split,
    movement::gather,
    movement::again,
    movement::dropout,
    control::choose,
    control::repeat,
    examples::operator,
];

/// A graph under construction.
struct Builder {
    rng: Rng,
    graph: Graph,
    opset: i64,
    values: Vec<Known>,
    /// Values of other types, or of shapes that only a run knows, that are outputs in the end.
    others: Vec<ValueId>,
    names: usize,
}

impl Builder {
    /// A value that is there, young ones more often.
    fn draw(&mut self) -> Known {
        let n = self.values.len();
        let back = self.rng.below(n).min(self.rng.below(n));
        self.values[n - 1 - back].clone()
    }

    /// A constant of `low..high`.
    fn weight(&mut self, dims: &[usize], low: f32, high: f32) -> ValueId {
        let data = self.rng.floats(dims, low, high);
        self.constant(data)
    }

    /// A constant: mostly an initializer, sometimes what a Constant node makes.
    fn constant(&mut self, data: Tensor) -> ValueId {
        self.names += 1;
        let name = format!("c{}", self.names);
        if self.rng.one_in(8) {
            let node = Node::new("Constant", "").with("value", Attribute::Tensor(data));
            return self.op(node, &[]);
        }
        self.graph.add_constant(&name, data)
    }

    /// A constant vector of integers.
    fn integers(&mut self, numbers: &[i64]) -> ValueId {
        self.constant(Tensor::vector(numbers.to_vec()))
    }

    /// A node with one output.
    fn op(&mut self, node: Node, inputs: &[ValueId]) -> ValueId {
        self.outs(node, inputs, 1)[0]
    }

    /// A node with so many outputs.
    fn outs(&mut self, mut node: Node, inputs: &[ValueId], outputs: usize) -> Vec<ValueId> {
        self.names += 1;
        let name = format!("{}_{}", node.op.to_lowercase(), self.names);
        let made: Vec<ValueId> = (0..outputs)
            .map(|o| match o {
                0 => self.graph.add_value(&name, None),
                _ => self.graph.add_value(&format!("{name}_{o}"), None),
            })
            .collect();
        node.name = name;
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        let outputs: Vec<Option<ValueId>> = made.iter().copied().map(Some).collect();
        self.graph.add_node(node, &inputs, &outputs);
        made
    }

    /// An operator on one value that keeps its shape.
    fn keeping(&mut self, node: Node, x: &Known, more: &[ValueId]) -> Known {
        let inputs: Vec<ValueId> = std::iter::once(x.id).chain(more.iter().copied()).collect();
        x.with(self.op(node, &inputs))
    }
}

/// A sound model with one or two inputs of f32, mostly with a batch axis whose length is left to
/// the run, and a condition: elementwise operators, convolutions, normalizations, pools, products,
/// chains of reshapes, transposes, slices, pads and casts, computed shapes, pairs of quantise and
/// dequantise, If, Loop, and the examples of the operator list. Some values are outputs, some are
/// read by nobody, some by several.
pub fn graph(seed: u64) -> Model {
    let mut rng = Rng::new(seed);
    let opset = *rng.pick(&[13, 17, 21, 24]);
    let mut b = Builder {
        graph: Graph::new("random"),
        opset,
        values: Vec::new(),
        others: Vec::new(),
        names: 0,
        rng,
    };
    add_inputs(&mut b);
    let inputs = b.values.len();
    let wanted = inputs + b.rng.between(3, 16);
    while b.values.len() < wanted {
        let grow = *b.rng.pick(WAYS);
        if let Some(value) = grow(&mut b) {
            let small = value.dims.iter().product::<usize>() <= 4096;
            if small {
                b.values.push(value);
            }
        }
    }
    let last = b.values.len() - 1;
    b.graph.outputs.push(b.values[last].id);
    for _ in 0..b.rng.below(3) {
        let one = b.rng.between(inputs, last);
        let id = b.values[one].id;
        b.others.push(id);
    }
    for id in std::mem::take(&mut b.others) {
        if !b.graph.is_output(id) && b.graph.value(id).producer().is_some() {
            b.graph.outputs.push(id);
        }
    }
    Model::new(b.graph, opset)
}

fn add_inputs(b: &mut Builder) {
    let symbolic = !b.rng.one_in(4);
    for i in 0..b.rng.between(1, 2) {
        let first = if symbolic { BATCH } else { b.rng.between(1, 2) };
        let mut dims = vec![first, b.rng.between(1, 5)];
        match b.rng.below(4) {
            0 => {}
            1 => dims.push(b.rng.between(1, 6)),
            _ => dims.extend([b.rng.between(3, 7), b.rng.between(3, 7)]),
        }
        let mut shape = Shape::fixed(&dims);
        if symbolic {
            shape.0[0] = Dim::symbol("batch");
        }
        let ty = TensorType::new(DType::F32, shape);
        let id = b.graph.add_input(&format!("x{i}"), ty);
        b.values.push(Known {
            id,
            dims,
            batch: symbolic.then_some(0),
            exact: true,
        });
    }
    if b.rng.one_in(3) {
        b.graph
            .add_input("flag", TensorType::fixed(DType::Bool, &[]));
    }
}

/// Random tensors for the inputs of a model, by name; named dimensions are 1.
///
/// # Panics
/// When an input has no shape, or a type that [`Rng::tensor`] does not make.
pub fn inputs(model: &Model, seed: u64) -> Vec<(String, Tensor)> {
    inputs_with(model, seed, &[])
}

/// As [`inputs`], with lengths for named dimensions.
///
/// # Panics
/// As [`inputs`].
pub fn inputs_with(model: &Model, seed: u64, dims: &[(&str, usize)]) -> Vec<(String, Tensor)> {
    let mut rng = Rng::new(seed ^ 0x5EED);
    let types = concrete_inputs(model, dims);
    assert_eq!(types.len(), model.graph.inputs.len(), "inputs with shapes");
    types
        .iter()
        .map(|(v, ty)| {
            let name = model.graph.value(*v).name.clone();
            let tensor = ty.tensor().and_then(|t| {
                let dims = t.shape.as_ref()?.known()?;
                rng.tensor(t.dtype, &dims)
            });
            match tensor {
                Some(tensor) => (name, tensor),
                None => panic!("no random tensors of the type of input \"{name}\": {ty}"),
            }
        })
        .collect()
}

fn int(i: usize) -> Attribute {
    Attribute::Int(i as i64)
}

fn ints(list: &[usize]) -> Attribute {
    Attribute::Ints(list.iter().map(|&i| i as i64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::check;
    use edgesmith_ir::eval::evaluate;
    use edgesmith_ir::infer::infer;

    #[test]
    fn models_are_sound_and_run_for_any_batch() {
        for seed in 0..150 {
            let model = graph(seed);
            check(&model);
            for batch in [1, 2, 3] {
                let given = inputs_with(&model, seed, &[("batch", batch)]);
                let given: Vec<_> = given.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
                let types = concrete_inputs(&model, &[("batch", batch)]);
                let types = infer(&model, &types).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                let outputs = evaluate(&model, &given);
                let outputs = outputs.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                for (&v, t) in model.graph.outputs.iter().zip(&outputs) {
                    let known = types.tensor(v).map(|t| (t.dtype, t.shape.clone()));
                    if let Some((dtype, shape)) = known {
                        let fits = shape.is_none_or(|s| s.unify(&Shape::fixed(t.dims())).is_some());
                        assert!(dtype == t.dtype() && fits, "seed {seed}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_model() {
        assert_eq!(graph(5).graph, graph(5).graph);
    }

    #[test]
    fn most_operators_with_examples_are_drawn() {
        let mut ops = std::collections::BTreeSet::new();
        for seed in 0..4000 {
            ops.extend(graph(seed).graph.nodes().map(|(_, n)| n.op.clone()));
        }
        assert!(ops.len() > 120, "{}", ops.len());
    }
}

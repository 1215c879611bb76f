//! Random models that are sound, and random inputs for any model.

use edgesmith_ir::analysis::concrete_inputs;
use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Tensor, TensorType, ValueId};

use crate::rng::Rng;

mod layers;
mod movement;
mod pointwise;

/// A value of the growing graph: f32 of known shape.
#[derive(Debug, Clone)]
struct Known {
    id: ValueId,
    dims: Vec<usize>,
    /// False where rounding may differ between equal graphs: such a value is not quantised, since
    /// a difference in its last bit would grow to a whole step.
    exact: bool,
}

/// What grows the graph: an operator (or a few) on values that are there. `None` where it does not
/// fit the value that was drawn.
type Grow = fn(&mut Builder) -> Option<Known>;

/// Every way to grow.
const WAYS: &[Grow] = &[
    pointwise::unary,
    pointwise::clip,
    pointwise::with_constant,
    pointwise::with_value,
    pointwise::softmax,
    pointwise::quantised,
    layers::conv,
    layers::conv,
    layers::padded_conv,
    layers::norm,
    layers::pool,
    layers::gemm,
    layers::matmul,
    movement::reshape,
    movement::reshape_to_own_shape,
    movement::transpose,
    movement::concat,
    movement::again,
];

/// A graph under construction.
struct Builder {
    rng: Rng,
    graph: Graph,
    values: Vec<Known>,
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

    fn constant(&mut self, data: Tensor) -> ValueId {
        let name = self.graph.fresh_name("c");
        self.graph.add_constant(&name, data)
    }

    /// A node with one output.
    fn op(&mut self, mut node: Node, inputs: &[ValueId]) -> ValueId {
        let name = format!("{}_{}", node.op.to_lowercase(), self.graph.node_slots());
        node.name.clone_from(&name);
        self.graph.add_op(node, inputs, &name)
    }

    /// An operator on one value that keeps its shape.
    fn keeping(&mut self, node: Node, x: &Known, more: &[ValueId]) -> Known {
        let inputs: Vec<ValueId> = std::iter::once(x.id).chain(more.iter().copied()).collect();
        Known {
            id: self.op(node, &inputs),
            ..x.clone()
        }
    }
}

/// A sound model of opset 17 with one or two inputs: elementwise operators, convolutions,
/// normalizations, pools, products, reshapes, transposes, concatenations, softmax and pairs of
/// quantise and dequantise, in shapes that fit. Some values are outputs, some are read by nobody.
pub fn graph(seed: u64) -> Model {
    let mut rng = Rng::new(seed);
    let mut graph = Graph::new("random");
    let mut values = Vec::new();
    for i in 0..rng.between(1, 2) {
        let mut dims = vec![rng.between(1, 2), rng.between(1, 5)];
        if !rng.one_in(3) {
            dims.extend([rng.between(3, 8), rng.between(3, 8)]);
        }
        let id = graph.add_input(&format!("x{i}"), TensorType::fixed(DType::F32, &dims));
        values.push(Known {
            id,
            dims,
            exact: true,
        });
    }
    let mut b = Builder { rng, graph, values };
    let inputs = b.values.len();
    let wanted = inputs + b.rng.between(4, 20);
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
    let second = b.rng.between(inputs, last);
    if second != last {
        b.graph.outputs.push(b.values[second].id);
    }
    Model::new(b.graph, 17)
}

/// Random tensors for the inputs of a model, by name; named dimensions are 1.
///
/// # Panics
/// When an input has no shape, or a type that [`Rng::tensor`] does not make.
pub fn inputs(model: &Model, seed: u64) -> Vec<(String, Tensor)> {
    let mut rng = Rng::new(seed ^ 0x5EED);
    let types = concrete_inputs(model, &[]);
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
    fn models_are_sound_and_their_values_are_shaped_as_planned() {
        for seed in 0..60 {
            let model = graph(seed);
            check(&model);
            let types = infer(&model, &[]).unwrap();
            let given = inputs(&model, seed);
            let given: Vec<_> = given.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
            let outputs = evaluate(&model, &given).unwrap();
            for (&v, t) in model.graph.outputs.iter().zip(&outputs) {
                assert_eq!(types.tensor(v), Some(&t.ty()), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_model() {
        assert_eq!(graph(5).graph, graph(5).graph);
    }
}

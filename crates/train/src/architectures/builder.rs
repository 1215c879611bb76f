//! Layers with random weights, one behind another.

use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Result, Tensor, Type, ValueId};

use super::Spec;
use crate::draft::batched;
use crate::random::Random;

/// The opset of new networks.
const OPSET: i64 = 17;

pub(super) struct Builder {
    graph: Graph,
    random: Random,
    layers: usize,
}

impl Builder {
    /// A network with the input of `spec`.
    pub fn new(name: &str, spec: &Spec) -> (Self, ValueId) {
        let mut graph = Graph::new(name);
        let ty = batched(DType::F32, &spec.dims);
        let x = graph.add_input(&spec.input, Type::from(ty));
        let random = Random::of(&[spec.seed]);
        let builder = Self {
            graph,
            random,
            layers: 0,
        };
        (builder, x)
    }

    /// Uniform numbers of variance 2 / fan (K. He et al., 2015), for layers before a Relu.
    fn weight(&mut self, name: &str, dims: &[usize], fan: usize) -> Result<ValueId> {
        let bound = (6.0 / fan.max(1) as f64).sqrt();
        let count = edgesmith_ir::checked_count(dims)?;
        let draw = |_| ((2.0 * self.random.unit() - 1.0) * bound) as f32;
        let data: Vec<f32> = (0..count).map(draw).collect();
        Ok(self.graph.add_constant(name, Tensor::from_vec(dims, data)?))
    }

    fn filled(&mut self, name: &str, count: usize, x: f32) -> Result<ValueId> {
        let data = Tensor::from_vec(&[count], vec![x; count])?;
        Ok(self.graph.add_constant(name, data))
    }

    fn next(&mut self, kind: &str) -> String {
        self.layers += 1;
        format!("{kind}{}", self.layers)
    }

    /// An operator without parameters.
    pub fn op(&mut self, node: Node, inputs: &[ValueId]) -> ValueId {
        let name = self.next(&node.op.to_lowercase());
        let mut node = node;
        node.name.clone_from(&name);
        self.graph.add_op(node, inputs, &name)
    }

    pub fn relu(&mut self, x: ValueId) -> ValueId {
        self.op(Node::new("Relu", ""), &[x])
    }

    pub fn flatten(&mut self, x: ValueId) -> ValueId {
        self.op(Node::new("Flatten", ""), &[x])
    }

    /// The greatest of each square of `size` by `size` pixels.
    pub fn max_pool(&mut self, x: ValueId, size: i64) -> ValueId {
        let node = Node::new("MaxPool", "")
            .with("kernel_shape", Attribute::Ints(vec![size; 2]))
            .with("strides", Attribute::Ints(vec![size; 2]));
        self.op(node, &[x])
    }

    /// A layer of `to` sums of `from` numbers.
    pub fn linear(&mut self, x: ValueId, from: usize, to: usize) -> Result<ValueId> {
        let name = self.next("fc");
        let w = self.weight(&format!("{name}.weight"), &[to, from], from)?;
        let b = self.filled(&format!("{name}.bias"), to, 0.0)?;
        let node = Node::new("Gemm", &name).with("transB", Attribute::Int(1));
        Ok(self.graph.add_op(node, &[x, w, b], &name))
    }

    /// A convolution of `size` by `size` pixels that keeps lengths where `stride` is 1.
    pub fn conv(
        &mut self,
        x: ValueId,
        [from, to]: [usize; 2],
        size: usize,
        stride: i64,
    ) -> Result<ValueId> {
        let name = self.next("conv");
        let dims = [to, from, size, size];
        let w = self.weight(&format!("{name}.weight"), &dims, from * size * size)?;
        let b = self.filled(&format!("{name}.bias"), to, 0.0)?;
        let pad = (size / 2) as i64;
        let node = Node::new("Conv", &name)
            .with("pads", Attribute::Ints(vec![pad; 4]))
            .with("strides", Attribute::Ints(vec![stride; 2]));
        Ok(self.graph.add_op(node, &[x, w, b], &name))
    }

    /// The network with its output.
    pub fn finish(mut self, output: ValueId) -> Model {
        self.graph.value_mut(output).name = "logits".into();
        self.graph.outputs = vec![output];
        Model::new(self.graph, OPSET)
    }
}

//! Layers with random weights, one behind another.

use edgesmith_ir::random::Random;
use edgesmith_ir::types::Type;
use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Result, Tensor, ValueId};

use super::Spec;
use crate::draft::batched;

/// The opset of new networks.
const OPSET: i64 = 17;

/// A convolution that keeps lengths where its stride is 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conv {
    /// Channels in and out.
    pub channels: [usize; 2],
    /// Pixels of its window, height and width.
    pub size: [usize; 2],
    /// Pixels from window to window, both ways.
    pub stride: i64,
    /// Groups of channels.
    pub groups: usize,
}

impl Conv {
    /// A window of `size` by `size` over all channels.
    pub fn square([from, to]: [usize; 2], size: usize, stride: i64) -> Self {
        Self {
            channels: [from, to],
            size: [size; 2],
            stride,
            groups: 1,
        }
    }

    /// A window of 3x3 for each channel.
    pub fn depthwise(channels: usize, stride: i64) -> Self {
        Self {
            groups: channels,
            ..Self::square([channels; 2], 3, stride)
        }
    }
}

pub(super) struct Builder {
    graph: Graph,
    random: Random,
    layers: usize,
}

impl Builder {
    /// A network with the input of `spec`, of numbers.
    pub fn new(name: &str, spec: &Spec) -> (Self, ValueId) {
        let mut builder = Self {
            graph: Graph::new(name),
            random: Random::of(&[spec.seed]),
            layers: 0,
        };
        let x = builder.input(&spec.input, DType::F32, &spec.dims);
        (builder, x)
    }

    /// A network without inputs.
    pub fn empty(name: &str, seed: u64) -> Self {
        Self {
            graph: Graph::new(name),
            random: Random::of(&[seed]),
            layers: 0,
        }
    }

    /// An input of these lengths behind the batch.
    pub fn input(&mut self, name: &str, dtype: DType, dims: &[usize]) -> ValueId {
        self.graph.add_input(name, Type::from(batched(dtype, dims)))
    }

    fn drawn(
        &mut self,
        name: &str,
        dims: &[usize],
        mut draw: impl FnMut(&mut Random) -> f64,
    ) -> Result<ValueId> {
        let count = edgesmith_ir::checked_count(dims)?;
        let data: Vec<f32> = (0..count).map(|_| draw(&mut self.random) as f32).collect();
        Ok(self.graph.add_constant(name, Tensor::from_vec(dims, data)?))
    }

    /// Uniform numbers of variance 2 / fan (K. He et al., 2015), for layers before a Relu.
    fn weight(&mut self, name: &str, dims: &[usize], fan: usize) -> Result<ValueId> {
        let bound = (6.0 / fan.max(1) as f64).sqrt();
        self.drawn(name, dims, |r| (2.0 * r.unit() - 1.0) * bound)
    }

    /// Normal numbers of deviation 0.02, as BERT's tables have them (J. Devlin et al., 2019).
    pub fn table(&mut self, name: &str, dims: &[usize]) -> Result<ValueId> {
        self.drawn(name, dims, |r| r.normal() * 0.02)
    }

    fn filled(&mut self, name: &str, count: usize, x: f32) -> Result<ValueId> {
        let data = Tensor::from_vec(&[count], vec![x; count])?;
        Ok(self.graph.add_constant(name, data))
    }

    /// A number.
    pub fn number(&mut self, name: &str, x: f32) -> ValueId {
        let name = self.graph.fresh_name(name);
        self.graph.add_constant(&name, Tensor::scalar(x))
    }

    /// A list of whole numbers.
    pub fn list(&mut self, name: &str, list: &[i64]) -> ValueId {
        let name = self.graph.fresh_name(name);
        self.graph
            .add_constant(&name, Tensor::vector(list.to_vec()))
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

    pub fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op(Node::new("Add", ""), &[a, b])
    }

    pub fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op(Node::new("Mul", ""), &[a, b])
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

    /// The mean of each channel, [batch, channels].
    pub fn mean_of_pixels(&mut self, x: ValueId) -> ValueId {
        let mean = self.op(Node::new("GlobalAveragePool", ""), &[x]);
        self.flatten(mean)
    }

    /// A layer of `to` sums of `from` numbers.
    pub fn linear(&mut self, x: ValueId, from: usize, to: usize) -> Result<ValueId> {
        let name = self.next("fc");
        let w = self.weight(&format!("{name}.weight"), &[to, from], from)?;
        let b = self.filled(&format!("{name}.bias"), to, 0.0)?;
        let node = Node::new("Gemm", &name).with("transB", Attribute::Int(1));
        Ok(self.graph.add_op(node, &[x, w, b], &name))
    }

    /// A layer along the last axis of any number of axes, with uniform numbers of variance
    /// 2 / (from + to) (X. Glorot and Y. Bengio, 2010).
    pub fn dense(&mut self, name: &str, x: ValueId, [from, to]: [usize; 2]) -> Result<ValueId> {
        let bound = (6.0 / (from + to) as f64).sqrt();
        let w = self.drawn(&format!("{name}.weight"), &[from, to], |r| {
            (2.0 * r.unit() - 1.0) * bound
        })?;
        let b = self.filled(&format!("{name}.bias"), to, 0.0)?;
        let product = Node::new("MatMul", &format!("{name}.product"));
        let y = self
            .graph
            .add_op(product, &[x, w], &format!("{name}.product"));
        let sum = Node::new("Add", name);
        Ok(self.graph.add_op(sum, &[y, b], name))
    }

    /// A normalisation of the last axis, with a scale and a bias.
    pub fn layer_norm(&mut self, name: &str, x: ValueId, width: usize) -> Result<ValueId> {
        let scale = self.filled(&format!("{name}.scale"), width, 1.0)?;
        let bias = self.filled(&format!("{name}.bias"), width, 0.0)?;
        let node = Node::new("LayerNormalization", name)
            .with("axis", Attribute::Int(-1))
            .with("epsilon", Attribute::Float(1e-5));
        Ok(self.graph.add_op(node, &[x, scale, bias], name))
    }

    fn conv_node(&mut self, name: &str, c: Conv) -> Result<(Node, ValueId)> {
        let ([from, to], [height, width]) = (c.channels, c.size);
        let dims = [to, from / c.groups, height, width];
        let w = self.weight(&format!("{name}.weight"), &dims, dims[1..].iter().product())?;
        // An even window has one pixel more behind than before.
        let before = c.size.map(|s| (s as i64 - 1) / 2);
        let behind = c.size.map(|s| s as i64 / 2);
        let node = Node::new("Conv", name)
            .with("group", Attribute::Int(c.groups as i64))
            .with("pads", Attribute::Ints([before, behind].concat()))
            .with("strides", Attribute::Ints(vec![c.stride; 2]));
        Ok((node, w))
    }

    /// A convolution with a bias.
    pub fn conv(&mut self, x: ValueId, c: Conv) -> Result<ValueId> {
        let name = self.next("conv");
        let (node, w) = self.conv_node(&name, c)?;
        let b = self.filled(&format!("{name}.bias"), c.channels[1], 0.0)?;
        Ok(self.graph.add_op(node, &[x, w, b], &name))
    }

    /// A convolution and a batch normalisation (S. Ioffe and C. Szegedy, 2015).
    pub fn conv_norm(&mut self, x: ValueId, c: Conv) -> Result<ValueId> {
        let name = self.next("conv");
        let (node, w) = self.conv_node(&name, c)?;
        let y = self.graph.add_op(node, &[x, w], &name);
        let name = self.next("norm");
        let mut inputs = vec![y];
        let parts = [
            ("scale", 1.0),
            ("bias", 0.0),
            ("mean", 0.0),
            ("variance", 1.0),
        ];
        for (part, x) in parts {
            inputs.push(self.filled(&format!("{name}.{part}"), c.channels[1], x)?);
        }
        let node = Node::new("BatchNormalization", &name)
            .with("epsilon", Attribute::Float(1e-5))
            .with("momentum", Attribute::Float(0.9));
        Ok(self.graph.add_op(node, &inputs, &name))
    }

    /// A convolution, a batch normalisation and a Relu.
    pub fn conv_relu(&mut self, x: ValueId, c: Conv) -> Result<ValueId> {
        let y = self.conv_norm(x, c)?;
        Ok(self.relu(y))
    }

    /// The network with its output.
    pub fn finish(mut self, output: ValueId) -> Model {
        self.graph.value_mut(output).name = "logits".into();
        self.graph.outputs = vec![output];
        Model::new(self.graph, OPSET)
    }
}

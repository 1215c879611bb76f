//! Random networks with channels, for tests: of images, whose branches are added, joined, cut and
//! gated, and of sequences, with attention and recurrent layers.

use edgesmith_ir::types::{Dim, Shape, TensorType};
use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Tensor, ValueId};

use edgesmith_ir::random::Random;

mod attended;
mod moved;
mod sequences;

pub use sequences::sequences;

/// Numbers of these lengths.
fn tensor(dims: &[usize], data: Vec<f32>) -> Tensor {
    Tensor::from_vec(dims, data).expect("there are as many numbers as the lengths say")
}

/// The network as it grows.
struct Drawn {
    graph: Graph,
    random: Random,
    /// Images, with their channels and their pixels a side.
    images: Vec<(ValueId, usize, usize)>,
    /// Channels are shuffled too, and norms are spelled out.
    is_shuffled: bool,
}

impl Drawn {
    fn weight(&mut self, dims: &[usize]) -> ValueId {
        let count = dims.iter().product();
        let data = (0..count).map(|_| self.random.normal() as f32 * 0.4);
        let data = tensor(dims, data.collect());
        let name = self.graph.fresh_name("w");
        self.graph.add_constant(&name, data)
    }

    fn list(&mut self, numbers: Vec<i64>) -> ValueId {
        let name = self.graph.fresh_name("list");
        self.graph.add_constant(&name, Tensor::vector(numbers))
    }

    fn op(&mut self, node: Node, inputs: &[ValueId]) -> ValueId {
        let name = node.op.to_lowercase();
        self.graph.add_op(node, inputs, &name)
    }

    fn conv(&mut self, x: ValueId, [from, to]: [usize; 2], [groups, size]: [usize; 2]) -> ValueId {
        let w = self.weight(&[to, from / groups, size, size]);
        let b = self.weight(&[to]);
        let node = Node::new("Conv", "")
            .with("group", Attribute::Int(groups as i64))
            .with("pads", Attribute::Ints(vec![size as i64 / 2; 4]));
        self.op(node, &[x, w, b])
    }

    fn norm(&mut self, x: ValueId, channels: usize) -> ValueId {
        let [scale, bias, mean] = [0; 3].map(|_| self.weight(&[channels]));
        let variance = self.weight(&[channels]);
        let positive = (0..channels).map(|_| self.random.normal().abs() as f32 + 0.5);
        let positive = tensor(&[channels], positive.collect());
        self.graph.value_mut(variance).constant = Some(positive);
        let node = Node::new("BatchNormalization", "");
        self.op(node, &[x, scale, bias, mean, variance])
    }

    /// Another image of those that are there.
    fn grow(&mut self) {
        let (x, channels, side) = self.images[self.random.below(self.images.len())];
        let to = 2 * (1 + self.random.below(4));
        let grown = match self.random.below(18) {
            0 | 1 => (self.conv(x, [channels, to], [1, 3]), to, side),
            2 => (
                self.conv(x, [channels, channels], [channels, 3]),
                channels,
                side,
            ),
            3 if channels % 2 == 0 => (self.conv(x, [channels, to], [2, 1]), to, side),
            3 | 4 => (self.norm(x, channels), channels, side),
            5 => (self.op(Node::new("Relu", ""), &[x]), channels, side),
            6 => self.added(x, channels, side),
            7 => {
                let y = self.conv(x, [channels, to], [1, 1]);
                let node = Node::new("Concat", "").with("axis", Attribute::Int(1));
                (self.op(node, &[x, y]), channels + to, side)
            }
            8 => {
                let mean = self.op(Node::new("GlobalAveragePool", ""), &[x]);
                let gate = self.conv(mean, [channels, channels], [1, 1]);
                let gate = self.op(Node::new("Sigmoid", ""), &[gate]);
                (self.op(Node::new("Mul", ""), &[x, gate]), channels, side)
            }
            9 => {
                let w = self.weight(&[channels, to, 1, 1]);
                (self.op(Node::new("ConvTranspose", ""), &[x, w]), to, side)
            }
            _ => self.moved((x, channels, side)),
        };
        if grown.1 <= 24 {
            self.images.push(grown);
        }
    }

    /// A residual block, or a sum with another image of the same shape.
    fn added(&mut self, x: ValueId, channels: usize, side: usize) -> (ValueId, usize, usize) {
        let alike = |i: &&(ValueId, usize, usize)| i.0 != x && (i.1, i.2) == (channels, side);
        let y = match self.images.iter().find(alike) {
            Some((y, ..)) => *y,
            None => self.conv(x, [channels, channels], [1, 3]),
        };
        (self.op(Node::new("Add", ""), &[x, y]), channels, side)
    }
}

/// A network from an image of 3 channels to 4 scores.
pub fn images(seed: u64) -> Model {
    of_images(seed, false)
}

/// The same, with shuffles of channels and norms of groups that are spelled out.
pub fn shuffled(seed: u64) -> Model {
    of_images(seed, true)
}

fn of_images(seed: u64, is_shuffled: bool) -> Model {
    let mut graph = Graph::new("drawn");
    let dims = [Dim::symbol("batch"), 3.into(), 5.into(), 5.into()];
    let shape: Shape = dims.into_iter().collect();
    let x = graph.add_input("x", TensorType::new(DType::F32, shape));
    let mut d = Drawn {
        graph,
        random: Random::of(&[seed]),
        images: Vec::new(),
        is_shuffled,
    };
    let first = d.conv(x, [3, 8], [1, 3]);
    d.images.push((first, 8, 5));
    while d.images.len() < 12 {
        d.grow();
    }
    let (last, channels, side) = d.images[11];
    let (flat, features) = match d.random.below(3) {
        0 => {
            let mean = d.op(Node::new("GlobalAveragePool", ""), &[last]);
            (d.op(Node::new("Flatten", ""), &[mean]), channels)
        }
        1 => (
            d.op(Node::new("Flatten", ""), &[last]),
            channels * side * side,
        ),
        _ => {
            let features = channels * side * side;
            let target = Tensor::vector(vec![-1, features as i64]);
            let target = d.graph.add_constant("target", target);
            (d.op(Node::new("Reshape", ""), &[last, target]), features)
        }
    };
    let hidden = d.weight(&[features, 6]);
    let hidden = d.op(Node::new("MatMul", ""), &[flat, hidden]);
    let bias = d.weight(&[6]);
    let hidden = d.op(Node::new("Add", ""), &[hidden, bias]);
    let w = d.weight(&[4, 6]);
    let node = Node::new("Gemm", "").with("transB", Attribute::Int(1));
    let y = d.op(node, &[hidden, w]);
    d.graph.outputs.push(y);
    Model::new(d.graph, 21)
}

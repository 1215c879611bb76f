//! Networks of words: embeddings, attention with heads in groups and rotary places, gated products,
//! norms, recurrent layers.

use edgesmith_ir::random::Random;
use edgesmith_ir::types::{Dim, Shape, TensorType};
use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Tensor, ValueId};

use super::{Drawn, tensor};

/// Words of a sentence.
pub(super) const WORDS: usize = 3;

/// How wide a network is.
pub(super) struct Width {
    pub(super) whole: usize,
    pub(super) heads: usize,
    /// Heads that share a key and a value.
    pub(super) shared: usize,
    pub(super) head: usize,
}

/// A network from 3 words, as numbers under 16, to 4 scores.
pub fn sequences(seed: u64) -> Model {
    let mut graph = Graph::new("drawn");
    let dims = [Dim::symbol("batch"), WORDS.into()];
    let shape: Shape = dims.into_iter().collect();
    let words = graph.add_input("words", TensorType::new(DType::I64, shape));
    let mut d = Drawn {
        graph,
        random: Random::of(&[seed, 1]),
        images: Vec::new(),
        is_shuffled: false,
    };
    let shared = 1 + d.random.below(3);
    let width = Width {
        whole: 6,
        heads: shared * (1 + d.random.below(3)),
        shared,
        head: 4,
    };
    let table = d.weight(&[16, width.whole]);
    let mut x = d.op(Node::new("Gather", ""), &[table, words]);
    for _ in 0..1 + d.random.below(2) {
        let normed = d.normed(x, width.whole);
        let change = match d.random.below(5) {
            0 => d.recurrent(normed, width.whole),
            1 => d.gated(normed, width.whole),
            2 => d.attended(normed, &width),
            _ => d.attention(normed, &width),
        };
        x = d.op(Node::new("Add", ""), &[x, change]);
        let normed = d.normed(x, width.whole);
        let change = d.products(normed, width.whole);
        x = d.op(Node::new("Add", ""), &[x, change]);
    }
    let last = d.normed(x, width.whole);
    let w = d.weight(&[width.whole, 4]);
    let y = d.op(Node::new("MatMul", ""), &[last, w]);
    d.graph.outputs.push(y);
    let mut model = Model::new(d.graph, 23);
    model.opsets.insert("com.microsoft".into(), 1);
    model
}

impl Drawn {
    fn normed(&mut self, x: ValueId, width: usize) -> ValueId {
        let scale = self.weight(&[width]);
        match self.random.below(5) {
            0 | 1 => self.op(Node::new("RMSNormalization", ""), &[x, scale]),
            2 => self.spelled_norm(x, scale, None),
            other => {
                let bias = self.weight(&[width]);
                match other {
                    3 => self.spelled_norm(x, scale, Some(bias)),
                    _ => self.op(Node::new("LayerNormalization", ""), &[x, scale, bias]),
                }
            }
        }
    }

    /// A norm in the operators that it is made of: with a bias one of layers, without one of root
    /// mean squares.
    fn spelled_norm(&mut self, x: ValueId, scale: ValueId, bias: Option<ValueId>) -> ValueId {
        let mean = |d: &mut Self, x: ValueId| {
            let axes = d.list(vec![-1]);
            d.op(Node::new("ReduceMean", ""), &[x, axes])
        };
        let number = |d: &mut Self, n: f32| {
            let name = d.graph.fresh_name("number");
            d.graph.add_constant(&name, Tensor::scalar(n))
        };
        let mut own = x;
        if bias.is_some() {
            let centre = mean(self, x);
            own = self.op(Node::new("Sub", ""), &[x, centre]);
        }
        let squares = match self.random.below(2) {
            0 => self.op(Node::new("Mul", ""), &[own, own]),
            _ => {
                let two = number(self, 2.0);
                self.op(Node::new("Pow", ""), &[own, two])
            }
        };
        let squares = mean(self, squares);
        let epsilon = number(self, 1e-5);
        let squares = self.op(Node::new("Add", ""), &[squares, epsilon]);
        let root = self.op(Node::new("Sqrt", ""), &[squares]);
        let even = self.op(Node::new("Div", ""), &[own, root]);
        let even = self.op(Node::new("Mul", ""), &[even, scale]);
        match bias {
            Some(bias) => self.op(Node::new("Add", ""), &[even, bias]),
            None => even,
        }
    }

    pub(super) fn product(&mut self, x: ValueId, from: usize, to: usize) -> ValueId {
        let w = self.weight(&[from, to]);
        let y = self.op(Node::new("MatMul", ""), &[x, w]);
        let bias = self.weight(&[to]);
        self.op(Node::new("Add", ""), &[y, bias])
    }

    fn products(&mut self, x: ValueId, width: usize) -> ValueId {
        let hidden = self.product(x, width, 8);
        let hidden = self.op(Node::new("Relu", ""), &[hidden]);
        self.product(hidden, 8, width)
    }

    /// One product, half of which gates the other.
    fn gated(&mut self, x: ValueId, width: usize) -> ValueId {
        let both = self.product(x, width, 10);
        let halves = self.halves(both, -1);
        let gate = self.op(Node::new("Sigmoid", ""), &[halves[0]]);
        let gated = self.op(Node::new("Mul", ""), &[gate, halves[1]]);
        self.product(gated, 5, width)
    }

    fn halves(&mut self, x: ValueId, axis: i64) -> [ValueId; 2] {
        let halves = [0; 2].map(|_| {
            let name = self.graph.fresh_name("half");
            self.graph.add_value(&name, None)
        });
        let node = Node::new("Split", "")
            .with("axis", Attribute::Int(axis))
            .with("num_outputs", Attribute::Int(2));
        self.graph.add_node(node, &[Some(x)], &halves.map(Some));
        halves
    }

    pub(super) fn reshape(&mut self, x: ValueId, target: Vec<i64>) -> ValueId {
        let target = self.list(target);
        self.op(Node::new("Reshape", ""), &[x, target])
    }

    /// \[batch, words, heads * head\] to \[batch, heads, words, head\].
    pub(super) fn heads(&mut self, x: ValueId, heads: usize, head: usize) -> ValueId {
        let parts = self.reshape(x, vec![0, 0, heads as i64, head as i64]);
        let turn = Node::new("Transpose", "").with("perm", Attribute::Ints(vec![0, 2, 1, 3]));
        self.op(turn, &[parts])
    }

    /// Places turned by rotations of pairs that lie half a head apart.
    fn rotated(&mut self, x: ValueId, head: usize) -> ValueId {
        let [low, high] = self.halves(x, -1);
        let negative = self.op(Node::new("Neg", ""), &[high]);
        let node = Node::new("Concat", "").with("axis", Attribute::Int(-1));
        let turned = self.op(node, &[negative, low]);
        let tables = [f64::cos as fn(f64) -> f64, f64::sin].map(|f| {
            let angle = |i: usize| {
                let (word, pair) = (i / head, i % head % (head / 2));
                f(word as f64 * 10f64.powi(-(pair as i32))) as f32
            };
            let data = (0..WORDS * head).map(angle).collect();
            let data = tensor(&[WORDS, head], data);
            let name = self.graph.fresh_name("table");
            self.graph.add_constant(&name, data)
        });
        let a = self.op(Node::new("Mul", ""), &[x, tables[0]]);
        let b = self.op(Node::new("Mul", ""), &[turned, tables[1]]);
        self.op(Node::new("Add", ""), &[a, b])
    }

    /// Each of so many heads, as often as heads share it.
    fn repeated(&mut self, x: ValueId, w: &Width) -> ValueId {
        let own = w.heads / w.shared;
        if w.shared == 1 {
            return x;
        }
        let axes = self.list(vec![2]);
        let one = self.op(Node::new("Unsqueeze", ""), &[x, axes]);
        let target = [1, own, w.shared, WORDS, w.head].map(|n| n as i64);
        let target = self.list(target.to_vec());
        let many = self.op(Node::new("Expand", ""), &[one, target]);
        self.reshape(many, vec![0, w.heads as i64, WORDS as i64, w.head as i64])
    }

    fn attention(&mut self, x: ValueId, w: &Width) -> ValueId {
        let own = w.heads / w.shared;
        let [q, k, v] = [w.heads, own, own].map(|heads| {
            let y = self.product(x, w.whole, heads * w.head);
            self.heads(y, heads, w.head)
        });
        let (q, k) = match self.random.below(2) {
            0 => (self.rotated(q, w.head), self.rotated(k, w.head)),
            _ => (q, k),
        };
        let [k, v] = [k, v].map(|x| self.repeated(x, w));
        let turn = Node::new("Transpose", "").with("perm", Attribute::Ints(vec![0, 1, 3, 2]));
        let k = self.op(turn, &[k]);
        let scores = self.op(Node::new("MatMul", ""), &[q, k]);
        let name = self.graph.fresh_name("scale");
        let scale = self.graph.add_constant(&name, Tensor::scalar(0.5f32));
        let scores = self.op(Node::new("Mul", ""), &[scores, scale]);
        let node = Node::new("Softmax", "").with("axis", Attribute::Int(-1));
        let shares = self.op(node, &[scores]);
        let y = self.op(Node::new("MatMul", ""), &[shares, v]);
        let turn = Node::new("Transpose", "").with("perm", Attribute::Ints(vec![0, 2, 1, 3]));
        let y = self.op(turn, &[y]);
        let y = self.reshape(y, vec![0, 0, (w.heads * w.head) as i64]);
        self.product(y, w.heads * w.head, w.whole)
    }

    fn recurrent(&mut self, x: ValueId, width: usize) -> ValueId {
        let (op, gates) = [("LSTM", 4), ("GRU", 3), ("RNN", 1)][self.random.below(3)];
        let directions = 1 + self.random.below(2);
        let hidden = 4;
        let turn =
            |perm: &[i64]| Node::new("Transpose", "").with("perm", Attribute::Ints(perm.to_vec()));
        let x = self.op(turn(&[1, 0, 2]), &[x]);
        let w = self.weight(&[directions, gates * hidden, width]);
        let r = self.weight(&[directions, gates * hidden, hidden]);
        let b = self.weight(&[directions, 2 * gates * hidden]);
        let direction = ["forward", "bidirectional"][directions - 1];
        let node = Node::new(op, "")
            .with("hidden_size", Attribute::Int(hidden as i64))
            .with(
                "direction",
                Attribute::String(direction.as_bytes().to_vec().into()),
            );
        let y = self.op(node, &[x, w, r, b]);
        let y = self.op(turn(&[2, 0, 1, 3]), &[y]);
        let y = self.reshape(y, vec![0, 0, (directions * hidden) as i64]);
        self.product(y, directions * hidden, width)
    }
}

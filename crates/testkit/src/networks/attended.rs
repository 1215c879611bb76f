//! Attention in one node.

use edgesmith_ir::{Attribute, Node, ValueId};

use super::sequences::{WORDS, Width};
use super::{Drawn, tensor};

fn int(n: usize) -> Attribute {
    Attribute::Int(n as i64)
}

impl Drawn {
    /// Attention by an operator of ONNX or of ONNX Runtime.
    pub(super) fn attended(&mut self, x: ValueId, w: &Width) -> ValueId {
        let y = match self.random.below(4) {
            0 => self.of_runtime(x, w),
            1 => self.merged(x, w),
            2 => self.apart(x, w),
            _ => self.flat(x, w),
        };
        self.product(y, w.heads * w.head, w.whole)
    }

    /// Heads one after another, with rotary places or a mask for each head.
    fn flat(&mut self, x: ValueId, w: &Width) -> ValueId {
        let own = w.heads / w.shared;
        let all = [w.heads, own, own];
        let mut parts = all.map(|heads| self.product(x, w.whole, heads * w.head));
        if self.random.below(2) == 0 {
            let width = 2 + 2 * self.random.below(2);
            let tables = self.tables(width);
            for i in 0..2 {
                let node = Node::new("RotaryEmbedding", "")
                    .with("num_heads", int(all[i]))
                    .with("interleaved", int(self.random.below(2)))
                    .with("rotary_embedding_dim", int(width));
                parts[i] = self.op(node, &[parts[i], tables[0], tables[1], tables[2]]);
            }
        }
        let node = Node::new("Attention", "")
            .with("q_num_heads", int(w.heads))
            .with("kv_num_heads", int(own));
        let mut inputs = parts.to_vec();
        if self.random.below(2) == 0 {
            inputs.push(self.weight(&[w.heads, WORDS, WORDS]));
        }
        self.op(node, &inputs)
    }

    /// Heads along an axis of their own.
    fn apart(&mut self, x: ValueId, w: &Width) -> ValueId {
        let own = w.heads / w.shared;
        let mut parts = [w.heads, own, own].map(|heads| {
            let y = self.product(x, w.whole, heads * w.head);
            self.heads(y, heads, w.head)
        });
        if self.random.below(2) == 0 {
            let tables = self.tables(w.head);
            for part in &mut parts[..2] {
                let node = Node::new("RotaryEmbedding", "");
                *part = self.op(node, &[*part, tables[0], tables[1], tables[2]]);
            }
        }
        let node = Node::new("Attention", "").with("is_causal", int(1));
        let y = self.op(node, &parts);
        let turn = Node::new("Transpose", "").with("perm", Attribute::Ints(vec![0, 2, 1, 3]));
        let y = self.op(turn, &[y]);
        self.reshape(y, vec![0, 0, (w.heads * w.head) as i64])
    }

    /// Queries, keys and values with one bias.
    fn of_runtime(&mut self, x: ValueId, w: &Width) -> ValueId {
        let width = w.heads * w.head;
        let parts = [0; 3].map(|_| self.product(x, w.whole, width));
        let bias = self.weight(&[3 * width]);
        let mut node = Node::new("MultiHeadAttention", "").with("num_heads", int(w.heads));
        node.domain = "com.microsoft".into();
        self.op(node, &[parts[0], parts[1], parts[2], bias])
    }

    /// One weight for queries, keys and values.
    fn merged(&mut self, x: ValueId, w: &Width) -> ValueId {
        let width = w.heads * w.head;
        let (weight, bias) = (
            self.weight(&[w.whole, 3 * width]),
            self.weight(&[3 * width]),
        );
        let mut node = Node::new("Attention", "").with("num_heads", int(w.heads));
        if self.random.below(2) == 0 {
            node.set("qkv_hidden_sizes", Attribute::Ints(vec![width as i64; 3]));
        }
        node.domain = "com.microsoft".into();
        self.op(node, &[x, weight, bias])
    }

    /// Cosines and sines of two pairs or one, by place, and the places.
    fn tables(&mut self, width: usize) -> [ValueId; 3] {
        let pairs = width / 2;
        let [cos, sin] = [f32::cos as fn(f32) -> f32, f32::sin].map(|f| {
            let angles = (0..WORDS * pairs).map(|i| f((i / pairs) as f32 / (1 + i % pairs) as f32));
            let data = tensor(&[WORDS, pairs], angles.collect());
            let name = self.graph.fresh_name("angles");
            self.graph.add_constant(&name, data)
        });
        let shape = self.graph.fresh_name("places");
        let words = self.graph.inputs[0];
        let zero = self.op(Node::new("Sub", ""), &[words, words]);
        let data = edgesmith_ir::Tensor::vector((0..WORDS as i64).collect::<Vec<_>>());
        let list = self.graph.add_constant(&shape, data);
        [cos, sin, self.op(Node::new("Add", ""), &[zero, list])]
    }
}

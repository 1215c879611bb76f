//! Transformer encoders that classify texts.

use edgesmith_ir::{Attribute, DType, Error, Model, Node, Result, ValueId};

use super::builder::Builder;
use super::{Architecture, Spec, Takes};

/// Numbers that stand for a word.
const WIDTH: usize = 128;

/// The input that is 1 for a word and 0 for a place without one.
pub const MASK: &str = "attention_mask";

/// Two layers with two heads, the shape of BERT-Tiny (I. Turc et al., 2019).
pub static ENCODER_2: Architecture = Architecture {
    name: "encoder-2",
    about: "Transformer encoder of 2 layers, 128 wide, 2 heads (the shape of BERT-Tiny, Turc et al. 2019), normalised before each part (Xiong et al. 2020); mean of all words",
    takes: Takes::Words,
    build: |spec| encoder("encoder_2", spec, 2, 2),
};

/// Four layers with four heads.
pub static ENCODER_4: Architecture = Architecture {
    name: "encoder-4",
    about: "Transformer encoder of 4 layers, 128 wide, 4 heads, as encoder-2",
    takes: Takes::Words,
    build: |spec| encoder("encoder_4", spec, 4, 4),
};

fn encoder(name: &str, spec: &Spec, layers: usize, heads: usize) -> Result<Model> {
    let (vocabulary, words) = match (spec.vocabulary, &spec.dims[..]) {
        (Some(vocabulary), &[words]) if vocabulary > 0 && words > 0 => (vocabulary, words),
        _ => {
            let what = format!("samples of {:?} are no texts", spec.dims);
            return Err(Error::invalid(what).hint("a text is [words], numbers in a vocabulary"));
        }
    };
    let mut b = Builder::empty(name, spec.seed);
    let ids = b.input(&spec.input, DType::I64, &[words]);
    let mask = b.input(MASK, DType::I64, &[words]);
    let table = b.table("words.table", &[vocabulary, WIDTH])?;
    let places = b.table("places.table", &[words, WIDTH])?;
    let mask = b.op(to_floats(), &[mask]);
    let mut text = Text {
        unseen: unseen(&mut b, mask),
        b,
        words,
        heads,
    };
    let x = text.b.op(Node::new("Gather", ""), &[table, ids]);
    let mut x = text.b.add(x, places);
    for i in 1..=layers {
        x = text.layer(&format!("layer{i}"), x)?;
    }
    let Text { mut b, .. } = text;
    let x = b.layer_norm("last.norm", x, WIDTH)?;
    let x = mean_of_words(&mut b, x, mask);
    let y = b.dense("head", x, [WIDTH, spec.classes])?;
    Ok(b.finish(y))
}

fn to_floats() -> Node {
    let to = Attribute::Int(DType::F32.onnx().into());
    Node::new("Cast", "").with("to", to)
}

/// What is added to scores of attention: 0 for words, −10,000 for places without one,
/// [batch, 1, 1, words].
fn unseen(b: &mut Builder, mask: ValueId) -> ValueId {
    let one = b.number("one", 1.0);
    let missing = b.op(Node::new("Sub", ""), &[mask, one]);
    let far = b.number("far", 10_000.0);
    let bias = b.mul(missing, far);
    let axes = b.list("head_and_row", &[1, 2]);
    b.op(Node::new("Unsqueeze", ""), &[bias, axes])
}

/// The mean of the words that are there, [batch, width]; 0 where there are none.
fn mean_of_words(b: &mut Builder, x: ValueId, mask: ValueId) -> ValueId {
    let last = b.list("last_axis", &[-1]);
    let mask = b.op(Node::new("Unsqueeze", ""), &[mask, last]);
    let seen = b.mul(x, mask);
    let along = b.list("words_axis", &[1]);
    let sum = |b: &mut Builder, v| {
        let node = Node::new("ReduceSum", "").with("keepdims", Attribute::Int(0));
        b.op(node, &[v, along])
    };
    let (total, count) = (sum(b, seen), sum(b, mask));
    let least = b.number("one_word", 1.0);
    let count = b.op(Node::new("Max", ""), &[count, least]);
    b.op(Node::new("Div", ""), &[total, count])
}

/// What all layers have in common.
struct Text {
    b: Builder,
    unseen: ValueId,
    words: usize,
    heads: usize,
}

impl Text {
    /// Attention and two dense layers, each added to what it takes.
    fn layer(&mut self, name: &str, x: ValueId) -> Result<ValueId> {
        let seen = self.b.layer_norm(&format!("{name}.norm1"), x, WIDTH)?;
        let seen = self.attention(&format!("{name}.attention"), seen)?;
        let x = self.b.add(x, seen);
        let b = &mut self.b;
        let y = b.layer_norm(&format!("{name}.norm2"), x, WIDTH)?;
        let y = b.dense(&format!("{name}.wide"), y, [WIDTH, 4 * WIDTH])?;
        let y = gelu(b, y);
        let y = b.dense(&format!("{name}.narrow"), y, [4 * WIDTH, WIDTH])?;
        Ok(b.add(x, y))
    }

    /// What each word takes from all words (A. Vaswani et al., 2017).
    fn attention(&mut self, name: &str, x: ValueId) -> Result<ValueId> {
        // Queries and values are [batch, heads, words, width], keys [batch, heads, width, words].
        let query = self.part(&format!("{name}.query"), x, [0, 2, 1, 3])?;
        let key = self.part(&format!("{name}.key"), x, [0, 2, 3, 1])?;
        let value = self.part(&format!("{name}.value"), x, [0, 2, 1, 3])?;
        let b = &mut self.b;
        let scores = b.op(Node::new("MatMul", ""), &[query, key]);
        let scale = b.number("scale", 1.0 / ((WIDTH / self.heads) as f32).sqrt());
        let scores = b.mul(scores, scale);
        let scores = b.add(scores, self.unseen);
        let softmax = Node::new("Softmax", "").with("axis", Attribute::Int(-1));
        let weights = b.op(softmax, &[scores]);
        let mixed = b.op(Node::new("MatMul", ""), &[weights, value]);
        let mixed = turned(b, mixed, [0, 2, 1, 3]);
        let shape = b.list("joined", &[0, self.words as i64, WIDTH as i64]);
        let mixed = b.op(Node::new("Reshape", ""), &[mixed, shape]);
        b.dense(&format!("{name}.output"), mixed, [WIDTH, WIDTH])
    }

    fn part(&mut self, name: &str, x: ValueId, perm: [i64; 4]) -> Result<ValueId> {
        let b = &mut self.b;
        let y = b.dense(name, x, [WIDTH, WIDTH])?;
        let [words, heads] = [self.words, self.heads].map(|n| n as i64);
        let shape = b.list("by_head", &[0, words, heads, WIDTH as i64 / heads]);
        let y = b.op(Node::new("Reshape", ""), &[y, shape]);
        Ok(turned(b, y, perm))
    }
}

fn turned(b: &mut Builder, x: ValueId, perm: [i64; 4]) -> ValueId {
    let node = Node::new("Transpose", "").with("perm", Attribute::Ints(perm.to_vec()));
    b.op(node, &[x])
}

/// x · Φ(x) (D. Hendrycks and K. Gimpel, 2016), as half of x · (1 + erf(x / √2)).
fn gelu(b: &mut Builder, x: ValueId) -> ValueId {
    let root = b.number("root_of_two", std::f32::consts::SQRT_2);
    let scaled = b.op(Node::new("Div", ""), &[x, root]);
    let erf = b.op(Node::new("Erf", ""), &[scaled]);
    let one = b.number("one", 1.0);
    let sum = b.add(erf, one);
    let product = b.mul(x, sum);
    let half = b.number("half", 0.5);
    b.mul(product, half)
}

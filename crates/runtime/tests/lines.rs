//! Convolutions and pools that go by lines of an image, and products by rows, give the same bytes as whole ones.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Tensor, TensorType, ValueId};
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::Rng;

const CHANNELS: usize = 32;

/// A chain of convolutions, of floats or of bytes.
struct Chain {
    graph: Graph,
    rng: Rng,
    bytes: bool,
    count: usize,
}

impl Chain {
    fn new(side: [usize; 2], batch: usize, seed: u64, bytes: bool) -> (Self, ValueId) {
        let mut graph = Graph::new("chain");
        let dims = [batch, CHANNELS, side[0], side[1]];
        let x = graph.add_input("x", TensorType::fixed(DType::F32, &dims));
        let mut chain = Self {
            graph,
            rng: Rng::new(seed),
            bytes,
            count: 0,
        };
        let x = chain.through_bytes(x);
        (chain, x)
    }

    fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}{}", self.count)
    }

    /// The value after a Q and a DQ, where the chain is of bytes.
    fn through_bytes(&mut self, x: ValueId) -> ValueId {
        if !self.bytes {
            return x;
        }
        let [s, z, q, d] = ["s", "z", "q", "d"].map(|n| self.name(n));
        let s = self.graph.add_constant(&s, Tensor::scalar(0.04f32));
        let z = self.graph.add_constant(&z, Tensor::scalar(120u8));
        let node = Node::new("QuantizeLinear", &q);
        let quantized = self.graph.add_op(node, &[x, s, z], &q);
        let node = Node::new("DequantizeLinear", &d);
        self.graph.add_op(node, &[quantized, s, z], &d)
    }

    fn weights(&mut self, dims: &[usize]) -> ValueId {
        let count = dims.iter().product();
        let name = self.name("w");
        let mut byte = || self.rng.below(255) as i8;
        let data: Vec<i8> = (0..count).map(|_| byte()).collect();
        if !self.bytes {
            let data = data.iter().map(|&b| f32::from(b) / 400.0).collect();
            return self
                .graph
                .add_constant(&name, Tensor::from_vec(dims, data).unwrap());
        }
        let data = Tensor::from_vec(dims, data).unwrap();
        let data = self.graph.add_constant(&name, data);
        let scale = self.name("ws");
        let scale = self.graph.add_constant(&scale, Tensor::scalar(0.0025f32));
        let d = self.name("wd");
        let node = Node::new("DequantizeLinear", &d);
        self.graph.add_op(node, &[data, scale], &d)
    }

    /// A convolution of `x` and Relu; by channel where `depthwise`.
    fn conv(
        &mut self,
        x: ValueId,
        k: usize,
        stride: i64,
        pads: [i64; 4],
        depthwise: bool,
    ) -> ValueId {
        let groups = if depthwise { CHANNELS } else { 1 };
        let w = self.weights(&[CHANNELS, CHANNELS / groups, k, k]);
        let name = self.name("conv");
        let node = Node::new("Conv", &name)
            .with("pads", Attribute::Ints(pads.to_vec()))
            .with("strides", Attribute::Ints(vec![stride; 2]))
            .with("group", Attribute::Int(groups as i64));
        let y = self.graph.add_op(node, &[x, w], &name);
        let relu = self.name("relu");
        let y = self.graph.add_op(Node::new("Relu", &relu), &[y], &relu);
        self.through_bytes(y)
    }

    /// The largest of windows of `x`.
    fn pool(&mut self, x: ValueId, k: i64, stride: i64, pads: [i64; 4]) -> ValueId {
        let name = self.name("pool");
        let node = Node::new("MaxPool", &name)
            .with("kernel_shape", Attribute::Ints(vec![k; 2]))
            .with("pads", Attribute::Ints(pads.to_vec()))
            .with("strides", Attribute::Ints(vec![stride; 2]));
        self.graph.add_op(node, &[x], &name)
    }

    fn model(mut self, y: ValueId) -> Model {
        self.graph.outputs.push(y);
        Model {
            graph: self.graph,
            ..Model::default()
        }
    }
}

/// Expand, by channel, pool of floats, project, of sizes and pads of all kinds, with an Add at the end.
fn some_chain(seed: u64, bytes: bool) -> (Model, Tensor) {
    let mut rng = Rng::new(seed);
    let mut pick = |from: &[usize]| *rng.pick(from);
    let side = [pick(&[5, 9, 16, 23, 40]), pick(&[1, 5, 14, 33])];
    let batch = pick(&[1, 2, 3]);
    let (k, stride) = (pick(&[3, 5]), pick(&[1, 2]) as i64);
    let side = side.map(|n| n.max(k));
    let top = pick(&[0, 1, 2]) as i64;
    let (mut chain, x) = Chain::new(side, batch, seed, bytes);
    let mut y = x;
    if !seed.is_multiple_of(3) {
        y = chain.conv(y, 1, 1, [0; 4], false);
    }
    y = chain.conv(y, k, stride, [top, 1, 1, 2], true);
    match seed % 6 {
        1 if !bytes => y = chain.pool(y, 3, 2, [1; 4]),
        4 if !bytes => y = chain.pool(y, 2, 1, [0, 1, 1, 0]),
        _ => {}
    }
    if !seed.is_multiple_of(2) {
        y = chain.conv(y, 3, 1, [1; 4], seed % 5 > 2);
    }
    let z = chain.conv(y, 1, 1, [0; 4], false);
    let sum = chain.name("sum");
    let y = match seed % 4 {
        0 => z,
        _ => chain.graph.add_op(Node::new("Add", &sum), &[z, y], &sum),
    };
    let x = rng.floats(&[batch, CHANNELS, side[0], side[1]], -4.0, 4.0);
    (chain.model(y), x)
}

/// The answer, and how many steps the run had.
fn run(model: &Model, x: &Tensor, options: &Options) -> (Tensor, usize) {
    let mut session = Session::prepare(model, options).unwrap();
    let y = session.run(&[("x", x.clone())]).unwrap().remove(0);
    (y, session.profile().nodes.len())
}

/// A graph with an input of rows, its shape, and columns of a product.
fn of_rows(rng: &mut Rng) -> (Graph, ValueId, [usize; 3], usize) {
    let sizes = [1, 3, 16, 33, 70, 140];
    let (k, n) = (sizes[rng.below(6)], sizes[rng.below(6)]);
    let dims = [1 + rng.below(3), 2 + rng.below(300), k];
    let mut graph = Graph::new("products");
    let x = graph.add_input("x", TensorType::fixed(DType::F32, &dims));
    (graph, x, dims, n)
}

/// Two products, as transformers have them: the first with a bias and Gelu, and the sum with `x`.
fn some_products(seed: u64) -> (Model, Tensor) {
    let mut rng = Rng::new(seed);
    let (mut graph, x, dims, n) = of_rows(&mut rng);
    let k = dims[2];
    let mut constant = |graph: &mut Graph, name: &str, dims: &[usize]| {
        graph.add_constant(name, rng.floats(dims, -1.0, 1.0))
    };
    let up = constant(&mut graph, "up", &[k, n]);
    let bias = constant(&mut graph, "bias", &[n]);
    let down = constant(&mut graph, "down", &[n, k]);
    let y = graph.add_op(Node::new("MatMul", "first"), &[x, up], "h");
    let y = graph.add_op(Node::new("Add", "biased"), &[y, bias], "b");
    let y = match seed % 3 {
        0 => y,
        _ => graph.add_op(Node::new("Gelu", "gelu"), &[y], "g"),
    };
    let y = graph.add_op(Node::new("MatMul", "second"), &[y, down], "y");
    let y = match seed % 2 {
        0 => y,
        _ => graph.add_op(Node::new("Add", "sum"), &[y, x], "z"),
    };
    graph.outputs.push(y);
    (Model::new(graph, 20), rng.floats(&dims, -2.0, 2.0))
}

/// As [`some_products`], of bytes: each with a bias of floats, the first with Gelu and a factor by column.
fn some_products_of_bytes(seed: u64) -> (Model, Tensor) {
    let mut rng = Rng::new(seed);
    let (graph, x, dims, n) = of_rows(&mut rng);
    let k = dims[2];
    let mut chain = Chain {
        graph,
        rng: Rng::new(seed),
        bytes: true,
        count: 0,
    };
    let mut then = |chain: &mut Chain, op: &str, y: ValueId, width: usize| {
        let [name, row] = [op, "row"].map(|n| chain.name(n));
        let mut inputs = vec![y];
        if op != "Gelu" {
            let row_of = rng.floats(&[width], -1.0, 1.0);
            inputs.push(chain.graph.add_constant(&row, row_of));
        }
        chain.graph.add_op(Node::new(op, &name), &inputs, &name)
    };
    let mut y = chain.through_bytes(x);
    for (i, [from, to]) in [[k, n], [n, k]].into_iter().enumerate() {
        let w = chain.weights(&[from, to]);
        let name = chain.name("product");
        y = (chain.graph).add_op(Node::new("MatMul", &name), &[y, w], &name);
        if !(seed + i as u64).is_multiple_of(4) {
            y = then(&mut chain, "Add", y, to);
        }
        if i == 0 && !seed.is_multiple_of(3) {
            y = then(&mut chain, "Gelu", y, to);
            y = then(&mut chain, "Mul", y, to);
        }
        y = chain.through_bytes(y);
    }
    let mut model = chain.model(y);
    model.opsets.insert(String::new(), 20);
    (model, Rng::new(seed + 1).floats(&dims, -4.0, 4.0))
}

fn lines_change_nothing(bf16: bool, make: impl Fn(u64) -> (Model, Tensor)) {
    let mut joined = 0;
    for seed in 0..60 {
        let (model, x) = make(seed);
        let options = |line_bytes, threads| Options {
            threads,
            bf16,
            profile: true,
            line_bytes,
            batch_bytes: usize::MAX,
            ..Options::default()
        };
        let (whole, steps) = run(&model, &x, &options(usize::MAX, 1));
        for threads in [1, 2, 5] {
            let (by_lines, fewer) = run(&model, &x, &options(0, threads));
            assert_eq!(by_lines, whole, "seed {seed}, {threads} threads");
            joined += usize::from(fewer < steps);
        }
    }
    assert!(joined > 90, "{joined} runs went by lines");
}

#[test]
fn floats_by_lines_are_the_same_bytes() {
    lines_change_nothing(false, |seed| some_chain(seed, false));
}

#[test]
fn bytes_by_lines_are_the_same_bytes() {
    lines_change_nothing(false, |seed| some_chain(seed, true));
}

#[test]
fn rounded_floats_by_lines_are_the_same_bytes() {
    if edgesmith_kernels::Isa::detect().multiplies_bf16() {
        lines_change_nothing(true, |seed| some_chain(seed, false));
    }
}

#[test]
fn products_by_rows_are_the_same_bytes() {
    lines_change_nothing(false, some_products);
}

#[test]
fn products_of_bytes_by_rows_are_the_same_bytes() {
    lines_change_nothing(false, some_products_of_bytes);
}

#[test]
fn rounded_products_by_rows_are_the_same_bytes() {
    if edgesmith_kernels::Isa::detect().multiplies_bf16() {
        lines_change_nothing(true, some_products);
    }
}

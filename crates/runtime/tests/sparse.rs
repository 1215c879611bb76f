//! Weights of which most are zero are multiplied as lists, and give the same bytes as dense ones.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_formats::prepared::{self, Image};
use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Tensor, TensorType, ValueId, eval};
use edgesmith_kernels::Isa;
use edgesmith_runtime::stored::PackedNode;
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::Rng;

/// Products one after another, of floats or of bytes, of whose weights most are zero.
struct Chain {
    graph: Graph,
    rng: Rng,
    bytes: bool,
    /// Outputs whose weights are zero together.
    block: usize,
    count: usize,
}

impl Chain {
    fn new(dims: &[usize], seed: u64, bytes: bool, block: usize) -> (Self, ValueId) {
        let mut graph = Graph::new("chain");
        let x = graph.add_input("x", TensorType::fixed(DType::F32, dims));
        let rng = Rng::new(seed);
        let count = 0;
        let mut chain = Self {
            graph,
            rng,
            bytes,
            block,
            count,
        };
        let x = chain.through_bytes(x);
        (chain, x)
    }

    fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}{}", self.count)
    }

    fn op(&mut self, node: &str, inputs: &[ValueId], attributes: &[(&str, i64)]) -> ValueId {
        let name = self.name(node);
        let mut node = Node::new(node, &name);
        for (key, value) in attributes {
            node = node.with(key, Attribute::Int(*value));
        }
        self.graph.add_op(node, inputs, &name)
    }

    fn constant(&mut self, what: &str, data: Tensor) -> ValueId {
        let name = self.name(what);
        self.graph.add_constant(&name, data)
    }

    /// The value after a Q and a DQ, where the chain is of bytes.
    fn through_bytes(&mut self, x: ValueId) -> ValueId {
        if !self.bytes {
            return x;
        }
        let s = self.constant("s", Tensor::scalar(0.04f32));
        let z = self.constant("z", Tensor::scalar(120u8));
        let q = self.op("QuantizeLinear", &[x, s, z], &[]);
        self.op("DequantizeLinear", &[q, s, z], &[])
    }

    /// Weights whose outputs lie along axis 0 of `dims`, or along the last.
    fn weights(&mut self, dims: &[usize], last: bool) -> ValueId {
        let count: usize = dims.iter().product();
        let outputs = if last { dims[dims.len() - 1] } else { dims[0] };
        let inputs = count / outputs;
        let blocks = inputs * outputs.div_ceil(self.block);
        let kept: Vec<bool> = (0..blocks).map(|_| self.rng.below(100) < 8).collect();
        let mut data = Vec::new();
        for i in 0..count {
            let (o, k) = match last {
                true => (i % outputs, i / outputs),
                false => (i / inputs, i % inputs),
            };
            let byte = self.rng.below(255) as i8;
            data.push(if kept[o / self.block * inputs + k] {
                byte
            } else {
                0
            });
        }
        if !self.bytes {
            let data = data.iter().map(|&b| f32::from(b) / 400.0).collect();
            return self.constant("w", Tensor::from_vec(dims, data).unwrap());
        }
        let data = self.constant("w", Tensor::from_vec(dims, data).unwrap());
        let scale = self.constant("s", Tensor::scalar(0.0025f32));
        self.op("DequantizeLinear", &[data, scale], &[])
    }

    fn bias(&mut self, n: usize) -> ValueId {
        let data: Vec<i32> = (0..n).map(|_| self.rng.below(4000) as i32 - 2000).collect();
        if !self.bytes {
            let data = data.iter().map(|&b| b as f32 * 1e-4).collect();
            return self.constant("b", Tensor::vector(data));
        }
        let data = self.constant("b", Tensor::vector(data));
        let scale = self.constant("s", Tensor::scalar(0.04f32 * 0.0025));
        self.op("DequantizeLinear", &[data, scale], &[])
    }

    fn conv(&mut self, x: ValueId, [from, to]: [usize; 2], relu: bool) -> ValueId {
        let (w, b) = (self.weights(&[to, from, 1, 1], false), self.bias(to));
        let y = self.op("Conv", &[x, w, b], &[]);
        let y = if relu { self.op("Relu", &[y], &[]) } else { y };
        self.through_bytes(y)
    }

    fn finish(mut self, y: ValueId) -> Model {
        self.graph.outputs.push(y);
        Model::new(self.graph, 17)
    }
}

/// Convolutions of pixels around a sum.
fn images(dims: [usize; 4], channels: usize, seed: u64, bytes: bool, block: usize) -> Model {
    let (mut chain, x) = Chain::new(&dims, seed, bytes, block);
    let a = chain.conv(x, [dims[1], channels], true);
    let b = chain.conv(a, [channels, channels], false);
    let sum = chain.op("Add", &[b, a], &[]);
    let sum = chain.through_bytes(sum);
    let y = chain.conv(sum, [channels, dims[1] + 3], true);
    chain.finish(y)
}

/// Fully connected layers, one as Gemm and one as MatMul.
fn layers([m, k, n]: [usize; 3], seed: u64, bytes: bool, block: usize) -> Model {
    let (mut chain, x) = Chain::new(&[m, k], seed, bytes, block);
    let (w, b) = (chain.weights(&[n, k], false), chain.bias(n));
    let y = chain.op("Gemm", &[x, w, b], &[("transB", 1)]);
    let y = chain.op("Relu", &[y], &[]);
    let y = chain.through_bytes(y);
    let w = chain.weights(&[n, k + 5], true);
    let y = chain.op("MatMul", &[y, w], &[]);
    let y = chain.through_bytes(y);
    chain.finish(y)
}

fn dims(model: &Model) -> Vec<usize> {
    let x = model.graph.inputs[0];
    let ty = model.graph.value(x).tensor_type().unwrap();
    ty.shape.as_ref().unwrap().known().unwrap().to_vec()
}

fn run(session: &mut Session, x: &Tensor) -> Vec<u32> {
    let y = session.run(&[("x", x.clone())]).unwrap().remove(0);
    y.to_f32().unwrap().iter().map(|x| x.to_bits()).collect()
}

/// How many steps say that they go by lists.
fn lists(session: &Session) -> usize {
    let placements = session.placements().iter();
    let products = placements.filter(|p| ["Conv", "Gemm", "MatMul"].contains(&&p.op[..]));
    products.filter(|p| p.kernel.contains(": sparse ")).count()
}

/// Runs `model` with lists and without, and compares: the bits of both, and the reference.
fn agree(what: &str, model: &Model, x: &Tensor, isa: Option<Isa>) -> usize {
    let mut dense = Session::prepare(
        model,
        &Options {
            threads: 1,
            sparse: false,
            isa,
            ..Options::default()
        },
    )
    .unwrap();
    let wanted = run(&mut dense, x);
    assert_eq!(lists(&dense), 0, "{what}");
    let expected = eval::evaluate(model, &[("x", x.clone())])
        .unwrap()
        .remove(0);
    let expected = expected.to_f32().unwrap().into_owned();
    let mut found = 0;
    for (threads, line_bytes) in [(1, usize::MAX), (2, usize::MAX), (1, 0)] {
        let options = Options {
            threads,
            line_bytes,
            isa,
            ..Options::default()
        };
        let mut session = Session::prepare(model, &options).unwrap();
        found = lists(&session);
        for _ in 0..2 {
            assert_eq!(run(&mut session, x), wanted, "{what}, {threads} threads");
        }
    }
    let most = expected.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    let step = if model.graph.nodes().any(|(_, n)| n.is("QuantizeLinear")) {
        0.081
    } else {
        1e-5 * most
    };
    for (a, b) in wanted.iter().zip(&expected) {
        let a = f32::from_bits(*a);
        assert!((a - b).abs() <= step, "{what}: {a}, expected {b}");
    }
    found
}

#[test]
fn lists_give_the_bits_of_dense_weights() {
    let mut found = [0; 2];
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let block = if seed % 3 == 0 { 1 } else { 4 };
        let side = [3 + rng.below(12), 3 + rng.below(12)];
        let channels = 60 + rng.below(80);
        let bytes = seed % 2 == 1;
        let size = [1 + rng.below(2), 64 + rng.below(70), side[0], side[1]];
        // Tiles of dense bytes are quicker than lists; vectors are not.
        let isa = if bytes { Some(Isa::Avx2) } else { None };
        let images = images(size, channels, seed, bytes, block);
        let x = rng.floats(&dims(&images), -3.0, 3.0);
        found[usize::from(bytes)] += agree(&format!("images {seed}"), &images, &x, isa);
        let rows = [1, 3, 16, 21, 40][seed as usize % 5];
        let size = [rows, 100 + rng.below(200), 90 + rng.below(200)];
        let layers = layers(size, seed, bytes, block);
        let x = rng.floats(&dims(&layers), -3.0, 3.0);
        found[usize::from(bytes)] += agree(&format!("layers {seed}"), &layers, &x, isa);
    }
    assert!(found[0] > 10 && found[1] > 10, "by lists: {found:?}");
}

#[test]
fn a_zero_of_a_list_times_infinity_is_what_it_is_in_dense_weights() {
    let model = images([1, 96, 9, 7], 96, 5, false, 4);
    let mut x = Rng::new(1)
        .floats(&dims(&model), -3.0, 3.0)
        .to_f32()
        .unwrap()
        .into_owned();
    x[17] = f32::INFINITY;
    x[96] = f32::NAN;
    let x = Tensor::from_vec(&dims(&model), x).unwrap();
    let bits = |sparse: bool| {
        let options = Options {
            sparse,
            ..Options::default()
        };
        let mut session = Session::prepare(&model, &options).unwrap();
        assert_eq!(lists(&session) > 0, sparse);
        let y = session.run(&[("x", x.clone())]).unwrap().remove(0);
        let y = y.to_f32().unwrap().into_owned();
        assert!(y.iter().any(|y| y.is_nan()) && y.iter().any(|y| y.is_finite()));
        let bit = |y: f32| if y.is_nan() { 0 } else { y.to_bits() };
        y.into_iter().map(bit).collect::<Vec<_>>()
    };
    assert_eq!(bits(true), bits(false));
}

#[test]
fn lists_lie_in_a_prepared_file() {
    for bytes in [false, true] {
        let model = layers([40, 128, 160], 3, bytes, 4);
        let options = Options {
            threads: 1,
            isa: Some(Isa::Avx2),
            ..Options::default()
        };
        let image = Image::of(&model).unwrap();
        let mut own = Session::prepare(&image.model().unwrap(), &options).unwrap();
        let packed = own.packed();
        let weights: Vec<(String, Vec<&[u8]>)> = packed
            .iter()
            .map(|node| (node.name.clone(), node.parts()))
            .collect();
        let name = format!("edgesmith-sparse-{bytes}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        prepared::write(&path, true, prepared::Settings::new(), &image, &weights).unwrap();
        let file = prepared::read(&path).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        let x = Rng::new(2).floats(&dims(&model), -3.0, 3.0);
        let wanted = run(&mut own, &x);
        let mut kept =
            Session::prepare_stored(&file.model, &options, file.weights.clone()).unwrap();
        assert_eq!((lists(&kept), lists(&own)), (2, 2));
        assert_eq!(run(&mut kept, &x), wanted);
        let within: Vec<_> = file
            .weights
            .iter()
            .flat_map(|(_, parts)| parts)
            .map(|(bytes, len)| bytes[..*len].as_ptr_range())
            .collect();
        for part in kept.packed().iter().flat_map(PackedNode::parts) {
            assert!(within.contains(&part.as_ptr_range()), "it was copied");
        }
        // Where zeros are not skipped, what is in the file does not fit, and is packed anew.
        let dense = Options {
            sparse: false,
            ..options
        };
        let mut kept = Session::prepare_stored(&file.model, &dense, file.weights).unwrap();
        assert_eq!(lists(&kept), 0);
        assert_eq!(run(&mut kept, &x), wanted);
    }
}

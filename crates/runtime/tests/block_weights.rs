//! Weights of a few bits run by fused kernels and give the numbers of the reference evaluation.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use std::sync::atomic::{AtomicUsize, Ordering};

use edgesmith_ir::{
    Attribute, DType, Graph, Model, Node, Tensor, TensorType, ValueId, eval, packed,
};
use edgesmith_runtime::{Options, Placement, Session};
use edgesmith_testkit::{Rng, Tolerance, difference};

/// A node of `com.microsoft`.
fn microsoft(op: &str, ints: &[(&str, usize)]) -> Node {
    let node = ints
        .iter()
        .fold(Node::new(op, "node"), |node, (name, value)| {
            node.with(name, Attribute::Int(*value as i64))
        });
    node.in_domain("com.microsoft")
}

fn bytes(rng: &mut Rng, dims: &[usize]) -> Tensor {
    let n = dims.iter().product();
    let data: Vec<u8> = (0..n).map(|_| rng.below(256) as u8).collect();
    Tensor::from_vec(dims, data).unwrap()
}

fn integers(rng: &mut Rng, dtype: DType, dims: &[usize]) -> Tensor {
    let n = dims.iter().product();
    match dtype {
        DType::U8 => bytes(rng, dims),
        DType::I8 => {
            let data: Vec<i8> = (0..n).map(|_| rng.below(256) as u8 as i8).collect();
            Tensor::from_vec(dims, data).unwrap()
        }
        _ => {
            let codes: Vec<i128> = (0..n).map(|_| rng.below(16) as i128).collect();
            packed::encode_integers(dtype, dims, codes.into_iter()).unwrap()
        }
    }
}

fn floats(rng: &mut Rng, dtype: DType, dims: &[usize]) -> Tensor {
    let t = rng.floats(dims, 0.01, 0.2);
    match dtype {
        DType::F32 => t,
        _ => edgesmith_ir::ops::arith::from_floats(
            dtype,
            dims,
            t.to_f32().unwrap().iter().map(|&x| f64::from(x)).collect(),
        )
        .unwrap(),
    }
}

/// A graph with the input x of these lengths.
fn with_input(dims: &[usize]) -> (Graph, ValueId) {
    let mut g = Graph::new("g");
    let x = g.add_input("x", TensorType::fixed(DType::F32, dims));
    (g, x)
}

fn model(mut g: Graph, y: ValueId) -> Model {
    g.outputs.push(y);
    let mut model = Model::new(g, 25);
    model.opsets.insert("com.microsoft".into(), 1);
    model
}

/// The placements of a session that gives what the reference does, with and without integers.
fn agrees(model: &Model, x: &Tensor, tolerance: f32) -> Vec<Placement> {
    let inputs = [("x", x.clone())];
    let expected = eval::evaluate(model, &inputs).unwrap().remove(0);
    let mut placements = Vec::new();
    for integer in [false, true] {
        let options = Options {
            threads: 1,
            integer,
            ..Options::default()
        };
        let mut session = Session::prepare(model, &options).unwrap();
        let found = session.run(&inputs).unwrap().remove(0);
        let tolerance = Tolerance {
            relative: tolerance,
            absolute: 0.0,
        };
        if let Some(difference) = difference(&found, &expected, tolerance) {
            panic!(
                "{difference}\n{}",
                edgesmith_ir::text::print(model).unwrap()
            );
        }
        placements = session.placements().to_vec();
    }
    placements
}

/// Adds a node and its output.
fn add(g: &mut Graph, node: Node, inputs: &[Option<ValueId>]) -> ValueId {
    let y = g.add_value("y", None);
    g.add_node(node, inputs, &[Some(y)]);
    y
}

fn kernel<'a>(placements: &'a [Placement], node: &str) -> &'a str {
    &placements.iter().find(|p| p.node == node).unwrap().kernel
}

/// A MatMulNBits of random weights, or a change of it.
struct Product {
    m: usize,
    k: usize,
    n: usize,
    bits: usize,
    block: usize,
    level: usize,
    zeros: usize,
    scale_type: DType,
    bias: bool,
    relu: bool,
}

impl Product {
    fn some(rng: &mut Rng) -> Self {
        Self {
            m: if rng.one_in(10) {
                40
            } else {
                rng.between(1, 9)
            },
            k: rng.between(1, 150),
            n: rng.between(1, 70),
            bits: *rng.pick(&[2, 4, 8]),
            block: *rng.pick(&[16, 32, 64, 128, 256]),
            level: 0,
            zeros: rng.below(3),
            scale_type: *rng.pick(&[DType::F32, DType::F32, DType::F16]),
            bias: rng.one_in(2),
            relu: rng.one_in(2),
        }
    }

    fn model(&self, rng: &mut Rng) -> Model {
        let (k, n, bits, block) = (self.k, self.n, self.bits, self.block);
        let blocks = k.div_ceil(block);
        let (mut g, x) = with_input(&[self.m, k]);
        let b = bytes(rng, &[n, blocks, block * bits / 8]);
        let scales = floats(rng, self.scale_type, &[n, blocks]);
        let mut inputs = vec![x, g.add_constant("b", b), g.add_constant("s", scales)];
        let mut inputs: Vec<_> = inputs.drain(..).map(Some).collect();
        let zeros = match self.zeros {
            0 => None,
            1 => Some(bytes(rng, &[n, (blocks * bits).div_ceil(8)])),
            _ => Some(floats(rng, DType::F32, &[n, blocks])),
        };
        inputs.push(zeros.map(|z| g.add_constant("z", z)));
        inputs.push(None);
        let bias = self.bias.then(|| rng.floats(&[n], -1.0, 1.0));
        inputs.push(bias.map(|b| g.add_constant("bias", b)));
        let ints = [
            ("K", k),
            ("N", n),
            ("bits", bits),
            ("block_size", block),
            ("accuracy_level", self.level),
        ];
        let mut y = add(&mut g, microsoft("MatMulNBits", &ints), &inputs);
        if self.relu {
            y = g.add_op(Node::new("Relu", "relu"), &[y], "r");
        }
        model(g, y)
    }
}

#[test]
fn products_of_n_bits_are_fused_in_every_form() {
    let mut rng = Rng::new(1);
    for _ in 0..120 {
        let product = Product::some(&mut rng);
        let model = product.model(&mut rng);
        let x = rng.floats(&[product.m, product.k], -1.0, 1.0);
        let placements = agrees(&model, &x, 2e-5);
        assert!(
            kernel(&placements, "node").contains("f32bits"),
            "{placements:?}"
        );
    }
}

#[test]
fn products_at_level_4_are_near_those_of_floats() {
    let mut rng = Rng::new(2);
    for _ in 0..40 {
        let product = Product {
            level: 4,
            k: rng.between(64, 300),
            ..Product::some(&mut rng)
        };
        let model = product.model(&mut rng);
        let x = rng.floats(&[product.m, product.k], -1.0, 1.0);
        let placements = agrees(&model, &x, 3e-2);
        assert!(
            kernel(&placements, "node").contains("bits"),
            "{placements:?}"
        );
    }
}

#[test]
fn an_order_of_its_own_of_blocks_is_left_to_the_reference() {
    let mut rng = Rng::new(3);
    let (mut g, x) = with_input(&[2, 32]);
    let b = bytes(&mut rng, &[3, 2, 8]);
    let s = floats(&mut rng, DType::F32, &[3, 2]);
    let order: Vec<i32> = (0..32).map(|i| i % 2).collect();
    let inputs = [
        Some(x),
        Some(g.add_constant("b", b)),
        Some(g.add_constant("s", s)),
        None,
        Some(g.add_constant("order", Tensor::vector(order))),
    ];
    let ints = [("K", 32), ("N", 3), ("block_size", 16)];
    let y = add(&mut g, microsoft("MatMulNBits", &ints), &inputs);
    let placements = agrees(&model(g, y), &rng.floats(&[2, 32], -1.0, 1.0), 1e-5);
    assert_eq!(placements[0].provider, "reference");
}

#[test]
fn code_books_are_fused_where_blocks_lie_within_rows() {
    let mut rng = Rng::new(4);
    for round in 0..24 {
        let block = *rng.pick(&[16, 32, 64]);
        let k = block * rng.between(1, 4) + if round % 4 == 0 { 8 } else { 0 };
        let (m, n) = (rng.between(1, 20), rng.between(1, 40));
        let (mut g, x) = with_input(&[m, k]);
        let b = bytes(&mut rng, &[(n * k).div_ceil(2)]);
        let s = floats(&mut rng, DType::F32, &[(n * k).div_ceil(block)]);
        let inputs = [x, g.add_constant("b", b), g.add_constant("s", s)].map(Some);
        let ints = [
            ("K", k),
            ("N", n),
            ("block_size", block),
            ("quant_type", round % 2),
        ];
        let y = add(&mut g, microsoft("MatMulBnb4", &ints), &inputs);
        let placements = agrees(&model(g, y), &rng.floats(&[m, k], -1.0, 1.0), 2e-5);
        let fused = kernel(&placements, "node").contains("f32bits");
        assert_eq!(fused, k.is_multiple_of(block), "{k} {block}");
    }
}

/// How weights are quantised.
#[derive(Clone, Copy, PartialEq)]
enum Scales {
    Blocks(usize),
    Columns,
    One,
}

/// Adds a dequantised constant of these lengths, of which K is axis `k_axis` and N the other.
fn dequantized(
    g: &mut Graph,
    rng: &mut Rng,
    (dtype, scales): (DType, Scales),
    dims: &[usize],
    k_axis: usize,
) -> ValueId {
    let w = integers(rng, dtype, dims);
    let w = g.add_constant("w", w);
    let (axis, block, of_scales) = match scales {
        Scales::Blocks(block) => {
            let mut of_scales = dims.to_vec();
            of_scales[k_axis] = dims[k_axis].div_ceil(block);
            (k_axis, block, of_scales)
        }
        Scales::Columns => (1 - k_axis, 0, vec![dims[1 - k_axis]]),
        Scales::One => (0, 0, vec![]),
    };
    let s = floats(rng, DType::F32, &of_scales);
    let mut inputs = vec![Some(w), Some(g.add_constant("s", s))];
    if rng.one_in(2) {
        let z = integers(rng, dtype, &of_scales);
        inputs.push(Some(g.add_constant("z", z)));
    }
    let node = Node::new("DequantizeLinear", "dq")
        .with("axis", Attribute::Int(axis as i64))
        .with("block_size", Attribute::Int(block as i64));
    add(g, node, &inputs)
}

const FEW: [DType; 4] = [DType::I2, DType::U2, DType::I4, DType::U4];

fn some_scheme(rng: &mut Rng) -> (DType, Scales) {
    match rng.below(5) {
        0 => (*rng.pick(&FEW), Scales::Columns),
        1 => (*rng.pick(&FEW), Scales::One),
        2 => (*rng.pick(&[DType::I8, DType::U8]), Scales::Blocks(32)),
        _ => (*rng.pick(&FEW), Scales::Blocks(*rng.pick(&[16, 32, 64]))),
    }
}

#[test]
fn products_with_dequantised_weights_are_fused() {
    let mut rng = Rng::new(5);
    for round in 0..100 {
        let (m, k, n) = (rng.between(1, 20), rng.between(2, 100), rng.between(2, 40));
        let scheme = some_scheme(&mut rng);
        let (mut g, x) = with_input(&[m, k]);
        let turned = round % 4 % 2 == 1;
        let (dims, k_axis) = if turned { ([n, k], 1) } else { ([k, n], 0) };
        let w = dequantized(&mut g, &mut rng, scheme, &dims, k_axis);
        let set = Attribute::Int(i64::from(turned));
        let mut y = match round % 4 {
            0 => g.add_op(Node::new("MatMul", "node"), &[x, w], "y"),
            1 | 2 => {
                let bias = rng.floats(&[n], -1.0, 1.0);
                let bias = g.add_constant("c", bias);
                let node = Node::new("Gemm", "node").with("transB", set);
                g.add_op(node, &[x, w, bias], "y")
            }
            _ => {
                let node = microsoft("FusedMatMul", &[]).with("transB", set);
                g.add_op(node, &[x, w], "y")
            }
        };
        if rng.one_in(2) {
            let bias = rng.floats(&[n], -1.0, 1.0);
            let bias = g.add_constant("more", bias);
            y = g.add_op(Node::new("Add", "add"), &[bias, y], "sum");
        }
        let placements = agrees(&model(g, y), &rng.floats(&[m, k], -1.0, 1.0), 2e-5);
        assert!(
            kernel(&placements, "node").contains("f32bits"),
            "{placements:?}"
        );
        assert_eq!(kernel(&placements, "dq"), "in the nodes after it");
    }
}

#[test]
fn convolutions_of_pixels_are_fused_and_others_dequantise() {
    let mut rng = Rng::new(6);
    for side in [1, 3] {
        for _ in 0..10 {
            let (c, n) = (rng.between(2, 40), rng.between(2, 40));
            let (dtype, scales) = some_scheme(&mut rng);
            let (mut g, x) = with_input(&[2, c, 5, 4]);
            let w = dequantized(&mut g, &mut rng, (dtype, scales), &[n, c, side, side], 1);
            let bias = rng.floats(&[n], -1.0, 1.0);
            let bias = g.add_constant("c", bias);
            let y = g.add_op(Node::new("Conv", "node"), &[x, w, bias], "y");
            let y = g.add_op(Node::new("Relu", "relu"), &[y], "r");
            let placements = agrees(&model(g, y), &rng.floats(&[2, c, 5, 4], -1.0, 1.0), 2e-5);
            assert_eq!(kernel(&placements, "node").contains("f32bits"), side == 1);
        }
    }
}

/// Agreement of a graph whose input are indices.
fn rows_agree(mut g: Graph, node: Node, inputs: &[Option<ValueId>], indices: Tensor, kernel: &str) {
    let y = add(&mut g, node, inputs);
    let model = model(g, y);
    let placements = agrees(&model, &indices, 1e-6);
    let node = placements.iter().find(|p| p.node == "node").unwrap();
    assert_eq!(node.kernel, kernel);
}

fn with_indices(dims: &[usize]) -> (Graph, ValueId) {
    let mut g = Graph::new("g");
    let x = g.add_input("x", TensorType::fixed(DType::I64, dims));
    (g, x)
}

#[test]
fn rows_are_dequantised_after_they_are_gathered() {
    let mut rng = Rng::new(7);
    for _ in 0..40 {
        let (rows, k) = (rng.between(2, 30), rng.between(2, 100));
        let (mut g, x) = with_indices(&[2, 3]);
        let scheme = some_scheme(&mut rng);
        let w = dequantized(&mut g, &mut rng, scheme, &[rows, k], 1);
        let indices: Vec<i64> = (0..6).map(|_| rng.below(rows) as i64 - 1).collect();
        let indices = Tensor::from_vec(&[2, 3], indices).unwrap();
        let inputs = [Some(w), Some(x)];
        rows_agree(
            g,
            Node::new("Gather", "node"),
            &inputs,
            indices,
            "rows of blocks",
        );
    }
}

#[test]
fn rows_of_quantised_tables_are_fused() {
    let mut rng = Rng::new(8);
    for round in 0..60 {
        let (rows, block) = (rng.between(2, 30), *rng.pick(&[16, 32]));
        let k = 4 * rng.between(4, 30);
        let bits = *rng.pick(&[2, 4, 8]);
        let dtype = *rng.pick(&[DType::U8, DType::U8, DType::U4, DType::I4]);
        let packed = dtype == DType::U8;
        let (mut g, x) = with_indices(&[5]);
        let row = if packed { k * bits / 8 } else { k };
        let blocks = k.div_ceil(block);
        let w = integers(&mut rng, dtype, &[rows, row]);
        let s = floats(&mut rng, DType::F32, &[rows, blocks]);
        let mut inputs = vec![
            Some(g.add_constant("w", w)),
            Some(x),
            Some(g.add_constant("s", s)),
        ];
        if round % 2 == 0 {
            let row = if packed {
                (blocks * bits).div_ceil(8)
            } else {
                blocks
            };
            let z = integers(&mut rng, dtype, &[rows, row]);
            inputs.push(Some(g.add_constant("z", z)));
        }
        let mut ints = vec![("block_size", block)];
        if packed {
            ints.push(("bits", bits));
        }
        let indices: Vec<i64> = (0..5).map(|_| rng.below(rows) as i64 - 1).collect();
        let node = microsoft("GatherBlockQuantized", &ints);
        rows_agree(g, node, &inputs, Tensor::vector(indices), "rows of blocks");
    }
}

#[test]
fn packed_weights_keep_their_bits_and_those_of_the_file_are_told() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    let mut rng = Rng::new(9);
    let product = Product {
        k: 256,
        n: 64,
        bits: 4,
        block: 32,
        zeros: 0,
        scale_type: DType::F32,
        ..Product::some(&mut rng)
    };
    let model = product.model(&mut rng);
    let options = Options {
        threads: 1,
        packed: Some(|bytes| {
            TOLD.fetch_add(bytes.len(), Ordering::Relaxed);
        }),
        ..Options::default()
    };
    let session = Session::prepare(&model, &options).unwrap();
    let parts: usize = session.packed()[0].parts().iter().map(|p| p.len()).sum();
    assert_eq!(parts, 256 * 64 / 2 + 256 / 32 * 64 * 4);
    assert!(TOLD.load(Ordering::Relaxed) >= 256 * 64 / 2);
}

#[test]
fn packed_weights_come_back_from_a_prepared_file() {
    let mut rng = Rng::new(10);
    for zeros in 0..3 {
        let product = Product {
            zeros,
            ..Product::some(&mut rng)
        };
        let model = product.model(&mut rng);
        let options = Options::default();
        let mut own = Session::prepare(&model, &options).unwrap();
        let packed = own.packed();
        let kept = packed.iter().map(|node| {
            let lines = |part: &[u8]| {
                let whole = part
                    .len()
                    .next_multiple_of(edgesmith_runtime::stored::ALIGNMENT);
                let mut buffer = edgesmith_kernels::arena::Buffer::zeroed(whole);
                buffer.bytes_mut()[..part.len()].copy_from_slice(part);
                (bytes::Bytes::from_owner(Lines(buffer)), part.len())
            };
            (
                node.name.clone(),
                node.parts().into_iter().map(lines).collect(),
            )
        });
        let kept = kept.collect();
        let mut again = Session::prepare_stored(&model, &options, kept).unwrap();
        let inputs = [("x", rng.floats(&[product.m, product.k], -1.0, 1.0))];
        assert_eq!(own.run(&inputs).unwrap(), again.run(&inputs).unwrap());
    }
}

struct Lines(edgesmith_kernels::arena::Buffer);

impl AsRef<[u8]> for Lines {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

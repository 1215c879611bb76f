//! Products whose activations are quantised at run time, as quantisers write them, beside the
//! reference evaluation.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Tensor, TensorType, ValueId, eval};
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::{Rng, Tolerance, assert_close};

/// Random bytes of either signedness, and their zero point: none, one, or one for each column.
fn weights(g: &mut Graph, rng: &mut Rng, dims: &[usize], columns: usize) -> [Option<ValueId>; 2] {
    let signed = rng.one_in(2);
    let count = dims.iter().product();
    let mut bytes = |n: usize| -> Vec<u8> { (0..n).map(|_| rng.below(256) as u8).collect() };
    let mut tensor = |dims: &[usize], n: usize| {
        let data = bytes(n);
        if signed {
            let data = data.into_iter().map(|b| b as i8).collect();
            Tensor::from_vec(dims, data).unwrap()
        } else {
            Tensor::from_vec(dims, data).unwrap()
        }
    };
    let w = g.add_constant("w", tensor(dims, count));
    let one = tensor(&[], 1);
    let each = tensor(&[columns], columns);
    let zero = match rng.below(3) {
        0 => None,
        1 => Some(g.add_constant("w.zero", one)),
        _ => Some(g.add_constant("w.zero", each)),
    };
    [Some(w), zero]
}

fn add(g: &mut Graph, node: Node, inputs: &[Option<ValueId>], name: &str) -> ValueId {
    let y = g.add_value(name, None);
    g.add_node(node, inputs, &[Some(y)]);
    y
}

/// The bytes, scale and zero point of `x`.
fn quantized(g: &mut Graph, x: ValueId) -> [ValueId; 3] {
    let made = ["q", "scale", "zero"].map(|n| g.add_value(n, None));
    let node = Node::new("DynamicQuantizeLinear", "quantize");
    g.add_node(node, &[Some(x)], &made.map(Some));
    made
}

/// What stands around a product of integers.
#[derive(Clone, Copy, Debug)]
struct Around {
    /// The scale of the sums is made behind the product.
    late: bool,
    /// The sums are an output too.
    kept: bool,
    /// An integer for each column is added to the sums.
    start: bool,
    bias: bool,
    relu: bool,
}

/// `x → DynamicQuantizeLinear → op → Cast → Mul → Add → Relu`, whose columns are at `axis`.
fn chain(
    rng: &mut Rng,
    node: Node,
    [x_dims, w_dims]: [&[usize]; 2],
    (columns, trailing): (usize, usize),
    around: Around,
) -> Model {
    let mut g = Graph::new("dynamic");
    let x = g.add_input("x", TensorType::fixed(DType::F32, x_dims));
    let made = quantized(&mut g, x);
    let [w, w_zero] = weights(&mut g, rng, w_dims, columns);
    let by_column = |rng: &mut Rng| {
        let dims: Vec<usize> = [columns].into_iter().chain(vec![1; trailing]).collect();
        rng.floats(&dims, 0.01, 0.02)
    };
    let own = if rng.one_in(2) {
        by_column(rng)
    } else {
        Tensor::scalar(0.013f32)
    };
    let own = g.add_constant("w.scale", own);
    let mut scale = None;
    let mut multiply = |g: &mut Graph| {
        let scales = Node::new("Mul", "scales");
        scale = Some(g.add_op(scales, &[made[1], own], "scales"));
    };
    if !around.late {
        multiply(&mut g);
    }
    let sums = add(
        &mut g,
        node,
        &[Some(made[0]), w, Some(made[2]), w_zero],
        "sums",
    );
    if around.late {
        multiply(&mut g);
    }
    let mut y = sums;
    if around.start {
        let dims: Vec<usize> = [columns].into_iter().chain(vec![1; trailing]).collect();
        let data = (0..columns)
            .map(|_| rng.below(2000) as i32 - 1000)
            .collect();
        let start = g.add_constant("start", Tensor::from_vec(&dims, data).unwrap());
        y = g.add_op(Node::new("Add", "start"), &[start, y], "started");
    }
    let cast = Node::new("Cast", "cast").with("to", Attribute::Int(1));
    y = g.add_op(cast, &[y], "floats");
    y = g.add_op(Node::new("Mul", "scaled"), &[y, scale.unwrap()], "scaled");
    if around.bias {
        let bias = g.add_constant("bias", by_column(rng));
        y = g.add_op(Node::new("Add", "biased"), &[y, bias], "biased");
    }
    if around.relu {
        y = g.add_op(Node::new("Relu", "relu"), &[y], "y");
    }
    g.outputs.push(y);
    if around.kept {
        g.outputs.push(sums);
    }
    Model::new(g, 17)
}

/// The session's answers are the reference's, and `op` runs on the cpu.
fn agrees(model: &Model, x: &Tensor, op: &str, context: &str) {
    let inputs = [("x", x.clone())];
    let expected = eval::evaluate(model, &inputs).unwrap();
    for threads in [1, 2] {
        let options = Options {
            threads,
            ..Options::default()
        };
        let mut session = Session::prepare(model, &options).unwrap();
        for _ in 0..2 {
            let found = session.run(&inputs).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                assert_close(found, expected, Tolerance::ROUNDING);
            }
        }
        let placed = session.placements().iter().find(|p| p.op == op).unwrap();
        assert_eq!(placed.provider, "cpu", "{context}");
        assert!(placed.integer, "{context}");
    }
}

fn arounds(rng: &mut Rng) -> Around {
    Around {
        late: rng.one_in(2),
        kept: rng.one_in(4),
        start: rng.one_in(3),
        bias: rng.one_in(2),
        relu: rng.one_in(2),
    }
}

#[test]
fn products_of_matrices_are_the_references() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let [m, k, n] = [(); 3].map(|()| *rng.pick(&[1, 2, 3, 7, 8, 9, 17, 33]));
        let lead = 1 + rng.below(2);
        let around = arounds(&mut rng);
        let node = Node::new("MatMulInteger", "product");
        let dims: [&[usize]; 2] = [&[lead, m, k], &[k, n]];
        let model = chain(&mut rng, node, dims, (n, 0), around);
        let x = rng.floats(dims[0], -3.0, 5.0);
        agrees(&model, &x, "MatMulInteger", &format!("{seed}: {around:?}"));
    }
}

#[test]
fn products_of_images_are_the_references() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let groups = *rng.pick(&[1, 1, 2, 6]);
        let (input, out) = (6, *rng.pick(&[6, 12, 18]));
        let side = 3 + rng.below(6);
        let pad = rng.below(2) as i64;
        let node = Node::new("ConvInteger", "product")
            .with("pads", Attribute::Ints(vec![pad; 4]))
            .with("group", Attribute::Int(groups as i64));
        let around = arounds(&mut rng);
        let dims: [&[usize]; 2] = [&[2, input, side, side], &[out, input / groups, 3, 3]];
        let model = chain(&mut rng, node, dims, (out, 2), around);
        let x = rng.floats(dims[0], -3.0, 5.0);
        agrees(&model, &x, "ConvInteger", &format!("{seed}: {around:?}"));
    }
}

#[test]
fn numbers_without_a_range_quantise_as_the_reference_says() {
    let around = Around {
        late: false,
        kept: false,
        start: false,
        bias: true,
        relu: false,
    };
    for data in [
        vec![0f32; 6],
        vec![-2.5; 6],
        vec![1e-30, 0.0, 3e38, 1.0, 2.0, 3.0],
    ] {
        let node = Node::new("MatMulInteger", "product");
        let model = chain(&mut Rng::new(3), node, [&[2, 3], &[3, 4]], (4, 0), around);
        let x = Tensor::from_vec(&[2, 3], data).unwrap();
        agrees(&model, &x, "MatMulInteger", "range");
    }
}

#[test]
fn the_products_of_com_microsoft_are_the_references() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let (m, k, n) = (1 + rng.below(9), 1 + rng.below(40), 1 + rng.below(40));
        let mut g = Graph::new("fused");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[2, m, k]));
        let [w, zero] = weights(&mut g, &mut rng, &[k, n], n);
        let scale = if rng.one_in(2) {
            Tensor::scalar(0.02f32)
        } else {
            rng.floats(&[n], 0.01, 0.02)
        };
        let scale = g.add_constant("scale", scale);
        let bias = g.add_constant("bias", rng.floats(&[n], -1.0, 1.0));
        let bias = rng.one_in(2).then_some(bias);
        let op = *rng.pick(&["DynamicQuantizeMatMul", "MatMulIntegerToFloat"]);
        let node = Node::new(op, "product").in_domain("com.microsoft");
        let y = if op == "DynamicQuantizeMatMul" {
            add(&mut g, node, &[Some(x), w, Some(scale), zero, bias], "y")
        } else {
            let [q, s, z] = quantized(&mut g, x);
            let inputs = [Some(q), w, Some(s), Some(scale), Some(z), zero, bias];
            add(&mut g, node, &inputs, "y")
        };
        g.outputs.push(y);
        let mut model = Model::new(g, 17);
        model.opsets.insert("com.microsoft".into(), 1);
        let x = rng.floats(&[2, m, k], -3.0, 5.0);
        agrees(&model, &x, op, &format!("seed {seed}"));
    }
}

#[test]
fn an_lstm_of_bytes_is_the_references() {
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let (direction, d) = *rng.pick(&[("forward", 1), ("reverse", 1), ("bidirectional", 2)]);
        let [steps, batch, input, hidden] = [5, 3, 9, 8].map(|most| 1 + rng.below(most));
        let mut g = Graph::new("lstm");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[steps, batch, input]));
        let signed = rng.one_in(2);
        let mut parameters = Vec::new();
        for (name, rows) in [("w", input), ("r", hidden)] {
            let dims = [d, rows, 4 * hidden];
            let dtype = if signed { DType::I8 } else { DType::U8 };
            let data = rng.tensor(dtype, &dims).unwrap();
            let each = if rng.one_in(2) {
                vec![d]
            } else {
                vec![d, 4 * hidden]
            };
            let scale = rng.floats(&each, 0.004, 0.008);
            let zero = if signed {
                Tensor::from_vec(&each, vec![0i8; each.iter().product()])
            } else {
                Tensor::from_vec(&each, vec![128u8; each.iter().product()])
            };
            let add = |g: &mut Graph, what, t| g.add_constant(&format!("{name}.{what}"), t);
            let (data, scale) = (add(&mut g, "data", data), add(&mut g, "scale", scale));
            parameters.push([data, scale, add(&mut g, "zero", zero.unwrap())].map(Some));
        }
        let bias = g.add_constant("b", rng.floats(&[d, 8 * hidden], -0.5, 0.5));
        let bias = rng.one_in(2).then_some(bias);
        let [[w, w_scale, w_zero], [r, r_scale, r_zero]] = parameters[..] else {
            unreachable!("two matrices")
        };
        let inputs = [
            Some(x),
            w,
            r,
            bias,
            None,
            None,
            None,
            None,
            w_scale,
            w_zero,
            r_scale,
            r_zero,
        ];
        let node = Node::new("DynamicQuantizeLSTM", "lstm")
            .in_domain("com.microsoft")
            .with("direction", Attribute::String(direction.into()))
            .with("hidden_size", Attribute::Int(hidden as i64));
        let outputs = ["y", "h", "c"].map(|n| g.add_value(n, None));
        g.add_node(node, &inputs, &outputs.map(Some));
        g.outputs.extend(outputs);
        let mut model = Model::new(g, 17);
        model.opsets.insert("com.microsoft".into(), 1);
        let x = rng.floats(&[steps, batch, input], -2.0, 2.0);
        agrees(&model, &x, "DynamicQuantizeLSTM", &format!("seed {seed}"));
    }
}

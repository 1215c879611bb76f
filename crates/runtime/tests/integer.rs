//! Q/DQ chains run in integers: the formula of QLinearConv bit for bit, a step from the floats.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps nothing")]

use edgesmith_ir::{Attribute, DType, Graph, Model, Node, Tensor, TensorType, ValueId, eval};
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::Rng;

const X_SCALE: f32 = 0.031;
const Y_SCALE: f32 = 0.047;
const Y_ZERO: i64 = 3;

/// A chain `Q → DQ → Conv(DQ, DQ) → Relu → Q → DQ` and its integers.
struct Chain {
    model: Model,
    bytes: ValueId,
    weights: Vec<i8>,
    bias: Vec<i32>,
    scales: Vec<f32>,
}

const CHANNELS: usize = 5;
const OUT: usize = 6;
const SIDE: usize = 7;

fn dequantize(g: &mut Graph, data: ValueId, scale: Tensor, zero: Tensor, name: &str) -> ValueId {
    let s = g.add_constant(&format!("{name}.s"), scale);
    let z = g.add_constant(&format!("{name}.z"), zero);
    let node = Node::new("DequantizeLinear", name).with("axis", Attribute::Int(0));
    g.add_op(node, &[data, s, z], name)
}

fn chain(seed: u64) -> Chain {
    let mut rng = Rng::new(seed);
    let mut byte = |n: usize| -> Vec<i8> { (0..n).map(|_| rng.below(255) as i8).collect() };
    let weights = byte(OUT * CHANNELS * 9);
    let bias: Vec<i32> = byte(OUT).iter().map(|&b| i32::from(b) * 37).collect();
    let scales: Vec<f32> = (0..OUT).map(|i| 0.002 + 0.0007 * i as f32).collect();
    let mut g = Graph::new("chain");
    let dims = [2, CHANNELS, SIDE, SIDE];
    let x = g.add_input("x", TensorType::fixed(DType::F32, &dims));
    let s = g.add_constant("x.s", Tensor::scalar(X_SCALE));
    let z = g.add_constant("x.z", Tensor::scalar(-4i8));
    let q = g.add_op(Node::new("QuantizeLinear", "xq"), &[x, s, z], "xq");
    let xd = g.add_op(Node::new("DequantizeLinear", "xd"), &[q, s, z], "xd");
    let w = Tensor::from_vec(&[OUT, CHANNELS, 3, 3], weights.clone()).unwrap();
    let w = g.add_constant("w", w);
    let zeros = Tensor::vector(vec![0i8; OUT]);
    let wd = dequantize(&mut g, w, Tensor::vector(scales.clone()), zeros, "wd");
    let b = g.add_constant("b", Tensor::vector(bias.clone()));
    let sums = scales.iter().map(|s| s * X_SCALE).collect();
    let zeros = Tensor::vector(vec![0i32; OUT]);
    let bd = dequantize(&mut g, b, Tensor::vector(sums), zeros, "bd");
    let conv = Node::new("Conv", "conv").with("pads", Attribute::Ints(vec![1; 4]));
    let y = g.add_op(conv, &[xd, wd, bd], "y");
    let r = g.add_op(Node::new("Relu", "relu"), &[y], "r");
    let s = g.add_constant("y.s", Tensor::scalar(Y_SCALE));
    let z = g.add_constant("y.z", Tensor::scalar(Y_ZERO as u8));
    let bytes = g.add_op(Node::new("QuantizeLinear", "yq"), &[r, s, z], "yq");
    g.outputs.push(bytes);
    Chain {
        model: Model::new(g, 17),
        bytes,
        weights,
        bias,
        scales,
    }
}

/// `clamp(round(float(sum) * x.scale * w.scale / y.scale) + zero)` with sums of 64 bits.
fn by_formula(chain: &Chain, x: &[f32]) -> Vec<i64> {
    let byte = |v: &f32| (i64::from((v / X_SCALE).round_ties_even() as i32) - 4).clamp(-128, 127);
    let q: Vec<i64> = x.iter().map(byte).collect();
    let mut out = Vec::new();
    for i in 0..2 * OUT * SIDE * SIDE {
        let (n, o) = (i / (OUT * SIDE * SIDE), i / (SIDE * SIDE) % OUT);
        let (row, column) = (i / SIDE % SIDE, i % SIDE);
        let mut sum = i64::from(chain.bias[o]);
        for k in 0..CHANNELS * 9 {
            let (c, dy, dx) = (k / 9, k / 3 % 3, k % 3);
            let (r, s) = (row + dy, column + dx);
            if (1..=SIDE).contains(&r) && (1..=SIDE).contains(&s) {
                let at = ((n * CHANNELS + c) * SIDE + r - 1) * SIDE + s - 1;
                sum += (q[at] + 4) * i64::from(chain.weights[o * CHANNELS * 9 + k]);
            }
        }
        let mult = X_SCALE * chain.scales[o] / Y_SCALE;
        let real = (sum as f32 * mult).round_ties_even() as i64 + Y_ZERO;
        out.push(real.clamp(Y_ZERO, 255));
    }
    out
}

#[test]
fn a_quantised_conv_is_the_formula_bit_for_bit_and_a_step_from_the_floats() {
    for seed in 0..8 {
        let chain = chain(seed);
        let x = Rng::new(seed + 100).floats(&[2, CHANNELS, SIDE, SIDE], -4.0, 4.0);
        let inputs = [("x", x.clone())];
        let mut answers = Vec::new();
        for threads in [1, 2] {
            let options = Options {
                threads,
                ..Options::default()
            };
            let mut session = Session::prepare(&chain.model, &options).unwrap();
            answers.push(session.run(&inputs).unwrap().remove(0).to_i64().unwrap());
            for name in ["conv", "relu", "yq"] {
                let placed = session
                    .placements()
                    .iter()
                    .find(|p| p.node == name)
                    .unwrap();
                assert!(placed.integer, "{name} runs in integers");
            }
        }
        assert_eq!(
            answers[0], answers[1],
            "seed {seed}: threads change nothing"
        );
        assert_eq!(
            answers[0],
            by_formula(&chain, &x.data().unwrap()),
            "seed {seed}"
        );
        let floats = eval::evaluate(&chain.model, &inputs).unwrap()[0]
            .to_i64()
            .unwrap();
        let far = answers[0]
            .iter()
            .zip(&floats)
            .map(|(a, b)| (a - b).abs())
            .max();
        assert!(far <= Some(1), "seed {seed}: {far:?} steps from the floats");
    }
}

#[test]
fn literal_q_and_dq_mark_nothing_as_integer() {
    let chain = chain(1);
    let x = Rng::new(7).floats(&[2, CHANNELS, SIDE, SIDE], -4.0, 4.0);
    let options = Options {
        integer: false,
        ..Options::default()
    };
    let mut session = Session::prepare(&chain.model, &options).unwrap();
    let found = session.run(&[("x", x.clone())]).unwrap()[0]
        .to_i64()
        .unwrap();
    assert!(session.placements().iter().all(|p| !p.integer));
    let floats = eval::evaluate(&chain.model, &[("x", x)]).unwrap()[0]
        .to_i64()
        .unwrap();
    let far = found.iter().zip(&floats).map(|(a, b)| (a - b).abs()).max();
    assert!(far <= Some(1), "{far:?}");
}

#[test]
fn a_watched_value_is_shown_and_keeps_its_floats() {
    let chain = chain(2);
    let conv = chain.model.graph.find_value("y").unwrap();
    let x = Rng::new(9).floats(&[2, CHANNELS, SIDE, SIDE], -4.0, 4.0);
    let inputs = [("x", x)];
    let mut expected = None;
    eval::evaluate_with(&chain.model, &inputs, &mut |v, t| {
        if v == conv {
            expected = Some(t.clone());
        }
    })
    .unwrap();
    let mut session = Session::prepare(&chain.model, &Options::default()).unwrap();
    let mut shown = Vec::new();
    session
        .run_watching(&inputs, &[conv, chain.bytes], &mut |v, t| {
            shown.push((v, t.tensor().unwrap()))
        })
        .unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!((shown[0].0, shown[1].0), (conv, chain.bytes));
    let tolerance = edgesmith_testkit::Tolerance::ROUNDING;
    edgesmith_testkit::assert_close(&shown[0].1, &expected.unwrap(), tolerance);
}

#[test]
fn signed_bytes_are_shown_as_the_file_says() {
    let chain = chain(3);
    let q = chain.model.graph.find_value("xq").unwrap();
    let inputs = [(
        "x",
        Rng::new(11).floats(&[2, CHANNELS, SIDE, SIDE], -4.0, 4.0),
    )];
    let mut expected = None;
    eval::evaluate_with(&chain.model, &inputs, &mut |v, t| {
        if v == q {
            expected = Some(t.clone());
        }
    })
    .unwrap();
    let mut session = Session::prepare(&chain.model, &Options::default()).unwrap();
    let alone = session.run(&inputs).unwrap();
    let mut shown = None;
    let watched = session
        .run_watching(&inputs, &[q], &mut |_, t| shown = t.tensor().ok())
        .unwrap();
    assert_eq!(shown, expected);
    assert_eq!(alone, watched);
}

#[test]
fn another_batch_is_planned_anew_and_a_wrong_shape_is_refused() {
    let mut g = Graph::new("g");
    let dims = edgesmith_ir::Shape(
        [edgesmith_ir::Dim::symbol("batch"), 3.into()]
            .into_iter()
            .collect(),
    );
    let x = g.add_input("x", TensorType::new(DType::F32, dims));
    let y = g.add_op(Node::new("Relu", "r"), &[x], "y");
    g.outputs.push(y);
    let mut session = Session::prepare(&Model::new(g, 17), &Options::default()).unwrap();
    for batch in [4, 1, 4, 9] {
        let x = Rng::new(batch as u64).floats(&[batch, 3], 0.0, 1.0);
        assert_eq!(session.run(&[("x", x.clone())]).unwrap(), [x]);
    }
    let wrong = Rng::new(1).floats(&[2, 4], 0.0, 1.0);
    let error = session.run(&[("x", wrong)]).unwrap_err().to_string();
    assert!(
        error.contains("f32[batch,3]") && error.contains("f32[2,4]"),
        "{error}"
    );
    let error = session
        .run(&[("z", Tensor::scalar(0f32))])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no input \"z\"") && error.contains('x'),
        "{error}"
    );
}

#[test]
fn four_bits_in_bytes_and_packed_weights_meet_integer_kernels() {
    let body = "opset 21 graph g(x: f32[2,2,5,5]) -> (y) {
        s: f32[] = {0.07} z: u8[] = {6} low: u8[] = {0} high: u8[] = {15}
        w: i4[3,2,3,3] = {hex\"f7e1283c5d0947a6b18f72c3e94d0561823a7f4bd6c5e91f28037b\"}
        ws: f32[3] = {0.1,0.05,0.2} wz: i4[3] = {hex\"0000\"}
        b: i32[3] = {10,-20,30} bs: f32[3] = {0.007,0.0035,0.014}
        m: i4[75,4] = {hex\"MATRIX\"} ms: f32[4] = {0.1,0.05,0.2,0.03} t: f32[] = {0.3}
        q = QuantizeLinear(x, s, z) c = Clip(q, low, high) d = DequantizeLinear(c, s, z)
        wd = DequantizeLinear(w, ws, wz) {axis=0} bd = DequantizeLinear(b, bs) {axis=0}
        conv = Conv(d, wd, bd) {pads=[1,1,1,1], name=\"conv\"}
        q2 = QuantizeLinear(conv, t, z) c2 = Clip(q2, low, high) d2 = DequantizeLinear(c2, t, z)
        f = Flatten(d2) q3 = QuantizeLinear(f, t, z) c3 = Clip(q3, low, high) d3 = DequantizeLinear(c3, t, z)
        md = DequantizeLinear(m, ms) {axis=1}
        y = MatMul(d3, md) {name=\"product\"} }";
    let mut rng = Rng::new(5);
    let matrix: String = (0..150)
        .map(|_| format!("{:02x}", rng.below(256)))
        .collect();
    let body = body.replace("MATRIX", &matrix);
    let model = edgesmith_ir::text::parse(&body).unwrap();
    let inputs = [("x", rng.floats(&[2, 2, 5, 5], -1.0, 1.0))];
    let expected = eval::evaluate(&model, &inputs).unwrap();
    let mut session = Session::prepare(&model, &Options::default()).unwrap();
    let found = session.run(&inputs).unwrap();
    let close = edgesmith_testkit::Tolerance {
        relative: 1e-5,
        absolute: 1e-5,
    };
    edgesmith_testkit::assert_close(&found[0], &expected[0], close);
    let placed = session.placements().iter();
    let kernels: Vec<_> = placed
        .filter(|p| ["conv", "product"].contains(&p.node.as_str()))
        .collect();
    assert!(
        kernels.len() == 2 && kernels.iter().all(|p| p.integer),
        "{kernels:?}"
    );
}

#[test]
fn a_bias_of_floats_and_a_function_run_within_a_product_of_bytes() {
    let body = "opset 20 graph g(x: f32[2,3,4]) -> (y) {
        s: f32[] = {0.02} z: u8[] = {120} t: f32[] = {0.05}
        w: i8[4,5] = {11,-7,127,0,64,-128,3,9,-33,21,5,-90,70,1,-2,44,-51,13,8,-6}
        ws: f32[5] = {0.01,0.02,0.005,0.03,0.015} bias: f32[5] = {0.3,-0.21,0.07,1.5,-2}
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        wd = DequantizeLinear(w, ws) {axis=1}
        product = MatMul(d, wd) {name=\"product\"} sum = Add(bias, product) {name=\"sum\"}
        g = FUNCTION(sum) {name=\"function\"}
        y = QuantizeLinear(g, t, z) }";
    for function in ["Gelu", "Relu", "Tanh"] {
        let model = edgesmith_ir::text::parse(&body.replace("FUNCTION", function)).unwrap();
        let inputs = [("x", Rng::new(3).floats(&[2, 3, 4], -2.0, 2.0))];
        let expected = eval::evaluate(&model, &inputs).unwrap()[0]
            .to_i64()
            .unwrap();
        let mut session = Session::prepare(&model, &Options::default()).unwrap();
        let found = session.run(&inputs).unwrap()[0].to_i64().unwrap();
        let far = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        assert!(far.max() <= Some(1), "{function}");
        for name in ["product", "sum", "function"] {
            let mut placed = session.placements().iter();
            let placed = placed.find(|p| p.node == name).unwrap();
            assert!(placed.integer && placed.kernel.contains("8"), "{placed:?}");
        }
    }
}

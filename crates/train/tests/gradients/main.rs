//! Every rule against central differences of the reference evaluation, in f64.
#![allow(clippy::unwrap_used, reason = "what fails in a test should panic")]

use edgesmith_ir::eval::evaluate;
use edgesmith_ir::text::example;
use edgesmith_ir::{DType, Model, Node, Tensor, ValueId, infer};
use edgesmith_testkit::Rng;
use edgesmith_train::{differentiate, grad};

/// Uses beside the examples of the operators: shapes that broadcast, axes, edges.
const MORE: &[&str] = &[
    "Add(f64[2,3], f64[3])",
    "Add(f64[2,1], f64[4,1,3])",
    "Sub(f64[2,3], f64[])",
    "Mul(f64[2,3], f64[2,1])",
    "Div(f64[2,3], f64[3]{1.5,-2,0.7})",
    "Pow(f64[3]{0.5,1.5,2.5}, f64[2,3])",
    "Pow(f64[2,3], f64[]{2})",
    "Max(f64[2,3], f64[3], f64[1])",
    "Min(f64[2,3], f64[3])",
    "Sum(f64[2,3], f64[3], f64[1])",
    "Mean(f64[2,3], f64[3])",
    "Where(bool[3]{true,false,true}, f64[2,3], f64[1])",
    "PRelu(f64[2,3], f64[3])",
    "Clip(f64[2,3], f64[]{-0.3}, f64[]{0.2})",
    "Acosh(f64[3]{1.5,2,3})",
    "Log(f64[3]{0.5,1.5,2.5})",
    "Sqrt(f64[3]{0.5,1.5,2.5})",
    "Reciprocal(f64[3]{0.5,-1.5,2.5})",
    "Tan(f64[3]{0.5,-0.5,1})",
    "Acos(f64[3]{0.5,-0.5,0.1})",
    "Asin(f64[3]{0.5,-0.5,0.1})",
    "Atanh(f64[3]{0.5,-0.5,0.1})",
    "HardSwish(f64[4]{-4,-1,1,4})",
    "Gelu(f64[2,3]) {approximate=\"tanh\"}",
    "com.microsoft.Gelu(f64[2,3])",
    "MatMul(f64[2,3], f64[3,4])",
    "MatMul(f64[2,5,3], f64[3,4])",
    "MatMul(f64[5,3], f64[2,3,4])",
    "MatMul(f64[3], f64[3])",
    "MatMul(f64[3], f64[2,3,4])",
    "MatMul(f64[5,3], f64[3])",
    "MatMul(f64[2,1,5,3], f64[4,3,2])",
    "com.microsoft.FusedMatMul(f64[2,3,5], f64[2,3,4]) {transA=1, alpha=0.5}",
    "com.microsoft.FusedMatMul(f64[2,5,3], f64[4,3]) {transB=1}",
    "com.microsoft.FusedMatMul(f64[2,3,5], f64[4,3]) {transA=1, transB=1}",
    "Gemm(f64[2,3], f64[3,4], f64[4])",
    "Gemm(f64[3,2], f64[4,3], f64[2,1]) {transA=1, transB=1, alpha=0.5, beta=2.0}",
    "Gemm(f64[2,3], f64[4,3]) {transB=1}",
    "Gemm(f64[3,2], f64[3,4], f64[]) {transA=1}",
    "Conv(f64[2,4,5,6], f64[6,2,3,2], f64[6]) {group=2, pads=[1,0,2,1], strides=[2,1]}",
    "Conv(f64[1,3,7,7], f64[2,3,3,3]) {dilations=[2,2]}",
    "Conv(f64[2,4,5,5], f64[4,1,3,3], f64[4]) {group=4, pads=[1,1,1,1]}",
    "Conv(f64[1,2,3,4,3], f64[2,2,2,2,2])",
    "ConvTranspose(f64[2,4,3,3], f64[4,2,3,3], f64[2]) {strides=[2,2], output_padding=[1,1]}",
    "ConvTranspose(f64[1,4,4], f64[4,3,3], f64[6]) {group=2, pads=[1,1]}",
    "AveragePool(f64[1,2,5,5]) {kernel_shape=[2,2], strides=[2,2], ceil_mode=1}",
    "MaxPool(f64[2,2,5,5]) {kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]}",
    "BatchNormalization(f64[4,3,2], f64[3], f64[3], f64[3], f64[3]{1,2,3}) {training_mode=1}",
    "BatchNormalization(f64[4,3], f64[3], f64[3], f64[3], f64[3]{1,2,3}) {training_mode=1}",
    "LayerNormalization(f64[2,3,4], f64[3,4], f64[3,4]) {axis=1}",
    "LayerNormalization(f64[2,3,4], f64[4])",
    "Softmax(f64[2,3,4]) {axis=1}",
    "LogSoftmax(f64[2,3,4]) {axis=0}",
    "SoftmaxCrossEntropyLoss(f64[3,5], i64[3]{1,0,4}, f64[5]{1,2,3,4,5})",
    "SoftmaxCrossEntropyLoss(f64[2,3,2], i64[2,2]{2,1,-1,2}) {ignore_index=-1}",
    "SoftmaxCrossEntropyLoss(f64[2,3,2], i64[2,2]{2,1,-1,2}) {ignore_index=-1,reduction=\"none\"}",
    "NegativeLogLikelihoodLoss(f64[2,3,2], i64[2,2]{2,1,0,2}) {reduction=\"sum\"}",
    "Gather(f64[4,3], i64[2,2]{0,-1,2,0})",
    "Gather(f64[2,4], i64[3]{1,1,3}) {axis=1}",
    "GatherElements(f64[3,2], i64[2,2]{0,1,2,0})",
    "GatherND(f64[3,2], i64[3,1]{0,2,0})",
    "Slice(f64[4,5], i64[2]{3,0}, i64[2]{0,5}, i64[2]{0,1}, i64[2]{-1,2})",
    "Pad(f64[2,3], i64[4]{0,1,0,2})",
    "Pad(f64[2,3], i64[4]{0,1,0,2}) {mode=\"reflect\"}",
    "Pad(f64[2,3], i64[4]{1,1,0,2}) {mode=\"edge\"}",
    "Tile(f64[2,3], i64[2]{2,3})",
    "Expand(f64[3,1], i64[3]{2,3,4})",
    "Concat(f64[2,1], f64[2,3]) {axis=1}",
    "Split(f64[2,5], i64[2]{2,3}) {axis=1} -> 2",
    "Transpose(f64[2,3,4]) {perm=[2,0,1]}",
    "Reshape(f64[2,6], i64[2]{3,-1})",
    "Squeeze(f64[2,1,3], i64[1]{1})",
    "Trilu(f64[3,3]) {upper=0}",
    "CumSum(f64[2,4], i64{1}) {exclusive=1}",
    "ReduceSum(f64[2,3,4], i64[2]{0,2}) {keepdims=0}",
    "ReduceSum(f64[2,3,4])",
    "ReduceMean(f64[2,3,4], i64[1]{1})",
    "ReduceMax(f64[2,3,4], i64[2]{1,-1}) {keepdims=0}",
    "ReduceL2(f64[2,3], i64[1]{1}) {keepdims=0}",
    "ReduceLogSumExp(f64[2,3], i64[1]{1}) {keepdims=0}",
    "ReduceSumSquare(f64[2,3]) {keepdims=0}",
    "DequantizeLinear(i8[2,3], f64[3]{0.1,0.2,0.3}) {axis=1}",
];

/// Inputs that have no gradient: integers, and statistics that training does not move.
const FIXED: &[(&str, &[usize])] = &[
    ("BatchNormalization", &[3, 4]),
    ("Clip", &[1, 2]),
    ("Pad", &[2]),
    ("SoftmaxCrossEntropyLoss", &[2]),
    ("NegativeLogLikelihoodLoss", &[2]),
];

/// A loss: each output times random numbers, summed.
fn with_loss(model: Model, seed: u64) -> (Model, ValueId) {
    weighed(model, seed).expect("a floating-point output")
}

/// As [`with_loss`]; `None` where no output is of floats.
fn weighed(mut model: Model, seed: u64) -> Option<(Model, ValueId)> {
    let inferred = infer::infer(&model, &[]).unwrap();
    let mut rng = Rng::new(seed);
    let graph = &mut model.graph;
    let mut sum = None;
    for o in graph.outputs.clone() {
        let ty = inferred.tensor(o).unwrap();
        if !ty.dtype.is_float() {
            continue;
        }
        let dims = ty.shape.as_ref().unwrap().known().unwrap();
        let count = dims.iter().product();
        let data: Vec<f64> = (0..count)
            .map(|_| f64::from(rng.uniform(-1.0, 1.0)))
            .collect();
        let name = graph.fresh_name("weights");
        let weights = graph.add_constant(&name, Tensor::from_vec(&dims, data).unwrap());
        let product = graph.add_op(Node::new("Mul", "weigh"), &[o, weights], "weighed");
        let keep = edgesmith_ir::Attribute::Int(0);
        let node = Node::new("ReduceSum", "loss").with("keepdims", keep);
        let one = graph.add_op(node, &[product], "loss");
        sum = Some(match sum {
            None => one,
            Some(s) => graph.add_op(Node::new("Add", "both"), &[s, one], "loss"),
        });
    }
    let loss = sum?;
    graph.outputs = vec![loss];
    Some((model, loss))
}

/// The operator, with every float in f64.
fn in_f64(text: &str) -> String {
    text.replace("f32", "f64")
}

fn run(model: &Model, inputs: &[(String, Tensor)]) -> Vec<Tensor> {
    let named: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();
    evaluate(model, &named).unwrap_or_else(|e| panic!("{e}"))
}

/// Integers are constants, as axes and lengths of trained models are.
fn with_constants(mut model: Model, given: Vec<Tensor>) -> (Model, Vec<Tensor>) {
    let mut left = Vec::new();
    for (v, t) in model.graph.inputs.clone().into_iter().zip(given) {
        if t.dtype() == DType::I64 {
            model.graph.value_mut(v).constant = Some(t);
            model.graph.inputs.retain(|i| *i != v);
        } else {
            left.push(t);
        }
    }
    (model, left)
}

/// The same numbers moved a little, so that no two are equal: where they are, a maximum has a kink.
fn apart(t: Tensor, rng: &mut Rng) -> Tensor {
    if t.dtype() != DType::F64 || t.count() < 2 {
        return t;
    }
    let data = t.data::<f64>().unwrap();
    let moved = data.iter().map(|x| x + f64::from(rng.uniform(-1e-2, 1e-2)));
    Tensor::from_vec(t.dims(), moved.collect()).unwrap()
}

/// The gradients of an example and their central differences.
fn compare(text: &str, seed: u64) {
    let (model, given) = example(&in_f64(text)).unwrap_or_else(|e| panic!("{text}: {e}"));
    let op = model.graph.nodes().next().unwrap().1.op.clone();
    if model.opset() < 13 {
        return;
    }
    let (model, given) = with_constants(model, given);
    let Some((mut model, loss)) = weighed(model, seed) else {
        return;
    };
    let mut rng = Rng::new(seed);
    let mut inputs: Vec<(String, Tensor)> = model
        .graph
        .inputs
        .iter()
        .zip(given)
        .map(|(&v, t)| (model.graph.value(v).name.clone(), apart(t, &mut rng)))
        .collect();
    let fixed = FIXED
        .iter()
        .find(|(o, _)| *o == op)
        .map_or(&[][..], |f| f.1);
    let node_inputs = model.graph.nodes().next().unwrap().1.inputs().to_vec();
    let is_fixed = |v: ValueId| {
        let place = node_inputs.iter().position(|i| *i == Some(v));
        place.is_some_and(|p| fixed.contains(&p))
    };
    let wanted: Vec<ValueId> = model.graph.inputs.clone();
    let wanted: Vec<ValueId> = wanted
        .into_iter()
        .filter(|&v| {
            let ty = model.graph.value(v).tensor_type();
            ty.is_some_and(|t| t.dtype == DType::F64) && !is_fixed(v)
        })
        .collect();
    if wanted.is_empty() {
        return;
    }
    let plain = model.clone();
    let gradients =
        differentiate(&mut model, loss, &wanted).unwrap_or_else(|e| panic!("{text}: {e}"));
    model.graph.outputs = gradients.iter().flatten().copied().collect();
    edgesmith_testkit::check(&model);
    let found = run(&model, &inputs);
    let mut found = found.into_iter();
    for (v, gradient) in wanted.iter().zip(gradients) {
        let at = plain.graph.inputs.iter().position(|i| i == v).unwrap();
        let x: Vec<f64> = inputs[at].1.data::<f64>().unwrap().to_vec();
        let dims = inputs[at].1.dims().to_vec();
        let found: Vec<f64> = match gradient {
            Some(_) => {
                let g = found.next().unwrap();
                assert_eq!(g.dims(), dims, "{text}: shape of gradient {at}");
                g.data::<f64>().unwrap().to_vec()
            }
            None => vec![0.0; x.len()],
        };
        let scale = found.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for i in 0..x.len() {
            let step = 1e-5 * x[i].abs().max(1.0);
            let mut at_step = |h: f64| {
                let mut moved = x.clone();
                moved[i] += h;
                inputs[at].1 = Tensor::from_vec(&dims, moved).unwrap();
                run(&plain, &inputs)[0].data::<f64>().unwrap()[0]
            };
            let expected = (at_step(step) - at_step(-step)) / (2.0 * step);
            if expected.is_nan() {
                continue; // The function has no value there.
            }
            let is_near = (found[i] - expected).abs() <= 1e-6 * scale;
            let found = found[i];
            assert!(
                is_near,
                "{text}: gradient {at} element {i}: {found} and not {expected}"
            );
        }
        inputs[at].1 = Tensor::from_vec(&dims, x).unwrap();
    }
}

/// Steps are not small beside these operators' own.
const STEPPED: &[&str] = &["QuantizeLinear", "Ceil", "Floor", "Round", "Sign"];

#[test]
fn examples_of_every_operator_with_a_rule_equal_central_differences() {
    for rule in grad::RULES.iter().filter(|r| !STEPPED.contains(&r.op)) {
        let def = edgesmith_ir::ops::find(rule.domain, rule.op).unwrap();
        for (i, text) in def.examples.iter().enumerate() {
            // Half precision and integers have no differences; a random Dropout and swapped batches have no rule.
            let skipped = ["f16", "i32[2,3]", "seed=", "transBatch"];
            if skipped.iter().any(|s| text.contains(s)) || text.contains("f8") {
                continue;
            }
            compare(text, i as u64);
        }
    }
}

#[test]
fn further_uses_equal_central_differences() {
    for (i, text) in MORE.iter().enumerate() {
        for seed in 0..3 {
            compare(text, 100 * seed + i as u64);
        }
    }
}

/// The gradient of the sum of DQ(Q(x)) by learned step size quantisation, in closed form.
#[test]
fn quantisation_passes_straight_through_and_teaches_its_step() {
    let text = "opset 19 graph g(x: f64[5], s: f64[]) -> (y) {
        q = QuantizeLinear(x, s) {output_dtype=3}
        y = DequantizeLinear(q, s)
    }";
    let model = edgesmith_ir::text::parse(text).unwrap();
    let (mut model, loss) = with_loss(model, 7);
    let weights: Vec<f64> = {
        let constants = model.graph.values().filter_map(|(_, v)| v.constant.clone());
        constants.last().unwrap().data::<f64>().unwrap().to_vec()
    };
    let wanted = model.graph.inputs.clone();
    let made = differentiate(&mut model, loss, &wanted).unwrap();
    model.graph.outputs = made.into_iter().flatten().collect();
    let (x, s) = ([0.31, -0.12, 200.0, -300.0, 0.05], 0.1);
    let inputs = [
        ("x".to_owned(), Tensor::vector(x.to_vec())),
        ("s".to_owned(), Tensor::scalar(s)),
    ];
    let found = run(&model, &inputs);
    let (dx, ds) = (
        found[0].data::<f64>().unwrap(),
        found[1].data::<f64>().unwrap(),
    );
    let mut expected = 0.0;
    for (i, (&x, w)) in x.iter().zip(&weights).enumerate() {
        let v: f64 = x / s;
        let inside = v.round_ties_even().clamp(-128.0, 127.0) == v.round_ties_even();
        assert!((dx[i] - if inside { *w } else { 0.0 }).abs() < 1e-12);
        expected += w * if inside {
            v.round_ties_even() - v
        } else {
            v.clamp(-128.0, 127.0)
        };
    }
    assert!((ds[0] - expected).abs() < 1e-9, "{} {expected}", ds[0]);
}

#[test]
fn a_value_without_a_rule_is_named() {
    let text = "opset 17 graph g(x: f64[3,3]) -> (y) { y = Det(x) }";
    let model = edgesmith_ir::text::parse(text).unwrap();
    let (mut model, loss) = with_loss(model, 1);
    let wanted = model.graph.inputs.clone();
    let error = differentiate(&mut model, loss, &wanted)
        .unwrap_err()
        .to_string();
    assert!(error.contains("\"y\"") && error.contains("Det"), "{error}");
}

#[test]
fn a_value_that_the_loss_does_not_depend_on_has_no_gradient() {
    let text = "opset 17 graph g(x: f64[2], z: f64[2]) -> (y) { y = Relu(x) w = Relu(z) }";
    let model = edgesmith_ir::text::parse(text).unwrap();
    let (mut model, loss) = with_loss(model, 1);
    let wanted = model.graph.inputs.clone();
    let made = differentiate(&mut model, loss, &wanted).unwrap();
    assert!(made[0].is_some() && made[1].is_none());
}

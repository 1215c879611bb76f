//! What tells whether a gradient is right: central differences of the reference evaluation, in f64.
//!
//! A gradient is right where it is within 1e-6 of the largest of its tensor of a difference, by two points
//! or, where those are too far apart for that, by four; beside that only what is lost where two
//! losses are rounded counts as nothing.

use edgesmith_ir::eval::evaluate;
use edgesmith_ir::text::example;
use edgesmith_ir::{DType, Model, Node, Tensor, ValueId};
use edgesmith_testkit::Rng;
use edgesmith_train::differentiate;

/// Inputs that have no gradient: integers, and statistics that training does not move.
const FIXED: &[(&str, &[usize])] = &[
    ("BatchNormalization", &[3, 4]),
    ("Clip", &[1, 2]),
    ("Pad", &[2]),
    ("Resize", &[1, 2]),
    ("Upsample", &[1]),
    ("SoftmaxCrossEntropyLoss", &[2]),
    ("NegativeLogLikelihoodLoss", &[2]),
    ("RotaryEmbedding", &[1, 2, 3]),
];

/// A loss: each output of f64 times random numbers, summed; `None` where there is none.
pub fn weighed(
    mut model: Model,
    inputs: &[(String, Tensor)],
    seed: u64,
) -> Option<(Model, ValueId)> {
    let found = run(&model, inputs);
    let mut rng = Rng::new(seed);
    let graph = &mut model.graph;
    let mut sum = None;
    for (o, found) in graph.outputs.clone().into_iter().zip(found) {
        if found.dtype() != DType::F64 {
            continue;
        }
        let data = (0..found.count()).map(|_| f64::from(rng.uniform(-1.0, 1.0)));
        let name = graph.fresh_name("weights");
        let data = Tensor::from_vec(found.dims(), data.collect()).unwrap();
        let weights = graph.add_constant(&name, data);
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

/// The outputs for inputs by name.
pub fn run(model: &Model, inputs: &[(String, Tensor)]) -> Vec<Tensor> {
    let named: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();
    evaluate(model, &named).unwrap_or_else(|e| panic!("{e}"))
}

/// Integers are constants, as axes and lengths of trained models are; floats are inputs, but those
/// that are `fixed`.
fn with_constants(
    mut model: Model,
    given: Vec<Tensor>,
    fixed: &dyn Fn(ValueId) -> bool,
) -> (Model, Vec<Tensor>) {
    let mut left = Vec::new();
    let graph = &mut model.graph;
    for (v, t) in graph.inputs.clone().into_iter().zip(given) {
        if t.dtype() == DType::I64 {
            graph.value_mut(v).constant = Some(t);
            graph.inputs.retain(|i| *i != v);
        } else {
            left.push(t);
        }
    }
    let literals: Vec<ValueId> = graph.values().map(|(v, _)| v).collect();
    for v in literals.into_iter().filter(|&v| !fixed(v)) {
        let is_float = |t: &mut Tensor| t.dtype() == DType::F64;
        if let Some(t) = graph.value_mut(v).constant.take_if(is_float) {
            graph.inputs.push(v);
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

/// The gradients of an example and their central differences; false where nothing has a gradient.
pub fn compare(text: &str, seed: u64) -> bool {
    // Each text has numbers of its own, wherever it stands in a list.
    let seed = text
        .bytes()
        .fold(seed, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    let (model, given) = example(&in_f64(text)).unwrap_or_else(|e| panic!("{text}: {e}"));
    let op = model.graph.nodes().next().unwrap().1.op.clone();
    if model.opset() < edgesmith_passes::OLDEST {
        return false;
    }
    let fixed = FIXED.iter().find(|(o, _)| *o == op);
    let fixed = fixed.map_or(&[][..], |f| f.1);
    let node_inputs = model.graph.nodes().next().unwrap().1.inputs().to_vec();
    let is_fixed = |v: ValueId| {
        let place = node_inputs.iter().position(|i| *i == Some(v));
        place.is_some_and(|p| fixed.contains(&p))
    };
    let (model, given) = with_constants(model, given, &is_fixed);
    let mut rng = Rng::new(seed);
    let names = model.graph.inputs.iter();
    let names = names.map(|&v| model.graph.value(v).name.clone());
    let inputs: Vec<(String, Tensor)> = names
        .zip(given)
        .map(|(name, t)| (name, apart(t, &mut rng)))
        .collect();
    let Some((model, loss)) = weighed(model, &inputs, seed) else {
        return false;
    };
    let wanted = model.graph.inputs.iter().copied().filter(|&v| {
        let ty = model.graph.value(v).tensor_type();
        ty.is_some_and(|t| t.dtype == DType::F64) && !is_fixed(v)
    });
    let wanted: Vec<ValueId> = wanted.collect();
    if wanted.is_empty() {
        return false;
    }
    equal_differences(text, &model, loss, &wanted, inputs);
    true
}

/// Asserts that the gradients of `loss` equal central differences of the model.
pub fn equal_differences(
    text: &str,
    plain: &Model,
    loss: ValueId,
    wanted: &[ValueId],
    mut inputs: Vec<(String, Tensor)>,
) {
    let mut model = plain.clone();
    let gradients =
        differentiate(&mut model, loss, wanted).unwrap_or_else(|e| panic!("{text}: {e}"));
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
        let scale = found.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for i in 0..x.len() {
            let mut at_step = |h: f64| {
                let mut moved = x.clone();
                moved[i] += h;
                inputs[at].1 = Tensor::from_vec(&dims, moved).unwrap();
                run(plain, &inputs)[0].data::<f64>().unwrap()[0]
            };
            let size = x[i].abs().max(1.0);
            let (two, rounding) = by_two_points(&mut at_step, 1e-5 * size);
            if two.is_nan() {
                continue; // The function has no value there.
            }
            let found = found[i];
            let is_near = |(expected, rounding): (f64, f64)| {
                (found - expected).abs() <= 1e-6 * scale + rounding
            };
            assert!(
                is_near((two, rounding)) || is_near(by_four_points(&mut at_step, 1e-3 * size)),
                "{text}: gradient {at} element {i}: {found} and not {two}, the largest {scale}"
            );
        }
        inputs[at].1 = Tensor::from_vec(&dims, x).unwrap();
    }
}

/// What is lost where sums of the size of a loss are rounded, in units of f64.
const ROUNDED: f64 = 16.0 * f64::EPSILON;

/// A slope of an error of the order of the step's square, and what rounding makes of it.
fn by_two_points(f: &mut dyn FnMut(f64) -> f64, step: f64) -> (f64, f64) {
    let [high, low] = [step, -step].map(f);
    let rounding = ROUNDED * high.abs().max(low.abs()).max(1.0) / step;
    ((high - low) / (2.0 * step), rounding)
}

/// A slope of an error of the order of the step's fourth power, and what rounding makes of it.
fn by_four_points(f: &mut dyn FnMut(f64) -> f64, step: f64) -> (f64, f64) {
    let near = by_two_points(f, step);
    let far = by_two_points(f, 2.0 * step);
    ((4.0 * near.0 - far.0) / 3.0, near.1)
}

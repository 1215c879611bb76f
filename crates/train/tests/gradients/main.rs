//! Every rule against central differences of the reference evaluation, in f64.
#![allow(clippy::unwrap_used, reason = "what fails in a test should panic")]

mod oracle;
mod shapes;
mod uses;

use edgesmith_ir::Tensor;
use edgesmith_train::{differentiate, grad};
use oracle::{compare, run, weighed};

/// Steps are not small beside these operators' own.
const STEPPED: &[&str] = &[
    "QuantizeLinear",
    "Ceil",
    "Floor",
    "Round",
    "Sign",
    "Hardmax",
];

/// Half precision has no differences; a random Dropout, swapped batches, products or limits that are
/// scattered, and the deviation of a norm have no rule.
const SKIPPED: &[&str] = &[
    "f16",
    "f8",
    "seed=",
    "transBatch",
    "reduction=\"m",
    "f32[3,4]) {axis=1} -> 2",
];

#[test]
fn examples_of_every_operator_with_a_rule_equal_central_differences() {
    let rules = grad::RULES.iter().map(|r| (r.domain, r.op));
    let unfused = grad::UNFUSED.iter().map(|u| (u.domain, u.op));
    for (domain, op) in rules.chain(unfused).filter(|(_, op)| !STEPPED.contains(op)) {
        let def = edgesmith_ir::ops::find(domain, op).unwrap();
        for text in def.examples {
            if !SKIPPED.iter().any(|s| text.contains(s)) {
                compare(text, 0);
            }
        }
    }
}

#[test]
fn further_uses_equal_central_differences() {
    let lists = [
        uses::MORE,
        uses::RECURRENT,
        uses::FURTHER,
        uses::FUSED,
        uses::OLDER,
    ];
    for text in lists.into_iter().flatten() {
        for seed in 0..3 {
            assert!(compare(text, seed), "{text}: nothing is compared");
        }
    }
}

#[test]
fn random_shapes_equal_central_differences() {
    for (family, text) in shapes::FAMILIES {
        for seed in 0..shapes::EACH {
            let text = text(&mut edgesmith_testkit::Rng::new(seed));
            assert!(
                compare(&text, seed),
                "{family}: {text}: nothing is compared"
            );
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
    let (x, s) = ([0.31, -0.12, 200.0, -300.0, 0.05], 0.1);
    let inputs = [
        ("x".to_owned(), Tensor::vector(x.to_vec())),
        ("s".to_owned(), Tensor::scalar(s)),
    ];
    let (mut model, loss) = weighed(model, &inputs, 7).unwrap();
    let weights: Vec<f64> = {
        let constants = model.graph.values().filter_map(|(_, v)| v.constant.clone());
        constants.last().unwrap().data::<f64>().unwrap().to_vec()
    };
    let wanted = model.graph.inputs.clone();
    let made = differentiate(&mut model, loss, &wanted).unwrap();
    model.graph.outputs = made.into_iter().flatten().collect();
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
    let inputs = edgesmith_testkit::random::inputs(&model, 1);
    let (mut model, loss) = weighed(model, &inputs, 1).unwrap();
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
    let inputs = edgesmith_testkit::random::inputs(&model, 1);
    let (mut model, loss) = weighed(model, &inputs, 1).unwrap();
    let wanted = model.graph.inputs.clone();
    let made = differentiate(&mut model, loss, &wanted).unwrap();
    assert!(made[0].is_some() && made[1].is_none());
}

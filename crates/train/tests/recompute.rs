//! Gradients are the same bits where values of the forward pass are computed again, in less memory.
#![allow(clippy::unwrap_used, reason = "what fails in a test should panic")]

use std::fmt::Write;

use edgesmith_ir::analysis::{liveness, peak_activations};
use edgesmith_ir::eval::evaluate;
use edgesmith_ir::text::parse;
use edgesmith_ir::{DType, Model, Node, Tensor, ValueId, infer};
use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_testkit::{Rng, random};
use edgesmith_train::differentiate;
use edgesmith_train::grad::{Keep, differentiate_keeping};

/// Blocks of a product, a norm and an activation, with a sum around each; the loss is the output.
fn deep(blocks: usize) -> Model {
    let mut text = String::from("opset 20 graph deep(x0: f32[32,16]) -> (loss) {\n");
    for i in 0..blocks {
        let w: Vec<String> = (0..256)
            .map(|k| format!("{:.2}", ((k * 7 + i) % 13) as f32 / 40.0 - 0.15))
            .collect();
        writeln!(
            text,
            "w{i}: f32[16,16] = {{{}}} g{i}: f32[16] = {{1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}}
             p{i} = MatMul(x{i}, w{i}) n{i} = LayerNormalization(p{i}, g{i})
             a{i} = Gelu(n{i}) x{} = Add(a{i}, x{i})",
            w.join(","),
            i + 1
        )
        .unwrap();
    }
    write!(text, "loss = ReduceSumSquare(x{blocks}) {{keepdims=0}} }}").unwrap();
    parse(&text).unwrap()
}

/// The constants of f32 that are trained.
fn weights(model: &Model) -> Vec<ValueId> {
    let constants = model.graph.values().filter(|(_, v)| v.constant.is_some());
    constants.map(|(v, _)| v).collect()
}

fn with_gradients(model: &Model, loss: ValueId, wanted: &[ValueId], keep: Keep) -> Model {
    let mut model = model.clone();
    let made = differentiate_keeping(&mut model, loss, wanted, keep).unwrap();
    model.graph.outputs = made.into_iter().flatten().collect();
    model.graph.outputs.push(loss);
    edgesmith_testkit::check(&model);
    model
}

fn bits(model: &Model, inputs: &[(String, Tensor)]) -> Vec<Tensor> {
    let named: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();
    evaluate(model, &named).unwrap()
}

/// The most values that are alive at one step, outputs left out.
fn alive(model: &Model) -> usize {
    let order = model.graph.order().unwrap();
    let mut ranges = liveness(&model.graph, &order);
    for v in &model.graph.outputs {
        ranges[v.index()] = None;
    }
    let alive = |step: usize| {
        let ranges = ranges.iter().flatten();
        ranges.filter(|r| r.first <= step && step <= r.last).count()
    };
    (0..order.len()).map(alive).max().unwrap()
}

fn bytes(model: &Model) -> usize {
    let inferred = infer::infer(model, &[]).unwrap();
    peak_activations(model, &inferred).unwrap().lower_bound
}

#[test]
fn a_deep_net_needs_less_memory_for_the_same_bits() {
    let model = deep(24);
    let (loss, wanted) = (model.graph.outputs[0], weights(&model));
    let inputs = random::inputs(&model, 5);
    let whole = with_gradients(&model, loss, &wanted, Keep::Everything);
    let expected = bits(&whole, &inputs);
    let by_name = |i: usize| model.graph.find_value(&format!("x{i}")).unwrap();
    let every_fifth: Vec<ValueId> = (5..24).step_by(5).map(by_name).collect();
    for keep in [Keep::Values(&every_fifth), Keep::Chosen] {
        let thrifty = with_gradients(&model, loss, &wanted, keep);
        assert_eq!(bits(&thrifty, &inputs), expected, "{keep:?}");
        let (kept, most) = (alive(&thrifty), alive(&whole));
        assert!(2 * kept < most, "{keep:?}: {kept} values and not {most}");
        // The gradients themselves are there at the end, in both.
        let gradients = 24 * (16 * 16 + 16) * 4;
        let (least, most) = (bytes(&thrifty) - gradients, bytes(&whole) - gradients);
        assert!(2 * least < most, "{keep:?}: {least} bytes and not {most}");
    }
}

#[test]
fn passes_leave_what_is_computed_again() {
    let model = deep(12);
    let (loss, wanted) = (model.graph.outputs[0], weights(&model));
    let mut whole = with_gradients(&model, loss, &wanted, Keep::Everything);
    let mut thrifty = with_gradients(&model, loss, &wanted, Keep::Chosen);
    for model in [&mut whole, &mut thrifty] {
        optimize(model, Level::Basic, &RunOptions::default()).unwrap();
    }
    let gradients = 12 * (16 * 16 + 16) * 4;
    let (least, most) = (bytes(&thrifty) - gradients, bytes(&whole) - gradients);
    assert!(2 * least < most, "{least} bytes and not {most}");
}

#[test]
fn a_net_with_bridges_keeps_what_crosses_a_cut() {
    let text = "opset 20 graph u(x: f32[1,2,8,8], w1: f32[4,2,3,3], w2: f32[4,4,3,3],
        w3: f32[4,8,3,3]) -> (loss) {
        none: f32[0] = {} twice: f32[4] = {1,1,2,2}
        a = Conv(x, w1) {pads=[1,1,1,1]} b = Gelu(a)
        c = MaxPool(b) {kernel_shape=[2,2],strides=[2,2]}
        d = Conv(c, w2) {pads=[1,1,1,1]} e = Gelu(d)
        f = Resize(e, none, twice) g = Concat(f, b) {axis=1}
        h = Conv(g, w3) {pads=[1,1,1,1]} i = Tanh(h)
        loss = ReduceSumSquare(i) {keepdims=0} }";
    let model = parse(text).unwrap();
    let (loss, wanted) = (model.graph.outputs[0], model.graph.inputs.clone());
    let inputs = random::inputs(&model, 2);
    let whole = with_gradients(&model, loss, &wanted, Keep::Everything);
    let ends = ["c", "e"].map(|n| model.graph.find_value(n).unwrap());
    let thrifty = with_gradients(&model, loss, &wanted, Keep::Values(&ends));
    assert_eq!(bits(&thrifty, &inputs), bits(&whole, &inputs));
    let again = |m: &Model| {
        m.graph
            .nodes()
            .filter(|(_, n)| n.name.ends_with("/again"))
            .count()
    };
    // Two convolutions; their activations end a segment or are read beyond it.
    assert_eq!((again(&whole), again(&thrifty)), (0, 2));
}

/// A sum of squares of the outputs of f32.
fn with_loss(mut model: Model) -> Option<(Model, ValueId)> {
    let inferred = infer::infer(&model, &[]).unwrap();
    let graph = &mut model.graph;
    let mut loss = None;
    for o in graph.outputs.clone() {
        if inferred.tensor(o).is_some_and(|t| t.dtype == DType::F32) {
            let node = Node::new("ReduceSumSquare", "");
            let keep = edgesmith_ir::Attribute::Int(0);
            let one = graph.add_op(node.with("keepdims", keep), &[o], "loss");
            loss = Some(match loss {
                None => one,
                Some(sum) => graph.add_op(Node::new("Add", ""), &[sum, one], "loss"),
            });
        }
    }
    graph.outputs = vec![loss?];
    Some((model, loss?))
}

#[test]
fn random_graphs_give_the_same_bits_wherever_they_are_cut() {
    let mut compared = 0;
    for seed in 0..300 {
        let Some((model, loss)) = with_loss(random::graph(seed)) else {
            continue;
        };
        let wanted = model.graph.inputs.clone();
        if differentiate(&mut model.clone(), loss, &wanted).is_err() {
            continue;
        }
        let inputs = random::inputs_with(&model, seed, &[("batch", 2)]);
        let expected = bits(
            &with_gradients(&model, loss, &wanted, Keep::Everything),
            &inputs,
        );
        let mut rng = Rng::new(seed);
        let made = model.graph.values().filter(|(_, v)| v.producer().is_some());
        let ends: Vec<ValueId> = made.map(|(v, _)| v).filter(|_| rng.one_in(3)).collect();
        for keep in [Keep::Values(&ends), Keep::Chosen] {
            let found = bits(&with_gradients(&model, loss, &wanted, keep), &inputs);
            for (a, b) in found.iter().zip(&expected) {
                assert!(a.bytes() == b.bytes(), "seed {seed}, {keep:?}");
            }
        }
        compared += 1;
    }
    assert!(compared > 100, "{compared} graphs have gradients");
}

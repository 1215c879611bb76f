//! Students of the networks that edgesmith makes.
#![allow(clippy::unwrap_used, reason = "what fails in a test should panic")]

use edgesmith_ir::eval::evaluate;
use edgesmith_ir::text::parse;
use edgesmith_ir::{Model, Tensor, infer};
use edgesmith_testkit::{Tolerance, assert_close, random};
use edgesmith_train::architectures::{self, Spec};
use edgesmith_train::student::{Layers, Options, student};

fn image(name: &str) -> Model {
    let spec = Spec {
        input: "x".into(),
        dims: vec![3, 8, 8],
        classes: 5,
        seed: 4,
        ..Spec::default()
    };
    (architectures::find(name).unwrap().build)(&spec).unwrap()
}

fn text(name: &str) -> Model {
    let spec = Spec {
        input: "input_ids".into(),
        dims: vec![6],
        vocabulary: Some(20),
        classes: 3,
        seed: 4,
    };
    (architectures::find(name).unwrap().build)(&spec).unwrap()
}

fn layers(choice: &str) -> Options {
    Options {
        layers: Some(choice.parse().unwrap()),
        ..Options::default()
    }
}

fn narrow(width: f64, round_to: usize) -> Options {
    Options {
        width: Some(width),
        round_to,
        layers: None,
    }
}

/// The teacher with zeros in these constants.
fn zeroed(teacher: &Model, names: &[&str]) -> Model {
    let mut out = teacher.clone();
    for name in names {
        let v = out.graph.find_value(name).unwrap();
        let value = out.graph.value_mut(v);
        let dims = value.constant.as_ref().unwrap().dims().to_vec();
        let zeros = vec![0f32; dims.iter().product()];
        value.constant = Some(Tensor::from_vec(&dims, zeros).unwrap());
    }
    out
}

fn assert_same(found: &Model, expected: &Model) {
    let inputs = random::inputs_with(expected, 1, &[("batch", 2)]);
    let given: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| match t.to_i64() {
            // Words of a small vocabulary, all of them there.
            Ok(ids) if t.dtype().is_integer() => {
                let ids = ids
                    .iter()
                    .map(|i| 1 + i.rem_euclid(2) * i64::from(n == "input_ids"));
                let ids: Vec<i64> = ids.collect();
                (n.as_str(), Tensor::from_vec(t.dims(), ids).unwrap())
            }
            _ => (n.as_str(), t.clone()),
        })
        .collect();
    let [a, b] = [found, expected].map(|m| evaluate(m, &given).unwrap());
    assert_close(&a[0], &b[0], Tolerance::ROUNDING);
}

fn shape(model: &Model, value: &str) -> String {
    let inferred = infer::infer(model, &[]).unwrap();
    let v = model.graph.find_value(value).unwrap();
    inferred.tensor(v).unwrap().to_string()
}

#[test]
fn half_of_a_residual_network_has_half_of_all_channels() {
    let (model, notes) = student(&image("resnet-8"), &narrow(0.5, 1)).unwrap();
    assert_eq!(shape(&model, "conv1.weight"), "f32[8,3,3,3]");
    assert_eq!(shape(&model, "logits"), "f32[batch,5]");
    let dims: Vec<String> = model
        .graph
        .values()
        .filter(|(_, v)| v.name.starts_with("fc") && v.constant.is_some())
        .map(|(_, v)| v.constant.as_ref().unwrap().ty().to_string())
        .collect();
    assert_eq!(dims, ["f32[5,32]", "f32[5]"]);
    // Sums tie the channels of a stage: 3 of stages, 3 inside of blocks.
    let cut = notes.iter().filter(|n| n.contains("channels, now"));
    assert_eq!(cut.count(), 6, "{notes:?}");
    assert!(notes.last().unwrap().starts_with("parameters 77621 → "));
}

#[test]
fn channels_are_rounded_to_a_multiple() {
    let (model, _) = student(&image("resnet-8"), &narrow(0.6, 8)).unwrap();
    assert_eq!(shape(&model, "conv1.weight"), "f32[8,3,3,3]");
    let (model, _) = student(&image("ds-cnn"), &narrow(0.3, 8)).unwrap();
    assert_eq!(shape(&model, "conv1.weight"), "f32[16,3,8,4]");
}

#[test]
fn a_transformer_is_narrowed_between_its_dense_layers() {
    let (model, notes) = student(&text("encoder-2"), &narrow(0.25, 1)).unwrap();
    assert_eq!(shape(&model, "layer1.wide.weight"), "f32[128,128]");
    assert_eq!(shape(&model, "layer1.narrow.weight"), "f32[128,128]");
    // Heads go whole.
    let heads = notes.iter().filter(|n| n.ends_with("2 heads, now 1"));
    assert_eq!(heads.count(), 2, "{notes:?}");
    let why = notes.iter().any(|n| n.contains("LayerNormalization"));
    assert!(why, "{notes:?}");
}

#[test]
fn every_other_layer_of_an_encoder_stays() {
    let teacher = text("encoder-4");
    let (model, _) = student(&teacher, &layers("alternate")).unwrap();
    assert!(
        model
            .graph
            .find_value("layer2.wide.weight")
            .is_none_or(|v| { model.graph.value(v).constant.is_none() })
    );
    let mut gone = Vec::new();
    for layer in ["layer2", "layer3"] {
        for part in [
            "attention.output.weight",
            "attention.output.bias",
            "narrow.weight",
            "narrow.bias",
        ] {
            gone.push(format!("{layer}.{part}"));
        }
    }
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    assert_same(&model, &zeroed(&teacher, &gone));
}

#[test]
fn blocks_of_a_residual_network_are_passed_by() {
    let teacher = image("resnet-20");
    let (model, notes) = student(&teacher, &layers("first:1")).unwrap();
    assert_eq!(notes.iter().filter(|n| n.starts_with("blocks")).count(), 3);
    let nodes = |m: &Model| m.graph.nodes().filter(|(_, n)| n.is("Add")).count();
    assert_eq!((nodes(&teacher), nodes(&model)), (9, 5));
    // A block without its last normalisation gives what it takes, which is not below 0.
    let mut gone: Vec<String> = Vec::new();
    for (id, node) in teacher
        .graph
        .nodes()
        .filter(|(_, n)| n.is("BatchNormalization"))
    {
        let y = teacher.graph.node(id).output(0).unwrap();
        let is_last = teacher
            .graph
            .sole_consumer(y)
            .is_some_and(|(n, i)| i == 1 && teacher.graph.node(n).is("Add"));
        let name = &teacher.graph.value(node.input(1).unwrap()).name;
        let there = model.graph.find_value(name);
        let stays = there.is_some_and(|v| !model.graph.value(v).consumers().is_empty());
        if is_last && !stays {
            gone.push(name.clone());
        }
    }
    assert_eq!(gone.len(), 4);
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    assert_same(&model, &zeroed(&teacher, &gone));
}

#[test]
fn fewer_layers_and_fewer_channels_go_together() {
    let options = Options {
        width: Some(0.5),
        round_to: 4,
        layers: Some(Layers::Uniform(1)),
    };
    let (model, _) = student(&image("resnet-20"), &options).unwrap();
    edgesmith_testkit::check(&model);
    assert_eq!(shape(&model, "conv1.weight"), "f32[8,3,3,3]");
}

#[test]
fn the_last_layer_may_go_where_its_result_is_the_output() {
    let block = |i: usize| {
        let before = if i == 0 {
            "a".to_owned()
        } else {
            format!("y{}", i - 1)
        };
        format!("p{i} = MatMul({before}, w{i}) y{i} = Add({before}, p{i})\n")
    };
    let weights: String = (0..3)
        .map(|i| format!("w{i}: f32[2,2] = {{1,2,3,4}}\n"))
        .collect();
    let blocks: String = (0..3).map(block).collect();
    let text = format!(
        "opset 17 graph g(x: f32[1,2]) -> (y2) {{ w: f32[2,2] = {{1,0,0,1}}
        {weights} a = MatMul(x, w) {blocks} }}"
    );
    let teacher = parse(&text).unwrap();
    let (model, _) = student(&teacher, &layers("first:1")).unwrap();
    assert_eq!(model.graph.value(model.graph.outputs[0]).name, "y2");
    assert_same(&model, &zeroed(&teacher, &["w1", "w2"]));
}

#[test]
fn what_cannot_be_cut_is_an_error_that_says_why() {
    let why = |model: &Model, options: &Options| student(model, options).unwrap_err().to_string();
    let small = image("small-cnn");
    assert!(why(&small, &layers("alternate")).contains("no blocks"));
    assert!(why(&small, &Options::default()).contains("width or in layers"));
    assert!(why(&small, &narrow(1.5, 1)).contains("1.5"));
    assert!(why(&image("resnet-20"), &layers("7,8")).contains("blocks 0 to 6"));
    let held = "opset 17 graph g(x: f32[1,2]) -> (y) { w: f32[2,4] = {1,2,3,4,5,6,7,8}
        v: f32[4,2] = {1,2,3,4,5,6,7,8} a = MatMul(x, w) b = Softmax(a) y = MatMul(b, v) }";
    let error = student(&parse(held).unwrap(), &narrow(0.5, 1)).unwrap_err();
    assert!(
        format!("{error:?}").contains("its sums are along this axis"),
        "{error:?}"
    );
}

//! Gradients of norms, softmax, functions of one element, losses, and of what was repeated.

use edgesmith_ir::Tensor;
use edgesmith_runtime::{Options, Session};
use edgesmith_testkit::Rng;

use super::{SUMS, agrees, example, model, one_agrees};

#[test]
fn gradients_of_functions_agree_and_stay_in_any_layout() {
    let mut rng = Rng::new(21);
    for op in [
        "AbsGrad",
        "ErfGrad",
        "ExpGrad",
        "GeluGrad",
        "HardSigmoidGrad",
        "HardSwishGrad",
        "LeakyReluGrad",
        "ReciprocalGrad",
        "ReluGrad",
        "SigmoidGrad",
        "SqrtGrad",
        "SwishGrad",
        "TanhGrad",
    ] {
        for dims in ["0", "1", "17", "3,5,33", "2,3,4,5"] {
            one_agrees(
                &format!("edgesmith.{op}(f32[{dims}], f32[{dims}])"),
                &mut rng,
            );
        }
    }
    for line in [
        "edgesmith.ClipGrad(f32[40], f32[]{-0.5}, f32[]{0.25}, f32[40])",
        "edgesmith.ClipGrad(f32[40], , f32[]{0.25}, f32[40])",
        "edgesmith.ClipGrad(u8[4,10], u8[]{3}, u8[]{20}, f32[4,10])",
        "edgesmith.ClipGrad(i8[2,3,4,5], i8[]{-8}, i8[]{7}, f32[2,3,4,5])",
        "Clip(u8[4,10], u8[]{3}, u8[]{20})",
        "Clip(i8[4,10], i8[]{-8}, i8[]{7})",
        "Clip(i8[4,10], , i8[]{7})",
        "edgesmith.GeluGrad(f32[40], f32[40]) {approximate=\"tanh\"}",
        "edgesmith.SwishGrad(f32[40], f32[40]) {alpha=1.7}",
        "edgesmith.LeakyReluGrad(f32[40], f32[40]) {alpha=0.3}",
        "Pow(f32[3,5], f32[]{1.0})",
        "Pow(f32[3,5], f32[]{-1.0})",
    ] {
        one_agrees(line, &mut rng);
    }
    let body = "opset 17 graph g(x: f32[2,3,6,6], w: f32[5,3,3,3], d: f32[2,5,4,4]) -> (y) {
        c = Conv(x, w)
        s = Sigmoid(c)
        y = edgesmith.SigmoidGrad(s, d)
    }";
    let (graph, inputs) = model(body, &mut rng);
    agrees("of an image", &graph, &inputs, SUMS);
}

#[test]
fn gradients_of_softmax_and_norms_agree() {
    let mut rng = Rng::new(22);
    for (rows, width) in [
        ("1", 1),
        ("7", 16),
        ("3,5", 17),
        ("2,4,3", 33),
        ("130", 100),
    ] {
        let dims = format!("{rows},{width}");
        for line in [
            format!("edgesmith.SoftmaxGrad(f32[{dims}], f32[{dims}])"),
            format!("edgesmith.LogSoftmaxGrad(f32[{dims}], f32[{dims}])"),
            format!(
                "edgesmith.LayerNormalizationGrad(f32[{dims}], f32[{width}], f32[{dims}]) -> 3"
            ),
            format!("edgesmith.LayerNormalizationGrad(f32[{dims}], f32[{width}], f32[{dims}])"),
            format!("edgesmith.RMSNormalizationGrad(f32[{dims}], f32[{width}], f32[{dims}]) -> 2"),
        ] {
            one_agrees(&line, &mut rng);
        }
    }
    for line in [
        "edgesmith.LayerNormalizationGrad(f32[2,3,4], f32[3,4], f32[2,3,4]) {axis=1} -> 3",
        "edgesmith.BatchNormalizationGrad(f32[9,5], f32[5], f32[9,5]) -> 3",
        "edgesmith.BatchNormalizationGrad(f32[3,5,4], f32[5], f32[3,5,4]) -> 2",
        "edgesmith.BatchNormalizationGrad(f32[3,17,4,5], f32[17], f32[3,17,4,5]) {epsilon=0.1} -> 3",
        "edgesmith.BatchNormalizationGrad(f32[1,3,1,1], f32[3], f32[1,3,1,1]) -> 3",
    ] {
        one_agrees(line, &mut rng);
    }
    let body = "opset 17 graph g(x: f32[4,8], s: f32[8], d: f32[4,8]) -> (a, b) {
        _, a, _ = edgesmith.LayerNormalizationGrad(x, s, d)
        _, _, b = edgesmith.LayerNormalizationGrad(x, s, d)
    }";
    let (graph, inputs) = model(body, &mut rng);
    agrees("without dX", &graph, &inputs, SUMS);
}

#[test]
fn losses_of_classes_and_their_gradients_agree() {
    let mut rng = Rng::new(23);
    for reduction in ["none", "sum", "mean"] {
        for (dims, labels, text, of_loss) in [
            ("3,5", "3", "1,0,4", "3"),
            ("2,4,3", "2,3", "0,3,2,9,1,1", "2,3"),
            ("1,2,2,1", "1,2,1", "1,0", "1,2,1"),
        ] {
            let classes = dims.split(',').nth(1).unwrap();
            let dloss = if reduction == "none" { of_loss } else { "" };
            for (kind, weight) in [("i64", String::new()), ("i32", format!("f32[{classes}]"))] {
                let of = format!("f32[{dims}], {kind}[{labels}]{{{text}}}, {weight}");
                let attributes = format!("{{reduction=\"{reduction}\", ignore_index=9}}");
                for line in [
                    format!("SoftmaxCrossEntropyLoss({of}) {attributes} -> 2"),
                    format!("SoftmaxCrossEntropyLoss({of}) {attributes}"),
                    format!(
                        "edgesmith.SoftmaxCrossEntropyLossGrad({of}, f32[{dloss}]) {attributes}"
                    ),
                ] {
                    one_agrees(&line, &mut rng);
                }
            }
        }
    }
}

#[test]
fn a_class_or_index_that_is_not_there_is_an_error() {
    let mut rng = Rng::new(24);
    for line in [
        "SoftmaxCrossEntropyLoss(f32[2,3], i64[2]{0,3})",
        "edgesmith.SoftmaxCrossEntropyLossGrad(f32[2,3], i64[2]{0,-1}, , f32[])",
        "edgesmith.GatherGrad(f32[5,3], i64[2]{0,5}, f32[2,3])",
    ] {
        let (model, inputs) = example(line, &mut rng);
        let fed: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (&n[..], t.clone())).collect();
        let session = Session::prepare(&model, &Options::default());
        let found = session.and_then(|mut s| s.run(&fed));
        assert!(found.is_err(), "{line}");
    }
}

#[test]
fn what_was_repeated_or_picked_gets_the_sum_of_gradients() {
    let mut rng = Rng::new(25);
    for line in [
        "edgesmith.Unbroadcast(f32[6,5], f32[5])",
        "edgesmith.Unbroadcast(f32[2,3,4], f32[3,1])",
        "edgesmith.Unbroadcast(f32[2,3,4,5], f32[1,3,1,1])",
        "edgesmith.Unbroadcast(f32[2,3,4,5], f32[2,1,4,1])",
        "edgesmith.Unbroadcast(f32[2,3], f32[])",
        "edgesmith.Unbroadcast(f32[2,3], f32[2,3])",
        "edgesmith.Unbroadcast(f32[0,3], f32[3])",
        "edgesmith.GatherGrad(f32[5,3], i64[2,2]{0,4,-1,4}, f32[2,2,3])",
        "edgesmith.GatherGrad(f32[2,5,130], i32[3]{1,1,0}, f32[2,3,130]) {axis=1}",
        "edgesmith.GatherGrad(f32[4], i64[0]{}, f32[0])",
        "ReduceSum(f32[2,3,4,5], i64[3]{0,2,3}) {keepdims=0}",
        "ReduceMean(f32[2,3,4,5], i64[2]{0,2})",
        "ReduceMean(f32[7,5])",
        "ReduceSum(f32[300,9], i64[1]{0})",
        "ReduceMax(f32[3,4,5], i64[1]{1})",
    ] {
        one_agrees(line, &mut rng);
    }
    let body = "opset 17 graph g(x: f32[2,3,6,6], w: f32[5,3,3,3], d: f32[2,5,4,4], b: f32[5,1,1]) -> (y, z) {
        c = Conv(x, w)
        s = Mul(c, d)
        y = edgesmith.Unbroadcast(s, b)
        a: i64[3] = {0, 2, 3}
        z = ReduceSum(s, a) {keepdims=0}
    }";
    let (graph, inputs) = model(body, &mut rng);
    agrees("by channel", &graph, &inputs, SUMS);
}

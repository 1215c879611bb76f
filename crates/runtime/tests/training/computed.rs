//! Operators whose weights are computed, as those of a model that is trained are.

use edgesmith_testkit::Rng;

use super::{SUMS, agrees, model, one_agrees, window};

#[test]
fn convolutions_take_weights_and_bias_that_are_computed() {
    let mut rng = Rng::new(1);
    for round in 0..60 {
        let kernel = *rng.pick(&[[1, 1], [3, 3], [3, 3], [2, 3], [5, 1]]);
        let (attributes, [h, w]) = window(&mut rng, kernel);
        let (groups, inputs, outputs) = match round % 3 {
            0 => (*rng.pick(&[2, 3, 16, 17]), 1, 1),
            1 => (2, rng.between(1, 5), rng.between(1, 9)),
            _ => (1, *rng.pick(&[1, 3, 16, 17]), *rng.pick(&[1, 8, 16, 33])),
        };
        let batch = rng.between(1, 3);
        let m = groups * outputs;
        let bias = if round % 2 == 0 {
            format!(", f32[{m}]")
        } else {
            String::new()
        };
        let [kh, kw] = kernel;
        let c = groups * inputs;
        let line = format!(
            "Conv(f32[{batch},{c},{h},{w}], f32[{m},{inputs},{kh},{kw}]{bias}) \
             {{{attributes}, group={groups}}}"
        );
        one_agrees(&line, &mut rng);
        let line = format!(
            "ConvTranspose(f32[{batch},{c},{h},{w}], f32[{c},{outputs},{kh},{kw}]{bias}) \
             {{{attributes}, group={groups}}}"
        );
        // A padding may take all of a transposed convolution.
        if h > 4 && w > 4 {
            one_agrees(&line, &mut rng);
        }
    }
    one_agrees(
        "Conv(f32[2,3,9], f32[4,3,3], f32[4]) {pads=[1,1]}",
        &mut rng,
    );
    let bias = "Conv(f32[2,1,4,4], f32[1,1,2,2]{1,2,3,4}, f32[1])";
    one_agrees(bias, &mut rng);
}

#[test]
fn a_sum_and_a_function_behind_a_convolution_run_within_it() {
    let mut rng = Rng::new(2);
    let body = "opset 17 graph g(x: f32[2,16,8,8], w: f32[16,16,3,3], b: f32[16]) -> (y) {
        c = Conv(x, w, b) {pads=[1,1,1,1]}
        s = Add(c, x)
        y = Relu(s)
    }";
    let (model, inputs) = model(body, &mut rng);
    agrees("a residual", &model, &inputs, SUMS);
}

#[test]
fn gemm_takes_factors_turned_operands_and_any_bias() {
    let mut rng = Rng::new(3);
    for round in 0..80 {
        let size = [1, 2, 7, 16, 17, 33];
        let [m, k, n] = [0; 3].map(|_| *rng.pick(&size));
        let (ta, tb) = (rng.below(2), rng.below(2));
        let a = if ta == 1 { [k, m] } else { [m, k] };
        let b = if tb == 1 { [n, k] } else { [k, n] };
        let c = match round % 6 {
            0 => String::new(),
            1 => format!(", f32[{n}]"),
            2 => format!(", f32[{m},1]"),
            3 => ", f32[]".to_string(),
            4 => format!(", f32[1,{n}]"),
            _ => format!(", f32[{m},{n}]"),
        };
        let factors = *rng.pick(&["", ", alpha=0.5", ", beta=-2.0", ", alpha=3.0, beta=0.0"]);
        let line = format!(
            "Gemm(f32[{},{}], f32[{},{}]{c}) {{transA={ta}, transB={tb}{factors}}}",
            a[0], a[1], b[0], b[1]
        );
        one_agrees(&line, &mut rng);
    }
}

#[test]
fn products_of_computed_matrices_take_a_computed_bias_behind_them() {
    let mut rng = Rng::new(4);
    let body =
        "opset 20 graph g(x: f32[2,5,16], w: f32[16,24], b: f32[24], r: f32[2,5,24]) -> (y, z) {
        p = MatMul(x, w)
        s = Add(p, b)
        y = Add(s, r)
        q = MatMul(x, w)
        t = Add(b, q)
        z = Tanh(t)
    }";
    let (graph, inputs) = model(body, &mut rng);
    agrees("a bias", &graph, &inputs, SUMS);
    for line in [
        "com.microsoft.FusedMatMul(f32[3,4,5], f32[3,4,6]) {transA=1, alpha=0.25}",
        "com.microsoft.FusedMatMul(f32[2,3,5,4], f32[6,4]) {transB=1}",
        "com.microsoft.FusedMatMul(f32[7,5], f32[3,5,2])",
    ] {
        one_agrees(line, &mut rng);
    }
}

#[test]
fn norms_take_a_scale_and_bias_that_are_computed() {
    let mut rng = Rng::new(5);
    for line in [
        "LayerNormalization(f32[2,3,17], f32[17], f32[17])",
        "LayerNormalization(f32[2,3,4], f32[3,4]) {axis=1, epsilon=0.1}",
        "LayerNormalization(f32[2,3,4], f32[1,4], f32[4]) {axis=2}",
        "RMSNormalization(f32[5,33], f32[33])",
        "RMSNormalization(f32[2,3,4], f32[3,4]) {axis=-2}",
        "BatchNormalization(f32[2,3,4,5], f32[3], f32[3], f32[3], f32[3]{1,2,3})",
        "BatchNormalization(f32[6,5], f32[5], f32[5], f32[5], f32[5]{1,2,3,4,0.5})",
    ] {
        one_agrees(line, &mut rng);
    }
}

#[test]
fn batch_statistics_are_used_and_kept() {
    let mut rng = Rng::new(6);
    for dims in ["2,3,4,5", "7,3", "3,3,6", "1,3,1,1", "64,3,9,9"] {
        for tail in ["", ", momentum=0.25, epsilon=0.01"] {
            let line = format!(
                "BatchNormalization(f32[{dims}], f32[3], f32[3], f32[3], f32[3]) \
                 {{training_mode=1{tail}}} -> 3"
            );
            one_agrees(&line, &mut rng);
        }
    }
    let body =
        "opset 17 graph g(x: f32[4,5,3,3], s: f32[5], b: f32[5], m: f32[5], v: f32[5]) -> (y, n) {
        a, n, _ = BatchNormalization(x, s, b, m, v) {training_mode=1}
        y = Relu(a)
    }";
    let (model, inputs) = model(body, &mut rng);
    agrees("a function behind statistics", &model, &inputs, SUMS);
}

#[test]
fn numbers_by_channel_are_added_to_images_as_they_lie() {
    let mut rng = Rng::new(7);
    let body = "opset 17 graph g(x: f32[2,6,5,4], w: f32[8,6,1,1], b: f32[8,1,1], s: f32[1,8,1,1]) -> (y) {
        c = Conv(x, w)
        d = Mul(c, s)
        y = Add(d, b)
    }";
    let (model, inputs) = model(body, &mut rng);
    agrees("numbers by channel", &model, &inputs, SUMS);
}

//! Gradients of convolutions and pools.

use edgesmith_ir::Tensor;
use edgesmith_testkit::Rng;

use super::{SUMS, agrees, example, model, one_agrees, windows};

#[test]
fn gradients_of_convolutions_agree_on_random_shapes() {
    let mut rng = Rng::new(11);
    for round in 0..90 {
        let kernel = *rng.pick(&[[1, 1], [3, 3], [3, 3], [2, 3], [5, 1]]);
        let (attributes, [h, w], [oh, ow]) = windows(&mut rng, kernel, 2);
        let (groups, inputs, outputs) = match round % 3 {
            0 => (*rng.pick(&[2, 3, 16, 17]), 1, 1),
            1 => (2, rng.between(1, 5), rng.between(1, 9)),
            _ => (1, *rng.pick(&[1, 3, 16, 17]), *rng.pick(&[1, 8, 16, 33])),
        };
        let batch = rng.between(1, 3);
        let ([kh, kw], c, m) = (kernel, groups * inputs, groups * outputs);
        let line = format!(
            "edgesmith.ConvGrad(f32[{batch},{c},{h},{w}], f32[{m},{inputs},{kh},{kw}], \
             f32[{batch},{m},{oh},{ow}]) {{{attributes}, group={groups}}} -> {}",
            rng.between(1, 3)
        );
        one_agrees(&line, &mut rng);
    }
    let line = "edgesmith.ConvGrad(f32[2,3,9], f32[4,3,3], f32[2,4,9]) {pads=[1,1]} -> 3";
    one_agrees(line, &mut rng);
}

#[test]
fn each_gradient_of_a_convolution_may_be_left_out() {
    let mut rng = Rng::new(12);
    for outputs in ["d, _, _", "_, d, _", "_, _, d", "_, d, y", "y, _, d"] {
        let more = if outputs.contains('y') { ", y" } else { "" };
        let body = format!(
            "opset 17 graph g(x: f32[2,3,6,6], w: f32[5,3,3,3], g: f32[2,5,4,4]) -> (d{more}) {{
                {outputs} = edgesmith.ConvGrad(x, w, g)
            }}"
        );
        let (model, inputs) = model(&body, &mut rng);
        agrees(outputs, &model, &inputs, SUMS);
    }
}

#[test]
fn gradients_of_pools_agree_on_random_shapes() {
    let mut rng = Rng::new(13);
    for round in 0..90 {
        let kernel = [rng.between(1, 3), rng.between(1, 3)];
        let most = kernel[0].min(kernel[1]) - 1;
        let (mut attributes, [h, w], [oh, ow]) = windows(&mut rng, kernel, most);
        let (batch, c) = (rng.between(1, 3), *rng.pick(&[1, 3, 16, 17]));
        let op = if round % 2 == 0 {
            "MaxPool"
        } else {
            "AveragePool"
        };
        if round % 4 == 1 {
            attributes += ", count_include_pad=1";
        }
        let line = format!(
            "edgesmith.{op}Grad(f32[{batch},{c},{h},{w}], f32[{batch},{c},{oh},{ow}]) \
             {{kernel_shape={kernel:?}, {attributes}}}"
        );
        one_agrees(&line, &mut rng);
    }
    for line in [
        "edgesmith.GlobalAveragePoolGrad(f32[3,5,4,6], f32[3,5,1,1])",
        "edgesmith.GlobalMaxPoolGrad(f32[3,5,4,6], f32[3,5,1,1])",
        "edgesmith.MaxPoolGrad(f32[2,3,8], f32[2,3,4]) {kernel_shape=[2], strides=[2]}",
        "edgesmith.MaxPoolGrad(f32[2,3,7,9], f32[2,3,3,4]) {kernel_shape=[2,2], strides=[2,2]}",
        "edgesmith.MaxPoolGrad(f32[2,3,7,9], f32[2,3,4,5]) \
         {kernel_shape=[2,2], strides=[2,2], ceil_mode=1}",
    ] {
        one_agrees(line, &mut rng);
    }
}

#[test]
fn the_first_of_equal_maxima_and_a_nan_get_the_gradient() {
    let mut rng = Rng::new(14);
    for line in [
        "edgesmith.MaxPoolGrad(f32[2,3,6,6], f32[2,3,3,3]) {kernel_shape=[2,2], strides=[2,2]}",
        "edgesmith.MaxPoolGrad(f32[2,3,6,6], f32[2,3,4,4]) {kernel_shape=[3,3]}",
        "edgesmith.GlobalMaxPoolGrad(f32[2,3,4,4], f32[2,3,1,1])",
    ] {
        let (model, mut inputs) = example(line, &mut rng);
        for odd in [1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let dims = inputs[0].1.dims().to_vec();
            let count: usize = dims.iter().product();
            let mut data: Vec<f32> = (0..count).map(|_| rng.below(3) as f32).collect();
            for _ in 0..count / 5 {
                data[rng.below(count)] = odd;
            }
            inputs[0].1 = Tensor::from_vec(&dims, data).unwrap();
            agrees(line, &model, &inputs, SUMS);
        }
    }
}

#[test]
fn a_training_graph_of_images_stays_in_their_layout() {
    let mut rng = Rng::new(15);
    let body = "opset 17 graph g(x: f32[4,3,8,8], w: f32[16,3,3,3], b: f32[16], v: f32[4,16,1,1], d: f32[4,4,4,4])
        -> (dx, dw, db, dv, dvb, y) {
        c = Conv(x, w, b) {pads=[1,1,1,1]}
        r = Relu(c)
        p = MaxPool(r) {kernel_shape=[2,2], strides=[2,2]}
        y = Conv(p, v)
        dp, dv, dvb = edgesmith.ConvGrad(p, v, d)
        dr = edgesmith.MaxPoolGrad(r, dp) {kernel_shape=[2,2], strides=[2,2]}
        dc = edgesmith.ReluGrad(r, dr)
        dx, dw, db = edgesmith.ConvGrad(x, w, dc) {pads=[1,1,1,1]}
    }";
    let (model, inputs) = model(body, &mut rng);
    agrees("layers of images", &model, &inputs, SUMS);
    let options = edgesmith_runtime::Options {
        profile: true,
        ..Default::default()
    };
    let mut session = edgesmith_runtime::Session::prepare(&model, &options).unwrap();
    let fed: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (&n[..], t.clone())).collect();
    session.run(&fed).unwrap();
    let rows = session.profile().nodes;
    let reordered = rows.iter().filter(|r| r.op == "reorder");
    // What goes in and comes out: x, d, dx and y.
    assert_eq!(reordered.count(), 4);
    assert!(
        rows.iter().all(|r| r.op != "ReluGrad"),
        "it is done by the pool"
    );
}

//! Quantisation whose scales are computed, and its gradients.

use edgesmith_ir::Tensor;
use edgesmith_testkit::{Rng, Tolerance};

use super::{SUMS, agrees, example, model};

/// The example agrees, with scales above 0 and data over the ends of the range.
fn grid_agrees(line: &str, scale: usize, rng: &mut Rng) {
    let (model, mut inputs) = example(line, rng);
    let dims = inputs[scale].1.dims().to_vec();
    inputs[scale].1 = rng.floats(&dims, 0.002, 0.01);
    agrees(
        line,
        &model,
        &inputs,
        Tolerance {
            relative: 1e-4,
            absolute: 1e-5,
        },
    );
}

#[test]
fn scales_are_computed_or_many() {
    let mut rng = Rng::new(31);
    for zero in ["u8", "i8"] {
        for line in [
            format!("QuantizeLinear(f32[2,3,5], f32[], {zero}[]{{3}})"),
            format!("QuantizeLinear(f32[4,3,2,2], f32[4], {zero}[4]{{3,0,1,2}}) {{axis=0}}"),
            format!("QuantizeLinear(f32[5,4], f32[4], {zero}[4]{{0,0,0,0}})"),
            format!("DequantizeLinear({zero}[2,3,5], f32[], {zero}[]{{3}})"),
            format!("DequantizeLinear({zero}[4,3,2,2], f32[4], {zero}[4]{{3,0,1,2}}) {{axis=0}}"),
            format!("DequantizeLinear({zero}[5,4], f32[4], {zero}[4]{{0,0,0,0}})"),
        ] {
            grid_agrees(&line, 1, &mut rng);
        }
    }
    grid_agrees("QuantizeLinear(f32[7], f32[1])", 1, &mut rng);
}

#[test]
fn gradients_go_straight_through() {
    let mut rng = Rng::new(32);
    for zero in ["u8", "i8"] {
        for outputs in [1, 2] {
            for line in [
                format!("QuantizeLinearGrad(f32[2,3,5], f32[], {zero}[]{{3}}, f32[2,3,5])"),
                format!("QuantizeLinearGrad(f32[9], f32[1], {zero}[1]{{0}}, f32[9])"),
                format!(
                    "QuantizeLinearGrad(f32[4,6,2], f32[4], {zero}[4]{{3,0,1,2}}, f32[4,6,2]) {{axis=0}}"
                ),
                format!("QuantizeLinearGrad(f32[5,4], f32[4], {zero}[4]{{0,0,1,0}}, f32[5,4])"),
                format!("DequantizeLinearGrad({zero}[2,3,5], f32[], {zero}[]{{3}}, f32[2,3,5])"),
                format!(
                    "DequantizeLinearGrad({zero}[4,6,2], f32[4], {zero}[4]{{3,0,1,2}}, f32[4,6,2]) {{axis=0}}"
                ),
            ] {
                grid_agrees(&format!("edgesmith.{line} -> {outputs}"), 1, &mut rng);
            }
        }
    }
}

#[test]
fn a_quantised_convolution_is_trained_in_the_layout_of_images() {
    let mut rng = Rng::new(33);
    let body =
        "opset 17 graph g(x: f32[2,3,6,6], w: f32[4,3,3,3], s: f32[], t: f32[4], d: f32[2,4,4,4])
        -> (y, dx, dw, ds1, ds2, dt1, dt2) {
        z: u8[] = {128} v: i8[4] = {0,0,0,0}
        q = QuantizeLinear(x, s, z)
        a = DequantizeLinear(q, s, z)
        p = QuantizeLinear(w, t, v) {axis=0}
        b = DequantizeLinear(p, t, v) {axis=0}
        y = Conv(a, b)
        da, db, _ = edgesmith.ConvGrad(a, b, d)
        dp, dt1 = edgesmith.DequantizeLinearGrad(p, t, v, db) {axis=0}
        dw, dt2 = edgesmith.QuantizeLinearGrad(w, t, v, dp) {axis=0}
        dq, ds1 = edgesmith.DequantizeLinearGrad(q, s, z, da)
        dx, ds2 = edgesmith.QuantizeLinearGrad(x, s, z, dq)
    }";
    let (model, mut inputs) = model(body, &mut rng);
    inputs[2].1 = Tensor::scalar(0.01f32);
    inputs[3].1 = rng.floats(&[4], 0.005, 0.01);
    agrees("a quantised convolution", &model, &inputs, SUMS);
}

#[test]
fn constant_weights_with_a_computed_scale_are_not_left_to_kernels() {
    let mut rng = Rng::new(34);
    let body = "opset 17 graph g(x: f32[1,1,3,3], s: f32[]) -> (y) {
        q: i8[1,1,2,2] = {1,2,3,4}
        w = DequantizeLinear(q, s)
        y = Conv(x, w)
    }";
    let (model, inputs) = model(body, &mut rng);
    let fed: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (&n[..], t.clone())).collect();
    let options = edgesmith_runtime::Options::default();
    let mut session = edgesmith_runtime::Session::prepare(&model, &options).unwrap();
    let found = session.run(&fed).unwrap();
    let expected = edgesmith_ir::eval::evaluate(&model, &fed).unwrap();
    edgesmith_testkit::assert_close(&found[0], &expected[0], SUMS);
}

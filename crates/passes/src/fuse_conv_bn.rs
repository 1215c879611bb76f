//! Folds BatchNormalization into the weights of the layer in front of it.

use edgesmith_ir::{Model, Node, Result};

use crate::affine::{Affine, absorb, products};
use crate::float_data::to_f64;
use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, each_graph, nodes_of};

/// Conv, ConvTranspose, Gemm, and MatMul of two axes with or without Add, in front of a
/// BatchNormalization in inference, where nobody else reads what lies between. New weights are
/// computed in f64 and rounded once; answers agree within 1e-5 relative.
pub static PASS: Pass = Pass {
    name: "fuse_conv_bn",
    about: "fold BatchNormalization into the weights in front of it",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let norms = nodes_of(graph, &["BatchNormalization"]);
        if norms.is_empty() || scope.opset() < 7 {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let products = products(graph, &types, true);
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in norms {
            let fused = affine(&editor, editor.graph.node(id))
                .and_then(|a| absorb(&mut editor, id, 0, &a, &products, scope));
            changes += usize::from(fused.is_some());
        }
        Ok(changes)
    })
}

/// What a BatchNormalization in inference does to each channel.
fn affine(editor: &Editor, norm: &Node) -> Option<Affine> {
    let trains = norm.int("training_mode").unwrap_or(0) != 0;
    let per_pixel = norm.int("spatial").unwrap_or(1) == 0;
    if trains || per_pixel || norm.outputs().iter().skip(1).flatten().next().is_some() {
        return None;
    }
    let read = |i: usize| to_f64(editor.constant(norm.input(i)?)?);
    let (gamma, beta, mean, var) = (read(1)?, read(2)?, read(3)?, read(4)?);
    let n = gamma.len();
    if [beta.len(), mean.len(), var.len()] != [n; 3] {
        return None;
    }
    let epsilon = f64::from(norm.float("epsilon").unwrap_or(1e-5));
    let scale: Vec<f64> = gamma
        .iter()
        .zip(&var)
        .map(|(g, v)| g / (v + epsilon).sqrt())
        .collect();
    let shift: Vec<f64> = (0..n).map(|c| beta[c] - mean[c] * scale[c]).collect();
    let finite = scale.iter().chain(&shift).all(|x| x.is_finite());
    finite.then_some(Affine { scale, shift })
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    const NORM: &str = "
        s: f32[4] = {1,-2,0.5,3}
        b: f32[4] = {0,1,-1,0.25}
        m: f32[4] = {0.5,-0.5,1,0}
        v: f32[4] = {1,0.25,2,0.5}
        y = BatchNormalization(a, s, b, m, v)";

    fn normed(input: &str, layer: &str) -> String {
        format!("opset 17\ngraph g(x: {input}) -> (y) {{\n{layer}\n{NORM}\n}}")
    }

    #[test]
    fn the_norm_vanishes_into_every_layer() {
        let image = "f32[2,2,3,3]";
        for (input, layer, op) in [
            (
                image,
                "w: f32[2,2,1,1] = {1,2,3,4}\na = ConvTranspose(x, w) {group=2}",
                "ConvTranspose",
            ),
            (
                image,
                "w: f32[2,4,1,1] = {1,2,3,4,5,6,7,8}\na = ConvTranspose(x, w)",
                "ConvTranspose",
            ),
            (
                image,
                "w: f32[4,2,1,1] = {1,2,3,4,5,6,7,8}\na = Conv(x, w)",
                "Conv",
            ),
            (
                image,
                "w: f32[4,1,1,1] = {1,2,3,4}\nc: f32[4] = {1,2,3,4}\n\
                 a = Conv(x, w, c) {group=2}",
                "Conv",
            ),
            (
                "f32[3,2]",
                "w: f32[4,2] = {1,2,3,4,5,6,7,8}\nc: f32[1] = {3}\n\
                 a = Gemm(x, w, c) {transB=1, alpha=0.5, beta=2.0}",
                "Gemm",
            ),
            (
                "f32[3,2]",
                "w: f32[2,4] = {1,2,3,4,5,6,7,8}\na = Gemm(x, w)",
                "Gemm",
            ),
        ] {
            assert_eq!(left(&PASS, &normed(input, layer)), [op], "{layer}");
        }
    }

    #[test]
    fn the_norm_after_a_product_becomes_or_joins_its_bias() {
        let product = "w: f32[2,4] = {1,2,3,4,5,6,7,8}\na = MatMul(x, w)";
        assert_eq!(left(&PASS, &normed("f32[3,2]", product)), ["MatMul", "Add"]);
        let sum = "w: f32[2,4] = {1,2,3,4,5,6,7,8}\nc: f32[4] = {1,2,3,4}\n\
                   p = MatMul(x, w)\na = Add(c, p)";
        assert_eq!(left(&PASS, &normed("f32[3,2]", sum)), ["MatMul", "Add"]);
    }

    #[test]
    fn a_product_of_three_axes_keeps_its_norm() {
        let product = "w: f32[2,3] = {1,2,3,4,5,6}\na = MatMul(x, w)";
        let ops = left(&PASS, &normed("f32[1,4,2]", product));
        assert_eq!(ops, ["MatMul", "BatchNormalization"]);
    }

    #[test]
    fn a_layer_that_others_read_keeps_its_norm() {
        let layer = "w: f32[4,2,1,1] = {1,2,3,4,5,6,7,8}\na = Conv(x, w)";
        let text = normed("f32[1,2,3,3]", layer).replace("(y)", "(y, a)");
        assert_eq!(left(&PASS, &text), ["Conv", "BatchNormalization"]);
    }

    #[test]
    fn a_shared_weight_is_copied() {
        let layer = "w: f32[4,2,1,1] = {1,2,3,4,5,6,7,8}\na = Conv(x, w)\nz = Conv(x, w)";
        let text = normed("f32[1,2,3,3]", layer).replace("(y)", "(y, z)");
        assert_eq!(left(&PASS, &text), ["Conv", "Conv"]);
    }
}

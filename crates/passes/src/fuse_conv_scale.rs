//! Folds Mul, Div, Add and Sub by constants into the weights of the layer in front of them.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Model, NodeId, Result};

use crate::affine::{Affine, LAYERS, absorb, products};
use crate::float_data::to_f64;
use crate::pass::{Level, Pass, PassCx};
use crate::rewrite::{Editor, Scope, each_graph, nodes_of, shape};

/// Where the constant is one number or one for each channel: of axis 1 after Conv and
/// ConvTranspose, of the last axis after Gemm, and after MatMul with or without Add. Nobody else
/// may read what lies between. New weights are computed in f64 and rounded once; answers agree
/// within 1e-5 relative. Add and Sub stay behind a MatMul, which has no bias.
pub static PASS: Pass = Pass {
    name: "fuse_conv_scale",
    about: "fold Mul, Div, Add and Sub by constants into the weights in front of them",
    level: Level::Basic,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let nodes = nodes_of(graph, &["Mul", "Div", "Add", "Sub"]);
        if nodes.is_empty() || scope.opset() < 7 {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let products = products(graph, &types, false);
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in nodes {
            let fused =
                (0..2).any(|side| fuse(&mut editor, id, side, &products, &types, scope).is_some());
            changes += usize::from(fused);
        }
        Ok(changes)
    })
}

/// A layer has no more: shapes in damaged files may say so, weights do not.
const MOST_CHANNELS: usize = 1 << 22;

fn fuse(
    editor: &mut Editor,
    id: NodeId,
    side: usize,
    products: &[NodeId],
    types: &Inferred,
    scope: &mut Scope,
) -> Option<()> {
    let layer = editor.only_source(id, side, LAYERS)?;
    let by_last_axis = matches!(
        editor.graph.node(layer).op.as_str(),
        "MatMul" | "Add" | "Gemm"
    );
    let node = editor.graph.node(id);
    let constant = editor.constant(node.input(1 - side)?)?;
    let made = shape(types, node.input(side)?)?;
    let axis = if by_last_axis {
        made.rank().checked_sub(1)?
    } else {
        1
    };
    let channels = made.get(axis)?.known().filter(|&n| n <= MOST_CHANNELS)?;
    let dims = constant.dims();
    let shift = made.rank().checked_sub(dims.len())?;
    let per_channel = |(i, &d): (usize, &usize)| d == 1 || (i + shift == axis && d == channels);
    if !dims.iter().enumerate().all(per_channel) {
        return None;
    }
    let numbers = to_f64(constant)?;
    let of = |c: usize| numbers[if numbers.len() == 1 { 0 } else { c }];
    let number = |c: usize| match (node.op.as_str(), side) {
        ("Mul", _) => Some((of(c), 0.0)),
        ("Div", 0) => Some((1.0 / of(c), 0.0)),
        ("Add", _) => Some((1.0, of(c))),
        ("Sub", 0) => Some((1.0, -of(c))),
        ("Sub", _) => Some((-1.0, of(c))),
        _ => None,
    };
    let pairs: Vec<(f64, f64)> = (0..channels).map(number).collect::<Option<_>>()?;
    let finite = pairs.iter().all(|(a, b)| a.is_finite() && b.is_finite());
    let (scale, shift) = pairs.into_iter().unzip();
    let affine = Affine { scale, shift };
    finite.then(|| absorb(editor, id, side, &affine, products, scope))?
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    fn image(ops: &str) -> Vec<String> {
        let text = format!(
            "opset 17
             graph g(x: f32[batch,2,3,3]) -> (y) {{
               w: f32[3,2,1,1] = {{1,2,3,4,5,6}}
               u: f32[2,3,1,1] = {{1,2,3,4,5,6}}
               b: f32[3] = {{1,2,3}}
               c: f32[3,1,1] = {{0.5,-2,3}}
               d: f32[1,3,1,1] = {{0.5,-2,3}}
               pixel: f32[3] = {{0.5,-2,3}}
               high: f32[1,1,1,1,1] = {{2}}
               two: f32[] = {{2}}
               {ops}
             }}"
        );
        left(&PASS, &text)
    }

    #[test]
    fn constants_by_channel_vanish_into_a_conv() {
        for op in [
            "y = Mul(a, c)",
            "y = Mul(d, a)",
            "y = Add(a, two)",
            "y = Sub(d, a)",
            "y = Sub(a, c)",
            "y = Div(a, d)",
        ] {
            for conv in ["Conv(x, w)", "Conv(x, w, b)", "ConvTranspose(x, u, b)"] {
                let name = conv.split('(').next().unwrap();
                assert_eq!(image(&format!("a = {conv}\n{op}")), [name], "{conv} {op}");
            }
        }
    }

    #[test]
    fn constants_by_pixel_of_more_axes_or_divided_by_the_layer_stay() {
        for op in ["y = Mul(a, pixel)", "y = Mul(a, high)", "y = Div(c, a)"] {
            assert_eq!(image(&format!("a = Conv(x, w)\n{op}")).len(), 2, "{op}");
        }
        let text = "a = Conv(x, w)\nr = Relu(a)\nm = Mul(a, c)\ny = Add(r, m)";
        assert_eq!(image(text).len(), 4);
    }

    #[test]
    fn products_take_in_what_their_last_axis_is_multiplied_by() {
        let text = |x: &str, ops: &str| {
            let text = format!(
                "opset 17
                 graph g(x: {x}) -> (y) {{
                   w: f32[2,3] = {{1,2,3,4,5,6}}
                   b: f32[3] = {{1,2,3}}
                   c: f32[3] = {{0.5,-2,3}}
                   rows: f32[4,1] = {{1,2,3,4}}
                   two: f32[] = {{2}}
                   {ops}
                 }}"
            );
            left(&PASS, &text)
        };
        for x in ["f32[4,2]", "f32[batch,4,2]"] {
            assert_eq!(text(x, "a = MatMul(x, w)\ny = Mul(a, c)"), ["MatMul"]);
            assert_eq!(
                text(x, "a = MatMul(x, w)\ny = Add(a, c)"),
                ["MatMul", "Add"]
            );
            assert_eq!(
                text(x, "a = MatMul(x, w)\ny = Mul(a, rows)"),
                ["MatMul", "Mul"]
            );
            let ops = "a = MatMul(x, w)\nd = Add(b, a)\ny = Div(d, two)";
            assert_eq!(text(x, ops), ["MatMul", "Add"]);
        }
        let ops = "a = Gemm(x, w, b) {beta=0.5}\ny = Sub(c, a)";
        assert_eq!(text("f32[4,2]", ops), ["Gemm"]);
    }
}

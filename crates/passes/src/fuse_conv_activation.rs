//! Joins Conv, a sum and an activation to FusedConv, Gemm and an activation to FusedGemm.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{Attribute, DType, Model, Node, NodeId, Result, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::pattern::{Group, MICROSOFT, fuse_each_graph, string};
use crate::rewrite::{Editor, nodes_of, same_shape};

/// Relu, Clip, LeakyRelu, Sigmoid, Tanh and HardSigmoid behind a Conv of f32, and the Add of a
/// value of its shape between; all but Clip behind a Gemm of f32. Products of dequantized values
/// stay, so that runtimes find their integer kernels.
pub static PASS: Pass = Pass {
    name: "fuse_conv_activation",
    about: "join Conv, Add and activation to FusedConv, Gemm and activation to FusedGemm",
    level: Level::Extended,
    run,
};

const ACTIVATIONS: &[&str] = &[
    "Clip",
    "HardSigmoid",
    "LeakyRelu",
    "Relu",
    "Sigmoid",
    "Tanh",
];

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    fuse_each_graph(model, cx, &mut |graph, scope| {
        let convs = nodes_of(graph, &["Conv", "Gemm"]);
        if convs.is_empty() || nodes_of(graph, ACTIVATIONS).is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        // From the back, so that of two Convs that are added the later one takes the sum.
        for id in convs.into_iter().rev() {
            changes += usize::from(fuse(&mut editor, id, &types).is_some());
        }
        Ok(changes)
    })
}

fn fuse(editor: &mut Editor, conv: NodeId, types: &Inferred) -> Option<()> {
    let mut g = Group::new(editor, types);
    g.nodes.push(conv);
    let node = g.node(conv).clone();
    let y = node.output(0)?;
    let is_float = g.dtype(y) == Some(DType::F32);
    let quantized = |i: usize| {
        let v = node.input(i);
        v.is_some_and(|v| g.peek(v, &["DequantizeLinear"]).is_some())
    };
    if !is_float || quantized(0) || quantized(1) {
        return None;
    }
    let mut at = y;
    let mut residual = None;
    let is_conv = node.is("Conv");
    if is_conv && let Some(add) = g.reader(y, &["Add"]) {
        let other = g.beside(add, y)?;
        if other == y || !same_shape(g.shape(other)?, g.shape(y)?) {
            return None;
        }
        (residual, at) = (Some(other), g.node(add).output(0)?);
    }
    let f = g.reader(at, ACTIVATIONS)?;
    let (name, parameters) = activation(&g, f, at)?;
    if !is_conv && name == "Clip" {
        return None;
    }
    let result = g.node(f).output(0)?;
    let quantizes = |(id, _): &(NodeId, usize)| editor.graph.node(*id).is("QuantizeLinear");
    if editor.graph.value(result).consumers().iter().any(quantizes) {
        return None;
    }
    let nodes = g.closed(&[result])?;
    let inputs: [Option<ValueId>; 4] = [node.input(0), node.input(1), node.input(2), residual];
    let op = if is_conv { "FusedConv" } else { "FusedGemm" };
    let mut fused = Node::new(op, "").in_domain(MICROSOFT);
    fused.attributes = node.attributes;
    fused.set("activation", string(name));
    if is_conv && !parameters.is_empty() {
        fused.set("activation_params", Attribute::Floats(parameters));
    } else {
        let names = ["activation_alpha", "activation_beta"];
        for (name, x) in names.into_iter().zip(parameters) {
            fused.set(name, Attribute::Float(x));
        }
    }
    editor.fuse(&nodes, fused, &inputs, &[Some(result)]);
    Some(())
}

/// ONNX Runtime's name and parameters of an activation of `x`.
fn activation(g: &Group, id: NodeId, x: ValueId) -> Option<(&'static str, Vec<f32>)> {
    let node = g.node(id);
    if node.input(0) != Some(x) {
        return None;
    }
    let float = |name: &str, default: f32| node.float(name).unwrap_or(default);
    let bound = |i: usize, name: &str, default: f32| match node.input(i) {
        Some(v) => Some(g.scalar(v)? as f32),
        None => Some(float(name, default)),
    };
    Some(match node.op.as_str() {
        "Relu" => ("Relu", vec![]),
        "Sigmoid" => ("Sigmoid", vec![]),
        "Tanh" => ("Tanh", vec![]),
        "LeakyRelu" => ("LeakyRelu", vec![float("alpha", 0.01)]),
        "HardSigmoid" => ("HardSigmoid", vec![float("alpha", 0.2), float("beta", 0.5)]),
        "Clip" => {
            let bounds = [bound(1, "min", f32::MIN)?, bound(2, "max", f32::MAX)?];
            ("Clip", bounds.to_vec())
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::PASS;
    use crate::testing::left;

    fn around(body: &str, ends: &str) -> Vec<String> {
        let text = format!(
            "opset 17\ngraph g(x: f32[n,2,3,3], z: f32[n,4,3,3]) -> ({ends}) {{
               w: f32[4,2,1,1] = {{1,2,3,4,-5,6,-7,8}}
               low: f32[] = {{0.0}}
               high: f32[] = {{6.0}}
               c = Conv(x, w)
               {body}
             }}"
        );
        left(&PASS, &text)
    }

    #[test]
    fn activations_and_sums_join_their_conv() {
        for body in [
            "y = Relu(c)",
            "y = Clip(c, low, high)",
            "y = LeakyRelu(c) {alpha=0.3}",
            "y = HardSigmoid(c)",
            "y = Tanh(c)",
            "s = Add(z, c)\ny = Sigmoid(s)",
        ] {
            assert_eq!(around(body, "y"), ["FusedConv"], "{body}");
        }
    }

    #[test]
    fn activations_join_their_gemm() {
        for (f, left_over) in [
            ("Relu(c)", 1),
            ("LeakyRelu(c) {alpha=0.3}", 1),
            ("Sigmoid(c)", 1),
            ("Clip(c)", 2),
        ] {
            let text = format!(
                "opset 17\ngraph g(x: f32[n,2]) -> (y) {{
                   w: f32[2,2] = {{1,2,-3,4}}
                   c = Gemm(x, w)
                   y = {f}
                 }}"
            );
            assert_eq!(left(&PASS, &text).len(), left_over, "{f}");
        }
    }

    #[test]
    fn what_others_read_or_what_stretches_stays() {
        assert_eq!(around("y = Relu(c)", "y, c").len(), 2);
        assert_eq!(around("s = Add(c, high)\ny = Relu(s)", "y").len(), 3);
    }
}

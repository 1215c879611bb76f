//! Whether a model is quantised.

use crate::{Model, Node};

/// Operators of integers or few bits whose names do not begin with `QLinear`.
const OPS: &[&str] = &[
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "GatherBlockQuantized",
    "MatMulBnb4",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QGemm",
];

/// The first node of the main graph that has integers or few bits for weights or activations;
/// `None` where all are floats.
pub fn quantised(model: &Model) -> Option<&Node> {
    let nodes = model.graph.nodes().map(|(_, n)| n);
    let is_of_few_bits = |op: &str| OPS.contains(&op) || op.starts_with("QLinear");
    let mut nodes = nodes.filter(|n| is_of_few_bits(&n.op));
    nodes.next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;

    fn found(nodes: &str) -> Option<String> {
        let text = format!("opset 17 graph g(x: f32[1,2]) -> (y) {{ {nodes} }}");
        quantised(&parse(&text).unwrap()).map(|n| n.op.clone())
    }

    #[test]
    fn files_of_every_form_are_told_from_floats() {
        assert_eq!(found("y = Relu(x)"), None);
        let qdq = "s: f32[] = {1} q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)";
        assert_eq!(found(qdq).as_deref(), Some("DequantizeLinear"));
        let dynamic = "q, s, z = DynamicQuantizeLinear(x) y = Cast(q) {to=1}";
        assert_eq!(found(dynamic).as_deref(), Some("DynamicQuantizeLinear"));
    }
}

//! Operators on integers (QLinearConv and its kin) as what they stand for: DequantizeLinear, the operator
//! of floats, QuantizeLinear.

use edgesmith_ir::{Attribute, Graph, Model, Node, NodeId, Tensor, ValueId};

/// How an operator on integers is taken apart.
struct Row {
    op: &'static str,
    domain: &'static str,
    /// The operator of floats.
    to: &'static str,
    /// Where triples of integers, scale and zero point begin.
    operands: &'static [usize],
    /// Where the scale of the result stands, with its zero point behind it.
    result: usize,
    /// Where the bias stands, in units of the products of the scales of both operands.
    bias: Option<usize>,
}

const MICROSOFT: &str = "com.microsoft";

const fn row(
    op: &'static str,
    domain: &'static str,
    to: &'static str,
    operands: &'static [usize],
    result: usize,
    bias: Option<usize>,
) -> Row {
    Row {
        op,
        domain,
        to,
        operands,
        result,
        bias,
    }
}

/// Operators of Microsoft's domain that are the same in ONNX's own.
const PAIR: &[&str] = &["DequantizeLinear", "QuantizeLinear"];

/// Every operator that is taken apart.
static ROWS: &[Row] = &[
    row("QLinearConv", "", "Conv", &[0, 3], 6, Some(8)),
    row("QLinearMatMul", "", "MatMul", &[0, 3], 6, None),
    row("QGemm", MICROSOFT, "Gemm", &[0, 3], 7, Some(6)),
    row("QLinearAdd", MICROSOFT, "Add", &[0, 3], 6, None),
    row(
        "QLinearAveragePool",
        MICROSOFT,
        "AveragePool",
        &[0],
        3,
        None,
    ),
    row(
        "QLinearGlobalAveragePool",
        MICROSOFT,
        "GlobalAveragePool",
        &[0],
        3,
        None,
    ),
    row("QLinearLeakyRelu", MICROSOFT, "LeakyRelu", &[0], 3, None),
    row("QLinearMul", MICROSOFT, "Mul", &[0, 3], 6, None),
    row("QLinearSigmoid", MICROSOFT, "Sigmoid", &[0], 3, None),
    row("QLinearSoftmax", MICROSOFT, "Softmax", &[0], 3, None),
];

/// Operators that are taken apart, with their domains.
pub fn operators() -> impl Iterator<Item = (&'static str, &'static str)> {
    let pair = PAIR.iter().map(|op| (MICROSOFT, *op));
    ROWS.iter().map(|r| (r.domain, r.op)).chain(pair)
}

/// The model with these operators taken apart; nothing where it has none.
pub(crate) fn expanded(model: &Model) -> Option<Model> {
    let find = |node: &Node| {
        ROWS.iter()
            .find(|r| node.op == r.op && node.domain == r.domain)
    };
    let found: Vec<(NodeId, &Row)> = model
        .graph
        .nodes()
        .filter_map(|(id, node)| Some((id, find(node)?)))
        .collect();
    // Of integers of 16 bits before opset 21.
    let is_pair = |n: &Node| n.domain == MICROSOFT && PAIR.iter().any(|op| n.op == *op);
    let pairs: Vec<NodeId> = model
        .graph
        .nodes()
        .filter(|(_, n)| is_pair(n))
        .map(|(id, _)| id)
        .collect();
    if found.is_empty() && pairs.is_empty() {
        return None;
    }
    let mut made = model.clone();
    for id in pairs {
        made.graph.node_mut(id).domain = "".into();
    }
    for (id, row) in found {
        expand(&mut made.graph, id, row);
    }
    Some(made)
}

/// Takes one node apart; one that lacks an input stays, and is refused later.
fn expand(graph: &mut Graph, id: NodeId, row: &Row) -> Option<()> {
    let old = graph.node(id).clone();
    let y = old.output(0)?;
    let mut inputs: Vec<ValueId> = Vec::new();
    for (i, &at) in row.operands.iter().enumerate() {
        let weights = i == 1 && matches!(row.to, "Conv" | "MatMul" | "Gemm");
        let axis = match row.to {
            "Conv" => 0,
            "Gemm" => i64::from(old.int("transB").unwrap_or(0) == 0),
            _ => 1,
        };
        let parts = [old.input(at)?, old.input(at + 1)?];
        let zero = old.input(at + 2);
        inputs.push(dequantized(
            graph,
            &old.name,
            parts,
            zero,
            weights.then_some(axis),
        ));
    }
    if let Some(bias) = row.bias.and_then(|b| old.input(b)) {
        let factor = |i: usize| -> Option<Vec<f32>> {
            let t = graph.constant(old.input(row.operands[i] + 1)?)?;
            Some(t.to_f32().ok()?.into_owned())
        };
        let (from, by) = (factor(0)?, factor(1)?);
        let scales: Vec<f32> = by
            .iter()
            .map(|b| from.first().copied().unwrap_or(1.0) * b)
            .collect();
        let scale = match scales.as_slice() {
            [one] => Tensor::scalar(*one),
            _ => Tensor::vector(scales),
        };
        let name = graph.fresh_name(&format!("{}_bias_scale", old.name));
        let scale = graph.add_constant(&name, scale);
        inputs.push(dequantized(graph, &old.name, [bias, scale], None, Some(0)));
    }
    let mut node = Node::new(row.to, &old.name);
    node.attributes.clone_from(&old.attributes);
    let name = graph.fresh_name(&format!("{}_floats", old.name));
    let floats = graph.add_op(node, &inputs, &name);
    let mut quantize = vec![floats, old.input(row.result)?];
    quantize.extend(old.input(row.result + 1));
    let node = Node::new("QuantizeLinear", &format!("{}_q", old.name));
    graph.remove_node(id);
    graph.add_node(
        node,
        &quantize.into_iter().map(Some).collect::<Vec<_>>(),
        &[Some(y)],
    );
    Some(())
}

/// The floats of integers, by a new DequantizeLinear.
fn dequantized(
    graph: &mut Graph,
    name: &str,
    [integers, scale]: [ValueId; 2],
    zero: Option<ValueId>,
    axis: Option<i64>,
) -> ValueId {
    let mut node = Node::new("DequantizeLinear", &format!("{name}_dq"));
    if let Some(axis) = axis {
        node.set("axis", Attribute::Int(axis));
    }
    let inputs: Vec<ValueId> = [integers, scale].into_iter().chain(zero).collect();
    let name = graph.fresh_name(&format!("{name}_dq"));
    graph.add_op(node, &inputs, &name)
}

//! Integer operators of parts written as Q/DQ groups, which every engine reads.

use edgesmith_ir::{Attribute, DType, Graph, Model, Node, NodeId, Tensor, Type, ValueId};

/// The first version of ONNX in which scales lie along an axis.
const WITH_AXES: i64 = 13;

/// An integer operator and the floats that it stands for.
struct Row {
    domain: &'static str,
    op: &'static str,
    float: &'static str,
    /// Operands, each with its scale and zero point.
    operands: usize,
    /// The input with the scale of the result, in front of its zero point.
    result: usize,
    /// The input with a bias that counts in products of both scales.
    bias: Option<usize>,
}

const fn row(domain: &'static str, op: &'static str, float: &'static str, operands: usize) -> Row {
    Row {
        domain,
        op,
        float,
        operands,
        result: operands * 3,
        bias: None,
    }
}

static ROWS: &[Row] = &[
    Row {
        bias: Some(8),
        ..row("", "QLinearConv", "Conv", 2)
    },
    row("", "QLinearMatMul", "MatMul", 2),
    row("com.microsoft", "QLinearAdd", "Add", 2),
    row("com.microsoft", "QLinearMul", "Mul", 2),
    row("com.microsoft", "QLinearAveragePool", "AveragePool", 1),
    row(
        "com.microsoft",
        "QLinearGlobalAveragePool",
        "GlobalAveragePool",
        1,
    ),
    row("com.microsoft", "QLinearLeakyRelu", "LeakyRelu", 1),
    row("com.microsoft", "QLinearSigmoid", "Sigmoid", 1),
];

/// Takes integer operators apart into DequantizeLinear, the operator of floats and QuantizeLinear.
/// What is not known to be the same is left as it is.
pub fn expand(model: &mut Model) {
    if model.opset() < WITH_AXES {
        return;
    }
    let graph = &mut model.graph;
    let found = graph.nodes().filter_map(|(id, node)| {
        let mut rows = ROWS.iter();
        rows.find(|r| r.op == node.op.as_str() && r.domain == node.domain.as_str())
            .map(|r| (id, r))
    });
    for (id, row) in found.collect::<Vec<_>>() {
        let _ = take_apart(graph, id, row);
    }
}

/// `None` where the node stays.
fn take_apart(graph: &mut Graph, id: NodeId, row: &Row) -> Option<()> {
    let node = graph.node(id).clone();
    let made = node.output(0)?;
    let (y_scale, y_zero) = (node.input(row.result)?, node.input(row.result + 1));
    let bytes = graph.value(made).tensor_type().map(|t| t.dtype);
    let known = y_zero.is_some() || bytes == Some(DType::U8);
    if !known || node.int("channels_last").unwrap_or(0) != 0 {
        return None;
    }
    let bias = match row.bias.and_then(|i| node.input(i)) {
        Some(b) => Some((b, bias_scales(graph, &node)?)),
        None => None,
    };
    let axes = (0..row.operands).map(|i| axis(graph, &node, row, i));
    let axes: Vec<Option<i64>> = axes.collect::<Option<_>>()?;
    graph.remove_node(id);
    let mut inputs = Vec::new();
    for (i, axis) in axes.into_iter().enumerate() {
        let at = |k: usize| node.input(3 * i + k);
        let name = format!("{}.{i}", node.name);
        inputs.push(dequantize(graph, &name, [at(0)?, at(1)?], at(2), axis));
    }
    if let Some((integers, scales)) = bias {
        let name = graph.fresh_name(&format!("{}.bias_scale", node.name));
        let axis = (scales.dims().len() == 1).then_some(0);
        let scale = graph.add_constant(&name, scales);
        let name = format!("{}.bias", node.name);
        inputs.push(dequantize(graph, &name, [integers, scale], None, axis));
    }
    let mut float = Node::new(row.float, &node.name);
    float.attributes = node.attributes.clone();
    float.remove("channels_last");
    let name = graph.fresh_name(&format!("{}.float", node.name));
    let y = graph.add_op(float, &inputs, &name);
    graph.value_mut(y).ty = floats(graph, made);
    let quantizer = Node::new("QuantizeLinear", &format!("{}.q", node.name));
    let mut inputs = vec![Some(y), Some(y_scale)];
    inputs.extend(y_zero.map(Some));
    graph.add_node(quantizer, &inputs, &[Some(made)]);
    Some(())
}

/// The axis along which operand `i` has scales: `Some(None)` for one scale, `None` where that is
/// not known.
fn axis(graph: &Graph, node: &Node, row: &Row, i: usize) -> Option<Option<i64>> {
    let lengths = |v: ValueId| {
        let ty = graph.value(v).tensor_type();
        let known = ty.and_then(|t| Some(t.shape.as_ref()?.known()?.to_vec()));
        graph.constant(v).map(|t| t.dims().to_vec()).or(known)
    };
    let scales = lengths(node.input(3 * i + 1)?)?;
    match scales[..] {
        [] => Some(None),
        // A zero point of another rank would not be of the same kind.
        [1] if row.op != "QLinearConv" => None,
        [_] if row.op == "QLinearConv" && i == 1 => Some(Some(0)),
        [_] if row.op == "QLinearMatMul" && i == 1 => Some(Some(
            i64::try_from(lengths(node.input(3)?)?.len()).ok()? - 1,
        )),
        _ => None,
    }
}

/// The scales in which the bias of a QLinearConv counts.
fn bias_scales(graph: &Graph, node: &Node) -> Option<Tensor> {
    let scales = |i: usize| graph.constant(node.input(i)?)?.data::<f32>().ok();
    let (x, w) = (scales(1)?, scales(4)?);
    let [x] = x[..] else { return None };
    let products: Vec<f32> = w.iter().map(|w| x * w).collect();
    let dims = graph.constant(node.input(4)?)?.dims().to_vec();
    Tensor::from_vec(&dims, products).ok()
}

/// A DequantizeLinear of its own, and what it makes.
fn dequantize(
    graph: &mut Graph,
    name: &str,
    [data, scale]: [ValueId; 2],
    zero: Option<ValueId>,
    axis: Option<i64>,
) -> ValueId {
    let mut node = Node::new("DequantizeLinear", &format!("{name}_dq"));
    if let Some(axis) = axis {
        node.set("axis", Attribute::Int(axis));
    }
    let inputs: Vec<ValueId> = [data, scale].into_iter().chain(zero).collect();
    let name = graph.fresh_name(&format!("{name}.f"));
    let ty = floats(graph, data);
    let made = graph.add_op(node, &inputs, &name);
    graph.value_mut(made).ty = ty;
    made
}

/// The type of `v`, of f32.
fn floats(graph: &Graph, v: ValueId) -> Option<Type> {
    let mut ty = graph.value(v).tensor_type()?.clone();
    ty.dtype = DType::F32;
    Some(ty.into())
}

/// Gives every reader of a constant with one element or one axis a constant of its own, where they
/// are bytes: ONNX Runtime changes zero points in place when it turns signs of weights.
pub fn separate_zeros(model: &mut Model) {
    let graph = &mut model.graph;
    let shared = graph.values().filter_map(|(v, value)| {
        let data = value.constant.as_ref()?;
        let bytes = matches!(data.dtype(), DType::I8 | DType::U8) && data.dims().len() < 2;
        let readers = value.consumers();
        (bytes && readers.len() > 1).then(|| (v, readers[1..].to_vec(), data.clone()))
    });
    for (v, readers, data) in shared.collect::<Vec<_>>() {
        for (reader, i) in readers {
            let name = graph.fresh_name(&graph.value(v).name.clone());
            let own = graph.add_constant(&name, data.clone());
            graph.set_input(reader, i, Some(own));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgesmith_ir::{eval, text};

    #[test]
    fn integer_operators_become_groups_with_the_same_bytes() {
        let source =
            "opset 17\nopset \"com.microsoft\" 1\ngraph g (x: u8[1,2,3,3]) -> (z: u8[1,2,1,1]) {
            s: f32[] = {0.5} p: u8[] = {3} w: i8[2,2,1,1] = {1,-2,3,4} ws: f32[2] = {0.25,0.5}
            wz: i8[2] = {0,0} b: i32[2] = {5,-7}
            c = QLinearConv(x, s, p, w, ws, wz, s, p, b) {name=\"c\"}
            a = com.microsoft.QLinearAdd(c, s, p, x, s, p, s, p) {name=\"a\"}
            z = com.microsoft.QLinearGlobalAveragePool(a, s, p, s, p) {name=\"z\"}
        }";
        let model = text::parse(source).expect("it is a model");
        let mut apart = model.clone();
        expand(&mut apart);
        let integer = |(_, n): &(_, &Node)| n.op.starts_with("QLinear");
        assert_eq!(apart.graph.nodes().filter(integer).count(), 0);
        edgesmith_ir::verify::verify(&apart).expect("it is sound");
        let x = Tensor::from_vec(&[1, 2, 3, 3], (0..18u8).collect()).expect("18 elements");
        let run = |m: &Model| eval::evaluate(m, &[("x", x.clone())]).expect("it runs");
        assert_eq!(run(&apart), run(&model));
    }

    #[test]
    fn every_reader_has_a_zero_point_of_its_own() {
        let source = "opset 17 graph g (x: u8[4]) -> (y: f32[4], z: f32[4]) {
            s: f32[] = {0.5} p: u8[] = {3}
            y = DequantizeLinear(x, s, p) z = DequantizeLinear(x, s, p)
        }";
        let mut model = text::parse(source).expect("it is a model");
        separate_zeros(&mut model);
        let shared = model.graph.values().filter(|(_, v)| {
            let bytes = |t: &Tensor| t.dtype() == DType::U8;
            v.constant.as_ref().is_some_and(bytes) && v.consumers().len() > 1
        });
        assert_eq!(shared.count(), 0);
    }
}

//! Joins DequantizeLinear, Conv or MatMul and QuantizeLinear to QLinearConv or QLinearMatMul.

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Model, Node, NodeId, Result, Tensor, ValueId};

use crate::pass::{Level, Pass, PassCx};
use crate::quantization::Grid;
use crate::rewrite::{Editor, Names, each_graph, nodes_of, rank};

/// Where input and weights are dequantized bytes, weights and their scales are constant, the bias
/// counts in products of both scales, and QuantizeLinear to the type of the input alone reads the
/// result. The integer operator sums exactly and rounds once, so bytes may differ by one from those
/// of floats. Only what ONNX Runtime takes: signed inputs with signed weights, one zero point.
pub static PASS: Pass = Pass {
    name: "fuse_quantized",
    about: "join Conv and MatMul of dequantized bytes to QLinearConv and QLinearMatMul",
    level: Level::Extended,
    run,
};

fn run(model: &mut Model, cx: &PassCx) -> Result<usize> {
    each_graph(model, cx, &mut |graph, scope| {
        let nodes = nodes_of(graph, &["Conv", "MatMul"]);
        if nodes.is_empty() || nodes_of(graph, &["QuantizeLinear"]).is_empty() {
            return Ok(0);
        }
        let types = scope.infer(graph)?;
        let mut editor = Editor::new(graph);
        let mut changes = 0;
        for id in nodes {
            changes += usize::from(fuse(&mut editor, id, &types, scope.names).is_some());
        }
        Ok(changes)
    })
}

/// Bytes with their scale and zero point.
struct Bytes {
    value: ValueId,
    grid: Grid,
    scale: ValueId,
    zero: Option<ValueId>,
}

/// What the QuantizeLinear or DequantizeLinear `id` makes or reads as `value`.
fn bytes(editor: &Editor, id: NodeId, value: ValueId, types: &Inferred) -> Option<Bytes> {
    let node = editor.graph.node(id);
    let grid = Grid::of(editor, id, value, types)?;
    let fits = matches!(grid.dtype, DType::I8 | DType::U8);
    Some(Bytes {
        value,
        scale: node.input(1)?,
        zero: node.input(2),
        grid,
    })
    .filter(|_| fits)
}

/// The bytes that input `i` of `id` is dequantized from.
fn dequantized(editor: &Editor, id: NodeId, i: usize, types: &Inferred) -> Option<Bytes> {
    let source = editor.source(id, i, &["DequantizeLinear"])?;
    bytes(editor, source, editor.graph.node(source).input(0)?, types)
}

fn fuse(editor: &mut Editor, id: NodeId, types: &Inferred, names: &mut Names) -> Option<()> {
    let node = editor.graph.node(id).clone();
    let is_conv = node.is("Conv");
    let made = node.output(0)?;
    let (quantizer, 0) = *editor.graph.value(made).consumers().first()? else {
        return None;
    };
    let reader = editor.graph.node(quantizer);
    if !reader.is("QuantizeLinear") || !editor.has_one_reader(made) {
        return None;
    }
    let x = dequantized(editor, id, 0, types)?;
    let w = dequantized(editor, id, 1, types)?;
    let y = bytes(editor, quantizer, reader.output(0)?, types)?;
    let by_tensor = |b: &Bytes| b.grid.axis.is_none();
    let plain = by_tensor(&x) && by_tensor(&y) && x.grid.dtype == y.grid.dtype;
    let signs = w.grid.dtype == DType::I8 || x.grid.dtype == DType::U8;
    if !plain || !signs || !suits(editor, &w, is_conv, types) {
        return None;
    }
    let bias = match node.input(2) {
        Some(_) => Some(bias(editor, id, &x.grid, &w.grid)?),
        None => None,
    };
    let op = if is_conv {
        "QLinearConv"
    } else {
        "QLinearMatMul"
    };
    let mut fused = Node::new(op, "");
    fused.attributes = node.attributes;
    let mut inputs = Vec::new();
    for (b, value) in [(&x, Some(x.value)), (&w, Some(w.value)), (&y, None)] {
        inputs.extend(value.map(Some));
        inputs.extend([Some(b.scale), Some(zero(editor, b, names))]);
    }
    inputs[5] = w.zero.map_or(inputs[5], |v| Some(own(editor, v, names)));
    inputs.push(bias);
    let joined = editor.fuse(&[id, quantizer], fused, &inputs, &[Some(y.value)]);
    editor.graph.node_mut(joined).name = node.name;
    Some(())
}

/// True where the weights are constant, of one zero point, with scales along the axis of columns.
fn suits(editor: &Editor, w: &Bytes, is_conv: bool, types: &Inferred) -> bool {
    let axis = match w.grid.axis {
        _ if is_conv => 0,
        _ if rank(types, w.value) != Some(2) => return false,
        Some(axis) if axis < 0 => axis + 2,
        _ => 1,
    };
    let one_zero = w.grid.zero.windows(2).all(|z| z[0] == z[1]);
    let along = w.grid.axis.is_none_or(|a| a == axis || a + 2 == axis);
    one_zero && along && editor.constant(w.value).is_some()
}

/// The integers of the bias, where they count in products of the scales of `x` and `w`.
fn bias(editor: &Editor, id: NodeId, x: &Grid, w: &Grid) -> Option<ValueId> {
    let node = editor
        .graph
        .node(editor.source(id, 2, &["DequantizeLinear"])?);
    let integers = node.input(0)?;
    let is_i32 = editor.constant(integers)?.dtype() == DType::I32;
    let scales = editor.constant(node.input(1)?)?.data::<f32>().ok()?;
    let zeros = match node.input(2) {
        Some(v) => editor.constant(v)?.to_i64().ok()?,
        None => Vec::new(),
    };
    let products = |s: (usize, &f32)| {
        let (i, &found) = s;
        let product = x.scale[0] * w.scale[i % w.scale.len()];
        (found - product).abs() <= 1e-6 * product
    };
    let as_many = scales.len() == w.scale.len() || w.scale.len() == 1;
    let counts = as_many && scales.iter().enumerate().all(products);
    (is_i32 && counts && zeros.iter().all(|&z| z == 0)).then_some(integers)
}

/// A copy of a constant that others read too, or the constant.
fn own(editor: &mut Editor, v: ValueId, names: &mut Names) -> ValueId {
    let value = editor.graph.value(v);
    match &value.constant {
        Some(data) if value.consumers().len() > 1 => {
            let (name, data) = (names.fresh(&value.name.clone()), data.clone());
            editor.graph.add_constant(&name, data)
        }
        _ => v,
    }
}

/// The zero point, which the integer operator always reads.
fn zero(editor: &mut Editor, b: &Bytes, names: &mut Names) -> ValueId {
    b.zero.unwrap_or_else(|| {
        let zero = match b.grid.dtype {
            DType::I8 => Tensor::scalar(0i8),
            _ => Tensor::scalar(0u8),
        };
        editor.graph.add_constant(&names.fresh("zero_point"), zero)
    })
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text::parse;
    use edgesmith_ir::{NoProgress, eval, verify};
    use edgesmith_testkit::random;

    use super::PASS;
    use crate::pass::PassCx;
    use crate::testing::ops;

    fn conv(bias_scale: &str, end: &str) -> String {
        format!(
            "opset 17\ngraph g(x: u8[n,2,4,4]) -> (y) {{
               s: f32[] = {{0.05}}
               z: u8[] = {{120}}
               w: i8[3,2,1,1] = {{1,-20,30,44,-5,6}}
               ws: f32[3] = {{0.5,0.25,0.125}}
               wz: i8[3] = {{0,0,0}}
               b: i32[3] = {{5,-7,100}}
               bs: f32[3] = {bias_scale}
               bz: i32[3] = {{0,0,0}}
               xf = DequantizeLinear(x, s, z)
               wf = DequantizeLinear(w, ws, wz) {{axis=0}}
               bf = DequantizeLinear(b, bs, bz) {{axis=0}}
               c = Conv(xf, wf, bf) {{pads=[1,1,0,0], name=\"c\"}}
               {end}
             }}"
        )
    }

    /// The operators after the pass, whose bytes are at most one away from those before.
    fn after(text: &str) -> Vec<String> {
        let before = parse(text).unwrap();
        verify::verify(&before).unwrap();
        let mut model = before.clone();
        (PASS.run)(&mut model, &PassCx::new(&NoProgress)).unwrap();
        verify::verify(&model).unwrap();
        for seed in 0..3 {
            let inputs = random::inputs_with(&before, seed, &[("n", 2)]);
            let inputs: Vec<_> = inputs
                .iter()
                .map(|(n, t)| (n.as_str(), t.clone()))
                .collect();
            let run = |m| {
                let y = eval::evaluate(m, &inputs).unwrap().remove(0);
                y.to_f32().unwrap().into_owned()
            };
            let (a, b) = (run(&before), run(&model));
            assert!(
                a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1.0),
                "{a:?} {b:?}"
            );
        }
        let mut left = ops(&model);
        left.retain(|op| op != "DequantizeLinear");
        left
    }

    const SCALES: &str = "{0.025,0.0125,0.00625}";

    #[test]
    fn a_convolution_between_bytes_sums_integers() {
        for end in [
            "t: f32[] = {0.5}\nyz: u8[] = {100}\ny = QuantizeLinear(c, t, yz)",
            "t: f32[] = {0.5}\ny = QuantizeLinear(c, t)",
        ] {
            assert_eq!(after(&conv(SCALES, end)), ["QLinearConv"]);
        }
    }

    #[test]
    fn a_product_between_bytes_sums_integers() {
        for (axis, op) in [(1, "QLinearMatMul"), (-1, "QLinearMatMul"), (0, "MatMul")] {
            let text = format!(
                "opset 17\ngraph g(x: i8[n,2]) -> (y) {{
                   s: f32[] = {{0.05}}
                   w: i8[2,2] = {{1,-20,30,44}}
                   ws: f32[2] = {{0.5,0.25}}
                   t: f32[] = {{0.5}}
                   z: i8[] = {{3}}
                   xf = DequantizeLinear(x, s)
                   wf = DequantizeLinear(w, ws) {{axis={axis}}}
                   m = MatMul(xf, wf)
                   y = QuantizeLinear(m, t, z)
                 }}"
            );
            assert_eq!(after(&text)[0], op, "{axis}");
        }
    }

    #[test]
    fn other_types_and_scales_stay() {
        for (scales, end) in [
            (
                SCALES,
                "t: f32[] = {0.5}\nyz: i8[] = {100}\ny = QuantizeLinear(c, t, yz)",
            ),
            (SCALES, "y = Relu(c)"),
            (
                "{0.025,0.0125,0.006}",
                "t: f32[] = {0.5}\ny = QuantizeLinear(c, t)",
            ),
        ] {
            assert_eq!(after(&conv(scales, end))[0], "Conv");
        }
    }
}

//! Training of quantised models: weights that are stored as integers become floats that are
//! quantised in each step, and integers again when the model is written.
//!
//! What is trained is what will run: the nodes that quantise and dequantise are those of the file.

use edgesmith_ir::eval::{self, EvalCx};
use edgesmith_ir::{
    Attribute, DType, Error, Model, Node, NodeId, Result, Tensor, TensorType, ValueId, packed,
};

mod nbits;

use nbits::Packed;

/// What was thawed of a model.
#[derive(Debug, Clone, Default)]
pub struct Thawed {
    /// Weights, which were integers.
    pub weights: Vec<Weight>,
    /// Biases, which were integers.
    pub biases: Vec<Bias>,
    /// The scales of weights and of activations, in the order of nodes.
    pub scales: Vec<Scale>,
    /// The MatMulNBits that were taken apart, whose codes are among the weights.
    pub packed: Vec<Packed>,
}

/// A weight that is quantised in each step.
#[derive(Debug, Clone)]
pub struct Weight {
    /// The float.
    pub float: ValueId,
    /// The nodes that quantise it, one after the other: those of 4 bits are bounded bytes.
    pub nodes: Vec<NodeId>,
    /// The node that dequantises it.
    pub reader: NodeId,
    /// The zero points of the file.
    pub zero: Option<ValueId>,
    /// The type of the file.
    pub dtype: DType,
}

/// A scale that learns.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// The scale, or the scales of a tensor.
    pub value: ValueId,
    /// What is divided by it.
    pub of: ValueId,
    /// The largest distance of an integer from the zero point.
    pub most: f64,
}

/// A bias that was stored in steps of the scales of input and weight.
#[derive(Debug, Clone, Copy)]
pub struct Bias {
    /// The product that it is added to.
    pub node: NodeId,
    /// The float.
    pub value: ValueId,
    /// The scale of the input.
    pub input: ValueId,
    /// The scale of the weight.
    pub weight: ValueId,
}

/// Products whose third input is a bias.
const PRODUCTS: &[&str] = &["Conv", "ConvTranspose", "Gemm"];

/// Makes the integer weights and biases of a QDQ model floats, and those of MatMulNBits.
///
/// # Errors
/// When a constant cannot be dequantised.
pub fn thaw(model: &mut Model) -> Result<Thawed> {
    let mut thawed = Thawed {
        packed: nbits::open(model)?,
        ..Thawed::default()
    };
    for id in model.graph.order()? {
        let node = model.graph.node(id).clone();
        if node.is("QuantizeLinear") {
            thawed.scales.extend(scale(model, &node));
        }
        if PRODUCTS.contains(&node.op.as_str()) && node.domain.is_empty() {
            thaw_bias(model, id, &node, &mut thawed)?;
        }
    }
    for id in model.graph.order()? {
        let node = model.graph.node(id).clone();
        if node.is("DequantizeLinear") {
            thaw_weight(model, id, &node, &mut thawed)?;
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    thawed.scales.retain(|s| seen.insert(s.value));
    Ok(thawed)
}

/// The scale of a QuantizeLinear whose zero point is known, or is 0 of bytes.
fn scale(model: &Model, node: &Node) -> Option<Scale> {
    let (of, value) = (node.input(0)?, node.input(1)?);
    let zero = node.input(2).map(|v| model.graph.constant(v));
    let (dtype, zeros) = match zero {
        None => (DType::U8, vec![0]),
        Some(t) => (t?.dtype(), integers(t?).ok()?),
    };
    let made = node.output(0)?;
    let reader = model.graph.sole_consumer(made);
    let bounds = reader.and_then(|(id, _)| bounds(model, model.graph.node(id)));
    let [low, high] = match bounds {
        Some(bounds) => bounds,
        None => ends(dtype)?,
    };
    let far = |z: &i64| (high - z).max(z - low);
    let most = zeros.iter().map(far).max()? as f64;
    Some(Scale { value, of, most })
}

/// The bounds of a Clip of integers.
fn bounds(model: &Model, node: &Node) -> Option<[i64; 2]> {
    let bound = |i: usize| -> Option<i64> {
        let t = model.graph.constant(node.input(i)?)?;
        t.dtype()
            .is_integer()
            .then(|| t.to_i64().ok()?.first().copied())?
    };
    let bounds = node.is("Clip").then(|| [bound(1), bound(2)])?;
    Some([bounds[0]?, bounds[1]?])
}

/// The ends of an integer type of quantised numbers.
fn ends(dtype: DType) -> Option<[i64; 2]> {
    let bits = dtype.bits();
    let half = 1i64 << (bits.checked_sub(1)?.min(31));
    match dtype.is_signed_integer() {
        true => Some([-half, half - 1]),
        false => dtype.is_integer().then_some([0, 2 * half - 1]),
    }
}

/// The constants of a node, by place; `None` where an input is computed.
fn constants(model: &Model, node: &Node) -> Option<Vec<Option<Tensor>>> {
    let one = |v: &Option<ValueId>| match v {
        None => Some(None),
        Some(v) => model.graph.value(*v).constant.clone().map(Some),
    };
    node.inputs().iter().map(one).collect()
}

/// What a node makes of constants.
fn evaluated(model: &Model, node: &Node, inputs: Vec<Option<Tensor>>) -> Result<Tensor> {
    let items = eval::items(inputs);
    let outputs = eval::evaluate_tensors(&EvalCx::new(model, node, &items))?;
    let first = outputs.into_iter().next();
    first.ok_or_else(|| Error::internal("a node has an output"))
}

fn thaw_weight(model: &mut Model, id: NodeId, node: &Node, thawed: &mut Thawed) -> Result<()> {
    let Some(inputs) = constants(model, node) else {
        return Ok(());
    };
    let Some(stored) = inputs.first().cloned().flatten() else {
        return Ok(());
    };
    let (Some(weight), Some(scale)) = (node.input(0), node.input(1)) else {
        return Ok(());
    };
    // Products of wider integers are sums, and no weights.
    if !stored.dtype().is_integer() || stored.dtype().bits() > 16 {
        return Ok(());
    }
    let data = evaluated(model, node, inputs)?;
    if data.dtype() != DType::F32 {
        return Ok(());
    }
    let name = model.graph.value(weight).name.clone();
    let float = model.graph.fresh_name(&format!("{name}/float"));
    let float = model.graph.add_constant(&float, data);
    // Numbers of 4 bits are bytes within bounds: kernels of training are of bytes.
    let bits = thawed.packed.iter().find(|p| p.reader == id);
    let bits = bits.map(|p| p.bits).filter(|b| *b < 8);
    let is_narrow = matches!(stored.dtype(), DType::I4 | DType::U4)
        && node.int("block_size").unwrap_or(0) == 0
        || bits.is_some();
    let held = match (is_narrow, stored.dtype()) {
        (true, DType::I4) => DType::I8,
        (true, _) => DType::U8,
        (false, dtype) => dtype,
    };
    let ty = TensorType::fixed(held, stored.dims());
    let mut quantize = Node::new("QuantizeLinear", &format!("{name}/quantize"));
    for key in ["axis", "block_size"] {
        if let Some(value) = node.attribute(key) {
            quantize.set(key, value.clone());
        }
    }
    let zero = zero_point(model, node, &name, held)?;
    let mut inner = model.graph.add_op(
        quantize,
        &[float, scale, zero],
        &format!("{name}/quantized"),
    );
    let mut nodes: Vec<NodeId> = model
        .graph
        .value(inner)
        .producer()
        .map(|p| p.0)
        .into_iter()
        .collect();
    let [low, high] = match bits {
        Some(bits) => [0, (1 << bits) - 1],
        None => ends(stored.dtype()).unwrap_or_default(),
    };
    if is_narrow {
        inner = bounded(model, &name, inner, (held, [low, high]))?;
        nodes.extend(model.graph.value(inner).producer().map(|p| p.0));
        model.graph.set_input(id, 2, Some(zero));
    }
    model.graph.value_mut(inner).ty = Some(ty.into());
    model.graph.set_input(id, 0, Some(inner));
    thawed.weights.push(Weight {
        float,
        nodes,
        reader: id,
        zero: node.input(2),
        dtype: stored.dtype(),
    });
    let zeros = model.graph.constant(zero).and_then(|t| integers(t).ok());
    let far = |z: &i64| (high - z).max(z - low);
    let most = zeros.and_then(|z| z.iter().map(far).max());
    thawed.scales.push(Scale {
        value: scale,
        of: float,
        most: most.unwrap_or(1) as f64,
    });
    Ok(())
}

/// Whole numbers of any integer type.
fn integers(t: &Tensor) -> Result<Vec<i64>> {
    match packed::is_packed(t.dtype()) {
        true => Ok(packed::decode_integers(t)?
            .into_iter()
            .map(i64::from)
            .collect()),
        false => t.to_i64(),
    }
}

/// The zero points of the DequantizeLinear `node`, held as `dtype`.
fn zero_point(model: &mut Model, node: &Node, name: &str, dtype: DType) -> Result<ValueId> {
    let of = |i: usize| node.input(i).and_then(|v| model.graph.constant(v));
    let data = match (node.input(2), of(2)) {
        (Some(zero), None) => return Ok(zero),
        (Some(zero), Some(t)) if t.dtype() == dtype => return Ok(zero),
        (_, Some(t)) => {
            let zeros = integers(t)?;
            match dtype {
                DType::I8 => Tensor::from_vec(t.dims(), zeros.iter().map(|z| *z as i8).collect())?,
                _ => Tensor::from_vec(t.dims(), zeros.iter().map(|z| *z as u8).collect())?,
            }
        }
        (None, None) => {
            let dims = of(1).map_or(Vec::new(), |t| t.dims().to_vec());
            let count = dims.iter().product();
            let bytes = vec![0u8; dtype.bytes_of(count).unwrap_or(0)];
            Tensor::from_bytes(dtype, &dims, bytes.into())?
        }
    };
    let name = model.graph.fresh_name(&format!("{name}/zero"));
    Ok(model.graph.add_constant(&name, data))
}

/// Bytes within the ends of a type of fewer bits.
fn bounded(
    model: &mut Model,
    name: &str,
    ints: ValueId,
    (dtype, ends): (DType, [i64; 2]),
) -> Result<ValueId> {
    let mut inputs = vec![ints];
    for end in ends {
        let data = match dtype {
            DType::I8 => Tensor::scalar(end as i8),
            _ => Tensor::scalar(end as u8),
        };
        let bound = model.graph.fresh_name(&format!("{name}/bound"));
        inputs.push(model.graph.add_constant(&bound, data));
    }
    let node = Node::new("Clip", &format!("{name}/bounded"));
    Ok(model
        .graph
        .add_op(node, &inputs, &format!("{name}/bounded")))
}

/// The DequantizeLinear that makes a value.
fn dequantizes(model: &Model, v: ValueId) -> Option<NodeId> {
    let (id, _) = model.graph.value(v).producer()?;
    model.graph.node(id).is("DequantizeLinear").then_some(id)
}

fn thaw_bias(model: &mut Model, id: NodeId, node: &Node, thawed: &mut Thawed) -> Result<()> {
    let [x, w, b] = [0, 1, 2].map(|i| dequantizes(model, node.input(i)?));
    let (Some(x), Some(w), Some(b)) = (x, w, b) else {
        return Ok(());
    };
    let of_bias = model.graph.node(b).clone();
    let Some(inputs) = constants(model, &of_bias) else {
        return Ok(());
    };
    let stored = inputs.first().cloned().flatten();
    let (Some(stored), Some(old)) = (stored, of_bias.input(0)) else {
        return Ok(());
    };
    let scale = |id: NodeId| model.graph.node(id).input(1);
    let (Some(input), Some(weight)) = (scale(x), scale(w)) else {
        return Ok(());
    };
    if stored.dtype() != DType::I32 {
        return Ok(());
    }
    let data = evaluated(model, &of_bias, inputs)?;
    let name = model.graph.value(old).name.clone();
    let float = model.graph.fresh_name(&format!("{name}/float"));
    let value = model.graph.add_constant(&float, data);
    model.graph.set_input(id, 2, Some(value));
    let is_unread = of_bias
        .output(0)
        .is_some_and(|v| model.graph.value(v).consumers().is_empty() && !model.graph.is_output(v));
    if is_unread {
        model.graph.remove_node(b);
    }
    thawed.biases.push(Bias {
        node: id,
        value,
        input,
        weight,
    });
    Ok(())
}

/// Makes what was thawed integers again.
///
/// # Errors
/// When a weight or a scale is no constant any more.
pub fn freeze(model: &mut Model, thawed: &Thawed) -> Result<()> {
    for weight in &thawed.weights {
        freeze_weight(model, weight)?;
    }
    for bias in &thawed.biases {
        freeze_bias(model, bias)?;
    }
    for packed in &thawed.packed {
        nbits::close(model, packed)?;
    }
    let only = ["remove_dead_nodes"];
    let run = edgesmith_passes::RunOptions {
        only: &only,
        ..edgesmith_passes::RunOptions::default()
    };
    edgesmith_passes::optimize(model, edgesmith_passes::Level::Basic, &run)?;
    Ok(())
}

fn freeze_weight(model: &mut Model, weight: &Weight) -> Result<()> {
    let missing = || Error::internal("a weight is a constant");
    let mut made: Option<(ValueId, Tensor)> = None;
    for &id in &weight.nodes {
        let node = model.graph.node(id).clone();
        let mut inputs = Vec::new();
        for v in node.inputs() {
            let known = |v: ValueId| match &made {
                Some((of, data)) if *of == v => Some(data.clone()),
                _ => model.graph.value(v).constant.clone(),
            };
            let data = v.map(|v| known(v).ok_or_else(|| missing().at(node.place())));
            inputs.push(data.transpose()?);
        }
        let data = evaluated(model, &node, inputs)?;
        model.graph.remove_node(id);
        made = node.output(0).map(|out| (out, data));
    }
    let (out, mut data) = made.ok_or_else(missing)?;
    let name = model.graph.value(weight.float).name.clone();
    let name = name.strip_suffix("/float").unwrap_or(&name).to_owned();
    let name = fresh(model, &name, weight.float);
    if data.dtype() != weight.dtype {
        let numbers = data.to_i64()?.into_iter().map(i128::from);
        data = packed::encode_integers(weight.dtype, data.dims(), numbers)?;
        model.graph.set_input(weight.reader, 2, weight.zero);
    }
    let stored = model.graph.add_constant(&name, data);
    model.graph.replace_uses(out, stored);
    Ok(())
}

/// The name of the stored integers, which the float that goes may have had.
fn fresh(model: &mut Model, name: &str, float: ValueId) -> String {
    let taken = model.graph.find_value(name);
    let unused = taken.filter(|&v| {
        let value = model.graph.value(v);
        value.consumers().is_empty() && value.producer().is_none()
    });
    for v in [unused, Some(float)].into_iter().flatten() {
        let value = model.graph.value_mut(v);
        value.name = format!("{}/gone", value.name);
        value.constant = None;
    }
    model.graph.fresh_name(name)
}

fn freeze_bias(model: &mut Model, bias: &Bias) -> Result<()> {
    let constant = |v: ValueId| {
        let value = model.graph.value(v);
        let missing =
            || Error::internal("a scale is a constant").at(format!("value \"{}\"", value.name));
        value
            .constant
            .as_ref()
            .ok_or_else(missing)?
            .to_f32()
            .map(|d| d.into_owned())
    };
    let (b, input, weight) = (
        constant(bias.value)?,
        constant(bias.input)?,
        constant(bias.weight)?,
    );
    let step = input.first().copied().unwrap_or(1.0);
    let scales: Vec<f32> = weight.iter().map(|w| w * step).collect();
    let scale_of = |i: usize| scales[i % scales.len().max(1)];
    let quantized = b.iter().enumerate().map(|(i, b)| {
        let steps = (f64::from(*b) / f64::from(scale_of(i))).round_ties_even();
        steps.clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32
    });
    let quantized: Vec<i32> = quantized.collect();
    let name = model.graph.value(bias.value).name.clone();
    let name = name.strip_suffix("/float").unwrap_or(&name).to_owned();
    let stored = fresh(model, &name, bias.value);
    let stored = model.graph.add_constant(&stored, Tensor::vector(quantized));
    let scale = model.graph.fresh_name(&format!("{name}_scale"));
    let scale = match scales[..] {
        [one] => model.graph.add_constant(&scale, Tensor::scalar(one)),
        _ => model
            .graph
            .add_constant(&scale, Tensor::vector(scales.clone())),
    };
    let node = Node::new("DequantizeLinear", &format!("{name}_dq")).with("axis", Attribute::Int(0));
    let out = model
        .graph
        .add_op(node, &[stored, scale], &format!("{name}_dq"));
    model.graph.set_input(bias.node, 2, Some(out));
    Ok(())
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text;

    use super::*;

    const NET: &str = "opset 19 graph g(x: f32[n,2]) -> (y) {
        xs: f32[] = {0.1} xz: u8[] = {128} ws: f32[2] = {0.5,0.25} bs: f32[2] = {0.05,0.025}
        w: i8[2,2] = {3,-4,5,127} b: i32[2] = {10,-20}
        q = QuantizeLinear(x, xs, xz) d = DequantizeLinear(q, xs, xz)
        wd = DequantizeLinear(w, ws) {axis=0} bd = DequantizeLinear(b, bs) {axis=0}
        y = Gemm(d, wd, bd) {transB=1} }";

    fn answers(model: &Model) -> Vec<f32> {
        let x = Tensor::from_vec(&[2, 2], vec![0.31f32, -0.52, 1.7, 3.0]).unwrap();
        let y = eval::evaluate(model, &[("x", x)]).unwrap();
        y[0].to_f32().unwrap().to_vec()
    }

    #[test]
    fn thawed_and_frozen_again_nothing_changes() {
        let before = text::parse(NET).unwrap();
        let mut model = before.clone();
        let thawed = thaw(&mut model).unwrap();
        assert_eq!(
            (
                thawed.weights.len(),
                thawed.biases.len(),
                thawed.scales.len()
            ),
            (1, 1, 2)
        );
        assert_eq!(answers(&model), answers(&before));
        freeze(&mut model, &thawed).unwrap();
        edgesmith_testkit::check(&model);
        assert_eq!(answers(&model), answers(&before));
        let of = |m: &Model, n: &str| {
            let v = m.graph.find_value(n).unwrap();
            m.graph.value(v).constant.clone().unwrap()
        };
        assert_eq!(of(&model, "w"), of(&before, "w"));
        assert_eq!(of(&model, "b"), of(&before, "b"));
    }

    #[test]
    fn weights_of_four_bits_by_blocks_thaw_too() {
        let before = text::parse(
            "opset 21 graph g(x: f32[n,4]) -> (y) {
            s: f32[2,2] = {0.5,0.25,0.1,1} w: i4[2,4] = {hex\"18f73d2c\"}
            d = DequantizeLinear(w, s) {axis=1, block_size=2} y = Gemm(x, d) {transB=1} }",
        )
        .unwrap();
        let mut model = before.clone();
        let thawed = thaw(&mut model).unwrap();
        assert_eq!(thawed.weights.len(), 1);
        freeze(&mut model, &thawed).unwrap();
        let of = |m: &Model| {
            let v = m.graph.find_value("w").unwrap();
            m.graph.value(v).constant.clone().unwrap()
        };
        assert_eq!(of(&model), of(&before));
    }

    #[test]
    fn four_bits_are_bytes_within_bounds_while_they_train() {
        let before = text::parse(
            "opset 21 graph g(x: f32[n,2]) -> (y: f32[n,2]) {
            xs: f32[] = {0.1} xz: u8[] = {8} low: u8[] = {0} high: u8[] = {15}
            ws: f32[2] = {0.5,0.25} wz: i4[2] = {hex\"00\"} w: i4[2,2] = {hex\"8f37\"}
            q = QuantizeLinear(x, xs, xz) c = Clip(q, low, high) d = DequantizeLinear(c, xs, xz)
            wd = DequantizeLinear(w, ws, wz) {axis=0} y = Gemm(d, wd) {transB=1} }",
        )
        .unwrap();
        let mut model = before.clone();
        let thawed = thaw(&mut model).unwrap();
        let most: Vec<f64> = thawed.scales.iter().map(|s| s.most).collect();
        assert_eq!(most, [8.0, 8.0]);
        let weight = &thawed.weights[0];
        assert_eq!((weight.nodes.len(), weight.dtype), (2, DType::I4));
        assert_eq!(answers(&model), answers(&before));
        // Far beyond the ends of 4 bits.
        let data = Tensor::from_vec(&[2, 2], vec![9.0f32, -9.0, 0.3, 2.0]).unwrap();
        model.graph.value_mut(weight.float).constant = Some(data);
        let trained = answers(&model);
        freeze(&mut model, &thawed).unwrap();
        edgesmith_testkit::check(&model);
        assert_eq!(answers(&model), trained);
        let w = model.graph.find_value("w").unwrap();
        let w = model.graph.constant(w).unwrap();
        assert_eq!(integers(w).unwrap(), [7, -8, 1, 7]);
        assert_eq!(w.dtype(), DType::I4);
    }

    #[test]
    fn a_model_of_floats_has_nothing_to_thaw() {
        let mut model = text::parse("opset 17 graph g(x: f32[2]) -> (y) { y = Relu(x) }").unwrap();
        assert!(thaw(&mut model).unwrap().weights.is_empty());
    }
}

//! Training of quantised models: weights that are stored as integers become floats that are
//! quantised in each step, and integers again when the model is written.
//!
//! What is trained is what will run: the nodes that quantise and dequantise are those of the file.

use edgesmith_ir::eval::{self, EvalCx};
use edgesmith_ir::{Attribute, DType, Error, Model, Node, NodeId, Result, Tensor, ValueId};

/// What was thawed of a model.
#[derive(Debug, Clone, Default)]
pub struct Thawed {
    /// The nodes that quantise weights.
    pub weights: Vec<NodeId>,
    /// Biases, which were integers.
    pub biases: Vec<Bias>,
    /// The scales of weights and of activations, in the order of nodes.
    pub scales: Vec<ValueId>,
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

/// Makes the integer weights and biases of a QDQ model floats.
///
/// # Errors
/// When a constant cannot be dequantised.
pub fn thaw(model: &mut Model) -> Result<Thawed> {
    let mut thawed = Thawed::default();
    for id in model.graph.order()? {
        let node = model.graph.node(id).clone();
        if node.is("QuantizeLinear") {
            thawed.scales.extend(node.input(1));
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
    thawed.scales.retain(|v| seen.insert(*v));
    Ok(thawed)
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
    let ty = stored.ty();
    let mut quantize = Node::new("QuantizeLinear", &format!("{name}/quantize"));
    for key in ["axis", "block_size"] {
        if let Some(value) = node.attribute(key) {
            quantize.set(key, value.clone());
        }
    }
    let zero = match node.input(2) {
        Some(zero) => zero,
        None => {
            let dims = model
                .graph
                .value(scale)
                .constant
                .as_ref()
                .map_or(Vec::new(), |t| t.dims().to_vec());
            let count = dims.iter().product();
            let bytes = vec![0u8; ty.dtype.bytes_of(count).unwrap_or(0)];
            let data = Tensor::from_bytes(ty.dtype, &dims, bytes.into())?;
            let name = model.graph.fresh_name(&format!("{name}/zero"));
            model.graph.add_constant(&name, data)
        }
    };
    let inner = model.graph.fresh_name(&format!("{name}/quantized"));
    let inner = model.graph.add_value(&inner, Some(ty.into()));
    let made = model.graph.add_node(
        quantize,
        &[Some(float), Some(scale), Some(zero)],
        &[Some(inner)],
    );
    model.graph.set_input(id, 0, Some(inner));
    thawed.weights.push(made);
    thawed.scales.push(scale);
    Ok(())
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
    for &id in &thawed.weights {
        let node = model.graph.node(id).clone();
        let inputs = constants(model, &node)
            .ok_or_else(|| Error::internal("a weight is a constant").at(node.place()))?;
        let data = evaluated(model, &node, inputs)?;
        let (Some(float), Some(out)) = (node.input(0), node.output(0)) else {
            continue;
        };
        let name = model.graph.value(float).name.clone();
        let name = name.strip_suffix("/float").unwrap_or(&name).to_owned();
        model.graph.remove_node(id);
        let name = fresh(model, &name, float);
        let stored = model.graph.add_constant(&name, data);
        model.graph.replace_uses(out, stored);
    }
    for bias in &thawed.biases {
        freeze_bias(model, bias)?;
    }
    let only = ["remove_dead_nodes"];
    let run = edgesmith_passes::RunOptions {
        only: &only,
        ..edgesmith_passes::RunOptions::default()
    };
    edgesmith_passes::optimize(model, edgesmith_passes::Level::Basic, &run)?;
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
    fn a_model_of_floats_has_nothing_to_thaw() {
        let mut model = text::parse("opset 17 graph g(x: f32[2]) -> (y) { y = Relu(x) }").unwrap();
        assert!(thaw(&mut model).unwrap().weights.is_empty());
    }
}

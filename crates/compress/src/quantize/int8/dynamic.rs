//! Dynamic INT8: weights are bytes in the file, activations become bytes when the model runs, by the
//! range that each then has. Nothing is calibrated.
//!
//! MatMul and Gemm with constant weights become DynamicQuantizeLinear, MatMulInteger, a Cast and two
//! Muls, which ONNX Runtime and this program join to one kernel. Convolutions stay float: ONNX
//! Runtime has no ConvInteger for signed weights.

use std::collections::BTreeMap;

use edgesmith_ir::{Attribute, Error, Graph, Model, Node, NodeId, Result, Tensor, ValueId};
use edgesmith_passes::convert_opset;

use super::Settings;
use super::weights::Weight;
use crate::quantize::changes::{Changes, Fate, NodeChange};
use crate::quantize::sources::Source;
use crate::quantize::weight_only::matrix::turned;
use edgesmith_ir::pattern::matches;

/// The first opset with DynamicQuantizeLinear.
const DYNAMIC_OPSET: i64 = 11;

/// ONNX's number of f32.
const FLOAT: i64 = 1;

/// A product that becomes dynamic.
struct Product {
    id: NodeId,
    input: ValueId,
    weight: ValueId,
    transposed: bool,
    bias: Option<ValueId>,
}

/// Quantises the products of a float model. Settings of activations play no part: those are unsigned
/// bytes of one scale a tensor.
///
/// # Errors
/// When the opset cannot be raised, or there is no product with constant weights.
pub fn quantize_dynamic(model: &Model, settings: &Settings) -> Result<(Model, Changes)> {
    let mut out = model.clone();
    if out.opset() < DYNAMIC_OPSET {
        convert_opset(&mut out, DYNAMIC_OPSET)?;
    }
    crate::quantize::plain_gemm(&mut out.graph)?;
    let mut changes = Changes {
        weight_bytes_before: crate::quantize::constant_bytes(&model.graph),
        ..Changes::default()
    };
    let mut inputs = BTreeMap::new();
    let mut weights = BTreeMap::new();
    for id in out.graph.order()? {
        let node = out.graph.node(id);
        let (name, op) = (node.name.clone(), node.op.clone());
        let fate = match product(&out.graph, id, settings) {
            Ok(p) => {
                let float = out.graph.constant(p.weight).cloned();
                replace(&mut out.graph, &p, settings, &mut inputs, &mut weights)?;
                let made = weights.get(&(p.weight, p.transposed));
                if let (Some(float), Some(&made)) = (float, made) {
                    record(&mut changes, &out.graph, &p, made, settings, (&name, float))?;
                }
                Fate::Converted
            }
            Err(reason) => Fate::Left(reason.into()),
        };
        changes.nodes.push(NodeChange { name, op, fate });
    }
    if weights.is_empty() {
        return Err(Error::unsupported("no node of the model can be quantised")
            .hint("dynamic INT8 needs MatMul or Gemm with constant weights"));
    }
    changes.narrowing_nodes = inputs.len();
    crate::quantize::drop_unused(&mut out.graph);
    changes.weight_bytes_after = crate::quantize::constant_bytes(&out.graph);
    Ok((out, changes))
}

fn product(graph: &Graph, id: NodeId, settings: &Settings) -> Result<Product, &'static str> {
    let node = graph.node(id);
    let is_gemm = node.is("Gemm");
    if !node.is("MatMul") && !is_gemm {
        return Err("only MatMul and Gemm have a dynamic form");
    }
    if settings.exclude.iter().any(|p| matches(p, &node.name)) {
        return Err("excluded by name");
    }
    let (Some(input), Some(weight)) = (node.input(0), node.input(1)) else {
        return Err("an input is missing");
    };
    let constant = graph
        .constant(weight)
        .filter(|_| graph.constant(input).is_none());
    let is_plain = |name| node.float(name).unwrap_or(1.0) == 1.0;
    if !constant.is_some_and(|t| t.rank() == 2 && t.dtype() == edgesmith_ir::DType::F32) {
        return Err("its weight is no constant matrix of f32");
    }
    if is_gemm && !(is_plain("alpha") && is_plain("beta") && node.int("transA").unwrap_or(0) == 0) {
        return Err("alpha, beta or transA is not plain");
    }
    Ok(Product {
        id,
        input,
        weight,
        transposed: is_gemm && node.int("transB").unwrap_or(0) != 0,
        bias: node.input(2).filter(|_| is_gemm),
    })
}

type Quantized = [ValueId; 3];

fn replace(
    graph: &mut Graph,
    p: &Product,
    settings: &Settings,
    inputs: &mut BTreeMap<ValueId, Quantized>,
    weights: &mut BTreeMap<(ValueId, bool), (ValueId, ValueId)>,
) -> Result<()> {
    let node = graph.node(p.id).clone();
    let Some(output) = node.output(0) else {
        return Ok(());
    };
    let (ints, scale) = match weights.get(&(p.weight, p.transposed)) {
        Some(&known) => known,
        None => {
            let made = weight(graph, p, settings)?;
            weights.insert((p.weight, p.transposed), made);
            made
        }
    };
    let [x, x_scale, x_zero] = match inputs.get(&p.input) {
        Some(&known) => known,
        None => {
            let made = quantized(graph, p.input);
            inputs.insert(p.input, made);
            made
        }
    };
    let name = graph.value(output).name.clone();
    graph.remove_node(p.id);
    let op = |op: &str, end: &str| Node::new(op, &format!("{}_{end}", node.name));
    let sums = graph.add_op(
        op("MatMulInteger", "q"),
        &[x, ints, x_zero],
        &format!("{name}_sums"),
    );
    let cast = op("Cast", "cast").with("to", Attribute::Int(FLOAT));
    let sums = graph.add_op(cast, &[sums], &format!("{name}_sums_f"));
    let scales = graph.add_op(
        op("Mul", "scales"),
        &[x_scale, scale],
        &format!("{name}_scales"),
    );
    let scaled = op("Mul", "scale");
    match p.bias {
        Some(bias) => {
            let v = graph.add_op(scaled, &[sums, scales], &format!("{name}_scaled"));
            graph.add_node(op("Add", "bias"), &[Some(v), Some(bias)], &[Some(output)]);
        }
        None => _ = graph.add_node(scaled, &[Some(sums), Some(scales)], &[Some(output)]),
    }
    Ok(())
}

/// Keeps what the integers and scales `made` of a product were made from.
fn record(
    changes: &mut Changes,
    graph: &Graph,
    p: &Product,
    (ints, scale): (ValueId, ValueId),
    settings: &Settings,
    (node, float): (&str, Tensor),
) -> Result<()> {
    let constant = &graph.value(ints).name;
    if let Some(known) = changes.sources.iter_mut().find(|s| s.constant == *constant) {
        known.read_by(node);
        return Ok(());
    }
    let float = if p.transposed {
        let (n, k) = (float.dims()[0], float.dims()[1]);
        Tensor::from_vec(&[k, n], turned(&float.to_f32()?, n, k))?
    } else {
        float
    };
    changes.sources.push(Source {
        scale: Some(graph.value(scale).name.clone()),
        axis: settings.per_channel.then_some(1),
        limit: Some(settings.weight_limit(true)),
        ..Source::narrow(constant, node, float)
    });
    Ok(())
}

/// The integers `[k, n]` and the scales of a weight.
fn weight(graph: &mut Graph, p: &Product, settings: &Settings) -> Result<(ValueId, ValueId)> {
    let name = graph.value(p.weight).name.clone();
    let t = graph.constant(p.weight).cloned();
    let t = t.ok_or_else(|| Error::invalid(format!("\"{name}\" has no data")))?;
    let axis = settings.per_channel.then_some(usize::from(!p.transposed));
    let limit = settings.weight_limit(true);
    let weight = Weight::of(&t, axis, &[], limit, settings)?;
    let ints = if p.transposed {
        let (n, k) = (weight.dims[0], weight.dims[1]);
        Tensor::from_vec(&[k, n], turned(&weight.ints, n, k))?
    } else {
        weight.tensor()?
    };
    let ints_name = graph.fresh_name(&format!("{name}_q"));
    let ints = graph.add_constant(&ints_name, ints);
    let scale_name = graph.fresh_name(&format!("{name}_scale"));
    Ok((ints, graph.add_constant(&scale_name, weight.scale()?)))
}

/// The bytes, scale and zero point of an input.
fn quantized(graph: &mut Graph, input: ValueId) -> Quantized {
    let name = graph.value(input).name.clone();
    let made = ["q", "q_scale", "q_zero"].map(|end| {
        let name = graph.fresh_name(&format!("{name}_{end}"));
        graph.add_value(&name, None)
    });
    let node = Node::new("DynamicQuantizeLinear", &format!("{name}_q"));
    graph.add_node(node, &[Some(input)], &made.map(Some));
    made
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{eval, text, verify};

    use super::*;
    use crate::quantize::sources::compare;

    const NET: &str = r#"
opset 17
graph net(x: f32[n,4]) -> (y: f32[n,2], z: f32[n,3]) {
  w: f32[4,3] = {0.5,-0.25,1.0,0.75,0.3,0.7,-0.4,0.2,0.1,0.9,-0.8,0.6}
  v: f32[2,3] = {0.4,-0.6,0.2,0.8,0.1,-0.9}
  b: f32[2] = {0.5,-1.0}
  p = MatMul(x, w) {name="p"}
  y = Gemm(p, v, b) {transB=1, name="y"}
  z = MatMul(x, w) {name="z"}
}
"#;

    fn outputs(model: &Model) -> Vec<Vec<f32>> {
        let data = (0..32)
            .map(|i| ((i * 37 % 29) as f32 - 14.0) * 0.1)
            .collect();
        let x = Tensor::from_vec(&[8, 4], data).unwrap();
        let y = eval::evaluate(model, &[("x", x)]).unwrap();
        y.iter().map(|t| t.to_f32().unwrap().into_owned()).collect()
    }

    #[test]
    fn outputs_stay_close_and_shared_inputs_and_weights_are_quantised_once() {
        let model = text::parse(NET).unwrap();
        for per_channel in [true, false] {
            let settings = Settings {
                per_channel,
                ..Settings::default()
            };
            let (q, changes) = quantize_dynamic(&model, &settings).unwrap();
            verify::verify(&q).unwrap();
            assert_eq!((changes.converted(), changes.narrowing_nodes), (3, 2));
            let found = compare(&q.graph, &changes.sources).unwrap();
            let readers: Vec<_> = found.iter().map(|c| c.nodes.join(" ")).collect();
            assert_eq!(readers, ["p z", "y"]);
            let ints = q
                .graph
                .values()
                .filter(|(_, v)| v.name.starts_with("w_q"))
                .count();
            assert_eq!(ints, 1);
            for (a, b) in outputs(&model).iter().zip(outputs(&q)) {
                let most = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                assert!(
                    a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.03 * most),
                    "{a:?} {b:?}"
                );
            }
        }
    }

    #[test]
    fn a_model_without_products_is_refused() {
        let model =
            text::parse("opset 17\ngraph g(x: f32[n]) -> (y: f32[n]) {\n  y = Relu(x)\n}\n");
        assert!(quantize_dynamic(&model.unwrap(), &Settings::default()).is_err());
    }
}

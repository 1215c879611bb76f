//! What a model costs: multiply-accumulates, parameters, bytes of weights and of activations.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use crate::error::At;
use crate::graph::{Graph, Model, Node, NodeId, ValueId};
use crate::infer::{Inferred, MAX_DEPTH, infer_graph};
use crate::types::Type;
use crate::{DType, Error, Result, Tensor};

mod macs;

/// What a node, or a model, costs.
///
/// *Parameters* are trained numbers. Constants of a floating type with at least one axis count,
/// but for the running statistics of `BatchNormalization`, scales and zero points. Constants of
/// an integer type count where they are quantised weights or biases (under `DequantizeLinear`, in
/// the weight positions of `QLinearConv`, `MatMulInteger`, `MatMulNBits`, …); shapes, axes and
/// indices never do. So a quantised model has the parameters of the float model that it was made
/// from. A constant that several nodes read counts once, for the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Multiply-accumulates of convolutions, matrix products, recurrent layers and attention.
    pub macs: u64,
    /// Trained numbers.
    pub params: u64,
    /// Bytes of all constants, as stored.
    pub weight_bytes: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.macs = self.macs.saturating_add(other.macs);
        self.params = self.params.saturating_add(other.params);
        self.weight_bytes = self.weight_bytes.saturating_add(other.weight_bytes);
    }
}

/// What one node costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeCost {
    /// The node of the main graph.
    pub node: NodeId,
    /// Its work and weights. Of an `If` the dearer branch works; of a `Loop` or `Scan` one round
    /// of the body. Weights under `DequantizeLinear` belong to the node that reads its output.
    pub cost: Cost,
    /// Bytes of the activations that it reads, constants left out.
    pub input_bytes: u64,
    /// Bytes of the activations that it makes.
    pub output_bytes: u64,
    /// False where a shape was missing, so that `macs` and the bytes are too small.
    pub exact: bool,
}

/// The cost of each node of the main graph, in the order of the file.
///
/// # Errors
/// When `inferred` is that of another graph, or a subgraph cannot be inferred.
pub fn node_costs(model: &Model, inferred: &Inferred) -> Result<Vec<NodeCost>> {
    Ok(graph_costs(model, &model.graph, inferred, 0)?.0)
}

/// The sum over all nodes, and the constants that no node reads.
///
/// # Errors
/// As [`node_costs`].
pub fn model_cost(model: &Model, inferred: &Inferred) -> Result<Cost> {
    let (nodes, mut total) = graph_costs(model, &model.graph, inferred, 0)?;
    for node in nodes {
        total += node.cost;
    }
    Ok(total)
}

/// Costs of the nodes, and of the constants that none of them reads.
fn graph_costs(
    model: &Model,
    graph: &Graph,
    inferred: &Inferred,
    depth: usize,
) -> Result<(Vec<NodeCost>, Cost)> {
    if inferred.types.len() != graph.value_slots() || depth > MAX_DEPTH {
        return Err(Error::internal("the types are those of another graph"));
    }
    let (weights, unread) = weights_by_node(graph);
    let mut costs = Vec::new();
    for (id, node) in graph.nodes() {
        let (input_bytes, inputs_known) = bytes(node.inputs(), graph, inferred);
        let (output_bytes, outputs_known) = bytes(node.outputs(), graph, inferred);
        let macs = match model.function(node) {
            Some(_) => None,
            None => {
                let inputs = |i: usize| inferred.dims(node.input(i)?);
                let output = node.output(0).and_then(|v| inferred.dims(v));
                macs::of_node(node, &inputs, output)
            }
        };
        let mut cost = weights.get(&id).copied().unwrap_or_default();
        cost.macs = macs.unwrap_or(0);
        let inner_exact =
            add_subgraphs(model, node, inferred, depth, &mut cost).at(|| node.place())?;
        costs.push(NodeCost {
            node: id,
            cost,
            input_bytes,
            output_bytes,
            exact: macs.is_some() && inputs_known && outputs_known && inner_exact,
        });
    }
    Ok((costs, unread))
}

/// The multiply-accumulates of one node on inputs of these lengths that makes an output of those;
/// 0 for operators that have none, `None` where a length that is needed is not given.
pub(crate) fn macs_of(
    node: &Node,
    inputs: &dyn Fn(usize) -> Option<macs::Dims>,
    output: Option<macs::Dims>,
) -> Option<u64> {
    macs::of_node(node, inputs, output)
}

/// Adds what the bodies of control flow cost; false where a shape was missing.
fn add_subgraphs(
    model: &Model,
    node: &Node,
    inferred: &Inferred,
    depth: usize,
    cost: &mut Cost,
) -> Result<bool> {
    let mut exact = true;
    let mut most = 0u64;
    for graph in node.subgraphs() {
        let known: Vec<(ValueId, Type)> = graph
            .captures
            .iter()
            .filter_map(|c| Some((c.inner, inferred.types.get(c.outer.index())?.clone()?)))
            .collect();
        // A branch that does not fit what is known is never taken.
        let types = match infer_graph(graph, &model.opsets, &known, depth + 1) {
            Err(_) if node.is("If") => Inferred::nothing(graph),
            types => types?,
        };
        let (nodes, mut total) = graph_costs(model, graph, &types, depth + 1)?;
        for inner in nodes {
            total += inner.cost;
            exact &= inner.exact;
        }
        most = most.max(total.macs);
        *cost += Cost { macs: 0, ..total };
    }
    cost.macs = cost.macs.saturating_add(most);
    Ok(exact)
}

/// Bytes of the activations among `values`; false where the size of one is not known.
fn bytes(values: &[Option<ValueId>], graph: &Graph, inferred: &Inferred) -> (u64, bool) {
    let mut total = 0u64;
    let mut known = true;
    for &v in values.iter().flatten() {
        if graph.constant(v).is_none() {
            match inferred.tensor(v).and_then(|t| t.bytes()) {
                Some(n) => total = total.saturating_add(n as u64),
                None => known = false,
            }
        }
    }
    (total, known)
}

/// What a constant is to the node that reads it at some input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Trained, whatever its type.
    Weight,
    /// Trained where it is of a floating type.
    Plain,
    /// Never trained: a scale, a zero point, a running statistic.
    Auxiliary,
}

fn role(node: &Node, input: usize) -> Role {
    let is = |list: &[usize]| list.contains(&input);
    match node.op.as_str() {
        "BatchNormalization" if is(&[3, 4]) => Role::Auxiliary,
        "DequantizeLinear" if is(&[0]) => Role::Weight,
        "DequantizeLinear" | "QuantizeLinear" if is(&[1, 2]) => Role::Auxiliary,
        "QLinearConv" | "QLinearMatMul" | "QGemm" if is(&[1, 2, 4, 5, 6, 7]) => {
            if node.op == "QGemm" && input == 6 {
                Role::Weight
            } else {
                Role::Auxiliary
            }
        }
        "QLinearConv" | "QLinearMatMul" | "QGemm" => Role::Weight,
        "ConvInteger" | "MatMulInteger" if is(&[2, 3]) => Role::Auxiliary,
        "ConvInteger" | "MatMulInteger" => Role::Weight,
        "MatMulNBits" | "MatMulBnb4" if is(&[1]) => Role::Weight,
        "MatMulNBits" | "MatMulBnb4" if is(&[2, 3]) => Role::Auxiliary,
        "GatherBlockQuantized" if is(&[0]) => Role::Weight,
        "GatherBlockQuantized" if is(&[2, 3]) => Role::Auxiliary,
        _ => Role::Plain,
    }
}

/// The number of trained numbers in a constant.
fn params(node: Option<(&Node, usize)>, t: &Tensor) -> u64 {
    let role = node.map_or(Role::Plain, |(n, i)| role(n, i));
    if let (Role::Weight, Some((n, _))) = (role, node) {
        match (n.op.as_str(), n.int("K"), n.int("N")) {
            ("MatMulNBits" | "MatMulBnb4", Some(k), Some(cols)) => {
                return u64::try_from(k.saturating_mul(cols)).unwrap_or(0);
            }
            ("GatherBlockQuantized", ..) if t.dtype() == DType::U8 => {
                let bits = u64::try_from(n.int("bits").unwrap_or(4)).unwrap_or(8);
                return (t.count() as u64).saturating_mul(8) / bits.clamp(1, 8);
            }
            _ => {}
        }
    }
    let counts = match role {
        Role::Weight => t.dtype() != DType::String,
        Role::Plain => t.dtype().is_float(),
        Role::Auxiliary => false,
    };
    if counts && t.rank() > 0 {
        t.count() as u64
    } else {
        0
    }
}

/// Parameters and bytes of the constants by the node that owns them; those of nobody apart.
fn weights_by_node(graph: &Graph) -> (BTreeMap<NodeId, Cost>, Cost) {
    let mut by_node: BTreeMap<NodeId, Cost> = BTreeMap::new();
    let mut unread = Cost::default();
    for (id, value) in graph.values() {
        let Some(t) = value.constant.as_ref().or_else(|| graph.constant(id)) else {
            continue;
        };
        let reader = value.consumers().iter().min().copied();
        let cost = Cost {
            macs: 0,
            params: params(reader.map(|(n, i)| (graph.node(n), i)), t),
            weight_bytes: t.byte_len() as u64,
        };
        match reader {
            Some((n, _)) => *by_node.entry(owner(graph, n)).or_default() += cost,
            None => unread += cost,
        }
    }
    (by_node, unread)
}

/// The node that works with the weight: past conversions of constants with one reader.
fn owner(graph: &Graph, mut id: NodeId) -> NodeId {
    for _ in 0..4 {
        let node = graph.node(id);
        let converts = matches!(
            node.op.as_str(),
            "DequantizeLinear" | "QuantizeLinear" | "Cast" | "Transpose" | "Identity"
        );
        let of_constant = node.input(0).is_some_and(|v| {
            graph.constant(v).is_some()
                || (graph.value(v).producer().is_some()
                    && graph.producer_is(v, "QuantizeLinear").is_some_and(|q| {
                        let weight = graph.node(q).input(0);
                        weight.is_some_and(|w| graph.constant(w).is_some())
                    }))
        });
        let next = node.output(0).and_then(|v| graph.sole_consumer(v));
        match next {
            Some((next, _)) if converts && of_constant => id = next,
            _ => return id,
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::infer;
    use crate::types::TensorType;

    fn quantised(g: &mut Graph, name: &str, dims: &[usize]) -> ValueId {
        let n = dims.iter().product();
        let q = Tensor::from_vec(dims, vec![1i8; n]).unwrap();
        let q = g.add_constant(&format!("{name}_q"), q);
        let s = vec![0.5f32; dims[0]];
        let s = g.add_constant(&format!("{name}_s"), Tensor::vector(s));
        g.add_op(Node::new("DequantizeLinear", ""), &[q, s], name)
    }

    /// A Gemm-like MatMul whose types are declared: rules of operators play no part.
    fn matmul(quantise: bool) -> Model {
        let mut g = Graph::new("g");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[3, 4]));
        let w = if quantise {
            quantised(&mut g, "w", &[4, 5])
        } else {
            g.add_constant("w", Tensor::from_vec(&[4, 5], vec![1f32; 20]).unwrap())
        };
        g.value_mut(w).ty = Some(TensorType::fixed(DType::F32, &[4, 5]).into());
        let y = g.add_op(Node::new("MatMul", "m"), &[x, w], "y");
        g.value_mut(y).ty = Some(TensorType::fixed(DType::F32, &[3, 5]).into());
        let shape = g.add_constant("shape", Tensor::vector(vec![15i64]));
        let z = g.add_op(Node::new("Reshape", "r"), &[y, shape], "z");
        g.value_mut(z).ty = Some(TensorType::fixed(DType::F32, &[15]).into());
        g.outputs.push(z);
        Model::new(g, 17)
    }

    #[test]
    fn a_quantised_model_has_the_parameters_and_work_of_its_float_model() {
        let cost = |m: &Model| model_cost(m, &infer(m, &[]).unwrap()).unwrap();
        let (float, quantised) = (cost(&matmul(false)), cost(&matmul(true)));
        assert_eq!((float.macs, float.params), (60, 20));
        assert_eq!((quantised.macs, quantised.params), (60, 20));
        assert_eq!(float.weight_bytes, 80 + 8);
        assert_eq!(quantised.weight_bytes, 20 + 16 + 8);
    }

    #[test]
    fn weights_under_dequantisation_belong_to_the_node_that_works_with_them() {
        let m = matmul(true);
        let costs = node_costs(&m, &infer(&m, &[]).unwrap()).unwrap();
        let params: Vec<u64> = costs.iter().map(|c| c.cost.params).collect();
        assert_eq!(params, [0, 20, 0]);
        assert_eq!(costs[1].output_bytes, 60);
    }

    #[test]
    fn codes_in_bytes_are_as_many_parameters_as_weights() {
        let cost = |text: &str| {
            let (mut m, inputs) = crate::text::example(text).unwrap();
            let names: Vec<_> = m.graph.inputs.drain(..).collect();
            for (i, (v, t)) in names.into_iter().zip(inputs).enumerate() {
                if t.dtype() == DType::F32 && i == 0 || t.dtype() == DType::I64 {
                    m.graph.inputs.push(v);
                } else {
                    let constant = m.graph.add_constant(&format!("c{i}"), t);
                    m.graph.replace_uses(v, constant);
                }
            }
            model_cost(&m, &infer(&m, &[]).unwrap()).unwrap()
        };
        let bnb4 = cost(
            "com.microsoft.MatMulBnb4(f32[2,16], u8[24], f32[3]) {K=16,N=3,block_size=16,quant_type=1}",
        );
        assert_eq!(
            (bnb4.macs, bnb4.params, bnb4.weight_bytes),
            (96, 48, 24 + 12)
        );
        let table = cost(
            "com.microsoft.GatherBlockQuantized(u8[3,16], i64[1,2], f32[3,2]) {block_size=16}",
        );
        assert_eq!((table.params, table.weight_bytes), (96, 48 + 24));
    }
}

//! Multiply-accumulates of one node, from the shapes of its inputs and outputs.

use std::collections::BTreeMap;

use crate::graph::Node;

pub(super) type Dims = smallvec::SmallVec<[usize; 6]>;

/// What a rule sees: the node and the lengths of its axes.
struct Shapes<'a> {
    node: &'a Node,
    inputs: &'a dyn Fn(usize) -> Option<Dims>,
    output: Option<Dims>,
}

impl Shapes<'_> {
    fn input(&self, i: usize) -> Option<Dims> {
        (self.inputs)(i)
    }

    fn output(&self) -> Option<Dims> {
        self.output.clone()
    }
}

fn product(dims: &[usize]) -> u64 {
    dims.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64))
}

/// The multiply-accumulates of a node: 0 for operators that have none (elementwise, pooling, data
/// movement), `None` where a shape that is needed is unknown.
///
/// Convolutions count every tap of the window, those on the padding too; recurrent layers their
/// matrix products; attention its two products; `Einsum` the product of all its labels, which is
/// exact for two operands.
pub(super) fn of_node(
    node: &Node,
    inputs: &dyn Fn(usize) -> Option<Dims>,
    output: Option<Dims>,
) -> Option<u64> {
    let s = Shapes {
        node,
        inputs,
        output,
    };
    match (node.domain.as_str(), node.op.as_str()) {
        ("" | "com.microsoft", "Conv" | "ConvInteger" | "FusedConv" | "NhwcFusedConv") => {
            window(&s, 1)
        }
        ("" | "com.microsoft", "QLinearConv") => window(&s, 3),
        ("", "ConvTranspose") => {
            Some(product(&s.input(0)?).saturating_mul(product(s.input(1)?.get(1..)?)))
        }
        ("" | "com.microsoft", "Gemm" | "FusedGemm" | "QGemm") => {
            let axis = usize::from(node.int("transA").unwrap_or(0) == 0);
            let k = *s.input(0)?.get(axis)?;
            Some(product(&s.output()?).saturating_mul(k as u64))
        }
        (
            "" | "com.microsoft",
            "MatMul"
            | "MatMulInteger"
            | "QLinearMatMul"
            | "MatMulBnb4"
            | "MatMulNBits"
            | "DynamicQuantizeMatMul"
            | "MatMulIntegerToFloat",
        ) => {
            let k = *s.input(0)?.last()?;
            Some(product(&s.output()?).saturating_mul(k as u64))
        }
        ("", "LSTM" | "GRU" | "RNN") => {
            let x = s.input(0)?;
            let steps = product(x.get(..2)?);
            let weights = product(&s.input(1)?).saturating_add(product(&s.input(2)?));
            Some(steps.saturating_mul(weights))
        }
        ("com.microsoft", "FusedMatMul") => {
            let (a, back) = (s.input(0)?, 1 + usize::from(node.int("transA") == Some(1)));
            let k = *a.get(a.len().checked_sub(back)?)?;
            Some(product(&s.output()?).saturating_mul(k as u64))
        }
        ("com.microsoft", "Attention") => {
            let (x, weight, y) = (s.input(0)?, s.input(1)?, s.output()?);
            let rows = product(x.get(..2)?);
            let merged = rows.saturating_mul(product(&weight));
            let keys = *x.get(1)? as u64;
            Some(merged.saturating_add(2 * product(&y).saturating_mul(keys)))
        }
        ("", "Einsum") => einsum(&s),
        ("", "Attention") | ("com.microsoft", "MultiHeadAttention") => {
            let keys = s.input(1)?;
            let length = *keys.get(keys.len().checked_sub(2)?)?;
            let both = product(&s.input(0)?).saturating_add(product(&s.output()?));
            Some(both.saturating_mul(length as u64))
        }
        _ => Some(0),
    }
}

/// Outputs times the taps of one: the weight's axes after the first.
fn window(s: &Shapes, weight: usize) -> Option<u64> {
    let taps = product(s.input(weight)?.get(1..)?);
    Some(product(&s.output()?).saturating_mul(taps))
}

fn einsum(s: &Shapes) -> Option<u64> {
    let equation = s.node.string("equation")?.replace(' ', "");
    let left = equation.split("->").next()?;
    let mut sizes: BTreeMap<char, usize> = BTreeMap::new();
    let mut batch = 1u64;
    for (i, term) in left.split(',').enumerate() {
        let dims = s.input(i)?;
        let labels = term.replace("...", "");
        let (head, tail) = match term.find("...") {
            Some(at) => (at, labels.len() - at),
            None => (labels.len(), 0),
        };
        let middle = dims.get(head..dims.len().checked_sub(tail)?)?;
        batch = batch.max(product(middle));
        let named = dims
            .iter()
            .take(head)
            .chain(dims.iter().rev().take(tail).rev());
        sizes.extend(labels.chars().zip(named.copied()));
    }
    let sizes: Vec<usize> = sizes.into_values().collect();
    Some(batch.saturating_mul(product(&sizes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Graph, Model};
    use crate::infer::Inferred;
    use crate::{DType, TensorType};

    fn macs(node: Node, inputs: &[&[usize]], output: &[usize]) -> Option<u64> {
        let mut g = Graph::new("g");
        let op = node.op.clone();
        let inputs: Vec<_> = inputs
            .iter()
            .enumerate()
            .map(|(i, d)| Some(g.add_input(&format!("x{i}"), TensorType::fixed(DType::F32, d))))
            .collect();
        let ty = TensorType::fixed(DType::F32, output);
        let y = g.add_value("y", Some(ty.clone().into()));
        let id = g.add_node(node, &inputs, &[Some(y)]);
        let model = Model::new(g, 21);
        let types = model.graph.values().map(|(_, v)| v.ty.clone()).collect();
        let inferred = Inferred {
            types,
            ..Inferred::default()
        };
        assert_eq!(model.graph.node(id).op, op);
        let node = model.graph.node(id);
        let inputs = |i: usize| inferred.dims(node.input(i)?);
        of_node(node, &inputs, inferred.dims(y))
    }

    #[test]
    fn a_depthwise_convolution_counts_its_window_for_each_output() {
        let node = Node::new("Conv", "").with("group", Attribute::Int(8));
        let shapes: [&[usize]; 2] = [&[1, 8, 5, 5], &[8, 1, 3, 3]];
        assert_eq!(macs(node, &shapes, &[1, 8, 5, 5]), Some(8 * 25 * 9));
    }

    #[test]
    fn products_count_their_inner_length() {
        let gemm = Node::new("Gemm", "").with("transA", Attribute::Int(1));
        assert_eq!(macs(gemm, &[&[7, 2], &[7, 3]], &[2, 3]), Some(42));
        let batched = Node::new("MatMul", "");
        assert_eq!(
            macs(batched, &[&[4, 2, 5], &[5, 3]], &[4, 2, 3]),
            Some(4 * 30)
        );
    }

    #[test]
    fn an_einsum_counts_all_its_labels() {
        let node = Node::new("Einsum", "")
            .with("equation", Attribute::String("...ij,...jk->...ik".into()));
        let shapes: [&[usize]; 2] = [&[6, 2, 3], &[6, 3, 4]];
        assert_eq!(macs(node, &shapes, &[6, 2, 4]), Some(6 * 24));
    }

    #[test]
    fn a_lstm_counts_both_its_matrices_for_each_step() {
        let shapes: [&[usize]; 3] = [&[10, 1, 3], &[1, 16, 3], &[1, 16, 4]];
        assert_eq!(
            macs(Node::new("LSTM", ""), &shapes, &[10, 1, 1, 4]),
            Some(10 * (48 + 64))
        );
    }
}

//! Divides what weights read by the scales that their columns were multiplied with.

use std::collections::BTreeMap;

use edgesmith_ir::{Graph, Node, NodeId, Tensor, ValueId};

use super::sites::Site;
use crate::quantize::replace_constant;

/// Lets the sites that read a scaled value read it divided. Where only they read it and a layer
/// norm or a constant factor makes it, that takes the division over; else a Mul does it. The names of
/// the values that are divided where they are made come back.
pub fn insert(
    graph: &mut Graph,
    sites: &mut [Site],
    scales: &BTreeMap<ValueId, Vec<f32>>,
) -> Vec<String> {
    let mut divided = Vec::new();
    for (&v, s) in scales {
        let inverse: Vec<f32> = s.iter().map(|s| 1.0 / s).collect();
        let readers: Vec<NodeId> = sites
            .iter()
            .filter(|x| x.reads == Some(v))
            .map(|x| x.node)
            .collect();
        let alone = !graph.is_output(v)
            && !graph.captured().contains(&v)
            && graph
                .value(v)
                .consumers()
                .iter()
                .all(|(id, i)| *i == 0 && readers.contains(id));
        if alone && fold(graph, v, &inverse) {
            divided.push(graph.value(v).name.clone());
            continue;
        }
        let name = graph.value(v).name.clone();
        let factor = graph.fresh_name(&format!("{name}_inverse_scale"));
        let factor = graph.add_constant(&factor, Tensor::vector(inverse));
        let name = format!("{name}_scaled");
        let scaled = graph.add_op(Node::new("Mul", &name), &[v, factor], &name);
        for id in readers {
            graph.set_input(id, 0, Some(scaled));
        }
    }
    divided
}

/// Multiplies the constants of the node that makes `v` by `factor`.
fn fold(graph: &mut Graph, v: ValueId, factor: &[f32]) -> bool {
    let Some((id, 0)) = graph.value(v).producer() else {
        return false;
    };
    let node = graph.node(id);
    let inputs: &[usize] = match node.op.as_str() {
        "LayerNormalization" if node.int("axis").unwrap_or(-1) == -1 => &[1, 2],
        "RMSNormalization" | "SimplifiedLayerNormalization" => &[1],
        _ => return false,
    };
    let scaled: Option<Vec<(usize, Tensor)>> = inputs
        .iter()
        .filter_map(|&i| Some((i, node.input(i)?)))
        .map(|(i, v)| {
            let t = graph.constant(v)?;
            let data = t.to_f32().ok()?;
            let is_row = t.dims() == [factor.len()] && t.dtype() == edgesmith_ir::DType::F32;
            let data = data.iter().zip(factor).map(|(x, f)| x * f).collect();
            Some((i, is_row.then(|| Tensor::vector::<f32>(data))?))
        })
        .collect();
    let Some(scaled) = scaled.filter(|s| !s.is_empty()) else {
        return false;
    };
    for (i, data) in scaled {
        replace_constant(graph, id, i, "scaled", data);
    }
    true
}

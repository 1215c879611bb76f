//! Growth by the examples of the operator list.

use edgesmith_ir::ops::OPS;
use edgesmith_ir::text::example;
use edgesmith_ir::{DType, Node, ValueId};

use super::{Builder, Known};

/// An operator of the list as one of its examples uses it. Its inputs are constants with the
/// example's data or a value of that shape; its outputs are outputs of the model, and the first
/// grows on where it is of f32.
pub(super) fn operator(b: &mut Builder) -> Option<Known> {
    let def = *b.rng.pick(OPS);
    if !def.deterministic || !def.is_evaluated() || !def.domain.is_empty() {
        return None;
    }
    let line = *def.examples.get(b.rng.below(def.examples.len().max(1)))?;
    let (model, tensors) = example(line).ok()?;
    let of_this_time = |v: &&i64| **v <= model.opset().min(b.opset);
    let newest = def.since.iter().filter(of_this_time).max();
    if newest != def.since.iter().filter(|v| **v <= model.opset()).max() || line.contains('@') {
        return None;
    }
    let (_, node) = model.graph.nodes().next()?;
    if node.subgraphs().next().is_some() {
        return None;
    }
    let mut data = model.graph.inputs.iter().zip(tensors);
    let mut inputs: Vec<Option<ValueId>> = Vec::new();
    for v in node.inputs() {
        let Some(v) = *v else {
            inputs.push(None);
            continue;
        };
        let tensor = match &model.graph.value(v).constant {
            Some(t) => t.clone(),
            None => data.next()?.1,
        };
        let like = |k: &&Known| {
            k.exact && k.batch.is_none() && k.dims == tensor.dims() && tensor.dtype() == DType::F32
        };
        let found = b.values.iter().rev().find(like).map(|k| k.id);
        inputs.push(Some(match found {
            Some(id) => id,
            None => b.constant(tensor),
        }));
    }
    let mut copy = Node::new(&node.op, "");
    copy.attributes.clone_from(&node.attributes);
    b.names += 1;
    copy.name = format!("{}_{}", node.op.to_lowercase(), b.names);
    let outputs: Vec<Option<ValueId>> = (0..node.outputs().len())
        .map(|o| Some(b.graph.add_value(&format!("{}_{o}", copy.name), None)))
        .collect();
    b.graph.add_node(copy, &inputs, &outputs);
    b.others.extend(outputs.iter().flatten());
    None
}

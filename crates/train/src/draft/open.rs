//! Opening the batch of a model that is made for one of a fixed length.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::types::{Dim, Type};
use edgesmith_ir::{Error, Model, NodeId, Result, Tensor, ValueId, infer};

use super::BATCH;

/// Opens the first axis of the inputs, where the file fixes it, and in shapes that repeat it.
pub(super) fn open_batch(model: &mut Model) -> Result<()> {
    let before = infer::infer(model, &[])?;
    let inputs: BTreeSet<ValueId> = model.graph.inputs.iter().copied().collect();
    let mut fixed = BTreeMap::new();
    for &v in &inputs {
        let value = model.graph.value_mut(v);
        if value.constant.is_some() {
            continue;
        }
        let Some(Type::Tensor(ty)) = &mut value.ty else {
            continue;
        };
        let Some(first) = ty.shape.as_mut().and_then(|s| s.0.first_mut()) else {
            continue;
        };
        if let Dim::Known(n) = *first {
            *first = Dim::symbol(BATCH);
            fixed.insert(v, n);
        }
    }
    let Some(&old) = fixed.values().next() else {
        return Ok(());
    };
    if fixed.values().any(|n| *n != old) {
        return Err(Error::unsupported(
            "inputs begin with different lengths: their batch is not known",
        ));
    }
    // Declared types of the file repeat the old length.
    let slots: Vec<ValueId> = model.graph.values().map(|(v, _)| v).collect();
    for v in slots {
        let value = model.graph.value_mut(v);
        if value.constant.is_none() && !inputs.contains(&v) {
            value.ty = None;
        }
    }
    let reshapes: Vec<NodeId> = model
        .graph
        .nodes()
        .filter(|(_, n)| n.is("Reshape"))
        .map(|(id, _)| id)
        .collect();
    for id in reshapes {
        let node = model.graph.node(id);
        let (Some(x), Some(s)) = (node.input(0), node.input(1)) else {
            continue;
        };
        let first = before.dims(x).and_then(|d| d.first().copied());
        let shape = model
            .graph
            .value(s)
            .constant
            .as_ref()
            .and_then(|t| t.to_i64().ok());
        let Some(mut shape) = shape else { continue };
        let zero = node.int("allowzero").unwrap_or(0) == 0;
        if first == Some(old) && shape.first() == Some(&(old as i64)) && zero {
            shape[0] = 0;
            let name = model.graph.fresh_name("open_shape");
            let open = model.graph.add_constant(&name, Tensor::vector(shape));
            model.graph.set_input(id, 1, Some(open));
        }
    }
    let after = infer::infer(model, &[])?;
    let batch = Dim::symbol(BATCH);
    let opened = model.graph.outputs.iter().all(|&v| {
        let shape = after.tensor(v).and_then(|t| t.shape.as_ref());
        shape
            .and_then(|s| s.first())
            .is_some_and(|d| d.same(&batch))
    });
    if opened {
        return Ok(());
    }
    Err(
        Error::unsupported(format!("the model is made for a batch of {old} only"))
            .hint("write it with an open batch"),
    )
}

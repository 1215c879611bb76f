//! SequenceMap: a graph run for each value of a sequence.

use super::sequence_of;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::{Arity, AttrKind, MANY, OpDef, attr};
use crate::types::Type;
use crate::{Error, Item, Result};

/// ONNX SequenceMap.
pub static SEQUENCE_MAP: OpDef = OpDef {
    name: "SequenceMap",
    since: &[17],
    inputs: Arity(1, MANY),
    outputs: Arity(1, MANY),
    attrs: &[attr("body", AttrKind::Graph)],
    infer,
    eval_items: Some(eval),
    ..OpDef::BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let one = |i: usize| match cx.ty(i) {
        Some(Type::Sequence(ty)) => Some(ty.as_ref().clone()),
        other => other.cloned(),
    };
    let types: Vec<Option<Type>> = (0..cx.inputs()).map(one).collect();
    for (o, ty) in cx.subgraph("body", &types)?.into_iter().enumerate() {
        if let Some(ty) = ty {
            cx.set(o, sequence_of(ty));
        }
    }
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Item>> {
    let turns = cx.sequence(0)?.len();
    let inputs: Vec<&Item> = (0..cx.inputs()).map(|i| cx.get(i)).collect::<Result<_>>()?;
    let mut outputs = vec![Vec::with_capacity(turns); cx.node.outputs().len()];
    for turn in 0..turns {
        let one = |item: &Item| match item {
            Item::Sequence(items) => items.get(turn).cloned().map(Some).ok_or_else(|| {
                Error::invalid(format!("sequences of {turns} and {} values", items.len()))
            }),
            other => Ok(Some(other.clone())),
        };
        let values = inputs.iter().copied().map(one).collect::<Result<_>>()?;
        for (all, item) in outputs.iter_mut().zip(cx.subgraph("body", values)?) {
            all.push(item);
        }
    }
    Ok(outputs.into_iter().map(Item::sequence).collect())
}

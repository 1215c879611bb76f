//! A part of a model as a model of its own.

use edgesmith_ir::{DType, Error, Model, Result, TensorType, ValueId, infer};
use edgesmith_passes::{Level, RunOptions, optimize};

/// The part that makes the value `exit` of the value `entry`, with the ids of the whole; nodes keep
/// their names. Types but that of the entry are open.
///
/// # Errors
/// When a value is not there, or the part reads another input.
pub(super) fn part(model: &Model, entry: &str, exit: &str) -> Result<Model> {
    let find = |name: &str| {
        let missing = || Error::internal(format!("the value \"{name}\" is gone"));
        model.graph.find_value(name).ok_or_else(missing)
    };
    let (entry, exit) = (find(entry)?, find(exit)?);
    let mut model = model.clone();
    let graph = &mut model.graph;
    if let Some((maker, i)) = graph.value(entry).producer() {
        graph.set_output(maker, i, None);
    }
    let fed = |v: &ValueId| graph.value(*v).constant.is_none() && *v != entry;
    let others: Vec<ValueId> = graph.inputs.iter().copied().filter(fed).collect();
    graph.inputs = vec![entry];
    graph.outputs = vec![exit];
    let all: Vec<ValueId> = graph.values().map(|(v, _)| v).collect();
    for v in all {
        if graph.value(v).constant.is_none() {
            graph.value_mut(v).ty = None;
        }
    }
    graph.value_mut(entry).ty = Some(
        TensorType {
            dtype: DType::F32,
            shape: None,
        }
        .into(),
    );
    without_dead(&mut model)?;
    let read = |v: &ValueId| !model.graph.value(*v).consumers().is_empty();
    match others.iter().find(|v| read(v)) {
        None => Ok(model),
        Some(&v) => {
            let name = &model.graph.value(v).name;
            Err(Error::internal(format!("a block reads \"{name}\" too")))
        }
    }
}

/// The part with an entry of so many times the lengths of a sample.
pub(super) fn typed(part: &Model, entry: &[usize], batch: usize) -> Model {
    let mut model = part.clone();
    let v = model.graph.inputs[0];
    let mut dims = entry.to_vec();
    if let Some(n) = dims.first_mut() {
        *n *= batch;
    }
    model.graph.value_mut(v).ty = Some(TensorType::fixed(DType::F32, &dims).into());
    model
}

/// True where the part takes so many samples at once, and gives as many.
pub(super) fn takes(part: &Model, entry: &[usize], exit: &[usize], batch: usize) -> bool {
    let model = typed(part, entry, batch);
    let types = infer::infer(&model, &[]).ok();
    let found = types.and_then(|t| t.dims(model.graph.outputs[0]));
    let mut wanted = exit.to_vec();
    let first = wanted.first_mut().map(|n| {
        let one = *n == 1;
        *n *= batch;
        one
    });
    entry.first() == Some(&1) && first == Some(true) && found.as_deref() == Some(&wanted[..])
}

/// Takes out the nodes that nothing reads.
///
/// # Errors
/// An internal one.
pub(super) fn without_dead(model: &mut Model) -> Result<()> {
    let run = RunOptions {
        only: &["remove_dead_nodes"],
        verify: false,
        ..RunOptions::default()
    };
    optimize(model, Level::Basic, &run)?;
    Ok(())
}

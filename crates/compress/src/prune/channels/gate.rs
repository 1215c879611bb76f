//! The gate: a pruned model has to compute what the dense one computes with zeros in the place of
//! what is gone.

use std::collections::BTreeMap;

use edgesmith_ir::channels::{Axis, Kept, chosen, masked};
use edgesmith_ir::{Error, Model, Result, Tensor, ValueId};
use edgesmith_runtime::{Options, Session, View};
use edgesmith_train::student::trial;

use crate::prune::groups::Groups;

/// The largest difference, as a part of the largest magnitude of a value.
const TOLERANCE: f32 = 1e-4;

/// Bytes of values that are compared, outputs beside.
const MOST: usize = 256 << 20;

/// Runs both on random inputs, and compares their outputs and what their layers give.
///
/// # Errors
/// When they differ: nothing of it is written then.
pub(super) fn check(
    groups: &Groups,
    kept: &Kept,
    small: &Model,
    notes: &mut Vec<String>,
) -> Result<()> {
    let Some(inputs) = trial::inputs(&groups.model)? else {
        let what = "not compared with the dense model: no random numbers are made for its inputs";
        notes.push(what.into());
        return Ok(());
    };
    let given: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();
    let dense = masked(&groups.model, &groups.inferred, &groups.ties, kept)?;
    let watched = watched(groups, small);
    let mut found: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    let mut bytes = 0;
    let outputs = run(small, &given, &watched, &mut |v, view| {
        let tensor = view.tensor()?.detached();
        bytes += tensor.byte_len();
        if bytes <= MOST {
            found.insert(v, tensor);
        }
        Ok(())
    });
    let outputs = match outputs {
        Ok(outputs) => outputs,
        // Lengths that are open may have to fit each other, which no shape says.
        Err(_) if run(&dense, &given, &[], &mut |_, _| Ok(())).is_err() => {
            let what = "not compared with the dense model: that does not run on random inputs";
            notes.push(what.into());
            return Ok(());
        }
        Err(e) => return Err(e.at("the pruned model")),
    };
    let mut worst = 0.0f32;
    let mut compare = |v: ValueId, expected: &Tensor, own: &Tensor| -> Result<()> {
        let mut expected = expected.clone();
        for axis in 0..expected.rank() {
            if let Some(stay) = kept.get(&Axis::of(v, axis)) {
                expected = chosen(&expected, axis, stay)?;
            }
        }
        let apart = apart(&expected, own)?;
        worst = worst.max(apart);
        if apart.is_nan() || apart > TOLERANCE {
            let what = format!(
                "the pruned model differs from the dense one with zeros by {apart:.1e} of the largest number"
            );
            let place = format!("value \"{}\"", groups.model.graph.value(v).name);
            return Err(Error::internal(what)
                .at(place)
                .hint("nothing was written; please report the model's operators"));
        }
        Ok(())
    };
    let both: Vec<ValueId> = found.keys().copied().collect();
    let expected = run(&dense, &given, &both, &mut |v, view| match found.get(&v) {
        Some(own) => compare(v, &view.tensor()?, own),
        None => Ok(()),
    });
    let expected = expected.map_err(|e| e.at("the dense model with zeros"))?;
    for ((&v, a), b) in groups
        .model
        .graph
        .outputs
        .iter()
        .zip(&expected)
        .zip(&outputs)
    {
        compare(v, a, b)?;
    }
    notes.push(format!(
        "equal to the dense model with zeros in the place of what is gone: on random inputs {worst:.1e} apart at most, in {} values",
        both.len() + outputs.len()
    ));
    Ok(())
}

/// What the layers of the pruned model give.
fn watched(groups: &Groups, small: &Model) -> Vec<ValueId> {
    let weighted = groups.ties.reads().map(|r| r.node);
    let made = weighted.filter_map(|id| small.graph.get_node(id)?.output(0));
    // Values that only one of both has are not compared.
    let slots = groups.model.graph.value_slots();
    let is_in_both = |v: &ValueId| v.index() < slots && !small.graph.is_output(*v);
    let mut made: Vec<ValueId> = made.filter(is_in_both).collect();
    made.sort_unstable();
    made.dedup();
    made
}

fn run(
    model: &Model,
    given: &[(&str, Tensor)],
    watched: &[ValueId],
    see: &mut dyn FnMut(ValueId, &View) -> Result<()>,
) -> Result<Vec<Tensor>> {
    let options = Options {
        integer: false,
        ..Options::default()
    };
    let mut session = Session::prepare(model, &options)?;
    let mut failed = None;
    let outputs = session.run_watching(given, watched, &mut |v, view| {
        if let Err(e) = see(v, &view) {
            failed.get_or_insert(e);
        }
    })?;
    match failed {
        Some(e) => Err(e),
        None => Ok(outputs),
    }
}

/// The largest difference of two tensors as a part of the largest magnitude of the first.
fn apart(a: &Tensor, b: &Tensor) -> Result<f32> {
    if a.dims() != b.dims() || a.dtype() != b.dtype() {
        return Ok(f32::NAN);
    }
    if !a.dtype().is_float() {
        return Ok(if a == b { 0.0 } else { f32::NAN });
    }
    let (a, b) = (a.to_f32()?, b.to_f32()?);
    let mut apart = 0.0f32;
    let mut largest = f32::MIN_POSITIVE;
    for (x, y) in a.iter().zip(b.iter()) {
        match (x.is_finite(), y.is_finite()) {
            (true, true) => {
                apart = apart.max((x - y).abs());
                largest = largest.max(x.abs());
            }
            (false, false) => {}
            _ => return Ok(f32::NAN),
        }
    }
    Ok(apart / largest)
}

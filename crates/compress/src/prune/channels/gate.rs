//! The gate: a pruned model has to compute what the dense one computes with zeros in the place of
//! what is gone.

use edgesmith_ir::channels::{Kept, masked};
use edgesmith_ir::{Error, Model, Result, Tensor};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::student::trial;

use crate::prune::groups::Groups;

/// The largest difference, as a part of the largest magnitude.
const TOLERANCE: f32 = 1e-4;

/// Runs both on random inputs and compares them.
///
/// # Errors
/// When they differ: nothing of it is written then.
pub(super) fn check(
    groups: &Groups,
    kept: &Kept,
    small: &Model,
    threads: usize,
    notes: &mut Vec<String>,
) -> Result<()> {
    let Some(inputs) = trial::inputs(&groups.model)? else {
        notes.push(
            "not compared with the dense model: no random numbers are made for its inputs".into(),
        );
        return Ok(());
    };
    let given: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();
    let dense = masked(&groups.model, &groups.inferred, &groups.ties, kept)?;
    let options = Options {
        threads,
        integer: false,
        ..Options::default()
    };
    let run = |model: &Model| Session::prepare(model, &options)?.run(&given);
    let expected = run(&dense).map_err(|e| e.at("the dense model with zeros"))?;
    let found = run(small).map_err(|e| e.at("the pruned model"))?;
    let mut worst = 0.0f32;
    for ((&v, a), b) in groups.model.graph.outputs.iter().zip(&expected).zip(&found) {
        let apart = apart(a, b)?;
        worst = worst.max(apart);
        if apart.is_nan() || apart > TOLERANCE {
            let place = format!("output \"{}\"", groups.model.graph.value(v).name);
            let what = format!(
                "the pruned model differs from the dense one with zeros by {apart:.1e} of the largest number"
            );
            return Err(Error::internal(what)
                .at(place)
                .hint("nothing was written; please report the model's operators"));
        }
    }
    notes.push(format!(
        "equal to the dense model with zeros in the place of what is gone: {worst:.1e} apart at most, on random inputs"
    ));
    Ok(())
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

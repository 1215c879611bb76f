//! What should hold when a random model is optimised.

use edgesmith_ir::eval::evaluate_with;
use edgesmith_ir::infer::{Inferred, infer};
use edgesmith_ir::verify::verify;
use edgesmith_ir::{Dim, Model, NoProgress, Tensor};
use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_testkit::{Tolerance, difference, random};

/// Folded weights are rounded once more, and errors grow along the graph: in parts of the largest
/// number that any value of the run has.
const FOLDED: f32 = 2e-5;

/// At every level: each pass leaves a sound model, the answers are the same for any batch, what
/// was known of the shapes of the outputs still is, and optimising again changes nothing.
pub fn optimising_keeps_meaning(model: &Model) -> Result<(), String> {
    let options = RunOptions {
        verify: true,
        progress: &NoProgress,
        ..RunOptions::default()
    };
    let types = infer(model, &[]).map_err(|e| format!("infer: {e}"))?;
    let mut optimised = Vec::new();
    for level in [Level::Basic, Level::Extended, Level::Layout] {
        let mut after = model.clone();
        optimize(&mut after, level, &options).map_err(|e| format!("optimize: {e}"))?;
        verify(&after).map_err(|e| format!("verify: {}", e[0]))?;
        keeps_shapes(model, &types, &after)?;
        let again = optimize(&mut after.clone(), level, &options);
        let again = again.map_err(|e| format!("optimize: {e}"))?;
        if let Some(step) = again.steps.iter().find(|s| s.changes > 0) {
            return Err(format!(
                "fixed point: {} changes more at {level}",
                step.name
            ));
        }
        optimised.push((level, after));
    }
    for batch in [2, 1, 3] {
        let inputs = random::inputs_with(model, 7, &[("batch", batch)]);
        let inputs: Vec<(&str, Tensor)> = inputs
            .iter()
            .map(|(n, t)| (n.as_str(), t.clone()))
            .collect();
        let mut largest = 0f32;
        let expected = evaluate_with(model, &inputs, &mut |_, t| {
            let finite = |m: f32, x: &f32| if x.is_finite() { m.max(x.abs()) } else { m };
            if let Some(t) = Some(t)
                .filter(|t| t.dtype().is_float())
                .and_then(|t| t.to_f32().ok())
            {
                largest = t.iter().fold(largest, finite);
            }
        });
        // An example may not fit what shrinking made of its inputs.
        let Ok(expected) = expected else {
            return Ok(());
        };
        let tolerance = Tolerance {
            relative: 0.0,
            absolute: FOLDED * largest.max(1.0),
        };
        for (level, after) in &optimised {
            let found = evaluate_with(after, &inputs, &mut |_, _| ());
            let found = found.map_err(|e| format!("run: {level}, batch {batch}: {e}"))?;
            for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                if let Some(d) = difference(a, b, tolerance) {
                    return Err(format!("answer: output {i} at {level}, batch {batch}: {d}"));
                }
            }
        }
    }
    Ok(())
}

/// A length that was known or named by the graph still is.
fn keeps_shapes(before: &Model, types: &Inferred, after: &Model) -> Result<(), String> {
    let found = infer(after, &[]).map_err(|e| format!("infer: {e}"))?;
    let outputs = before.graph.outputs.iter().zip(&after.graph.outputs);
    for (i, (&a, &b)) in outputs.enumerate() {
        let (Some(a), Some(b)) = (types.tensor(a), found.tensor(b)) else {
            continue;
        };
        let shape = |t: &edgesmith_ir::TensorType| t.shape.clone().unwrap_or_default();
        let lost = |(x, y): (&Dim, &Dim)| !x.same(y) && *x != Dim::Unknown && y.known().is_none();
        if shape(a).iter().zip(shape(b).iter()).any(lost) {
            return Err(format!("shape: output {i} was {a}, is {b}"));
        }
    }
    Ok(())
}

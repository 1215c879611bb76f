//! Numbers for the lengths that a model leaves open.

use crate::Result;
use crate::graph::{Model, ValueId};
use crate::infer::infer;
use crate::types::{Dim, Type};

/// Types for the main graph's inputs in which every dimension is a number: that of `overrides` for
/// its name, or for `INPUT:AXIS`; 1 for the others. Inputs without a shape are left out.
pub fn concrete_inputs(model: &Model, overrides: &[(&str, usize)]) -> Vec<(ValueId, Type)> {
    inputs_of_length(model, overrides, 1)
}

/// Lengths that are tried for what a model leaves open.
const LENGTHS: &[usize] = &[
    1, 16, 32, 64, 128, 224, 320, 512, 640, 1024, 2048, 4096, 16_384,
];

/// As [`concrete_inputs`], but where windows do not fit into a length of 1, open axes get the
/// least of a few greater lengths that all shape rules accept; open first axes, the batch, stay 1.
///
/// # Errors
/// When no length fits: what is wrong with the length of 1.
pub fn workable_inputs(model: &Model, overrides: &[(&str, usize)]) -> Result<Vec<(ValueId, Type)>> {
    let mut first = None;
    for &length in LENGTHS {
        let inputs = inputs_of_length(model, overrides, length);
        match infer(model, &inputs) {
            Ok(_) => return Ok(inputs),
            Err(e) => first.get_or_insert(e),
        };
    }
    Err(first.expect("the list of lengths is not empty"))
}

/// The name under which `--dim` sets an axis of an input that has none of its own.
pub fn axis_name(input: &str, axis: usize) -> String {
    format!("{input}:{axis}")
}

fn inputs_of_length(
    model: &Model,
    overrides: &[(&str, usize)],
    length: usize,
) -> Vec<(ValueId, Type)> {
    let graph = &model.graph;
    let shape = |v: &ValueId| graph.value(*v).tensor_type()?.shape.as_ref();
    let batches: Vec<&Dim> = (graph.inputs.iter())
        .filter_map(|v| shape(v)?.first().filter(|d| d.known().is_none()))
        .collect();
    let given = |name: &str| overrides.iter().find(|(n, _)| *n == name).map(|&(_, n)| n);
    let number = |v: ValueId, axis: usize, dim: &Dim| {
        let by_name = match dim {
            Dim::Known(n) => Some(*n),
            Dim::Symbol(s) => given(s),
            Dim::Unknown => None,
        };
        let is_batch = axis == 0 || (matches!(dim, Dim::Symbol(_)) && batches.contains(&dim));
        by_name
            .or_else(|| given(&axis_name(&graph.value(v).name, axis)))
            .unwrap_or(if is_batch { 1 } else { length })
    };
    let concrete = |&v: &ValueId| {
        let mut ty = graph.value(v).tensor_type()?.clone();
        let dims = ty.shape.take()?;
        let dims = dims.iter().enumerate();
        ty.shape = Some(dims.map(|(i, d)| Dim::Known(number(v, i, d))).collect());
        Some((v, ty.into()))
    };
    graph.inputs.iter().filter_map(concrete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;

    fn dims(text: &str, overrides: &[(&str, usize)]) -> Vec<String> {
        let inputs = workable_inputs(&parse(text).unwrap(), overrides).unwrap();
        inputs.iter().map(|(_, ty)| ty.to_string()).collect()
    }

    #[test]
    fn open_axes_are_as_long_as_a_window_needs() {
        let pool = "opset 17
            graph g(x: f32[n,3,h,?]) -> (y) { y = MaxPool(x) {kernel_shape=[20,1]} }";
        assert_eq!(dims(pool, &[]), ["f32[1,3,32,32]"]);
        assert_eq!(
            dims(pool, &[("n", 2), ("h", 20), ("x:3", 5)]),
            ["f32[2,3,20,5]"]
        );
        let any = "opset 17\ngraph g(x: f32[n,t], s: f32[2,n]) -> (y) { y = Relu(x) }";
        assert_eq!(dims(any, &[("t", 9)]), ["f32[1,9]", "f32[2,1]"]);
    }
}

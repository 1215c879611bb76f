//! Scan: a graph run over the slices of its inputs.

use super::control::{Stack, body, check_outputs, stacked_type, without_axis};
use super::{Arity, AttrKind, MANY, OpDef, attr, layout};
use crate::budget::bytes_of;
use crate::eval::EvalCx;
use crate::graph::Node;
use crate::infer::{self, InferCx};
use crate::types::{Dim, TensorType, Type};
use crate::{Error, Item, Result, Tensor};

mod batched;

/// ONNX Scan; that of version 8 runs a batch, each row on its own.
pub static SCAN: OpDef = OpDef {
    name: "Scan",
    since: &[8, 9, 11, 16, 19, 21, 23, 24, 25],
    inputs: Arity(1, MANY),
    outputs: Arity(1, MANY),
    attrs: &[
        attr("body", AttrKind::Graph),
        attr("directions", AttrKind::Ints),
        attr("num_scan_inputs", AttrKind::Int(None)),
        attr("scan_input_axes", AttrKind::Ints),
        attr("scan_input_directions", AttrKind::Ints),
        attr("scan_output_axes", AttrKind::Ints),
        attr("scan_output_directions", AttrKind::Ints),
    ],
    infer: infer_scan,
    eval_items: Some(eval),
    examples: &[
        "Scan(f32[2], f32[3,2]) {num_scan_inputs=1, body=graph b(s: f32[2], x: f32[2]) \
         -> (t, u) { t = Concat(x) {axis=0}; u = Identity(s) }} -> 2",
        "Scan(f32[2], f32[2,3]) {num_scan_inputs=1, scan_input_axes=[1], \
         scan_input_directions=[1], scan_output_axes=[-1], scan_output_directions=[1], \
         body=graph b(s: f32[2], x: f32[2]) -> (t, u) { t = Identity(x); u = Identity(s) }} -> 2",
    ],
    ..OpDef::BASE
};

/// How many of the inputs are scanned: the last ones.
fn scanned(node: &Node) -> Result<usize> {
    let n = node.int("num_scan_inputs").unwrap_or(0);
    usize::try_from(n)
        .ok()
        .filter(|n| (1..=node.inputs().len()).contains(n))
        .ok_or_else(|| {
            Error::invalid(format!(
                "{n} scan inputs, the node has {}",
                node.inputs().len()
            ))
        })
}

fn at(node: &Node, name: &str, i: usize) -> i64 {
    node.ints(name).and_then(|v| v.get(i)).copied().unwrap_or(0)
}

fn infer_scan(cx: &mut InferCx) -> Result<()> {
    if cx.version < 9 {
        return batched::infer(cx);
    }
    let scans = scanned(cx.node)?;
    let states = cx.inputs() - scans;
    let mut types: Vec<Option<Type>> = (0..states).map(|i| cx.ty(i).cloned()).collect();
    let mut length = Dim::Unknown;
    for i in 0..scans {
        let mut slice = None;
        if let (Some(dtype), Some(s)) = (cx.dtype(states + i), cx.shape(states + i)) {
            let axis = infer::axis(at(cx.node, "scan_input_axes", i), s.rank())?;
            length = s[axis].unify(&length).unwrap_or(Dim::Unknown);
            slice = Some(TensorType::new(dtype, without_axis(s, axis)).into());
        }
        types.push(slice);
    }
    for (o, ty) in cx.subgraph("body", &types)?.into_iter().enumerate() {
        let Some(ty) = ty else { continue };
        if o < states {
            cx.set(o, ty);
        } else {
            let axis = at(cx.node, "scan_output_axes", o - states);
            if let Some(ty) = stacked_type(&ty, axis, length.clone()) {
                cx.set(o, ty);
            }
        }
    }
    Ok(())
}

/// What a scan goes through.
struct Scanned {
    tensor: Tensor,
    axis: usize,
    backward: bool,
}

/// The length that all have; 0 where there are none.
fn common_length(inputs: &[Scanned]) -> Result<usize> {
    let mut lengths = inputs.iter().map(|i| i.tensor.dims()[i.axis]);
    let first = lengths.next().unwrap_or(0);
    if lengths.any(|n| n != first) {
        return Err(Error::invalid("the scan inputs differ in length"));
    }
    Ok(first)
}

/// Runs the body `length` times: the last state, and the other outputs of each turn.
fn turns(
    cx: &EvalCx,
    mut state: Vec<Item>,
    inputs: &[Scanned],
    length: usize,
) -> Result<(Vec<Item>, Vec<Vec<Item>>)> {
    let states = state.len();
    let mut turns = Vec::new();
    let (held, mut bytes) = (cx.held(), 0u64);
    for turn in 0..length {
        let mut values: Vec<Option<Item>> = state.into_iter().map(Some).collect();
        for input in inputs {
            let i = if input.backward {
                length - 1 - turn
            } else {
                turn
            };
            values.push(Some(slice(&input.tensor, input.axis, i)?.into()));
        }
        let mut outputs = cx.subgraph("body", values)?.into_iter();
        state = outputs.by_ref().take(states).collect();
        let rest: Vec<Item> = outputs.collect();
        bytes = bytes.saturating_add(2 * bytes_of(&rest));
        cx.hold_after(held, bytes.saturating_add(bytes_of(&state)))?;
        turns.push(rest);
    }
    Ok((state, turns))
}

fn eval(cx: &EvalCx) -> Result<Vec<Item>> {
    if cx.version < 9 {
        return batched::eval(cx);
    }
    let body = body(cx)?;
    let scans = scanned(cx.node)?;
    let states = cx.inputs() - scans;
    check_outputs(body, states)?;
    let state: Vec<Item> = (0..states)
        .map(|i| cx.get(i).cloned())
        .collect::<Result<_>>()?;
    let scanned = |i: usize| -> Result<Scanned> {
        let tensor = cx.input(states + i)?.clone();
        Ok(Scanned {
            axis: infer::axis(at(cx.node, "scan_input_axes", i), tensor.rank())?,
            backward: at(cx.node, "scan_input_directions", i) != 0,
            tensor,
        })
    };
    let inputs: Vec<Scanned> = (0..scans).map(scanned).collect::<Result<_>>()?;
    let length = common_length(&inputs)?;
    let (state, turns) = turns(cx, state, &inputs, length)?;
    let mut stack = Stack::new(body.outputs.len() - states);
    let backward = |i: usize| at(cx.node, "scan_output_directions", i) != 0;
    for turn in 0..length {
        let pick = |i: usize| if backward(i) { length - 1 - turn } else { turn };
        stack.push((0..body.outputs.len() - states).map(|i| turns[pick(i)][i].clone()))?;
    }
    let stacks = stack.finish(body, states, |i| at(cx.node, "scan_output_axes", i))?;
    Ok([state, stacks].concat())
}

fn slice(t: &Tensor, axis: usize, i: usize) -> Result<Tensor> {
    let mut strides = layout::strides(t.dims());
    let mut dims = layout::Dims::from_slice(t.dims());
    let offset = i * usize::try_from(strides.remove(axis)).unwrap_or(0);
    dims.remove(axis);
    layout::strided(t, &dims, &strides, offset)
}

#[cfg(test)]
mod tests {
    use crate::infer::infer;
    use crate::text::parse;

    #[test]
    fn a_body_that_takes_less_than_it_is_given_is_an_error() {
        let model = parse(
            "opset 17 graph g(s: f32[2], x: f32[3,2]) -> (y) {
               y = Scan(s, x, x) {num_scan_inputs=1, body=graph b(a: f32[2]) -> (t) {
                 t = Identity(a) }} }",
        )
        .unwrap();
        let error = infer(&model, &[]).unwrap_err().to_string();
        assert!(
            error.contains("has 1 inputs, the node gives it 3"),
            "{error}"
        );
    }
}

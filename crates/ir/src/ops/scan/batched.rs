//! Scan of opset 8: every row of a batch is scanned on its own, for a length of its own.

use super::{Scanned, at, body, check_outputs, common_length, scanned, slice, turns};
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::concat;
use crate::ops::control::{Stack, stacked_type, without_axis};
use crate::types::{Dim, TensorType, Type};
use crate::{Error, Item, Result, Tensor};

/// Types of one row for the body, those of the batch for the node.
pub(super) fn infer(cx: &mut InferCx) -> Result<()> {
    let first = cx.inputs() - scanned(cx.node)?;
    let states = first.saturating_sub(1);
    let (mut batch, mut length) = (Dim::Unknown, Dim::Unknown);
    let mut types: Vec<Option<Type>> = Vec::new();
    for i in 1..cx.inputs() {
        let dropped = if i < first { 1 } else { 2 };
        let (Some(dtype), Some(s)) = (cx.dtype(i), cx.shape(i)) else {
            types.push(None);
            continue;
        };
        if s.rank() < dropped {
            return Err(Error::invalid(format!("input {i} has too few axes")));
        }
        batch = s[0].unify(&batch).unwrap_or(Dim::Unknown);
        let mut row = without_axis(s, 0);
        if dropped == 2 {
            length = s[1].unify(&length).unwrap_or(Dim::Unknown);
            row = without_axis(&row, 0);
        }
        types.push(Some(TensorType::new(dtype, row).into()));
    }
    for (o, ty) in cx.subgraph("body", &types)?.into_iter().enumerate() {
        let ty = match ty {
            Some(ty) if o < states => Some(ty),
            Some(ty) => stacked_type(&ty, 0, length.clone()),
            None => None,
        };
        if let Some(ty) = ty.and_then(|t| stacked_type(&t, 0, batch.clone())) {
            cx.set(o, ty);
        }
    }
    Ok(())
}

pub(super) fn eval(cx: &EvalCx) -> Result<Vec<Item>> {
    let body = body(cx)?;
    let first = cx.inputs() - scanned(cx.node)?;
    let states = first.saturating_sub(1);
    check_outputs(body, states)?;
    let lengths = cx.optional(0).map(Tensor::to_i64).transpose()?;
    let batch = cx.input(1)?.dims().first().copied().unwrap_or(0);
    let mut last = Stack::new(states);
    let mut stacks = Stack::new(body.outputs.len() - states);
    let held = cx.held();
    for row in 0..batch {
        let state: Vec<Item> = (1..first)
            .map(|i| Ok(row_of(cx.input(i)?, row)?.into()))
            .collect::<Result<_>>()?;
        let scanned = |i: usize| -> Result<Scanned> {
            Ok(Scanned {
                tensor: row_of(cx.input(i)?, row)?,
                axis: 0,
                backward: at(cx.node, "directions", i - first) != 0,
            })
        };
        let inputs: Vec<Scanned> = (first..cx.inputs()).map(scanned).collect::<Result<_>>()?;
        let full = common_length(&inputs)?;
        let length = match lengths.as_ref().and_then(|l| l.get(row)) {
            Some(&n) => usize::try_from(n).ok().filter(|&n| n <= full),
            None => Some(full),
        };
        let length = length.ok_or_else(|| {
            Error::invalid(format!("a row is longer than the sequence of {full}"))
        })?;
        let (state, turns) = turns(cx, state, &inputs, length)?;
        last.push(state.into_iter())?;
        let mut stack = Stack::new(body.outputs.len() - states);
        for turn in turns {
            stack.push(turn.into_iter())?;
        }
        let padded = stack.finish(body, states, |_| 0)?.into_iter();
        let padded: Vec<Item> = padded.map(|s| pad(s, full)).collect::<Result<_>>()?;
        stacks.push(padded.into_iter())?;
        cx.hold_after(held, last.bytes().saturating_add(stacks.bytes()))?;
    }
    let last = last.finish(body, 0, |_| 0)?;
    Ok([last, stacks.finish(body, states, |_| 0)?].concat())
}

fn row_of(t: &Tensor, row: usize) -> Result<Tensor> {
    if t.dims().first().is_none_or(|&n| row >= n) {
        return Err(Error::invalid(format!("{} has no row {row}", t.ty())));
    }
    slice(t, 0, row)
}

/// Zeros after the turns that a shorter row does not make.
fn pad(stack: Item, length: usize) -> Result<Item> {
    let stack = stack.into_tensor()?;
    let missing = length - stack.dims()[0].min(length);
    if missing == 0 {
        return Ok(stack.into());
    }
    let mut dims = stack.dims().to_vec();
    dims[0] = missing;
    let count = crate::checked_count(&dims)?;
    let bytes = stack.dtype().bytes_of(count).unwrap_or(0);
    let zeros = Tensor::from_bytes(stack.dtype(), &dims, vec![0; bytes].into())?;
    Ok(concat::join(&[&stack, &zeros], 0)?.into())
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::eval::evaluate;
    use crate::text::parse;

    #[test]
    fn a_shorter_row_stops_early_and_is_padded() {
        let model = parse(
            "opset 8 graph g() -> (y, z) { n: i64[2] = {2,1} s: f32[2,1] = {0,10} \
             x: f32[2,2,1] = {1,2,3,4} \
             y, z = Scan(n, s, x) {num_scan_inputs=1, body=graph b(a: f32[1], v: f32[1]) \
             -> (t, u) { t = Add(a, v) u = Identity(t) }} }",
        )
        .unwrap();
        let out = evaluate(&model, &[]).unwrap();
        let expected = Tensor::from_vec(&[2, 1], vec![3f32, 13.0]).unwrap();
        assert_eq!(out[0], expected);
        let expected = Tensor::from_vec(&[2, 2, 1], vec![1f32, 3.0, 13.0, 0.0]).unwrap();
        assert_eq!(out[1], expected);
        let inferred = crate::infer::infer(&model, &[]).unwrap();
        let v = model.graph.outputs[1];
        assert_eq!(inferred.dims(v).unwrap().as_slice(), &[2, 2, 1]);
    }
}

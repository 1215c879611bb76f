//! Sequences: making them, reading them, changing them.

use super::{Arity, AttrKind, MANY, OpDef, attr, axes};
use crate::infer::InferCx;
use crate::types::{TensorType, Type};
use crate::{DType, Error, Item, Result, Tensor};

mod concat;
mod map;
mod split;

pub use concat::CONCAT_FROM_SEQUENCE;
pub use map::SEQUENCE_MAP;
pub use split::SPLIT_TO_SEQUENCE;

/// ONNX SequenceConstruct.
pub static SEQUENCE_CONSTRUCT: OpDef = OpDef {
    name: "SequenceConstruct",
    since: &[11],
    inputs: Arity(1, MANY),
    infer: infer_construct,
    eval_items: Some(|cx| {
        let items = (0..cx.inputs()).map(|i| cx.get(i).cloned());
        Ok(vec![Item::sequence(items.collect::<Result<_>>()?)])
    }),
    ..OpDef::BASE
};

/// ONNX SequenceEmpty.
pub static SEQUENCE_EMPTY: OpDef = OpDef {
    name: "SequenceEmpty",
    since: &[11],
    inputs: Arity(0, 0),
    attrs: &[attr("dtype", AttrKind::Int(Some(1)))],
    infer: |cx| {
        let code = cx.node.int("dtype").unwrap_or(1);
        let dtype = i32::try_from(code).ok().and_then(DType::from_onnx);
        let dtype = dtype
            .ok_or_else(|| Error::invalid(format!("there is no element type of code {code}")))?;
        cx.set(0, sequence_of(TensorType { dtype, shape: None }.into()));
        Ok(())
    },
    eval_items: Some(|_| Ok(vec![Item::sequence(Vec::new())])),
    ..OpDef::BASE
};

/// ONNX SequenceAt.
pub static SEQUENCE_AT: OpDef = OpDef {
    name: "SequenceAt",
    since: &[11],
    inputs: Arity(2, 2),
    infer: |cx| {
        if let Some(ty) = element(cx, 0).cloned() {
            cx.set(0, ty);
        }
        Ok(())
    },
    eval_items: Some(|cx| {
        let sequence = cx.sequence(0)?;
        let at = position(
            cx.input(1)?,
            sequence.len(),
            sequence.len().saturating_sub(1),
        )?;
        let item = sequence.get(at);
        Ok(vec![item.cloned().ok_or_else(|| outside(at as i64, 0))?])
    }),
    ..OpDef::BASE
};

/// ONNX SequenceInsert.
pub static SEQUENCE_INSERT: OpDef = OpDef {
    name: "SequenceInsert",
    since: &[11],
    inputs: Arity(2, 3),
    infer: |cx| {
        if let (Some(old), Some(new)) = (element(cx, 0), cx.ty(1))
            && let Some(ty) = old.common(new)
        {
            cx.set(0, sequence_of(ty));
        }
        Ok(())
    },
    eval_items: Some(|cx| {
        let mut items = cx.sequence(0)?.to_vec();
        let at = match cx.optional(2) {
            Some(t) => position(t, items.len(), items.len())?,
            None => items.len(),
        };
        items.insert(at, cx.get(1)?.clone());
        Ok(vec![Item::sequence(items)])
    }),
    ..OpDef::BASE
};

/// ONNX SequenceErase.
pub static SEQUENCE_ERASE: OpDef = OpDef {
    name: "SequenceErase",
    since: &[11],
    inputs: Arity(1, 2),
    eval_items: Some(|cx| {
        let mut items = cx.sequence(0)?.to_vec();
        let last = items.len().checked_sub(1).ok_or_else(|| outside(-1, 0))?;
        let at = match cx.optional(1) {
            Some(t) => position(t, items.len(), last)?,
            None => last,
        };
        items.remove(at);
        Ok(vec![Item::sequence(items)])
    }),
    ..OpDef::BASE
};

/// ONNX SequenceLength.
pub static SEQUENCE_LENGTH: OpDef = OpDef {
    name: "SequenceLength",
    since: &[11],
    infer: |cx| {
        cx.set(0, TensorType::fixed(DType::I64, &[]));
        Ok(())
    },
    eval_items: Some(|cx| {
        let length = cx.sequence(0)?.len();
        Ok(vec![Tensor::scalar(length as i64).into()])
    }),
    ..OpDef::BASE
};

/// The type of a sequence of values of type `ty`.
fn sequence_of(ty: Type) -> Type {
    Type::Sequence(Box::new(ty))
}

/// The type of the values in the sequence that is input `i`.
fn element<'a>(cx: &'a InferCx, i: usize) -> Option<&'a Type> {
    match cx.ty(i)? {
        Type::Sequence(ty) => Some(ty),
        _ => None,
    }
}

fn infer_construct(cx: &mut InferCx) -> Result<()> {
    let types: Option<Vec<Type>> = (0..cx.inputs()).map(|i| cx.ty(i).cloned()).collect();
    let Some(types) = types else { return Ok(()) };
    let mut rest = types.iter().skip(1);
    let Some(first) = types.first().cloned() else {
        return Ok(());
    };
    match rest.try_fold(first, |a, b| a.common(b)) {
        Some(ty) => cx.set(0, sequence_of(ty)),
        None => {
            return Err(Error::invalid(
                "the values of a sequence are of different types",
            ));
        }
    }
    Ok(())
}

fn outside(at: i64, length: usize) -> Error {
    Error::invalid(format!("position {at} is outside a sequence of {length}"))
}

/// A position in a sequence of `length`, from the back where it is negative, at most `last`.
fn position(t: &Tensor, length: usize, last: usize) -> Result<usize> {
    let at = axes::scalar(t)?;
    let n = i64::try_from(length).unwrap_or(i64::MAX);
    let from_front = if at < 0 { at.saturating_add(n) } else { at };
    usize::try_from(from_front)
        .ok()
        .filter(|&p| p <= last && (length > 0 || last == 0))
        .ok_or_else(|| outside(at, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::evaluate_items;
    use crate::text::parse;

    /// The output of a graph without inputs.
    fn out(body: &str) -> Result<Item> {
        let model = parse(&format!("opset 17\ngraph g() -> (y) {{ {body} }}"))?;
        let inferred = crate::infer::infer(&model, &[])?;
        let y = evaluate_items(&model, &[])?.remove(0);
        if let (Some(found), Some(said)) = (y.ty(), &inferred.types[model.graph.outputs[0].index()])
        {
            assert_eq!(
                found.common(said).as_ref(),
                Some(&said.common(said).unwrap()),
                "{body}"
            );
        }
        Ok(y)
    }

    const TWO: &str = "a: f32[2] = {1,2} b: f32[1] = {3} s = SequenceConstruct(a, b) ";

    fn ints(t: i64) -> String {
        format!("{TWO} i: i64[] = {{{t}}} ")
    }

    #[test]
    fn positions_count_from_both_ends() {
        let at = |i| out(&format!("{} y = SequenceAt(s, i)", ints(i)));
        assert_eq!(at(0).unwrap(), at(-2).unwrap());
        assert_eq!(at(-1).unwrap(), Tensor::vector(vec![3f32]).into());
        assert!(at(2).is_err() && at(-3).is_err());
        let empty = out("i: i64[] = {0} s = SequenceEmpty() y = SequenceAt(s, i)");
        assert!(empty.is_err());
    }

    #[test]
    fn insertion_may_be_at_the_end_and_erasure_may_not() {
        let insert = |i| out(&format!("{} y = SequenceInsert(s, b, i)", ints(i)));
        assert_eq!(insert(2).unwrap().as_sequence().unwrap().len(), 3);
        assert!(insert(3).is_err());
        let erase = |i| out(&format!("{} y = SequenceErase(s, i)", ints(i)));
        assert_eq!(erase(0).unwrap(), erase(-2).unwrap());
        assert!(erase(2).is_err());
        assert!(out("s = SequenceEmpty() y = SequenceErase(s)").is_err());
        let grown = out("a: f32[1] = {1} s = SequenceEmpty() y = SequenceInsert(s, a)").unwrap();
        assert_eq!(grown.as_sequence().unwrap().len(), 1);
    }

    #[test]
    fn splitting_and_joining_gives_the_tensor_again() {
        let back = |split: &str, attrs: &str| {
            let text = format!(
                "x: f32[2,3] = {{1,2,3,4,5,6}} {split} \
                 p = SplitToSequence(x{}) {{axis=1}} y = ConcatFromSequence(p) {{axis=1{attrs}}}",
                if split.is_empty() { "" } else { ", n" }
            );
            out(&text).unwrap()
        };
        let whole = Tensor::from_vec(&[2, 3], vec![1f32, 2., 3., 4., 5., 6.]).unwrap();
        assert_eq!(back("", ""), whole.clone().into());
        assert_eq!(back("n: i64[] = {2}", ""), whole.clone().into());
        assert_eq!(back("n: i64[2] = {1,2}", ""), whole.into());
    }

    #[test]
    fn length_counts() {
        let y = out(&format!("{TWO} y = SequenceLength(s)")).unwrap();
        assert_eq!(y, Tensor::scalar(2i64).into());
    }

    #[test]
    fn a_body_is_run_for_each_value() {
        let y = out(&format!(
            "{TWO} y = SequenceMap(s, b) {{body=graph m(p: f32[?], q: f32[1]) -> (r) \
             {{ r = Add(p, q) }}}}"
        ));
        let expected = Item::tensors(vec![
            Tensor::vector(vec![4f32, 5.0]),
            Tensor::vector(vec![6f32]),
        ]);
        assert_eq!(y.unwrap(), expected);
    }
}

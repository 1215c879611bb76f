//! Optionals: values that may be missing.

use super::{Arity, AttrKind, OpDef, attr};
use crate::graph::Attribute;
use crate::infer::InferCx;
use crate::types::{TensorType, Type};
use crate::{DType, Error, Item, Result, Tensor};

/// ONNX Optional.
pub static OPTIONAL: OpDef = OpDef {
    name: "Optional",
    since: &[15],
    inputs: Arity(0, 1),
    attrs: &[attr("type", AttrKind::Type)],
    infer: infer_optional,
    eval_items: Some(|cx| {
        let held = cx.item(0).cloned();
        Ok(vec![held.map_or(Item::nothing(), Item::some)])
    }),
    ..OpDef::BASE
};

/// ONNX OptionalGetElement: what the optional holds; a value that is none is itself.
pub static OPTIONAL_GET_ELEMENT: OpDef = OpDef {
    name: "OptionalGetElement",
    since: &[15, 18],
    infer: |cx| {
        let ty = match cx.ty(0).cloned() {
            Some(Type::Optional(ty)) => *ty,
            Some(ty) => ty,
            None => return Ok(()),
        };
        cx.set(0, ty);
        Ok(())
    },
    eval_items: Some(|cx| match cx.get(0)? {
        Item::Optional(Some(item)) => Ok(vec![Item::clone(item)]),
        Item::Optional(None) => Err(Error::invalid("the optional holds nothing")),
        item => Ok(vec![item.clone()]),
    }),
    ..OpDef::BASE
};

/// ONNX OptionalHasElement.
pub static OPTIONAL_HAS_ELEMENT: OpDef = OpDef {
    name: "OptionalHasElement",
    since: &[15, 18],
    inputs: Arity(0, 1),
    infer: |cx| {
        cx.set(0, TensorType::fixed(DType::Bool, &[]));
        Ok(())
    },
    eval_items: Some(|cx| {
        let held = cx.item(0);
        let holds = held.is_some_and(|item| *item != Item::nothing());
        Ok(vec![Tensor::from_bools(&[], &[holds])?.into()])
    }),
    ..OpDef::BASE
};

fn infer_optional(cx: &mut InferCx) -> Result<()> {
    let stated = match cx.node.attribute("type") {
        Some(Attribute::Type(ty)) => Some(ty.clone()),
        _ => None,
    };
    if let Some(ty) = cx.ty(0).cloned().or(stated) {
        cx.set(0, Type::Optional(Box::new(ty)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::evaluate_items;
    use crate::text::parse;

    fn out(body: &str) -> Result<Item> {
        let model = parse(&format!("opset 18\ngraph g() -> (y) {{ {body} }}"))?;
        crate::infer::infer(&model, &[])?;
        Ok(evaluate_items(&model, &[])?.remove(0))
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let y = out("x: f32[1] = {7} o = Optional(x) y = OptionalGetElement(o)").unwrap();
        assert_eq!(y, Tensor::vector(vec![7f32]).into());
        let y = out("x: f32[1] = {7} y = OptionalGetElement(x)").unwrap();
        assert_eq!(y, Tensor::vector(vec![7f32]).into());
    }

    #[test]
    fn an_empty_optional_says_so_and_gives_nothing() {
        let empty = "o = Optional() {type=type f32[1]} ";
        let holds = |body: &str| out(body).unwrap();
        let (yes, no) = ([true], [false]);
        let truth = |b: &[bool]| Item::from(Tensor::from_bools(&[], b).unwrap());
        assert_eq!(
            holds(&format!("{empty} y = OptionalHasElement(o)")),
            truth(&no)
        );
        assert_eq!(
            holds("x: f32[1] = {7} y = OptionalHasElement(x)"),
            truth(&yes)
        );
        assert_eq!(holds("y = OptionalHasElement()"), truth(&no));
        assert!(out(&format!("{empty} y = OptionalGetElement(o)")).is_err());
    }
}

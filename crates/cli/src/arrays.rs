//! The values of a run as the arrays of an npz file.
//!
//! A tensor is the array of its name. Element 2 of a sequence `x` is `x.2`, the length of the
//! sequence is `x.length`; a map `x` is `x.keys` and `x.values`, two arrays of one axis; an
//! optional is the value that it holds, and nothing at all is `x.nothing`.

use edgesmith_ir::types::Type;
use edgesmith_ir::{Error, Item, Map, Model, Result, Tensor};

/// Arrays by name.
pub type Arrays = [(String, Tensor)];

/// What the model asks for, tensors cast to the types that it declares. Inputs that have a default
/// may be left out.
///
/// # Errors
/// When an array is missing or cannot be cast.
pub fn inputs<'a>(model: &'a Model, arrays: &Arrays) -> Result<Vec<(&'a str, Item)>> {
    let mut inputs = Vec::new();
    for &v in &model.graph.inputs {
        let value = model.graph.value(v);
        let is_there = arrays.iter().any(|(n, _)| *n == value.name);
        if is_there || value.constant.is_none() {
            let item = read(&value.name, value.ty.as_ref(), arrays)?;
            inputs.push((value.name.as_str(), item));
        }
    }
    Ok(inputs)
}

/// The outputs of the model as arrays, in order.
pub fn outputs(model: &Model, items: &[Item]) -> Vec<(String, Tensor)> {
    let mut arrays = Vec::new();
    for (&v, item) in model.graph.outputs.iter().zip(items) {
        write(&model.graph.value(v).name, item, &mut arrays);
    }
    arrays
}

fn find<'a>(name: &str, arrays: &'a Arrays) -> Option<&'a Tensor> {
    arrays.iter().find(|(n, _)| n == name).map(|(_, t)| t)
}

fn needed<'a>(name: &str, arrays: &'a Arrays) -> Result<&'a Tensor> {
    find(name, arrays).ok_or_else(|| {
        let there: Vec<&str> = arrays.iter().map(|(n, _)| n.as_str()).collect();
        Error::invalid(format!("the input file has no array \"{name}\""))
            .hint(format!("its arrays are {}", there.join(", ")))
    })
}

/// The value of a type, which does not nest deeper than files may.
fn read(name: &str, ty: Option<&Type>, arrays: &Arrays) -> Result<Item> {
    match ty {
        Some(Type::Sequence(element)) => {
            let length = needed(&format!("{name}.length"), arrays)?.to_i64()?;
            let length = length
                .first()
                .map_or(0, |&n| usize::try_from(n).unwrap_or(0));
            let items = (0..length).map(|i| read(&format!("{name}.{i}"), Some(element), arrays));
            Ok(Item::sequence(items.collect::<Result<_>>()?))
        }
        Some(Type::Optional(_)) if find(&format!("{name}.nothing"), arrays).is_some() => {
            Ok(Item::nothing())
        }
        Some(Type::Optional(held)) => Ok(Item::some(read(name, Some(held), arrays)?)),
        Some(Type::Map(..)) => {
            let [keys, values] =
                ["keys", "values"].map(|part| needed(&format!("{name}.{part}"), arrays));
            Ok(Map::new(keys?.clone(), values?.clone())?.into())
        }
        Some(Type::Tensor(t)) => Ok(edgesmith_data::cast(needed(name, arrays)?, t.dtype)?.into()),
        Some(Type::Opaque(_)) | None => Ok(needed(name, arrays)?.clone().into()),
    }
}

fn write(name: &str, item: &Item, arrays: &mut Vec<(String, Tensor)>) {
    match item {
        Item::Tensor(t) => arrays.push((name.to_owned(), t.clone())),
        Item::Sequence(items) => {
            let length = Tensor::scalar(i64::try_from(items.len()).unwrap_or(i64::MAX));
            arrays.push((format!("{name}.length"), length));
            for (i, item) in items.iter().enumerate() {
                write(&format!("{name}.{i}"), item, arrays);
            }
        }
        Item::Optional(Some(item)) => write(name, item, arrays),
        Item::Optional(None) => arrays.push((format!("{name}.nothing"), Tensor::scalar(1i64))),
        Item::Map(map) => {
            arrays.push((format!("{name}.keys"), map.keys.clone()));
            arrays.push((format!("{name}.values"), map.values.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::DType;
    use edgesmith_ir::types::{Shape, TensorType};

    use super::*;

    fn there_and_back(item: &Item, ty: &Type) {
        let mut arrays = Vec::new();
        write("x", item, &mut arrays);
        assert_eq!(&read("x", Some(ty), &arrays).unwrap(), item);
    }

    #[test]
    fn sequences_maps_and_optionals_come_back() {
        let scalar: Type = TensorType::fixed(DType::F32, &[]).into();
        let any: Type = TensorType::new(DType::F32, Shape::unknown(1)).into();
        let of_maps = Type::Sequence(Box::new(Type::Map(DType::I64, Box::new(scalar))));
        let keys = Tensor::vector(vec![3i64, 5]);
        let map = Map::new(keys, Tensor::vector(vec![0.5f32, 0.25])).unwrap();
        there_and_back(&Item::sequence(vec![map.into()]), &of_maps);
        there_and_back(&Item::sequence(Vec::new()), &of_maps);
        let optional = Type::Optional(Box::new(Type::Sequence(Box::new(any))));
        there_and_back(&Item::nothing(), &optional);
        let tensors = vec![Tensor::vector(vec![1f32]), Tensor::vector(vec![2f32, 3.0])];
        there_and_back(&Item::some(Item::tensors(tensors)), &optional);
    }

    #[test]
    fn an_element_that_is_missing_is_named() {
        let ty: Type = TensorType::new(DType::F32, Shape::unknown(1)).into();
        let arrays = [("x.length".to_owned(), Tensor::scalar(1i64))];
        let error = read("x", Some(&Type::Sequence(Box::new(ty))), &arrays).unwrap_err();
        assert!(
            error.to_string().contains("has no array \"x.0\""),
            "{error}"
        );
    }
}

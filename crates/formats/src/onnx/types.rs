//! Types of values: ONNX's `TypeProto` to ours and back.

use bytes::Bytes;
use edgesmith_ir::{DType, Dim, Error, Result, Shape, TensorType, Type};
use prost::Message;

use super::proto::{
    Dimension, DimensionValue, ElementTypeProto, MapTypeProto, TensorShapeProto, TensorTypeProto,
    TypeProto, TypeValue,
};

/// Types nest at most so deep.
const MAX_DEPTH: usize = 16;

/// The element type of an ONNX code.
///
/// # Errors
/// When there is no such element type here.
pub fn dtype(code: i32) -> Result<DType> {
    DType::from_onnx(code).ok_or_else(|| match code {
        0 => Error::invalid("the element type is missing"),
        27 | 28 => Error::unsupported("6-bit floats are not supported"),
        _ => Error::invalid(format!("there is no element type with the code {code}")),
    })
}

/// The type that a message describes; `None` where it says nothing.
///
/// # Errors
/// When an element type is unknown or a length is negative.
pub fn from_proto(proto: &TypeProto) -> Result<Option<Type>> {
    nested(proto, 0)
}

fn nested(proto: &TypeProto, depth: usize) -> Result<Option<Type>> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid(format!(
            "types nest deeper than {MAX_DEPTH}"
        )));
    }
    let element = |e: &ElementTypeProto| -> Result<Option<Box<Type>>> {
        let inner = e.elem_type.as_ref().map(|t| nested(t, depth + 1));
        Ok(inner.transpose()?.flatten().map(Box::new))
    };
    let opaque = || Type::Opaque(Bytes::from(without_denotation(proto).encode_to_vec()));
    Ok(match &proto.value {
        None => None,
        Some(TypeValue::Tensor(t)) => tensor(t)?.map(Type::Tensor),
        Some(TypeValue::Sequence(e)) => Some(element(e)?.map_or_else(opaque, Type::Sequence)),
        Some(TypeValue::Optional(e)) => Some(element(e)?.map_or_else(opaque, Type::Optional)),
        Some(TypeValue::Map(m)) => Some(map(m, depth)?.unwrap_or_else(opaque)),
        Some(_) => Some(opaque()),
    })
}

/// The type of a map; `None` where the message leaves a part of it out.
fn map(proto: &MapTypeProto, depth: usize) -> Result<Option<Type>> {
    let value = proto.value_type.as_ref().map(|t| nested(t, depth + 1));
    match (proto.key_type, value.transpose()?.flatten()) {
        (Some(key), Some(value)) => Ok(Some(Type::Map(dtype(key)?, Box::new(value)))),
        _ => Ok(None),
    }
}

fn tensor(proto: &TensorTypeProto) -> Result<Option<TensorType>> {
    let code = proto.elem_type.unwrap_or(0);
    if code == 0 {
        return Ok(None);
    }
    // For a length that is open some exporters write -1, and others, Paddle's among them, give all of
    // them the name "?", which does not make them equal.
    let dim = |value: &Option<DimensionValue>| match value {
        Some(DimensionValue::Value(n)) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Known),
        Some(DimensionValue::Param(name)) if !matches!(name.as_str(), "" | "?") => {
            Dim::symbol(name)
        }
        _ => Dim::Unknown,
    };
    let shape = proto.shape.as_ref();
    Ok(Some(TensorType {
        dtype: dtype(code)?,
        shape: shape.map(|s| s.dim.iter().map(|d| dim(&d.value)).collect::<Shape>()),
    }))
}

/// The message that describes a type.
pub fn to_proto(ty: &Type) -> TypeProto {
    let element = |t: &Type| {
        Box::new(ElementTypeProto {
            elem_type: Some(to_proto(t)),
        })
    };
    let value = match ty {
        Type::Tensor(t) => TypeValue::Tensor(TensorTypeProto {
            elem_type: Some(t.dtype.onnx()),
            shape: t.shape.as_ref().map(shape_to_proto),
        }),
        Type::Sequence(t) => TypeValue::Sequence(element(t)),
        Type::Optional(t) => TypeValue::Optional(element(t)),
        Type::Map(key, value) => TypeValue::Map(Box::new(MapTypeProto {
            key_type: Some(key.onnx()),
            value_type: Some(to_proto(value)),
        })),
        Type::Opaque(bytes) => return TypeProto::decode(bytes.clone()).unwrap_or_default(),
    };
    TypeProto {
        value: Some(value),
        denotation: None,
    }
}

fn shape_to_proto(shape: &Shape) -> TensorShapeProto {
    let dim = |d: &Dim| Dimension {
        value: match d {
            Dim::Known(n) => i64::try_from(*n).ok().map(DimensionValue::Value),
            Dim::Symbol(name) => Some(DimensionValue::Param(name.to_string())),
            Dim::Unknown => None,
        },
        denotation: None,
    };
    TensorShapeProto {
        dim: shape.iter().map(dim).collect(),
    }
}

/// The same type without the denotations, which mean nothing to the arithmetic.
pub fn without_denotation(proto: &TypeProto) -> TypeProto {
    let mut plain = proto.clone();
    plain.denotation = None;
    if let Some(TypeValue::Tensor(t) | TypeValue::SparseTensor(t)) = &mut plain.value {
        for d in t.shape.iter_mut().flat_map(|s| &mut s.dim) {
            d.denotation = None;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_type_comes_back() {
        let dims = Shape(
            [Dim::symbol("n"), Dim::Unknown, Dim::Known(3)]
                .into_iter()
                .collect(),
        );
        let t = Type::Tensor(TensorType::new(DType::F16, dims));
        for ty in [
            t.clone(),
            Type::Sequence(Box::new(t.clone())),
            Type::Map(DType::I64, Box::new(t.clone())),
            Type::Optional(Box::new(Type::Sequence(Box::new(t)))),
            Type::Tensor(TensorType {
                dtype: DType::I4,
                shape: None,
            }),
        ] {
            assert_eq!(from_proto(&to_proto(&ty)).unwrap(), Some(ty));
        }
    }

    #[test]
    fn a_map_without_types_is_kept_as_it_is() {
        let map = TypeProto {
            value: Some(TypeValue::Map(Box::default())),
            denotation: None,
        };
        let ty = from_proto(&map).unwrap().unwrap();
        assert!(matches!(ty, Type::Opaque(_)));
        assert_eq!(to_proto(&ty), map);
    }

    #[test]
    fn a_negative_length_or_a_question_mark_is_open() {
        for value in [
            DimensionValue::Value(-1),
            DimensionValue::Param("?".into()),
            DimensionValue::Param(String::new()),
        ] {
            let mut proto = to_proto(&TensorType::fixed(DType::F32, &[1]).into());
            let Some(TypeValue::Tensor(t)) = &mut proto.value else {
                unreachable!()
            };
            t.shape.as_mut().unwrap().dim[0].value = Some(value);
            let ty = from_proto(&proto).unwrap().unwrap();
            assert_eq!(
                ty.tensor().unwrap().shape.as_ref().unwrap()[0],
                Dim::Unknown
            );
        }
    }
}

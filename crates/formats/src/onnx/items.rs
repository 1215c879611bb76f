//! Data of runs: ONNX's `TensorProto`, `SequenceProto`, `MapProto` and `OptionalProto` in files
//! of their own, as ONNX's test data has them.

use bytes::Bytes;
use edgesmith_ir::{Error, Item, Map, Result, Tensor, Type};
use prost::Message;

use super::budget::{self, Content};
use super::external::ExternalFiles;
use super::proto::{MapProto, OptionalProto, SequenceProto, TensorProto, item_type};
use super::tensor::{TensorReader, to_proto};

/// The value in `bytes`, which say nothing of what they are: `ty` does.
///
/// # Errors
/// When the bytes are no message of that type, or one that is broken.
pub fn decode_item(bytes: Bytes, ty: &Type) -> Result<Item> {
    let reader = TensorReader::new(ExternalFiles::new(None));
    match ty {
        Type::Tensor(_) => tensor(&reader, &message(bytes, Content::Tensor)?),
        Type::Sequence(_) => sequence(&reader, &message(bytes, Content::Sequence)?),
        Type::Map(..) => map(&reader, &message(bytes, Content::Map)?),
        Type::Optional(_) => optional(&reader, &message(bytes, Content::Optional)?),
        Type::Opaque(_) => Err(Error::unsupported("data of an opaque type is not read")),
    }
}

fn message<M: Message + Default>(bytes: Bytes, content: Content) -> Result<M> {
    budget::check(&bytes, content)?;
    M::decode(bytes).map_err(|e| Error::invalid(format!("the file is damaged: {e}")))
}

fn tensor(reader: &TensorReader, proto: &TensorProto) -> Result<Item> {
    reader.read(proto).map(Item::Tensor)
}

fn sequence(reader: &TensorReader, proto: &SequenceProto) -> Result<Item> {
    let mut items = Vec::new();
    for t in &proto.tensor_values {
        items.push(tensor(reader, t)?);
    }
    for s in &proto.sequence_values {
        items.push(sequence(reader, s)?);
    }
    for m in &proto.map_values {
        items.push(map(reader, m)?);
    }
    for o in &proto.optional_values {
        items.push(optional(reader, o)?);
    }
    Ok(Item::sequence(items))
}

fn map(reader: &TensorReader, proto: &MapProto) -> Result<Item> {
    let keys = if proto.string_keys.is_empty() {
        Tensor::vector(proto.keys.clone())
    } else {
        let text = |s: &Bytes| {
            String::from_utf8(s.to_vec()).map_err(|_| Error::invalid("a key is not UTF-8"))
        };
        let keys: Vec<String> = proto.string_keys.iter().map(text).collect::<Result<_>>()?;
        Tensor::from_strings(&[keys.len()], keys)?
    };
    let values = match &proto.values {
        Some(values) => values.tensor_values.as_slice(),
        None => &[],
    };
    match values {
        [one] => Ok(Map::new(keys, reader.read(one)?)?.into()),
        _ => Err(Error::unsupported(
            "a map has more than one tensor of values",
        )),
    }
}

fn optional(reader: &TensorReader, proto: &OptionalProto) -> Result<Item> {
    let held = match proto {
        OptionalProto {
            tensor_value: Some(t),
            ..
        } => tensor(reader, t)?,
        OptionalProto {
            sequence_value: Some(s),
            ..
        } => sequence(reader, s)?,
        OptionalProto {
            map_value: Some(m), ..
        } => map(reader, m)?,
        OptionalProto {
            optional_value: Some(o),
            ..
        } => optional(reader, o)?,
        _ => return Ok(Item::nothing()),
    };
    Ok(Item::some(held))
}

/// The message that holds `item` under a name.
pub fn encode_item(item: &Item, name: &str) -> Vec<u8> {
    match item {
        Item::Tensor(t) => to_proto(t, name).encode_to_vec(),
        Item::Sequence(items) => sequence_proto(items, name).encode_to_vec(),
        Item::Map(m) => map_proto(m, name).encode_to_vec(),
        Item::Optional(o) => optional_proto(o.as_deref(), name).encode_to_vec(),
    }
}

fn named(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

fn sequence_proto(items: &[Item], name: &str) -> SequenceProto {
    let mut proto = SequenceProto {
        name: named(name),
        elem_type: Some(items.first().map_or(item_type::TENSOR, code)),
        ..SequenceProto::default()
    };
    for item in items {
        match item {
            Item::Tensor(t) => proto.tensor_values.push(to_proto(t, "")),
            Item::Sequence(s) => proto.sequence_values.push(sequence_proto(s, "")),
            Item::Map(m) => proto.map_values.push(map_proto(m, "")),
            Item::Optional(o) => proto.optional_values.push(optional_proto(o.as_deref(), "")),
        }
    }
    proto
}

fn map_proto(map: &Map, name: &str) -> MapProto {
    let mut proto = MapProto {
        name: named(name),
        key_type: Some(map.keys.dtype().onnx()),
        values: Some(sequence_proto(&[map.values.clone().into()], "")),
        ..MapProto::default()
    };
    match map.keys.strings() {
        Ok(keys) => {
            let bytes = keys.iter().map(|k| Bytes::copy_from_slice(k.as_bytes()));
            proto.string_keys = bytes.collect();
        }
        Err(_) => proto.keys = map.keys.to_i64().unwrap_or_default(),
    }
    proto
}

fn optional_proto(item: Option<&Item>, name: &str) -> OptionalProto {
    let mut proto = OptionalProto {
        name: named(name),
        elem_type: Some(item.map_or(0, code)),
        ..OptionalProto::default()
    };
    match item {
        Some(Item::Tensor(t)) => proto.tensor_value = Some(Box::new(to_proto(t, ""))),
        Some(Item::Sequence(s)) => proto.sequence_value = Some(Box::new(sequence_proto(s, ""))),
        Some(Item::Map(m)) => proto.map_value = Some(Box::new(map_proto(m, ""))),
        Some(Item::Optional(o)) => {
            proto.optional_value = Some(Box::new(optional_proto(o.as_deref(), "")));
        }
        None => {}
    }
    proto
}

fn code(item: &Item) -> i32 {
    match item {
        Item::Tensor(_) => item_type::TENSOR,
        Item::Sequence(_) => item_type::SEQUENCE,
        Item::Map(_) => item_type::MAP,
        Item::Optional(_) => item_type::OPTIONAL,
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{DType, TensorType};

    use super::*;

    fn back(item: &Item, ty: &Type) -> Item {
        decode_item(encode_item(item, "x").into(), ty).unwrap()
    }

    #[test]
    fn every_kind_of_item_comes_back() {
        let tensor = Item::from(Tensor::vector(vec![1f32, -2.5]));
        let ty = Type::Tensor(TensorType::fixed(DType::F32, &[2]));
        let seq = Item::sequence(vec![tensor.clone(), tensor.clone()]);
        let seq_ty = Type::Sequence(Box::new(ty.clone()));
        let keys = Tensor::from_strings(&[2], vec!["a".into(), "b".into()]).unwrap();
        let map = Item::from(Map::new(keys, Tensor::vector(vec![1f32, 2.0])).unwrap());
        let map_ty = Type::Map(DType::String, Box::new(ty.clone()));
        let optional_ty = Type::Optional(Box::new(seq_ty.clone()));
        for (item, ty) in [
            (tensor, ty),
            (Item::some(seq.clone()), optional_ty.clone()),
            (Item::nothing(), optional_ty),
            (
                Item::sequence(vec![map.clone()]),
                Type::Sequence(Box::new(map_ty.clone())),
            ),
            (map, map_ty),
            (seq, seq_ty),
        ] {
            assert_eq!(back(&item, &ty), item);
        }
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let ty = Type::Sequence(Box::new(TensorType::fixed(DType::F32, &[1]).into()));
        let bytes = encode_item(&Item::tensors(vec![Tensor::scalar(1f32)]), "x");
        for end in 1..bytes.len() {
            let _ = decode_item(Bytes::copy_from_slice(&bytes[..end]), &ty);
        }
        assert!(decode_item(Bytes::from_static(&[0x1a, 0x7f]), &ty).is_err());
    }
}

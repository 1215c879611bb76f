//! Looks over a file before it is decoded, so that a small one cannot take a lot of memory.
//!
//! A message of two bytes becomes a struct of hundreds. What the whole file would become is added
//! up from its fields, which are walked without being read.

use edgesmith_ir::{Error, Result};

use super::proto;

/// Memory that any file may take when decoded.
const BASE: usize = 32 << 20;

/// Memory that a file may take for each of its bytes.
const PER_BYTE: usize = 32;

/// Messages nest at most so deep, as prost has it.
const MAX_DEPTH: usize = 100;

/// A message, and which of its fields are what.
struct Layout {
    /// Bytes of its struct.
    size: usize,
    /// Fields that are messages.
    messages: &'static [(u64, &'static Layout)],
    /// Fields that are texts or short bytes, each on its own.
    texts: &'static [u64],
    /// Fields that share the bytes of the file.
    shared: &'static [u64],
}

macro_rules! layout {
    ($name:ident $proto:ident { $($field:literal: $message:ident),* } texts $texts:expr) => {
        layout!($name $proto { $($field: $message),* } texts $texts, shared []);
    };
    ($name:ident $proto:ident { $($field:literal: $message:ident),* } texts $texts:expr, shared $shared:expr) => {
        static $name: Layout = Layout {
            size: size_of::<proto::$proto>(),
            messages: &[$(($field, &$message)),*],
            texts: &$texts,
            shared: &$shared,
        };
    };
}

layout!(ENTRY StringStringEntryProto {} texts [1, 2]);
layout!(OPSET OperatorSetIdProto {} texts [1]);
layout!(SEGMENT Segment {} texts []);
layout!(DIMENSION Dimension {} texts [2, 3]);
layout!(SHAPE TensorShapeProto { 1: DIMENSION } texts []);
layout!(TENSOR_TYPE TensorTypeProto { 2: SHAPE } texts []);
layout!(ELEMENT_TYPE ElementTypeProto { 1: TYPE } texts []);
layout!(MAP_TYPE MapTypeProto { 2: TYPE } texts []);
layout!(OPAQUE_TYPE OpaqueTypeProto {} texts [1, 2]);
layout!(TYPE TypeProto {
    1: TENSOR_TYPE, 4: ELEMENT_TYPE, 5: MAP_TYPE, 7: OPAQUE_TYPE, 8: TENSOR_TYPE, 9: ELEMENT_TYPE
} texts [6]);
layout!(TENSOR TensorProto { 3: SEGMENT, 13: ENTRY, 16: ENTRY } texts [6, 8, 12], shared [9]);
layout!(SPARSE SparseTensorProto { 1: TENSOR, 2: TENSOR } texts []);
layout!(VALUE_INFO ValueInfoProto { 2: TYPE, 4: ENTRY } texts [1, 3]);
layout!(ATTRIBUTE AttributeProto {
    5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 14: TYPE, 15: TYPE, 22: SPARSE, 23: SPARSE
} texts [1, 4, 9, 13, 21]);
layout!(SIMPLE_SHARDED SimpleShardedDimProto {} texts [2]);
layout!(SHARDED_DIM ShardedDimProto { 2: SIMPLE_SHARDED } texts []);
layout!(INT_LIST IntIntListEntryProto {} texts []);
layout!(SHARDING ShardingSpecProto { 3: INT_LIST, 4: SHARDED_DIM } texts [1]);
layout!(NODE_DEVICE NodeDeviceConfigurationProto { 2: SHARDING } texts [1]);
layout!(NODE NodeProto { 5: ATTRIBUTE, 9: ENTRY, 10: NODE_DEVICE } texts [1, 2, 3, 4, 6, 7, 8]);
layout!(ANNOTATION TensorAnnotation { 2: ENTRY } texts [1]);
layout!(GRAPH GraphProto {
    1: NODE, 5: TENSOR, 11: VALUE_INFO, 12: VALUE_INFO, 13: VALUE_INFO, 14: ANNOTATION,
    15: SPARSE, 16: ENTRY
} texts [2, 10]);
layout!(FUNCTION FunctionProto {
    7: NODE, 9: OPSET, 11: ATTRIBUTE, 12: VALUE_INFO, 14: ENTRY
} texts [1, 4, 5, 6, 8, 10, 13]);
layout!(TRAINING TrainingInfoProto { 1: GRAPH, 2: GRAPH, 3: ENTRY, 4: ENTRY } texts []);
layout!(DEVICE DeviceConfigurationProto {} texts [1, 3]);
layout!(MODEL ModelProto {
    7: GRAPH, 8: OPSET, 14: ENTRY, 20: TRAINING, 25: FUNCTION, 26: DEVICE
} texts [2, 3, 4, 6]);

layout!(SEQUENCE SequenceProto { 3: TENSOR, 5: SEQUENCE, 6: MAP, 7: OPTIONAL } texts [1]);
layout!(MAP MapProto { 5: SEQUENCE } texts [1, 4]);
layout!(OPTIONAL OptionalProto { 3: TENSOR, 5: SEQUENCE, 6: MAP, 7: OPTIONAL } texts [1]);

/// What a file is said to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `ModelProto`.
    Model,
    /// `TensorProto`.
    Tensor,
    /// `SequenceProto`.
    Sequence,
    /// `MapProto`.
    Map,
    /// `OptionalProto`.
    Optional,
}

impl Content {
    fn layout(self) -> &'static Layout {
        match self {
            Self::Model => &MODEL,
            Self::Tensor => &TENSOR,
            Self::Sequence => &SEQUENCE,
            Self::Map => &MAP,
            Self::Optional => &OPTIONAL,
        }
    }
}

/// Refuses a file that would become far larger than it is.
///
/// # Errors
/// When its fields are damaged, or would take more than 32 MiB and 32 bytes for each of the file.
pub fn check(file: &[u8], content: Content) -> Result<()> {
    let mut walk = Walk {
        left: BASE.saturating_add(file.len().saturating_mul(PER_BYTE)),
    };
    match walk.message(content.layout(), file, 0) {
        Some(()) => Ok(()),
        None if walk.left == 0 => Err(Error::invalid(
            "the file would take far more memory than a model of its size",
        )
        .hint("it is made of empty parts: no exporter writes such files")),
        None => Err(Error::invalid("the file is no ONNX model or is damaged")
            .hint("it may be cut off: compare its size with that of the original")),
    }
}

struct Walk {
    left: usize,
}

impl Walk {
    /// Takes memory; `None` where none is left.
    fn spend(&mut self, bytes: usize) -> Option<()> {
        self.left = self.left.saturating_sub(bytes);
        (self.left > 0).then_some(())
    }

    fn message(&mut self, layout: &Layout, mut bytes: &[u8], depth: usize) -> Option<()> {
        // A vector that grows holds up to twice what is in it.
        self.spend(2 * layout.size)?;
        if depth > MAX_DEPTH {
            return None;
        }
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let field = key >> 3;
            match key & 7 {
                0 => {
                    varint(&mut bytes)?;
                    self.spend(16)?;
                }
                1 => drop(take(&mut bytes, 8)?),
                5 => {
                    take(&mut bytes, 4)?;
                    self.spend(8)?;
                }
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    let inner = take(&mut bytes, length)?;
                    if let Some((_, child)) = layout.messages.iter().find(|(f, _)| *f == field) {
                        self.message(child, inner, depth + 1)?;
                    } else if layout.texts.contains(&field) {
                        self.spend(2 * size_of::<bytes::Bytes>() + length)?;
                    } else if !layout.shared.contains(&field) {
                        self.spend(length.saturating_mul(16))?;
                    }
                }
                _ => return None,
            }
        }
        Some(())
    }
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(front)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in 0..10 {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << (7 * shift);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of `n` empty messages in one field of its graph.
    fn crowd(field: u8, n: usize) -> Vec<u8> {
        let graph = [field << 3 | 2, 0].repeat(n);
        let mut file = vec![0x08, 8, 0x3a];
        prost::encoding::encode_varint(graph.len() as u64, &mut file);
        file.extend(graph);
        file
    }

    #[test]
    fn a_crowd_of_empty_parts_is_refused() {
        for field in [1, 5, 11, 12, 13, 14] {
            assert!(check(&crowd(field, 100), Content::Model).is_ok());
        }
        for field in [1, 5] {
            let error = check(&crowd(field, 1 << 20), Content::Model).unwrap_err();
            assert!(error.to_string().contains("far more memory"), "{error}");
        }
    }

    #[test]
    fn weights_cost_nothing() {
        let model = edgesmith_ir::text::example("Relu(f32[4])").unwrap().0;
        let file = super::super::encode(&model).unwrap();
        assert!(check(&file, Content::Model).is_ok());
        assert!(
            check(&file[..file.len() - 1], Content::Model).is_err(),
            "it is cut off"
        );
    }
}

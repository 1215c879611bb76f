//! What a value is while a model runs: a tensor, a sequence, a map, or something that may be
//! missing.

use std::fmt;
use std::sync::Arc;

use crate::types::Type;
use crate::{Error, Result, Tensor};

/// A value of a run. Cloning shares the data.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A dense tensor.
    Tensor(Tensor),
    /// Values of one type, in order.
    Sequence(Arc<[Item]>),
    /// A value or nothing.
    Optional(Option<Arc<Item>>),
    /// Single elements by key.
    Map(Arc<Map>),
}

/// Single elements by key: both tensors have one axis of one length, keys are i64 or strings.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// The keys.
    pub keys: Tensor,
    /// The element of each key, in the order of the keys.
    pub values: Tensor,
}

impl Item {
    /// A sequence.
    pub fn sequence(items: Vec<Item>) -> Self {
        Self::Sequence(items.into())
    }

    /// A sequence of tensors.
    pub fn tensors(tensors: Vec<Tensor>) -> Self {
        Self::Sequence(tensors.into_iter().map(Self::Tensor).collect())
    }

    /// An optional that holds `item`.
    pub fn some(item: Item) -> Self {
        Self::Optional(Some(Arc::new(item)))
    }

    /// An optional that holds nothing.
    pub const fn nothing() -> Self {
        Self::Optional(None)
    }

    /// The tensor.
    ///
    /// # Errors
    /// When it is none.
    pub fn as_tensor(&self) -> Result<&Tensor> {
        match self {
            Self::Tensor(t) => Ok(t),
            _ => Err(Error::invalid(format!("expected a tensor, found {self}"))),
        }
    }

    /// The tensor, taken out.
    ///
    /// # Errors
    /// When it is none.
    pub fn into_tensor(self) -> Result<Tensor> {
        match self {
            Self::Tensor(t) => Ok(t),
            _ => Err(Error::invalid(format!("expected a tensor, found {self}"))),
        }
    }

    /// The values of a sequence.
    ///
    /// # Errors
    /// When it is none.
    pub fn as_sequence(&self) -> Result<&[Item]> {
        match self {
            Self::Sequence(items) => Ok(items),
            _ => Err(Error::invalid(format!("expected a sequence, found {self}"))),
        }
    }

    /// The type, where it shows: that of an empty sequence or optional does not.
    pub fn ty(&self) -> Option<Type> {
        match self {
            Self::Tensor(t) => Some(t.ty().into()),
            Self::Sequence(items) => {
                let mut all = items.iter().map(Self::ty);
                let first = all.next()??;
                let ty = all.try_fold(first, |a, b| a.common(&b?))?;
                Some(Type::Sequence(Box::new(ty)))
            }
            Self::Optional(item) => Some(Type::Optional(Box::new(item.as_ref()?.ty()?))),
            Self::Map(map) => Some(map.ty()),
        }
    }
}

impl Map {
    /// A map.
    ///
    /// # Errors
    /// When keys and values are not of one axis and one length.
    pub fn new(keys: Tensor, values: Tensor) -> Result<Self> {
        if keys.rank() != 1 || keys.dims() != values.dims() {
            return Err(Error::invalid(format!(
                "a map of {} keys cannot have {} values",
                keys.ty(),
                values.ty()
            )));
        }
        Ok(Self { keys, values })
    }

    /// The type.
    pub fn ty(&self) -> Type {
        let value = crate::TensorType::fixed(self.values.dtype(), &[]);
        Type::Map(self.keys.dtype(), Box::new(value.into()))
    }
}

impl From<Tensor> for Item {
    fn from(t: Tensor) -> Self {
        Self::Tensor(t)
    }
}

impl From<Map> for Item {
    fn from(map: Map) -> Self {
        Self::Map(Arc::new(map))
    }
}

/// In words, for errors: `f32[2,3]`, `a sequence of 4`.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(t) => t.ty().fmt(f),
            Self::Sequence(items) => write!(f, "a sequence of {}", items.len()),
            Self::Optional(None) => f.write_str("an empty optional"),
            Self::Optional(Some(item)) => write!(f, "an optional that holds {item}"),
            Self::Map(map) => map.ty().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, TensorType};

    #[test]
    fn a_sequence_of_unlike_shapes_is_typed_by_what_they_share() {
        let items = vec![
            Tensor::vector(vec![1f32]).into(),
            Tensor::vector(vec![1f32, 2.0]).into(),
        ];
        let inner = TensorType::new(DType::F32, crate::Shape::unknown(1));
        assert_eq!(
            Item::sequence(items).ty(),
            Some(Type::Sequence(Box::new(inner.into())))
        );
        assert_eq!(Item::tensors(Vec::new()).ty(), None);
    }

    #[test]
    fn a_map_needs_a_value_for_each_key() {
        let keys = Tensor::vector(vec![1i64, 2]);
        assert!(Map::new(keys.clone(), Tensor::vector(vec![1f32])).is_err());
        let map = Map::new(keys, Tensor::vector(vec![1f32, 2.0])).unwrap();
        assert_eq!(Item::from(map).to_string(), "map<i64,f32[]>");
    }
}

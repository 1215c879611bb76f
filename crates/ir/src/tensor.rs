//! Constant data: shared, copied only when written, able to stand in a mapped file.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use smallvec::SmallVec;

use crate::types::{DType, Shape, TensorType};
use crate::{Error, Result};

/// A dense tensor, row major, little endian. Cloning shares the data.
#[derive(Debug, Clone)]
pub struct Tensor {
    dtype: DType,
    dims: SmallVec<[usize; 6]>,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    Bytes(Bytes),
    Strings(Arc<[String]>),
}

/// A tensor that is made has at most so many elements: 16 GiB of f32.
pub const MAX_COUNT: usize = 1 << 32;

thread_local! {
    /// What is left for tensors to the evaluation that runs on this thread.
    static ROOM: Cell<usize> = const { Cell::new(MAX_COUNT) };
}

/// Does `work`, in which no tensor has more than `room` elements.
pub(crate) fn within<R>(room: u64, work: impl FnOnce() -> R) -> R {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            ROOM.set(self.0);
        }
    }
    let room = usize::try_from(room).unwrap_or(MAX_COUNT).min(MAX_COUNT);
    let _restore = Restore(ROOM.replace(room));
    work()
}

/// The number of elements of a tensor that is about to be made.
///
/// # Errors
/// When it is over [`MAX_COUNT`], or over what is left to the evaluation that asks
/// ([`crate::Limits::bytes`]).
pub fn checked_count(dims: &[usize]) -> Result<usize> {
    let most = ROOM.get();
    dims.iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= most)
        .ok_or_else(|| {
            let error = Error::invalid(format!(
                "a tensor of {} would have more than {most} elements",
                Shape::fixed(dims)
            ));
            match most {
                MAX_COUNT => error,
                _ => error.hint("`Limits::bytes` allows more"),
            }
        })
}

/// A Rust type that is the storage of an element type of 8 bits or more.
pub trait Element: bytemuck::Pod + PartialOrd + Send + Sync + std::fmt::Debug {
    /// The element type that it stores.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($t:ty => $d:ident),*) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}
elements!(f64 => F64, f32 => F32, f16 => F16, bf16 => BF16, i64 => I64, i32 => I32, i16 => I16,
    i8 => I8, u64 => U64, u32 => U32, u16 => U16, u8 => U8);

struct Owner<T>(Vec<T>);

impl<T: bytemuck::Pod> AsRef<[u8]> for Owner<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Tensor {
    /// A tensor over `data` without copying.
    ///
    /// # Errors
    /// When the length of `data` is not what `dims` and `dtype` ask for, or `dtype` is string.
    pub fn from_bytes(dtype: DType, dims: &[usize], data: Bytes) -> Result<Self> {
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let expected = count.and_then(|n| dtype.bytes_of(n));
        if dtype == DType::String || expected != Some(data.len()) {
            return Err(Error::invalid(format!(
                "{dtype}{} needs {} bytes of data, {} are there",
                Shape::fixed(dims),
                expected.map_or("too many".to_owned(), |n| n.to_string()),
                data.len()
            )));
        }
        Ok(Self {
            dtype,
            dims: dims.into(),
            data: Data::Bytes(data),
        })
    }

    /// A tensor that takes over `data`.
    ///
    /// # Errors
    /// When the length of `data` is not the product of `dims`.
    pub fn from_vec<T: Element>(dims: &[usize], data: Vec<T>) -> Result<Self> {
        Self::from_bytes(T::DTYPE, dims, Bytes::from_owner(Owner(data)))
    }

    /// A tensor of booleans.
    ///
    /// # Errors
    /// When the length of `data` is not the product of `dims`.
    pub fn from_bools(dims: &[usize], data: &[bool]) -> Result<Self> {
        Self::from_bytes(
            DType::Bool,
            dims,
            data.iter().map(|&b| u8::from(b)).collect(),
        )
    }

    /// A tensor of strings.
    ///
    /// # Errors
    /// When the length of `data` is not the product of `dims`.
    pub fn from_strings(dims: &[usize], data: Vec<String>) -> Result<Self> {
        if dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(data.len()) {
            return Err(Error::invalid(format!(
                "string{} does not hold {} strings",
                Shape::fixed(dims),
                data.len()
            )));
        }
        Ok(Self {
            dtype: DType::String,
            dims: dims.into(),
            data: Data::Strings(data.into()),
        })
    }

    /// A tensor without axes.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self {
            dtype: T::DTYPE,
            dims: SmallVec::new(),
            data: Data::Bytes(Bytes::from_owner(Owner(vec![value]))),
        }
    }

    /// A tensor of one axis.
    pub fn vector<T: Element>(data: Vec<T>) -> Self {
        Self {
            dtype: T::DTYPE,
            dims: SmallVec::from_slice(&[data.len()]),
            data: Data::Bytes(Bytes::from_owner(Owner(data))),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The lengths of the axes.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.dims.iter().product()
    }

    /// Element type and shape.
    pub fn ty(&self) -> TensorType {
        TensorType::fixed(self.dtype, &self.dims)
    }

    /// The packed bytes; empty for strings.
    pub fn bytes(&self) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        match &self.data {
            Data::Bytes(b) => b,
            Data::Strings(_) => &NONE,
        }
    }

    /// Where the data lies.
    pub(crate) fn memory(&self) -> Range<usize> {
        let (start, length) = match &self.data {
            Data::Bytes(b) => (b.as_ptr().addr(), b.len()),
            Data::Strings(s) => (s.as_ptr().addr(), size_of_val::<[String]>(s)),
        };
        start..start + length
    }

    /// Bytes of the data, those of the text for strings.
    pub fn byte_len(&self) -> usize {
        match &self.data {
            Data::Bytes(b) => b.len(),
            Data::Strings(s) => s.iter().map(String::len).sum(),
        }
    }

    /// The elements as `T`, borrowed where the bytes are aligned.
    ///
    /// # Errors
    /// When the element type is another.
    pub fn data<T: Element>(&self) -> Result<Cow<'_, [T]>> {
        if self.dtype != T::DTYPE {
            return Err(Error::invalid(format!(
                "expected a tensor of {}, found {}",
                T::DTYPE,
                self.ty()
            )));
        }
        let bytes: &[u8] = self.bytes();
        Ok(match bytemuck::try_cast_slice(bytes) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
        })
    }

    /// The elements of a bool tensor.
    ///
    /// # Errors
    /// When the element type is another.
    pub fn bools(&self) -> Result<Vec<bool>> {
        if self.dtype != DType::Bool {
            return Err(Error::invalid(format!(
                "expected a tensor of bool, found {}",
                self.ty()
            )));
        }
        Ok(self.bytes().iter().map(|&b| b != 0).collect())
    }

    /// The elements of a string tensor.
    ///
    /// # Errors
    /// When the element type is another.
    pub fn strings(&self) -> Result<&[String]> {
        match &self.data {
            Data::Strings(s) => Ok(s),
            Data::Bytes(_) => Err(Error::invalid(format!(
                "expected a tensor of string, found {}",
                self.ty()
            ))),
        }
    }

    /// The same data under other lengths.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshaped(&self, dims: &[usize]) -> Result<Self> {
        if dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(self.count()) {
            return Err(Error::invalid(format!(
                "{} cannot be reshaped to {}",
                self.ty(),
                Shape::fixed(dims)
            )));
        }
        Ok(Self {
            dims: dims.into(),
            ..self.clone()
        })
    }

    /// The elements as f32, converted from any numeric type of at least 8 bits, exactly where
    /// f32 can hold them.
    ///
    /// # Errors
    /// For strings, complex numbers and packed types.
    pub fn to_f32(&self) -> Result<Cow<'_, [f32]>> {
        fn cast<T: Element>(t: &Tensor, f: impl Fn(T) -> f32) -> Result<Cow<'_, [f32]>> {
            Ok(Cow::Owned(t.data::<T>()?.iter().map(|&x| f(x)).collect()))
        }
        match self.dtype {
            DType::F32 => self.data(),
            DType::F64 => cast(self, |x: f64| x as f32),
            DType::F16 => cast(self, f16::to_f32),
            DType::BF16 => cast(self, bf16::to_f32),
            DType::I64 => cast(self, |x: i64| x as f32),
            DType::I32 => cast(self, |x: i32| x as f32),
            DType::I16 => cast(self, |x: i16| f32::from(x)),
            DType::I8 => cast(self, |x: i8| f32::from(x)),
            DType::U64 => cast(self, |x: u64| x as f32),
            DType::U32 => cast(self, |x: u32| x as f32),
            DType::U16 => cast(self, |x: u16| f32::from(x)),
            DType::U8 => cast(self, |x: u8| f32::from(x)),
            DType::Bool => Ok(self
                .bytes()
                .iter()
                .map(|&b| f32::from(u8::from(b != 0)))
                .collect()),
            _ => Err(Error::unsupported(format!(
                "{} cannot be read as f32",
                self.ty()
            ))),
        }
    }

    /// The elements as i64, for shapes, axes and indices.
    ///
    /// # Errors
    /// When the element type is not i64, i32, i16, i8, u32, u16, u8 or bool.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        fn cast<T: Element + Into<i64>>(t: &Tensor) -> Result<Vec<i64>> {
            Ok(t.data::<T>()?.iter().map(|&x| x.into()).collect())
        }
        match self.dtype {
            DType::I64 => Ok(self.data::<i64>()?.into_owned()),
            DType::I32 => cast::<i32>(self),
            DType::I16 => cast::<i16>(self),
            DType::I8 => cast::<i8>(self),
            DType::U32 => cast::<u32>(self),
            DType::U16 => cast::<u16>(self),
            DType::U8 => cast::<u8>(self),
            DType::Bool => Ok(self.bytes().iter().map(|&b| i64::from(b != 0)).collect()),
            _ => Err(Error::invalid(format!(
                "expected integers, found {}",
                self.ty()
            ))),
        }
    }

    /// The tensor with its data in memory of its own, aligned for its elements.
    #[must_use]
    pub fn detached(&self) -> Self {
        match &self.data {
            Data::Bytes(b) => {
                let mut words = vec![0u64; b.len().div_ceil(8)];
                bytemuck::cast_slice_mut(&mut words)[..b.len()].copy_from_slice(b);
                let owned = Bytes::from_owner(Owner(words)).slice(..b.len());
                Self {
                    data: Data::Bytes(owned),
                    ..self.clone()
                }
            }
            Data::Strings(_) => self.clone(),
        }
    }
}

/// Equal type, shape and bytes: a NaN equals the same NaN, 0.0 does not equal −0.0.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype
            && self.dims == other.dims
            && match (&self.data, &other.data) {
                (Data::Bytes(a), Data::Bytes(b)) => a == b,
                (Data::Strings(a), Data::Strings(b)) => a == b,
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_taken_over_without_copying() {
        let v = vec![1.0f32, 2.0, 3.0];
        let address = v.as_ptr().cast::<u8>();
        let t = Tensor::from_vec(&[3], v).unwrap();
        assert_eq!(t.bytes().as_ptr(), address);
        assert!(matches!(
            t.data::<f32>().unwrap(),
            Cow::Borrowed([1.0, 2.0, 3.0])
        ));
    }

    #[test]
    fn unaligned_bytes_are_read_by_copy() {
        let bytes = Bytes::from(vec![0u8, 0, 0, 128, 63, 0, 0, 0, 64]).slice(1..);
        let t = Tensor::from_bytes(DType::F32, &[2], bytes).unwrap();
        assert_eq!(&*t.data::<f32>().unwrap(), &[1.0, 2.0]);
    }

    #[test]
    fn a_wrong_length_is_refused() {
        assert!(Tensor::from_vec(&[2, 2], vec![1i64, 2, 3]).is_err());
        assert!(Tensor::from_bytes(DType::F64, &[usize::MAX, 2], Bytes::new()).is_err());
    }

    #[test]
    fn a_scalar_has_no_axes_and_one_element() {
        let t = Tensor::scalar(7i32);
        assert_eq!((t.rank(), t.count(), t.to_i64().unwrap()), (0, 1, vec![7]));
    }
}

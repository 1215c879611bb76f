//! Element types, symbolic dimensions, shapes, and the types of values.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

macro_rules! dtypes {
    ($($variant:ident $name:literal $onnx:literal $bits:literal $about:literal;)*) => {
        /// An element type. Types under 8 bits are packed, the first element in the low bits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType { $(#[doc = $about] $variant,)* }

        impl DType {
            /// Every element type, by ONNX code.
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];

            /// The short name of the text form and of reports: `f32`, `u8`, `bf16`.
            pub const fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }

            /// Bits of one element; 0 for strings.
            pub const fn bits(self) -> usize {
                match self { $(DType::$variant => $bits,)* }
            }

            /// The code of ONNX's `TensorProto.DataType`.
            pub const fn onnx(self) -> i32 {
                match self { $(DType::$variant => $onnx,)* }
            }
        }
    };
}

dtypes! {
    F32 "f32" 1 32 "IEEE single.";
    U8 "u8" 2 8 "Unsigned 8 bit.";
    I8 "i8" 3 8 "Signed 8 bit.";
    U16 "u16" 4 16 "Unsigned 16 bit.";
    I16 "i16" 5 16 "Signed 16 bit.";
    I32 "i32" 6 32 "Signed 32 bit.";
    I64 "i64" 7 64 "Signed 64 bit.";
    String "string" 8 0 "UTF-8 text.";
    Bool "bool" 9 8 "One byte, 0 or 1.";
    F16 "f16" 10 16 "IEEE half.";
    F64 "f64" 11 64 "IEEE double.";
    U32 "u32" 12 32 "Unsigned 32 bit.";
    U64 "u64" 13 64 "Unsigned 64 bit.";
    C64 "c64" 14 64 "Complex of two f32.";
    C128 "c128" 15 128 "Complex of two f64.";
    BF16 "bf16" 16 16 "Upper half of an f32.";
    F8E4M3FN "f8e4m3fn" 17 8 "Float 8: 4 exponent bits, no infinities.";
    F8E4M3FNUZ "f8e4m3fnuz" 18 8 "Float 8: 4 exponent bits, no infinities, no negative zero.";
    F8E5M2 "f8e5m2" 19 8 "Float 8: 5 exponent bits, IEEE-like.";
    F8E5M2FNUZ "f8e5m2fnuz" 20 8 "Float 8: 5 exponent bits, no infinities, no negative zero.";
    U4 "u4" 21 4 "Unsigned 4 bit, two in a byte.";
    I4 "i4" 22 4 "Signed 4 bit, two in a byte.";
    F4E2M1 "f4e2m1" 23 4 "Float 4 of the OCP microscaling formats.";
    F8E8M0 "f8e8m0" 24 8 "Power-of-two scale of the OCP microscaling formats.";
    U2 "u2" 25 2 "Unsigned 2 bit, four in a byte.";
    I2 "i2" 26 2 "Signed 2 bit, four in a byte.";
}

impl DType {
    /// The type of an ONNX code.
    pub fn from_onnx(code: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|d| d.onnx() == code)
    }

    /// The type of a short name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|d| d.name() == name)
    }

    /// Bytes that `count` elements take when packed; `None` on overflow. Strings take 0.
    pub fn bytes_of(self, count: usize) -> Option<usize> {
        Some(count.checked_mul(self.bits())?.div_ceil(8))
    }

    /// Floating point of any width.
    pub const fn is_float(self) -> bool {
        matches!(
            self,
            Self::F64
                | Self::F32
                | Self::F16
                | Self::BF16
                | Self::F8E4M3FN
                | Self::F8E4M3FNUZ
                | Self::F8E5M2
                | Self::F8E5M2FNUZ
                | Self::F4E2M1
                | Self::F8E8M0
        )
    }

    /// Integer of any width; `bool` is not one.
    pub const fn is_integer(self) -> bool {
        self.is_signed_integer()
            || matches!(
                self,
                Self::U64 | Self::U32 | Self::U16 | Self::U8 | Self::U4 | Self::U2
            )
    }

    /// Signed integer of any width.
    pub const fn is_signed_integer(self) -> bool {
        matches!(
            self,
            Self::I64 | Self::I32 | Self::I16 | Self::I8 | Self::I4 | Self::I2
        )
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One axis of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A number known before the model runs.
    Known(usize),
    /// A name: equal names are equal numbers in one run.
    Symbol(Arc<str>),
    /// Nothing is known.
    Unknown,
}

impl Dim {
    /// The number, where it is known.
    pub fn known(&self) -> Option<usize> {
        if let Self::Known(n) = self {
            Some(*n)
        } else {
            None
        }
    }

    /// The named dimension.
    pub fn symbol(name: &str) -> Self {
        Self::Symbol(name.into())
    }

    /// True where both are surely the same number.
    pub fn same(&self, other: &Self) -> bool {
        !matches!(self, Self::Unknown) && self == other
    }

    /// What both say of one axis: the more precise of the two, `None` when they contradict.
    pub fn unify(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Known(a), Self::Known(b)) => (a == b).then(|| self.clone()),
            (Self::Known(_), _) => Some(self.clone()),
            (_, Self::Known(_)) => Some(other.clone()),
            (Self::Unknown, _) => Some(other.clone()),
            _ => Some(self.clone()),
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Self::Known(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(n) => write!(f, "{n}"),
            Self::Symbol(s) => f.write_str(s),
            Self::Unknown => f.write_str("?"),
        }
    }
}

/// The axes of a tensor of known rank.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape(pub SmallVec<[Dim; 4]>);

impl Shape {
    /// A shape of known numbers.
    pub fn fixed(dims: &[usize]) -> Self {
        dims.iter().map(|&n| Dim::Known(n)).collect()
    }

    /// A shape of `rank` axes of which nothing is known.
    pub fn unknown(rank: usize) -> Self {
        Self(smallvec::smallvec![Dim::Unknown; rank])
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The numbers, where all are known.
    pub fn known(&self) -> Option<SmallVec<[usize; 6]>> {
        self.0.iter().map(Dim::known).collect()
    }

    /// The product of all axes, where all are known and it does not overflow.
    pub fn count(&self) -> Option<usize> {
        self.0
            .iter()
            .try_fold(1usize, |n, d| n.checked_mul(d.known()?))
    }

    /// Unifies axis by axis; `None` when ranks or numbers contradict.
    pub fn unify(&self, other: &Self) -> Option<Self> {
        if self.rank() != other.rank() {
            return None;
        }
        self.0
            .iter()
            .zip(&other.0)
            .map(|(a, b)| a.unify(b))
            .collect::<Option<_>>()
            .map(Self)
    }
}

impl std::ops::Deref for Shape {
    type Target = [Dim];
    fn deref(&self) -> &[Dim] {
        &self.0
    }
}

impl FromIterator<Dim> for Shape {
    fn from_iter<I: IntoIterator<Item = Dim>>(dims: I) -> Self {
        Self(dims.into_iter().collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            write!(f, "{}{d}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}

/// The type of a tensor: element type, and shape where its rank is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// The element type.
    pub dtype: DType,
    /// The shape; `None` when not even the rank is known.
    pub shape: Option<Shape>,
}

impl TensorType {
    /// A tensor type of known shape.
    pub fn new(dtype: DType, shape: Shape) -> Self {
        Self {
            dtype,
            shape: Some(shape),
        }
    }

    /// A tensor type of known numbers.
    pub fn fixed(dtype: DType, dims: &[usize]) -> Self {
        Self::new(dtype, Shape::fixed(dims))
    }

    /// Bytes of such a tensor, where all dimensions are known.
    pub fn bytes(&self) -> Option<usize> {
        self.dtype.bytes_of(self.shape.as_ref()?.count()?)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shape {
            Some(shape) => write!(f, "{}{shape}", self.dtype),
            None => write!(f, "{}[…]", self.dtype),
        }
    }
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// A dense tensor.
    Tensor(TensorType),
    /// A sequence of values of one type.
    Sequence(Box<Type>),
    /// A value or nothing.
    Optional(Box<Type>),
    /// Single elements by key: the type of the keys, that of the values.
    Map(DType, Box<Type>),
    /// A type this program keeps and writes again but does not run (sparse tensors):
    /// the encoded ONNX `TypeProto`.
    Opaque(bytes::Bytes),
}

impl Type {
    /// The tensor type, where it is one.
    pub fn tensor(&self) -> Option<&TensorType> {
        if let Self::Tensor(t) = self {
            Some(t)
        } else {
            None
        }
    }

    /// What both types say: shapes keep the axes that are surely equal; `None` where the types
    /// differ in more than shapes.
    pub fn common(&self, other: &Self) -> Option<Self> {
        let boxed = |a: &Self, b: &Self| a.common(b).map(Box::new);
        match (self, other) {
            (Self::Tensor(a), Self::Tensor(b)) if a.dtype == b.dtype => {
                let shape = match (&a.shape, &b.shape) {
                    (Some(a), Some(b)) if a.rank() == b.rank() => {
                        let same = |(a, b): (&Dim, &Dim)| match a.same(b) {
                            true => a.clone(),
                            false => Dim::Unknown,
                        };
                        Some(a.iter().zip(b.iter()).map(same).collect())
                    }
                    _ => None,
                };
                let dtype = a.dtype;
                Some(TensorType { dtype, shape }.into())
            }
            (Self::Sequence(a), Self::Sequence(b)) => boxed(a, b).map(Self::Sequence),
            (Self::Optional(a), Self::Optional(b)) => boxed(a, b).map(Self::Optional),
            (Self::Map(k, a), Self::Map(l, b)) if k == l => boxed(a, b).map(|v| Self::Map(*k, v)),
            _ => (self == other).then(|| self.clone()),
        }
    }
}

impl From<TensorType> for Type {
    fn from(t: TensorType) -> Self {
        Self::Tensor(t)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(t) => t.fmt(f),
            Self::Sequence(t) => write!(f, "seq<{t}>"),
            Self::Optional(t) => write!(f, "optional<{t}>"),
            Self::Map(key, t) => write!(f, "map<{key},{t}>"),
            Self::Opaque(_) => f.write_str("opaque"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_wins_over_a_symbol_and_a_symbol_over_nothing() {
        let (n, s, u) = (Dim::Known(3), Dim::symbol("batch"), Dim::Unknown);
        assert_eq!(n.unify(&s), Some(n.clone()));
        assert_eq!(u.unify(&s), Some(s.clone()));
        assert_eq!(n.unify(&Dim::Known(4)), None);
        assert!(!u.same(&u));
    }

    #[test]
    fn four_bit_elements_share_bytes() {
        assert_eq!(DType::I4.bytes_of(5), Some(3));
        assert_eq!(DType::F32.bytes_of(usize::MAX), None);
    }

    #[test]
    fn names_and_codes_lead_back_to_the_type() {
        for &d in DType::ALL {
            assert_eq!(DType::from_name(d.name()), Some(d));
            assert_eq!(DType::from_onnx(d.onnx()), Some(d));
        }
    }
}

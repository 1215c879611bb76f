//! Slices of floats that are f32 or were rounded to BF16.

use std::borrow::Cow;

use half::bf16;

/// What a kernel reads.
#[derive(Clone, Copy, Debug)]
pub enum Floats<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// Rounded; only for kernels that multiply BF16.
    Bf16(&'a [bf16]),
}

/// What a kernel writes.
#[derive(Debug)]
pub enum FloatsMut<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// Rounded, ties to even, what is below the normal range to 0; only by kernels that multiply
    /// BF16.
    Bf16(&'a mut [bf16]),
}

impl<'a> Floats<'a> {
    /// Those of a kernel that does not round.
    pub(crate) fn f32(self) -> &'a [f32] {
        match self {
            Self::F32(x) => x,
            Self::Bf16(_) => panic!("this kernel does not read BF16"),
        }
    }

    /// Those from `at` on.
    #[must_use]
    pub fn skip(self, at: usize) -> Self {
        match self {
            Self::F32(x) => Self::F32(&x[at..]),
            Self::Bf16(x) => Self::Bf16(&x[at..]),
        }
    }

    /// The first `n` as f32.
    pub(crate) fn widened(self, n: usize) -> Cow<'a, [f32]> {
        match self {
            Self::F32(x) => Cow::Borrowed(&x[..n]),
            Self::Bf16(x) => x[..n].iter().map(|x| x.to_f32()).collect(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
        }
    }
}

impl<'a> FloatsMut<'a> {
    /// Those of a kernel that does not round.
    pub(crate) fn f32(self) -> &'a mut [f32] {
        match self {
            Self::F32(x) => x,
            Self::Bf16(_) => panic!("this kernel does not write BF16"),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
        }
    }
}

impl<'a> From<&'a [f32]> for Floats<'a> {
    fn from(x: &'a [f32]) -> Self {
        Self::F32(x)
    }
}

impl<'a> From<&'a mut [f32]> for FloatsMut<'a> {
    fn from(x: &'a mut [f32]) -> Self {
        Self::F32(x)
    }
}

/// The bytes as floats of one kind or the other.
pub fn of_bytes(x: &[u8], rounded: bool) -> Floats<'_> {
    if rounded {
        Floats::Bf16(bytemuck::cast_slice(x))
    } else {
        Floats::F32(bytemuck::cast_slice(x))
    }
}

/// As [`of_bytes`], to write.
pub fn of_bytes_mut(x: &mut [u8], rounded: bool) -> FloatsMut<'_> {
    if rounded {
        FloatsMut::Bf16(bytemuck::cast_slice_mut(x))
    } else {
        FloatsMut::F32(bytemuck::cast_slice_mut(x))
    }
}

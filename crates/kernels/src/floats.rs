//! Slices of floats that are f32 or were rounded to BF16.

use std::borrow::Cow;

use half::bf16;

use crate::simd::Simd;
#[cfg(target_arch = "x86_64")]
use crate::simd::avx512::{self, Avx512};

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

/// A channel of a pixel, as images hold it.
pub(crate) trait Channel<S: Simd>: Copy {
    /// The first `n <= LANES`, then zeros.
    ///
    /// # Safety
    /// They are readable at `p`.
    unsafe fn load(s: S, p: *const Self, n: usize) -> S::F;

    /// Stores the first `n <= LANES`.
    ///
    /// # Safety
    /// They are writable at `p`, and the CPU has what rounds to them.
    unsafe fn store(s: S, p: *mut Self, x: S::F, n: usize);
}

impl<S: Simd> Channel<S> for f32 {
    #[inline(always)]
    unsafe fn load(s: S, p: *const f32, n: usize) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_up_to(p, n) }
    }
    #[inline(always)]
    unsafe fn store(s: S, p: *mut f32, x: S::F, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { s.store_up_to(p, x, n) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Channel<Avx512> for bf16 {
    #[inline(always)]
    unsafe fn load(_: Avx512, p: *const bf16, n: usize) -> <Avx512 as Simd>::F {
        // SAFETY: the caller's promise.
        unsafe { avx512::load_bf16(p, n) }
    }
    #[inline(always)]
    unsafe fn store(_: Avx512, p: *mut bf16, x: <Avx512 as Simd>::F, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { avx512::store_bf16(p, x, n) }
    }
}

//! Sums of a tile as bytes: `clamp(round(sum * mult) + zero, lo, hi)`, on AVX-512.

use std::arch::x86_64::*;

use crate::simd::avx512::{Avx512, turned};
use crate::simd::{ByteRange, Simd};
use crate::sparse::lists::FOUR;

/// What makes bytes of four vectors of sums.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    mult: [__m512; FOUR],
    /// What is added to products where sums are floats already.
    less: [__m512; FOUR],
    /// What is added to 16-bit numbers so that the least byte stands at 0.
    shift: __m512i,
    /// Whether that is nothing, bytes end at 255, as those behind a Relu do, and sums begin with [`FLOAT`].
    pub(super) plain: bool,
    lo: __m512i,
    /// The largest byte, from the least on.
    span: __m512i,
}

/// The bits of 2^23 as a float: a number from 0 to 2^23 that is added to them is added to the float. Less than
/// nothing makes it less than 2^23, and so a byte that stands at 0.
pub(super) const FLOAT: i32 = 0x4b00_0000;

/// Whether no sum of 32 bits leaves them when it is multiplied, so that packing clamps it, and none changes
/// its sign.
#[inline(always)]
pub(super) fn keeps_to_words(mult: &[f32]) -> bool {
    let mut all = true;
    for m in mult {
        all &= (*m >= 0.0) & (*m < 1.0);
    }
    all
}

/// Whether sums that begin with `starts` and go no farther than `reach` are exact as [`FLOAT`] has them.
#[inline(always)]
pub(super) fn keeps_to_floats(starts: &[i32], reach: u32) -> bool {
    let mut most = 0;
    for start in starts {
        most = start.unsigned_abs().max(most);
    }
    most < (1u32 << 23).saturating_sub(reach)
}

impl Scale {
    /// Of a tile whose numbers are `mult`, in order of outputs; what [`Scale::bytes`] takes is as lists
    /// with so many lanes leave it. `floats` is whether [`keeps_to_floats`] holds.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW.
    #[inline(always)]
    pub(super) unsafe fn new(
        mult: [__m512; FOUR],
        [rows, parts]: [usize; 2],
        range: ByteRange,
        floats: bool,
    ) -> Self {
        let [shift, span] = [range.zero - range.lo, range.hi - range.lo];
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d] = turned(mult);
            let mult = match (rows, parts) {
                (FOUR, 1) => [a, b, c, d],
                (FOUR, 2) => {
                    let (ab, cd) = (low_halves(a, b), low_halves(c, d));
                    [ab, cd, ab, cd]
                }
                _ => [mult[0]; FOUR],
            };
            let mut less = mult;
            for less in &mut less {
                *less = _mm512_mul_ps(*less, _mm512_set1_ps(-8_388_608.0));
            }
            Self {
                mult,
                less,
                shift: _mm512_set1_epi16(shift as i16),
                plain: floats && shift == 0 && range.hi == 255 && range.lo >= 0,
                lo: _mm512_set1_epi8(range.lo as i8),
                span: _mm512_set1_epi8(span.min(255) as i8),
            }
        }
    }

    /// The bytes of sums, in each 128 bits four of each vector; `P` is `plain`.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW, and [`keeps_to_words`] holds.
    #[inline(always)]
    pub(super) unsafe fn bytes<const P: bool>(&self, s: Avx512, sums: [__m512i; FOUR]) -> __m512i {
        let mut x = sums;
        // SAFETY: the caller's promise.
        unsafe {
            for i in 0..FOUR {
                let y = if P {
                    s.fma(s.float_of(x[i]), self.mult[i], self.less[i])
                } else {
                    s.mul(s.to_float(x[i]), self.mult[i])
                };
                x[i] = s.to_int(y);
            }
            let [a, b, c, d] = x;
            let (ab, cd) = (_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            if P {
                return _mm512_adds_epu8(_mm512_packus_epi16(ab, cd), self.lo);
            }
            let ab = _mm512_adds_epi16(ab, self.shift);
            let cd = _mm512_adds_epi16(cd, self.shift);
            let y = _mm512_min_epu8(_mm512_packus_epi16(ab, cd), self.span);
            _mm512_add_epi8(y, self.lo)
        }
    }
}

/// The first two of every four lanes of each.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn low_halves(a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        _mm512_castpd_ps(_mm512_unpacklo_pd(a, b))
    }
}

/// The sums of lists of which each has two of every four lanes: of the first two outputs of a list in one
/// vector, and of the others.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
pub(super) unsafe fn pairs([a, b, c, d]: [__m512i; FOUR]) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (ab, ab_high) = (_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        let (cd, cd_high) = (_mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d));
        [_mm512_add_epi32(ab, ab_high), _mm512_add_epi32(cd, cd_high)]
    }
}

/// The sums of lists of which each has all of four lanes, as sixteen outputs.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
pub(super) unsafe fn quads(sums: [__m512i; FOUR]) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let [ab, cd] = pairs(sums);
        let (ab, cd) = (_mm512_castsi512_ps(ab), _mm512_castsi512_ps(cd));
        let even = _mm512_shuffle_ps::<0x88>(ab, cd);
        let odd = _mm512_shuffle_ps::<0xdd>(ab, cd);
        _mm512_add_epi32(_mm512_castps_si512(even), _mm512_castps_si512(odd))
    }
}

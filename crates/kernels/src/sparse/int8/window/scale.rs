//! Sums of a tile as bytes: `clamp(round(sum * mult) + zero, lo, hi)`, on AVX-512.

use std::arch::x86_64::*;

use crate::simd::avx512::{Avx512, turned};
use crate::simd::{ByteRange, Simd};
use crate::sparse::lists::FOUR;

/// What makes bytes of four vectors of sums.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    mult: [__m512; FOUR],
    /// What is added to 16-bit numbers so that the least byte stands at 0.
    shift: __m512i,
    /// Whether that is nothing, and bytes end at 255, as those behind a Relu do.
    pub(super) plain: bool,
    lo: __m512i,
    /// The largest byte, from the least on.
    span: __m512i,
}

/// Whether no sum of 32 bits leaves them when it is multiplied, so that packing clamps it.
pub(super) fn keeps_to_words(mult: &[f32]) -> bool {
    mult.iter().fold(true, |all, m| all & (m.abs() < 1.0))
}

impl Scale {
    /// Of a tile whose numbers are `mult`, in order of outputs; what [`Scale::bytes`] takes is as lists
    /// with so many lanes leave it.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW.
    #[inline(always)]
    pub(super) unsafe fn new(
        mult: [__m512; FOUR],
        rows: usize,
        parts: usize,
        range: ByteRange,
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
            Self {
                mult,
                shift: _mm512_set1_epi16(shift as i16),
                plain: shift == 0 && range.hi == 255 && range.lo >= 0,
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
        let [a, b, c, d] = sums;
        // SAFETY: the caller's promise.
        unsafe {
            let a = s.to_int(s.mul(s.to_float(a), self.mult[0]));
            let b = s.to_int(s.mul(s.to_float(b), self.mult[1]));
            let c = s.to_int(s.mul(s.to_float(c), self.mult[2]));
            let d = s.to_int(s.mul(s.to_float(d), self.mult[3]));
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

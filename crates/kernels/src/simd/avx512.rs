//! Sixteen lanes: x86-64 with AVX-512 F, BW, VL and DQ, and its dot product.

use std::arch::x86_64::*;

use half::bf16;

use super::{Body, ByteRange, Dot, Simd};
use crate::Isa;

/// Proof of AVX-512 F, BW, VL and DQ.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Runs `body` with AVX-512 enabled.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and DQ.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
pub(crate) unsafe fn run<B: Body>(body: B) -> B::Out {
    body.run(Avx512(()))
}

impl Avx512 {
    /// # Safety
    /// The CPU has AVX-512 F, BW, VL and DQ.
    #[inline(always)]
    pub(crate) unsafe fn prove() -> Self {
        Self(())
    }
}

/// Lanes to load or store: the first `n`.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type Q = __m128;
    const ISA: Isa = Isa::Avx512;
    const LANES: usize = 16;
    const ROWS: usize = 12;
    const ROUNDS_ROWS: bool = true;
    const LOOKS_UP: bool = true;

    super::ops! {
        splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        round(a: __m512) -> __m512 = _mm512_roundscale_ps::<0>(a);
        if_less(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x);
        times_power(y: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(y, n);
        largest(a: __m512) -> f32 = _mm512_reduce_max_ps(a);
        sum(a: __m512) -> f32 = {
            let half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            super::avx2::sum(half)
        };
        to_int(a: __m512) -> __m512i = _mm512_cvtps_epi32(a);
        to_float(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        bits(a: __m512) -> __m512i = _mm512_castps_si512(a);
        float_of(a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        splat_i(x: i32) -> __m512i = _mm512_set1_epi32(x);
        add_i(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        mul_i(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
        and_i(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        xor_i(a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
        or_i(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        byte_up(a: __m512i) -> __m512i = _mm512_slli_epi32::<8>(a);
        shift_down(a: __m512i, n: i32) -> __m512i = _mm512_srlv_epi32(a, _mm512_set1_epi32(n));
        to_exponent(a: __m512i) -> __m512i = _mm512_slli_epi32::<23>(a);
        dot_pairs(acc: __m512i, a: __m512i, b: __m512i) -> __m512i =
            _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
        four_zeros() -> __m128 = _mm_setzero_ps();
    }
    #[inline(always)]
    fn look_up(self, table: &[f32; 32], i: __m512i) -> __m512 {
        // SAFETY: the type is the proof of AVX-512, and the table has two vectors.
        unsafe {
            let high = _mm512_loadu_ps(table.as_ptr().add(16));
            _mm512_permutex2var_ps(_mm512_loadu_ps(table.as_ptr()), i, high)
        }
    }

    #[inline(always)]
    fn look_up_16(self, table: &[f32; 16], i: __m512i) -> __m512 {
        // SAFETY: the type is the proof of AVX-512, and the table is a vector.
        unsafe { _mm512_permutexvar_ps(i, _mm512_loadu_ps(table.as_ptr())) }
    }

    super::memory! {
        load(p: *const f32) -> __m512 = _mm512_loadu_ps(p);
        store(p: *mut f32, a: __m512) = _mm512_storeu_ps(p, a);
        load_n(p: *const f32, n: usize) -> __m512 = _mm512_maskz_loadu_ps(mask(n), p);
        store_n(p: *mut f32, a: __m512, n: usize) = _mm512_mask_storeu_ps(p, mask(n), a);
        load_i(p: *const i32) -> __m512i = _mm512_loadu_si512(p.cast());
        store_i(p: *mut i32, a: __m512i) = _mm512_storeu_si512(p.cast(), a);
        load_u8(p: *const u8) -> __m512i = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
        load_i8(p: *const u8) -> __m512i = _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()));
        store_bytes(p: *mut u8, a: __m512i) = _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(a));
        load_u8_pairs(p: *const u8) -> __m512i =
            _mm512_cvtepu8_epi16(_mm256_loadu_si256(p.cast()));
        load_i8_pairs(p: *const i8) -> __m512i =
            _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast()));
        interleave_u8(p: *const u8, q: *const u8) -> __m512i = _mm512_or_si512(
            Avx512(()).load_u8(p), _mm512_slli_epi32::<16>(Avx512(()).load_u8(q)));
        four_fma(w: *const f32, x: f32, acc: __m128) -> __m128 =
            _mm_fmadd_ps(_mm_loadu_ps(w), _mm_set1_ps(x), acc);
        four_store(p: *mut f32, a: __m128) = _mm_storeu_ps(p, a);
        load_columns(from: *const f32, stride: usize) -> [__m512; 4] = {
            let mut rows = [_mm512_setzero_ps(); 4];
            for (i, rows) in rows.iter_mut().enumerate() {
                let row = from.add(i * stride);
                *rows = fours([
                    row,
                    row.add(4 * stride),
                    row.add(8 * stride),
                    row.add(12 * stride),
                ]);
            }
            turned(rows)
        };
        join_four(p: [*const u8; 4]) -> __m512i = {
            let x = [p[0].cast(), p[1].cast(), p[2].cast(), p[3].cast()];
            let x = _mm512_castps_si512(fours(x));
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let bytes = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let x = _mm512_permutexvar_epi32(order, x);
            _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(bytes))
        };
        join_sixteen(p: [*const u8; 4]) -> [__m512i; 4] = {
            let (a, b) = (_mm512_loadu_si512(p[0].cast()), _mm512_loadu_si512(p[1].cast()));
            let (c, d) = (_mm512_loadu_si512(p[2].cast()), _mm512_loadu_si512(p[3].cast()));
            let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
            [
                _mm512_unpacklo_epi16(ab, cd),
                _mm512_unpackhi_epi16(ab, cd),
                _mm512_unpacklo_epi16(ab_high, cd_high),
                _mm512_unpackhi_epi16(ab_high, cd_high),
            ]
        };
        turn_bytes(rows: &[*const u8], at: usize, to: *mut u8, flip: u8) = {
            let rows = &rows[..64];
            let flip = _mm512_set1_epi8(flip as i8);
            super::turn!(
                i => _mm512_castps_si512(fours([
                    rows[i].add(at).cast(),
                    rows[16 + i].add(at).cast(),
                    rows[32 + i].add(at).cast(),
                    rows[48 + i].add(at).cast(),
                ])),
                _mm512_unpacklo_epi8,
                _mm512_unpackhi_epi8,
                x => _mm512_storeu_si512(to.add(i * 64).cast(), _mm512_xor_si512(x, flip))
            );
        };
        store_rounded(to: [*mut u8; 2], x: [[__m512; 2]; 2], range: ByteRange) = {
            let [[a, b], [c, d]] = x;
            let y = rounded([a, b, c, d], range);
            _mm256_storeu_si256(to[0].cast(), _mm512_castsi512_si256(y));
            _mm256_storeu_si256(to[1].cast(), _mm512_extracti64x4_epi64::<1>(y));
        };
        store_rounded_rows(to: [*mut u8; 4], x: [__m512; 4], range: ByteRange) = {
            let y = rounded(x, range);
            _mm_storeu_si128(to[0].cast(), _mm512_castsi512_si128(y));
            _mm_storeu_si128(to[1].cast(), _mm512_extracti32x4_epi32::<1>(y));
            _mm_storeu_si128(to[2].cast(), _mm512_extracti32x4_epi32::<2>(y));
            _mm_storeu_si128(to[3].cast(), _mm512_extracti32x4_epi32::<3>(y));
        };
    }
}

/// The sixteen bytes at each address, one behind the other.
///
/// # Safety
/// They are readable, and the CPU has AVX-512 F and DQ.
#[inline(always)]
unsafe fn fours(p: [*const f32; 4]) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let x = _mm512_castps128_ps512(_mm_loadu_ps(p[0]));
        let x = _mm512_insertf32x4::<1>(x, _mm_loadu_ps(p[1]));
        let x = _mm512_insertf32x4::<2>(x, _mm_loadu_ps(p[2]));
        _mm512_insertf32x4::<3>(x, _mm_loadu_ps(p[3]))
    }
}

/// In every four lanes, lane `i` of vector `j` as lane `j` of vector `i`.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
pub(crate) unsafe fn turned([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let (ab, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        [
            _mm512_shuffle_ps::<0x44>(ab, cd),
            _mm512_shuffle_ps::<0xee>(ab, cd),
            _mm512_shuffle_ps::<0x44>(ab_high, cd_high),
            _mm512_shuffle_ps::<0xee>(ab_high, cd_high),
        ]
    }
}

/// The bytes of four vectors, one after another: `clamp(round(x) + zero, lo, hi)`.
///
/// # Safety
/// The CPU has AVX-512 F and BW.
#[inline(always)]
unsafe fn rounded(x: [__m512; 4], range: ByteRange) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(order, packed(x, range))
    }
}

/// The bytes of four vectors as in [`rounded`], in each 128 bits four of each vector.
///
/// # Safety
/// The CPU has AVX-512 F and BW.
#[inline(always)]
pub(crate) unsafe fn packed([a, b, c, d]: [__m512; 4], range: ByteRange) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        // Packing saturates below, which is the lower bound once `lo` stands at 0.
        let (shift, hi) = (range.zero - range.lo, range.hi - range.zero);
        let (shift, hi) = (_mm512_set1_epi16(shift as i16), _mm512_set1_ps(hi as f32));
        let (a, b) = (_mm512_min_ps(a, hi), _mm512_min_ps(b, hi));
        let (c, d) = (_mm512_min_ps(c, hi), _mm512_min_ps(d, hi));
        let ab = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
        let cd = _mm512_packs_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
        let ab = _mm512_adds_epi16(ab, shift);
        let y = _mm512_packus_epi16(ab, _mm512_adds_epi16(cd, shift));
        _mm512_add_epi8(y, _mm512_set1_epi8(range.lo as i8))
    }
}

/// The 512-bit dot product of unsigned with signed bytes, which does not saturate.
#[derive(Clone, Copy)]
pub(crate) struct Vnni512;

impl Dot<Avx512> for Vnni512 {
    const GROUP: usize = 4;
    #[inline(always)]
    fn dot(_: Avx512, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: kernels with this `Dot` are entered only where the CPU has AVX512-VNNI.
        unsafe { _mm512_dpbusd_epi32(acc, a, b) }
    }
    #[inline(always)]
    unsafe fn weights(s: Avx512, p: *const i8) -> __m512i {
        // SAFETY: the caller promises the bytes of sixteen lanes.
        unsafe { s.load_i(p.cast()) }
    }
}

/// Rounds `n` floats to BF16, ties to even, and clears what follows up to `room`. Each 32 numbers
/// stand `jump` behind those before. Numbers below the normal range become 0. Returns whether all
/// are finite, where `CHECK`.
///
/// # Safety
/// The CPU has AVX-512 F, BW and BF16; `n` floats are readable and `room` numbers writable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn to_bf16<const CHECK: bool>(
    from: *const f32,
    n: usize,
    to: *mut u16,
    room: usize,
    jump: usize,
) -> bool {
    // The least magnitude that is rounded to infinity.
    let infinite = _mm512_set1_epi32(0x7f7f_8000);
    let magnitude = _mm512_set1_epi32(i32::MAX);
    let mut most = _mm512_setzero_si512();
    // SAFETY: the caller's promise; masks keep to it at the end.
    unsafe {
        for at in (0..room).step_by(32) {
            let left = n.saturating_sub(at);
            let (low, high) = if left >= 32 {
                let next = from.add(at + 16);
                (_mm512_loadu_ps(from.add(at)), _mm512_loadu_ps(next))
            } else {
                let [first, second] = [mask(left), mask(left.saturating_sub(16))];
                let next = from.wrapping_add(at + 16);
                let low = _mm512_maskz_loadu_ps(first, from.wrapping_add(at));
                (low, _mm512_maskz_loadu_ps(second, next))
            };
            if CHECK {
                for x in [low, high] {
                    let x = _mm512_and_si512(_mm512_castps_si512(x), magnitude);
                    most = _mm512_max_epu32(most, x);
                }
            }
            let y = _mm512_cvtne2ps_pbh(high, low);
            let y = std::mem::transmute::<__m512bh, __m512i>(y);
            let to = to.add(at / 32 * jump);
            if room - at >= 32 {
                _mm512_storeu_si512(to.cast(), y);
            } else {
                let some = (1u32 << (room - at)) - 1;
                _mm512_mask_storeu_epi16(to.cast(), some, y);
            }
        }
    }
    !CHECK || _mm512_cmpge_epu32_mask(most, infinite) == 0
}

/// As [`to_bf16`], for numbers that are BF16.
///
/// # Safety
/// The CPU has AVX-512 F and BW; `n` numbers are readable and `room` writable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) unsafe fn copy_bf16(
    from: *const bf16,
    n: usize,
    to: *mut u16,
    room: usize,
    jump: usize,
) {
    for at in (0..room).step_by(32) {
        let (left, rest) = (n.saturating_sub(at), (room - at).min(32));
        let to = to.wrapping_add(at / 32 * jump);
        // SAFETY: the caller's promise; masks keep to it at the end.
        unsafe {
            if left >= 32 {
                _mm512_storeu_si512(to.cast(), _mm512_loadu_si512(from.add(at).cast()));
                continue;
            }
            let left = ((1u64 << left) - 1) as __mmask32;
            let x = _mm512_maskz_loadu_epi16(left, from.wrapping_add(at).cast());
            let rest = ((1u64 << rest) - 1) as __mmask32;
            _mm512_mask_storeu_epi16(to.cast(), rest, x);
        }
    }
}

/// The first `n <= 16` numbers of BF16 as floats, then zeros.
///
/// # Safety
/// They are readable at `p`.
#[inline(always)]
pub(crate) unsafe fn load_bf16(p: *const bf16, n: usize) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let x = if n == 16 {
            _mm256_loadu_si256(p.cast())
        } else {
            _mm256_maskz_loadu_epi16(mask(n), p.cast())
        };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))
    }
}

/// Stores the first `n <= 16` floats rounded to BF16, as [`to_bf16`] does.
///
/// # Safety
/// The CPU has BF16, and they are writable at `p`.
#[inline(always)]
pub(crate) unsafe fn store_bf16(p: *mut bf16, x: __m512, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let y = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x));
        if n == 16 {
            _mm256_storeu_si256(p.cast(), y);
        } else {
            _mm256_mask_storeu_epi16(p.cast(), mask(n), y);
        }
    }
}

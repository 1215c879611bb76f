//! Eight lanes: x86-64 with AVX2, FMA and F16C, and the AVX-VNNI dot product.

use std::arch::x86_64::*;

use super::{Body, ByteRange, Dot, Simd};
use crate::Isa;

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Runs `body` with AVX2 enabled.
///
/// # Safety
/// The CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn run<B: Body>(body: B) -> B::Out {
    body.run(Avx2(()))
}

impl Avx2 {
    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    #[inline(always)]
    pub(crate) unsafe fn prove() -> Self {
        Self(())
    }
}

/// Lanes to load or store: all ones in the first `n`.
#[inline(always)]
fn mask(n: usize) -> *const i32 {
    static MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    MASK[8 - n.min(8)..].as_ptr()
}

/// Zero-extends bytes to 16 bits: the first eight of the low half, and the last eight of the high
/// half. Compilers would make it one instruction that crosses the halves, which takes more than
/// twice the time of all that it saves on AMD's Zen 3.
#[target_feature(enable = "avx2")]
#[inline]
fn spread(x: __m256i) -> __m256i {
    // SAFETY: any bytes are a vector.
    static SPREAD: __m256i = unsafe {
        std::mem::transmute::<[[i8; 16]; 2], __m256i>([
            [0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1, 7, -1],
            [8, -1, 9, -1, 10, -1, 11, -1, 12, -1, 13, -1, 14, -1, 15, -1],
        ])
    };
    let y;
    // SAFETY: it reads the static alone, and the CPU has AVX2.
    unsafe {
        std::arch::asm!(
            "vpshufb {y}, {x}, ymmword ptr [rip + {spread}]",
            x = in(ymm_reg) x,
            y = lateout(ymm_reg) y,
            spread = sym SPREAD,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    y
}

/// The sum of the lanes: of halves, of halves of those, and so on.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn sum(a: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

impl Simd for Avx2 {
    type F = __m256;
    type I = __m256i;
    type Q = __m128;
    const ISA: Isa = Isa::Avx2;
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const PAIR_ROWS: usize = 5;

    super::ops! {
        splat(x: f32) -> __m256 = _mm256_set1_ps(x);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        sqrt(a: __m256) -> __m256 = _mm256_sqrt_ps(a);
        fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        round(a: __m256) -> __m256 =
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        if_less(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 =
            _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b));
        to_int(a: __m256) -> __m256i = _mm256_cvtps_epi32(a);
        to_float(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        bits(a: __m256) -> __m256i = _mm256_castps_si256(a);
        float_of(a: __m256i) -> __m256 = _mm256_castsi256_ps(a);
        splat_i(x: i32) -> __m256i = _mm256_set1_epi32(x);
        add_i(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        mul_i(a: __m256i, b: __m256i) -> __m256i = _mm256_mullo_epi32(a, b);
        and_i(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        xor_i(a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
        or_i(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        byte_up(a: __m256i) -> __m256i = _mm256_slli_epi32::<8>(a);
        shift_down(a: __m256i, n: i32) -> __m256i = _mm256_srlv_epi32(a, _mm256_set1_epi32(n));
        to_exponent(a: __m256i) -> __m256i = _mm256_slli_epi32::<23>(a);
        dot_pairs(acc: __m256i, a: __m256i, b: __m256i) -> __m256i =
            _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
        sum(a: __m256) -> f32 = sum(a);
        four_zeros() -> __m128 = _mm_setzero_ps();
    }
    #[inline(always)]
    fn look_up_16(self, table: &[f32; 16], i: __m256i) -> __m256 {
        // SAFETY: the type is the proof of AVX2, and the table has two vectors.
        unsafe {
            let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr()), i);
            let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr().add(8)), i);
            let is_high = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(i));
            _mm256_blendv_ps(low, high, is_high)
        }
    }

    super::memory! {
        load(p: *const f32) -> __m256 = _mm256_loadu_ps(p);
        store(p: *mut f32, a: __m256) = _mm256_storeu_ps(p, a);
        load_n(p: *const f32, n: usize) -> __m256 =
            _mm256_maskload_ps(p, _mm256_loadu_si256(mask(n).cast()));
        store_n(p: *mut f32, a: __m256, n: usize) =
            _mm256_maskstore_ps(p, _mm256_loadu_si256(mask(n).cast()), a);
        load_i(p: *const i32) -> __m256i = _mm256_loadu_si256(p.cast());
        store_i(p: *mut i32, a: __m256i) = _mm256_storeu_si256(p.cast(), a);
        load_u8(p: *const u8) -> __m256i = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
        load_i8(p: *const u8) -> __m256i = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()));
        store_bytes(p: *mut u8, a: __m256i) = {
            let first = _mm256_set1_epi32(0x0c08_0400);
            let y = _mm256_shuffle_epi8(a, first);
            let (x, y) = (_mm256_castsi256_si128(y), _mm256_extracti128_si256::<1>(y));
            _mm_storel_epi64(p.cast(), _mm_unpacklo_epi32(x, y));
        };
        load_u8_pairs(p: *const u8) -> __m256i = _mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast()));
        load_i8_pairs(p: *const i8) -> __m256i = _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast()));
        interleave_u8_twice(p: *const u8, q: *const u8) -> [__m256i; 2] = {
            let p = _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast()));
            let q = _mm256_broadcastsi128_si256(_mm_loadu_si128(q.cast()));
            [spread(_mm256_unpacklo_epi8(p, q)), spread(_mm256_unpackhi_epi8(p, q))]
        };
        interleave_u8(p: *const u8, q: *const u8) -> __m256i = {
            let p = _mm256_set1_epi64x(p.cast::<i64>().read_unaligned());
            let q = _mm256_set1_epi64x(q.cast::<i64>().read_unaligned());
            spread(_mm256_unpacklo_epi8(p, q))
        };
        four_fma(w: *const f32, x: f32, acc: __m128) -> __m128 =
            _mm_fmadd_ps(_mm_loadu_ps(w), _mm_set1_ps(x), acc);
        four_store(p: *mut f32, a: __m128) = _mm_storeu_ps(p, a);
        load_columns(from: *const f32, stride: usize) -> [__m256; 4] = {
            let mut rows = [_mm256_setzero_ps(); 4];
            for (i, rows) in rows.iter_mut().enumerate() {
                *rows = fours([from.add(i * stride), from.add((i + 4) * stride)]);
            }
            turned(rows)
        };
        join_four(p: [*const u8; 4]) -> __m256i = {
            let (a, b) = (_mm_loadl_epi64(p[0].cast()), _mm_loadl_epi64(p[1].cast()));
            let (c, d) = (_mm_loadl_epi64(p[2].cast()), _mm_loadl_epi64(p[3].cast()));
            let (ab, cd) = (_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d));
            _mm256_set_m128i(_mm_unpackhi_epi16(ab, cd), _mm_unpacklo_epi16(ab, cd))
        };
        join_sixteen(p: [*const u8; 4]) -> [__m256i; 4] = {
            let (a, b) = (_mm256_loadu_si256(p[0].cast()), _mm256_loadu_si256(p[1].cast()));
            let (c, d) = (_mm256_loadu_si256(p[2].cast()), _mm256_loadu_si256(p[3].cast()));
            let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
            [
                _mm256_unpacklo_epi16(ab, cd),
                _mm256_unpackhi_epi16(ab, cd),
                _mm256_unpacklo_epi16(ab_high, cd_high),
                _mm256_unpackhi_epi16(ab_high, cd_high),
            ]
        };
        turn_bytes(rows: &[*const u8], at: usize, to: *mut u8, flip: u8) = {
            let rows = &rows[..32];
            let flip = _mm256_set1_epi8(flip as i8);
            super::turn!(
                i => _mm256_castps_si256(fours([
                    rows[i].add(at).cast(),
                    rows[16 + i].add(at).cast(),
                ])),
                _mm256_unpacklo_epi8,
                _mm256_unpackhi_epi8,
                x => _mm256_storeu_si256(to.add(i * 32).cast(), _mm256_xor_si256(x, flip))
            );
        };
        store_rounded(to: [*mut u8; 2], x: [[__m256; 2]; 2], range: ByteRange) = {
            // Packing saturates below, which is the lower bound once `lo` stands at 0.
            let (shift, hi) = (range.zero - range.lo, range.hi - range.zero);
            let (shift, hi) = (_mm256_set1_epi16(shift as i16), _mm256_set1_ps(hi as f32));
            let [[a, b], [c, d]] = x;
            let (a, b) = (_mm256_min_ps(a, hi), _mm256_min_ps(b, hi));
            let (c, d) = (_mm256_min_ps(c, hi), _mm256_min_ps(d, hi));
            let ab = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
            let cd = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
            let ab = _mm256_adds_epi16(ab, shift);
            let y = _mm256_packus_epi16(ab, _mm256_adds_epi16(cd, shift));
            let y = _mm256_add_epi8(y, _mm256_set1_epi8(range.lo as i8));
            let y = _mm256_permutevar8x32_epi32(y, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm_storeu_si128(to[0].cast(), _mm256_castsi256_si128(y));
            _mm_storeu_si128(to[1].cast(), _mm256_extracti128_si256::<1>(y));
        };
    }
}

/// The sixteen bytes at each address, one behind the other.
///
/// # Safety
/// They are readable, and the CPU has AVX2.
#[inline(always)]
unsafe fn fours(p: [*const f32; 2]) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let x = _mm256_castps128_ps256(_mm_loadu_ps(p[0]));
        _mm256_insertf128_ps::<1>(x, _mm_loadu_ps(p[1]))
    }
}

/// In every four lanes, lane `i` of vector `j` as lane `j` of vector `i`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn turned([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let (ab, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        [
            _mm256_shuffle_ps::<0x44>(ab, cd),
            _mm256_shuffle_ps::<0xee>(ab, cd),
            _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
            _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
        ]
    }
}

/// Unsigned with signed bytes by way of 16 bits, where pairs of products saturate.
#[derive(Clone, Copy)]
pub(crate) struct Pairs256;

impl Dot<Avx2> for Pairs256 {
    const GROUP: usize = 4;
    const ROWS: usize = Avx2::PAIR_ROWS;
    #[inline(always)]
    fn dot(_: Avx2, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `Avx2` is the proof of the instructions.
        unsafe {
            let pairs = _mm256_maddubs_epi16(a, b);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    unsafe fn weights(s: Avx2, p: *const i8) -> __m256i {
        // SAFETY: the caller promises the bytes of eight lanes.
        unsafe { s.load_i(p.cast()) }
    }
}

/// The 256-bit dot product of unsigned with signed bytes, which does not saturate.
#[derive(Clone, Copy)]
pub(crate) struct Vnni256;

impl Dot<Avx2> for Vnni256 {
    const GROUP: usize = 4;
    #[inline(always)]
    fn dot(_: Avx2, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: kernels with this `Dot` are entered only where the CPU has AVX-VNNI.
        unsafe { _mm256_dpbusd_avx_epi32(acc, a, b) }
    }
    #[inline(always)]
    unsafe fn weights(s: Avx2, p: *const i8) -> __m256i {
        // SAFETY: the caller promises the bytes of eight lanes.
        unsafe { s.load_i(p.cast()) }
    }
}

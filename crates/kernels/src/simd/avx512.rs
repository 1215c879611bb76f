//! Sixteen lanes: x86-64 with AVX-512 F, BW, VL and DQ, and its dot product.

use std::arch::x86_64::*;

use super::{Body, Dot, Simd};

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
    const LANES: usize = 16;
    const ROWS: usize = 12;

    super::ops! {
        splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        round(a: __m512) -> __m512 = _mm512_roundscale_ps::<0>(a);
        if_less(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x);
        times_power(y: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(y, n);
        largest(a: __m512) -> f32 = _mm512_reduce_max_ps(a);
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
        to_exponent(a: __m512i) -> __m512i = _mm512_slli_epi32::<23>(a);
        dot_pairs(acc: __m512i, a: __m512i, b: __m512i) -> __m512i =
            _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
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

//! Four lanes: 64-bit Arm with NEON, and the dot products of bytes that came to it later.
//!
//! Those are written out: what the compiler calls them is not settled.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Body, Dot, Simd};
use crate::Isa;

/// Proof of NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

/// Runs `body` with NEON enabled.
///
/// # Safety
/// The CPU has NEON.
#[target_feature(enable = "neon")]
pub(crate) unsafe fn run<B: Body>(body: B) -> B::Out {
    body.run(Neon(()))
}

impl Neon {
    /// # Safety
    /// The CPU has NEON.
    #[inline(always)]
    pub(crate) unsafe fn prove() -> Self {
        Self(())
    }
}

/// Four bytes in the low lanes.
///
/// # Safety
/// Four bytes are readable at `p`, and the CPU has NEON.
#[inline(always)]
unsafe fn four(p: *const u8) -> uint8x8_t {
    // SAFETY: the caller promises both.
    unsafe { vreinterpret_u8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned())) }
}

impl Simd for Neon {
    type F = float32x4_t;
    type I = int32x4_t;
    type Q = float32x4_t;
    const ISA: Isa = Isa::Neon;
    const LANES: usize = 4;
    const ROWS: usize = 8;

    super::ops! {
        splat(x: f32) -> float32x4_t = vdupq_n_f32(x);
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        sqrt(a: float32x4_t) -> float32x4_t = vsqrtq_f32(a);
        fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcltq_f32(a, b), a, b);
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcgtq_f32(a, b), a, b);
        round(a: float32x4_t) -> float32x4_t = vrndnq_f32(a);
        if_less(a: float32x4_t, b: float32x4_t, x: float32x4_t, y: float32x4_t) -> float32x4_t =
            vbslq_f32(vcltq_f32(a, b), x, y);
        to_int(a: float32x4_t) -> int32x4_t = vcvtnq_s32_f32(a);
        to_float(a: int32x4_t) -> float32x4_t = vcvtq_f32_s32(a);
        bits(a: float32x4_t) -> int32x4_t = vreinterpretq_s32_f32(a);
        float_of(a: int32x4_t) -> float32x4_t = vreinterpretq_f32_s32(a);
        splat_i(x: i32) -> int32x4_t = vdupq_n_s32(x);
        add_i(a: int32x4_t, b: int32x4_t) -> int32x4_t = vaddq_s32(a, b);
        mul_i(a: int32x4_t, b: int32x4_t) -> int32x4_t = vmulq_s32(a, b);
        and_i(a: int32x4_t, b: int32x4_t) -> int32x4_t = vandq_s32(a, b);
        xor_i(a: int32x4_t, b: int32x4_t) -> int32x4_t = veorq_s32(a, b);
        or_i(a: int32x4_t, b: int32x4_t) -> int32x4_t = vorrq_s32(a, b);
        byte_up(a: int32x4_t) -> int32x4_t = vshlq_n_s32::<8>(a);
        shift_down(a: int32x4_t, n: i32) -> int32x4_t = vreinterpretq_s32_u32(
            vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-n)));
        to_exponent(a: int32x4_t) -> int32x4_t = vshlq_n_s32::<23>(a);
        dot_pairs(acc: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t = {
            let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(a, b)))
        };
        four_zeros() -> float32x4_t = vdupq_n_f32(0.0);
    }
    #[inline(always)]
    fn look_up_16(self, table: &[f32; 16], i: int32x4_t) -> float32x4_t {
        // SAFETY: the type is the proof of NEON, and the table has sixty-four bytes.
        unsafe {
            // The places of the four bytes of each number.
            let i = vandq_s32(i, vdupq_n_s32(15));
            let at = vmlaq_n_s32(vdupq_n_s32(0x0302_0100), i, 0x0404_0404);
            let table = vld1q_u8_x4(table.as_ptr().cast());
            vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_s32(at)))
        }
    }

    super::memory! {
        load(p: *const f32) -> float32x4_t = vld1q_f32(p);
        store(p: *mut f32, a: float32x4_t) = vst1q_f32(p, a);
        load_i(p: *const i32) -> int32x4_t = vld1q_s32(p);
        store_i(p: *mut i32, a: int32x4_t) = vst1q_s32(p, a);
        load_u8(p: *const u8) -> int32x4_t =
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(four(p)))));
        load_i8(p: *const u8) -> int32x4_t =
            vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(four(p)))));
        store_bytes(p: *mut u8, a: int32x4_t) = {
            let words = vmovn_s32(a);
            let bytes = vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words)));
            p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(bytes));
        };
        load_u8_pairs(p: *const u8) -> int32x4_t = vreinterpretq_s32_u16(vmovl_u8(vld1_u8(p)));
        load_i8_pairs(p: *const i8) -> int32x4_t = vreinterpretq_s32_s16(vmovl_s8(vld1_s8(p)));
        interleave_u8(p: *const u8, q: *const u8) -> int32x4_t =
            vreinterpretq_s32_u16(vmovl_u8(vzip1_u8(four(p), four(q))));
        four_fma(w: *const f32, x: f32, acc: float32x4_t) -> float32x4_t =
            vfmaq_n_f32(acc, vld1q_f32(w), x);
        four_store(p: *mut f32, a: float32x4_t) = vst1q_f32(p, a);
        load_columns(from: *const f32, stride: usize) -> [float32x4_t; 4] = turned([
            vld1q_f32(from),
            vld1q_f32(from.add(stride)),
            vld1q_f32(from.add(2 * stride)),
            vld1q_f32(from.add(3 * stride)),
        ]);
        join_four(p: [*const u8; 4]) -> int32x4_t = {
            let (ab, cd) = (vzip1_u8(four(p[0]), four(p[1])), vzip1_u8(four(p[2]), four(p[3])));
            let (ab, cd) = (vreinterpret_u16_u8(ab), vreinterpret_u16_u8(cd));
            vreinterpretq_s32_u16(vcombine_u16(vzip1_u16(ab, cd), vzip2_u16(ab, cd)))
        };
        join_sixteen(p: [*const u8; 4]) -> [int32x4_t; 4] = {
            let (a, b) = (vld1q_u8(p[0]), vld1q_u8(p[1]));
            let (c, d) = (vld1q_u8(p[2]), vld1q_u8(p[3]));
            let ab = vreinterpretq_u16_u8(vzip1q_u8(a, b));
            let ab_high = vreinterpretq_u16_u8(vzip2q_u8(a, b));
            let cd = vreinterpretq_u16_u8(vzip1q_u8(c, d));
            let cd_high = vreinterpretq_u16_u8(vzip2q_u8(c, d));
            [
                vreinterpretq_s32_u16(vzip1q_u16(ab, cd)),
                vreinterpretq_s32_u16(vzip2q_u16(ab, cd)),
                vreinterpretq_s32_u16(vzip1q_u16(ab_high, cd_high)),
                vreinterpretq_s32_u16(vzip2q_u16(ab_high, cd_high)),
            ]
        };
        turn_bytes(rows: &[*const u8], at: usize, to: *mut u8, flip: u8) = {
            let rows = &rows[..16];
            let flip = vdupq_n_u8(flip);
            super::turn!(
                i => vld1q_u8(rows[i].add(at)),
                vzip1q_u8,
                vzip2q_u8,
                x => vst1q_u8(to.add(i * 16), veorq_u8(x, flip))
            );
        };
    }
}

/// Lane `i` of vector `j` as lane `j` of vector `i`.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn turned([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let even = vreinterpretq_f64_f32(vtrn1q_f32(a, b));
        let odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
        let even_cd = vreinterpretq_f64_f32(vtrn1q_f32(c, d));
        let odd_cd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
        [
            vreinterpretq_f32_f64(vtrn1q_f64(even, even_cd)),
            vreinterpretq_f32_f64(vtrn1q_f64(odd, odd_cd)),
            vreinterpretq_f32_f64(vtrn2q_f64(even, even_cd)),
            vreinterpretq_f32_f64(vtrn2q_f64(odd, odd_cd)),
        ]
    }
}

/// Defines the dot product that is one instruction.
macro_rules! dot {
    ($(#[$doc:meta])* $name:ident = $instruction:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Dot<Neon> for $name {
            const GROUP: usize = 4;
            #[inline(always)]
            fn dot(_: Neon, acc: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                let mut sum = acc;
                // SAFETY: it touches registers alone, and kernels with this `Dot` are entered
                // only where the CPU has the instruction.
                unsafe {
                    asm!(
                        concat!($instruction, " {sum:v}.4s, {a:v}.16b, {b:v}.16b"),
                        sum = inout(vreg) sum,
                        a = in(vreg) a,
                        b = in(vreg) b,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
                sum
            }
            #[inline(always)]
            unsafe fn weights(s: Neon, p: *const i8) -> int32x4_t {
                // SAFETY: the caller promises the bytes of four lanes.
                unsafe { s.load_i(p.cast()) }
            }
        }
    };
}

dot! {
    /// The dot product of signed bytes.
    SignedDot = "sdot"
}
dot! {
    /// The dot product of unsigned with signed bytes.
    MixedDot = "usdot"
}

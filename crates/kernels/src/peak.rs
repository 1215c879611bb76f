//! What this machine can do at most: arithmetic that stays in registers, and reading memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
use crate::simd::amx::{Bf16, U8I8};
use crate::simd::{Body, Dot, Simd, Widen};
use crate::{Ctx, Isa};

/// Rates of one thread.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Multiply-accumulates of f32 in a second.
    pub f32_macs: f64,
    /// Multiply-accumulates of bytes in a second.
    pub int8_macs: f64,
    /// Multiply-accumulates of BF16 in a second, where there are kernels for it.
    pub bf16_macs: Option<f64>,
    /// Bytes read from memory in a second.
    pub bytes: f64,
}

/// Sums that are under way at the same time: enough to hide the latency of a multiplier.
const CHAINS: usize = 10;

/// Rounds of one call.
const ROUNDS: usize = 2000;

/// Larger than any cache that one thread has to itself.
const BYTES: usize = 64 << 20;

impl Peak {
    /// Measures for a tenth of a second or so.
    pub fn measure(ctx: &Ctx) -> Self {
        let (isa, lanes) = (ctx.isa(), lanes(ctx.isa()));
        let calls = (CHAINS * ROUNDS) as f64;
        let f32_macs = calls * lanes as f64 / best(|| crate::simd::dispatch(isa, Floats));
        let tiles = tiles(isa);
        let group = crate::gemm::int8::group(isa);
        let vectors = || calls * (lanes * group) as f64 / best(|| integers(isa));
        let int8_macs = tiles.map_or_else(vectors, |[int8, _]| int8);
        let bf16_macs = tiles.map(|[_, bf16]| bf16);
        let data = vec![1u64; BYTES / 8];
        let sum = || {
            black_box(
                data.chunks(4096)
                    .map(|c| c.iter().fold(0, |a, b| a ^ b))
                    .sum::<u64>(),
            );
        };
        Self {
            f32_macs,
            int8_macs,
            bf16_macs,
            bytes: BYTES as f64 / best(sum),
        }
    }
}

/// The shortest of many calls, in seconds.
fn best(mut work: impl FnMut()) -> f64 {
    let (mut best, begin) = (f64::INFINITY, Instant::now());
    while begin.elapsed() < Duration::from_millis(40) {
        let started = Instant::now();
        work();
        best = best.min(started.elapsed().as_secs_f64());
    }
    best
}

/// Multiply-accumulates in a second by tiles, of bytes and of BF16, where `isa` has tiles.
fn tiles(isa: Isa) -> Option<[f64; 2]> {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Amx {
        let products = (4 * ROUNDS * 16 * 16 * 16) as f64;
        // SAFETY: a `Ctx` holds only sets that this CPU has.
        let int8 = best(|| unsafe { x86::amx::<U8I8>() });
        // SAFETY: as above.
        let bf16 = best(|| unsafe { x86::amx::<Bf16>() });
        return Some([products * 4.0 / int8, products * 2.0 / bf16]);
    }
    let _ = isa;
    None
}

struct Lanes;

impl Body for Lanes {
    type Out = usize;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

fn lanes(isa: Isa) -> usize {
    crate::simd::dispatch(isa, Lanes)
}

struct Floats;

impl Body for Floats {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(0.25)));
        let mut sums = [s.splat(0.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = s.fma(a, b, *sum);
            }
        }
        for sum in sums {
            black_box(s.lanes(sum));
        }
    }
}

struct Integers;

impl Body for Integers {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        products::<S, Widen>(s);
    }
}

#[inline(always)]
fn products<S: Simd, D: Dot<S>>(s: S) {
    let b = s.splat_i(black_box(0x0003_0001));
    let mut sums = [s.splat_i(0); CHAINS];
    for _ in 0..ROUNDS {
        // Products of what does not change would be taken out of the loop.
        let a = s.splat_i(black_box(0x0001_0002));
        for sum in &mut sums {
            *sum = D::dot(s, *sum, a, b);
        }
    }
    for sum in sums {
        black_box(s.lanes_i(sum));
    }
}

fn integers(isa: Isa) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Ctx` holds only sets that this CPU has.
        Isa::Avx2 => unsafe { x86::avx2() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { x86::avx_vnni() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512Vnni => unsafe { x86::avx512_vnni() },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonDot => unsafe { arm::dot() },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonI8mm => unsafe { arm::i8mm() },
        _ => crate::simd::dispatch(isa, Integers),
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{ROUNDS, products};
    use crate::simd::amx::{self, Product};
    use crate::simd::avx2::{Avx2, Pairs256, Vnni256};
    use crate::simd::avx512::{Avx512, Vnni512};

    /// Products of tiles, four under way at a time.
    ///
    /// # Safety
    /// The CPU has AMX.
    pub(super) unsafe fn amx<P: Product>() {
        // SAFETY: the caller's promise.
        unsafe {
            amx::configure(amx::ROWS);
            amx::zero::<4>();
            amx::zero::<6>();
            for _ in 0..ROUNDS {
                P::add::<0, 4, 6>();
                P::add::<1, 4, 6>();
                P::add::<2, 4, 6>();
                P::add::<3, 4, 6>();
            }
            amx::release();
        }
    }

    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn avx2() {
        // SAFETY: the caller's promise.
        products::<Avx2, Pairs256>(unsafe { Avx2::prove() });
    }

    /// # Safety
    /// The CPU has AVX2, FMA, F16C and AVX-VNNI.
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(super) unsafe fn avx_vnni() {
        // SAFETY: the caller's promise.
        products::<Avx2, Vnni256>(unsafe { Avx2::prove() });
    }

    /// # Safety
    /// The CPU has AVX-512 F, BW, VL, DQ and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn avx512_vnni() {
        // SAFETY: the caller's promise.
        products::<Avx512, Vnni512>(unsafe { Avx512::prove() });
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::products;
    use crate::simd::neon::{MixedDot, Neon, SignedDot};

    /// # Safety
    /// The CPU has NEON and its dot product.
    #[target_feature(enable = "neon,dotprod")]
    pub(super) unsafe fn dot() {
        // SAFETY: the caller's promise.
        products::<Neon, SignedDot>(unsafe { Neon::prove() });
    }

    /// # Safety
    /// The CPU has NEON with I8MM.
    #[target_feature(enable = "neon,i8mm")]
    pub(super) unsafe fn i8mm() {
        // SAFETY: the caller's promise.
        products::<Neon, MixedDot>(unsafe { Neon::prove() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_is_a_positive_number() {
        for ctx in crate::testing::contexts() {
            let peak = Peak::measure(&ctx);
            for rate in [peak.f32_macs, peak.int8_macs, peak.bytes] {
                assert!(rate.is_finite() && rate > 0.0, "{peak:?}");
            }
        }
    }
}

//! Sums of lines on CPUs that multiply bytes in fours: a lane has four rows of a column.

use super::{Lines, Way, columns};
use crate::Isa;
use crate::gemm::int8::FLIP;
use crate::simd::{Dot, Simd};

/// Computes output pixels where the CPU has `isa`, and `isa` takes bytes in fours; else false.
pub(super) fn run<const K: usize, const STEP: usize, const SHIFTED: bool>(
    isa: Isa,
    lines: Lines<K, STEP, SHIFTED>,
) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: weights are packed only for sets that this CPU has.
        Isa::AvxVnni => unsafe { x86::avx_vnni(lines) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512Vnni | Isa::Amx => unsafe { x86::avx512_vnni(lines) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonDot => unsafe { arm::dot(lines) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonI8mm => unsafe { arm::i8mm(lines) },
        _ => return false,
    }
    true
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{InFours, Lines};
    use crate::simd::avx2::{Avx2, Vnni256};
    use crate::simd::avx512::{Avx512, Vnni512};

    /// # Safety
    /// The CPU has AVX2, FMA, F16C and AVX-VNNI.
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(super) unsafe fn avx_vnni<const K: usize, const STEP: usize, const SHIFTED: bool>(
        lines: Lines<K, STEP, SHIFTED>,
    ) {
        // SAFETY: the caller's promise.
        lines.walk::<Avx2, InFours<Vnni256>>(unsafe { Avx2::prove() });
    }

    /// # Safety
    /// The CPU has AVX-512 F, BW, VL, DQ and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn avx512_vnni<const K: usize, const STEP: usize, const SHIFTED: bool>(
        lines: Lines<K, STEP, SHIFTED>,
    ) {
        // SAFETY: the caller's promise.
        lines.walk::<Avx512, InFours<Vnni512>>(unsafe { Avx512::prove() });
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{InFours, Lines};
    use crate::simd::neon::{MixedDot, Neon, SignedDot};

    /// # Safety
    /// The CPU has NEON and its dot product.
    #[target_feature(enable = "neon,dotprod")]
    pub(super) unsafe fn dot<const K: usize, const STEP: usize, const SHIFTED: bool>(
        lines: Lines<K, STEP, SHIFTED>,
    ) {
        // SAFETY: the caller's promise.
        lines.walk::<Neon, InFours<SignedDot>>(unsafe { Neon::prove() });
    }

    /// # Safety
    /// The CPU has NEON with I8MM.
    #[target_feature(enable = "neon,i8mm")]
    pub(super) unsafe fn i8mm<const K: usize, const STEP: usize, const SHIFTED: bool>(
        lines: Lines<K, STEP, SHIFTED>,
    ) {
        // SAFETY: the caller's promise.
        lines.walk::<Neon, InFours<MixedDot>>(unsafe { Neon::prove() });
    }
}

/// Kernel elements below each other in fours, which `D` multiplies.
struct InFours<D>(std::marker::PhantomData<D>);

impl<S: Simd, D: Dot<S>, const K: usize, const STEP: usize, const SHIFTED: bool>
    Way<S, K, STEP, SHIFTED> for InFours<D>
{
    #[inline(always)]
    unsafe fn sums<const T: usize, const V: usize>(
        lines: &Lines<K, STEP, SHIFTED>,
        s: S,
        at: usize,
        c: usize,
    ) -> [[S::I; V]; T] {
        let rows = lines.work.geometry.kernel[0];
        // SAFETY: the caller's promise; starts are padded by a vector.
        unsafe {
            let starts: [S::I; V] = s.load_all_i(lines.work.starts.as_ptr().add(c));
            let mut sums = [starts; T];
            for group in 0..rows.div_ceil(4) {
                if 4 * group + 3 < rows {
                    add::<S, D, K, STEP, SHIFTED, T, V, true>(lines, s, (group, at, c), &mut sums);
                } else {
                    add::<S, D, K, STEP, SHIFTED, T, V, false>(lines, s, (group, at, c), &mut sums);
                }
            }
            sums
        }
    }
}

/// Adds the products of a group of kernel rows, all four or at most three.
///
/// # Safety
/// As for [`Way::sums`].
#[inline(always)]
unsafe fn add<
    S: Simd,
    D: Dot<S>,
    const K: usize,
    const STEP: usize,
    const SHIFTED: bool,
    const T: usize,
    const V: usize,
    const FOUR: bool,
>(
    lines: &Lines<K, STEP, SHIFTED>,
    s: S,
    (group, at, c): (usize, usize, usize),
    sums: &mut [[S::I; V]; T],
) {
    let (rows, channels) = (lines.work.geometry.kernel[0], lines.channels);
    let (end, fours) = ((T - 1) * STEP + K, lines.work.fours.unwrap_or_default());
    // SAFETY: the caller's promise; there are weights for each four of kernel elements, padded by
    // a vector.
    unsafe {
        let mut w = [[s.splat_i(0); V]; K];
        for (column, to) in w.iter_mut().enumerate() {
            let at = (group * K + column) * channels + c;
            *to = s.load_all_i(fours.as_ptr().add(at));
        }
        let table = lines.table.as_ptr().add(at * STEP);
        // Rows that the kernel does not have meet weights of 0.
        let row = |r: usize| table.add((4 * group + r).min(rows - 1) * lines.columns);
        let upper = [row(0), row(1), row(2), row(3)];
        macro_rules! column {
            ($j:literal) => {{
                const J: usize = $j;
                if J < end {
                    for v in 0..V {
                        let c = c + v * S::LANES;
                        let [p, q, r, u] = upper;
                        let (p, r) = (p.add(J).read(), r.add(J).read());
                        let q = q.add(J).read();
                        let odd = match FOUR {
                            true => s.interleave_u8(q.add(c), u.add(J).read().add(c)),
                            false => s.load_u8(q.add(c)),
                        };
                        let even = s.interleave_u8(p.add(c), r.add(c));
                        let mut x = s.or_i(even, s.byte_up(odd));
                        if SHIFTED {
                            x = s.xor_i(x, s.splat_i(FLIP));
                        }
                        for t in 0..T {
                            if t * STEP <= J && J < t * STEP + K {
                                sums[t][v] = D::dot(s, sums[t][v], x, w[J - t * STEP][v]);
                            }
                        }
                    }
                }
            }};
        }
        columns!(column);
    }
}

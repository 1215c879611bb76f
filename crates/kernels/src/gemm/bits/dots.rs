//! Codes as unsigned bytes, multiplied with rows of A that are rounded to signed bytes by block.

use std::marker::PhantomData;
use std::ops::Range;

use super::floats::Scales;
use super::pack::PackedBits;
use super::tile::{Ends, Shape, columns, each_tile};
use crate::Isa;
use crate::simd::{Body, Dot, Simd};

/// Rows of A as signed bytes.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    /// Rows of [`PackedBits::row`] bytes.
    pub bytes: &'a [u8],
    /// Of each block of each row: what a byte stands for, and the sum of the bytes.
    pub scales: &'a [[f32; 2]],
    /// What sums of products begin with: less the sum of the bytes times the zero point that all
    /// weights have.
    pub starts: &'a [i32],
}

/// Rounds a row of A: each block over its largest magnitude, which becomes 127, as ONNX Runtime
/// does at `accuracy_level` 4.
pub(super) struct Round<'a> {
    pub b: &'a PackedBits,
    pub a: &'a [f32],
    pub bytes: &'a mut [u8],
    pub scales: &'a mut [[f32; 2]],
    pub starts: &'a mut [i32],
}

impl Body for Round<'_> {
    /// Whether all numbers are finite.
    type Out = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let mut is_finite = true;
        let (mut at, group) = (0, self.b.group());
        for block in 0..self.b.blocks {
            let (start, len) = self.b.extent(block);
            let room = self.b.groups_of(block) * group;
            let to = &mut self.bytes[at..][..room];
            let (scale, sum, finite) = round_block(s, &self.a[start..][..len], to);
            is_finite &= finite;
            self.scales[block] = [scale, sum as f32];
            self.starts[block] = (-self.b.middle).wrapping_mul(sum);
            at += room;
        }
        is_finite
    }
}

/// Rounds a block: what a byte stands for, the sum of the bytes, and whether all is finite.
#[inline(always)]
fn round_block<S: Simd>(s: S, a: &[f32], to: &mut [u8]) -> (f32, i32, bool) {
    let magnitude = s.splat_i(i32::MAX);
    let (mut most, mut poison) = (s.splat(0.0), s.splat(0.0));
    let whole = a.len() / S::LANES * S::LANES;
    let rest = a.len() - whole;
    // SAFETY: whole vectors and the rest lie in `a`.
    unsafe {
        let mut at = 0;
        while at < a.len() {
            let x = s.load_up_to(a.as_ptr().add(at), (a.len() - at).min(S::LANES));
            most = s.max(most, s.float_of(s.and_i(s.bits(x), magnitude)));
            poison = s.fma(x, s.splat(0.0), poison);
            at += S::LANES;
        }
    }
    let most = s.largest(most);
    let inverse = 127.0 / most;
    let (scale, inverse) = if inverse.is_finite() {
        (most / 127.0, inverse)
    } else {
        (0.0, 0.0)
    };
    let (mut sum, inverse) = (s.splat_i(0), s.splat(inverse));
    // SAFETY: as above; `to` has room for whole groups of codes, which begin with the block.
    unsafe {
        let mut at = 0;
        while at < whole {
            let q = s.to_int(s.mul(s.load(a.as_ptr().add(at)), inverse));
            sum = s.add_i(sum, q);
            s.store_bytes(to.as_mut_ptr().add(at), q);
            at += S::LANES;
        }
        if rest > 0 {
            let q = s.to_int(s.mul(s.load_n(a.as_ptr().add(whole), rest), inverse));
            sum = s.add_i(sum, q);
            s.store_bytes_n(to.as_mut_ptr().add(whole), q, rest);
        }
    }
    to[a.len()..].fill(0);
    let mut of_all = 0i32;
    for lane in s.lanes_i(sum) {
        // Only where a number is not finite is a sum too large; nothing reads it then.
        of_all = of_all.wrapping_add(lane);
    }
    (scale, of_all, s.sum(poison) == 0.0)
}

/// A part of a product that one thread computes.
pub(super) struct Dots<'a> {
    pub left: Left<'a>,
    pub panels: Range<usize>,
    pub to: Ends<'a>,
}

impl Dots<'_> {
    /// Computes it with the kernel that the matrix is packed for.
    pub(super) fn compute(&self) {
        match self.to.b.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a matrix is packed only for sets that this CPU has.
            Isa::Avx2 => unsafe { x86::avx2(self) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::AvxVnni => unsafe { x86::avx_vnni(self) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512Vnni | Isa::Amx => unsafe { x86::avx512_vnni(self) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::NeonDot => unsafe { arm::dot(self) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::NeonI8mm => unsafe { arm::i8mm(self) },
            _ => unreachable!("only these multiply bytes in fours"),
        }
    }

    #[inline(always)]
    fn run<S: Simd, D: Dot<S>>(&self, s: S) {
        let panels = self.panels.clone();
        match self.to.b.bits {
            2 => each_tile(
                s,
                &self.to,
                panels,
                &Bytes::<D, 2>(self.left, self.to.b, PhantomData),
            ),
            4 => each_tile(
                s,
                &self.to,
                panels,
                &Bytes::<D, 4>(self.left, self.to.b, PhantomData),
            ),
            _ => each_tile(
                s,
                &self.to,
                panels,
                &Bytes::<D, 8>(self.left, self.to.b, PhantomData),
            ),
        }
    }
}

struct Bytes<'a, D, const BITS: usize>(Left<'a>, &'a PackedBits, PhantomData<D>);

impl<S: Simd, D: Dot<S>, const BITS: usize> Shape<S> for Bytes<'_, D, BITS> {
    #[inline(always)]
    unsafe fn tile<const M: usize, const V: usize>(
        &self,
        s: S,
        rows: [usize; M],
        panel: usize,
    ) -> [[S::F; V]; M] {
        let Self(left, b, _) = self;
        let codes = columns::<u32, V>(b.codes.typed(), panel, b.groups(), S::LANES);
        let scales = Scales::new::<S>(b, panel);
        let mut a = [left.bytes.as_ptr(); M];
        let (mut starts, mut of_rows) = ([left.starts.as_ptr(); M], [left.scales.as_ptr(); M]);
        for i in 0..M {
            a[i] = a[i].wrapping_add(rows[i] * b.row());
            starts[i] = starts[i].wrapping_add(rows[i] * b.blocks);
            of_rows[i] = of_rows[i].wrapping_add(rows[i] * b.blocks);
        }
        let mut totals = [[s.splat(0.0); V]; M];
        let mut at = 0;
        for block in 0..b.blocks {
            let groups = at..at + b.groups_of(block);
            at = groups.end;
            // SAFETY: the groups of a panel are there, and as many bytes of each row; each block
            // of a panel has a vector of scales and one of zero points, and each row its numbers.
            unsafe {
                let mut first = [0; M];
                for i in 0..M {
                    first[i] = *starts[i].add(block);
                }
                let sums = Self::sums(s, first, a, codes, groups);
                for v in 0..V {
                    let of_block = scales.of(s, block, v);
                    for i in 0..M {
                        let [scale, sum] = *of_rows[i].add(block);
                        let mut x = s.to_float(sums[i][v]);
                        if let Some(zero) = of_block.zero {
                            x = s.fma(zero, s.splat(-sum), x);
                        }
                        let scale = s.mul(of_block.scale, s.splat(scale));
                        totals[i][v] = s.fma(x, scale, totals[i][v]);
                    }
                }
            }
        }
        totals
    }
}

impl<D, const BITS: usize> Bytes<'_, D, BITS> {
    /// `first` and the sums of `M` rows at `a` with the groups `groups` of columns at `codes`.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn sums<S: Simd, const M: usize, const V: usize>(
        s: S,
        first: [i32; M],
        a: [*const u8; M],
        codes: [*const u32; V],
        groups: Range<usize>,
    ) -> [[S::I; V]; M]
    where
        D: Dot<S>,
    {
        let mask = s.splat_i(0x0101_0101 * ((1 << (BITS % 8)) - 1));
        let mut sums = [[s.splat_i(0); V]; M];
        for i in 0..M {
            for v in 0..V {
                sums[i][v] = s.splat_i(first[i]);
            }
        }
        for at in groups {
            // SAFETY: the caller's promise.
            unsafe {
                let mut words = [s.splat_i(0); V];
                for v in 0..V {
                    words[v] = s.load_i(codes[v].add(at * 2 * S::LANES).cast());
                }
                for part in 0..8 / BITS {
                    let mut x = words;
                    for v in 0..V {
                        if BITS < 8 {
                            x[v] = s.and_i(words[v], mask);
                            words[v] = s.shift_down(words[v], BITS as i32);
                        }
                    }
                    for i in 0..M {
                        let a = a[i].add(at * (32 / BITS) + 4 * part).cast::<i32>();
                        let a = s.splat_i(a.read_unaligned());
                        for v in 0..V {
                            sums[i][v] = D::dot(s, sums[i][v], x[v], a);
                        }
                    }
                }
            }
        }
        sums
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Dots;
    use crate::simd::avx2::{Avx2, Pairs256, Vnni256};
    use crate::simd::avx512::{Avx512, Vnni512};

    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn avx2(this: &Dots) {
        // SAFETY: the caller's promise.
        this.run::<Avx2, Pairs256>(unsafe { Avx2::prove() });
    }

    /// # Safety
    /// The CPU has AVX2, FMA, F16C and AVX-VNNI.
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(super) unsafe fn avx_vnni(this: &Dots) {
        // SAFETY: the caller's promise.
        this.run::<Avx2, Vnni256>(unsafe { Avx2::prove() });
    }

    /// # Safety
    /// The CPU has AVX-512 F, BW, VL, DQ and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn avx512_vnni(this: &Dots) {
        // SAFETY: the caller's promise.
        this.run::<Avx512, Vnni512>(unsafe { Avx512::prove() });
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Dots;
    use crate::simd::neon::{MixedDot, Neon, SignedDot};

    /// # Safety
    /// The CPU has NEON and its dot product.
    #[target_feature(enable = "neon,dotprod")]
    pub(super) unsafe fn dot(this: &Dots) {
        // SAFETY: the caller's promise.
        this.run::<Neon, SignedDot>(unsafe { Neon::prove() });
    }

    /// # Safety
    /// The CPU has NEON with I8MM.
    #[target_feature(enable = "neon,i8mm")]
    pub(super) unsafe fn i8mm(this: &Dots) {
        // SAFETY: the caller's promise.
        this.run::<Neon, MixedDot>(unsafe { Neon::prove() });
    }
}

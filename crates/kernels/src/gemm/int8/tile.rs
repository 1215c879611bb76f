//! The tiles of a byte product, for every instruction set.

use std::ops::Range;

use super::output::{Store8, Target8};
use super::{GROUP_BYTES, PackedI8, Spill};
use crate::Isa;
use crate::gemm::left::{Even, Left, Pixels, Rows, Steps, Windows};
use crate::simd::scalar::Scalar;
use crate::simd::{Ahead, Dot, Simd, Widen};

impl Target8<'_> {
    /// Multiplies `rows` (of the output; `a` is the first of them, laid out for the kernel, and
    /// the distance of rows in bytes) with `panels` of B, and stores at column `offset` and on.
    ///
    /// # Safety
    /// `rows` rows of `b.row_bytes()` are readable at `a`. Rows and columns lie in what `new`
    /// checked, and no other thread writes them.
    #[allow(clippy::too_many_arguments, reason = "the operands of a product")]
    pub(crate) unsafe fn multiply(
        &self,
        rows: Range<usize>,
        (a, a_stride): (*const u8, usize),
        b: &PackedI8,
        start: &[i32],
        row_sums: &[i32],
        panels: Range<usize>,
        offset: usize,
    ) {
        if rows.is_empty() || panels.is_empty() {
            return;
        }
        let steps = Steps {
            lines: 1,
            run: b.row_bytes(),
            stride: 0,
        };
        let left = Even { a, a_stride };
        let block = self.block(rows, (left, steps), b, start, row_sums, (panels, offset));
        #[cfg(target_arch = "x86_64")]
        if b.isa == Isa::Amx {
            // SAFETY: a matrix is packed only for sets that this CPU has.
            return unsafe { x86::amx(&block) };
        }
        dispatch(&block);
    }

    /// As [`Target8::multiply`], where each row of A is a few lines of neighbours, and rows may
    /// overlap: a row has `steps.lines` runs, `steps.stride` apart, from its window in `a` on.
    ///
    /// # Safety
    /// As for [`Target8::multiply`].
    pub(crate) unsafe fn multiply_windows(
        &self,
        rows: Range<usize>,
        (a, steps): (Pixels, Steps),
        b: &PackedI8,
        start: &[i32],
        panels: Range<usize>,
        offset: usize,
    ) {
        assert_eq!(
            (steps.lines * steps.run, steps.run % GROUP_BYTES),
            (b.row_bytes(), 0),
            "rows of windows"
        );
        if rows.is_empty() || panels.is_empty() {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if b.isa == Isa::Amx {
            let block = self.block(rows, (a, steps), b, start, &[], (panels, offset));
            // SAFETY: a matrix is packed only for sets that this CPU has.
            return unsafe { x86::amx(&block) };
        }
        let windows = a.windows(rows.len());
        let left = Windows { rows: &windows };
        let block = self.block(rows, (left, steps), b, start, &[], (panels, offset));
        dispatch(&block);
    }

    fn block<'b, L>(
        &self,
        rows: Range<usize>,
        (left, steps): (L, Steps),
        b: &'b PackedI8,
        start: &'b [i32],
        row_sums: &'b [i32],
        (panels, offset): (Range<usize>, usize),
    ) -> Block<'b, L> {
        let to = Ends {
            store: self.store(rows.start * self.stride + offset, offset),
            rows: rows.len(),
            b,
            start,
            row_sums,
            panels,
            c_stride: self.stride,
        };
        Block { left, steps, to }
    }
}

/// Runs `block` with the kernel that its matrix is packed for, which is not one of tiles.
fn dispatch<L: Left<u8>>(block: &Block<L>) {
    let isa = block.to.b.isa;
    if block.to.b.group == <Widen as Dot<Scalar>>::GROUP {
        return crate::simd::dispatch(isa, Widened(block));
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a matrix is packed only for sets that this CPU has.
        Isa::Avx2 => unsafe { x86::avx2(block) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { x86::avx_vnni(block) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512Vnni => unsafe { x86::avx512_vnni(block) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonDot => unsafe { arm::dot(block) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonI8mm => unsafe { arm::i8mm(block) },
        _ => unreachable!("only these are packed in fours"),
    }
}

struct Widened<'a, 'b, L>(&'a Block<'b, L>);

impl<L: Left<u8>> crate::simd::Body for Widened<'_, '_, L> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.run::<S, Widen>(s);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Block, Ends, Left};
    use crate::gemm::amx::{Right, Runs, Sums, multiply};
    use crate::simd::Simd;
    use crate::simd::amx::U8I8;
    use crate::simd::avx2::{Avx2, Pairs256, Vnni256};
    use crate::simd::avx512::{Avx512, Vnni512};

    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn avx2<L: Left<u8>>(block: &Block<L>) {
        // SAFETY: the caller's promise.
        block.run::<Avx2, Pairs256>(unsafe { Avx2::prove() });
    }

    /// # Safety
    /// The CPU has AVX2, FMA, F16C and AVX-VNNI.
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(super) unsafe fn avx_vnni<L: Left<u8>>(block: &Block<L>) {
        // SAFETY: the caller's promise.
        block.run::<Avx2, Vnni256>(unsafe { Avx2::prove() });
    }

    /// # Safety
    /// The CPU has AVX-512 F, BW, VL, DQ and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn avx512_vnni<L: Left<u8>>(block: &Block<L>) {
        // SAFETY: the caller's promise.
        block.run::<Avx512, Vnni512>(unsafe { Avx512::prove() });
    }

    /// # Safety
    /// The CPU has AMX and what comes with it.
    pub(super) unsafe fn amx<L: Runs>(block: &Block<L>) {
        let to = &block.to;
        let right = Right {
            panels: to.b.panels,
            data: to.b.data.bytes(),
            bytes: to.b.row_bytes(),
        };
        let left = (to.rows, block.left, block.steps);
        // SAFETY: the caller's promise; `Target8::multiply` promises the memory.
        unsafe { multiply::<U8I8, L>(left, right, to.panels.clone(), to) };
    }

    impl Sums for Ends<'_> {
        #[inline(always)]
        unsafe fn put<const M: usize, const V: usize>(
            &self,
            s: Avx512,
            sums: *const i32,
            row: usize,
            first: usize,
            columns: usize,
        ) {
            // SAFETY: the caller's promise; `start` covers whole panels.
            unsafe {
                let start: [_; V] = s.load_all_i(self.start.as_ptr().add(first));
                let mut all = [start; M];
                for (i, all) in all.iter_mut().enumerate() {
                    for v in 0..V {
                        let sum = s.load_i(sums.add((i * V + v) * Avx512::LANES));
                        all[v] = s.add_i(all[v], sum);
                    }
                }
                Ends::put(self, s, all, (row, first, columns));
            }
        }

        #[inline(always)]
        fn finish(&self, s: Avx512) {
            Ends::finish(self, s);
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Block, Left};
    use crate::simd::neon::{MixedDot, Neon, SignedDot};

    /// # Safety
    /// The CPU has NEON and its dot product.
    #[target_feature(enable = "neon,dotprod")]
    pub(super) unsafe fn dot<L: Left<u8>>(block: &Block<L>) {
        // SAFETY: the caller's promise.
        block.run::<Neon, SignedDot>(unsafe { Neon::prove() });
    }

    /// # Safety
    /// The CPU has NEON with I8MM.
    #[target_feature(enable = "neon,i8mm")]
    pub(super) unsafe fn i8mm<L: Left<u8>>(block: &Block<L>) {
        // SAFETY: the caller's promise.
        block.run::<Neon, MixedDot>(unsafe { Neon::prove() });
    }
}

/// A part of a product that one thread computes.
struct Block<'a, L> {
    left: L,
    steps: Steps,
    to: Ends<'a>,
}

/// What becomes of a part's sums, and what belongs to them beside the rows of A.
struct Ends<'a> {
    rows: usize,
    b: &'a PackedI8,
    start: &'a [i32],
    row_sums: &'a [i32],
    panels: Range<usize>,
    store: Store8,
    c_stride: usize,
}

impl<L: Left<u8>> Block<'_, L> {
    #[inline(always)]
    fn run<S: Simd, D: Dot<S>>(&self, s: S) {
        let data = self.to.b.data.typed::<i8>();
        for p in self.to.panels.clone() {
            let (first, columns, vectors) = self.to.b.panels.panel(p);
            let b = data[first * self.to.b.groups * D::GROUP..].as_ptr();
            let b = (b, self.to.b.spills.get(p));
            let depth = self.to.b.groups * D::GROUP;
            let next = if p + 1 < self.to.panels.end {
                &data[self.to.b.panels.part(p + 1, depth, 0..depth)]
            } else {
                &[]
            };
            // Tiles of even height: a last one of few rows would wait for its own sums.
            let tiles = self.to.rows.div_ceil(D::ROWS);
            let (least, more) = (self.to.rows / tiles, self.to.rows % tiles);
            let mut row = 0;
            for tile in 0..tiles {
                let ahead = Ahead::new(next, self.to.b.groups, tile, tiles);
                let rows = least + usize::from(tile < more);
                // SAFETY: `Target8::multiply` promises the memory.
                unsafe {
                    let place = (row, first, columns);
                    if vectors == 2 {
                        self.rows_of::<S, D, 2>(s, rows, b, ahead, place);
                    } else {
                        self.rows_of::<S, D, 1>(s, rows, b, ahead, place);
                    }
                }
                row += rows;
            }
        }
        self.to.finish(s);
    }

    /// # Safety
    /// As for `Target8::multiply`.
    #[inline(always)]
    unsafe fn rows_of<S: Simd, D: Dot<S>, const V: usize>(
        &self,
        s: S,
        rows: usize,
        b: (*const i8, Option<&Spill>),
        ahead: Ahead,
        place: (usize, usize, usize),
    ) {
        macro_rules! rows {
            ($($m:literal)*) => {
                match rows {
                    // SAFETY: the caller's promise.
                    $($m if $m <= D::ROWS => unsafe { self.tile::<S, D, $m, V>(s, b, ahead, place) },)*
                    _ => {}
                }
            };
        }
        rows!(12 11 10 9 8 7 6 5 4 3 2 1);
    }

    /// A tile of `M` rows and `V` vectors at (row, column), of which `columns` are real.
    ///
    /// # Safety
    /// As for `Target8::multiply`.
    #[inline(always)]
    unsafe fn tile<S: Simd, D: Dot<S>, const M: usize, const V: usize>(
        &self,
        s: S,
        (b, spill): (*const i8, Option<&Spill>),
        mut ahead: Ahead,
        (row, first, columns): (usize, usize, usize),
    ) {
        // SAFETY: M rows of groups are readable at `a`, groups of V vectors at `b`; `start`
        // covers whole panels; M rows of `columns` elements are writable in the output.
        unsafe {
            let start = self.to.start.as_ptr().add(first);
            let start: [S::I; V] = s.load_all_i(start);
            let mut sums = [start; M];
            macro_rules! step {
                ($a:expr, $k:expr, $b:expr) => {
                    let mut b = [s.splat_i(0); V];
                    for (v, to) in b.iter_mut().enumerate() {
                        *to = D::weights(s, $b.add(v * S::LANES * D::GROUP));
                    }
                    for i in 0..M {
                        let a = $a.at(i, $k * GROUP_BYTES).cast::<i32>();
                        let a = s.splat_i(a.read_unaligned());
                        for v in 0..V {
                            sums[i][v] = D::dot(s, sums[i][v], a, b[v]);
                        }
                    }
                };
            }
            let width = V * S::LANES * D::GROUP;
            let (run, stride) = (self.steps.run / GROUP_BYTES, self.steps.stride);
            for line in 0..self.steps.lines {
                let a = self.left.rows::<M>(row, line * stride);
                let b = b.add(line * run * width);
                for k in 0..run {
                    if M > 1 && V > 1 {
                        ahead.step();
                    }
                    step!(a, k, b.add(k * width));
                }
            }
            if let Some(spill) = spill {
                for (&k, b) in spill.groups.iter().zip(spill.data.chunks_exact(width)) {
                    let (line, k) = (k as usize / run, k as usize % run);
                    let a = self.left.rows::<M>(row, line * stride);
                    step!(a, k, b.as_ptr());
                }
            }
            self.to.put(s, sums, (row, first, columns));
        }
    }
}

impl Ends<'_> {
    /// Stores the sums of `M` rows and `V` vectors at (row, column), of which `columns` are real.
    ///
    /// # Safety
    /// As for `Target8::multiply`.
    #[inline(always)]
    unsafe fn put<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        mut sums: [[S::I; V]; M],
        (row, first, columns): (usize, usize, usize),
    ) {
        // SAFETY: M rows of `columns` elements are writable in the output; zeros cover whole
        // panels.
        unsafe {
            if let Some(zeros) = &self.b.zeros {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let row_sum = s.splat_i(self.row_sums[row + i].wrapping_neg());
                    for v in 0..V {
                        let zero = s.load_i(zeros.as_ptr().add(first + v * S::LANES));
                        sums[v] = s.add_i(sums[v], s.mul_i(zero, row_sum));
                    }
                }
            }
            let last = columns - (V - 1) * S::LANES;
            let at = row * self.c_stride + first;
            self.store.put(s, sums, at, self.c_stride, first, last);
        }
    }

    /// Applies the activation that is left, if any, to what was stored.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S) {
        let (first, _, _) = self.b.panels.panel(self.panels.start);
        let (last, columns, _) = self.b.panels.panel(self.panels.end - 1);
        for row in 0..self.rows {
            // SAFETY: these are the elements that the tiles stored.
            unsafe {
                self.store
                    .finish(s, row * self.c_stride + first, last + columns - first)
            };
        }
    }
}

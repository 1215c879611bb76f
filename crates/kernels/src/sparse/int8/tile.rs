//! Tiles of a product of bytes with lists: four vectors of rows, four outputs at a time.

use std::ops::Range;

use crate::Isa;
use crate::gemm::int8::{Store8, takes_any_bytes};
use crate::gemm::shape;
use crate::simd::{Body, ByteRange, Dot, MAX_LANES, Simd, Widen};
use crate::sparse::lists::{Ends, FOUR, Lists};
use crate::threads::Shared;

/// Inputs that are turned at once.
const TURNED: usize = 16;

/// Bytes of scratch that a block needs: columns of a tile, sums of a vector of outputs or bytes of four,
/// and lines of those.
pub(super) fn scratch(isa: Isa, k: usize) -> usize {
    let (lanes, _) = shape(isa);
    FOUR * lanes * (k + 4 * lanes + TURNED)
}

/// A part of a product that one thread computes.
pub(super) struct Block<'a> {
    pub lists: &'a Lists,
    pub a: &'a [u8],
    pub a_stride: usize,
    /// Bits of A that are changed.
    pub flip: u8,
    pub rows: usize,
    /// Outputs, in fours.
    pub fours: Range<usize>,
    /// What the sum of each output starts from.
    pub starts: &'a [i32],
    pub to: Store8,
    pub c_stride: usize,
    /// As long as [`scratch`] says.
    pub scratch: Shared<'a, u8>,
}

/// Runs `block` with the kernel that its lists are packed for.
pub(super) fn run(isa: Isa, block: &Block) {
    if block.rows == 0 || block.fours.is_empty() {
        return;
    }
    if !takes_any_bytes(isa) {
        return crate::simd::dispatch(isa, Widened(block));
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: lists are packed only for sets that this CPU has.
        Isa::AvxVnni => unsafe { x86::avx_vnni(block) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above; AMX comes with AVX-512 and its dot product.
        Isa::Avx512Vnni | Isa::Amx => unsafe { x86::avx512_vnni(block) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonDot => unsafe { arm::dot(block) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonI8mm => unsafe { arm::i8mm(block) },
        _ => unreachable!("only these multiply bytes in fours"),
    }
}

struct Widened<'a, 'b>(&'a Block<'b>);

impl Body for Widened<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.run::<S, Widen>(s);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Block;
    use crate::simd::avx2::{Avx2, Vnni256};
    use crate::simd::avx512::{Avx512, Vnni512};

    /// # Safety
    /// The CPU has AVX2, FMA, F16C and AVX-VNNI.
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(super) unsafe fn avx_vnni(block: &Block) {
        // SAFETY: the caller's promise.
        block.run::<Avx2, Vnni256>(unsafe { Avx2::prove() });
    }

    /// # Safety
    /// The CPU has AVX-512 F, BW, VL, DQ and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn avx512_vnni(block: &Block) {
        // SAFETY: the caller's promise.
        block.run::<Avx512, Vnni512>(unsafe { Avx512::prove() });
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Block;
    use crate::simd::neon::{MixedDot, Neon, SignedDot};

    /// # Safety
    /// The CPU has NEON and its dot product.
    #[target_feature(enable = "neon,dotprod")]
    pub(super) unsafe fn dot(block: &Block) {
        // SAFETY: the caller's promise.
        block.run::<Neon, SignedDot>(unsafe { Neon::prove() });
    }

    /// # Safety
    /// The CPU has NEON with I8MM.
    #[target_feature(enable = "neon,i8mm")]
    pub(super) unsafe fn i8mm(block: &Block) {
        // SAFETY: the caller's promise.
        block.run::<Neon, MixedDot>(unsafe { Neon::prove() });
    }
}

impl Block<'_> {
    #[inline(always)]
    fn run<S: Simd, D: Dot<S>>(&self, s: S) {
        let tile = FOUR * S::LANES;
        let mut first = 0;
        while first < self.rows {
            let rows = (self.rows - first).min(tile);
            // SAFETY: A and the output have these rows, as `SparseI8::run` asserts; scratch is as long as
            // `scratch` says.
            unsafe {
                self.turn(s, first, rows);
                let mut v = 0;
                while v * S::LANES < rows {
                    let left = (rows - v * S::LANES).div_ceil(S::LANES);
                    let place = (first, rows, v);
                    // Sums of as many vectors stay in registers.
                    match left.min(if S::LANES == 8 { 2 } else { FOUR }) {
                        1 => self.tile::<S, D, 1>(s, place),
                        2 => self.tile::<S, D, 2>(s, place),
                        3 => self.tile::<S, D, 3>(s, place),
                        _ => self.tile::<S, D, 4>(s, place),
                    }
                    v += if S::LANES == 8 { 2 } else { FOUR };
                }
            }
            first += rows;
        }
        let outputs = self.lists.size().n.min(self.fours.end * FOUR) - self.fours.start * FOUR;
        for row in 0..self.rows {
            let at = row * self.c_stride + self.fours.start * FOUR;
            // SAFETY: these elements were stored.
            unsafe { self.to.finish(s, at, outputs) };
        }
    }

    /// Writes `rows` rows from `first` on as columns; where rows do not fill a tile, the last is there
    /// again.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn turn<S: Simd>(&self, s: S, first: usize, rows: usize) {
        let (k, tile, to) = (
            self.lists.size().k,
            FOUR * S::LANES,
            self.scratch.pointer(0),
        );
        let mut all = [std::ptr::null(); FOUR * MAX_LANES];
        for (i, row) in all.iter_mut().enumerate().take(tile) {
            let at = (first + i.min(rows - 1)) * self.a_stride;
            *row = self.a.as_ptr().wrapping_add(at);
        }
        // SAFETY: the caller's promise; scratch holds K columns.
        unsafe {
            if k < TURNED {
                for i in 0..k * tile {
                    *to.add(i) = *all[i % tile].add(i / tile) ^ self.flip;
                }
                return;
            }
            let mut at = 0;
            while at < k {
                // The last may begin within those before.
                let from = at.min(k - TURNED);
                s.turn_bytes(&all[..tile], from, to.add(from * tile), self.flip);
                at += TURNED;
            }
        }
    }

    /// `V` vectors of rows, from vector `v` of the tile of `rows` rows from `first` on.
    ///
    /// # Safety
    /// They are there, and turned.
    #[inline(always)]
    unsafe fn tile<S: Simd, D: Dot<S>, const V: usize>(
        &self,
        s: S,
        (first, rows, v): (usize, usize, usize),
    ) {
        let size = self.lists.size();
        let (columns, lists) = (self.scratch.pointer(v * S::LANES), self.lists.ends::<i8>());
        let sums = self.scratch.pointer(FOUR * S::LANES * size.k);
        let bytes = match self.to {
            Store8::Bytes { mult, range, .. } => Some((mult, range)),
            _ => None,
        };
        // Outputs that are stored together, in fours.
        let together = if bytes.is_some() {
            S::LANES
        } else {
            S::LANES / FOUR
        };
        let mut four = self.fours.start;
        // SAFETY: the caller's promise; scratch has room for sums of a vector of outputs, and for bytes
        // of four.
        unsafe {
            while four < self.fours.end {
                let last = (four + together).min(self.fours.end);
                for at in four..last {
                    let x: [[S::I; V]; FOUR] = self.four::<S, D, V>(s, columns, lists, at);
                    let place = (at - four) * FOUR;
                    if let Some((mult, range)) = bytes {
                        for r in 0..FOUR {
                            let output = (at * FOUR + r).min(size.n - 1);
                            let to = sums.add((place + r) * FOUR * S::LANES);
                            round(s, x[r], *mult.add(output), range, to);
                        }
                    } else {
                        let to = sums.cast::<i32>().add(place * V * S::LANES);
                        for i in 0..FOUR * V {
                            s.store_i(to.add(i * S::LANES), x[i / V][i % V]);
                        }
                    }
                }
                let outputs = size.n.min(last * FOUR) - four * FOUR;
                let place = (first, rows, v, four * FOUR);
                if let Store8::Bytes { c, .. } = self.to {
                    self.store_bytes::<S, D, V>(s, (sums, c), place, outputs);
                } else {
                    self.store::<S, D, V>(s, sums.cast(), place, outputs);
                }
                four = last;
            }
        }
    }

    /// The sums of four outputs and `V` vectors of rows.
    ///
    /// # Safety
    /// The columns are there.
    #[inline(always)]
    unsafe fn four<S: Simd, D: Dot<S>, const V: usize>(
        &self,
        s: S,
        columns: *const u8,
        lists: Ends<i8>,
        four: usize,
    ) -> [[S::I; V]; FOUR] {
        let mut x = [[s.splat_i(0); V]; FOUR];
        // SAFETY: the caller's promise; outputs are started from in fours.
        unsafe {
            for (r, x) in x.iter_mut().enumerate() {
                *x = [s.splat_i(*self.starts.as_ptr().add(four * FOUR + r)); V];
            }
            if self.lists.size().rows == FOUR {
                list::<S, D, V, FOUR>(s, columns, lists, four, &mut x);
            } else {
                for r in 0..FOUR {
                    let mut one = [x[r]];
                    list::<S, D, V, 1>(s, columns, lists, four * FOUR + r, &mut one);
                    x[r] = one[0];
                }
            }
        }
        x
    }

    /// Stores bytes of `V` vectors of rows, of which those of an output follow each other, from column
    /// `column` on.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn store_bytes<S: Simd, D: Dot<S>, const V: usize>(
        &self,
        s: S,
        (bytes, c): (*const u8, *mut u8),
        (first, rows, v, column): (usize, usize, usize, usize),
        outputs: usize,
    ) {
        let width = FOUR * S::LANES;
        let lines = self.scratch.pointer(width * (self.lists.size().k + width));
        let mut all = [std::ptr::null(); FOUR * MAX_LANES];
        for (i, output) in all.iter_mut().enumerate().take(width) {
            *output = bytes.wrapping_add(i.min(outputs - 1) * width);
        }
        let mut from = 0;
        while from < V * S::LANES {
            // SAFETY: the caller's promise; each output has the bytes of a whole tile, and scratch has
            // room for the lines.
            unsafe {
                s.turn_bytes(&all[..width], from.min(width - TURNED), lines, 0);
                for slot in from..(V * S::LANES).min(from + TURNED) {
                    let row = row_of::<S, D, V>(v, slot);
                    if row >= rows {
                        continue;
                    }
                    let line = lines
                        .add((slot - from.min(width - TURNED)) * width)
                        .cast_const();
                    let to = c.add((first + row) * self.c_stride + column);
                    if outputs == width {
                        s.store_i(to.cast(), s.load_i(line.cast()));
                    } else {
                        std::ptr::copy_nonoverlapping(line, to, outputs);
                    }
                }
            }
            from += TURNED;
        }
    }

    /// Stores sums of `V` vectors of rows, of which those of an output follow each other, from column
    /// `column` on.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn store<S: Simd, D: Dot<S>, const V: usize>(
        &self,
        s: S,
        sums: *const i32,
        (first, rows, v, column): (usize, usize, usize, usize),
        outputs: usize,
    ) {
        for slot in 0..V * S::LANES / FOUR {
            let row = row_of::<S, D, V>(v, slot * FOUR);
            if row >= rows {
                continue;
            }
            let at = (first + row) * self.c_stride + column;
            // SAFETY: the caller's promise; where outputs do not fill a vector, the others are read from
            // sums of before, and not stored.
            unsafe {
                let from = sums.add(slot * FOUR).cast();
                let [a, b, c, d] = s.load_columns(from, V * S::LANES);
                let x = [[s.bits(a)], [s.bits(b)], [s.bits(c)], [s.bits(d)]];
                if rows - row >= FOUR {
                    self.to.put(s, x, at, self.c_stride, column, outputs);
                    continue;
                }
                for (i, x) in x.into_iter().enumerate().take(rows - row) {
                    let at = at + i * self.c_stride;
                    self.to.put(s, [x], at, self.c_stride, column, outputs);
                }
            }
        }
    }
}

/// The row of a tile whose sum stands at `slot` of `V` vectors from vector `v` on: `join_sixteen` puts
/// four rows of each sixteen in a vector.
#[inline(always)]
fn row_of<S: Simd, D: Dot<S>, const V: usize>(v: usize, slot: usize) -> usize {
    if D::GROUP == 4 && V == FOUR {
        let (u, lane) = (slot / S::LANES, slot % S::LANES);
        16 * (lane / FOUR) + FOUR * u + lane % FOUR
    } else {
        v * S::LANES + slot
    }
}

/// Stores the sums of an output as bytes.
///
/// # Safety
/// Four vectors' bytes are writable at `to`.
#[inline(always)]
unsafe fn round<S: Simd, const V: usize>(
    s: S,
    sums: [S::I; V],
    mult: f32,
    range: ByteRange,
    to: *mut u8,
) {
    let mult = s.splat(mult);
    let (mut x, mut places) = ([s.splat(0.0); 4], [to; 4]);
    for i in 0..4 {
        // Where there are fewer, the last is stored again.
        let v = i.min(V - 1);
        x[i] = s.mul(s.to_float(sums[v]), mult);
        places[i] = to.wrapping_add(v * S::LANES);
    }
    // SAFETY: the caller's promise.
    unsafe { s.store_rounded_rows(places, x, range) };
}

/// Adds the products of list `list`, which has `R` outputs, with `V` vectors of columns.
///
/// # Safety
/// It is there, and names columns that there are.
#[allow(
    clippy::manual_memcpy,
    reason = "vectors that are copied one by one stay in registers"
)]
#[inline(always)]
unsafe fn list<S: Simd, D: Dot<S>, const V: usize, const R: usize>(
    s: S,
    columns: *const u8,
    lists: Ends<i8>,
    list: usize,
    sums: &mut [[S::I; V]; R],
) {
    let pitch = FOUR * S::LANES;
    // SAFETY: the caller's promise.
    unsafe {
        for step in lists.list(list) {
            let mut x = [s.splat_i(0); V];
            if D::GROUP == 4 {
                // One number, so that compilers take it apart without vectors.
                let inputs = lists.inputs.cast::<u64>().add(step).read_unaligned();
                let p = columns.add((inputs & 0xffff) as usize * pitch);
                let q = columns.add((inputs >> 16 & 0xffff) as usize * pitch);
                let r = columns.add((inputs >> 32 & 0xffff) as usize * pitch);
                let t = columns.add((inputs >> 48) as usize * pitch);
                if V == FOUR {
                    let all = s.join_sixteen([p, q, r, t]);
                    for v in 0..V {
                        x[v] = all[v];
                    }
                } else {
                    for v in 0..V {
                        let at = v * S::LANES;
                        x[v] = s.join_four([p.add(at), q.add(at), r.add(at), t.add(at)]);
                    }
                }
            } else {
                let inputs = lists.inputs.add(step * 2);
                let p = columns.add(usize::from(*inputs) * pitch);
                let q = columns.add(usize::from(*inputs.add(1)) * pitch);
                for v in 0..V {
                    x[v] = s.interleave_u8(p.add(v * S::LANES), q.add(v * S::LANES));
                }
            }
            let w = lists.weights.cast::<i32>().add(step * R);
            for r in 0..R {
                let w = s.splat_i(w.add(r).read_unaligned());
                for v in 0..V {
                    sums[r][v] = D::dot(s, sums[r][v], x[v], w);
                }
            }
        }
    }
}

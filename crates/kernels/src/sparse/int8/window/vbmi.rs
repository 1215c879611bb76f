//! Products of bytes with lists in windows: each step permutes 64 bytes of a row, on AVX-512 with VBMI.

use std::arch::x86_64::*;
use std::ops::Range;

use super::scale::{FLOAT, Scale, keeps_to_floats, keeps_to_words, pairs, quads};
use super::{Block, pitch, rows_near};
use crate::gemm::int8::Store8;
use crate::simd::avx512::{Avx512, turned};
use crate::simd::{ByteRange, Simd};
use crate::sparse::lists::FOUR;
use crate::sparse::windows::{LANES, WINDOW, Windows, parts, rows_of_tile};

/// Rows of A, as the kernel reads them: as many bytes of each as the inputs have, and a whole window.
#[derive(Clone, Copy)]
struct Rows {
    at: *const u8,
    stride: usize,
}

/// Where tiles, windows and steps begin.
#[derive(Clone, Copy)]
struct Ends {
    starts: *const u32,
    windows: *const u16,
    steps: *const u8,
}

impl Ends {
    fn of(lists: &Windows) -> Self {
        Self {
            starts: lists.0.starts().as_ptr(),
            windows: lists.0.numbers().as_ptr(),
            steps: lists.0.bytes().as_ptr(),
        }
    }
}

/// A tile of the lists.
struct Tile {
    ends: Ends,
    steps: Range<usize>,
    outputs: Range<usize>,
    /// Lanes of each list.
    parts: usize,
    /// What sums begin with, in the order of lanes.
    starts: [__m512i; FOUR],
    /// How they become bytes, where they do.
    scale: Scale,
}

/// Runs `block`.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL, DQ, VNNI and VBMI. A and the output have the rows of the block, the
/// starts whole tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,avx2,fma,f16c")]
pub(super) unsafe fn run(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe {
        let s = Avx512::prove();
        let n = block.lists.size().n;
        let bytes = match block.to {
            Store8::Bytes { mult, .. } => keeps_to_words(std::slice::from_raw_parts(mult, n)),
            _ => false,
        };
        let floats = bytes && keeps_to_floats(block.starts, block.reach);
        match (block.lists.size().rows, bytes) {
            (FOUR, true) => block.run::<FOUR, true>(s, floats),
            (FOUR, false) => block.run::<FOUR, false>(s, floats),
            (_, true) => block.run::<1, true>(s, floats),
            (_, false) => block.run::<1, false>(s, floats),
        }
    }
}

impl Block<'_> {
    /// # Safety
    /// As for [`run`]; lists have `T` outputs, and sums become bytes where `B`; `floats` says whether they may be
    /// [`FLOAT`]s.
    #[inline(always)]
    unsafe fn run<const T: usize, const B: bool>(&self, s: Avx512, floats: bool) {
        let size = self.lists.size();
        let near = rows_near(size.k);
        for first in (0..self.rows).step_by(near) {
            let count = near.min(self.rows - first);
            let calls = count.div_ceil(rows_of_tile(T));
            let (least, more) = (count / calls, count % calls);
            // SAFETY: the caller's promise.
            unsafe {
                let rows = self.lines(first, count);
                for tile in self.tiles.clone() {
                    let tile = self.tile::<T>(s, tile, floats);
                    let mut row = 0;
                    for call in 0..calls {
                        let n = least + usize::from(call < more);
                        let place = (rows, row, first + row);
                        match n {
                            1 if T == FOUR => self.some::<T, B, 1, 2>(s, &tile, place),
                            1 => self.some::<T, B, 1, 4>(s, &tile, place),
                            2 if T == FOUR => self.some::<T, B, 2, 1>(s, &tile, place),
                            2 => self.some::<T, B, 2, 2>(s, &tile, place),
                            3 if T == FOUR => self.some::<T, B, 3, 1>(s, &tile, place),
                            3 => self.some::<T, B, 3, 2>(s, &tile, place),
                            4 => self.some::<T, B, 4, 1>(s, &tile, place),
                            5 => self.some::<T, B, 5, 1>(s, &tile, place),
                            6 => self.some::<T, B, 6, 1>(s, &tile, place),
                            7 if T == 1 => self.some::<T, B, 7, 1>(s, &tile, place),
                            _ => {
                                if T == 1 {
                                    self.some::<T, B, 8, 1>(s, &tile, place);
                                }
                            }
                        }
                        row += n;
                    }
                }
            }
        }
        let outputs = self.tiles.start * size.tile()..size.n.min(self.tiles.end * size.tile());
        for row in 0..self.rows {
            let at = row * self.c_stride + outputs.start;
            // SAFETY: these elements were stored.
            unsafe { self.to.finish(s, at, outputs.len()) };
        }
    }

    /// `count` rows from `first` on, copied where bits change, or where a window would end behind A.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn lines(&self, first: usize, count: usize) -> Rows {
        let (k, from) = (self.lists.size().k, first * self.a_stride);
        let end = from + (count - 1) * self.a_stride + k.max(WINDOW);
        if self.flip == 0 && end <= self.a.len() {
            let at = self.a.as_ptr().wrapping_add(from);
            return Rows {
                at,
                stride: self.a_stride,
            };
        }
        let (to, stride) = (self.scratch.pointer(0), pitch(k));
        for row in 0..count {
            // SAFETY: the caller's promise; scratch has these rows.
            unsafe {
                let flip = _mm512_set1_epi8(self.flip as i8);
                let from = self.a.as_ptr().add(from + row * self.a_stride);
                for at in (0..k).step_by(WINDOW) {
                    let some = bytes(k - at);
                    let x = _mm512_maskz_loadu_epi8(some, from.add(at).cast());
                    let to = to.add(row * stride + at);
                    _mm512_storeu_si512(to.cast(), _mm512_xor_si512(x, flip));
                }
            }
        }
        Rows { at: to, stride }
    }

    /// # Safety
    /// It is there; starts are whole tiles.
    #[inline(always)]
    unsafe fn tile<const T: usize>(&self, s: Avx512, tile: usize, floats: bool) -> Tile {
        let (size, ends) = (self.lists.size(), Ends::of(self.lists));
        let outputs = size.outputs(tile);
        let parts = parts(T, outputs.len());
        let (mut starts, mut mult) = ([s.splat_i(0); FOUR], [s.splat(0.0); FOUR]);
        let mut bounds = ByteRange {
            zero: 0,
            lo: 0,
            hi: 0,
        };
        // SAFETY: the caller's promise.
        unsafe {
            for r in 0..T {
                let at = self.starts.as_ptr().add(tile * size.tile() + r * LANES);
                starts[r] = s.load_i(at);
                if let Store8::Bytes {
                    mult: from, range, ..
                } = self.to
                {
                    bounds = range;
                    let left = outputs.len().saturating_sub(r * LANES).min(LANES);
                    mult[r] = s.load_n(from.wrapping_add(outputs.start + r * LANES), left);
                }
            }
            let scale = Scale::new(mult, [T, parts], bounds, floats);
            if scale.plain {
                for start in &mut starts {
                    *start = s.add_i(*start, s.splat_i(FLOAT));
                }
            }
            if T == FOUR {
                // Other lanes of a list begin with 0.
                let first = [0, 0xffff, 0x3333, 0, 0x1111][parts];
                for (x, start) in turned_i(s, starts).into_iter().zip(&mut starts) {
                    *start = _mm512_maskz_mov_epi32(first, x);
                }
            }
            let steps = *ends.starts.add(tile) as usize..*ends.starts.add(tile + 1) as usize;
            Tile {
                ends,
                steps,
                outputs,
                parts,
                starts,
                scale,
            }
        }
    }

    /// `R` rows of A, from row `row` of `rows` on, which is row `line` of the output; every `U` steps go
    /// to sums of their own.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn some<const T: usize, const B: bool, const R: usize, const U: usize>(
        &self,
        s: Avx512,
        tile: &Tile,
        (rows, row, line): (Rows, usize, usize),
    ) {
        let mut at = [rows.at; R];
        for (i, at) in at.iter_mut().enumerate() {
            *at = rows.at.wrapping_add((row + i) * rows.stride);
        }
        let mut sums = [[[s.splat_i(0); T]; R]; U];
        for r in 0..T {
            for sum in &mut sums[0] {
                sum[r] = tile.starts[r];
            }
        }
        // SAFETY: the caller's promise; windows lie in rows.
        unsafe {
            let mut step = tile.steps.start;
            while step + U <= tile.steps.end {
                for (u, sums) in sums.iter_mut().enumerate() {
                    step_of::<T, R>(&tile.ends, step + u, at, sums);
                }
                step += U;
            }
            while step < tile.steps.end {
                step_of::<T, R>(&tile.ends, step, at, &mut sums[0]);
                step += 1;
            }
        }
        for u in 1..U {
            for i in 0..R {
                for r in 0..T {
                    sums[0][i][r] = s.add_i(sums[0][i][r], sums[u][i][r]);
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.store::<T, B, R>(s, tile, sums[0], line) };
    }

    /// Stores the sums of `R` rows, of which the first is row `line` of the output.
    ///
    /// # Safety
    /// It has these rows.
    #[inline(always)]
    unsafe fn store<const T: usize, const B: bool, const R: usize>(
        &self,
        s: Avx512,
        tile: &Tile,
        sums: [[__m512i; T]; R],
        line: usize,
    ) {
        let at = line * self.c_stride + tile.outputs.start;
        if !B {
            for i in 0..R {
                // SAFETY: the caller's promise.
                unsafe { self.put(tile, four(sums[i]), T, at + i * self.c_stride) };
            }
            return;
        }
        let Store8::Bytes { c, .. } = self.to else {
            return;
        };
        let c = c.wrapping_add(at);
        // SAFETY: the caller's promise.
        unsafe {
            if tile.scale.plain {
                self.store_bytes::<T, R, true>(s, tile, sums, c);
            } else {
                self.store_bytes::<T, R, false>(s, tile, sums, c);
            }
        }
    }

    /// Stores the bytes of `R` rows from `c` on; `P` is [`Scale::plain`] of the tile.
    ///
    /// # Safety
    /// The output has these rows.
    #[inline(always)]
    unsafe fn store_bytes<const T: usize, const R: usize, const P: bool>(
        &self,
        s: Avx512,
        tile: &Tile,
        sums: [[__m512i; T]; R],
        c: *mut u8,
    ) {
        let some = bytes(tile.outputs.len());
        // SAFETY: the caller's promise.
        unsafe {
            let mut to = [c; R];
            for (i, to) in to.iter_mut().enumerate() {
                *to = c.add(i * self.c_stride);
            }
            if T == FOUR && tile.parts == 1 {
                for i in 0..R {
                    let y = ordered(tile.scale.bytes::<P>(s, four(sums[i])), &WHOLE);
                    _mm512_mask_storeu_epi8(to[i].cast(), some, y);
                }
            } else if T == FOUR && tile.parts == 2 {
                let some = some as __mmask32;
                for i in (0..R).step_by(2) {
                    // Where there is one row, it is stored again.
                    let j = (i + 1).min(R - 1);
                    let ([a, b], [p, q]) = (pairs(four(sums[i])), pairs(four(sums[j])));
                    let y = ordered(tile.scale.bytes::<P>(s, [a, b, p, q]), &PAIRS);
                    _mm256_mask_storeu_epi8(to[i].cast(), some, _mm512_castsi512_si256(y));
                    let other = _mm512_extracti64x4_epi64::<1>(y);
                    _mm256_mask_storeu_epi8(to[j].cast(), some, other);
                }
            } else {
                let some = some as __mmask16;
                for i in (0..R).step_by(FOUR) {
                    // Where there are fewer, the last is stored again.
                    let (j, k, l) = ((i + 1).min(R - 1), (i + 2).min(R - 1), (i + 3).min(R - 1));
                    let x = [one(sums[i]), one(sums[j]), one(sums[k]), one(sums[l])];
                    let y = ordered(tile.scale.bytes::<P>(s, x), &ROWS);
                    _mm_mask_storeu_epi8(to[i].cast(), some, _mm512_castsi512_si128(y));
                    let [second, third] = [
                        _mm512_extracti32x4_epi32::<1>(y),
                        _mm512_extracti32x4_epi32::<2>(y),
                    ];
                    _mm_mask_storeu_epi8(to[j].cast(), some, second);
                    _mm_mask_storeu_epi8(to[k].cast(), some, third);
                    let last = _mm512_extracti32x4_epi32::<3>(y);
                    _mm_mask_storeu_epi8(to[l].cast(), some, last);
                }
            }
        }
    }

    /// Stores the sums of a row in the order of lanes, of lists of so many outputs, from element `at` of
    /// the output on.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW, VL and DQ, and the output the row.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    unsafe fn put(&self, tile: &Tile, mut x: [__m512i; FOUR], rows: usize, at: usize) {
        let Range { start, end } = tile.outputs;
        // SAFETY: the caller's promise.
        unsafe {
            let s = Avx512::prove();
            if rows == FOUR {
                if tile.parts > 1 {
                    for x in &mut x {
                        *x = folded(*x, tile.parts);
                    }
                }
                x = turned_i(s, x);
            }
            for (x, column) in x.into_iter().zip((start..end).step_by(LANES)) {
                let (at, last) = (at + column - start, (end - column).min(LANES));
                self.to.put(s, [[x]], at, self.c_stride, column, last);
            }
        }
    }
}

/// The sums of each list of a vector of which lists have so many lanes.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn folded(x: __m512i, parts: usize) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let x = _mm512_add_epi32(x, _mm512_shuffle_epi32::<0x4e>(x));
        match parts {
            2 => x,
            _ => _mm512_add_epi32(x, _mm512_shuffle_epi32::<0xb1>(x)),
        }
    }
}

/// Adds the products of a step to the sums of `R` rows.
///
/// # Safety
/// It is there, and its window is in the rows.
#[inline(always)]
unsafe fn step_of<const T: usize, const R: usize>(
    ends: &Ends,
    step: usize,
    rows: [*const u8; R],
    sums: &mut [[__m512i; T]; R],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let window = usize::from(*ends.windows.add(step));
        let at = ends.steps.add(step * WINDOW * (1 + T));
        let inputs = _mm512_loadu_si512(at.cast());
        let mut weights = [inputs; T];
        for (r, weights) in weights.iter_mut().enumerate() {
            *weights = _mm512_loadu_si512(at.add(WINDOW * (1 + r)).cast());
        }
        for i in 0..R {
            let x = _mm512_loadu_si512(rows[i].add(window).cast());
            let x = _mm512_permutexvar_epi8(inputs, x);
            for r in 0..T {
                sums[i][r] = _mm512_dpbusd_epi32(sums[i][r], x, weights[r]);
            }
        }
    }
}

/// [`turned`], of integers.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn turned_i(s: Avx512, [a, b, c, d]: [__m512i; FOUR]) -> [__m512i; FOUR] {
    let x = [s.float_of(a), s.float_of(b), s.float_of(c), s.float_of(d)];
    // SAFETY: the caller's promise.
    let [a, b, c, d] = unsafe { turned(x) };
    [s.bits(a), s.bits(b), s.bits(c), s.bits(d)]
}

/// The sums of a list of four outputs.
#[inline(always)]
fn four<const T: usize>(sums: [__m512i; T]) -> [__m512i; FOUR] {
    [sums[0], sums[1 % T], sums[2 % T], sums[3 % T]]
}

/// The sums of a row of sixteen outputs: of lists of one, or of four that have four lanes each.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn one<const T: usize>(sums: [__m512i; T]) -> __m512i {
    match T {
        // SAFETY: the caller's promise.
        FOUR => unsafe { quads(four(sums)) },
        _ => sums[0],
    }
}

/// For each byte of outputs in order, where [`Scale::bytes`] leaves it: of a row whose lists have a lane,
/// as [`lane`] has it; of two rows whose lists have two; of four rows of a vector each.
///
/// [`lane`]: crate::sparse::windows::lane
static WHOLE: [u8; WINDOW] = order([4, 1, 16]);
static PAIRS: [u8; WINDOW] = pair_order();
static ROWS: [u8; WINDOW] = order([1, 4, 16]);

/// Byte `16 i + 4 j + l` from where these steps lead.
const fn order([l_step, i_step, j_step]: [usize; 3]) -> [u8; WINDOW] {
    let (mut order, mut at) = ([0; WINDOW], 0);
    while at < WINDOW {
        let (i, j, l) = (at / 16, at / 4 % 4, at % 4);
        order[at] = (i * i_step + j * j_step + l * l_step) as u8;
        at += 1;
    }
    order
}

/// Byte `32 row + 16 b + 4 a + r` from `16 a + 8 row + 2 r + b`.
const fn pair_order() -> [u8; WINDOW] {
    let (mut order, mut at) = ([0; WINDOW], 0);
    while at < WINDOW {
        let (row, b, a, r) = (at / 32, at / 16 % 2, at / 4 % 4, at % 4);
        order[at] = (16 * a + 8 * row + 2 * r + b) as u8;
        at += 1;
    }
    order
}

/// # Safety
/// The CPU has AVX-512 VBMI.
#[inline(always)]
unsafe fn ordered(bytes: __m512i, order: &[u8; WINDOW]) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_permutexvar_epi8(_mm512_loadu_si512(order.as_ptr().cast()), bytes) }
}

/// The first `n` bytes of a vector.
#[inline(always)]
fn bytes(n: usize) -> __mmask64 {
    u64::MAX >> (64 - n.clamp(1, 64))
}

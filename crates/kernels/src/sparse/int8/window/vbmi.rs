//! Products of bytes with lists in windows: each step permutes 64 bytes of a row, on AVX-512 with VBMI.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Block, pitch, rows_near};
use crate::gemm::int8::Store8;
use crate::simd::avx512::{Avx512, packed, turned};
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
            starts: lists.starts().as_ptr(),
            windows: lists.firsts().as_ptr(),
            steps: lists.steps().as_ptr(),
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
    /// What sums begin with, and what numbers are multiplied with where they become bytes; in the order
    /// of lanes.
    starts: [__m512i; FOUR],
    mult: [__m512; FOUR],
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
        match block.lists.size().rows {
            FOUR => block.run::<FOUR>(s),
            _ => block.run::<1>(s),
        }
    }
}

impl Block<'_> {
    /// # Safety
    /// As for [`run`]; lists have `T` outputs.
    #[inline(always)]
    unsafe fn run<const T: usize>(&self, s: Avx512) {
        let size = self.lists.size();
        let near = rows_near(size.k);
        for first in (0..self.rows).step_by(near) {
            let count = near.min(self.rows - first);
            // SAFETY: the caller's promise.
            unsafe {
                let rows = self.lines(first, count);
                for tile in self.tiles.clone() {
                    let tile = self.tile::<T>(s, tile);
                    let mut row = 0;
                    let calls = count.div_ceil(rows_of_tile(T));
                    for call in 0..calls {
                        let n = (count - row).div_ceil(calls - call);
                        let place = (rows, row, first + row);
                        match n {
                            1 if T == FOUR => self.some::<T, 1, 2>(s, &tile, place),
                            1 => self.some::<T, 1, 4>(s, &tile, place),
                            2 if T == FOUR => self.some::<T, 2, 1>(s, &tile, place),
                            2 => self.some::<T, 2, 2>(s, &tile, place),
                            3 if T == FOUR => self.some::<T, 3, 1>(s, &tile, place),
                            3 => self.some::<T, 3, 2>(s, &tile, place),
                            4 => self.some::<T, 4, 1>(s, &tile, place),
                            5 => self.some::<T, 5, 1>(s, &tile, place),
                            6 => self.some::<T, 6, 1>(s, &tile, place),
                            7 if T == 1 => self.some::<T, 7, 1>(s, &tile, place),
                            _ => {
                                if T == 1 {
                                    self.some::<T, 8, 1>(s, &tile, place);
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
    unsafe fn tile<const T: usize>(&self, s: Avx512, tile: usize) -> Tile {
        let (size, ends) = (self.lists.size(), Ends::of(self.lists));
        let outputs = size.outputs(tile);
        let parts = parts(T, outputs.len());
        let (mut starts, mut mult) = ([s.splat_i(0); FOUR], [s.splat(0.0); FOUR]);
        // SAFETY: the caller's promise.
        unsafe {
            for r in 0..T {
                let at = self.starts.as_ptr().add(tile * size.tile() + r * LANES);
                starts[r] = s.load_i(at);
                if let Store8::Bytes { mult: from, .. } = self.to {
                    let left = outputs.len().saturating_sub(r * LANES).min(LANES);
                    mult[r] = s.load_n(from.wrapping_add(outputs.start + r * LANES), left);
                }
            }
            if T == FOUR {
                // Other lanes of a list begin with 0.
                let first = [0, 0xffff, 0x3333, 0, 0x1111][parts];
                for (x, start) in turned_i(s, starts).into_iter().zip(&mut starts) {
                    *start = _mm512_maskz_mov_epi32(first, x);
                }
                mult = turned(mult);
            }
            let steps = *ends.starts.add(tile) as usize..*ends.starts.add(tile + 1) as usize;
            Tile {
                ends,
                steps,
                outputs,
                parts,
                starts,
                mult,
            }
        }
    }

    /// `R` rows of A, from row `row` of `rows` on, which is row `line` of the output; every `U` steps go
    /// to sums of their own.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn some<const T: usize, const R: usize, const U: usize>(
        &self,
        s: Avx512,
        tile: &Tile,
        (rows, row, line): (Rows, usize, usize),
    ) {
        let at: [*const u8; R] =
            std::array::from_fn(|i| rows.at.wrapping_add((row + i) * rows.stride));
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
                    one::<T, R>(&tile.ends, step + u, at, sums);
                }
                step += U;
            }
            while step < tile.steps.end {
                one::<T, R>(&tile.ends, step, at, &mut sums[0]);
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
        unsafe { self.store(s, tile, sums[0], line) };
    }

    /// Stores the sums of `R` rows, of which the first is row `line` of the output.
    ///
    /// # Safety
    /// It has these rows.
    #[inline(always)]
    unsafe fn store<const T: usize, const R: usize>(
        &self,
        s: Avx512,
        tile: &Tile,
        mut sums: [[__m512i; T]; R],
        line: usize,
    ) {
        if tile.parts > 1 {
            for x in sums.as_flattened_mut() {
                // SAFETY: the type of `s` is the proof of AVX-512.
                *x = unsafe { folded(*x, tile.parts) };
            }
        }
        let at = line * self.c_stride + tile.outputs.start;
        // SAFETY: the caller's promise.
        unsafe {
            match self.to {
                Store8::Bytes { c, range, .. } if T == FOUR => {
                    let some = bytes(tile.outputs.len());
                    for i in 0..R {
                        let x = [sums[i][0], sums[i][1 % T], sums[i][2 % T], sums[i][3 % T]];
                        let y = rounded(s, x, tile.mult, range);
                        let c = c.add(at + i * self.c_stride);
                        _mm512_mask_storeu_epi8(c.cast(), some, y);
                    }
                }
                Store8::Bytes { c, range, .. } if tile.outputs.len() == LANES => {
                    for four in (0..R).step_by(FOUR) {
                        let (mut to, mut x) = ([c; FOUR], tile.mult);
                        for i in 0..FOUR {
                            // Where there are fewer, the last is stored again.
                            let row = (four + i).min(R - 1);
                            to[i] = c.add(at + row * self.c_stride);
                            x[i] = s.mul(s.to_float(sums[row][0]), tile.mult[0]);
                        }
                        s.store_rounded_rows(to, x, range);
                    }
                }
                _ => self.put(tile, sums.as_flattened(), T, at),
            }
        }
    }

    /// Stores rows of sums, `outputs` vectors each, from element `at` of the output on.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, BW, VL and DQ, and the output these rows.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    unsafe fn put(&self, tile: &Tile, sums: &[__m512i], outputs: usize, at: usize) {
        let Range { start, end } = tile.outputs;
        for (i, x) in sums.chunks_exact(outputs).enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let s = Avx512::prove();
                let mut all = [x[0]; FOUR];
                if let &[a, b, c, d] = x {
                    all = turned_i(s, [a, b, c, d]);
                }
                let at = at + i * self.c_stride;
                for (x, column) in all.into_iter().zip((start..end).step_by(LANES)) {
                    let (at, last) = (at + column - start, (end - column).min(LANES));
                    self.to.put(s, [[x]], at, self.c_stride, column, last);
                }
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
unsafe fn one<const T: usize, const R: usize>(
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

/// The bytes of sums in the order of lanes, in the order of outputs.
///
/// # Safety
/// The CPU has AVX-512 VBMI.
#[inline(always)]
unsafe fn rounded(
    s: Avx512,
    x: [__m512i; FOUR],
    mult: [__m512; FOUR],
    range: ByteRange,
) -> __m512i {
    let mut scaled = mult;
    for (scaled, x) in scaled.iter_mut().zip(x) {
        *scaled = s.mul(s.to_float(x), *scaled);
    }
    // Byte `16 b + 4 a + r` comes from `16 a + 4 r + b`.
    const ORDER: [u8; WINDOW] = {
        let (mut order, mut i) = ([0; WINDOW], 0);
        while i < WINDOW {
            let (b, a, r) = (i / 16, i / 4 % 4, i % 4);
            order[i] = (16 * a + 4 * r + b) as u8;
            i += 1;
        }
        order
    };
    // SAFETY: the caller's promise.
    unsafe {
        let order = _mm512_loadu_si512(ORDER.as_ptr().cast());
        _mm512_permutexvar_epi8(order, packed(scaled, range))
    }
}

/// The first `n` bytes of a vector.
#[inline(always)]
fn bytes(n: usize) -> __mmask64 {
    u64::MAX >> (64 - n.clamp(1, 64))
}

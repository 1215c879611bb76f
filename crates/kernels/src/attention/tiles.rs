//! Attention of a head by tiles of BF16.
//!
//! Keys and values are laid out once as tiles of columns. Two tiles of queries meet the keys a part
//! at a time: their scores stay in the first cache, where weights take the place of scores, rounded,
//! as rows that the products with values read.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{MAX_LANES, OneHead, Shape, exp_below, weigh};
use crate::arena::with_scratch;
use crate::floats::Floats;
use crate::gemm::f32::mixed::Read;
use crate::simd::Simd;
use crate::simd::amx::{self, BYTES, Bf16, Product, ROWS};
use crate::simd::avx512::{Avx512, store_bf16};

/// Queries of a block: two tiles.
const QUERIES: usize = 2 * ROWS;

/// Keys of a part.
const KEYS: usize = 256;

/// Numbers of a step along a product: a row of a tile.
const STEP: usize = BYTES / 2;

/// Numbers of a tile.
const TILE: usize = ROWS * STEP;

/// From one row of scores to the next: rows do not fall on one set of the cache.
const PITCH: usize = KEYS + 16;

/// What is known of a block of queries, by row.
struct Block {
    most: [f32; QUERIES],
    factors: [f32; QUERIES],
    totals: [[f32; MAX_LANES]; QUERIES],
}

/// As [`super::attend`].
///
/// # Safety
/// The CPU has AMX, AVX-512 and its BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn attend(head: &OneHead, write: impl Fn(usize, &[f32], &[f32; MAX_LANES])) {
    let Shape {
        queries,
        keys,
        size,
        value_size,
        ..
    } = *head.shape;
    let steps = size.div_ceil(STEP);
    let (key_tiles, value_tiles) = (keys.div_ceil(STEP) * 2, value_size.div_ceil(ROWS));
    let widths = [
        key_tiles * steps * TILE,
        key_tiles / 2 * value_tiles * TILE,
        2 * steps * TILE,
    ];
    with_scratch(widths.iter().sum(), |rounded: &mut [u16]| {
        let (k, rest) = rounded.split_at_mut(widths[0]);
        let (v, q) = rest.split_at_mut(widths[1]);
        let width = value_tiles * ROWS;
        with_scratch(QUERIES * (PITCH + width), |floats: &mut [f32]| {
            let (scores, sums) = floats.split_at_mut(QUERIES * PITCH);
            // SAFETY: the caller's promise.
            unsafe {
                lay_keys(head.k, (keys, size), k);
                lay_values(head.v, (keys, value_size), v);
                amx::configure(ROWS);
                for first in (0..queries).step_by(QUERIES) {
                    let rows = (queries - first).min(QUERIES);
                    lay_queries(head.q, first..first + rows, size, q);
                    let totals = block(head, (first, rows), [q, k, v], (scores, sums));
                    for (i, (sums, total)) in
                        sums.chunks_exact(width).zip(&totals).enumerate().take(rows)
                    {
                        write(first + i, &sums[..value_size], total);
                    }
                }
                amx::release();
            }
        });
    });
}

/// Leaves the sums of weighted values of `rows` queries from `first` on in `sums`; the sums of
/// their weights.
///
/// # Safety
/// As for [`attend`]; tiles are configured.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]
unsafe fn block(
    head: &OneHead,
    (first, rows): (usize, usize),
    [q, k, v]: [&[u16]; 3],
    (scores, sums): (&mut [f32], &mut [f32]),
) -> [[f32; MAX_LANES]; QUERIES] {
    let steps = head.shape.size.div_ceil(STEP);
    let width = sums.len() / QUERIES;
    let value_tiles = width / ROWS;
    let mut block = Block {
        most: [f32::MIN; _],
        factors: [0.0; _],
        totals: [[0.0; _]; _],
    };
    for begin in (0..head.shape.keys).step_by(KEYS) {
        let count = (head.shape.keys - begin).min(KEYS);
        let among = head.among(first, rows, begin, count);
        let whole = count.next_multiple_of(STEP);
        let k = &k[begin / ROWS * steps * TILE..][..whole / ROWS * steps * TILE];
        let v = &v[begin / STEP * value_tiles * TILE..][..whole / STEP * value_tiles * TILE];
        // SAFETY: the caller's promise; scores and sums have a row for each query of two tiles.
        unsafe {
            let s = Avx512::prove();
            products(q, k, steps, rows, scores);
            for (i, row) in scores.chunks_exact_mut(PITCH).enumerate().take(rows) {
                let before = block.most[i];
                block.most[i] = among.score(s, i, &mut row[..count], before);
                block.factors[i] = before - block.most[i];
            }
            for factors in block.factors.chunks_exact_mut(Avx512::LANES) {
                let p = factors.as_mut_ptr();
                s.store(p, exp_below(s, s.load(p)));
            }
            for (i, row) in scores.chunks_exact_mut(PITCH).enumerate().take(rows) {
                let (from, most, factor) = (row.as_mut_ptr(), block.most[i], block.factors[i]);
                let to = from.cast::<half::bf16>();
                let total = &mut block.totals[i];
                weigh(s, from, count, most, factor, total, |at, y, n| {
                    store_bf16(to.add(at), y, n);
                });
                to.add(count).write_bytes(0, whole - count);
            }
            if begin > 0 {
                for (sums, factor) in sums.chunks_exact_mut(width).zip(&block.factors) {
                    sums.iter_mut().for_each(|x| *x *= factor);
                }
            }
            weighted(scores, v, (begin > 0, rows), sums);
        }
    }
    block.totals
}

/// Products of two tiles of queries with tiles of keys.
///
/// # Safety
/// As for [`block`].
#[inline(always)]
unsafe fn products(q: &[u16], k: &[u16], steps: usize, rows: usize, scores: &mut [f32]) {
    let pitch = PITCH * 4;
    // SAFETY: the caller's promise; `k` has pairs of tiles.
    unsafe {
        for (pair, k) in k.chunks_exact(2 * steps * TILE).enumerate() {
            let (left, right) = k.split_at(steps * TILE);
            amx::zero::<0>();
            amx::zero::<1>();
            amx::zero::<2>();
            amx::zero::<3>();
            for at in (0..steps * TILE).step_by(TILE) {
                amx::load::<4>(q[2 * at..].as_ptr().cast(), BYTES);
                amx::load::<6>(left[at..].as_ptr().cast(), BYTES);
                amx::load::<7>(right[at..].as_ptr().cast(), BYTES);
                Bf16::add::<0, 4, 6>();
                Bf16::add::<1, 4, 7>();
                if rows > ROWS {
                    amx::load::<5>(q[2 * at + TILE..].as_ptr().cast(), BYTES);
                    Bf16::add::<2, 5, 6>();
                    Bf16::add::<3, 5, 7>();
                }
            }
            let to = scores[pair * STEP..].as_mut_ptr().cast::<u8>();
            amx::store::<0>(to, pitch);
            amx::store::<1>(to.add(BYTES), pitch);
            if rows > ROWS {
                amx::store::<2>(to.add(ROWS * pitch), pitch);
                amx::store::<3>(to.add(ROWS * pitch + BYTES), pitch);
            }
        }
    }
}

/// Adds values, weighted, to `sums`, or to nothing.
///
/// # Safety
/// As for [`block`]; rows of scores begin with weights.
#[inline(always)]
unsafe fn weighted(scores: &[f32], v: &[u16], (add, rows): (bool, usize), sums: &mut [f32]) {
    let width = sums.len() / QUERIES;
    let (tiles, pitch) = (width / ROWS, width * 4);
    // SAFETY: the caller's promise; tiles of sums lie in `sums`.
    unsafe {
        for tile in (0..tiles).step_by(2) {
            let two = tile + 1 < tiles;
            let to = sums[tile * ROWS..].as_mut_ptr().cast::<u8>();
            let below = to.wrapping_add(ROWS * pitch);
            if add {
                amx::load::<0>(to, pitch);
                amx::load::<2>(below, pitch);
                if two {
                    amx::load::<1>(to.add(BYTES), pitch);
                    amx::load::<3>(below.add(BYTES), pitch);
                }
            } else {
                amx::zero::<0>();
                amx::zero::<1>();
                amx::zero::<2>();
                amx::zero::<3>();
            }
            let weights = scores.as_ptr().cast::<u8>();
            for (step, v) in v.chunks_exact(tiles * TILE).enumerate() {
                let weights = weights.add(step * BYTES);
                amx::load::<4>(weights, PITCH * 4);
                amx::load::<6>(v[tile * TILE..].as_ptr().cast(), BYTES);
                Bf16::add::<0, 4, 6>();
                if two {
                    amx::load::<7>(v[(tile + 1) * TILE..].as_ptr().cast(), BYTES);
                    Bf16::add::<1, 4, 7>();
                }
                if rows > ROWS {
                    amx::load::<5>(weights.add(ROWS * PITCH * 4), PITCH * 4);
                    Bf16::add::<2, 5, 6>();
                    if two {
                        Bf16::add::<3, 5, 7>();
                    }
                }
            }
            amx::store::<0>(to, pitch);
            amx::store::<2>(below, pitch);
            if two {
                amx::store::<1>(to.add(BYTES), pitch);
                amx::store::<3>(below.add(BYTES), pitch);
            }
        }
    }
}

/// The first `n <= 32` numbers from `at` on, rounded, then zeros.
///
/// # Safety
/// The CPU has AVX-512 and its BF16; the numbers are readable.
#[inline(always)]
unsafe fn row(from: Read, at: usize, n: usize) -> __m512i {
    let first = (u64::MAX >> (64 - n)) as u32;
    // SAFETY: the caller's promise; masks keep to it.
    unsafe {
        match from {
            Read::F32(p) => {
                let low = _mm512_maskz_loadu_ps(first as u16, p.wrapping_add(at));
                let high = _mm512_maskz_loadu_ps((first >> 16) as u16, p.wrapping_add(at + 16));
                std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
            }
            Read::Bf16(p) => _mm512_maskz_loadu_epi16(first, p.wrapping_add(at).cast()),
        }
    }
}

/// The first `n <= 16` numbers from `at` on, rounded, each in the low half of 32 bits, then zeros.
///
/// # Safety
/// As for [`row`].
#[inline(always)]
unsafe fn halves(from: Read, at: usize, n: usize) -> __m512i {
    let first = ((1u32 << n) - 1) as u16;
    // SAFETY: the caller's promise; masks keep to it.
    unsafe {
        _mm512_cvtepu16_epi32(match from {
            Read::F32(p) => {
                let x = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first, p.wrapping_add(at)));
                std::mem::transmute::<__m256bh, __m256i>(x)
            }
            Read::Bf16(p) => _mm256_maskz_loadu_epi16(first, p.wrapping_add(at).cast()),
        })
    }
}

/// Lays out rows of `size` numbers as rows of tiles: `to` takes the row, the step and the numbers.
///
/// # Safety
/// As for [`row`].
#[inline(always)]
unsafe fn lay_rows(
    (from, stride): (Floats, usize),
    rows: Range<usize>,
    size: usize,
    mut to: impl FnMut(usize, usize, __m512i),
) {
    let from = Read::of(from, 0);
    for i in rows {
        for (step, at) in (0..size).step_by(STEP).enumerate() {
            // SAFETY: the caller's promise.
            to(i, step, unsafe {
                row(from, i * stride + at, (size - at).min(STEP))
            });
        }
    }
}

/// Lays out queries: two tiles of each step, one after another.
///
/// # Safety
/// As for [`block`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn lay_queries(q: (Floats, usize), rows: Range<usize>, size: usize, to: &mut [u16]) {
    let first = rows.start;
    // SAFETY: the caller's promise.
    unsafe {
        lay_rows(q, rows, size, |i, step, x| {
            let to = &mut to[(2 * step * ROWS + i - first) * STEP..][..STEP];
            _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
        });
    }
}

/// Lays out keys: tiles of sixteen, in steps of pairs of numbers.
///
/// # Safety
/// As for [`block`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn lay_keys(k: (Floats, usize), (keys, size): (usize, usize), to: &mut [u16]) {
    let steps = size.div_ceil(STEP);
    for (tile, to) in to.chunks_exact_mut(steps * TILE).enumerate() {
        let rows = (tile * ROWS).min(keys)..((tile + 1) * ROWS).min(keys);
        if rows.len() < ROWS {
            to.fill(0);
        }
        // SAFETY: the caller's promise; a row lies in its tile.
        unsafe {
            lay_rows(k, rows, size, |i, step, x| {
                let to = &mut to[(step * ROWS + i % ROWS) * STEP..][..STEP];
                _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
            });
            to.chunks_exact_mut(TILE).for_each(|tile| transpose(tile));
        }
    }
}

/// Lays out values: a step of keys after the other, tiles of sixteen columns of pairs of keys.
///
/// # Safety
/// As for [`block`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn lay_values((v, stride): (Floats, usize), (keys, size): (usize, usize), to: &mut [u16]) {
    let from = Read::of(v, 0);
    let tiles = size.div_ceil(ROWS);
    for (step, to) in to.chunks_exact_mut(tiles * TILE).enumerate() {
        for (pair, key) in (step * STEP..).step_by(2).take(ROWS).enumerate() {
            for (tile, to) in to.chunks_exact_mut(TILE).enumerate() {
                let (at, n) = (key * stride + tile * ROWS, (size - tile * ROWS).min(ROWS));
                let n_of = |key: usize| if key < keys { n } else { 0 };
                let to = to[pair * STEP..][..STEP].as_mut_ptr();
                // SAFETY: the caller's promise; there is room for a row of a tile.
                unsafe {
                    let low = halves(from, at, n_of(key));
                    let high = halves(from, at + stride, n_of(key + 1));
                    let both = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
                    _mm512_storeu_si512(to.cast(), both);
                }
            }
        }
    }
}

/// Exchanges rows and columns of sixteen rows of sixteen pairs.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transpose(tile: &mut [u16]) {
    assert_eq!(tile.len(), TILE, "a tile");
    let p = tile.as_mut_ptr().cast::<__m512i>();
    // SAFETY: the caller's promise; the tile has sixteen vectors.
    unsafe {
        let mut x = [_mm512_setzero_si512(); ROWS];
        for (i, x) in x.iter_mut().enumerate() {
            *x = _mm512_loadu_si512(p.add(i));
        }
        // Pairs of rows, then fours: blocks of four rows and columns are transposed in each
        // quarter of a vector.
        let mut y = x;
        for i in (0..ROWS).step_by(2) {
            y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
            y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        }
        for i in (0..ROWS).step_by(4) {
            x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
            x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
            x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
            x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
        }
        // Quarters go to their places.
        for i in 0..4 {
            let (a, b, c, d) = (x[i], x[i + 4], x[i + 8], x[i + 12]);
            let (ab, cd) = (even(a, b), even(c, d));
            _mm512_storeu_si512(p.add(i), even(ab, cd));
            _mm512_storeu_si512(p.add(8 + i), odd(ab, cd));
            let (ab, cd) = (odd(a, b), odd(c, d));
            _mm512_storeu_si512(p.add(4 + i), even(ab, cd));
            _mm512_storeu_si512(p.add(12 + i), odd(ab, cd));
        }
    }
}

/// Quarters 0 and 2 of both.
#[inline]
#[target_feature(enable = "avx512f")]
fn even(x: __m512i, y: __m512i) -> __m512i {
    _mm512_shuffle_i32x4::<0b10_00_10_00>(x, y)
}

/// Quarters 1 and 3 of both.
#[inline]
#[target_feature(enable = "avx512f")]
fn odd(x: __m512i, y: __m512i) -> __m512i {
    _mm512_shuffle_i32x4::<0b11_01_11_01>(x, y)
}

//! How much of K and of the rows of A a part of a product has, so that caches hold it.

use crate::simd::MAX_LANES;

/// Steps of K whose sums stay in registers; a panel of B of that height stays in the L1 cache.
pub(super) const DEPTH: usize = 192;

/// As [`DEPTH`], for the widest vectors and many rows: the panel comes from the L2 cache in time,
/// and C is not read again where all of K is one part.
const WIDE_DEPTH: usize = 384;

/// Rows that are many.
const MANY: usize = 192;

/// Steps of K whose sums stay in registers of so many lanes.
pub(super) fn depth_of(lanes: usize, rows: usize) -> usize {
    if lanes == MAX_LANES && rows >= MANY {
        WIDE_DEPTH
    } else {
        DEPTH
    }
}

/// Rows of A such that a block of them stays in the L2 cache; with the widest vectors a large one
/// where all of B, which is read for each block, is large.
pub(crate) fn rows_in_cache([k, n]: [usize; 2], tile_rows: usize) -> usize {
    if tile_rows == WIDE_ROWS && k <= WIDE_DEPTH && k * n > WIDE_B {
        return (192 * 1024 / k).min(512);
    }
    (32 * 1024 / k.clamp(1, DEPTH)).clamp(tile_rows * 2, 240)
}

/// Rows of a tile of the widest vectors.
const WIDE_ROWS: usize = 12;

/// Elements of B that leave room for little else in the L2 cache.
const WIDE_B: usize = 128 * 1024;

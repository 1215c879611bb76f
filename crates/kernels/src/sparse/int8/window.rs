//! Products of bytes with lists in windows, on CPUs that pick any of 64 bytes at once.

use std::ops::Range;

use crate::Isa;
use crate::gemm::int8::Store8;
use crate::sparse::windows::{WINDOW, Windows};
use crate::threads::Shared;

mod scale;
mod vbmi;

/// Bytes of rows of A that stay near while lists come by.
const NEAR: usize = 24 << 10;

/// Bytes of scratch that a block of so many inputs needs: rows of A.
pub(super) fn scratch(k: usize) -> usize {
    rows_near(k) * pitch(k)
}

/// Bytes from a copied row to the next.
fn pitch(k: usize) -> usize {
    k.next_multiple_of(WINDOW).max(WINDOW)
}

/// Rows that are multiplied with all lists before others are: whole tiles of either kind.
fn rows_near(k: usize) -> usize {
    (NEAR / pitch(k)).next_multiple_of(24)
}

/// A part of a product that one thread computes.
pub(super) struct Block<'a> {
    pub lists: &'a Windows,
    pub a: &'a [u8],
    pub a_stride: usize,
    /// Bits of A that are changed.
    pub flip: u8,
    pub rows: usize,
    /// Outputs, in tiles of the lists.
    pub tiles: Range<usize>,
    /// What the sum of each output starts from; whole tiles.
    pub starts: &'a [i32],
    /// How far A takes a sum from its start at most.
    pub reach: u32,
    pub to: Store8,
    pub c_stride: usize,
    /// As long as [`scratch`] says.
    pub scratch: Shared<'a, u8>,
}

/// Runs `block` on a CPU of which `isa` picks bytes.
pub(super) fn run(isa: Isa, block: &Block) {
    if block.rows == 0 || block.tiles.is_empty() {
        return;
    }
    debug_assert!(isa.picks_bytes());
    // SAFETY: weights are in windows only where `Isa::picks_bytes` says that this CPU has the
    // instructions. `SparseI8::run` asserts that A and the output have the rows, and makes whole tiles of
    // starts.
    unsafe {
        vbmi::run(block);
    }
}

//! How weights of 4 bits lie for each flavour, and how much scratch their kernels take.
//!
//! The kernels take weights 16 times: biases are given 16 times, and the shift is less by 4.

use super::pack::{STATE, bytes_of_windows, interleaved, vectors};
use super::{Flavour, Geometry};

/// A row in words of eight, the first four in the high halves of bytes, where 8 is added to bytes 0 and 2;
/// filled by zeros. The correction is 128 times the sum of the odd ones, taken 16 times.
fn coded(row: &[i8]) -> (i32, Vec<[u8; 4]>) {
    let odd: i32 = row.iter().skip(1).step_by(2).map(|w| i32::from(*w)).sum();
    let word = |eight: &[i8]| {
        let at = |i: usize| (eight.get(i).copied().unwrap_or(0) << 4) as u8 ^ [0x80, 0][i % 2];
        [0, 1, 2, 3].map(|i| at(i) | at(i + 4) >> 4)
    };
    (128 * 16 * odd, row.chunks(8).map(word).collect())
}

/// 32 weights in 16 bytes, the first 16 in their high halves.
fn halves(weights: [i8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| (weights[i] << 4) as u8 | (weights[i + 16] << 4) as u8 >> 4)
}

/// Rows one by one: two weights a byte, the first in its high half.
fn plain(rows: &[&[i8]]) -> Vec<u8> {
    let byte = |two: &[i8]| {
        let at = |i: usize| (two.get(i).copied().unwrap_or(0) << 4) as u8;
        at(0) | at(1) >> 4
    };
    let row = |row: &&[i8]| row.chunks(2).map(byte).collect::<Vec<u8>>();
    rows.iter().flat_map(row).collect()
}

/// Weights of `conv8_w4` and `conv8_1x1_w4` from -8 to 7, given as [out, kernel height, kernel width,
/// in / groups].
pub fn pack_conv_w4(flavour: Flavour, weights: &[i8], g: &Geometry) -> Vec<u8> {
    let depth = g.depth();
    let rows: Vec<&[i8]> = weights.chunks(depth.max(1)).collect();
    let group = (g.out_c / g.groups.max(1)).max(1);
    let each = rows.chunks(group).map(|rows| match flavour {
        Flavour::C => plain(rows),
        Flavour::Dsp => interleaved(rows, depth, 2, coded),
        Flavour::Mve => vectors(rows, depth, halves),
    });
    each.collect::<Vec<_>>().concat()
}

/// Weights of `dense8_w4` from -8 to 7, given as [out, in].
pub fn pack_dense_w4(flavour: Flavour, weights: &[i8], inputs: usize) -> Vec<u8> {
    let rows: Vec<&[i8]> = weights.chunks(inputs.max(1)).collect();
    match flavour {
        Flavour::C => plain(&rows),
        Flavour::Dsp => interleaved(&rows, inputs, 4, coded),
        Flavour::Mve => vectors(&rows, inputs, halves),
    }
}

/// Bytes of scratch of `conv8_w4`.
pub fn scratch_conv_w4(flavour: Flavour, g: &Geometry) -> usize {
    let (depth, window) = (g.depth(), g.depth() * g.groups);
    match flavour {
        Flavour::C => super::scratch_conv(flavour, g),
        Flavour::Dsp => depth.div_ceil(8) * 32 + STATE + bytes_of_windows(g),
        Flavour::Mve if g.groups == 1 => 2 * depth.next_multiple_of(32) + STATE,
        Flavour::Mve => 2 * depth.next_multiple_of(32) + STATE + 2 * window,
    }
}

/// Bytes of scratch of `conv8_1x1_w4`.
pub fn scratch_conv_1x1_w4(flavour: Flavour, g: &Geometry) -> usize {
    match flavour {
        Flavour::C => 2 * g.in_c,
        Flavour::Dsp => g.in_c.div_ceil(8) * 32 + STATE,
        Flavour::Mve => 2 * g.in_c.next_multiple_of(32) + STATE,
    }
}

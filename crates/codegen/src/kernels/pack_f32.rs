//! How weights on f32 lie, and how much scratch their kernels take.

use super::Geometry;

/// Rows of `depth` weights by fours of rows: a weight of each in turn, filled by zeros.
fn fours(rows: &[f32], depth: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = rows.chunks(depth.max(1)).collect();
    let mut out = Vec::new();
    for block in rows.chunks(4) {
        for i in 0..depth {
            out.extend((0..4).map(|lane| block.get(lane).map_or(0.0, |row| row[i])));
        }
    }
    out
}

/// Weights of `conv_f32` and `conv_f32_1x1`, given as [out, kernel height, kernel width, in / groups].
pub fn pack_conv_f32(weights: &[f32], g: &Geometry) -> Vec<f32> {
    let depth = g.depth();
    let group = (g.out_c / g.groups.max(1)).max(1) * depth.max(1);
    let each = weights.chunks(group).map(|rows| fours(rows, depth));
    each.collect::<Vec<_>>().concat()
}

/// Weights of `depthwise_f32`, given as [channel, kernel height, kernel width].
pub fn pack_depthwise_f32(weights: &[f32], g: &Geometry) -> Vec<f32> {
    let taps = g.kernel[0] * g.kernel[1];
    let tap = |t: usize| weights.iter().skip(t).step_by(taps.max(1)).copied();
    (0..taps).flat_map(tap).collect()
}

/// Weights of `dense_f32`, given as [out, in].
pub fn pack_dense_f32(weights: &[f32], inputs: usize) -> Vec<f32> {
    fours(weights, inputs)
}

/// Bytes of scratch of `conv_f32` and `conv_f32_1x1`.
pub fn scratch_conv_f32(g: &Geometry) -> usize {
    8 * g.depth()
}

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

/// Weights of `lstm_f32`: [4 * hidden, in] and [4 * hidden, hidden], gates in ONNX's order (input, output,
/// forget, cell).
pub fn pack_lstm_f32(w: &[f32], r: &[f32], inputs: usize, hidden: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for unit in 0..hidden {
        for (matrix, depth) in [(w, inputs), (r, hidden)] {
            let at = |gate: usize, i: usize| matrix[(gate * hidden + unit) * depth + i];
            out.extend((0..depth).flat_map(|i| [0, 1, 2, 3].map(|gate| at(gate, i))));
        }
    }
    out
}

/// Biases of `lstm_f32`: those of x and of h, [4 * hidden] each, added.
pub fn bias_lstm_f32(w: &[f32], r: &[f32], hidden: usize) -> Vec<f32> {
    let at = |unit: usize, gate: usize| w[gate * hidden + unit] + r[gate * hidden + unit];
    let unit = |unit: usize| [0, 1, 2, 3].map(|gate| at(unit, gate));
    (0..hidden).flat_map(unit).collect()
}

/// Weights of `gru_f32`: [3 * hidden, in] and [3 * hidden, hidden], gates in ONNX's order (update, reset,
/// new), and those that it reads again where the reset gate comes before (`linear_before_reset` of 0).
pub fn pack_gru_f32(
    w: &[f32],
    r: &[f32],
    inputs: usize,
    hidden: usize,
    after: bool,
) -> (Vec<f32>, Vec<f32>) {
    let mut out = Vec::new();
    for unit in 0..hidden {
        let x = |gate: usize, i: usize| w[(gate * hidden + unit) * inputs + i];
        out.extend((0..inputs).flat_map(|i| [x(0, i), x(1, i), x(2, i), 0.0]));
        let h = |gate: usize, i: usize| r[(gate * hidden + unit) * hidden + i];
        let new = |i: usize| if after { h(2, i) } else { 0.0 };
        out.extend((0..hidden).flat_map(|i| [h(0, i), h(1, i), 0.0, new(i)]));
    }
    let again = if after {
        &[][..]
    } else {
        &r[2 * hidden * hidden..]
    };
    (out, fours(again, hidden))
}

/// Biases of `gru_f32`: those of x and of h, [3 * hidden] each.
pub fn bias_gru_f32(w: &[f32], r: &[f32], hidden: usize) -> Vec<f32> {
    let both = |unit: usize, gate: usize| w[gate * hidden + unit] + r[gate * hidden + unit];
    let new = 2 * hidden;
    let unit = |unit: usize| [both(unit, 0), both(unit, 1), w[new + unit], r[new + unit]];
    (0..hidden).flat_map(unit).collect()
}

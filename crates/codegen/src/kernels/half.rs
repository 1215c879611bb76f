//! The list of kernels on halves, and how their weights lie.

use half::f16;

use super::{Flavour, Geometry, Kernel};

pub(super) static HALF: Kernel = Kernel {
    name: "half",
    about: "halves, and the sizes of layers of them",
    needs: &["base"],
    source: |f| match f {
        Flavour::Mve => concat!("#include <arm_mve.h>\n\n", include_str!("f16/half.c")),
        _ => include_str!("f16/half.c"),
    },
};

pub(super) static BLOCK_F16: Kernel = Kernel {
    name: "block_f16",
    about: "two windows times all channels on f16",
    needs: &["half"],
    source: |f| match f {
        Flavour::Mve => include_str!("f16/block_mve.c"),
        _ => include_str!("f16/block_c.c"),
    },
};

pub(super) static WINDOW_F16: Kernel = Kernel {
    name: "window_f16",
    about: "what an output pixel sees, on f16",
    needs: &["half"],
    source: |_| include_str!("f16/window.c"),
};

pub(super) static CONV_F16: Kernel = Kernel {
    name: "conv_f16",
    about: "any convolution on f16",
    needs: &["window_f16", "block_f16"],
    source: |_| include_str!("f16/conv.c"),
};

pub(super) static DEPTHWISE_F16: Kernel = Kernel {
    name: "depthwise_f16",
    about: "any depthwise convolution on f16",
    needs: &["half"],
    source: |f| match f {
        Flavour::Mve => include_str!("f16/depthwise_mve.c"),
        _ => include_str!("f16/depthwise_c.c"),
    },
};

pub(super) static DENSE_F16: Kernel = Kernel {
    name: "dense_f16",
    about: "rows of f16 times a matrix",
    needs: &["block_f16"],
    source: |_| include_str!("f16/dense.c"),
};

pub(super) static TO_HALF: Kernel = Kernel {
    name: "to_half",
    about: "f32 to f16",
    needs: &["half"],
    source: |_| include_str!("f16/to.c"),
};

pub(super) static FROM_HALF: Kernel = Kernel {
    name: "from_half",
    about: "f16 to f32",
    needs: &["half"],
    source: |_| include_str!("f16/from.c"),
};

/// Rows of `depth` weights by eights of rows: a weight of each in turn, filled by zeros.
fn eights(rows: &[f32], depth: usize) -> Vec<f16> {
    let rows: Vec<&[f32]> = rows.chunks(depth.max(1)).collect();
    let mut out = Vec::new();
    for block in rows.chunks(8) {
        for i in 0..depth {
            let lane = |lane| {
                block
                    .get(lane)
                    .map_or(f16::ZERO, |row: &&[f32]| f16::from_f32(row[i]))
            };
            out.extend((0..8).map(lane));
        }
    }
    out
}

/// Weights of `conv_f16`, given as [out, kernel height, kernel width, in / groups].
pub fn pack_conv_f16(weights: &[f32], g: &Geometry) -> Vec<f16> {
    let depth = g.depth();
    let group = (g.out_c / g.groups.max(1)).max(1) * depth.max(1);
    let each = weights.chunks(group).map(|rows| eights(rows, depth));
    each.collect::<Vec<_>>().concat()
}

/// Weights of `depthwise_f16`, given as [channel, kernel height, kernel width].
pub fn pack_depthwise_f16(weights: &[f32], g: &Geometry) -> Vec<f16> {
    let taps = g.kernel[0] * g.kernel[1];
    let tap = |t: usize| {
        weights
            .iter()
            .skip(t)
            .step_by(taps.max(1))
            .map(|&w| f16::from_f32(w))
    };
    (0..taps).flat_map(tap).collect()
}

/// Weights of `dense_f16`, given as [out, in].
pub fn pack_dense_f16(weights: &[f32], inputs: usize) -> Vec<f16> {
    eights(weights, inputs)
}

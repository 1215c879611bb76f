//! The list of kernels on int16 by weights of 8 bits, and what they compute, in Rust.

use super::Kernel;

pub(super) static REQUANT16: Kernel = Kernel {
    name: "requant16",
    about: "a sum of 64 bits to int16, by a multiplier for each channel",
    needs: &["base"],
    source: |_| include_str!("int16/requant.c"),
};

pub(super) static CONV16: Kernel = Kernel {
    name: "conv16",
    about: "any convolution on int16",
    needs: &["requant16"],
    source: |_| include_str!("int16/conv.c"),
};

pub(super) static DENSE16: Kernel = Kernel {
    name: "dense16",
    about: "rows of int16 times a matrix",
    needs: &["requant16"],
    source: |_| include_str!("int16/dense.c"),
};

/// `clamp((acc * mult + 2^(shift - 1)) >> shift, lo, hi)`.
pub fn requantise16(acc: i64, mult: i32, shift: u32, bounds: [i32; 2]) -> i16 {
    let y = (acc * i64::from(mult) + (1 << (shift - 1))) >> shift;
    y.clamp(bounds[0].into(), bounds[1].into()) as i16
}

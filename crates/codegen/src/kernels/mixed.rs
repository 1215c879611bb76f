//! The list of kernels from bytes to floats, and of small ones on f32.

use super::Kernel;

pub(super) static DENSE8_F32: Kernel = Kernel {
    name: "dense8_f32",
    about: "rows of int8 times a matrix, to f32",
    needs: &["base"],
    source: |_| include_str!("mixed/dense8_f32.c"),
};

pub(super) static FILL_F32: Kernel = Kernel {
    name: "fill_f32",
    about: "the same f32 everywhere",
    needs: &["base"],
    source: |_| include_str!("mixed/fill.c"),
};

pub(super) static LEAKY_F32: Kernel = Kernel {
    name: "leaky_f32",
    about: "each f32 with a slope below 0",
    needs: &["base"],
    source: |_| include_str!("mixed/leaky.c"),
};

pub(super) static HARDSIGMOID_F32: Kernel = Kernel {
    name: "hardsigmoid_f32",
    about: "the hard logistic function of each f32",
    needs: &["base"],
    source: |_| include_str!("mixed/hardsigmoid.c"),
};

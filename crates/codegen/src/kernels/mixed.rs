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

pub(super) static FLOOR_F32: Kernel = Kernel {
    name: "floor_f32",
    about: "the whole number at or below each f32",
    needs: &["unary_f32", "floor_of"],
    source: |_| include_str!("mixed/floor.c"),
};

pub(super) static CEIL_F32: Kernel = Kernel {
    name: "ceil_f32",
    about: "the whole number at or above each f32",
    needs: &["unary_f32", "floor_of"],
    source: |_| include_str!("mixed/ceil.c"),
};

pub(super) static SIGN_F32: Kernel = Kernel {
    name: "sign_f32",
    about: "-1, 0 or 1 by the sign of each f32",
    needs: &["unary_f32"],
    source: |_| include_str!("mixed/sign.c"),
};

pub(super) static RECIPROCAL_F32: Kernel = Kernel {
    name: "reciprocal_f32",
    about: "1 over each f32",
    needs: &["unary_f32"],
    source: |_| include_str!("mixed/reciprocal.c"),
};

pub(super) static SOFTSIGN_F32: Kernel = Kernel {
    name: "softsign_f32",
    about: "each f32 over 1 and its size",
    needs: &["unary_f32"],
    source: |_| include_str!("mixed/softsign.c"),
};

pub(super) static SOFTPLUS_F32: Kernel = Kernel {
    name: "softplus_f32",
    about: "log of 1 and exp of each f32",
    needs: &["unary_f32", "exp_of", "log_of"],
    source: |_| include_str!("mixed/softplus.c"),
};

pub(super) static FLOOR_OF: Kernel = Kernel {
    name: "floor_of",
    about: "the whole number at or below one",
    needs: &["base"],
    source: |_| include_str!("mixed/floor_of.c"),
};

pub(super) static ELU_F32: Kernel = Kernel {
    name: "elu_f32",
    about: "each f32, or an exponential below 0",
    needs: &["exp_of"],
    source: |_| include_str!("mixed/elu.c"),
};

pub(super) static QUANTIZE16: Kernel = Kernel {
    name: "quantize16",
    about: "f32 to int16",
    needs: &["base"],
    source: |_| include_str!("mixed/quantize16.c"),
};

pub(super) static DEQUANTIZE16: Kernel = Kernel {
    name: "dequantize16",
    about: "int16 to f32",
    needs: &["base"],
    source: |_| include_str!("mixed/dequantize16.c"),
};

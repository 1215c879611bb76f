//! The list of kernels on f32.

use super::Kernel;
use super::int8::by;

/// A row of the list.
const fn row(
    name: &'static str,
    about: &'static str,
    needs: &'static [&'static str],
    source: fn(super::Flavour) -> &'static str,
) -> Kernel {
    Kernel {
        name,
        about,
        needs,
        source,
    }
}

pub(super) static CONVF: Kernel = row(
    "convf",
    "the sizes of a convolution on f32",
    &["base"],
    |_| include_str!("f32/conv.c"),
);
pub(super) static TILE: Kernel = row(
    "tile_f32",
    "two windows of f32 times four channels",
    &["base"],
    |f| {
        let vectors = concat!(
            "#if defined(__ARM_FEATURE_MVE) && ((__ARM_FEATURE_MVE & 2) != 0)\n",
            include_str!("f32/tile_mve.c"),
            "#else\n",
            include_str!("f32/tile_c.c"),
            "#endif\n"
        );
        let unit = concat!(
            "#if defined(__ARM_FEATURE_FMA) && defined(__ARM_FP) && ((__ARM_FP & 4) != 0)\n",
            include_str!("f32/tile_fpu.c"),
            "#else\n",
            include_str!("f32/tile_c.c"),
            "#endif\n"
        );
        by(f, [include_str!("f32/tile_c.c"), unit, vectors])
    },
);
pub(super) static ROW: Kernel = row(
    "row_f32",
    "a row of f32 times four channels",
    &["base"],
    |f| {
        let vectors = concat!(
            "#if defined(__ARM_FEATURE_MVE) && ((__ARM_FEATURE_MVE & 2) != 0)\n",
            include_str!("f32/row_mve.c"),
            "#else\n",
            include_str!("f32/row_c.c"),
            "#endif\n"
        );
        let unit = concat!(
            "#if defined(__ARM_FEATURE_FMA) && defined(__ARM_FP) && ((__ARM_FP & 4) != 0)\n",
            include_str!("f32/row_fpu.c"),
            "#else\n",
            include_str!("f32/row_c.c"),
            "#endif\n"
        );
        by(f, [include_str!("f32/row_c.c"), unit, vectors])
    },
);
pub(super) static TAPS: Kernel = row(
    "taps_f32",
    "four channels of the taps of a window on f32",
    &["base"],
    |f| {
        let vectors = concat!(
            "#if defined(__ARM_FEATURE_MVE) && ((__ARM_FEATURE_MVE & 2) != 0)\n",
            include_str!("f32/taps_mve.c"),
            "#else\n",
            include_str!("f32/taps_c.c"),
            "#endif\n"
        );
        let unit = concat!(
            "#if defined(__ARM_FEATURE_FMA) && defined(__ARM_FP) && ((__ARM_FP & 4) != 0)\n",
            include_str!("f32/taps_fpu.c"),
            "#else\n",
            include_str!("f32/taps_c.c"),
            "#endif\n"
        );
        by(f, [include_str!("f32/taps_c.c"), unit, vectors])
    },
);
pub(super) static BLOCK: Kernel = row(
    "block_f32",
    "two windows times all channels on f32",
    &["convf", "tile_f32"],
    |_| include_str!("f32/block.c"),
);
pub(super) static CONV: Kernel = row(
    "conv_f32",
    "any convolution on f32",
    &["convf", "block_f32"],
    |_| include_str!("f32/conv_any.c"),
);
pub(super) static CONV_1X1: Kernel = row(
    "conv_f32_1x1",
    "a convolution 1x1 on f32 with stride 1, no padding and one group",
    &["convf", "block_f32"],
    |_| include_str!("f32/conv_1x1.c"),
);
pub(super) static DEPTHWISE: Kernel = row(
    "depthwise_f32",
    "any depthwise convolution on f32",
    &["convf", "taps_f32"],
    |_| include_str!("f32/depthwise.c"),
);
pub(super) static DENSE: Kernel = row(
    "dense_f32",
    "rows of f32 times a matrix",
    &["convf", "row_f32"],
    |_| include_str!("f32/dense.c"),
);
pub(super) static BROADCAST: Kernel = row("broadcast", "two operands by steps", &["base"], |_| {
    include_str!("f32/broadcast.c")
});
pub(super) static ADD: Kernel = row(
    "add_f32",
    "the sum of two f32 with repetition",
    &["broadcast"],
    |_| include_str!("f32/add.c"),
);
pub(super) static SUB: Kernel = row(
    "sub_f32",
    "the difference of two f32 with repetition",
    &["broadcast"],
    |_| include_str!("f32/sub.c"),
);
pub(super) static MUL: Kernel = row(
    "mul_f32",
    "the product of two f32 with repetition",
    &["broadcast"],
    |_| include_str!("f32/mul.c"),
);
pub(super) static DIV: Kernel = row(
    "div_f32",
    "the quotient of two f32 with repetition",
    &["broadcast"],
    |_| include_str!("f32/div.c"),
);
pub(super) static MIN: Kernel = row(
    "min_f32",
    "the lesser of two f32 with repetition",
    &["broadcast"],
    |_| include_str!("f32/min.c"),
);
pub(super) static MAX: Kernel = row(
    "max_f32",
    "the greater of two f32 with repetition",
    &["broadcast"],
    |_| include_str!("f32/max.c"),
);
pub(super) static UNARY: Kernel = row("unary_f32", "a function of each number", &["base"], |_| {
    include_str!("f32/unary.c")
});
pub(super) static CLIP: Kernel = row("clip_f32", "f32 between bounds", &["base"], |_| {
    include_str!("f32/clip.c")
});
pub(super) static EXP_OF: Kernel = row("exp_of", "e to a power", &["base"], |_| {
    include_str!("f32/exp_of.c")
});
pub(super) static LOG_OF: Kernel = row("log_of", "the natural logarithm", &["base"], |_| {
    include_str!("f32/log_of.c")
});
pub(super) static TANH_OF: Kernel = row("tanh_of", "the hyperbolic tangent", &["exp_of"], |_| {
    include_str!("f32/tanh_of.c")
});
pub(super) static SIGMOID_OF: Kernel =
    row("sigmoid_of", "the logistic function", &["exp_of"], |_| {
        include_str!("f32/sigmoid_of.c")
    });
pub(super) static ERF_OF: Kernel = row("erf_of", "the error function", &["exp_of"], |_| {
    include_str!("f32/erf_of.c")
});
pub(super) static SQRT_OF: Kernel = row("sqrt_of", "the square root", &["base"], |_| {
    include_str!("f32/sqrt_of.c")
});
pub(super) static EXP: Kernel = row(
    "exp_f32",
    "exp of each f32",
    &["unary_f32", "exp_of"],
    |_| include_str!("f32/exp.c"),
);
pub(super) static LOG: Kernel = row(
    "log_f32",
    "log of each f32",
    &["unary_f32", "log_of"],
    |_| include_str!("f32/log.c"),
);
pub(super) static TANH: Kernel = row(
    "tanh_f32",
    "tanh of each f32",
    &["unary_f32", "tanh_of"],
    |_| include_str!("f32/tanh.c"),
);
pub(super) static SIGMOID: Kernel = row(
    "sigmoid_f32",
    "sigmoid of each f32",
    &["unary_f32", "sigmoid_of"],
    |_| include_str!("f32/sigmoid.c"),
);
pub(super) static ERF: Kernel = row(
    "erf_f32",
    "erf of each f32",
    &["unary_f32", "erf_of"],
    |_| include_str!("f32/erf.c"),
);
pub(super) static SQRT: Kernel = row(
    "sqrt_f32",
    "sqrt of each f32",
    &["unary_f32", "sqrt_of"],
    |_| include_str!("f32/sqrt.c"),
);
pub(super) static NEG: Kernel = row(
    "neg_f32",
    "each f32 with the other sign",
    &["unary_f32"],
    |_| include_str!("f32/neg.c"),
);
pub(super) static ABS: Kernel = row(
    "abs_f32",
    "each f32 without its sign",
    &["unary_f32"],
    |_| include_str!("f32/abs.c"),
);
pub(super) static GELU: Kernel = row(
    "gelu_f32",
    "GELU of each f32 by the error function",
    &["unary_f32", "erf_of"],
    |_| include_str!("f32/gelu.c"),
);
pub(super) static SILU: Kernel = row(
    "silu_f32",
    "each f32 times its logistic function",
    &["unary_f32", "sigmoid_of"],
    |_| include_str!("f32/silu.c"),
);
pub(super) static HARDSWISH: Kernel = row(
    "hardswish_f32",
    "the hard swish of each f32",
    &["unary_f32"],
    |_| include_str!("f32/hardswish.c"),
);
pub(super) static SOFTMAX: Kernel =
    row("softmax_f32", "softmax of rows of f32", &["exp_of"], |_| {
        include_str!("f32/softmax.c")
    });
pub(super) static MAXPOOL: Kernel = row(
    "maxpool_f32",
    "the greatest f32 of each window",
    &["pool"],
    |_| include_str!("f32/maxpool.c"),
);
pub(super) static AVGPOOL: Kernel = row(
    "avgpool_f32",
    "the mean of the f32 of each window",
    &["pool"],
    |_| include_str!("f32/avgpool.c"),
);
pub(super) static LAYER_NORM: Kernel = row(
    "layer_norm_f32",
    "normalised rows of f32",
    &["sqrt_of"],
    |_| include_str!("f32/layer_norm.c"),
);
pub(super) static REDUCE: Kernel = row(
    "reduce_f32",
    "a fold over the middle of three axes",
    &["base"],
    |_| include_str!("f32/reduce.c"),
);
pub(super) static REDUCE_SUM: Kernel = row(
    "reduce_sum_f32",
    "the sum over the middle of three axes",
    &["reduce_f32"],
    |_| include_str!("f32/reduce_sum.c"),
);
pub(super) static REDUCE_MEAN: Kernel = row(
    "reduce_mean_f32",
    "the mean over the middle of three axes",
    &["reduce_f32"],
    |_| include_str!("f32/reduce_mean.c"),
);
pub(super) static REDUCE_MAX: Kernel = row(
    "reduce_max_f32",
    "the max over the middle of three axes",
    &["reduce_f32"],
    |_| include_str!("f32/reduce_max.c"),
);
pub(super) static QUANTIZE: Kernel = row("quantize8", "f32 to int8", &["base"], |_| {
    include_str!("f32/quantize.c")
});
pub(super) static DEQUANTIZE: Kernel = row("dequantize8", "int8 to f32", &["base"], |_| {
    include_str!("f32/dequantize.c")
});

pub(super) static LSTM: Kernel = row(
    "lstm_f32",
    "a step of an LSTM on f32",
    &["row_f32", "sigmoid_of", "tanh_of"],
    |_| include_str!("f32/lstm.c"),
);

pub(super) static GRU: Kernel = row(
    "gru_f32",
    "a step of a GRU on f32",
    &["row_f32", "sigmoid_of", "tanh_of"],
    |_| include_str!("f32/gru.c"),
);

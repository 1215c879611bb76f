//! Kernels in C: what each is called, the text of each by flavour, and how weights are packed for it.

mod elementwise8;
mod half;
mod int16;
mod int8;
pub mod integer;
mod mixed;
mod pack;
mod pack_f32;
mod pack_w4;
mod real;

pub use pack::{
    Geometry, depthwise_in_place, pack_conv, pack_dense, pack_depthwise, pack_depthwise_3x3,
    pixels, scratch_conv, scratch_conv_1x1, scratch_depthwise, scratch_depthwise_3x3,
};

pub use half::{pack_conv_f16, pack_dense_f16, pack_depthwise_f16};
pub use int16::requantise16;
pub use pack_f32::{
    bias_gru_f32, bias_lstm_f32, pack_conv_f32, pack_dense_f32, pack_depthwise_f32, pack_gru_f32,
    pack_lstm_f32, scratch_conv_f32,
};
pub use pack_w4::{pack_conv_w4, pack_dense_w4, scratch_conv_1x1_w4, scratch_conv_w4};

/// Which instructions the text of a kernel may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// C99 alone.
    C,
    /// The DSP extension of Cortex-M: two products of 16 bits in one instruction.
    Dsp,
    /// Helium, the vectors of Cortex-M.
    Mve,
}

/// A fragment of C.
pub struct Kernel {
    /// What its function is called behind the prefix.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// The fragments that stand before it.
    pub needs: &'static [&'static str],
    /// The text, with `es_` and `ES_` where the prefix comes.
    pub source: fn(Flavour) -> &'static str,
}

/// Every fragment, each after those that it needs.
pub static KERNELS: &[&Kernel] = &[
    &int8::BASE,
    &int8::REQUANT,
    &int8::CONV,
    &int8::WINDOW8,
    &int8::PARTS8,
    &int8::SEE8,
    &int8::BLOCK8,
    &int8::BLOCK8_W4,
    &int8::CONV8,
    &int8::CONV8_1X1,
    &int8::CONV8_W4,
    &int8::CONV8_1X1_W4,
    &int8::DEPTHWISE8,
    &int8::DEPTHWISE8_3X3,
    &int8::DENSE,
    &int8::ROWS8,
    &int8::ROWS8_W4,
    &int8::DENSE8,
    &int8::DENSE8_W4,
    &elementwise8::ADD8,
    &elementwise8::MUL8,
    &elementwise8::POOL,
    &elementwise8::MAXPOOL8,
    &elementwise8::AVGPOOL8,
    &elementwise8::MEAN8,
    &elementwise8::LOOKUP8,
    &elementwise8::SOFTMAX8,
    &elementwise8::MOVE,
    &elementwise8::RESIZE_NEAREST,
    &real::CONVF,
    &real::TILE,
    &real::ROW,
    &real::TAPS,
    &real::BLOCK,
    &real::CONV,
    &real::CONV_1X1,
    &real::DEPTHWISE,
    &real::DENSE,
    &real::BROADCAST,
    &real::ADD,
    &real::SUB,
    &real::MUL,
    &real::DIV,
    &real::MIN,
    &real::MAX,
    &real::UNARY,
    &real::CLIP,
    &real::EXP_OF,
    &real::LOG_OF,
    &real::TANH_OF,
    &real::SIGMOID_OF,
    &real::ERF_OF,
    &real::SQRT_OF,
    &real::EXP,
    &real::LOG,
    &real::TANH,
    &real::SIGMOID,
    &real::ERF,
    &real::SQRT,
    &real::NEG,
    &real::ABS,
    &real::GELU,
    &real::SILU,
    &real::HARDSWISH,
    &real::SOFTMAX,
    &real::MAXPOOL,
    &real::AVGPOOL,
    &real::LAYER_NORM,
    &real::REDUCE,
    &real::REDUCE_SUM,
    &real::REDUCE_MEAN,
    &real::REDUCE_MAX,
    &real::LSTM,
    &real::GRU,
    &real::QUANTIZE,
    &real::DEQUANTIZE,
    &int16::REQUANT16,
    &int16::CONV16,
    &int16::DENSE16,
    &half::HALF,
    &half::WINDOW_F16,
    &half::BLOCK_F16,
    &half::CONV_F16,
    &half::DEPTHWISE_F16,
    &half::DENSE_F16,
    &half::TO_HALF,
    &half::FROM_HALF,
    &mixed::DENSE8_F32,
    &mixed::FILL_F32,
    &mixed::LEAKY_F32,
    &mixed::HARDSIGMOID_F32,
    &mixed::QUANTIZE16,
    &mixed::DEQUANTIZE16,
    &mixed::FLOOR_OF,
    &mixed::ELU_F32,
    &mixed::FLOOR_F32,
    &mixed::CEIL_F32,
    &mixed::SIGN_F32,
    &mixed::RECIPROCAL_F32,
    &mixed::SOFTSIGN_F32,
    &mixed::SOFTPLUS_F32,
];

/// The C text of the named kernels and of what they need, each once, in the order of [`KERNELS`], with
/// `prefix` and `_` in place of `es_`, and the same in capitals in place of `ES_`. Names that are not in
/// the list add nothing.
pub fn text(flavour: Flavour, names: &[&str], prefix: &str) -> String {
    let mut wanted: Vec<&str> = names.to_vec();
    for kernel in KERNELS.iter().rev() {
        if wanted.contains(&kernel.name) {
            wanted.extend(kernel.needs);
        }
    }
    let parts: Vec<String> = KERNELS
        .iter()
        .filter(|k| wanted.contains(&k.name))
        .map(|k| renamed((k.source)(flavour), prefix))
        .filter(|t| !t.is_empty())
        .collect();
    parts.join("\n")
}

/// The text with the prefix at the start of words instead of `es_` and `ES_`.
fn renamed(text: &str, prefix: &str) -> String {
    let upper = prefix.to_uppercase();
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let starts = !(before.is_ascii_alphanumeric() || before == '_');
        let new = match rest.get(..3) {
            Some("es_") if starts => prefix,
            Some("ES_") if starts => &upper,
            _ => {
                out.push(c);
                before = c;
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        out.push_str(new);
        out.push('_');
        before = '_';
        rest = &rest[3..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_holds_what_a_kernel_needs_once_and_in_order() {
        let c = text(Flavour::C, &["conv8_1x1", "conv8"], "kws");
        let place = |what: &str| {
            let all: Vec<usize> = c.match_indices(what).map(|m| m.0).collect();
            assert_eq!(all.len(), 1, "{what}");
            all[0]
        };
        assert!(place("} kws_requant;") < place("} kws_conv;"));
        assert!(place("} kws_conv;") < place("static void kws_conv8(const"));
        assert!(!c.contains("es_") || !c.contains(" es_"));
        assert!(c.contains("KWS_NOINLINE") && !c.contains("dense8"));
    }

    #[test]
    fn only_the_start_of_a_word_is_renamed() {
        assert_eq!(renamed("es_a bytes_left ES_B", "m"), "m_a bytes_left M_B");
    }

    #[test]
    fn needs_stand_before_and_names_are_unique() {
        for (i, k) in KERNELS.iter().enumerate() {
            for need in k.needs {
                assert!(KERNELS[..i].iter().any(|n| n.name == *need), "{need}");
            }
            assert!(KERNELS[..i].iter().all(|n| n.name != k.name), "{}", k.name);
        }
    }
}

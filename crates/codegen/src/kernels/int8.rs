//! The list of kernels on int8 that multiply: convolutions and dense layers.

use super::{Flavour, Kernel};
use std::sync::OnceLock;

/// Texts that are made once, by flavour.
type Texts = [OnceLock<String>; 3];

/// The text of a kernel with the functions for weights of 4 bits instead of those for 8.
fn four_bits(made: &'static Texts, flavour: Flavour, kernel: &Kernel) -> &'static str {
    made[flavour as usize].get_or_init(|| {
        let functions = [
            "conv8",
            "conv8_1x1",
            "block8",
            "block8_words",
            "block8_bytes",
            "block8_size",
            "dense8",
            "dense8_steps",
            "dense8_fold",
        ];
        let mut text = (kernel.source)(flavour).to_owned();
        for function in functions {
            let new = match function.split_once("8_") {
                Some((name, rest)) if !function.contains("1x1") => format!("{name}8_w4_{rest}"),
                _ => format!("{function}_w4"),
            };
            text = text.replace(&format!("es_{function}("), &format!("es_{new}("));
        }
        text
    })
}

/// The one of three texts that is for the flavour.
pub(super) fn by(flavour: Flavour, texts: [&'static str; 3]) -> &'static str {
    match flavour {
        Flavour::C => texts[0],
        Flavour::Dsp => texts[1],
        Flavour::Mve => texts[2],
    }
}

pub(super) static BASE: Kernel = Kernel {
    name: "base",
    about: "headers, and instructions that C has no word for",
    needs: &[],
    source: |f| {
        let texts = [
            include_str!("base/c.c"),
            include_str!("base/dsp.c"),
            include_str!("base/mve.c"),
        ];
        by(f, texts)
    },
};

pub(super) static REQUANT: Kernel = Kernel {
    name: "requant",
    about: "a sum of 32 bits to int8, by a multiplier for each channel",
    needs: &["base"],
    source: |f| {
        let texts = [
            include_str!("requant/c.c"),
            include_str!("requant/dsp.c"),
            include_str!("requant/dsp.c"),
        ];
        by(f, texts)
    },
};

pub(super) static CONV: Kernel = Kernel {
    name: "conv",
    about: "the sizes of a convolution",
    needs: &["requant"],
    source: |_| include_str!("conv/c.c"),
};

pub(super) static WINDOW8: Kernel = Kernel {
    name: "window8",
    about: "the bytes that an output pixel sees",
    needs: &["conv"],
    source: |_| include_str!("window8/c.c"),
};

pub(super) static PARTS8: Kernel = Kernel {
    name: "parts8",
    about: "what blocks of 8 and of 4 bits share",
    needs: &["requant"],
    source: |f| {
        let texts = [
            "",
            include_str!("parts8/dsp.c"),
            include_str!("parts8/mve.c"),
        ];
        by(f, texts)
    },
};

pub(super) static SEE8: Kernel = Kernel {
    name: "see8",
    about: "a window as words of two numbers",
    needs: &["window8", "parts8"],
    source: |f| {
        let texts = ["", include_str!("see8/dsp.c"), ""];
        by(f, texts)
    },
};

pub(super) static BLOCK8: Kernel = Kernel {
    name: "block8",
    about: "two windows times all channels",
    needs: &["parts8"],
    source: |f| {
        let texts = [
            include_str!("block8/c.c"),
            include_str!("block8/dsp.c"),
            include_str!("block8/mve.c"),
        ];
        by(f, texts)
    },
};

pub(super) static BLOCK8_W4: Kernel = Kernel {
    name: "block8_w4",
    about: "two windows times all channels with weights of 4 bits",
    needs: &["parts8"],
    source: |f| {
        let texts = [
            include_str!("block8_w4/c.c"),
            include_str!("block8_w4/dsp.c"),
            include_str!("block8_w4/mve.c"),
        ];
        by(f, texts)
    },
};

pub(super) static CONV8: Kernel = Kernel {
    name: "conv8",
    about: "any convolution on int8",
    needs: &["window8", "see8", "block8"],
    source: |f| {
        let texts = [
            include_str!("conv8/c.c"),
            include_str!("conv8/dsp.c"),
            include_str!("conv8/mve.c"),
        ];
        by(f, texts)
    },
};

pub(super) static CONV8_1X1: Kernel = Kernel {
    name: "conv8_1x1",
    about: "a convolution 1x1 on int8 with stride 1, no padding and one group",
    needs: &["conv", "block8"],
    source: |f| {
        let texts = [
            include_str!("conv8_1x1/c.c"),
            include_str!("conv8_1x1/dsp.c"),
            include_str!("conv8_1x1/mve.c"),
        ];
        by(f, texts)
    },
};

pub(super) static CONV8_W4: Kernel = Kernel {
    name: "conv8_w4",
    about: "any convolution on int8 with weights of 4 bits",
    needs: &["window8", "see8", "block8_w4"],
    source: |f| {
        static TEXTS: Texts = [const { OnceLock::new() }; 3];
        four_bits(&TEXTS, f, &CONV8)
    },
};

pub(super) static CONV8_1X1_W4: Kernel = Kernel {
    name: "conv8_1x1_w4",
    about: "conv8_1x1 with weights of 4 bits",
    needs: &["conv", "block8_w4"],
    source: |f| {
        static TEXTS: Texts = [const { OnceLock::new() }; 3];
        four_bits(&TEXTS, f, &CONV8_1X1)
    },
};

pub(super) static DEPTHWISE8: Kernel = Kernel {
    name: "depthwise8",
    about: "any depthwise convolution on int8",
    needs: &["conv"],
    source: |f| {
        let texts = [
            include_str!("depthwise8/c.c"),
            include_str!("depthwise8/dsp.c"),
            include_str!("depthwise8/mve.c"),
        ];
        by(f, texts)
    },
};

pub(super) static DEPTHWISE8_3X3: Kernel = Kernel {
    name: "depthwise8_3x3",
    about: "a depthwise convolution 3x3 on int8 with stride 1 or 2 and no dilation; the shift is 8 at most",
    needs: &["conv"],
    source: |f| {
        let texts = [
            include_str!("depthwise8_3x3/c.c"),
            include_str!("depthwise8_3x3/dsp.c"),
            include_str!("depthwise8_3x3/mve.c"),
        ];
        by(f, texts)
    },
};

pub(super) static DENSE: Kernel = Kernel {
    name: "dense",
    about: "the sizes of a dense layer",
    needs: &["requant"],
    source: |f| {
        let texts = [
            include_str!("dense/c.c"),
            include_str!("dense/dsp.c"),
            include_str!("dense/c.c"),
        ];
        by(f, texts)
    },
};

pub(super) static ROWS8: Kernel = Kernel {
    name: "rows8",
    about: "a row of int8 times four channels",
    needs: &["dense"],
    source: |f| {
        let texts = ["", include_str!("rows8/dsp.c"), ""];
        by(f, texts)
    },
};

pub(super) static ROWS8_W4: Kernel = Kernel {
    name: "rows8_w4",
    about: "a row of int8 times four channels of 4 bits",
    needs: &["dense"],
    source: |f| {
        let texts = ["", include_str!("rows8_w4/dsp.c"), ""];
        by(f, texts)
    },
};

pub(super) static DENSE8: Kernel = Kernel {
    name: "dense8",
    about: "rows of int8 times a matrix",
    needs: &["rows8"],
    source: |f| {
        let texts = [
            include_str!("dense8/c.c"),
            include_str!("dense8/dsp.c"),
            include_str!("dense8/mve.c"),
        ];
        by(f, texts)
    },
};

pub(super) static DENSE8_W4: Kernel = Kernel {
    name: "dense8_w4",
    about: "rows of int8 times a matrix with weights of 4 bits",
    needs: &["rows8_w4"],
    source: |f| {
        static TEXTS: Texts = [const { OnceLock::new() }; 3];
        match f {
            Flavour::C => include_str!("dense8_w4/c.c"),
            Flavour::Dsp => four_bits(&TEXTS, f, &DENSE8),
            Flavour::Mve => include_str!("dense8_w4/mve.c"),
        }
    },
};

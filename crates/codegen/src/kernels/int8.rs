//! The list of kernels on int8 that multiply: convolutions and dense layers.

use super::{Flavour, Kernel};

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
        let (c, dsp, mve) = (
            include_str!("base/c.c"),
            include_str!("base/dsp.c"),
            include_str!("base/mve.c"),
        );
        by(f, [c, dsp, mve])
    },
};

pub(super) static REQUANT: Kernel = Kernel {
    name: "requant",
    about: "a sum of 32 bits to int8, by a multiplier for each channel",
    needs: &["base"],
    source: |f| {
        let (c, dsp, mve) = (
            include_str!("requant/c.c"),
            include_str!("requant/dsp.c"),
            include_str!("requant/dsp.c"),
        );
        by(f, [c, dsp, mve])
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

pub(super) static BLOCK8: Kernel = Kernel {
    name: "block8",
    about: "two windows times all channels",
    needs: &["requant"],
    source: |f| {
        let (c, dsp, mve) = (
            include_str!("block8/c.c"),
            include_str!("block8/dsp.c"),
            include_str!("block8/mve.c"),
        );
        by(f, [c, dsp, mve])
    },
};

pub(super) static CONV8: Kernel = Kernel {
    name: "conv8",
    about: "any convolution on int8",
    needs: &["conv", "window8", "block8"],
    source: |f| {
        let (c, dsp, mve) = (
            include_str!("conv8/c.c"),
            include_str!("conv8/dsp.c"),
            include_str!("conv8/mve.c"),
        );
        by(f, [c, dsp, mve])
    },
};

pub(super) static CONV8_1X1: Kernel = Kernel {
    name: "conv8_1x1",
    about: "a convolution 1x1 on int8 with stride 1, no padding and one group",
    needs: &["conv", "block8"],
    source: |f| {
        let (c, dsp, mve) = (
            include_str!("conv8_1x1/c.c"),
            include_str!("conv8_1x1/dsp.c"),
            include_str!("conv8_1x1/mve.c"),
        );
        by(f, [c, dsp, mve])
    },
};

pub(super) static DEPTHWISE8: Kernel = Kernel {
    name: "depthwise8",
    about: "any depthwise convolution on int8",
    needs: &["conv"],
    source: |f| {
        let (c, dsp, mve) = (
            include_str!("depthwise8/c.c"),
            include_str!("depthwise8/dsp.c"),
            include_str!("depthwise8/mve.c"),
        );
        by(f, [c, dsp, mve])
    },
};

pub(super) static DEPTHWISE8_3X3: Kernel = Kernel {
    name: "depthwise8_3x3",
    about: "a depthwise convolution 3x3 on int8 with stride 1 or 2 and no dilation",
    needs: &["conv"],
    source: |f| {
        let (c, dsp, mve) = (
            include_str!("depthwise8_3x3/c.c"),
            include_str!("depthwise8_3x3/dsp.c"),
            include_str!("depthwise8_3x3/mve.c"),
        );
        by(f, [c, dsp, mve])
    },
};

pub(super) static DENSE8: Kernel = Kernel {
    name: "dense8",
    about: "rows of int8 times a matrix",
    needs: &["requant"],
    source: |f| {
        let (c, dsp, mve) = (
            include_str!("dense8/c.c"),
            include_str!("dense8/dsp.c"),
            include_str!("dense8/mve.c"),
        );
        by(f, [c, dsp, mve])
    },
};

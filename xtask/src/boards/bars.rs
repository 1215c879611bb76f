//! What generated code has to reach, and what it was measured to do.

use std::fmt::Write as _;

use super::{Line, Way};

/// What is measured of a line.
enum Figure {
    /// Instructions of an inference.
    Instructions,
    /// Instructions of an inference by its MACs.
    PerMac,
    /// Instructions of the layer of that name by its MACs.
    LayerPerMac(&'static str),
    /// Bytes of the arena.
    Arena,
    /// Bytes of flash without the weights.
    Code,
    /// Samples that are wrong, in percent.
    Errors,
}

struct Bar {
    network: &'static str,
    /// Board, compiler and level; any where empty.
    way: [&'static str; 3],
    figure: Figure,
    /// The figure is at most this.
    most: f64,
    about: &'static str,
}

const fn bar(
    network: &'static str,
    way: [&'static str; 3],
    figure: Figure,
    most: f64,
    about: &'static str,
) -> Bar {
    Bar {
        network,
        way,
        figure,
        most,
        about,
    }
}

const M4: [&str; 3] = ["cortex-m4", "gcc", "O2"];
const M4_SMALL: [&str; 3] = ["cortex-m4", "gcc", "Os"];
const M55: [&str; 3] = ["cortex-m55", "clang", "O2"];

/// Every bar; those of peers were measured the same way, with GCC 12.2 at -O2.
static BARS: &[Bar] = &[
    bar("kws", M4, Figure::Errors, 10.0, "wrong answers in percent"),
    bar(
        "kws",
        M4,
        Figure::Instructions,
        6.0e6,
        "instructions; CMSIS-NN about 8.6 million",
    ),
    bar(
        "kws",
        M4,
        Figure::LayerPerMac("/conv2d_1/Conv"),
        1.8,
        "1x1 25x5x64 to 64, each MAC; CMSIS-NN 2.09",
    ),
    bar(
        "kws",
        M4,
        Figure::LayerPerMac("/depthwise_conv2d/Conv"),
        5.0,
        "depthwise 3x3 25x5x64, each MAC; CMSIS-NN 12.6, its special kernel 7.8",
    ),
    bar(
        "conv3x3_32",
        M4,
        Figure::PerMac,
        2.1,
        "3x3 32x32x16 to 16, each MAC; CMSIS-NN 2.33",
    ),
    bar(
        "conv3x3_16",
        M55,
        Figure::Instructions,
        0.24e6,
        "3x3 16x16x16 to 16; CMSIS-NN 0.26 million",
    ),
    bar(
        "conv3x3_16",
        M4,
        Figure::Instructions,
        0.2 * 11.4e6,
        "a fifth of onnx2c's 11.4 million; CMSIS-NN 1.37 million",
    ),
    bar(
        "conv3x3_16",
        M55,
        Figure::Instructions,
        0.2 * 11.2e6,
        "a fifth of onnx2c's 11.2 million",
    ),
    bar(
        "dense_256",
        M4,
        Figure::Instructions,
        0.2 * 99.5e3,
        "fully connected 256 to 64; a fifth of onnx2c's 99,500; CMSIS-NN 34,000",
    ),
    bar(
        "kws",
        M4,
        Figure::Arena,
        10240.0,
        "arena; greedy planners 16,000",
    ),
    bar(
        "resnet8",
        M4,
        Figure::Arena,
        36864.0,
        "arena; greedy planners 49,152",
    ),
    bar(
        "vww",
        M4,
        Figure::Arena,
        45056.0,
        "arena; greedy planners 64,512",
    ),
    bar("ad", M4, Figure::Arena, 768.0, "arena"),
    bar(
        "kws",
        M4_SMALL,
        Figure::Code,
        9216.0,
        "flash without weights",
    ),
    bar(
        "resnet8",
        M4_SMALL,
        Figure::Code,
        9216.0,
        "flash without weights",
    ),
    bar(
        "vww",
        M4_SMALL,
        Figure::Code,
        9216.0,
        "flash without weights",
    ),
    bar(
        "ad",
        M4_SMALL,
        Figure::Code,
        9216.0,
        "flash without weights",
    ),
];

impl Bar {
    fn fits(&self, line: &Line) -> bool {
        let Way {
            board,
            compiler,
            optimize,
            ..
        } = line.way;
        line.way.to == "int8"
            && line.network == self.network
            && [board, compiler, optimize] == self.way
    }

    fn measured(&self, line: &Line) -> Option<f64> {
        let ran = &line.made.run;
        let board = ran.measured.as_ref()?;
        Some(match self.figure {
            Figure::Instructions => board.instructions_max as f64,
            Figure::PerMac => board.instructions_max as f64 / line.macs() as f64,
            Figure::LayerPerMac(name) => {
                let at = line.made.layers.iter().position(|l| l.name == name)?;
                *board.layers.get(at)? as f64 / line.made.layers[at].macs as f64
            }
            Figure::Arena => ran.arena_bytes as f64,
            Figure::Code => board.flash.without_weights as f64,
            Figure::Errors => 100.0 * (1.0 - ran.right? as f64 / ran.samples as f64),
        })
    }
}

/// The bars whose figures were measured, as a table.
pub fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "\n## Bars\n\n| network | build | what | at most | measured | |\n|---|---|---|--:|--:|---|\n",
    );
    for bar in BARS {
        let line = lines.iter().find(|l| bar.fits(l));
        let Some((line, found)) = line.and_then(|l| Some((l, bar.measured(l)?))) else {
            continue;
        };
        let shown = |x: f64| match x < 1000.0 {
            true => format!("{x:.2}"),
            false => super::grouped(x as u64),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            bar.network,
            line.way.name(),
            bar.about,
            shown(bar.most),
            shown(found),
            if found <= bar.most {
                "met"
            } else {
                "**missed**"
            }
        );
    }
    text
}

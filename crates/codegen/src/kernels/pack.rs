//! How weights lie for each flavour, and how much scratch its kernels take.

use edgesmith_ir::geometry::{Axis, Window};

use super::Flavour;

/// The sizes of a convolution, as the kernels have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Rows read.
    pub in_h: usize,
    /// Columns read.
    pub in_w: usize,
    /// Channels read.
    pub in_c: usize,
    /// Rows written.
    pub out_h: usize,
    /// Columns written.
    pub out_w: usize,
    /// Channels written.
    pub out_c: usize,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Steps down and to the right.
    pub stride: [usize; 2],
    /// Padding above and to the left.
    pub pad: [usize; 2],
    /// Steps inside the kernel.
    pub dilation: [usize; 2],
    /// Groups of channels.
    pub groups: usize,
}

impl Geometry {
    /// Windows over one or two spatial axes, from `channels[0]` channels to `channels[1]`; rows are one
    /// where there is one axis.
    pub fn of(window: &Window, channels: [usize; 2], groups: usize) -> Self {
        let pick = |of: fn(&Axis) -> usize, none: usize| match window.axes.as_slice() {
            [rows, columns] => [of(rows), of(columns)],
            [columns] => [none, of(columns)],
            _ => [none; 2],
        };
        let ([in_h, in_w], [out_h, out_w]) = (pick(|a| a.input, 1), pick(|a| a.output, 1));
        let [in_c, out_c] = channels;
        Self {
            in_h,
            in_w,
            in_c,
            out_h,
            out_w,
            out_c,
            kernel: pick(|a| a.kernel, 1),
            stride: pick(|a| a.stride, 1),
            pad: pick(|a| a.begin, 0),
            dilation: pick(|a| a.dilation, 1),
            groups,
        }
    }

    /// Every size, in the order in which `es_conv` has them.
    pub fn sizes(&self) -> [usize; 15] {
        let [kernel_h, kernel_w] = self.kernel;
        let [stride_h, stride_w] = self.stride;
        let [pad_top, pad_left] = self.pad;
        let [dilation_h, dilation_w] = self.dilation;
        [
            self.in_h,
            self.in_w,
            self.in_c,
            self.out_h,
            self.out_w,
            self.out_c,
            kernel_h,
            kernel_w,
            stride_h,
            stride_w,
            pad_top,
            pad_left,
            dilation_h,
            dilation_w,
            self.groups,
        ]
    }

    /// Whether each channel has a group of its own, and there are several.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_c && self.groups == self.out_c
    }

    /// Products of a sum: the weights of an output channel.
    pub fn depth(&self) -> usize {
        self.kernel[0] * self.kernel[1] * (self.in_c / self.groups.max(1))
    }
}

/// How many output pixels [`conv8`](super::KERNELS) and `conv8_1x1` make before they read further.
pub fn pixels(_flavour: Flavour) -> usize {
    2
}

/// Bytes of what `es_block8` keeps behind the windows.
pub(super) const STATE: usize = 48;

/// Bytes of windows that a convolution of the DSP flavour keeps behind their words.
pub(super) fn bytes_of_windows(g: &Geometry) -> usize {
    match g.groups {
        1 if g.in_c.is_multiple_of(4) => 0,
        1 => g.depth(),
        _ => 2 * g.depth() * g.groups,
    }
}

/// Bytes of scratch of `conv8`.
pub fn scratch_conv(flavour: Flavour, g: &Geometry) -> usize {
    let (depth, window) = (g.depth(), g.depth() * g.groups);
    match flavour {
        Flavour::C if g.groups == 1 => 2 * window,
        Flavour::C => 2 * window + 2 * depth,
        Flavour::Dsp => depth.div_ceil(4) * 16 + STATE + bytes_of_windows(g),
        Flavour::Mve if g.groups == 1 => 2 * depth.next_multiple_of(16) + STATE,
        Flavour::Mve => 2 * depth.next_multiple_of(16) + STATE + 2 * window,
    }
}

/// Bytes of scratch of `conv8_1x1`.
pub fn scratch_conv_1x1(flavour: Flavour, g: &Geometry) -> usize {
    match flavour {
        Flavour::C => 2 * g.in_c,
        Flavour::Dsp => g.in_c.div_ceil(4) * 16 + STATE,
        Flavour::Mve => 2 * g.in_c.next_multiple_of(16) + STATE,
    }
}

/// Bytes of scratch of `depthwise8`.
pub fn scratch_depthwise(flavour: Flavour, g: &Geometry) -> usize {
    let span = |i: usize| (g.kernel[i] - 1) * g.dilation[i] + 1;
    let width = (g.out_w - 1) * g.stride[1] + span(1);
    match flavour {
        Flavour::C => 2 * span(0) * width,
        Flavour::Dsp => {
            let taps = span(1).next_multiple_of(2);
            let width = ((g.out_w - 1) * g.stride[1] + taps).next_multiple_of(2);
            2 * span(0) * width + 2 * g.kernel[0] * taps
        }
        Flavour::Mve => 4 * span(0) * width,
    }
}

/// Whether `depthwise8_3x3` takes columns as rows.
fn turned(flavour: Flavour, g: &Geometry) -> bool {
    let whole = g.stride == [1, 1] && g.in_w == g.out_w && g.out_h > g.out_w;
    match flavour {
        Flavour::C => false,
        Flavour::Dsp => whole,
        Flavour::Mve => whole && g.in_w * g.in_c < 9362,
    }
}

/// Bytes of scratch of `depthwise8_3x3`.
pub fn scratch_depthwise_3x3(flavour: Flavour, g: &Geometry) -> usize {
    let length = if turned(flavour, g) { g.out_h } else { g.out_w };
    let pairs = if g.stride[1] == 1 {
        length.div_ceil(2)
    } else {
        length
    };
    let width = (length - 1) * g.stride[1] + 3;
    match flavour {
        Flavour::C => 3 * width,
        Flavour::Dsp => 12 * (pairs + 1),
        Flavour::Mve => 6 * width,
    }
}

/// Whether `depthwise8` and `depthwise8_3x3` may write over what they read, from the same address.
pub fn depthwise_in_place(g: &Geometry) -> bool {
    let span = (g.kernel[0] - 1) * g.dilation[0] + 1;
    g.out_w <= g.in_w && g.out_h <= g.in_h && g.pad[0] < span
}

/// A row of weights in words of four: 128 is added to bytes 0 and 2 of each, and the last is filled by
/// zeros of the weights. The correction is 128 times the sum of the odd ones.
fn coded(row: &[i8]) -> Coded {
    let odd: i32 = row.iter().skip(1).step_by(2).map(|w| i32::from(*w)).sum();
    let word = |four: &[i8]| {
        let at = |i: usize| four.get(i).copied().unwrap_or(0) as u8;
        [at(0) ^ 0x80, at(1), at(2) ^ 0x80, at(3)]
    };
    (128 * odd, row.chunks(4).map(word).collect())
}

/// What a row becomes: a correction, and words.
type Coded = (i32, Vec<[u8; 4]>);

/// Rows of `depth` weights by blocks of `lanes` rows, each as `coded` has it: the corrections of the block,
/// then a word of each row in turn.
pub(super) fn interleaved(
    rows: &[&[i8]],
    depth: usize,
    lanes: usize,
    coded: fn(&[i8]) -> Coded,
) -> Vec<u8> {
    let none = vec![0i8; depth];
    let mut out = Vec::new();
    for block in rows.chunks(lanes) {
        let lane = |i: usize| coded(block.get(i).copied().unwrap_or(&none));
        let lanes: Vec<_> = (0..lanes).map(lane).collect();
        for (correction, _) in &lanes {
            out.extend(correction.to_le_bytes());
        }
        for word in 0..lanes.first().map_or(0, |(_, words)| words.len()) {
            for (_, words) in &lanes {
                out.extend(words[word]);
            }
        }
    }
    out
}

/// Rows of `depth` weights by fours of rows: `WIDE` weights of each in turn, filled by zeros, as 16 bytes.
pub(super) fn vectors<const WIDE: usize>(
    rows: &[&[i8]],
    depth: usize,
    vector: fn([i8; WIDE]) -> [u8; 16],
) -> Vec<u8> {
    let mut out = Vec::new();
    for block in rows.chunks(4) {
        for start in (0..depth).step_by(WIDE) {
            for lane in 0..4 {
                let row = block.get(lane).copied().unwrap_or_default();
                let at = |i: usize| row.get(start + i).copied().unwrap_or(0);
                out.extend(vector(std::array::from_fn(at)));
            }
        }
    }
    out
}

/// Sixteen weights as they are.
fn sixteen(weights: [i8; 16]) -> [u8; 16] {
    weights.map(|w| w as u8)
}

fn bytes(weights: &[i8]) -> Vec<u8> {
    weights.iter().map(|w| *w as u8).collect()
}

/// Weights of `conv8` and `conv8_1x1`, given as [out, kernel height, kernel width, in / groups].
pub fn pack_conv(flavour: Flavour, weights: &[i8], g: &Geometry) -> Vec<u8> {
    let depth = g.depth();
    match flavour {
        Flavour::C => bytes(weights),
        Flavour::Dsp | Flavour::Mve => {
            let rows: Vec<&[i8]> = weights.chunks(depth.max(1)).collect();
            let group = (g.out_c / g.groups.max(1)).max(1);
            let each = rows.chunks(group).map(|rows| match flavour {
                Flavour::Mve => vectors(rows, depth, sixteen),
                _ => interleaved(rows, depth, 2, coded),
            });
            each.collect::<Vec<_>>().concat()
        }
    }
}

/// Weights of `depthwise8`, given as [channel, kernel height, kernel width].
pub fn pack_depthwise(flavour: Flavour, weights: &[i8], g: &Geometry) -> Vec<u8> {
    let taps = (g.kernel[0] * g.kernel[1]).max(1);
    match flavour {
        Flavour::C | Flavour::Dsp => bytes(weights),
        Flavour::Mve => {
            let mut out = Vec::new();
            for four in weights.chunks(4 * taps) {
                for tap in 0..taps {
                    let at = |lane: usize| four.get(lane * taps + tap).copied().unwrap_or(0) as u8;
                    out.extend((0..4).map(at));
                }
            }
            out
        }
    }
}

/// Weights of `depthwise8_3x3`, given as [channel, 3, 3].
pub fn pack_depthwise_3x3(flavour: Flavour, weights: &[i8], g: &Geometry) -> Vec<u8> {
    let (across, down) = if turned(flavour, g) { (3, 1) } else { (1, 3) };
    let mut out = Vec::new();
    for channel in weights.chunks(9) {
        for row in 0..3 {
            let at = |i: usize| channel[row * down + i * across] as u8;
            match flavour {
                Flavour::Dsp => out.extend([at(0), at(1), at(1), at(2)]),
                Flavour::C | Flavour::Mve => out.extend([at(0), at(1), at(2)]),
            }
        }
    }
    out
}

/// Weights of `dense8`, given as [out, in].
pub fn pack_dense(flavour: Flavour, weights: &[i8], inputs: usize) -> Vec<u8> {
    match flavour {
        Flavour::C => bytes(weights),
        Flavour::Dsp => {
            let rows: Vec<&[i8]> = weights.chunks(inputs.max(1)).collect();
            interleaved(&rows, inputs, 4, coded)
        }
        Flavour::Mve => {
            let rows: Vec<&[i8]> = weights.chunks(inputs.max(1)).collect();
            vectors(&rows, inputs, sixteen)
        }
    }
}

//! Networks of depthwise separable convolutions.

use edgesmith_ir::{Result, ValueId};

use super::builder::{Builder, Conv};
use super::images::image;
use super::{Architecture, Takes};

/// Keyword spotting: one convolution of 10x4, then four separable ones of 64 channels.
pub static DS_CNN: Architecture = Architecture {
    name: "ds-cnn",
    about: "Four depthwise separable convolutions of 64 channels (Zhang et al. 2017; MLPerf Tiny's keyword spotting); spectrograms [1, frames, bands], or images",
    takes: Takes::Numbers,
    build: |spec| {
        let [channels, height, width] = image(spec, 4)?;
        let (mut b, x) = Builder::new("ds_cnn", spec);
        let first = Conv {
            size: [height.min(10), width.min(4)],
            ..Conv::square([channels, 64], 1, 2)
        };
        let mut y = b.conv_relu(x, first)?;
        for _ in 0..4 {
            y = separable(&mut b, y, [64, 64], 1)?;
        }
        let y = b.mean_of_pixels(y);
        let y = b.linear(y, 64, spec.classes)?;
        Ok(b.finish(y))
    },
};

/// Channels and strides of MobileNetV1 at a quarter of its width.
const MOBILENET: [(usize, i64); 13] = [
    (16, 1),
    (32, 2),
    (32, 1),
    (64, 2),
    (64, 1),
    (128, 2),
    (128, 1),
    (128, 1),
    (128, 1),
    (128, 1),
    (128, 1),
    (256, 2),
    (256, 1),
];

/// An image that is shorter is not halved again, so that small images keep some pixels to the end.
const LEAST_HALVED: usize = 6;

/// MobileNetV1 at a quarter of its width.
pub static MOBILENET_025: Architecture = Architecture {
    name: "mobilenet-0.25",
    about: "Thirteen depthwise separable convolutions of 16 to 256 channels (MobileNetV1, Howard et al. 2017, at width 0.25; MLPerf Tiny's visual wake words); images under 6 pixels are not halved again",
    takes: Takes::Numbers,
    build: |spec| {
        let [channels, height, width] = image(spec, 8)?;
        let (mut b, x) = Builder::new("mobilenet_025", spec);
        let mut least = height.min(width).div_ceil(2);
        let mut y = b.conv_relu(x, Conv::square([channels, 8], 3, 2))?;
        let mut from = 8;
        for (to, stride) in MOBILENET {
            let stride = if least < LEAST_HALVED { 1 } else { stride };
            if stride == 2 {
                least = least.div_ceil(2);
            }
            y = separable(&mut b, y, [from, to], stride)?;
            from = to;
        }
        let y = b.mean_of_pixels(y);
        let y = b.linear(y, from, spec.classes)?;
        Ok(b.finish(y))
    },
};

/// A window of 3x3 for each channel, then sums over all channels.
pub(super) fn separable(
    b: &mut Builder,
    x: ValueId,
    [from, to]: [usize; 2],
    stride: i64,
) -> Result<ValueId> {
    let y = b.conv_relu(x, Conv::depthwise(from, stride))?;
    b.conv_relu(y, Conv::square([from, to], 1, 1))
}

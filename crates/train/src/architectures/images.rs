//! Networks for images, [channels, height, width].

use edgesmith_ir::{Error, Model, Result};

use super::builder::{Builder, Conv};
use super::{Architecture, Spec, Takes};

/// Two hidden layers (Y. LeCun et al., 1998).
pub static LENET_300_100: Architecture = Architecture {
    name: "lenet-300-100",
    about: "Two hidden layers of 300 and 100 (LeCun et al. 1998); images or vectors",
    takes: Takes::Numbers,
    build: |spec| {
        if spec.vocabulary.is_some() {
            return Err(no_image(spec, 1));
        }
        let (mut b, x) = Builder::new("lenet_300_100", spec);
        let features = spec.dims.iter().product();
        let mut x = if spec.dims.len() > 1 { b.flatten(x) } else { x };
        let mut from = features;
        for to in [300, 100] {
            x = b.linear(x, from, to)?;
            x = b.relu(x);
            from = to;
        }
        let y = b.linear(x, from, spec.classes)?;
        Ok(b.finish(y))
    },
};

/// Two convolutions and three layers (Y. LeCun et al., 1998), with Relu and maxima.
pub static LENET_5: Architecture = Architecture {
    name: "lenet-5",
    about: "Two convolutions 5x5 and three layers (LeCun et al. 1998), with Relu and maximum pools",
    takes: Takes::Numbers,
    build: |spec| {
        let [channels, height, width] = image(spec, 4)?;
        let (mut b, x) = Builder::new("lenet_5", spec);
        let mut y = x;
        for channels in [[channels, 6], [6, 16]] {
            y = b.conv(y, Conv::square(channels, 5, 1))?;
            y = b.relu(y);
            y = b.max_pool(y, 2);
        }
        y = b.flatten(y);
        for [from, to] in [[16 * (height / 4) * (width / 4), 120], [120, 84]] {
            y = b.linear(y, from, to)?;
            y = b.relu(y);
        }
        let y = b.linear(y, 84, spec.classes)?;
        Ok(b.finish(y))
    },
};

/// Two convolutions and one layer.
pub static SMALL_CNN: Architecture = Architecture {
    name: "small-cnn",
    about: "Two convolutions 3x3 of 16 and 32 channels with maximum pools, and one layer",
    takes: Takes::Numbers,
    build: small_cnn,
};

fn small_cnn(spec: &Spec) -> Result<Model> {
    let [channels, height, width] = image(spec, 4)?;
    let (mut b, x) = Builder::new("small_cnn", spec);
    let mut y = x;
    for channels in [[channels, 16], [16, 32]] {
        y = b.conv(y, Conv::square(channels, 3, 1))?;
        y = b.relu(y);
        y = b.max_pool(y, 2);
    }
    y = b.flatten(y);
    let y = b.linear(y, 32 * (height / 4) * (width / 4), spec.classes)?;
    Ok(b.finish(y))
}

/// What most of 100,000 parameters give an image of 28x28 pixels for few multiplications.
pub static CNN_100K: Architecture = Architecture {
    name: "cnn-100k",
    about: "Four normalised convolutions of 16 to 64 channels and two residual blocks, under 100,000 parameters for images of one channel and 10 classes",
    takes: Takes::Numbers,
    build: |spec| {
        let [channels, ..] = image(spec, 4)?;
        let (mut b, x) = Builder::new("cnn_100k", spec);
        let y = b.conv_relu(x, Conv::square([channels, 16], 3, 1))?;
        let y = b.max_pool(y, 2);
        let y = b.conv_relu(y, Conv::square([16, 32], 3, 1))?;
        let z = b.conv_relu(y, Conv::depthwise(32, 1))?;
        let z = b.conv_norm(z, Conv::square([32, 32], 1, 1))?;
        let y = b.add(y, z);
        let y = b.relu(y);
        let y = b.max_pool(y, 2);
        let y = b.conv_relu(y, Conv::square([32, 64], 3, 1))?;
        let z = b.conv_relu(y, Conv::square([64, 64], 3, 1))?;
        let z = b.conv_norm(z, Conv::square([64, 64], 3, 1))?;
        let y = b.add(y, z);
        let y = b.relu(y);
        let y = b.mean_of_pixels(y);
        let y = b.linear(y, 64, spec.classes)?;
        Ok(b.finish(y))
    },
};

/// The lengths of an image, each at least `least`.
pub(super) fn image(spec: &Spec, least: usize) -> Result<[usize; 3]> {
    match spec.dims[..] {
        [c, h, w] if h >= least && w >= least && c > 0 && spec.vocabulary.is_none() => {
            Ok([c, h, w])
        }
        _ => Err(no_image(spec, least)),
    }
}

fn no_image(spec: &Spec, least: usize) -> Error {
    let what = format!(
        "samples of {:?} are no images of at least {least}x{least} pixels",
        spec.dims
    );
    Error::invalid(what).hint("an image is [channels, height, width]")
}

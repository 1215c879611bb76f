//! Networks for images, [channels, height, width].

use edgesmith_ir::{Error, Model, Result};

use super::{Architecture, Builder, Spec};

/// Two hidden layers (Y. LeCun et al., 1998).
pub static LENET_300_100: Architecture = Architecture {
    name: "lenet-300-100",
    about: "Two hidden layers of 300 and 100 (LeCun et al. 1998); images or vectors",
    build: |spec| {
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
    build: |spec| {
        let [channels, height, width] = image(spec, 4)?;
        let (mut b, x) = Builder::new("lenet_5", spec);
        let mut y = x;
        for [from, to] in [[channels, 6], [6, 16]] {
            y = b.conv(y, [from, to], 5, 1)?;
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
    build: small_cnn,
};

fn small_cnn(spec: &Spec) -> Result<Model> {
    let [channels, height, width] = image(spec, 4)?;
    let (mut b, x) = Builder::new("small_cnn", spec);
    let mut y = x;
    for [from, to] in [[channels, 16], [16, 32]] {
        y = b.conv(y, [from, to], 3, 1)?;
        y = b.relu(y);
        y = b.max_pool(y, 2);
    }
    y = b.flatten(y);
    let y = b.linear(y, 32 * (height / 4) * (width / 4), spec.classes)?;
    Ok(b.finish(y))
}

/// The lengths of an image, each at least `least`.
fn image(spec: &Spec, least: usize) -> Result<[usize; 3]> {
    match spec.dims[..] {
        [c, h, w] if h >= least && w >= least && c > 0 => Ok([c, h, w]),
        _ => Err(Error::invalid(format!(
            "samples of {:?} are no images of at least {least}x{least} pixels",
            spec.dims
        ))
        .hint("an image is [channels, height, width]")),
    }
}

//! Residual networks for small images (K. He et al., 2016).

use edgesmith_ir::{Model, Result, ValueId};

use super::builder::{Builder, Conv};
use super::images::image;
use super::{Architecture, Spec, Takes};

/// One block in each of three stages, as in MLPerf Tiny: the shortcuts that change their shape are
/// convolutions of 1x1 with a bias.
pub static RESNET_8: Architecture = Architecture {
    name: "resnet-8",
    about: "Three residual blocks of 16, 32 and 64 channels (MLPerf Tiny's image classification)",
    takes: Takes::Numbers,
    build: |spec| residual("resnet_8", spec, 1, |b, x, c| b.conv(x, c)),
};

/// Three blocks in each of three stages; the shortcuts that change their shape are normalised
/// convolutions of 1x1 (option B of the paper).
pub static RESNET_20: Architecture = Architecture {
    name: "resnet-20",
    about: "Nine residual blocks of 16, 32 and 64 channels (He et al. 2016, for CIFAR-10)",
    takes: Takes::Numbers,
    build: |spec| residual("resnet_20", spec, 3, |b, x, c| b.conv_norm(x, c)),
};

/// Makes a shortcut of another shape.
type Shortcut = fn(&mut Builder, ValueId, Conv) -> Result<ValueId>;

fn residual(name: &str, spec: &Spec, blocks: usize, shortcut: Shortcut) -> Result<Model> {
    let [channels, ..] = image(spec, 4)?;
    let (mut b, x) = Builder::new(name, spec);
    let mut y = b.conv_relu(x, Conv::square([channels, 16], 3, 1))?;
    let mut from = 16;
    for (stage, to) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            y = self::block(&mut b, y, [from, to], stride, shortcut)?;
            from = to;
        }
    }
    let y = b.mean_of_pixels(y);
    let y = b.linear(y, 64, spec.classes)?;
    Ok(b.finish(y))
}

fn block(
    b: &mut Builder,
    x: ValueId,
    [from, to]: [usize; 2],
    stride: i64,
    shortcut: Shortcut,
) -> Result<ValueId> {
    let y = b.conv_relu(x, Conv::square([from, to], 3, stride))?;
    let y = b.conv_norm(y, Conv::square([to, to], 3, 1))?;
    let x = match (from == to, stride) {
        (true, 1) => x,
        _ => shortcut(b, x, Conv::square([from, to], 1, stride))?,
    };
    let sum = b.add(x, y);
    Ok(b.relu(sum))
}

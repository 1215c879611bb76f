//! Norms of groups of channels, each with a scale and a bias of its own, channels first.

use super::{squares, sum};
use crate::Ctx;
use crate::activation::GRAIN;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// `y = (x - mean) / sqrt(variance + epsilon) * scale + bias` of `x`, `[batch, channels, pixels]`, where mean
/// and variance are those of each group of channels; `scale` and `bias` have a number for each
/// channel (Ulyanov et al. 2016, where a group is a channel; Wu and He 2018).
pub fn group_norm(
    ctx: &Ctx,
    x: &[f32],
    [groups, pixels]: [usize; 2],
    [scale, bias]: [&[f32]; 2],
    epsilon: f32,
    y: &mut [f32],
) {
    let channels = scale.len();
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    assert_eq!(channels, bias.len(), "scale and bias have equal length");
    if x.is_empty() {
        return;
    }
    assert!(
        groups > 0 && channels.is_multiple_of(groups),
        "groups have whole channels"
    );
    assert!(
        x.len().is_multiple_of(channels * pixels),
        "images fill the input"
    );
    let each = channels / groups;
    let width = each * pixels;
    let shared = Shared::new(y);
    let grain = (GRAIN / 4 / width).max(1);
    ctx.threads()
        .parallel_ranges(x.len() / width, grain, |range| {
            for at in range {
                let channels = at % groups * each..(at % groups + 1) * each;
                let group = Group {
                    pixels,
                    x: &x[at * width..][..width],
                    scale: &scale[channels.clone()],
                    bias: &bias[channels],
                    epsilon,
                    // SAFETY: every group belongs to one task.
                    y: unsafe { shared.slice(at * width..(at + 1) * width) },
                };
                dispatch(ctx.isa(), group);
            }
        });
}

/// The channels of one group of one image.
struct Group<'a> {
    pixels: usize,
    x: &'a [f32],
    scale: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
    y: &'a mut [f32],
}

impl Body for Group<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.x.len() as f32;
        let mean = sum(s, self.x) / n;
        let factor = 1.0 / (squares(s, self.x, mean) / n + self.epsilon).sqrt();
        let planes = self.x.chunks_exact(self.pixels);
        let planes = planes.zip(self.y.chunks_exact_mut(self.pixels));
        for ((x, y), (scale, bias)) in planes.zip(self.scale.iter().zip(self.bias)) {
            for (y, x) in y.iter_mut().zip(x) {
                *y = (x - mean) * factor * scale + bias;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    #[test]
    fn groups_equal_the_formula() {
        let mut random = Random::new(61);
        for (batch, groups, each, pixels) in [
            (1, 1, 1, 1),
            (2, 3, 1, 35),
            (1, 4, 2, 16),
            (3, 2, 5, 33),
            (0, 2, 1, 4),
        ] {
            let channels = groups * each;
            let x = random.floats(batch * channels * pixels);
            let (scale, bias) = (random.floats(channels), random.floats(channels));
            let mut want = Vec::new();
            for (at, group) in x.chunks(each * pixels).enumerate() {
                let n = group.len() as f64;
                let mean = group.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
                let spread = group.iter().map(|x| (f64::from(*x) - mean).powi(2));
                let factor = 1.0 / (spread.sum::<f64>() / n + 1e-3).sqrt();
                for (i, x) in group.iter().enumerate() {
                    let c = at % groups * each + i / pixels;
                    let y = (f64::from(*x) - mean) * factor * f64::from(scale[c]);
                    want.push((y + f64::from(bias[c])) as f32);
                }
            }
            for ctx in contexts() {
                let mut y = vec![f32::NAN; x.len()];
                group_norm(&ctx, &x, [groups, pixels], [&scale, &bias], 1e-3, &mut y);
                close(
                    &y,
                    &want,
                    1e-5,
                    &format!("{batch} {groups} {each} {pixels}"),
                );
            }
        }
    }
}

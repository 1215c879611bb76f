//! Gradients of a convolution of floats with respect to its input, weights and bias.

mod channels;
mod input;
mod tile;
mod weights;

pub use input::InputGradient;
pub use weights::weight_gradient;

use std::ops::Range;

use super::ConvGeometry;
use crate::parts;

/// The most output pixels of an image that are worked on together: what they read stays in a
/// cache while each weight is brought up to date.
const TOGETHER: usize = 256;

/// Output pixels of all images in strips, each of one image, and the strips in parts.
#[derive(Clone, Copy)]
struct Strips {
    /// Pixels of an image.
    pixels: usize,
    /// Strips of an image.
    of_image: usize,
    /// Strips of all images.
    count: usize,
    parts: usize,
}

impl Strips {
    /// Those of sums of `width` numbers.
    fn new(g: &ConvGeometry, batch: usize, width: usize) -> Self {
        const WORTH: usize = 128;
        let [height, across] = g.output();
        let pixels = height * across;
        let of_image = pixels.div_ceil(TOGETHER).max(1);
        let count = batch * of_image;
        let grain = WORTH.div_ceil((pixels / of_image).max(1));
        Self {
            pixels,
            of_image,
            count,
            parts: parts::count(count, grain, width),
        }
    }

    /// The pixels of each strip of part `i`, of all images one after another.
    fn of_part(self, i: usize) -> impl Iterator<Item = Range<usize>> {
        parts::rows_of(i, self.parts, self.count).map(move |strip| {
            let (image, at) = (strip / self.of_image, strip % self.of_image);
            let within = parts::rows_of(at, self.of_image, self.pixels);
            image * self.pixels + within.start..image * self.pixels + within.end
        })
    }
}

/// Elements of a window that are neighbours in the frame that it is read from.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// From the address of the window on.
    offset: usize,
    /// The first of them in the order of kernel elements and, for each, input channels.
    first: usize,
    len: usize,
}

/// The runs of the windows of a group; lines of windows are `stride` elements apart.
fn runs(g: &ConvGeometry, group: usize, stride: usize) -> Vec<Run> {
    let ([height, width], inputs) = (g.kernel, g.group_in());
    if g.groups == 1 && g.dilation[1] == 1 {
        let len = width * inputs;
        let line = |y| Run {
            offset: y * stride,
            first: y * len,
            len,
        };
        return (0..height).map(line).collect();
    }
    let tap = |i: usize| Run {
        offset: i / width * stride + i % width * g.dilation[1] * g.channels_in + group * inputs,
        first: i * inputs,
        len: inputs,
    };
    (0..height * width).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::tests::some_geometry;
    use crate::testing::{Random, close, contexts};

    /// The definitions, in plain loops: dX, dW, dB.
    fn plain(g: &ConvGeometry, batch: usize, [x, w, dy]: [&[f32]; 3]) -> [Vec<f32>; 3] {
        let ([oh, ow], [ih, iw], [kh, kw]) = (g.output(), g.input, g.kernel);
        let (inputs, outputs) = (g.group_in(), g.group_out());
        let (mut dx, mut dw) = (vec![0f64; x.len()], vec![0f64; w.len()]);
        let mut db = vec![0f64; g.channels_out];
        for at in 0..batch * oh * ow * g.channels_out {
            let (pixel, out) = (at / g.channels_out, at % g.channels_out);
            let (n, oy, ox) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
            let d = f64::from(dy[at]);
            db[out] += d;
            for i in 0..kh * kw * inputs {
                let (ky, kx, c) = (i / kw % kh, i % kw, i / (kh * kw));
                let iy = (oy * g.stride[0] + ky * g.dilation[0]).wrapping_sub(g.pad_begin[0]);
                let ix = (ox * g.stride[1] + kx * g.dilation[1]).wrapping_sub(g.pad_begin[1]);
                if iy < ih && ix < iw {
                    let from =
                        ((n * ih + iy) * iw + ix) * g.channels_in + out / outputs * inputs + c;
                    let weight = out * inputs * kh * kw + i;
                    dw[weight] += d * f64::from(x[from]);
                    dx[from] += d * f64::from(w[weight]);
                }
            }
        }
        [dx, dw, db].map(|all| all.into_iter().map(|x| x as f32).collect())
    }

    fn agrees(g: &ConvGeometry, batch: usize, random: &mut Random) {
        let (input, output) = g.sizes(batch);
        let (x, dy) = (random.floats(input), random.floats(output));
        let w = random.floats(g.channels_out * g.depth());
        let [dx, dw, db] = plain(g, batch, [&x, &w, &dy]);
        let what = format!("{batch} of {g:?}");
        let mut last: Option<(crate::Isa, [Vec<f32>; 3])> = None;
        for ctx in contexts() {
            let mut found = [&dx, &dw, &db].map(|v| vec![f32::NAN; v.len()]);
            let [x_found, w_found, b_found] = &mut found;
            weight_gradient(&ctx, g, batch, [&x, &dy], w_found, Some(b_found));
            let of_input = InputGradient::prepare(&ctx, *g, &w).unwrap();
            of_input.run(&ctx, batch, &dy, x_found);
            close(&found[0], &dx, 1e-4, &format!("dX of {what}"));
            close(&found[1], &dw, 1e-4, &format!("dW of {what}"));
            close(&found[2], &db, 1e-4, &format!("dB of {what}"));
            let mut alone = vec![f32::NAN; dw.len()];
            weight_gradient(&ctx, g, batch, [&x, &dy], &mut alone, None);
            assert_eq!(alone, found[1], "without the bias");
            match &last {
                Some((isa, one)) if *isa == ctx.isa() => assert_eq!(&found, one, "threads"),
                _ => last = Some((ctx.isa(), found)),
            }
        }
    }

    #[test]
    fn gradients_equal_the_plain_sums_for_any_geometry() {
        let mut random = Random::new(61);
        for round in 0..150 {
            agrees(&some_geometry(&mut random), round % 4, &mut random);
        }
    }

    #[test]
    fn gradients_of_larger_images_are_added_in_parts() {
        let mut random = Random::new(62);
        let g = |channels: [usize; 2], groups, stride| ConvGeometry {
            kernel: [3, 3],
            stride: [stride; 2],
            pad_begin: [1; 2],
            pad_end: [1; 2],
            dilation: [1; 2],
            groups,
            input: [28, 28],
            channels_in: channels[0],
            channels_out: channels[1],
        };
        agrees(&g([1, 16], 1, 1), 3, &mut random);
        agrees(&g([16, 33], 1, 1), 2, &mut random);
        agrees(&g([20, 20], 20, 2), 3, &mut random);
        agrees(&g([20, 20], 20, 1), 3, &mut random);
        agrees(&g([6, 4], 2, 2), 2, &mut random);
        agrees(&g([70, 70], 1, 2), 1, &mut random);
    }

    #[test]
    fn a_padding_beyond_the_kernel_has_gradients() {
        let mut random = Random::new(63);
        let mut g = some_geometry(&mut random);
        (g.groups, g.channels_in, g.channels_out) = (1, 3, 5);
        (g.kernel, g.stride, g.dilation) = ([2, 1], [1, 1], [1, 1]);
        (g.pad_begin, g.pad_end, g.input) = ([3, 1], [0, 2], [4, 5]);
        agrees(&g, 2, &mut random);
    }
}

//! Copying together the inputs of output pixels, which become the rows of a matrix product.

use std::ops::Range;

use super::ConvGeometry;

/// What stands at a place of a row.
pub(super) enum Run<'a, T> {
    /// Neighbouring channels of the input.
    Data(&'a [T]),
    /// So many elements outside of the image.
    Outside(usize),
}

/// For each output pixel (of all images, one after another) calls `put(row, k, run)` with what
/// stands from `k` on in its row, until the row is full.
#[inline(always)]
pub(super) fn gather<'a, T>(
    g: &ConvGeometry,
    x: &'a [T],
    group: usize,
    pixels: Range<usize>,
    mut put: impl FnMut(usize, usize, Run<'a, T>),
) {
    let ([out_h, out_w], [in_h, in_w]) = (g.output(), g.input);
    let (inputs, all) = (g.group_in(), g.channels_in);
    let together = g.dilation[1] == 1 && g.groups == 1;
    let first = pixels.start;
    let [mut image, mut oy, mut ox] = [
        first / (out_h * out_w),
        first / out_w % out_h,
        first % out_w,
    ];
    for row in 0..pixels.len() {
        let mut k = 0;
        for ky in 0..g.kernel[0] {
            let width = g.kernel[1] * inputs;
            let Some(y) = inside(oy * g.stride[0] + ky * g.dilation[0], g.pad_begin[0], in_h)
            else {
                put(row, k, Run::Outside(width));
                k += width;
                continue;
            };
            let line = (image * in_h + y) * in_w;
            if together {
                let from = ox * g.stride[1];
                let left = g.pad_begin[1].saturating_sub(from).min(g.kernel[1]);
                let right = (in_w + g.pad_begin[1])
                    .saturating_sub(from)
                    .min(g.kernel[1])
                    .max(left);
                if left > 0 {
                    put(row, k, Run::Outside(left * inputs));
                }
                if right > left {
                    let first = (line + from + left - g.pad_begin[1]) * all;
                    let data = &x[first..][..(right - left) * inputs];
                    put(row, k + left * inputs, Run::Data(data));
                }
                if right < g.kernel[1] {
                    put(
                        row,
                        k + right * inputs,
                        Run::Outside((g.kernel[1] - right) * inputs),
                    );
                }
                k += width;
                continue;
            }
            for kx in 0..g.kernel[1] {
                let run = match inside(ox * g.stride[1] + kx * g.dilation[1], g.pad_begin[1], in_w)
                {
                    Some(x_at) => {
                        let first = (line + x_at) * all + group * inputs;
                        Run::Data(&x[first..][..inputs])
                    }
                    None => Run::Outside(inputs),
                };
                put(row, k, run);
                k += inputs;
            }
        }
        ox += 1;
        if ox == out_w {
            (ox, oy) = (0, oy + 1);
        }
        if oy == out_h {
            (oy, image) = (0, image + 1);
        }
    }
}

/// The place in the input of padded place `at`, if it is inside.
#[inline(always)]
pub(super) fn inside(at: usize, pad: usize, len: usize) -> Option<usize> {
    at.checked_sub(pad).filter(|at| *at < len)
}

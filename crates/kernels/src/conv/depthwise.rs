//! Depthwise convolution: every channel with a kernel of its own, vectors across channels.
//!
//! Four neighbouring pixels are computed together, so that a weight is loaded once for all.

mod f32;
mod int8;
mod strips;

pub(super) use self::f32::DepthwiseF32;
pub(super) use int8::DepthwiseI8;

use std::ops::Range;

use super::ConvGeometry;
use super::gather::inside;
use crate::Ctx;
use crate::gemm::FEW_ROWS;

/// Pixels that are computed together.
const TOGETHER: usize = 4;

/// Walks over output pixels, a few neighbours at a time, with the address of what every kernel
/// element reads for each of them.
pub(super) struct Tiles<'a, T> {
    geometry: &'a ConvGeometry,
    x: &'a [T],
    outside: &'a [T],
    first: usize,
    pixels: Range<usize>,
    most: usize,
    interior: Range<usize>,
    /// For each kernel element, the address for each pixel.
    taps: Vec<*const T>,
}

impl<'a, T: Copy> Tiles<'a, T> {
    /// `outside` is a pixel's channels that stand outside of the image.
    pub(super) fn new(
        geometry: &'a ConvGeometry,
        x: &'a [T],
        outside: &'a [T],
        pixels: Range<usize>,
        most: usize,
    ) -> Self {
        assert_eq!(
            outside.len(),
            geometry.channels_in,
            "a pixel outside of the image"
        );
        let (pad, stride) = (geometry.pad_begin[1], geometry.stride[1]);
        let reach = geometry.dilation[1] * (geometry.kernel[1] - 1);
        let end = (geometry.input[1] + pad)
            .saturating_sub(reach)
            .div_ceil(stride);
        let interior = pad.div_ceil(stride)..end;
        let first = pixels.start;
        Self {
            geometry,
            x,
            outside,
            first,
            pixels,
            most,
            interior,
            taps: Vec::new(),
        }
    }

    /// The next pixels: the first, and how many, which is the most or 1. Pixels may come twice.
    /// Every address in `taps` is followed by a pixel's channels.
    pub(super) fn advance(&mut self) -> Option<(usize, usize)> {
        if self.pixels.is_empty() {
            return None;
        }
        let end = self.pixels.end;
        let (pixel, count) = if end - self.first < self.most {
            (self.pixels.start, 1)
        } else {
            (self.pixels.start.min(end - self.most), self.most)
        };
        self.pixels.start = pixel + count;
        let (g, out_w) = (self.geometry, self.geometry.output()[1]);
        let ox = pixel % out_w;
        let together = ox >= self.interior.start && ox + count <= self.interior.end.min(out_w);
        self.taps.clear();
        self.taps
            .resize(g.kernel[0] * g.kernel[1] * count, self.outside.as_ptr());
        if together {
            let step = g.stride[1] * g.channels_in;
            self.address(pixel, 0, count, count, step);
        } else {
            (0..count).for_each(|t| self.address(pixel + t, t, count, 1, 0));
        }
        Some((pixel, count))
    }

    /// The addresses of `N` pixels, which is how many there are, for each kernel element.
    #[inline(always)]
    pub(super) fn taps<const N: usize>(&self) -> &[[*const T; N]] {
        self.taps.as_chunks::<N>().0
    }

    /// Sets the addresses of place `t` of `count`, and of the `run` pixels from it on, which
    /// read `step` elements further on each.
    #[inline(always)]
    fn address(&mut self, pixel: usize, t: usize, count: usize, run: usize, step: usize) {
        let (g, [out_h, out_w]) = (self.geometry, self.geometry.output());
        let (line, ox) = (pixel / out_w, pixel % out_w);
        let (image, oy) = (line / out_h, line % out_h);
        for ky in 0..g.kernel[0] {
            let y = oy * g.stride[0] + ky * g.dilation[0];
            let Some(y) = inside(y, g.pad_begin[0], g.input[0]) else {
                continue;
            };
            for kx in 0..g.kernel[1] {
                let x = ox * g.stride[1] + kx * g.dilation[1];
                let Some(x) = inside(x, g.pad_begin[1], g.input[1]) else {
                    continue;
                };
                let at = ((image * g.input[0] + y) * g.input[1] + x) * g.channels_in;
                let at = self.x[at..].as_ptr();
                let taps = &mut self.taps[(ky * g.kernel[1] + kx) * count + t..][..run];
                taps.iter_mut()
                    .enumerate()
                    .for_each(|(i, to)| *to = at.wrapping_add(i * step));
            }
        }
    }
}

/// Calls `task` with ranges of output pixels that are worth it, whole lines where there are many:
/// pixels of a line share what they read.
pub(super) fn in_parallel(
    ctx: &Ctx,
    g: &ConvGeometry,
    pixels: usize,
    task: impl Fn(Range<usize>) + Sync,
) {
    let line = g.output()[1].max(1);
    // A few lines, as those of signals are, are cut up.
    let unit = if pixels / line < 2 * ctx.threads().count() {
        1
    } else {
        line
    };
    let work = unit * g.channels_out * g.kernel[0] * g.kernel[1];
    let grain = (64 * 1024 / work.max(1)).max(8 / unit).max(1);
    ctx.threads().parallel_ranges(pixels / unit, grain, |part| {
        task(part.start * unit..part.end * unit);
    });
}

/// As [`in_parallel`], with the channels that are done of these pixels: all of them, or where the
/// pixels are few, those panels of `panel` that the same thread makes of a product before.
pub(super) fn in_blocks(
    ctx: &Ctx,
    g: &ConvGeometry,
    pixels: usize,
    panel: usize,
    task: impl Fn(Range<usize>, Range<usize>) + Sync,
) {
    let (threads, channels) = (ctx.threads().count(), g.channels_out);
    let panels = channels.div_ceil(panel);
    if threads == 1 || pixels > FEW_ROWS || panels < 2 * threads {
        return in_parallel(ctx, g, pixels, |pixels| task(pixels, 0..channels));
    }
    let border = |i: usize| channels.min(panels * i / threads * panel);
    ctx.threads()
        .parallel_for(threads, |i| task(0..pixels, border(i)..border(i + 1)));
}

//! Depthwise convolution: every channel with a kernel of its own, vectors across channels.
//!
//! Four neighbouring pixels are computed together, so that a weight is loaded once for all.

mod f32;
mod int8;

pub(super) use self::f32::DepthwiseF32;
pub(super) use int8::DepthwiseI8;

use std::ops::Range;

use super::ConvGeometry;
use super::gather::inside;

/// Pixels that are computed together.
const TOGETHER: usize = 4;

/// Walks over output pixels, a few neighbours at a time, with the address of what each kernel
/// element reads for the first of them; the others read `step` elements further on each.
struct Tiles<'a, T> {
    geometry: &'a ConvGeometry,
    x: &'a [T],
    outside: &'a [T],
    pixels: Range<usize>,
    most: usize,
    interior: Range<usize>,
    /// For each kernel element.
    taps: Vec<*const T>,
}

impl<'a, T: Copy> Tiles<'a, T> {
    /// `outside` is what stands outside of the image, as long as `outside_len` says.
    fn new(
        geometry: &'a ConvGeometry,
        x: &'a [T],
        outside: &'a [T],
        pixels: Range<usize>,
        most: usize,
    ) -> Self {
        assert!(outside.len() >= outside_len(geometry));
        let (pad, stride) = (geometry.pad_begin[1], geometry.stride[1]);
        let reach = geometry.dilation[1] * (geometry.kernel[1] - 1);
        let end = (geometry.input[1] + pad)
            .saturating_sub(reach)
            .div_ceil(stride);
        let interior = pad.div_ceil(stride)..end;
        Self {
            geometry,
            x,
            outside,
            pixels,
            most,
            interior,
            taps: Vec::new(),
        }
    }

    /// Elements between what neighbouring pixels read.
    fn step(&self) -> usize {
        self.geometry.stride[1] * self.geometry.channels_in
    }

    /// The next pixels: the first, and how many, which is the most or 1. For all of them every
    /// address in `taps` is followed by a pixel's channels.
    fn advance(&mut self) -> Option<(usize, usize)> {
        let pixel = self.pixels.start;
        if pixel >= self.pixels.end {
            return None;
        }
        let (g, [out_h, out_w]) = (self.geometry, self.geometry.output());
        let (line, ox) = (pixel / out_w, pixel % out_w);
        let (image, oy) = (line / out_h, line % out_h);
        let last = ox + self.most;
        let together = ox >= self.interior.start
            && last <= self.interior.end.min(out_w)
            && pixel + self.most <= self.pixels.end;
        self.taps.clear();
        for ky in 0..g.kernel[0] {
            let y = inside(
                oy * g.stride[0] + ky * g.dilation[0],
                g.pad_begin[0],
                g.input[0],
            );
            for kx in 0..g.kernel[1] {
                let x = inside(
                    ox * g.stride[1] + kx * g.dilation[1],
                    g.pad_begin[1],
                    g.input[1],
                );
                self.taps.push(match (y, x) {
                    (Some(y), Some(x)) => {
                        let at = (image * g.input[0] + y) * g.input[1] + x;
                        self.x[at * g.channels_in..].as_ptr()
                    }
                    _ => self.outside.as_ptr(),
                });
            }
        }
        let count = if together { self.most } else { 1 };
        self.pixels.start += count;
        Some((pixel, count))
    }
}

/// Elements that stand in for what lies outside of the image.
fn outside_len(g: &ConvGeometry) -> usize {
    ((TOGETHER - 1) * g.stride[1] + 1) * g.channels_in
}

/// Output pixels that are worth a task.
fn grain(g: &ConvGeometry) -> usize {
    (64 * 1024 / (g.channels_out * g.kernel[0] * g.kernel[1])).max(8)
}

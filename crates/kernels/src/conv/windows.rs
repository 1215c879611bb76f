//! Windows of output pixels as the rows of a product, read where they lie.
//!
//! In a channels-last image each line of a window is one run of neighbours. Lines are copied only
//! to put the padding beside them.

use std::ops::Range;

use super::ConvGeometry;
use super::gather::inside;
use crate::arena::with_scratch;
use crate::gemm::{Pixels, Steps};

/// Output pixels of a part: their lines and sums stay in the L2 cache.
pub(super) const MOST: usize = 240;

/// Output pixels of a part of images of bytes, more where there are few channels: what they read
/// and write stays in the L1 cache.
pub(super) fn most_of_bytes(g: &ConvGeometry) -> usize {
    let pixel = g.stride[0] * g.stride[1] * g.channels_in + g.channels_out;
    (32 * 1024 / pixel.max(1)).clamp(MOST, 4 * MOST + 64)
}

/// Whether there are several images of so few pixels that a product is made for less than half a part.
pub(super) fn are_few(g: &ConvGeometry, batch: usize) -> bool {
    batch > 1 && 2 * g.output().iter().product::<usize>() <= MOST
}

/// Whether the lines of a window are runs of neighbours.
pub(super) fn suit(g: &ConvGeometry) -> bool {
    g.groups == 1 && g.dilation[1] == 1
}

/// Lays out elements of a line.
pub(super) type Lay<'a, X, T> = &'a dyn Fn(&mut [T], &[X]);

/// The images that windows are read from.
#[derive(Clone, Copy)]
pub(super) struct Images<'a, X, T> {
    pub x: &'a [X],
    /// The same elements where they can be read as they lie.
    pub as_is: Option<&'a [T]>,
    /// What stands outside of an image.
    pub outside: T,
    /// Copies elements of a line as they are to be read.
    pub copy: Lay<'a, X, T>,
    /// Elements of a run, of which the last ones may be any.
    pub run: usize,
}

/// Calls `work` for output pixels of one image at a time, with the address of the window of each
/// and where the elements of a window stand from there on. All of them are readable, and where
/// windows do not [`suit`] those of all groups, with gaps between.
pub(super) fn each_part<X: Copy, T: bytemuck::Pod>(
    g: &ConvGeometry,
    images: Images<X, T>,
    pixels: Range<usize>,
    mut work: impl FnMut(Range<usize>, &[*const T], Steps),
) {
    each_image(g, images, pixels, |pixels, windows, steps| {
        let windows = windows.windows(pixels.len());
        work(pixels, &windows, steps);
    });
}

/// As [`each_part`], of windows whose addresses are not written down.
pub(super) fn each_image<X: Copy, T: bytemuck::Pod>(
    g: &ConvGeometry,
    images: Images<X, T>,
    pixels: Range<usize>,
    mut work: impl FnMut(Range<usize>, Pixels, Steps),
) {
    let [height, width] = g.output();
    let mut start = pixels.start;
    while start < pixels.end {
        let image = start / (height * width);
        let end = pixels.end.min((image + 1) * height * width);
        let first = start / width % height;
        let last = (end - 1) / width % height;
        let frame = Frame::new(g, image, first..last + 1);
        let steps = Steps {
            lines: g.kernel[0],
            run: images.run,
            stride: g.dilation[0] * frame.stride,
        };
        frame.with(images, |lines| {
            let (step, down) = (g.stride[1] * g.channels_in, g.stride[0] * frame.stride);
            let line = ((g.kernel[1] - 1) * g.dilation[1] + 1) * g.channels_in;
            let reach = (steps.lines - 1) * steps.stride + line.max(steps.run);
            let across = if last > first {
                width
            } else {
                (end - 1) % width + 1
            };
            assert!(
                (last - first) * down + (across - 1) * step + reach <= lines.len(),
                "every window is readable"
            );
            let windows = Pixels {
                first: lines.as_ptr().cast(),
                before: start % width,
                width,
                step: step * size_of::<T>(),
                line: down * size_of::<T>(),
            };
            work(start..end, windows, steps);
        });
        start = end;
    }
}

/// The lines of the padded image that a few lines of output read.
struct Frame<'g> {
    geometry: &'g ConvGeometry,
    image: usize,
    /// In the padded image.
    lines: Range<usize>,
    /// Columns of the padded image that are read.
    columns: usize,
    /// Elements from one line to the next.
    stride: usize,
    /// Whether all of it lies in the image.
    is_inside: bool,
}

impl<'g> Frame<'g> {
    fn new(g: &'g ConvGeometry, image: usize, output: Range<usize>) -> Self {
        let reach = (g.kernel[0] - 1) * g.dilation[0] + 1;
        let lines = output.start * g.stride[0]..(output.end - 1) * g.stride[0] + reach;
        let across = (g.kernel[1] - 1) * g.dilation[1] + 1;
        let columns = (g.output()[1] - 1) * g.stride[1] + across;
        let is_inside = g.pad_begin[1] == 0
            && columns <= g.input[1]
            && lines.start >= g.pad_begin[0]
            && lines.end <= g.pad_begin[0] + g.input[0];
        let width = if is_inside { g.input[1] } else { columns };
        Self {
            geometry: g,
            image,
            lines,
            columns,
            stride: width * g.channels_in,
            is_inside,
        }
    }

    /// Calls `work` with the lines, of the image or copied with zeros around them.
    fn with<X: Copy, T: bytemuck::Pod>(&self, images: Images<X, T>, work: impl FnOnce(&[T])) {
        let (g, x) = (self.geometry, images.x);
        let (line, channels) = (g.input[1] * g.channels_in, g.channels_in);
        let image = self.image * g.input[0];
        let slack = images.run - g.line();
        if let (true, Some(x)) = (self.is_inside, images.as_is) {
            let from = (image + self.lines.start - g.pad_begin[0]) * line;
            if from + self.lines.len() * line + slack <= x.len() {
                return work(&x[from..]);
            }
        }
        let pad = g.pad_begin[1].min(self.columns);
        let there = (self.columns - pad).min(g.input[1]);
        with_scratch(self.lines.len() * self.stride + slack, |all: &mut [T]| {
            let (frame, behind) = all.split_at_mut(self.lines.len() * self.stride);
            behind.fill(images.outside);
            let lines = frame.chunks_exact_mut(self.stride);
            for (y, to) in self.lines.clone().zip(lines) {
                let Some(y) = inside(y, g.pad_begin[0], g.input[0]) else {
                    to.fill(images.outside);
                    continue;
                };
                let (left, rest) = to.split_at_mut(pad * channels);
                let (data, right) = rest.split_at_mut(there * channels);
                left.fill(images.outside);
                (images.copy)(data, &x[(image + y) * line..][..there * channels]);
                right.fill(images.outside);
            }
            work(all);
        });
    }
}

//! Windows of output pixels as the rows of a product, read where they lie.
//!
//! In a channels-last image each line of a window is one run of neighbours. Lines are copied only
//! to put the padding beside them.

use std::ops::Range;

use super::ConvGeometry;
use super::gather::inside;
use crate::arena::with_scratch;
use crate::gemm::f32::Steps;

/// Output pixels of a part: their lines and sums stay in the L2 cache.
pub(super) const MOST: usize = 240;

/// Whether the lines of a window are runs of neighbours.
pub(super) fn suit(g: &ConvGeometry) -> bool {
    g.groups == 1 && g.dilation[1] == 1
}

/// Calls `work` for output pixels of one image at a time, with the address of the window of each
/// and where the elements of a window stand from there on. All of them are readable.
pub(super) fn each_part(
    g: &ConvGeometry,
    x: &[f32],
    pixels: Range<usize>,
    mut work: impl FnMut(Range<usize>, &[*const f32], Steps),
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
            run: g.kernel[1] * g.channels_in,
            stride: g.dilation[0] * frame.stride,
        };
        frame.with(x, |lines| {
            let mut ox = start % width;
            let mut line = 0;
            let rows = (start..end).map(|_| {
                let at = line * g.stride[0] * frame.stride + ox * g.stride[1] * g.channels_in;
                ox += 1;
                if ox == width {
                    (ox, line) = (0, line + 1);
                }
                let reach = (steps.lines - 1) * steps.stride + steps.run;
                lines[at..][..reach].as_ptr()
            });
            let rows: Vec<*const f32> = rows.collect();
            work(start..end, &rows, steps);
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
        let columns = (g.output()[1] - 1) * g.stride[1] + g.kernel[1];
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
    fn with(&self, x: &[f32], work: impl FnOnce(&[f32])) {
        let g = self.geometry;
        let (line, channels) = (g.input[1] * g.channels_in, g.channels_in);
        let image = self.image * g.input[0];
        if self.is_inside {
            return work(&x[(image + self.lines.start - g.pad_begin[0]) * line..]);
        }
        let pad = g.pad_begin[1].min(self.columns);
        let there = (self.columns - pad).min(g.input[1]);
        with_scratch(self.lines.len() * self.stride, |copy: &mut [f32]| {
            let lines = copy.chunks_exact_mut(self.stride);
            for (y, to) in self.lines.clone().zip(lines) {
                let Some(y) = inside(y, g.pad_begin[0], g.input[0]) else {
                    to.fill(0.0);
                    continue;
                };
                let (left, rest) = to.split_at_mut(pad * channels);
                let (data, right) = rest.split_at_mut(there * channels);
                left.fill(0.0);
                data.copy_from_slice(&x[(image + y) * line..][..there * channels]);
                right.fill(0.0);
            }
            work(copy);
        });
    }
}

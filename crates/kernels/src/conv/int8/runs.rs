//! The rows of a product from runs of neighbouring bytes, one run for each row of the kernel.

use std::ops::Range;

use crate::conv::ConvGeometry;
use crate::conv::gather::inside;
use crate::gemm::int8::Row8;
use crate::simd::{Body, Simd, dispatch};

/// Bytes that may be read behind a run, or written behind the rows: the widest vector.
const SLACK: usize = 64;

/// Whether what an output pixel reads in a line are neighbours.
pub(super) fn serve(g: &ConvGeometry) -> bool {
    !g.is_pointwise() && g.dilation[1] == 1 && g.groups == 1
}

/// Bytes of scratch that [`lay_out`] needs besides the rows.
pub(super) fn scratch(g: &ConvGeometry) -> usize {
    SLACK + g.kernel[0] * line_bytes(g)
}

/// A line of the input with what pads it, and slack.
fn line_bytes(g: &ConvGeometry) -> usize {
    let columns = (g.output()[1].max(1) - 1) * g.stride[1] + g.kernel[1];
    columns * g.channels_in + SLACK
}

/// Lays out the inputs of output `pixels` as rows of a product, `pitch` bytes apart in `panel`,
/// which is longer than the rows by [`scratch`] bytes. What is behind a row's elements is
/// unspecified; the weights there are 0.
pub(super) fn lay_out(
    g: &ConvGeometry,
    row: Row8,
    x: &[u8],
    outside: u8,
    pixels: Range<usize>,
    (panel, pitch): (&mut [u8], usize),
) {
    let rows = pixels.len() * pitch;
    assert!(
        panel.len() >= rows + scratch(g) && pitch >= row.bytes_of(g.depth()),
        "rows and lines fit the scratch"
    );
    let (panel, lines) = panel.split_at_mut(rows + SLACK);
    let runs = Runs {
        geometry: g,
        row,
        x,
        outside,
        pixels,
        panel,
        pitch,
        lines,
        starts: vec![std::ptr::null(); g.kernel[0]],
    };
    dispatch(row.isa(), runs);
}

struct Runs<'a> {
    geometry: &'a ConvGeometry,
    row: Row8,
    x: &'a [u8],
    outside: u8,
    pixels: Range<usize>,
    panel: &'a mut [u8],
    pitch: usize,
    lines: &'a mut [u8],
    /// Where the first pixel of a line reads, for each row of the kernel.
    starts: Vec<*const u8>,
}

impl Body for Runs<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (g, row, chunk) = (self.geometry, self.row, self.row.chunk_len::<S>());
        let run = g.kernel[1] * g.channels_in;
        let (step, out_w) = (g.stride[1] * g.channels_in, g.output()[1]);
        let mut to = self.panel.as_mut_ptr();
        let mut pixel = self.pixels.start;
        while pixel < self.pixels.end {
            let count = (out_w - pixel % out_w).min(self.pixels.end - pixel);
            self.point(pixel, count);
            for i in 0..count {
                for (ky, from) in self.starts.iter().enumerate() {
                    let mut k = 0;
                    while k < run {
                        // SAFETY: `point` promises the runs of `count` pixels and slack behind
                        // them; rows are written in order, the last with slack behind it.
                        unsafe {
                            let to = to.add(row.bytes_of(ky * run + k));
                            row.chunk(s, to, from.add(i * step + k));
                        }
                        k += chunk;
                    }
                }
                to = to.wrapping_add(self.pitch);
            }
            pixel += count;
        }
    }
}

impl Runs<'_> {
    /// Sets the starts for `count` pixels of a line, which read the input where all of it and
    /// slack behind it are there, else a copy with what pads it.
    fn point(&mut self, pixel: usize, count: usize) {
        let (g, [out_h, out_w]) = (self.geometry, self.geometry.output());
        let (line, first) = (pixel / out_w, pixel % out_w * g.stride[1]);
        let (image, oy) = (line / out_h, line % out_h);
        let (pad, [in_h, in_w], channels) = (g.pad_begin[1], g.input, g.channels_in);
        let columns = (count - 1) * g.stride[1] + g.kernel[1];
        let left = pad.saturating_sub(first).min(columns);
        let right = (in_w + pad).saturating_sub(first).clamp(left, columns);
        let lines = self.lines.chunks_exact_mut(line_bytes(g));
        for (ky, (start, copy)) in self.starts.iter_mut().zip(lines).enumerate() {
            *start = copy.as_ptr();
            let copy = &mut copy[..columns * channels];
            let y = oy * g.stride[0] + ky * g.dilation[0];
            let Some(y) = inside(y, g.pad_begin[0], in_h).filter(|_| left < right) else {
                copy.fill(self.outside);
                continue;
            };
            let from = &self.x[((image * in_h + y) * in_w + first + left - pad) * channels..];
            let n = (right - left) * channels;
            if n == copy.len() && from.len() >= n + SLACK {
                *start = from.as_ptr();
                continue;
            }
            copy[..left * channels].fill(self.outside);
            copy[left * channels..][..n].copy_from_slice(&from[..n]);
            copy[right * channels..].fill(self.outside);
        }
    }
}

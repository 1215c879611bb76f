//! Neighbouring pixels of one line whose windows overlap: every column is loaded once for all.

use std::ops::Range;

use crate::conv::ConvGeometry;
use crate::conv::gather::inside;

/// Most pixels of a strip.
pub(super) const LONG: usize = 8;

/// Pixels of a shorter strip.
pub(super) const SHORT: usize = 4;

/// Most columns that the windows of a strip cover: those of 4 windows of 5, 2 apart.
const COLUMNS: usize = 2 * (SHORT - 1) + 5;

/// A line of the kernel that lies in the image, and where each column of it is.
#[derive(Clone, Copy)]
pub(super) struct Line<T> {
    /// Which line of the kernel.
    pub ky: usize,
    /// Which line of all images.
    line: usize,
    /// A pixel's channels for each column from the first window on.
    pub columns: [*const T; COLUMNS],
}

/// Walks over output pixels, a strip of one line at a time.
pub(super) struct Strips<'a, T> {
    geometry: &'a ConvGeometry,
    x: &'a [T],
    outside: &'a [T],
    pixels: Range<usize>,
    next: usize,
    /// The pixels of the line that the next one lies in.
    line: Range<usize>,
    lines: Vec<Line<T>>,
    /// How many of `lines` lie in the image.
    there: usize,
    /// Whether all columns lie in it.
    inside: bool,
}

impl<'a, T: Copy> Strips<'a, T> {
    /// Whether windows are 3 or 5 wide and 1 or 2 apart, or 7 wide and neighbours.
    pub fn suit(g: &ConvGeometry) -> bool {
        let window = (g.kernel[1], g.stride[1]);
        matches!(window, (3 | 5 | 7, 1) | (3 | 5, 2)) && g.dilation[1] == 1
    }

    /// `outside` is a pixel's channels that stand outside of the image.
    pub fn new(
        geometry: &'a ConvGeometry,
        x: &'a [T],
        outside: &'a [T],
        pixels: Range<usize>,
    ) -> Self {
        assert!(Self::suit(geometry), "windows of a width that has a kernel");
        assert_eq!(outside.len(), geometry.channels_in, "a pixel's channels");
        let columns = [outside.as_ptr(); COLUMNS];
        let line = Line {
            ky: 0,
            line: 0,
            columns,
        };
        Self {
            geometry,
            x,
            outside,
            next: pixels.start,
            pixels,
            line: 0..0,
            lines: vec![line; geometry.kernel[0]],
            there: 0,
            inside: false,
        }
    }

    /// The lines of the kernel that lie in the image for the pixels of the strip.
    #[inline(always)]
    pub fn lines(&self) -> &[Line<T>] {
        &self.lines[..self.there]
    }

    /// Whether all columns of the strip lie in the image: each is followed by the next.
    #[inline(always)]
    pub fn is_inside(&self) -> bool {
        self.inside
    }

    /// The first pixel of the next strip, and how many: [`LONG`] where windows of 3 are
    /// neighbours, [`SHORT`], 2 or 1. Pixels may come twice. Every address in `lines`, one for each column that
    /// the windows cover, is followed by a pixel's channels.
    #[inline(always)]
    pub fn advance(&mut self) -> Option<(usize, usize)> {
        if self.next >= self.pixels.end {
            return None;
        }
        if self.next >= self.line.end {
            self.enter();
        }
        let g = self.geometry;
        let first = self.pixels.start.max(self.line.start);
        let end = self.pixels.end.min(self.line.end);
        let left = end - self.next;
        let (pixel, count) = match left {
            LONG.. if g.kernel[1] == 3 && g.stride[1] == 1 => (self.next, LONG),
            SHORT.. => (self.next, SHORT),
            3 if end - first >= SHORT => (end - SHORT, SHORT),
            2.. => (self.next, 2),
            _ => (self.next, 1),
        };
        self.next = pixel + count;
        let columns = (count - 1) * g.stride[1] + g.kernel[1];
        let first = (pixel - self.line.start) * g.stride[1];
        self.inside = first >= g.pad_begin[1] && first + columns <= g.pad_begin[1] + g.input[1];
        for i in 0..self.there {
            self.address(i, first, columns);
        }
        Some((pixel, count))
    }

    /// Finds the line of the next pixel, and the lines of the kernel that lie in the image for it.
    fn enter(&mut self) {
        let (g, [out_h, out_w]) = (self.geometry, self.geometry.output());
        let line = self.next / out_w;
        self.line = line * out_w..(line + 1) * out_w;
        let (image, oy) = (line / out_h, line % out_h);
        self.there = 0;
        for ky in 0..g.kernel[0] {
            let y = oy * g.stride[0] + ky * g.dilation[0];
            if let Some(y) = inside(y, g.pad_begin[0], g.input[0]) {
                let to = &mut self.lines[self.there];
                (to.ky, to.line) = (ky, image * g.input[0] + y);
                self.there += 1;
            }
        }
    }

    /// Sets the addresses of `count` columns of the padded image in line `i`, from `first` on.
    #[inline(always)]
    fn address(&mut self, i: usize, first: usize, count: usize) {
        let g = self.geometry;
        let line = self.lines[i].line;
        let columns = &mut self.lines[i].columns[..count];
        let (width, pad, step) = (g.input[1], g.pad_begin[1], g.channels_in);
        let begin = pad.saturating_sub(first).min(count);
        let end = (width + pad).saturating_sub(first).min(count);
        if begin > 0 || end < count {
            columns.fill(self.outside.as_ptr());
        }
        if begin < end {
            let at = (line * width + first + begin - pad) * step;
            let from = self.x[at..][..(end - begin) * step].as_ptr();
            for (i, to) in columns[begin..end].iter_mut().enumerate() {
                *to = from.wrapping_add(i * step);
            }
        }
    }
}

//! Lines of an image that are convolved by themselves.

use std::ops::Range;

use super::{ConvF32, ConvGeometry, ConvI8};

/// Lines of an image, and lines of padding around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strip {
    /// Lines of the image.
    pub lines: usize,
    /// Lines above them.
    pub top: usize,
    /// Lines below them.
    pub bottom: usize,
}

impl ConvGeometry {
    /// The lines of the input that some lines of the output read, and those with their padding:
    /// convolved by themselves, they give these lines of the output.
    pub fn lines_for(&self, output: &Range<usize>) -> (Range<usize>, Strip) {
        let reach = self.dilation[0] * (self.kernel[0] - 1) + 1;
        let pad = self.pad_begin[0];
        let first = output.start * self.stride[0];
        let end = output.len().saturating_sub(1) * self.stride[0] + first + reach;
        let lines = first.saturating_sub(pad)..end.saturating_sub(pad).min(self.input[0]);
        let strip = Strip {
            lines: lines.len(),
            top: pad.saturating_sub(first),
            bottom: end.saturating_sub(pad + self.input[0]),
        };
        (lines, strip)
    }

    /// The same for a strip.
    fn of(&self, strip: Strip) -> Self {
        let mut geometry = *self;
        geometry.input[0] = strip.lines;
        geometry.pad_begin[0] = strip.top;
        geometry.pad_end[0] = strip.bottom;
        geometry
    }
}

impl ConvF32 {
    /// Whether the lines of a strip come out as those of the whole image do. Winograd's are sums
    /// of another order.
    pub fn goes_by_lines(&self) -> bool {
        !self.is_winograd()
    }

    /// The same weights for a strip.
    #[must_use]
    pub fn of_strip(&self, strip: Strip) -> Self {
        self.with_geometry(self.geometry().of(strip))
    }
}

impl ConvI8 {
    /// The same weights for a strip.
    #[must_use]
    pub fn of_strip(&self, strip: Strip) -> Self {
        self.with_geometry(self.geometry().of(strip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::tests::some_geometry;
    use crate::gemm::Epilogue;
    use crate::testing::{Random, contexts};

    #[test]
    fn strips_give_the_lines_of_the_whole() {
        let mut random = Random::new(15);
        for _ in 0..120 {
            let g = some_geometry(&mut random);
            let ([height, width], (input, output)) = (g.output(), g.sizes(1));
            let x = random.floats(input);
            let w = random.floats(g.channels_out * g.depth());
            for ctx in contexts() {
                let conv = ConvF32::prepare(&ctx, g, &w).unwrap();
                if !conv.goes_by_lines() {
                    continue;
                }
                let mut whole = vec![0.0; output];
                conv.run(&ctx, 1, &x, &mut whole, &Epilogue::default());
                let mut first = 0;
                while first < height {
                    let end = (first + 1 + random.below(3)).min(height);
                    let (lines, strip) = g.lines_for(&(first..end));
                    if lines.is_empty() {
                        break;
                    }
                    let line = g.input[1] * g.channels_in;
                    let mut y = vec![f32::NAN; (end - first) * width * g.channels_out];
                    let from = &x[lines.start * line..lines.end * line];
                    let conv = conv.of_strip(strip);
                    conv.run(&ctx, 1, from, &mut y, &Epilogue::default());
                    let at = first * width * g.channels_out;
                    assert_eq!(y, whole[at..][..y.len()], "{g:?} {first}..{end}");
                    first = end;
                }
            }
        }
    }
}

//! Gradients of a depthwise convolution: vectors over channels.

use super::{ConvGeometry, Strips, runs};
use crate::arena::with_scratch;
use crate::conv::windows;
use crate::norm::column_sums;
use crate::parts::add_to;
use crate::simd::{Body, Simd, dispatch};
use crate::taps::Axis;
use crate::threads::Shared;
use crate::{Ctx, Isa};

/// Kernel elements whose sums are kept in registers together.
const TAPS: usize = 9;

/// As [`super::weight_gradient`], where every channel has a kernel of its own.
pub(super) fn channel_gradient(
    ctx: &Ctx,
    g: &ConvGeometry,
    batch: usize,
    [x, dy]: [&[f32]; 2],
    dw: &mut [f32],
    db: Option<&mut [f32]>,
) {
    if let Some(db) = db {
        column_sums(ctx, dy, db);
    }
    let (channels, taps) = (g.channels_out, g.kernel[0] * g.kernel[1]);
    let strips = Strips::new(g, batch, dw.len());
    let isa = ctx.isa().narrowed(channels);
    with_scratch(strips.parts * dw.len(), |all: &mut [f32]| {
        ctx.threads().parallel_chunks(all, dw.len(), |part, sums| {
            sums.fill(0.0);
            let images = windows::Images {
                x,
                as_is: Some(x),
                outside: 0.0,
                copy: &<[f32]>::copy_from_slice,
                run: g.line(),
            };
            for pixels in strips.of_part(part) {
                windows::each_part(g, images, pixels, |pixels, windows, steps| {
                    let taps = runs(g, 0, steps.stride);
                    let offsets: Vec<usize> = taps.iter().map(|r| r.offset).collect();
                    let strip = Strip {
                        windows,
                        offsets: &offsets,
                        dy: &dy[pixels.start * channels..pixels.end * channels],
                        channels,
                        sums: &mut *sums,
                    };
                    dispatch(isa, strip);
                });
            }
        });
        let (first, others) = all.split_at_mut(dw.len());
        for other in others.chunks_exact(dw.len()) {
            add_to(ctx, first, other);
        }
        for (c, dw) in dw.chunks_exact_mut(taps).enumerate() {
            for (tap, dw) in dw.iter_mut().enumerate() {
                *dw = first[tap * channels + c];
            }
        }
    });
}

/// A strip of pixels, whose products with their windows are added to sums `[tap, channel]`.
struct Strip<'a> {
    windows: &'a [*const f32],
    /// Where each kernel element stands in a window; all channels are readable there.
    offsets: &'a [usize],
    dy: &'a [f32],
    channels: usize,
    sums: &'a mut [f32],
}

impl Body for Strip<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut c = 0;
        while c < self.channels {
            let n = (self.channels - c).min(S::LANES);
            let mut tap = 0;
            while tap < self.offsets.len() {
                let left = (self.offsets.len() - tap).min(TAPS);
                // SAFETY: who made the strip promises its windows, and the sums have a row of
                // all channels for each kernel element.
                tap += unsafe {
                    match left {
                        9 => self.tile::<S, 9>(s, tap, c, n),
                        5..9 => self.tile::<S, 5>(s, tap, c, n),
                        3 | 4 => self.tile::<S, 3>(s, tap, c, n),
                        _ => self.tile::<S, 1>(s, tap, c, n),
                    }
                };
            }
            c += n;
        }
    }
}

impl Strip<'_> {
    /// `T` kernel elements from `tap` on, of `n` channels from `c` on; `T`.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn tile<S: Simd, const T: usize>(
        &mut self,
        s: S,
        tap: usize,
        c: usize,
        n: usize,
    ) -> usize {
        let mut offsets = [0; T];
        for (i, to) in offsets.iter_mut().enumerate() {
            *to = self.offsets[tap + i] + c;
        }
        let mut sums = [s.splat(0.0); T];
        // SAFETY: the caller's promise.
        unsafe {
            let to = self.sums.as_mut_ptr().add(tap * self.channels + c);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = s.load_up_to(to.add(i * self.channels), n);
            }
            let dy = self.dy.as_ptr().add(c);
            for (i, window) in self.windows.iter().enumerate() {
                let d = s.load_up_to(dy.add(i * self.channels), n);
                for (sum, offset) in sums.iter_mut().zip(offsets) {
                    *sum = s.fma(s.load_up_to(window.add(offset), n), d, *sum);
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                s.store_up_to(to.add(i * self.channels), sum, n);
            }
        }
        T
    }
}

/// Spreads gradients of a depthwise convolution of any stride to its input, by weights
/// `[kernel element, channel]`.
pub(super) fn spread(
    ctx: &Ctx,
    g: &ConvGeometry,
    batch: usize,
    weights: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    let line = g.input[1] * g.channels_in;
    let sources = [0, 1].map(|axis| readers(g, axis));
    let isa: Isa = ctx.isa().narrowed(g.channels_in);
    let shared = Shared::new(dx);
    let grain = (16 * 1024 / (line * g.depth()).max(1)).max(1);
    ctx.threads()
        .parallel_ranges(batch * g.input[0], grain, |lines| {
            for at in lines {
                let (image, y) = (at / g.input[0], at % g.input[0]);
                let spread = Spread {
                    g,
                    sources: [&sources[0][y..=y], &sources[1]],
                    weights,
                    dy: &dy[image * g.sizes(1).1..][..g.sizes(1).1],
                    // SAFETY: every line belongs to one task.
                    dx: unsafe { shared.slice(at * line..(at + 1) * line) },
                };
                dispatch(isa, spread);
            }
        });
}

/// For each input place of an axis, the kernel elements that read it and the outputs they are of.
fn readers(g: &ConvGeometry, axis: usize) -> Vec<Vec<(usize, usize)>> {
    let axis = Axis {
        kernel: g.kernel[axis],
        stride: g.stride[axis],
        pad_begin: g.pad_begin[axis],
        dilation: g.dilation[axis],
        input: g.input[axis],
        output: g.output()[axis],
    };
    axis.readers()
}

/// A line of dX.
struct Spread<'a> {
    g: &'a ConvGeometry,
    sources: [&'a [Vec<(usize, usize)>]; 2],
    weights: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Body for Spread<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (g, channels) = (self.g, self.g.channels_in);
        let width = g.output()[1];
        let mut pairs: Vec<(*const f32, *const f32)> = Vec::new();
        for (dx, columns) in self.dx.chunks_exact_mut(channels).zip(self.sources[1]) {
            pairs.clear();
            for &(ky, oy) in self.sources[0].iter().flatten() {
                for &(kx, ox) in columns {
                    let dy = &self.dy[(oy * width + ox) * channels..][..channels];
                    let w = &self.weights[(ky * g.kernel[1] + kx) * channels..][..channels];
                    pairs.push((dy.as_ptr(), w.as_ptr()));
                }
            }
            let mut c = 0;
            while c < channels {
                let n = (channels - c).min(S::LANES);
                let mut sum = s.splat(0.0);
                // SAFETY: all channels are readable at each address, and writable in `dx`.
                unsafe {
                    for (dy, w) in &pairs {
                        sum = s.fma(s.load_up_to(dy.add(c), n), s.load_up_to(w.add(c), n), sum);
                    }
                    s.store_up_to(dx.as_mut_ptr().add(c), sum, n);
                }
                c += n;
            }
        }
    }
}

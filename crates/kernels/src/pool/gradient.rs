//! Gradients of pools with respect to their input.

use std::ops::Range;

use super::{PoolGeometry, grain};
use crate::Ctx;
use crate::activation::GRAIN;
use crate::arena::with_scratch;
use crate::simd::{Body, Simd, dispatch};
use crate::taps::Axis;
use crate::threads::Shared;

/// The gradient of [`super::max_pool`]: that of each window goes to the first of its elements that
/// is the largest, where NaN is larger than any number. Where `rectified`, elements that are not
/// above 0 get none: `x` is then the result of a Relu, of which `dx` becomes the gradient of the
/// input.
pub fn max_pool_gradient(
    ctx: &Ctx,
    g: &PoolGeometry,
    batch: usize,
    [x, dy]: [&[f32]; 2],
    rectified: bool,
    dx: &mut [f32],
) {
    let pixels = g.check(batch, x.len(), dy.len());
    assert_eq!(x.len(), dx.len(), "a gradient for each input");
    if g.channels == 0 || pixels == 0 {
        return dx.fill(0.0);
    }
    if are_apart(g) {
        let line = g.input[1] * g.channels;
        let shared = Shared::new(dx);
        let grain = (grain(g) / g.output[1]).max(1);
        ctx.threads()
            .parallel_ranges(batch * g.output[0], grain, |lines| {
                for at in lines {
                    let (image, oy) = (at / g.output[0], at % g.output[0]);
                    let first = oy * g.stride[0];
                    let last = match oy + 1 == g.output[0] {
                        true => g.input[0],
                        false => first + g.stride[0],
                    };
                    let own =
                        (image * g.input[0] + first) * line..(image * g.input[0] + last) * line;
                    let row = Row {
                        g,
                        x: &x[own.clone()],
                        dy: &dy[at * g.output[1] * g.channels..][..g.output[1] * g.channels],
                        rectified,
                        // SAFETY: the input lines of a line of windows belong to one task.
                        dx: unsafe { shared.slice(own) },
                    };
                    dispatch(ctx.isa(), row);
                }
            });
        return;
    }
    with_scratch(dy.len(), |places: &mut [f32]| {
        let shared = Shared::new(places);
        ctx.threads().parallel_ranges(pixels, grain(g), |range| {
            with_scratch(g.channels, |best: &mut [f32]| {
                let own = range.start * g.channels..range.end * g.channels;
                let places = Places {
                    g,
                    x,
                    range,
                    best,
                    // SAFETY: pixels of different tasks do not overlap.
                    places: unsafe { shared.slice(own) },
                };
                dispatch(ctx.isa(), places);
            });
        });
        let gather = Gather {
            g,
            dy,
            axes: readers(g),
            from: Source::Places {
                places,
                x: rectified.then_some(x),
            },
        };
        gather.run(ctx, batch, dx);
    });
}

/// The gradient of [`super::average_pool`]: each element of a window gets an equal share of the
/// window's.
pub fn average_pool_gradient(
    ctx: &Ctx,
    g: &PoolGeometry,
    batch: usize,
    include_pad: bool,
    dy: &[f32],
    dx: &mut [f32],
) {
    g.check(batch, dx.len(), dy.len());
    let of = |axis: usize| -> Vec<f32> {
        let count = |at: usize| match include_pad {
            true => g.padded_count(axis, at),
            false => g.window(axis, at).0.len(),
        };
        (0..g.output[axis])
            .map(|at| count(at).max(1) as f32)
            .collect()
    };
    let gather = Gather {
        g,
        dy,
        axes: readers(g),
        from: Source::Shares {
            counts: [of(0), of(1)],
        },
    };
    gather.run(ctx, batch, dx);
}

/// Whether windows stand side by side, each whole in the image.
fn are_apart(g: &PoolGeometry) -> bool {
    let along = |i: usize| {
        g.kernel[i] == g.stride[i]
            && g.pad_begin[i] == 0
            && g.dilation[i] == 1
            && g.output[i] * g.stride[i] <= g.input[i]
    };
    along(0) && along(1)
}

fn readers(g: &PoolGeometry) -> [Vec<Vec<(usize, usize)>>; 2] {
    [0, 1].map(|i| {
        let axis = Axis {
            kernel: g.kernel[i],
            stride: g.stride[i],
            pad_begin: g.pad_begin[i],
            dilation: g.dilation[i],
            input: g.input[i],
            output: g.output[i],
        };
        axis.readers()
    })
}

/// A line of windows that stand side by side, and the input lines under them.
struct Row<'a> {
    g: &'a PoolGeometry,
    x: &'a [f32],
    dy: &'a [f32],
    rectified: bool,
    dx: &'a mut [f32],
}

impl Body for Row<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let g = self.g;
        let line = g.input[1] * g.channels;
        let whole = g.output[1] * g.kernel[1] * g.channels;
        if whole < line {
            self.dx
                .chunks_exact_mut(line)
                .for_each(|line| line[whole..].fill(0.0));
        }
        self.dx[g.kernel[0] * line..].fill(0.0);
        let finite = match g.kernel {
            [2, 2] => self.windows(s, [0, g.channels, line, line + g.channels]),
            _ => false,
        };
        if !finite {
            self.any();
        }
    }
}

impl Row<'_> {
    /// All windows, whose elements stand at `offsets`; `false` where one is NaN or infinite: then
    /// what was written is to be written anew.
    #[inline(always)]
    fn windows<S: Simd, const K: usize>(&mut self, s: S, offsets: [usize; K]) -> bool {
        let (g, zero) = (self.g, s.splat(0.0));
        let mut odd = zero;
        for ox in 0..g.output[1] {
            let mut c = 0;
            while c < g.channels {
                let n = (g.channels - c).min(S::LANES);
                let at = ox * g.kernel[1] * g.channels + c;
                // SAFETY: all windows lie in the lines, which `x` and `dx` both hold.
                unsafe {
                    let x = self.x.as_ptr().add(at);
                    let dy = s.load_up_to(self.dy.as_ptr().add(ox * g.channels + c), n);
                    let mut most = s.load_up_to(x.add(offsets[0]), n);
                    odd = s.fma(most, zero, odd);
                    let mut shares = [zero; K];
                    shares[0] = dy;
                    for k in 1..K {
                        let next = s.load_up_to(x.add(offsets[k]), n);
                        odd = s.fma(next, zero, odd);
                        for share in shares.iter_mut().take(k) {
                            *share = s.if_less(most, next, zero, *share);
                        }
                        shares[k] = s.if_less(most, next, dy, zero);
                        most = s.if_less(most, next, next, most);
                    }
                    let to = self.dx.as_mut_ptr().add(at);
                    for (share, offset) in shares.into_iter().zip(offsets) {
                        let share = match self.rectified {
                            true => s.if_less(zero, most, share, zero),
                            false => share,
                        };
                        s.store_up_to(to.add(offset), share, n);
                    }
                }
                c += n;
            }
        }
        let lanes = s.lanes(odd);
        lanes.iter().all(|lane| !lane.is_nan())
    }

    /// All windows of any size and elements.
    fn any(&mut self) {
        let g = self.g;
        let line = g.input[1] * g.channels;
        for (i, dy) in self.dy.iter().enumerate() {
            let (ox, c) = (i / g.channels, i % g.channels);
            let first = ox * g.kernel[1] * g.channels + c;
            let mut best = first;
            for k in 0..g.kernel[0] * g.kernel[1] {
                let at = first + k / g.kernel[1] * line + k % g.kernel[1] * g.channels;
                self.dx[at] = 0.0;
                if is_larger(self.x[at], self.x[best]) {
                    best = at;
                }
            }
            let passes = !self.rectified || self.x[best] > 0.0;
            self.dx[best] = if passes { *dy } else { 0.0 };
        }
    }
}

#[inline(always)]
fn is_larger(x: f32, best: f32) -> bool {
    x > best || (x.is_nan() && !best.is_nan())
}

/// The element of each window that is the largest, by its place in the window.
struct Places<'a> {
    g: &'a PoolGeometry,
    x: &'a [f32],
    range: Range<usize>,
    best: &'a mut [f32],
    places: &'a mut [f32],
}

impl Body for Places<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (g, channels) = (self.g, self.g.channels);
        let ([oh, ow], [ih, iw]) = (g.output, g.input);
        for (pixel, places) in self.range.zip(self.places.chunks_exact_mut(channels)) {
            let (rows, y) = g.window(0, pixel / ow % oh);
            let (columns, x) = g.window(1, pixel % ow);
            let mut is_first = true;
            for (i, row) in rows.enumerate() {
                let line = pixel / (oh * ow) * ih + y + i * g.dilation[0];
                for (j, column) in columns.clone().enumerate() {
                    let at = (line * iw + x + j * g.dilation[1]) * channels;
                    let place = (row * g.kernel[1] + column) as f32;
                    let x = &self.x[at..at + channels];
                    if is_first {
                        self.best.copy_from_slice(x);
                        places.fill(place);
                        is_first = false;
                        continue;
                    }
                    let all = x.iter().zip(self.best.iter_mut()).zip(places.iter_mut());
                    for ((x, best), to) in all {
                        let takes = is_larger(*x, *best);
                        *best = if takes { *x } else { *best };
                        *to = if takes { place } else { *to };
                    }
                }
            }
        }
    }
}

/// Where each input pixel gets its gradient from.
struct Gather<'a> {
    g: &'a PoolGeometry,
    dy: &'a [f32],
    /// Of each input line and column, the window elements that read it and their outputs.
    axes: [Vec<Vec<(usize, usize)>>; 2],
    from: Source<'a>,
}

enum Source<'a> {
    /// Windows whose largest element it is; where `x` is there, only pixels above 0.
    Places {
        places: &'a [f32],
        x: Option<&'a [f32]>,
    },
    /// All windows that it lies in, by the elements along each axis that a window counts.
    Shares { counts: [Vec<f32>; 2] },
}

impl Gather<'_> {
    fn run(&self, ctx: &Ctx, batch: usize, dx: &mut [f32]) {
        let g = self.g;
        let line = g.input[1] * g.channels;
        let shared = Shared::new(dx);
        let grain = (GRAIN / line.max(1)).max(1);
        ctx.threads()
            .parallel_ranges(batch * g.input[0], grain, |lines| {
                // SAFETY: every line belongs to one task.
                let dx = unsafe { shared.slice(lines.start * line..lines.end * line) };
                dispatch(
                    ctx.isa(),
                    Lines {
                        all: self,
                        first: lines.start,
                        dx,
                    },
                );
            });
    }
}

/// Some lines of dX, from `first` of all images on.
struct Lines<'a> {
    all: &'a Gather<'a>,
    first: usize,
    dx: &'a mut [f32],
}

impl Body for Lines<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (all, g) = (self.all, self.all.g);
        let ([ih, iw], [oh, ow], channels) = (g.input, g.output, g.channels);
        let lines = self.dx.chunks_exact_mut((iw * channels).max(1));
        for (at, line) in lines.enumerate() {
            let at = self.first + at;
            let rows = &all.axes[0][at % ih];
            let pixels = line.chunks_exact_mut(channels.max(1));
            for (ix, (dx, columns)) in pixels.zip(&all.axes[1]).enumerate() {
                dx.fill(0.0);
                for &(ky, oy) in rows {
                    for &(kx, ox) in columns {
                        let from = ((at / ih * oh + oy) * ow + ox) * channels;
                        let dy = &all.dy[from..from + channels];
                        match &all.from {
                            Source::Places { places, .. } => {
                                let place = (ky * g.kernel[1] + kx) as f32;
                                let places = &places[from..from + channels];
                                for ((dx, dy), p) in dx.iter_mut().zip(dy).zip(places) {
                                    *dx += if *p == place { *dy } else { 0.0 };
                                }
                            }
                            Source::Shares { counts } => {
                                let share = 1.0 / (counts[0][oy] * counts[1][ox]);
                                let all = dx.iter_mut().zip(dy);
                                all.for_each(|(dx, dy)| *dx += dy * share);
                            }
                        }
                    }
                }
                if let Source::Places { x: Some(x), .. } = &all.from {
                    let x = &x[(at * iw + ix) * channels..][..channels];
                    for (dx, x) in dx.iter_mut().zip(x) {
                        *dx = if *x > 0.0 { *dx } else { 0.0 };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::tests::some;
    use crate::testing::{Random, close, contexts};

    /// The input elements of the window of output element `at`, in order, and how many elements
    /// of it are image or padding.
    fn window(g: &PoolGeometry, at: usize) -> (Vec<usize>, usize) {
        let (pixel, c) = (at / g.channels, at % g.channels);
        let (oy, ox) = (pixel / g.output[1] % g.output[0], pixel % g.output[1]);
        let image = pixel / (g.output[0] * g.output[1]);
        let (mut places, mut padded) = (vec![], 0);
        for i in 0..g.kernel[0] * g.kernel[1] {
            let y = oy * g.stride[0] + i / g.kernel[1] * g.dilation[0];
            let z = ox * g.stride[1] + i % g.kernel[1] * g.dilation[1];
            let end = |i: usize| g.input[i] + g.pad_begin[i] + g.pad_end[i];
            padded += usize::from(y < end(0) && z < end(1));
            let y = y.wrapping_sub(g.pad_begin[0]);
            let z = z.wrapping_sub(g.pad_begin[1]);
            if y < g.input[0] && z < g.input[1] {
                places.push(((image * g.input[0] + y) * g.input[1] + z) * g.channels + c);
            }
        }
        (places, padded)
    }

    /// A geometry of windows side by side, or of any.
    fn geometry(random: &mut Random, round: usize) -> PoolGeometry {
        let mut g = some(random);
        if round % 3 == 0 {
            (g.stride, g.dilation) = (g.kernel, [1, 1]);
            (g.pad_begin, g.pad_end) = ([0; 2], [0; 2]);
            g.output = g.output_size(false);
        }
        if round % 6 == 0 {
            (g.kernel, g.stride) = ([2, 2], [2, 2]);
            g.output = g.output_size(false);
        }
        g
    }

    #[test]
    fn the_first_maximum_of_a_window_gets_its_gradient() {
        let mut random = Random::new(71);
        for round in 0..150 {
            let g = geometry(&mut random, round);
            let count = 2 * g.input[0] * g.input[1] * g.channels;
            // Few values, so that maxima come twice.
            let mut x: Vec<f32> = (0..count).map(|_| random.below(5) as f32 - 2.0).collect();
            if round % 4 == 0 {
                for value in [f32::NAN, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    x[random.below(count)] = value;
                }
            }
            let dy = random.floats(2 * g.output[0] * g.output[1] * g.channels);
            let rectified = round % 2 == 0;
            let mut want = vec![0.0; count];
            for (at, dy) in dy.iter().enumerate() {
                let (places, _) = window(&g, at);
                let Some(&first) = places.first() else {
                    continue;
                };
                let larger = |best: usize, at: &usize| {
                    let at = *at;
                    if is_larger(x[at], x[best]) { at } else { best }
                };
                let best = places.iter().fold(first, larger);
                if !rectified || x[best] > 0.0 {
                    want[best] += dy;
                }
            }
            for ctx in contexts() {
                let mut dx = vec![f32::NAN; count];
                max_pool_gradient(&ctx, &g, 2, [&x, &dy], rectified, &mut dx);
                close(&dx, &want, 1e-6, &format!("{g:?}"));
            }
        }
    }

    #[test]
    fn elements_of_a_window_share_its_gradient() {
        let mut random = Random::new(72);
        for round in 0..100 {
            let (g, include) = (geometry(&mut random, round), round % 2 == 0);
            let count = 2 * g.input[0] * g.input[1] * g.channels;
            let dy = random.floats(2 * g.output[0] * g.output[1] * g.channels);
            let mut want = vec![0.0; count];
            for (at, dy) in dy.iter().enumerate() {
                let (places, padded) = window(&g, at);
                let share = dy / if include { padded } else { places.len() }.max(1) as f32;
                places.iter().for_each(|&at| want[at] += share);
            }
            for ctx in contexts() {
                let mut dx = vec![f32::NAN; count];
                average_pool_gradient(&ctx, &g, 2, include, &dy, &mut dx);
                close(&dx, &want, 1e-5, &format!("{g:?}"));
            }
        }
    }
}

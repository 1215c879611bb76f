//! The largest float of each window, a vector of channels at a time.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_arch = "x86_64")]
use half::bf16;

use super::{PoolGeometry, grain};
use crate::floats::Channel;
#[cfg(target_arch = "x86_64")]
use crate::simd::avx512::Avx512;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;
use crate::{Ctx, Isa};

/// Makes `y` the largest of each window. `false` where the channels do not fill a vector, or an
/// element is NaN or infinite: then `y` is to be made another way.
pub(super) fn of_windows<E: Float>(ctx: &Ctx, g: &PoolGeometry, x: &[E], y: &mut [E]) -> bool {
    let isa = ctx.isa().narrowed(g.channels);
    if g.channels < 8 {
        return false;
    }
    // What each line and column of windows reads: elements, and the input place of the first.
    let along = |axis: usize| -> Vec<(Range<usize>, usize)> {
        (0..g.output[axis]).map(|at| g.window(axis, at)).collect()
    };
    let (rows, columns) = (along(0), along(1));
    let is_empty = |(range, _): &(Range<usize>, usize)| range.is_empty();
    if rows.iter().chain(&columns).any(is_empty) {
        return false;
    }
    let line = g.output[1] * g.channels;
    let image = g.input[0] * g.input[1] * g.channels;
    let finite = AtomicBool::new(true);
    let shared = Shared::new(y);
    let lines = shared.len() / line;
    let grain = (grain(g) / g.output[1]).max(1);
    ctx.threads().parallel_ranges(lines, grain, |range| {
        for at in range {
            let (row, first) = &rows[at % g.output[0]];
            let line = Line {
                g,
                x: &x[at / g.output[0] * image..][..image],
                rows: row.len(),
                first: *first,
                columns: &columns,
                // SAFETY: every line belongs to one task.
                y: unsafe { shared.slice(at * line..(at + 1) * line) },
            };
            if !E::line(isa, line) {
                finite.store(false, Ordering::Relaxed);
            }
        }
    });
    finite.into_inner()
}

/// A float that there are vectors of.
pub(super) trait Float: Copy + Send + Sync {
    /// Makes a line; `false` where an element is NaN or infinite.
    fn line(isa: Isa, line: Line<Self>) -> bool;
}

impl Float for f32 {
    fn line(isa: Isa, line: Line<f32>) -> bool {
        dispatch(isa, line)
    }
}

/// Only for a CPU that has BF16.
#[cfg(target_arch = "x86_64")]
impl Float for bf16 {
    fn line(_: Isa, line: Line<bf16>) -> bool {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]
        unsafe fn rounded(line: Line<bf16>) -> bool {
            // SAFETY: the CPU has what this function is compiled for.
            line.by(unsafe { Avx512::prove() })
        }
        // SAFETY: the caller's promise.
        unsafe { rounded(line) }
    }
}

/// A line of windows.
pub(super) struct Line<'a, E> {
    g: &'a PoolGeometry,
    x: &'a [E],
    /// Lines that a window reads, and the first of them.
    rows: usize,
    first: usize,
    columns: &'a [(Range<usize>, usize)],
    y: &'a mut [E],
}

impl Body for Line<'_, f32> {
    type Out = bool;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        self.by(s)
    }
}

impl<E> Line<'_, E> {
    /// `false` where an element is NaN or infinite.
    #[inline(always)]
    fn by<S: Simd>(self, s: S) -> bool
    where
        E: Channel<S>,
    {
        let (g, channels) = (self.g, self.g.channels);
        let across = g.dilation[1] * channels;
        let down = g.dilation[0] * g.input[1] * channels;
        let zero = s.splat(0.0);
        let mut odd = zero;
        let pixels = self.y.chunks_exact_mut(channels);
        for (y, (columns, first)) in pixels.zip(self.columns) {
            let corner = (self.first * g.input[1] + first) * channels;
            let reach = (self.rows - 1) * down + (columns.len() - 1) * across + channels;
            let x = self.x[corner..corner + reach].as_ptr();
            let mut c = 0;
            while c < channels {
                let n = (channels - c).min(S::LANES);
                // SAFETY: all channels are readable at each element of the window, which the
                // slice above covers, and writable in `y`.
                unsafe {
                    let mut most = E::load(s, x.add(c), n);
                    for row in 0..self.rows {
                        let line = x.add(row * down + c);
                        for column in 0..columns.len() {
                            let next = E::load(s, line.add(column * across), n);
                            odd = s.fma(next, zero, odd);
                            most = s.max(next, most);
                        }
                    }
                    E::store(s, y.as_mut_ptr().add(c), most, n);
                }
                c += n;
            }
        }
        s.lanes(odd).iter().all(|lane| !lane.is_nan())
    }
}

//! Depthwise kernels 3 or 5 wide with stride 1 or 2: neighbouring pixels of a line share the
//! columns that they read, each laid out once for all of them.

mod fours;

use std::ops::Range;

use super::{Work, interleave, part};
use crate::Isa;
use crate::conv::ConvGeometry;
use crate::conv::gather::inside;
use crate::gemm::int8::Store8;
use crate::gemm::shape;
use crate::simd::{Body, Simd, dispatch_vector};

/// Whether there is a kernel for the geometry.
pub(super) fn serve(isa: Isa, g: &ConvGeometry) -> bool {
    isa != Isa::Generic
        && matches!(g.kernel[1], 3 | 5)
        && matches!(g.stride[1], 1 | 2)
        && g.dilation[1] == 1
        && g.channels_out >= shape(isa).0
}

/// Computes output pixels of a geometry that `serve` accepts.
pub(super) fn run<const SHIFTED: bool>(work: &Work, range: Range<usize>, to: Store8) {
    let done = match (work.geometry.kernel[1], work.geometry.stride[1]) {
        (3, 1) => lines::<3, 1, SHIFTED>(work, range, to),
        (3, _) => lines::<3, 2, SHIFTED>(work, range, to),
        (_, 1) => lines::<5, 1, SHIFTED>(work, range, to),
        (_, _) => lines::<5, 2, SHIFTED>(work, range, to),
    };
    assert!(done, "the instruction set has vectors");
}

fn lines<const K: usize, const STEP: usize, const SHIFTED: bool>(
    work: &Work,
    range: Range<usize>,
    to: Store8,
) -> bool {
    let lines = Lines::<K, STEP, SHIFTED>::new(work, range, to);
    if work.fours.is_some() {
        return fours::run(work.isa, lines);
    }
    dispatch_vector(work.isa, lines).is_ok()
}

/// How the sums of pixels come about.
trait Way<S: Simd, const K: usize, const STEP: usize, const SHIFTED: bool> {
    /// The sums of `T` pixels from the one `at` in the line, and of `V` vectors of channels.
    ///
    /// # Safety
    /// The table has the columns of these pixels, and `V` vectors of channels start at `c`.
    unsafe fn sums<const T: usize, const V: usize>(
        lines: &Lines<K, STEP, SHIFTED>,
        s: S,
        at: usize,
        c: usize,
    ) -> [[S::I; V]; T];
}

/// Kernel elements in pairs of 16 bits.
struct InPairs;

impl<S: Simd, const K: usize, const STEP: usize, const SHIFTED: bool> Way<S, K, STEP, SHIFTED>
    for InPairs
{
    #[inline(always)]
    unsafe fn sums<const T: usize, const V: usize>(
        lines: &Lines<K, STEP, SHIFTED>,
        s: S,
        at: usize,
        c: usize,
    ) -> [[S::I; V]; T] {
        // SAFETY: the caller's promise.
        unsafe { lines.sums(s, at, c) }
    }
}

/// Calls the macro `$f` with every column that a tile may read.
macro_rules! columns {
    ($f:ident) => {
        $f!(0);
        $f!(1);
        $f!(2);
        $f!(3);
        $f!(4);
        $f!(5);
        $f!(6);
        $f!(7);
        $f!(8);
        $f!(9);
        $f!(10);
    };
}

use columns;

/// Kernels `K` wide with stride `STEP`.
struct Lines<'a, const K: usize, const STEP: usize, const SHIFTED: bool> {
    work: &'a Work<'a>,
    range: Range<usize>,
    to: Store8,
    channels: usize,
    /// The address of each column that pixels of a line read, for each row of the kernel.
    table: Vec<*const u8>,
    columns: usize,
}

impl<const K: usize, const STEP: usize, const SHIFTED: bool> Body for Lines<'_, K, STEP, SHIFTED> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.walk::<S, InPairs>(s);
    }
}

impl<'a, const K: usize, const STEP: usize, const SHIFTED: bool> Lines<'a, K, STEP, SHIFTED> {
    /// Computes and stores all pixels.
    #[inline(always)]
    fn walk<S: Simd, W: Way<S, K, STEP, SHIFTED>>(mut self, s: S) {
        let out_w = self.work.geometry.output()[1];
        let mut pixel = self.range.start;
        while pixel < self.range.end {
            let count = (out_w - pixel % out_w).min(self.range.end - pixel);
            self.address(pixel, count);
            // Threes until fours are left; what is less is computed with what comes before it.
            let mut at = 0;
            while at < count {
                let left = count - at;
                if left.is_multiple_of(4) {
                    self.tile::<S, W, 4>(s, pixel, at, 4);
                    at += 4;
                } else {
                    let start = at.min(count.saturating_sub(3));
                    self.tile::<S, W, 3>(s, pixel, start, count.min(3));
                    at = start + 3;
                }
            }
            pixel += count;
        }
        let (at, n) = (
            self.range.start * self.channels,
            self.range.len() * self.channels,
        );
        // SAFETY: these are the pixels that the tiles stored.
        unsafe { self.to.finish(s, at, n) };
    }

    fn new(work: &'a Work<'a>, range: Range<usize>, to: Store8) -> Self {
        Self {
            work,
            range,
            to,
            channels: work.geometry.channels_out,
            table: Vec::new(),
            columns: 0,
        }
    }

    /// Sets the addresses for `count` pixels of a line, and for 3 if they are fewer. Every
    /// address is followed by a pixel's channels.
    #[inline(always)]
    fn address(&mut self, pixel: usize, count: usize) {
        let (g, [out_h, out_w]) = (self.work.geometry, self.work.geometry.output());
        let (line, first) = (pixel / out_w, pixel % out_w * STEP);
        let (image, oy) = (line / out_h, line % out_h);
        let (pad, in_w) = (g.pad_begin[1], g.input[1]);
        self.columns = (count.max(3) - 1) * STEP + K;
        let left = pad.saturating_sub(first).min(self.columns);
        let right = (in_w + pad).saturating_sub(first).clamp(left, self.columns);
        let outside = self.work.outside.as_ptr();
        self.table.clear();
        self.table.resize(g.kernel[0] * self.columns, outside);
        for (ky, row) in self.table.chunks_exact_mut(self.columns).enumerate() {
            let y = oy * g.stride[0] + ky * g.dilation[0];
            let Some(y) = inside(y, g.pad_begin[0], g.input[0]).filter(|_| left < right) else {
                continue;
            };
            let at = ((image * g.input[0] + y) * in_w + first + left - pad) * self.channels;
            let part = &self.work.x[at..][..(right - left) * self.channels];
            for (i, to) in row[left..right].iter_mut().enumerate() {
                *to = part.as_ptr().wrapping_add(i * self.channels);
            }
        }
    }

    /// `T` pixels from the one `at` in the line of `pixel`; stores the first `n`.
    #[inline(always)]
    fn tile<S: Simd, W: Way<S, K, STEP, SHIFTED>, const T: usize>(
        &self,
        s: S,
        pixel: usize,
        at: usize,
        n: usize,
    ) {
        let mut c = 0;
        while c < self.channels {
            let (first, step) = part::<S>(self.channels, c);
            let to = (pixel + at) * self.channels + first;
            // SAFETY: `address` set the columns of the pixels, at least 3; tasks write different
            // pixels, which `Target8::new` checked.
            unsafe {
                if step > S::LANES {
                    self.put::<S, T, 2>(s, W::sums(self, s, at, first), to, first, n);
                } else {
                    self.put::<S, T, 1>(s, W::sums(self, s, at, first), to, first, n);
                }
            }
            c += step;
        }
    }

    /// # Safety
    /// `n` pixels are writable at `at` in the output.
    #[inline(always)]
    unsafe fn put<S: Simd, const T: usize, const V: usize>(
        &self,
        s: S,
        sums: [[S::I; V]; T],
        at: usize,
        c: usize,
        n: usize,
    ) {
        let (stride, last) = (self.channels, S::LANES);
        // SAFETY: the caller's promise.
        unsafe {
            if n >= T {
                self.to.put(s, sums, at, stride, c, last);
            } else {
                self.to.put(s, [sums[0]], at, stride, c, last);
                if n == 2 {
                    self.to.put(s, [sums[1]], at + stride, stride, c, last);
                }
            }
        }
    }

    /// The sums of `T` pixels from the one `at` in the line, and of `V` vectors of channels.
    ///
    /// # Safety
    /// The table has the columns of these pixels, and `V` vectors of channels start at `c`.
    #[inline(always)]
    unsafe fn sums<S: Simd, const T: usize, const V: usize>(
        &self,
        s: S,
        at: usize,
        c: usize,
    ) -> [[S::I; V]; T] {
        let (rows, end) = (self.work.geometry.kernel[0], (T - 1) * STEP + K);
        // SAFETY: the caller's promise; there are weights for each pair of kernel elements, and
        // starts for each channel.
        unsafe {
            let starts = self.work.starts.as_ptr().add(c);
            let starts: [S::I; V] = s.load_all_i(starts);
            let mut sums = [starts; T];
            let table = self.table.as_ptr().add(at * STEP);
            for pair in 0..rows / 2 {
                let upper = table.add(2 * pair * self.columns);
                let lower = upper.add(self.columns);
                let w = self.weights::<S, V>(s, pair * K, 1, c);
                macro_rules! column {
                    ($j:literal) => {{
                        const J: usize = $j;
                        if J < end {
                            let (p, q) = (upper.add(J).read(), lower.add(J).read());
                            let x = interleave::<S, V, SHIFTED>(s, p.add(c), q.add(c));
                            for t in 0..T {
                                if t * STEP <= J && J < t * STEP + K {
                                    for v in 0..V {
                                        sums[t][v] =
                                            s.dot_pairs(sums[t][v], x[v], w[J - t * STEP][v]);
                                    }
                                }
                            }
                        }
                    }};
                }
                columns!(column);
            }
            if rows % 2 == 1 {
                let row = table.add((rows - 1) * self.columns);
                let w = self.weights::<S, V>(s, rows / 2 * K, 2, c);
                macro_rules! column {
                    ($j:literal) => {{
                        const J: usize = $j;
                        if J < end && (STEP == 1 || J % 2 == 0) {
                            let next = row.add((J + 1).min(end - 1)).read();
                            let x = interleave::<S, V, SHIFTED>(
                                s,
                                row.add(J).read().add(c),
                                next.add(c),
                            );
                            for t in 0..T {
                                let even = t * STEP % 2 == J % 2;
                                if even && t * STEP <= J && J < t * STEP + K {
                                    for v in 0..V {
                                        let w = w[(J - t * STEP) / 2][v];
                                        sums[t][v] = s.dot_pairs(sums[t][v], x[v], w);
                                    }
                                }
                            }
                        }
                    }};
                }
                columns!(column);
            }
            sums
        }
    }

    /// The weights of the pairs of a row of the kernel, `every` elements one, from pair `first`
    /// on.
    ///
    /// # Safety
    /// There are these pairs, and `V` vectors of channels start at `c`.
    #[inline(always)]
    unsafe fn weights<S: Simd, const V: usize>(
        &self,
        s: S,
        first: usize,
        every: usize,
        c: usize,
    ) -> [[S::I; V]; K] {
        let last = K.div_ceil(every) - 1;
        let mut weights = [[s.splat_i(0); V]; K];
        for (i, to) in weights.iter_mut().enumerate() {
            let at = (first + i.min(last)) * self.channels + c;
            // SAFETY: the caller's promise.
            *to = unsafe { s.load_all_i(self.work.weights.as_ptr().add(at)) };
        }
        weights
    }
}

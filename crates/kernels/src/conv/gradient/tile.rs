//! Sums over pixels of products of window elements with the gradients of output channels.

use super::Run;
use crate::gemm::{by_rows, tile_rows};
use crate::simd::{Body, Simd};

/// A strip of pixels, whose sums are brought up to date for one panel of output channels.
pub(super) struct Strip<'a> {
    /// The address of the window of each pixel.
    pub windows: &'a [*const f32],
    pub runs: &'a [Run],
    /// The gradients of the panel's channels at each pixel, `stride` elements apart.
    pub dy: *const f32,
    pub stride: usize,
    /// Vectors of the panel: 1 or 2.
    pub vectors: usize,
    /// For each window element as many sums as the panel has lanes.
    pub sums: *mut f32,
    /// Sums of the gradients themselves.
    pub bias: Option<*mut f32>,
}

impl Body for Strip<'_> {
    type Out = ();
    /// All elements of the runs are readable at each window, vectors of dY at each pixel, and the
    /// sums are this task's.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.runs.iter().all(|run| run.len < SHORT) {
            self.scattered(s);
        } else {
            self.together(s);
        }
        if let Some(bias) = self.bias {
            // SAFETY: who made the strip promises it.
            unsafe {
                match self.vectors {
                    2 => self.add_gradients::<S, 2>(s, bias),
                    _ => self.add_gradients::<S, 1>(s, bias),
                }
            }
        }
    }
}

/// Neighbours that are too few for a tile of their own.
const SHORT: usize = 5;

/// Elements of a tile that stand anywhere: a kernel of 3x3.
const MOST: usize = 9;

/// Where the elements of a tile stand in a window.
trait Places: Copy {
    fn of(self, i: usize) -> usize;
}

impl<const M: usize> Places for [usize; M] {
    #[inline(always)]
    fn of(self, i: usize) -> usize {
        self[i]
    }
}

/// One after another from a place on.
#[derive(Clone, Copy)]
struct Neighbours(usize);

impl Places for Neighbours {
    #[inline(always)]
    fn of(self, i: usize) -> usize {
        self.0 + i
    }
}

impl Strip<'_> {
    /// Tiles of neighbours.
    #[inline(always)]
    fn together<S: Simd>(&self, s: S) {
        for run in self.runs {
            let tiles = run.len.div_ceil(tile_rows::<S>(self.vectors));
            let (least, more) = (run.len / tiles.max(1), run.len % tiles.max(1));
            let mut row = 0;
            for tile in 0..tiles {
                let rows = least + usize::from(tile < more);
                let at = (run.offset + row, run.first + row);
                // SAFETY: who made the strip promises it.
                unsafe { by_rows!(S, rows, self.vectors, tile(self, s, at)) };
                row += rows;
            }
        }
    }

    /// Tiles of elements that stand anywhere.
    #[inline(always)]
    fn scattered<S: Simd>(&self, s: S) {
        let most = if self.vectors == 2 {
            S::ROWS.min(MOST)
        } else {
            MOST
        };
        let mut offsets = [0; MOST];
        let (mut first, mut count) = (0, 0);
        for (i, run) in self.runs.iter().enumerate() {
            for at in 0..run.len {
                if count == 0 {
                    first = run.first + at;
                }
                offsets[count] = run.offset + at;
                count += 1;
                let is_last = i + 1 == self.runs.len() && at + 1 == run.len;
                if count == most || is_last {
                    // SAFETY: who made the strip promises it.
                    unsafe {
                        match self.vectors {
                            2 => self.pick::<S, 2>(s, first, &offsets[..count]),
                            _ => self.pick::<S, 1>(s, first, &offsets[..count]),
                        }
                    }
                    count = 0;
                }
            }
        }
    }

    /// Window elements at these offsets, of which there are at most [`MOST`].
    ///
    /// # Safety
    /// As for the strip.
    #[inline(always)]
    unsafe fn pick<S: Simd, const V: usize>(&self, s: S, first: usize, offsets: &[usize]) {
        macro_rules! of {
            ($($m:literal),*) => {
                match offsets.len() {
                    $($m => self.few::<S, $m, V>(s, first, offsets),)*
                    _ => {}
                }
            };
        }
        // SAFETY: the caller's promise.
        unsafe { of!(1, 2, 3, 4, 5, 6, 7, 8, 9) }
    }

    /// `M` window elements at these offsets, from `first` in the sums on.
    ///
    /// # Safety
    /// As for the strip.
    #[inline(always)]
    unsafe fn few<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        first: usize,
        offsets: &[usize],
    ) {
        let mut at = [0; M];
        at.copy_from_slice(offsets);
        // SAFETY: the caller's promise.
        unsafe { self.add_products::<S, M, V>(s, first, at) }
    }

    /// `M` window elements, from `offset` in a window and `first` in the sums on.
    ///
    /// # Safety
    /// As for the strip.
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        (offset, first): (usize, usize),
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.add_products::<S, M, V>(s, first, Neighbours(offset)) }
    }

    /// Adds the products of `M` window elements to the sums from `first` on.
    ///
    /// # Safety
    /// As for the strip.
    #[inline(always)]
    unsafe fn add_products<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        first: usize,
        places: impl Places,
    ) {
        let mut sums = [[s.splat(0.0); V]; M];
        // SAFETY: the caller's promise.
        unsafe {
            let to = self.sums.add(first * V * S::LANES);
            for (i, row) in sums.iter_mut().enumerate() {
                *row = s.load_all(to.add(i * V * S::LANES));
            }
            let mut dy = self.dy;
            for window in self.windows {
                let d: [S::F; V] = s.load_all(dy);
                for i in 0..M {
                    let x = s.splat(*window.add(places.of(i)));
                    for v in 0..V {
                        sums[i][v] = s.fma(x, d[v], sums[i][v]);
                    }
                }
                dy = dy.wrapping_add(self.stride);
            }
            for (i, row) in sums.iter().enumerate() {
                for (v, sum) in row.iter().enumerate() {
                    s.store(to.add((i * V + v) * S::LANES), *sum);
                }
            }
        }
    }

    /// Adds the gradients of all pixels to `bias`.
    ///
    /// # Safety
    /// As for the strip.
    #[inline(always)]
    unsafe fn add_gradients<S: Simd, const V: usize>(&self, s: S, bias: *mut f32) {
        const CHAINS: usize = 4;
        let mut sums = [[s.splat(0.0); V]; CHAINS];
        // SAFETY: the caller's promise.
        unsafe {
            let whole = self.windows.len() / CHAINS * CHAINS;
            let mut dy = self.dy;
            for _ in 0..whole / CHAINS {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let d: [S::F; V] = s.load_all(dy.add(i * self.stride));
                    for v in 0..V {
                        sums[v] = s.add(sums[v], d[v]);
                    }
                }
                dy = dy.wrapping_add(CHAINS * self.stride);
            }
            for i in whole..self.windows.len() {
                let d: [S::F; V] = s.load_all(self.dy.add(i * self.stride));
                for v in 0..V {
                    sums[0][v] = s.add(sums[0][v], d[v]);
                }
            }
            for v in 0..V {
                let pair = [0, 1].map(|i| s.add(sums[i][v], sums[i + 2][v]));
                let to = bias.add(v * S::LANES);
                s.store(to, s.add(s.load(to), s.add(pair[0], pair[1])));
            }
        }
    }
}

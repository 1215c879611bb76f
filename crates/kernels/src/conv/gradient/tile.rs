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
        if let Some(bias) = self.bias {
            // SAFETY: as above.
            unsafe {
                match self.vectors {
                    2 => self.add_gradients::<S, 2>(s, bias),
                    _ => self.add_gradients::<S, 1>(s, bias),
                }
            }
        }
    }
}

impl Strip<'_> {
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
        let mut sums = [[s.splat(0.0); V]; M];
        // SAFETY: the caller's promise.
        unsafe {
            let to = self.sums.add(first * V * S::LANES);
            for (i, row) in sums.iter_mut().enumerate() {
                *row = s.load_all(to.add(i * V * S::LANES));
            }
            let mut dy = self.dy;
            for window in self.windows {
                let x = window.add(offset);
                let d: [S::F; V] = s.load_all(dy);
                for i in 0..M {
                    let x = s.splat(*x.add(i));
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
            for i in 0..self.windows.len() {
                let d: [S::F; V] = s.load_all(self.dy.add(i * self.stride));
                for v in 0..V {
                    sums[i % CHAINS][v] = s.add(sums[i % CHAINS][v], d[v]);
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

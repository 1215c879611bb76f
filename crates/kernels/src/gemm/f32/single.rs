//! A product of one row, which waits for its sums where there are few.

use super::store::Put;
use super::{Block, Tile};
use crate::gemm::left::{Left, Rows};
use crate::simd::{Ahead, Simd};

impl<L: Left<f32>> Block<'_, L> {
    /// One row: four panels at a time, so that sums do not wait for each other.
    ///
    /// # Safety
    /// As for `Target::multiply`.
    #[inline(always)]
    pub(super) unsafe fn single_row<S: Simd>(&self, s: S) {
        let (k, panels) = (self.b.k, self.b.panels);
        let data = self.b.data.typed::<f32>();
        // SAFETY: there is one row.
        let a = unsafe { self.share.left.rows::<1>(0, 0) };
        let mut p = self.panels.start;
        while p < self.panels.end {
            let (first, columns, vectors) = panels.panel(p);
            let together = if p + 4 <= self.panels.end && panels.panel(p + 3).2 == 2 {
                4
            } else {
                1
            };
            // SAFETY: the panels lie in the block, and `a` has K elements.
            unsafe {
                if together == 4 {
                    let mut sums = [[s.splat(0.0); 2]; 4];
                    let b = data[first * k..].as_ptr();
                    for at in 0..k {
                        let a = s.splat(*a.at(0, at));
                        for (q, sums) in sums.iter_mut().enumerate() {
                            let b = b.add((q * k + at) * 2 * S::LANES);
                            sums[0] = s.fma(a, s.load(b), sums[0]);
                            sums[1] = s.fma(a, s.load(b.add(S::LANES)), sums[1]);
                        }
                    }
                    for (q, sums) in sums.into_iter().enumerate() {
                        let column = first + q * 2 * S::LANES;
                        let last = (panels.n - column).min(2 * S::LANES) - S::LANES;
                        self.to.put(s, [sums], column, 0, column, last);
                    }
                    if let Some(then) = self.then {
                        let (last, columns, _) = panels.panel(p + 3);
                        let c = self.to.c.add(first);
                        then.map(S::ISA, c, c, last + columns - first);
                    }
                } else {
                    let b = data[first * k..].as_ptr();
                    let t = Tile {
                        next: &[],
                        offset: 0,
                        steps: self.share.steps,
                        b,
                        columns,
                        opens: true,
                        closes: true,
                    };
                    let ahead = Ahead::new::<f32>(&[], k, 0, 1);
                    if vectors == 2 {
                        self.tile::<S, 1, 2>(s, &t, ahead, 0, first, first);
                    } else {
                        self.tile::<S, 1, 1>(s, &t, ahead, 0, first, first);
                    }
                }
            }
            p += together;
        }
    }
}

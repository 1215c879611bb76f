//! Products of rows of nine elements, three runs of three: windows of 3x3 of one channel.
//!
//! A tile of rows would spend its time on addresses. Here all weights of a vector of columns are
//! in registers, and one row follows the other.

use std::ops::Range;

use super::{PackedF32, Put, Store, Target};
use crate::gemm::Steps;
use crate::simd::{Body, Simd, dispatch};

/// Runs, and elements of a run.
const SIDE: usize = 3;

impl Target<'_> {
    /// As [`Target::multiply_windows`], where rows are three runs of three and nothing is left to
    /// do with sums that are stored; `false` where they are not.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn multiply_few(
        &self,
        rows: Range<usize>,
        a: &[*const f32],
        steps: Steps,
        b: &PackedF32,
        panels: Range<usize>,
        offset: usize,
    ) -> bool {
        if (steps.lines, steps.run) != (SIDE, SIDE) || b.bf16 || self.then().is_some() {
            return false;
        }
        assert_eq!((a.len(), SIDE * SIDE), (rows.len(), b.k), "rows of windows");
        if !rows.is_empty() {
            let few = Few {
                a,
                stride: steps.stride,
                b,
                panels,
                to: self.store(rows.start * self.stride + offset, offset),
                c_stride: self.stride,
            };
            dispatch(b.isa, few);
        }
        true
    }
}

struct Few<'a> {
    a: &'a [*const f32],
    /// From one run to the next.
    stride: usize,
    b: &'a PackedF32,
    panels: Range<usize>,
    to: Store,
    c_stride: usize,
}

impl Body for Few<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let data = self.b.data.typed::<f32>();
        for p in self.panels.clone() {
            let (first, columns, vectors) = self.b.panels.panel(p);
            for v in 0..vectors {
                let mut weights = [[s.splat(0.0); SIDE]; SIDE];
                for (k, to) in weights.as_flattened_mut().iter_mut().enumerate() {
                    let at = first * SIDE * SIDE + (k * vectors + v) * S::LANES;
                    // SAFETY: the panel has a row of its vectors for each of nine elements.
                    *to = unsafe { s.load(data[at..at + S::LANES].as_ptr()) };
                }
                let column = first + v * S::LANES;
                let last = (columns - v * S::LANES).min(S::LANES);
                // SAFETY: `Target::multiply_few` promises the memory.
                unsafe { self.rows(s, weights, column, last) };
            }
        }
    }
}

impl Few<'_> {
    /// All rows of `last` columns from `column` on.
    ///
    /// # Safety
    /// As for `Target::multiply_few`.
    #[inline(always)]
    unsafe fn rows<S: Simd>(
        &self,
        s: S,
        weights: [[S::F; SIDE]; SIDE],
        column: usize,
        last: usize,
    ) {
        for (row, a) in self.a.iter().enumerate() {
            let mut sum = s.splat(0.0);
            // SAFETY: the caller's promise.
            unsafe {
                for (line, weights) in weights.iter().enumerate() {
                    let a = a.add(line * self.stride);
                    for (i, weight) in weights.iter().enumerate() {
                        sum = s.fma(s.splat(*a.add(i)), *weight, sum);
                    }
                }
                let at = row * self.c_stride + column;
                self.to.put(s, [[sum]], at, self.c_stride, column, last);
            }
        }
    }
}

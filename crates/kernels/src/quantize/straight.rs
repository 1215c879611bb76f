//! Gradients of quantisation, straight through: within the range, rounding counts as the identity
//! (Y. Bengio et al., 2013). The two gradients of the scale add up to that of learned step size
//! quantisation (S. Esser et al., 2020, equation 3).

use crate::Ctx;
use crate::activation::GRAIN;
use crate::gemm::Bytes;
use crate::parts::sum_in_parts;
use crate::simd::{Body, MAX_LANES, Simd, dispatch};
use crate::threads::Shared;

/// The grids of a tensor: one, or one for each index of an axis.
#[derive(Clone, Copy, Debug)]
pub struct Grids<'a> {
    /// The distance of neighbours in each.
    pub steps: &'a [f32],
    /// What stands for 0 in each.
    pub zeros: &'a [f32],
    /// The least and the largest number of all.
    pub range: [f32; 2],
    /// Elements that follow each other in one grid, before those in the next.
    pub inner: usize,
}

/// The gradients of QuantizeLinear: `dx = dq / step` and `dstep = -sum of dq x / step^2` of the
/// elements that are in the range.
pub fn quantize_gradient(
    ctx: &Ctx,
    [x, dq]: [&[f32]; 2],
    grids: Grids,
    dx: Option<&mut [f32]>,
    dsteps: &mut [f32],
) {
    Straight {
        of: Of::Floats(x),
        d: dq,
        grids,
    }
    .run(ctx, dx, dsteps);
}

/// The gradients of DequantizeLinear: `dq = dy step` and `dstep = sum of dy (q - zero)`.
pub fn dequantize_gradient(
    ctx: &Ctx,
    q: Bytes,
    dy: &[f32],
    grids: Grids,
    dq: Option<&mut [f32]>,
    dsteps: &mut [f32],
) {
    let (q, signed) = q.raw();
    Straight {
        of: Of::Bytes(q, signed),
        d: dy,
        grids,
    }
    .run(ctx, dq, dsteps);
}

/// The gradient of bytes that are bounded: `dq = dy` where `low <= q <= high`, else 0.
pub fn bounded_gradient(ctx: &Ctx, q: Bytes, [low, high]: [i32; 2], dy: &[f32], dq: &mut [f32]) {
    let (q, signed) = q.raw();
    assert_eq!(
        [q.len(), dy.len()],
        [dq.len(); 2],
        "a gradient for each byte"
    );
    let shared = Shared::new(dq);
    ctx.threads().parallel_ranges(q.len(), GRAIN, |range| {
        // SAFETY: ranges of different tasks do not overlap.
        let dq = unsafe { shared.slice(range.clone()) };
        let all = q[range.clone()].iter().zip(&dy[range]).zip(dq);
        all.for_each(|((&q, &dy), dq)| {
            let q = if signed {
                i32::from(q as i8)
            } else {
                i32::from(q)
            };
            *dq = if low <= q && q <= high { dy } else { 0.0 };
        });
    });
}

/// What is quantised, or was.
#[derive(Clone, Copy)]
enum Of<'a> {
    Floats(&'a [f32]),
    /// Signed where the second is true.
    Bytes(&'a [u8], bool),
}

impl Of<'_> {
    fn len(self) -> usize {
        match self {
            Of::Floats(x) => x.len(),
            Of::Bytes(q, _) => q.len(),
        }
    }

    /// `n <= LANES` numbers from `at` on.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, at: usize, n: usize) -> S::F {
        // SAFETY: the caller's promise; the array holds a vector.
        unsafe {
            match self {
                Of::Floats(x) => s.load_up_to(x.as_ptr().add(at), n),
                Of::Bytes(q, signed) => {
                    let mut some = [0u8; MAX_LANES];
                    let mut p = q.as_ptr().add(at);
                    if n < S::LANES {
                        std::ptr::copy_nonoverlapping(p, some.as_mut_ptr(), n);
                        p = some.as_ptr();
                    }
                    s.to_float(if signed { s.load_i8(p) } else { s.load_u8(p) })
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Straight<'a> {
    of: Of<'a>,
    d: &'a [f32],
    grids: Grids<'a>,
}

/// Elements of a line of a tensor that has one grid.
const LINE: usize = 4096;

impl Straight<'_> {
    fn run(self, ctx: &Ctx, dx: Option<&mut [f32]>, dsteps: &mut [f32]) {
        let (count, grids) = (self.of.len(), self.grids.steps.len());
        assert_eq!(self.d.len(), count, "a gradient for each element");
        assert!(dx.as_ref().is_none_or(|d| d.len() == count), "as many of x");
        assert_eq!(
            [self.grids.zeros.len(), dsteps.len()],
            [grids; 2],
            "a zero and a gradient for each step"
        );
        let dx = dx.map(Shared::new);
        if grids > 1 && self.grids.inner == 1 {
            let rows = count / grids;
            assert_eq!(rows * grids, count, "rows fill the tensor");
            let grain = (GRAIN / grids).max(1);
            sum_in_parts(ctx, rows, grain, dsteps, |rows, sums| {
                for row in rows {
                    self.part(ctx, row * grids, grids, &dx, sums);
                }
            });
            return;
        }
        dsteps.fill(0.0);
        let inner = if grids == 1 { LINE } else { self.grids.inner };
        if count == 0 || inner == 0 {
            return;
        }
        let lines = count.div_ceil(inner);
        let mut sums = vec![0.0; lines];
        let shared = Shared::new(&mut sums);
        let grain = (GRAIN / inner).max(1);
        ctx.threads().parallel_ranges(lines, grain, |range| {
            for line in range {
                let at = line * inner;
                // SAFETY: every line belongs to one task.
                let sum = unsafe { shared.slice(line..line + 1) };
                self.part(ctx, at, inner.min(count - at), &dx, sum);
            }
        });
        for (line, sum) in sums.into_iter().enumerate() {
            dsteps[line % grids] += sum;
        }
    }

    /// `n` elements from `at` on: of one grid where there is one sum, else each of its own.
    fn part(&self, ctx: &Ctx, at: usize, n: usize, dx: &Option<Shared<f32>>, sums: &mut [f32]) {
        let grids = self.grids.steps.len();
        let first = at / self.grids.inner.max(1) % grids;
        assert!(at + n <= self.d.len() && (sums.len() == 1 || sums.len() == n));
        let part = Part {
            of: *self,
            at,
            n,
            first: if sums.len() == 1 { first } else { 0 },
            // SAFETY: the elements belong to the caller's task.
            dx: dx.as_ref().map(|dx| unsafe { dx.slice(at..at + n) }),
            sums,
        };
        dispatch(ctx.isa(), part);
    }
}

struct Part<'a> {
    of: Straight<'a>,
    at: usize,
    n: usize,
    /// The first grid.
    first: usize,
    dx: Option<&'a mut [f32]>,
    sums: &'a mut [f32],
}

impl Body for Part<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Grids {
            steps,
            zeros,
            range,
            ..
        } = self.of.grids;
        let is_line = self.sums.len() == 1;
        let (mut step, mut zero) = (s.splat(steps[self.first]), s.splat(zeros[self.first]));
        let (low, high) = (s.splat(range[0]), s.splat(range[1]));
        let (none, minus) = (s.splat(0.0), s.splat(-1.0));
        let mut total = none;
        let dx = self.dx.map(<[f32]>::as_mut_ptr);
        let mut done = 0;
        while done < self.n {
            let n = (self.n - done).min(S::LANES);
            // SAFETY: the part has `n` elements from `done` on, and, where it is no line, as many
            // grids and sums.
            unsafe {
                let x = self.of.of.load(s, self.at + done, n);
                let d = s.load_up_to(self.of.d.as_ptr().add(self.at + done), n);
                if !is_line {
                    step = s.load_up_to(steps.as_ptr().add(done), n);
                    zero = s.load_up_to(zeros.as_ptr().add(done), n);
                }
                let (mut by_x, mut by_step);
                match self.of.of {
                    Of::Floats(_) => {
                        let ratio = s.div(x, step);
                        let at = s.add(s.round(ratio), zero);
                        by_x = s.div(d, step);
                        by_step = s.mul(minus, s.mul(by_x, ratio));
                        for value in [&mut by_x, &mut by_step] {
                            // What is no number is within no range.
                            let below = s.if_less(high, at, none, *value);
                            let inside = s.if_less(at, low, none, below);
                            let number = s.if_less(at, none, inside, none);
                            *value = s.if_less(minus, at, inside, number);
                        }
                    }
                    Of::Bytes(..) => {
                        by_x = s.mul(d, step);
                        by_step = s.mul(d, s.sub(x, zero));
                    }
                }
                if let Some(dx) = dx {
                    s.store_up_to(dx.add(done), by_x, n);
                }
                if is_line {
                    // The lanes behind the last element have no gradient, but perhaps no number.
                    if n < S::LANES {
                        by_step = s.load_n(s.lanes(by_step).as_ptr(), n);
                    }
                    total = s.add(total, by_step);
                } else {
                    let to = self.sums.as_ptr().add(done).cast_mut();
                    s.store_up_to(to, s.add(s.load_up_to(to, n), by_step), n);
                }
            }
            done += n;
        }
        if is_line {
            self.sums[0] = s.sum(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    #[test]
    fn gradients_equal_the_definitions() {
        let mut random = Random::new(111);
        for (outer, grids, inner) in [
            (1, 1, 10_001),
            (1, 7, 9),
            (3, 5, 17),
            (40, 33, 1),
            (1, 1, 1),
            (0, 3, 1),
            (2, 1, 5),
        ] {
            let count = outer * grids * inner;
            let x: Vec<f32> = (0..count).map(|_| random.float() * 20.0).collect();
            let (d, q) = (random.floats(count), random.signed(count));
            let steps: Vec<f32> = (0..grids).map(|_| 0.05 + random.float().abs()).collect();
            let zeros: Vec<f32> = (0..grids).map(|_| random.below(9) as f32 - 4.0).collect();
            let grids_of = Grids {
                steps: &steps,
                zeros: &zeros,
                range: [-8.0, 7.0],
                inner,
            };
            let mut want = [vec![0.0; count], vec![0.0; count]];
            let mut sums = [vec![0f64; grids], vec![0f64; grids]];
            for i in 0..count {
                let g = i / inner % grids;
                let at = (x[i] / steps[g]).round_ties_even() + zeros[g];
                if (-8.0..=7.0).contains(&at) {
                    want[0][i] = d[i] / steps[g];
                    sums[0][g] -= f64::from(d[i] * x[i] / steps[g] / steps[g]);
                }
                want[1][i] = d[i] * steps[g];
                sums[1][g] += f64::from(d[i] * (f32::from(q[i]) - zeros[g]));
            }
            let sums = sums.map(|s| s.into_iter().map(|x| x as f32).collect::<Vec<_>>());
            for ctx in contexts() {
                let (mut dx, mut dsteps) = (vec![f32::NAN; count], vec![9.0; grids]);
                quantize_gradient(&ctx, [&x, &d], grids_of, Some(&mut dx), &mut dsteps);
                close(&dx, &want[0], 1e-6, "dX");
                close(&dsteps, &sums[0], 1e-4, "dScale");
                quantize_gradient(&ctx, [&x, &d], grids_of, None, &mut dsteps);
                close(&dsteps, &sums[0], 1e-4, "dScale alone");
                let q = Bytes::I8(&q);
                dequantize_gradient(&ctx, q, &d, grids_of, Some(&mut dx), &mut dsteps);
                close(&dx, &want[1], 1e-6, "dQ");
                close(&dsteps, &sums[1], 1e-4, "dScale of bytes");
            }
        }
    }

    #[test]
    fn bytes_out_of_bounds_pass_no_gradient() {
        let bytes = [250u8, 0, 15, 16, 7];
        let dy = [1.0, 2.0, 3.0, 4.0, 5.0];
        for ctx in contexts() {
            let mut dq = [9.0; 5];
            bounded_gradient(&ctx, Bytes::U8(&bytes), [0, 15], &dy, &mut dq);
            assert_eq!(dq, [0.0, 2.0, 3.0, 0.0, 5.0]);
            let signed = bytes.map(|b| b as i8);
            bounded_gradient(&ctx, Bytes::I8(&signed), [-8, 7], &dy, &mut dq);
            assert_eq!(dq, [1.0, 2.0, 0.0, 0.0, 5.0]);
        }
    }

    #[test]
    fn what_is_no_number_is_in_no_range() {
        let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
        let grids = Grids {
            steps: &[0.5],
            zeros: &[0.0],
            range: [-128.0, 127.0],
            inner: 1,
        };
        for ctx in contexts() {
            let (mut dx, mut dstep) = ([9.0; 4], [9.0]);
            let both = [&x[..], &[1.0; 4]];
            quantize_gradient(&ctx, both, grids, Some(&mut dx), &mut dstep);
            assert_eq!((dx, dstep), ([0.0, 0.0, 0.0, 2.0], [-4.0]));
        }
    }
}

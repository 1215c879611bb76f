//! Statistics of the columns of a matrix, which are the channels of channels-last images, and
//! what is done by them.

use super::columns::{Terms, column_sums, sum_terms};
use crate::Ctx;
use crate::activation::{Activation, GRAIN};
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// Mean and variance (of the population) of each column of `x`, whose rows are as long as `mean`.
/// They are NaN where there are no rows.
pub fn column_moments(ctx: &Ctx, x: &[f32], mean: &mut [f32], variance: &mut [f32]) {
    assert_eq!(mean.len(), variance.len(), "a mean for each variance");
    let rows = x.len() / mean.len().max(1);
    column_sums(ctx, x, mean);
    mean.iter_mut().for_each(|m| *m /= rows as f32);
    sum_terms(ctx, rows, Squares { x, mean }, variance);
    variance.iter_mut().for_each(|v| *v /= rows as f32);
}

/// `(x - mean)^2`
#[derive(Clone, Copy)]
struct Squares<'a> {
    x: &'a [f32],
    mean: &'a [f32],
}

impl Terms<1> for Squares<'_> {
    #[inline(always)]
    unsafe fn terms<S: Simd>(self, s: S, at: usize, c: usize, n: usize) -> [S::F; 1] {
        // SAFETY: the caller's promise.
        unsafe {
            let x = s.load_up_to(self.x.as_ptr().add(at), n);
            let d = s.sub(x, s.load_up_to(self.mean.as_ptr().add(c), n));
            [s.mul(d, d)]
        }
    }
}

/// `y = f(x * scale + shift)`, with a scale and a shift for each column.
pub fn scale_shift(
    ctx: &Ctx,
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    activation: Activation,
    y: &mut [f32],
) {
    let columns = scale.len();
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    assert_eq!(columns, shift.len(), "scale and shift have equal length");
    if columns == 0 {
        return;
    }
    assert!(x.len().is_multiple_of(columns), "rows fill the input");
    let shared = Shared::new(y);
    let grain = (GRAIN / columns).max(1);
    ctx.threads()
        .parallel_ranges(x.len() / columns, grain, |rows| {
            let range = rows.start * columns..rows.end * columns;
            let lines = Lines {
                x: &x[range.clone()],
                scale,
                shift,
                bounds: activation.bounds(),
                // SAFETY: every row belongs to one task.
                y: unsafe { shared.slice(range.clone()) },
            };
            dispatch(ctx.isa(), lines);
            if activation.bounds().is_none() {
                let y = shared.pointer(range.start);
                // SAFETY: as above.
                unsafe { activation.map(ctx.isa(), y, y, range.len()) };
            }
        });
}

struct Lines<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    bounds: Option<(f32, f32)>,
    y: &'a mut [f32],
}

impl Body for Lines<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let columns = self.scale.len();
        let (lo, hi) = self.bounds.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let (lo, hi) = (s.splat(lo), s.splat(hi));
        for row in (0..self.x.len()).step_by(columns) {
            let mut c = 0;
            while c < columns {
                let n = (columns - c).min(S::LANES);
                // SAFETY: the rows are whole, and `c + n` is at most `columns`.
                unsafe {
                    let x = s.load_up_to(self.x.as_ptr().add(row + c), n);
                    let scale = s.load_up_to(self.scale.as_ptr().add(c), n);
                    let shift = s.load_up_to(self.shift.as_ptr().add(c), n);
                    let y = s.clamp(s.add(s.mul(x, scale), shift), lo, hi);
                    s.store_up_to(self.y.as_mut_ptr().add(row + c), y, n);
                }
                c += n;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    #[test]
    fn moments_equal_the_definition() {
        let mut random = Random::new(41);
        for (rows, columns) in [(1, 1), (3, 7), (5000, 16), (300, 33)] {
            let x: Vec<f32> = (0..rows * columns).map(|_| random.float() + 3.0).collect();
            let column = |c: usize| x.iter().skip(c).step_by(columns).map(|x| f64::from(*x));
            let mean = |c: usize| column(c).sum::<f64>() / rows as f64;
            let spread = |c: usize| column(c).map(|x| (x - mean(c)).powi(2)).sum::<f64>();
            let means: Vec<f32> = (0..columns).map(|c| mean(c) as f32).collect();
            let variances = (0..columns).map(|c| (spread(c) / rows as f64) as f32);
            let variances: Vec<f32> = variances.collect();
            for ctx in contexts() {
                let (mut m, mut v) = (vec![0.0; columns], vec![0.0; columns]);
                column_moments(&ctx, &x, &mut m, &mut v);
                close(&m, &means, 1e-5, "mean");
                close(&v, &variances, 1e-5, "variance");
            }
        }
    }

    #[test]
    fn each_column_has_its_scale_and_shift() {
        let x = [1.0, -2.0, f32::NAN, 3.0, 4.0, 5.0];
        for ctx in contexts() {
            let mut y = [0.0; 6];
            let (scale, shift) = ([2.0, 1.0, 1.0], [0.5, 0.0, -6.0]);
            scale_shift(&ctx, &x, &scale, &shift, Activation::Relu, &mut y);
            assert_eq!(y[..2], [2.5, 0.0]);
            assert!(y[2].is_nan());
            assert_eq!(y[3..], [6.5, 4.0, 0.0]);
        }
    }
}

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

/// Terms of the gradients of scale and bias: `dy (x - mean) factor` and `dy`.
#[derive(Clone, Copy)]
struct Slopes<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    mean: &'a [f32],
    factor: &'a [f32],
}

impl Terms<2> for Slopes<'_> {
    #[inline(always)]
    unsafe fn terms<S: Simd>(self, s: S, at: usize, c: usize, n: usize) -> [S::F; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let dy = s.load_up_to(self.dy.as_ptr().add(at), n);
            let x = s.load_up_to(self.x.as_ptr().add(at), n);
            let d = s.sub(x, s.load_up_to(self.mean.as_ptr().add(c), n));
            let d = s.mul(d, s.load_up_to(self.factor.as_ptr().add(c), n));
            [s.mul(dy, d), dy]
        }
    }
}

/// The gradients of a norm of the columns of `x` by their own mean and variance,
/// `y = (x - mean) / sqrt(variance + epsilon) * scale + bias`: `sums` are those of the scale, then
/// those of the bias, and `dx` is that of `x` where it is wanted.
pub fn batch_norm_gradient(
    ctx: &Ctx,
    [x, scale, dy]: [&[f32]; 3],
    epsilon: f32,
    dx: Option<&mut [f32]>,
    sums: &mut [f32],
) {
    let columns = scale.len();
    assert_eq!(sums.len(), 2 * columns, "two sums for each column");
    assert_eq!(x.len(), dy.len(), "a gradient for each output");
    let rows = x.len() / columns.max(1);
    let (mut mean, mut factor) = (vec![0.0; columns], vec![0.0; columns]);
    column_moments(ctx, x, &mut mean, &mut factor);
    factor
        .iter_mut()
        .for_each(|v| *v = 1.0 / (*v + epsilon).sqrt());
    let slopes = Slopes {
        x,
        dy,
        mean: &mean,
        factor: &factor,
    };
    sum_terms(ctx, rows, slopes, sums);
    let Some(dx) = dx else { return };
    assert_eq!(x.len(), dx.len(), "a gradient for each input");
    let part = |c: usize| scale[c] * factor[c];
    let share = |c: usize, sum: usize| -part(c) * sums[sum * columns + c] / rows as f32;
    let of_dy: Vec<f32> = (0..columns).map(part).collect();
    let of_x: Vec<f32> = (0..columns).map(|c| share(c, 0) * factor[c]).collect();
    let plain: Vec<f32> = (0..columns).map(|c| share(c, 1)).collect();
    let shared = Shared::new(dx);
    let grain = (GRAIN / columns.max(1)).max(1);
    ctx.threads().parallel_ranges(rows, grain, |rows| {
        let range = rows.start * columns..rows.end * columns;
        let part = Spread {
            x: &x[range.clone()],
            dy: &dy[range.clone()],
            by_column: [&mean, &of_dy, &of_x, &plain],
            // SAFETY: every row belongs to one task.
            dx: unsafe { shared.slice(range) },
        };
        dispatch(ctx.isa(), part);
    });
}

/// `dx = dy a + (x - mean) b + c`, of `[mean, a, b, c]` by column.
struct Spread<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    by_column: [&'a [f32]; 4],
    dx: &'a mut [f32],
}

impl Body for Spread<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let columns = self.by_column[0].len();
        for row in (0..self.x.len()).step_by(columns) {
            let mut c = 0;
            while c < columns {
                let n = (columns - c).min(S::LANES);
                // SAFETY: the rows are whole, and `c + n` is at most `columns`.
                unsafe {
                    let mut of = [s.splat(0.0); 4];
                    for (of, all) in of.iter_mut().zip(self.by_column) {
                        *of = s.load_up_to(all.as_ptr().add(c), n);
                    }
                    let x = s.load_up_to(self.x.as_ptr().add(row + c), n);
                    let dy = s.load_up_to(self.dy.as_ptr().add(row + c), n);
                    let rest = s.fma(s.sub(x, of[0]), of[2], of[3]);
                    let dx = s.fma(dy, of[1], rest);
                    s.store_up_to(self.dx.as_mut_ptr().add(row + c), dx, n);
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

    #[test]
    fn gradients_of_a_norm_by_column_equal_the_definition() {
        let mut random = Random::new(42);
        for (rows, columns) in [(1, 3), (7, 1), (50, 17), (3000, 5)] {
            let x: Vec<f32> = (0..rows * columns).map(|_| random.float() + 1.0).collect();
            let (dy, scale) = (random.floats(x.len()), random.floats(columns));
            let mut want = vec![0.0; x.len()];
            let (mut dscale, mut dbias) = (vec![0.0; columns], vec![0.0; columns]);
            for c in 0..columns {
                let column = |all: &[f32]| -> Vec<f64> {
                    let each = all.iter().skip(c).step_by(columns);
                    each.map(|x| f64::from(*x)).collect()
                };
                let (x, dy, n) = (column(&x), column(&dy), rows as f64);
                let mean = x.iter().sum::<f64>() / n;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                let factor = 1.0 / (variance + 1e-3).sqrt();
                let normal: Vec<f64> = x.iter().map(|x| (x - mean) * factor).collect();
                let along: f64 = dy.iter().zip(&normal).map(|(d, v)| d * v).sum();
                let total: f64 = dy.iter().sum();
                (dscale[c], dbias[c]) = (along as f32, total as f32);
                for r in 0..rows {
                    let rest = total / n + normal[r] * along / n;
                    want[r * columns + c] = (f64::from(scale[c]) * factor * (dy[r] - rest)) as f32;
                }
            }
            for ctx in contexts() {
                let (mut dx, mut sums) = (vec![f32::NAN; x.len()], vec![0.0; 2 * columns]);
                let all = [&x[..], &scale, &dy];
                batch_norm_gradient(&ctx, all, 1e-3, Some(&mut dx), &mut sums);
                close(&dx, &want, 1e-4, "dX");
                close(&sums[..columns], &dscale, 1e-4, "dScale");
                close(&sums[columns..], &dbias, 1e-4, "dBias");
            }
        }
    }
}

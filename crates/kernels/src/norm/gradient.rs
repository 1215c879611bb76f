//! Gradients of softmax and of norms of rows.

use super::{squares, sum};
use crate::Ctx;
use crate::activation::{GRAIN, exp_or_zero};
use crate::parts::sum_in_parts;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// The gradient of [`super::softmax`] by its output: `dx = y (dy - sum of y dy)` in each row of
/// `width`.
pub fn softmax_gradient(ctx: &Ctx, [y, dy]: [&[f32]; 2], width: usize, dx: &mut [f32]) {
    shares(ctx, [y, dy], width, dx, false);
}

/// The gradient of [`super::log_softmax`] by its output: `dx = dy - exp(y) (sum of dy)` in each row
/// of `width`.
pub fn log_softmax_gradient(ctx: &Ctx, [y, dy]: [&[f32]; 2], width: usize, dx: &mut [f32]) {
    shares(ctx, [y, dy], width, dx, true);
}

fn shares(ctx: &Ctx, [y, dy]: [&[f32]; 2], width: usize, dx: &mut [f32], is_log: bool) {
    assert_eq!([y.len(), dy.len()], [dx.len(); 2], "slices of equal length");
    if width == 0 {
        return;
    }
    assert!(y.len().is_multiple_of(width), "rows fill the input");
    let shared = Shared::new(dx);
    let grain = (GRAIN / 4 / width).max(1);
    ctx.threads()
        .parallel_ranges(y.len() / width, grain, |rows| {
            for row in rows {
                let at = row * width..(row + 1) * width;
                let row = Shares {
                    y: &y[at.clone()],
                    dy: &dy[at.clone()],
                    is_log,
                    // SAFETY: every row belongs to one task.
                    dx: unsafe { shared.slice(at) },
                };
                dispatch(ctx.isa(), row);
            }
        });
}

struct Shares<'a> {
    y: &'a [f32],
    dy: &'a [f32],
    is_log: bool,
    dx: &'a mut [f32],
}

impl Body for Shares<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let total = if self.is_log {
            sum(s, self.dy)
        } else {
            dot(s, self.y, self.dy)
        };
        let total = s.splat(total);
        let mut at = 0;
        while at < self.y.len() {
            let n = (self.y.len() - at).min(S::LANES);
            // SAFETY: all slices have `n` elements from `at` on.
            unsafe {
                let y = s.load_up_to(self.y.as_ptr().add(at), n);
                let dy = s.load_up_to(self.dy.as_ptr().add(at), n);
                let dx = if self.is_log {
                    s.sub(dy, s.mul(exp_or_zero(s, y), total))
                } else {
                    s.mul(y, s.sub(dy, total))
                };
                s.store_up_to(self.dx.as_mut_ptr().add(at), dx, n);
            }
            at += n;
        }
    }
}

/// The sum of products of two slices of equal length.
#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut chains = [s.splat(0.0); 2];
    let (mut at, mut chain) = (0, 0);
    while at < a.len() {
        let n = (a.len() - at).min(S::LANES);
        // SAFETY: both slices have `n` elements from `at` on.
        unsafe {
            let a = s.load_up_to(a.as_ptr().add(at), n);
            let b = s.load_up_to(b.as_ptr().add(at), n);
            chains[chain] = s.fma(a, b, chains[chain]);
        }
        (at, chain) = (at + n, 1 - chain);
    }
    s.sum(s.add(chains[0], chains[1]))
}

/// A norm of rows as long as `scale`, and the gradient of its output.
#[derive(Clone, Copy, Debug)]
pub struct RowNorm<'a> {
    /// Its input.
    pub x: &'a [f32],
    /// A factor for each column.
    pub scale: &'a [f32],
    /// The gradient of its output.
    pub dy: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether the mean is taken off, as by [`super::layer_norm`], or not, as by
    /// [`super::rms_norm`].
    pub centred: bool,
}

impl RowNorm<'_> {
    /// Makes `sums` the gradients of the scale, then those of a bias, and `dx` that of the input
    /// where it is wanted. Sums are taken in parts that depend on the lengths alone.
    pub fn gradients(&self, ctx: &Ctx, dx: Option<&mut [f32]>, sums: &mut [f32]) {
        let width = self.scale.len();
        assert_eq!(sums.len(), 2 * width, "two sums for each column");
        assert_eq!(self.x.len(), self.dy.len(), "a gradient for each output");
        let rows = self.x.len() / width.max(1);
        assert_eq!(rows * width, self.x.len(), "rows fill the input");
        let fits = dx.as_ref().is_none_or(|dx| dx.len() == self.x.len());
        assert!(fits, "a gradient for each input");
        let shared = dx.map(Shared::new);
        let grain = (GRAIN / 4 / width.max(1)).max(1);
        sum_in_parts(ctx, rows, grain, sums, |rows, sums| {
            for row in rows {
                let at = row * width..(row + 1) * width;
                let row = NormRow {
                    of: Self {
                        x: &self.x[at.clone()],
                        dy: &self.dy[at.clone()],
                        ..*self
                    },
                    sums: &mut *sums,
                    // SAFETY: every row belongs to one part.
                    dx: shared.as_ref().map(|dx| unsafe { dx.slice(at) }),
                };
                dispatch(ctx.isa(), row);
            }
        });
    }
}

/// One row, whose shares of the sums are added to them.
struct NormRow<'a> {
    of: RowNorm<'a>,
    sums: &'a mut [f32],
    dx: Option<&'a mut [f32]>,
}

impl Body for NormRow<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let RowNorm {
            x,
            scale,
            dy,
            epsilon,
            centred,
        } = self.of;
        let (width, count) = (x.len(), x.len() as f32);
        let mean = if centred { sum(s, x) / count } else { 0.0 };
        let factor = 1.0 / (squares(s, x, mean) / count + epsilon).sqrt();
        let (m, f) = (s.splat(mean), s.splat(factor));
        let (mut total, mut along) = (s.splat(0.0), s.splat(0.0));
        let mut at = 0;
        while at < width {
            let n = (width - at).min(S::LANES);
            // SAFETY: the rows have `n` elements from `at` on, the sums two rows.
            unsafe {
                let d = s.load_up_to(dy.as_ptr().add(at), n);
                let v = s.mul(s.sub(s.load_up_to(x.as_ptr().add(at), n), m), f);
                let g = s.mul(d, s.load_up_to(scale.as_ptr().add(at), n));
                total = s.add(total, g);
                along = s.fma(g, v, along);
                let of_scale = self.sums.as_ptr().add(at).cast_mut();
                let of_bias = of_scale.add(width);
                s.store_up_to(of_scale, s.fma(d, v, s.load_up_to(of_scale, n)), n);
                s.store_up_to(of_bias, s.add(d, s.load_up_to(of_bias, n)), n);
            }
            at += n;
        }
        let Some(dx) = self.dx else { return };
        let total = if centred { s.sum(total) / count } else { 0.0 };
        let (total, along) = (s.splat(total), s.splat(s.sum(along) / count));
        let mut at = 0;
        while at < width {
            let n = (width - at).min(S::LANES);
            // SAFETY: as above.
            unsafe {
                let d = s.load_up_to(dy.as_ptr().add(at), n);
                let v = s.mul(s.sub(s.load_up_to(x.as_ptr().add(at), n), m), f);
                let g = s.mul(d, s.load_up_to(scale.as_ptr().add(at), n));
                let rest = s.fma(v, along, total);
                s.store_up_to(dx.as_mut_ptr().add(at), s.mul(f, s.sub(g, rest)), n);
            }
            at += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    #[test]
    fn gradients_of_softmax_equal_the_definition() {
        let mut random = Random::new(43);
        for width in [1, 2, 7, 16, 17, 33, 100] {
            let (x, dy) = (random.floats(5 * width), random.floats(5 * width));
            for ctx in contexts() {
                let (mut y, mut log) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                crate::norm::softmax(&ctx, &x, width, &mut y);
                crate::norm::log_softmax(&ctx, &x, width, &mut log);
                let (mut of_y, mut of_log) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                softmax_gradient(&ctx, [&y, &dy], width, &mut of_y);
                log_softmax_gradient(&ctx, [&log, &dy], width, &mut of_log);
                for (i, d) in dy.iter().enumerate() {
                    let row = i / width * width..(i / width + 1) * width;
                    let pairs = y[row.clone()].iter().zip(&dy[row.clone()]);
                    let inner: f32 = pairs.map(|(y, d)| y * d).sum();
                    let total: f32 = dy[row].iter().sum();
                    close(&[of_y[i]], &[y[i] * (d - inner)], 1e-5, "softmax");
                    close(&[of_log[i]], &[d - y[i] * total], 1e-5, "log softmax");
                }
            }
        }
    }

    #[test]
    fn gradients_of_norms_equal_the_definition() {
        let mut random = Random::new(44);
        for (rows, width) in [(0, 4), (1, 1), (3, 7), (40, 16), (500, 33), (9, 128)] {
            let (x, dy) = (random.floats(rows * width), random.floats(rows * width));
            let scale = random.floats(width);
            for centred in [true, false] {
                let of = RowNorm {
                    x: &x,
                    scale: &scale,
                    dy: &dy,
                    epsilon: 1e-2,
                    centred,
                };
                let mut want = Vec::new();
                let mut sums = vec![0f64; 2 * width];
                for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
                    let n = width as f64;
                    let wide =
                        |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
                    let (x, dy) = (wide(x), wide(dy));
                    let mean = if centred {
                        x.iter().sum::<f64>() / n
                    } else {
                        0.0
                    };
                    let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                    let factor = 1.0 / (square + 1e-2).sqrt();
                    let v: Vec<f64> = x.iter().map(|x| (x - mean) * factor).collect();
                    let g: Vec<f64> = dy
                        .iter()
                        .zip(&scale)
                        .map(|(d, s)| d * f64::from(*s))
                        .collect();
                    let along = g.iter().zip(&v).map(|(g, v)| g * v).sum::<f64>() / n;
                    let total = if centred {
                        g.iter().sum::<f64>() / n
                    } else {
                        0.0
                    };
                    for i in 0..width {
                        want.push((factor * (g[i] - total - v[i] * along)) as f32);
                        sums[i] += dy[i] * v[i];
                        sums[width + i] += dy[i];
                    }
                }
                let sums: Vec<f32> = sums.into_iter().map(|x| x as f32).collect();
                let mut last: Option<(crate::Isa, Vec<f32>)> = None;
                for ctx in contexts() {
                    let mut found = vec![9.0; 2 * width];
                    let mut dx = vec![f32::NAN; x.len()];
                    of.gradients(&ctx, Some(&mut dx), &mut found);
                    close(&dx, &want, 1e-4, "dX");
                    close(&found, &sums, 1e-4, "sums");
                    match &last {
                        Some((isa, one)) if *isa == ctx.isa() => assert_eq!(&found, one, "threads"),
                        _ => last = Some((ctx.isa(), found)),
                    }
                }
            }
        }
    }
}

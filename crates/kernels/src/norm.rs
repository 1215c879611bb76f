//! Softmax, layer norm and RMS norm over rows, and sums of rows.
//!
//! A row is summed in lanes and the lanes pairwise, so results do not depend on threads, but do
//! in the last bits on the instruction set.

mod batch;
mod columns;
mod gradient;
mod groups;
mod repeated;

pub use batch::{batch_norm_gradient, column_moments, scale_shift};
pub use columns::{column_sums, reduce_columns};
pub use gradient::{RowNorm, log_softmax_gradient, softmax_gradient};
pub use groups::group_norm;
pub use repeated::sum_repeated;

use bytemuck::{cast_slice, cast_slice_mut};

use crate::Ctx;
use crate::activation::{GRAIN, exp_or_zero};
use crate::arena::with_scratch;
use crate::permute::permute;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;

/// `y = exp(x - max) / sum` over each row of `width`; exponentials below the normal range are 0.
pub fn softmax(ctx: &Ctx, x: &[f32], width: usize, y: &mut [f32]) {
    rows(ctx, x, width, y, Norm::Softmax);
}

/// `y = x - max - ln(sum of exp(x - max))` over each row of `width`.
pub fn log_softmax(ctx: &Ctx, x: &[f32], width: usize, y: &mut [f32]) {
    rows(ctx, x, width, y, Norm::LogSoftmax);
}

/// [`softmax`], or [`log_softmax`] where `log`, along each line of `width` elements that lie `inner` apart.
pub fn softmax_along(ctx: &Ctx, log: bool, x: &[f32], [width, inner]: [usize; 2], y: &mut [f32]) {
    let norm = if log { Norm::LogSoftmax } else { Norm::Softmax };
    if inner == 1 || x.is_empty() {
        return rows(ctx, x, width, y, norm);
    }
    let outer = x.len() / (width * inner);
    with_scratch(x.len(), |turned: &mut [f32]| {
        let (from, to) = ([outer, width, inner], [outer, inner, width]);
        let (x, lines) = (cast_slice(x), cast_slice_mut(&mut *y));
        permute(ctx, 4, &from, &[0, 2, 1], x, lines);
        rows(ctx, y, width, turned, norm);
        permute(
            ctx,
            4,
            &to,
            &[0, 2, 1],
            cast_slice(turned),
            cast_slice_mut(y),
        );
    });
}

/// `y = (x - mean) / sqrt(variance + epsilon) * scale + bias` over each row as long as `scale`.
pub fn layer_norm(
    ctx: &Ctx,
    x: &[f32],
    scale: &[f32],
    bias: Option<&[f32]>,
    epsilon: f32,
    y: &mut [f32],
) {
    assert!(
        bias.is_none_or(|b| b.len() == scale.len()),
        "scale and bias have equal length"
    );
    rows(
        ctx,
        x,
        scale.len(),
        y,
        Norm::Scaled {
            scale,
            bias,
            epsilon,
            centred: true,
        },
    );
}

/// `y = x / sqrt(mean of squares + epsilon) * scale` over each row as long as `scale`.
pub fn rms_norm(ctx: &Ctx, x: &[f32], scale: &[f32], epsilon: f32, y: &mut [f32]) {
    rows(
        ctx,
        x,
        scale.len(),
        y,
        Norm::Scaled {
            scale,
            bias: None,
            epsilon,
            centred: false,
        },
    );
}

/// What [`skip_norm`] does to the sums.
#[derive(Clone, Copy, Debug)]
pub struct Scaling<'a> {
    /// A factor for each column.
    pub scale: &'a [f32],
    /// What is added at the end, for each column.
    pub shift: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether the mean is taken off.
    pub centred: bool,
}

/// `sum = x + skip + bias`, which is kept where it is wanted, and the norm of each of its rows, as
/// long as the scale; the rows of `skip` repeat where it has fewer.
pub fn skip_norm(
    ctx: &Ctx,
    [x, skip]: [&[f32]; 2],
    bias: Option<&[f32]>,
    scaling: Scaling,
    sum: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let Scaling {
        scale,
        shift,
        epsilon,
        centred,
    } = scaling;
    let width = scale.len();
    let fits = |row: Option<&[f32]>| row.is_none_or(|r| r.len() == width);
    assert!(fits(bias) && fits(shift), "rows have equal length");
    assert!(
        x.len() == y.len() && sum.as_ref().is_none_or(|sum| sum.len() == x.len()),
        "results are as long as the input"
    );
    if x.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(width), "rows fill the input");
    assert!(
        !skip.is_empty() && x.len().is_multiple_of(skip.len()) && skip.len().is_multiple_of(width),
        "the second operand repeats"
    );
    let norm = Norm::Scaled {
        scale,
        bias: shift,
        epsilon,
        centred,
    };
    let (y, sum) = (Shared::new(y), sum.map(Shared::new));
    let grain = (GRAIN / 4 / width).max(1);
    ctx.threads()
        .parallel_ranges(x.len() / width, grain, |range| {
            let mut own = vec![0.0; if sum.is_some() { 0 } else { width }];
            for row in range {
                let at = row * width..(row + 1) * width;
                let skip = &skip[row * width % skip.len()..][..width];
                // SAFETY: every row belongs to one task.
                let y = unsafe { y.slice(at.clone()) };
                let sum = match &sum {
                    // SAFETY: as above.
                    Some(sum) => unsafe { sum.slice(at.clone()) },
                    None => &mut own[..],
                };
                for ((sum, a), b) in sum.iter_mut().zip(&x[at]).zip(skip) {
                    *sum = a + b;
                }
                for (sum, b) in sum.iter_mut().zip(bias.unwrap_or(&[])) {
                    *sum += b;
                }
                let x = sum;
                dispatch(ctx.isa(), Rows { norm, width, x, y });
            }
        });
}

/// How a row becomes one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// The sum.
    Sum,
    /// The sum divided by the length.
    Mean,
    /// The largest; NaN if any is, negative infinity for no elements.
    Max,
}

/// One number for each row of `width`; `y` is as long as there are rows.
pub fn reduce_rows(ctx: &Ctx, how: Reduce, x: &[f32], width: usize, y: &mut [f32]) {
    assert_eq!(x.len(), y.len() * width, "input has a row for each output");
    let shared = Shared::new(y);
    ctx.threads()
        .parallel_ranges(shared.len(), (GRAIN / width.max(1)).max(1), |range| {
            for row in range {
                let value = dispatch(
                    ctx.isa(),
                    Total {
                        how,
                        x: &x[row * width..][..width],
                    },
                );
                // SAFETY: every row belongs to one task.
                unsafe { *shared.pointer(row) = value };
            }
        });
}

#[derive(Clone, Copy)]
enum Norm<'a> {
    Softmax,
    LogSoftmax,
    Scaled {
        scale: &'a [f32],
        bias: Option<&'a [f32]>,
        epsilon: f32,
        centred: bool,
    },
}

fn rows(ctx: &Ctx, x: &[f32], width: usize, y: &mut [f32], norm: Norm) {
    assert_eq!(x.len(), y.len(), "input and output have equal length");
    if width == 0 {
        return;
    }
    assert!(x.len().is_multiple_of(width), "rows fill the input");
    let rows = x.len() / width;
    let shared = Shared::new(y);
    ctx.threads()
        .parallel_ranges(rows, (GRAIN / 4 / width).max(1), |range| {
            let at = range.start * width..range.end * width;
            // SAFETY: every row belongs to one task.
            let y = unsafe { shared.slice(at.clone()) };
            let x = &x[at];
            dispatch(ctx.isa(), Rows { norm, width, x, y });
        });
}

struct Total<'a> {
    how: Reduce,
    x: &'a [f32],
}

impl Body for Total<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        match self.how {
            Reduce::Sum => sum(s, self.x),
            Reduce::Mean => sum(s, self.x) / self.x.len() as f32,
            Reduce::Max => largest(s, self.x),
        }
    }
}

/// Folds whole vectors in four chains and the rest, filled up with `rest`, into one vector.
macro_rules! fold {
    ($s:ident, $x:expr, $empty:expr, |$acc:ident, $v:ident| $step:expr, |$a:ident, $b:ident| $join:expr) => {{
        let x: &[f32] = $x;
        let empty = $s.splat($empty);
        let mut chains = [empty; 4];
        let whole = x.len() / S::LANES;
        // SAFETY: the vectors and the rest lie in the slice.
        unsafe {
            let p = x.as_ptr();
            let mut at = 0;
            while at + 4 <= whole {
                for (i, chain) in chains.iter_mut().enumerate() {
                    let ($acc, $v) = (*chain, $s.load(p.add((at + i) * S::LANES)));
                    *chain = $step;
                }
                at += 4;
            }
            while at < whole {
                let ($acc, $v) = (chains[0], $s.load(p.add(at * S::LANES)));
                chains[0] = $step;
                at += 1;
            }
        }
        let mut total = chains[0];
        for chain in &chains[1..] {
            let ($a, $b) = (total, *chain);
            total = $join;
        }
        (total, &x[whole * S::LANES..])
    }};
}

#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (total, rest) = fold!(s, x, 0.0, |acc, v| s.add(acc, v), |a, b| s.add(a, b));
    s.sum(total) + rest.iter().sum::<f32>()
}

/// The sum of `(x - shift)^2`.
#[inline(always)]
pub(crate) fn squares<S: Simd>(s: S, x: &[f32], shift: f32) -> f32 {
    let m = s.splat(shift);
    let (total, rest) = fold!(
        s,
        x,
        0.0,
        |acc, v| {
            let d = s.sub(v, m);
            s.fma(d, d, acc)
        },
        |a, b| s.add(a, b)
    );
    s.sum(total) + rest.iter().map(|x| (x - shift) * (x - shift)).sum::<f32>()
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

#[inline(always)]
fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (zero, least) = (s.splat(0.0), s.splat(f32::NEG_INFINITY));
    // NaN is found by a sum beside the comparison, because it loses every comparison.
    let (mut most, mut odd) = ([least; 2], [zero; 2]);
    let whole = x.len() / S::LANES;
    for i in 0..whole {
        // SAFETY: the vector lies in the slice.
        let v = unsafe { s.load(x.as_ptr().add(i * S::LANES)) };
        most[i % 2] = s.max(v, most[i % 2]);
        odd[i % 2] = s.fma(v, zero, odd[i % 2]);
    }
    let first = s.largest(s.max(most[0], most[1]));
    let rest = x[whole * S::LANES..].iter();
    let most = rest.fold(first, |a, b| larger(a, *b));
    if s.sum(s.add(odd[0], odd[1])).is_nan() && x.iter().any(|x| x.is_nan()) {
        f32::NAN
    } else {
        most
    }
}

/// Rows of `width`.
struct Rows<'a> {
    norm: Norm<'a>,
    width: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Body for Rows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.x.chunks_exact(self.width);
        for (x, y) in rows.zip(self.y.chunks_exact_mut(self.width)) {
            self.norm.row(s, x, y);
        }
    }
}

impl Norm<'_> {
    #[inline(always)]
    fn row<S: Simd>(self, s: S, x: &[f32], y: &mut [f32]) {
        match self {
            Norm::Softmax => {
                shifted_exp(s, x, largest(s, x), y);
                let total = sum(s, y);
                affine(s, None, 1.0 / total, 0.0, None, y);
            }
            Norm::LogSoftmax => {
                let most = largest(s, x);
                shifted_exp(s, x, most, y);
                let shift = most + sum(s, y).ln();
                affine(s, Some(x), 1.0, -shift, None, y);
            }
            Norm::Scaled {
                scale,
                bias,
                epsilon,
                centred,
            } => {
                let n = x.len() as f32;
                let mean = if centred { sum(s, x) / n } else { 0.0 };
                let factor = 1.0 / (squares(s, x, mean) / n + epsilon).sqrt();
                let (m, f) = (s.splat(mean), s.splat(factor));
                let mut at = 0;
                while at < x.len() {
                    let n = (x.len() - at).min(S::LANES);
                    // SAFETY: `n` elements from `at` on lie in all slices, of equal length.
                    unsafe {
                        let v = s.load_up_to(x.as_ptr().add(at), n);
                        let v = s.mul(s.sub(v, m), f);
                        let v = s.mul(v, s.load_up_to(scale.as_ptr().add(at), n));
                        let v = match bias {
                            Some(bias) => s.add(v, s.load_up_to(bias.as_ptr().add(at), n)),
                            None => v,
                        };
                        let to = y.as_mut_ptr().add(at);
                        if n == S::LANES {
                            s.store(to, v);
                        } else {
                            s.store_n(to, v, n);
                        }
                    }
                    at += n;
                }
            }
        }
    }
}

/// `y = exp(x - shift)`.
#[inline(always)]
fn shifted_exp<S: Simd>(s: S, x: &[f32], shift: f32, y: &mut [f32]) {
    affine(s, Some(x), 1.0, -shift, Some(()), y);
}

/// `y = x * factor + shift`, of `y` itself where there is no `x`, and then `exp` of it if asked.
#[inline(always)]
fn affine<S: Simd>(
    s: S,
    x: Option<&[f32]>,
    factor: f32,
    shift: f32,
    then_exp: Option<()>,
    y: &mut [f32],
) {
    let (f, t) = (s.splat(factor), s.splat(shift));
    let from = x.map_or(y.as_ptr(), <[f32]>::as_ptr);
    let mut at = 0;
    while at < y.len() {
        let n = (y.len() - at).min(S::LANES);
        // SAFETY: `n` elements from `at` on lie in both slices, of equal length.
        unsafe {
            let p = from.add(at);
            let v = if n == S::LANES {
                s.load(p)
            } else {
                s.load_n(p, n)
            };
            let v = s.add(s.mul(v, f), t);
            let v = if then_exp.is_some() {
                exp_or_zero(s, v)
            } else {
                v
            };
            let p = y.as_mut_ptr().add(at);
            if n == S::LANES {
                s.store(p, v)
            } else {
                s.store_n(p, v, n)
            }
        }
        at += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    #[test]
    fn a_norm_of_a_sum_equals_the_norm_and_the_sum() {
        let mut random = Random::new(3);
        for width in [1, 7, 8, 33, 384] {
            let (x, skip) = (random.floats(width * 6), random.floats(width * 3));
            let (scale, bias) = (random.floats(width), random.floats(width));
            let want: Vec<f32> = (0..x.len())
                .map(|i| x[i] + skip[i % skip.len()] + bias[i % width])
                .collect();
            for ctx in contexts() {
                let (mut sum, mut y, mut plain) =
                    (vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]);
                let scaling = || Scaling {
                    scale: &scale,
                    shift: Some(&bias),
                    epsilon: 1e-3,
                    centred: true,
                };
                let inputs = [&x[..], &skip];
                skip_norm(&ctx, inputs, Some(&bias), scaling(), Some(&mut sum), &mut y);
                layer_norm(&ctx, &sum, &scale, Some(&bias), 1e-3, &mut plain);
                assert_eq!((&sum, &y), (&want, &plain));
                y.fill(0.0);
                skip_norm(&ctx, inputs, Some(&bias), scaling(), None, &mut y);
                assert_eq!(y, plain, "where nobody reads the sum");
            }
        }
    }

    #[test]
    fn softmax_takes_exponentials_below_the_normal_range_as_zero() {
        let x: Vec<f32> = (0..40).map(|i| -(i as f32) * 3.0).collect();
        for ctx in contexts() {
            let mut y = vec![f32::NAN; x.len()];
            softmax(&ctx, &x, x.len(), &mut y);
            assert!(y.iter().all(|y| *y == 0.0 || y.is_normal()), "{y:?}");
            assert!(y[25] > 0.0 && y[39] == 0.0, "{y:?}");
        }
    }

    #[test]
    fn rows_equal_the_definitions() {
        let mut random = Random::new(13);
        for width in [1, 2, 7, 8, 9, 31, 64, 100, 1000] {
            let x: Vec<f32> = random.floats(width * 3).iter().map(|x| x * 9.0).collect();
            let (scale, bias) = (random.floats(width), random.floats(width));
            let n = width as f64;
            for ctx in contexts() {
                let mut y = vec![[0.0; 5]; 0];
                y.resize(width * 3, [0.0; 5]);
                let run = |f: &dyn Fn(&mut [f32])| {
                    let mut y = vec![0.0; width * 3];
                    f(&mut y);
                    y
                };
                let got = [
                    run(&|y| softmax(&ctx, &x, width, y)),
                    run(&|y| log_softmax(&ctx, &x, width, y)),
                    run(&|y| layer_norm(&ctx, &x, &scale, Some(&bias), 1e-5, y)),
                    run(&|y| rms_norm(&ctx, &x, &scale, 1e-5, y)),
                ];
                for (r, row) in x.chunks(width).enumerate() {
                    let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
                    let total: f64 = row.iter().map(|x| x.exp()).sum();
                    let mean = row.iter().sum::<f64>() / n;
                    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
                    let square = row.iter().map(|x| x * x).sum::<f64>() / n;
                    let want = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f32> {
                        row.iter()
                            .enumerate()
                            .map(|(i, x)| f(i, *x) as f32)
                            .collect()
                    };
                    let s = |i: usize| f64::from(scale[i]);
                    let part = |k: usize| &got[k][r * width..][..width];
                    close(part(0), &want(&|_, x| x.exp() / total), 1e-6, "softmax");
                    close(part(1), &want(&|_, x| x - total.ln()), 2e-6, "log softmax");
                    let layer = want(&|i, x| {
                        (x - mean) / (variance + 1e-5).sqrt() * s(i) + f64::from(bias[i])
                    });
                    close(part(2), &layer, 2e-4, "layer norm");
                    close(
                        part(3),
                        &want(&|i, x| x / (square + 1e-5).sqrt() * s(i)),
                        1e-5,
                        "rms",
                    );
                }
                let mut totals = [0.0; 3];
                reduce_rows(&ctx, Reduce::Mean, &x, width, &mut totals);
                let mut most = [0.0; 3];
                reduce_rows(&ctx, Reduce::Max, &x, width, &mut most);
                for (r, row) in x.chunks(width).enumerate() {
                    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
                    assert!((f64::from(totals[r]) - mean).abs() < 1e-5);
                    assert_eq!(most[r], row.iter().copied().fold(f32::MIN, f32::max));
                }
            }
        }
    }

    #[test]
    fn nan_and_infinity_in_a_row() {
        for ctx in contexts() {
            let mut most = [0.0; 2];
            let mut x = [1.0; 40];
            x[3] = f32::NAN;
            x[25] = f32::INFINITY;
            reduce_rows(&ctx, Reduce::Max, &x, 20, &mut most);
            assert!(most[0].is_nan() && most[1] == f32::INFINITY);
            let mut y = [0.0; 2];
            softmax(&ctx, &[f32::NEG_INFINITY, 0.0], 2, &mut y);
            assert_eq!(y, [0.0, 1.0]);
        }
    }
}

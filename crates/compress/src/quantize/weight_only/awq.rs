//! AWQ: inputs that matter are scaled up before their weights are rounded, and down again where
//! the activation is made (Lin et al., "AWQ: Activation-aware Weight Quantization", 2024).
//!
//! The scale of input j is `mean|xⱼ|^r / mean|wⱼ|^(1−r)` or `mean|xⱼ|^r`, for the r and the form of
//! the least `‖X (W − Q(W s)/s)ᵀ‖²` (equation 5), which XᵀX gives exactly: `tr(Δ H Δᵀ)`.

use edgesmith_ir::Result;
use edgesmith_kernels::Ctx;
use edgesmith_kernels::gemm::{Epilogue, Order, PackedF32, gemm};

use super::Settings;
use super::blocks::{Blocks, Scheme};
use super::matrix::Matrix;
use super::method::Job;
use super::{range, rtn};
use crate::calibrate::Gram;

/// Exponents that are tried: i / 20.
const STEPS: usize = 20;

/// The smallest scale.
const LEAST: f64 = 1e-4;

/// The scales of the inputs of weights that read the same value; `None` where no scales are better
/// than none.
pub fn scales(
    weights: &[&Matrix],
    gram: &Gram,
    scheme: Scheme,
    settings: &Settings,
    ctx: &Ctx,
) -> Option<Vec<f32>> {
    let hessian = PackedF32::new(ctx, &gram.products, Order::KN, gram.k, gram.k);
    let inputs = gram.mean_magnitudes();
    let norms = mean_magnitudes(weights, scheme.length(gram.k));
    let cost = |s: Option<&[f32]>| -> f64 {
        let each = weights.iter().map(|w| {
            let rounded = rounded(w, s, scheme, settings, ctx);
            let delta: Vec<f32> = w.data.iter().zip(&rounded).map(|(a, b)| a - b).collect();
            energy(&delta, w.n, &hessian, ctx)
        });
        each.sum()
    };
    let (mut best, mut least) = (None, cost(None));
    for step in 0..STEPS {
        let r = step as f64 / STEPS as f64;
        for by_weights in [true, false] {
            if step == 0 && !by_weights {
                continue;
            }
            let scale = |(x, w): (&f64, &f64)| {
                let below = if by_weights {
                    w.powf(1.0 - r) + LEAST
                } else {
                    1.0
                };
                (x.powf(r) / below).max(LEAST)
            };
            let s = balanced(inputs.iter().zip(&norms).map(scale).collect());
            let cost = cost(Some(&s));
            if cost < least {
                (best, least) = (Some(s), cost);
            }
        }
    }
    best
}

/// Divided by the geometric mean of the ends.
fn balanced(scales: Vec<f64>) -> Vec<f32> {
    let most = scales.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let least = scales.iter().copied().fold(f64::INFINITY, f64::min);
    let middle = (most * least).sqrt();
    scales.iter().map(|s| (s / middle) as f32).collect()
}

/// The mean over all rows of |w| for each input, each block over its largest magnitude.
fn mean_magnitudes(weights: &[&Matrix], length: usize) -> Vec<f64> {
    let k = weights.first().map_or(0, |w| w.k);
    let mut sums = vec![0.0f64; k];
    let mut rows = 0;
    for w in weights {
        for row in w.data.chunks_exact(k.max(1)) {
            for (sums, block) in sums.chunks_mut(length).zip(row.chunks(length)) {
                let most = block.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                if most > 0.0 {
                    let add = |(s, x): (&mut f64, &f32)| *s += f64::from(x.abs() / most);
                    sums.iter_mut().zip(block).for_each(add);
                }
            }
        }
        rows += w.n;
    }
    sums.iter().map(|s| s / rows.max(1) as f64).collect()
}

fn rounded(
    w: &Matrix,
    s: Option<&[f32]>,
    scheme: Scheme,
    settings: &Settings,
    ctx: &Ctx,
) -> Vec<f32> {
    let scaled = s.map(|s| w.scaled(s));
    let job = Job {
        weight: scaled.as_ref().unwrap_or(w),
        hessian: None,
        scheme,
        settings,
        ctx: ctx.clone(),
    };
    let mut numbers = rtn::by_blocks(&job, |_, w| range::whole(w, scheme)).numbers();
    for row in numbers.chunks_exact_mut(w.k.max(1)) {
        row.iter_mut()
            .zip(s.into_iter().flatten())
            .for_each(|(x, s)| *x /= s);
    }
    numbers
}

/// `tr(Δ H Δᵀ)` of `n` rows.
pub fn energy(delta: &[f32], n: usize, hessian: &PackedF32, ctx: &Ctx) -> f64 {
    let k = delta.len() / n.max(1);
    let mut product = vec![0.0f32; delta.len()];
    gemm(
        ctx,
        n,
        delta,
        k,
        hessian,
        &mut product,
        k,
        &Epilogue::default(),
    );
    let terms = product
        .iter()
        .zip(delta)
        .map(|(p, d)| f64::from(*p) * f64::from(*d));
    terms.sum()
}

/// Rounds to nearest, each block cut to the share of its range that costs least in the output of
/// the block: `δ H δᵀ` with the part of H of its columns (section 3.2 of the paper's code: clip
/// search).
///
/// # Errors
/// When there is no XᵀX of what the weight multiplies.
pub fn clipped(job: &Job) -> Result<Blocks> {
    let (hessian, k, scheme) = (job.hessian()?, job.weight.k, job.scheme);
    Ok(rtn::by_blocks(job, |start, w| {
        range::search(w, scheme, |grid| {
            let error = |&w: &f32| w - grid.number(grid.code(w, scheme.most()));
            let delta: Vec<f32> = w.iter().map(error).collect();
            let row = |(i, d): (usize, &f32)| {
                let h = &hessian[(start + i) * k + start..][..w.len()];
                f64::from(d * dot(h, &delta))
            };
            delta.iter().enumerate().map(row).sum()
        })
    }))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    const WIDTH: usize = 16;
    let mut sums = [0.0f32; WIDTH];
    let (a, b) = (a.chunks_exact(WIDTH), b.chunks_exact(WIDTH));
    let tail = a.remainder().iter().zip(b.remainder());
    let tail: f32 = tail.map(|(x, y)| x * y).sum();
    for (x, y) in a.zip(b) {
        for i in 0..WIDTH {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + tail
}

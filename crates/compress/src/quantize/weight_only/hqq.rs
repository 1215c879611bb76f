//! HQQ: the zero point of each block between codes, by half-quadratic steps (Badri and Shaji,
//! "Half-Quadratic Quantization of Large Machine Learning Models", 2023).
//!
//! Errors are taken to be heavy-tailed: the norm `‖W − Ŵ‖ₚ` with p < 1 is made small by turns of
//! a shrinking step for the error and a mean for the zero point. No data is needed.

use edgesmith_ir::Result;

use super::blocks::{Blocks, Grid, Scheme};
use super::method::Job;
use super::{range, rtn};

/// The norm.
const P: f32 = 0.7;

/// The weight of the half-quadratic term, and what it grows by.
const BETA: f32 = 10.0;
const GROWTH: f32 = 1.01;

/// Steps at most.
const STEPS: usize = 20;

/// Rounds each block by the zero point of the least mean error.
///
/// # Errors
/// None; it has the type of a method.
pub fn round(job: &Job) -> Result<Blocks> {
    let asymmetric = Scheme {
        symmetric: false,
        ..job.scheme
    };
    let job = Job {
        scheme: asymmetric,
        ctx: job.ctx.clone(),
        ..*job
    };
    Ok(rtn::by_blocks(&job, |_, w| grid(w, asymmetric)))
}

fn grid(w: &[f32], scheme: Scheme) -> Grid {
    let mut grid = range::whole(w, scheme);
    let (mut best, mut least) = (grid, mean_error(w, grid, scheme));
    let mut beta = BETA;
    for _ in 0..STEPS {
        let inverse = 1.0 / grid.scale;
        let sum: f32 = w
            .iter()
            .map(|&x| {
                let code = grid.code(x, scheme.most());
                let error = shrink(x - grid.number(code), beta);
                f32::from(code) - (x - error) * inverse
            })
            .sum();
        grid.zero = sum / w.len() as f32;
        beta *= GROWTH;
        let error = mean_error(w, grid, scheme);
        if error >= least {
            break;
        }
        (best, least) = (grid, error);
    }
    best
}

/// The generalised soft threshold of the norm p.
fn shrink(x: f32, beta: f32) -> f32 {
    let kept = x.abs() - x.abs().powf(P - 1.0) / beta;
    if kept > 0.0 { kept.copysign(x) } else { 0.0 }
}

fn mean_error(w: &[f32], grid: Grid, scheme: Scheme) -> f32 {
    let error = |&x: &f32| (x - grid.number(grid.code(x, scheme.most()))).abs().powf(P);
    w.iter().map(error).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_never_above_that_of_rounding() {
        for seed in 1..50usize {
            let w: Vec<f32> = (0..64)
                .map(|i| ((i * seed * 7919 + 13) % 997) as f32 / 400.0 - 1.0)
                .collect();
            for bits in [2, 3, 4] {
                let scheme = Scheme {
                    bits,
                    group: 64,
                    symmetric: false,
                };
                let plain = mean_error(&w, range::whole(&w, scheme), scheme);
                assert!(mean_error(&w, grid(&w, scheme), scheme) <= plain);
            }
        }
    }
}

//! What pruning a weight costs at the outputs of its products.

use edgesmith_kernels::gemm::{Order, PackedF32};

use super::criteria::{Job, MAGNITUDE, Solved};
use super::magnitude;
use super::select::kept;
use crate::quantize::weight_only::awq::energy;

/// Squared errors of outputs as shares of the squares of the outputs; `None` where no inputs were seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Errors {
    /// Of the weight as it was pruned.
    pub own: Option<f64>,
    /// Where as many of the smallest numbers go, with the same pattern; `None` where those went.
    pub of_magnitude: Option<f64>,
}

/// The errors of a pruned weight.
pub fn of(job: &Job, solved: &Solved) -> Errors {
    if job.seen.is_none_or(|s| s.rows() == 0) {
        return Errors::default();
    }
    let whole = cost(job, &job.weight.data).max(f64::MIN_POSITIVE);
    let share = |numbers: &[f32]| {
        let apart = numbers.iter().zip(&job.weight.data).map(|(a, b)| a - b);
        cost(job, &apart.collect::<Vec<f32>>()) / whole
    };
    let of_magnitude = || {
        let scores = magnitude::scores(job).ok()?;
        let kept = kept(
            &scores,
            job.lengths,
            job.settings.pattern,
            job.amount,
            false,
        );
        Some(share(&Solved::masked(job.weight, kept).numbers))
    };
    Errors {
        own: Some(share(&solved.numbers)),
        of_magnitude: (job.settings.criterion != &MAGNITUDE)
            .then(of_magnitude)
            .flatten(),
    }
}

/// `tr(Δ XᵀX Δᵀ)`.
fn cost(job: &Job, delta: &[f32]) -> f64 {
    let Some(seen) = job.seen else { return 0.0 };
    let (k, rows) = (job.lengths.columns, job.lengths.rows / seen.groups);
    let group = |(g, delta): (usize, &[f32])| {
        let products = PackedF32::new(job.ctx, seen.products(g), Order::KN, k, k);
        energy(delta, rows, &products, job.ctx)
    };
    delta.chunks_exact(rows * k).enumerate().map(group).sum()
}

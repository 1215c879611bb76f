//! Adaptive rounding: each weight up or down, as the outputs of its product on samples ask.
//!
//! The objective is AdaRound's (Nagel et al. 2020, "Up or down? Adaptive rounding for post-training
//! quantization", equation 20): for each output the errors `e` of its weights with the least `eᵀ H e`,
//! `H = E[x xᵀ]` of what they multiply, each weight at one of the two integers beside it. It is not
//! solved through a relaxation: columns are rounded one after another, those that follow make the
//! errors good (GPTQ, as in [`Factor`]), and then single weights change sides as long as that lowers
//! the sum. Where a bias takes up the mean error of an output, `H` is the covariance.

use std::ops::Range;

use edgesmith_kernels::Ctx;
use edgesmith_kernels::gemm::{Epilogue, Order, matmul};

use crate::calibrate::Sums;
use crate::quantize::weight_only::factor::Factor;
use crate::quantize::weight_only::matrix::turned;

mod inputs;

pub use inputs::Inputs;

/// The share of the mean of the diagonal of H that is added to it: what few samples leave open is
/// rounded to nearest.
const DAMPING: f64 = 0.01;

/// Sweeps over the weights of an output; most end after a few.
const SWEEPS: usize = 20;

/// A change must lower the cost by this share of what an error of one step costs.
const WORTH: f32 = 1e-5;

/// A weight by outputs: rows of `k` numbers, each with its scale.
pub(super) struct Rows<'a> {
    pub numbers: &'a [f32],
    pub k: usize,
    /// One for each row, or one for all.
    pub scales: &'a [f32],
    /// The largest magnitude of an integer.
    pub limit: f32,
}

/// Rounds rows by what they multiply, which is several values where several products share the
/// weight. Rows are split evenly among the groups of the sums.
pub(super) fn round(rows: &Rows, sums: &[&Sums], centred: bool, ctx: &Ctx) -> Vec<i8> {
    let groups = sums[0].groups;
    let of_group = rows.numbers.len() / groups;
    let mut ints = vec![0i8; rows.numbers.len()];
    let one = |group: usize, ints: &mut [i8], ctx: &Ctx| {
        let steps = rows.steps(group * of_group..(group + 1) * of_group);
        let codes = match Objective::of(sums, group, centred, ctx) {
            Some(objective) if steps.iter().all(|t| t.is_finite()) => {
                objective.round(&steps, rows.limit, ctx)
            }
            _ => nearest(&steps, rows.limit),
        };
        ints.iter_mut().zip(&codes).for_each(|(i, c)| *i = *c as i8);
    };
    if groups == 1 {
        one(0, &mut ints, ctx);
    } else {
        let alone = Ctx::serial();
        let each = |group: usize, ints: &mut [i8]| one(group, ints, &alone);
        ctx.threads().parallel_chunks(&mut ints, of_group, each);
    }
    ints
}

impl Rows<'_> {
    /// Numbers in steps of their scale.
    fn steps(&self, range: Range<usize>) -> Vec<f32> {
        let first = range.start / self.k;
        let rows = self.numbers[range].chunks_exact(self.k).enumerate();
        let scale = |row: usize| self.scales[(first + row) % self.scales.len()];
        rows.flat_map(|(i, row)| row.iter().map(move |w| w / scale(i)))
            .collect()
    }
}

fn nearest(steps: &[f32], limit: f32) -> Vec<f32> {
    let round = |t: &f32| t.round_ties_even().clamp(-limit, limit);
    steps.iter().map(round).collect()
}

/// The integers beside a number.
fn beside(t: f32, limit: f32) -> (f32, f32) {
    let within = |x: f32| x.clamp(-limit, limit);
    (within(t.floor()), within(t.ceil()))
}

/// What errors of a group of weights cost.
struct Objective {
    k: usize,
    /// H, damped.
    products: Vec<f32>,
    order: Vec<usize>,
    /// `[k, k]`, in the order of rounding: in row `j`, what the error of `j` adds to those behind.
    adds: Vec<f32>,
}

impl Objective {
    /// `None` where nothing is known: no rows were seen, or a sum is not finite.
    fn of(sums: &[&Sums], group: usize, centred: bool, ctx: &Ctx) -> Option<Self> {
        let k = sums[0].k;
        let mut products = vec![0.0f32; k * k];
        for sums in sums {
            sums.add_to(group, centred, &mut products);
        }
        let mean = (0..k).map(|i| f64::from(products[i * k + i])).sum::<f64>() / k.max(1) as f64;
        if !(mean.is_finite() && mean > 0.0) {
            return None;
        }
        for i in 0..k {
            products[i * k + i] += (DAMPING * mean) as f32;
        }
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|&a, &b| products[b * k + b].total_cmp(&products[a * k + a]));
        let factor = Factor::of(&products, &order, 0.0, ctx.threads())?;
        Some(Self {
            k,
            products,
            order,
            adds: turned(&factor.carry, k, k),
        })
    }

    /// Rounds rows of numbers in steps.
    fn round(&self, steps: &[f32], limit: f32, ctx: &Ctx) -> Vec<f32> {
        let k = self.k;
        let plain = nearest(steps, limit);
        let mut codes = vec![0.0f32; steps.len()];
        ctx.threads().parallel_chunks(&mut codes, k, |row, codes| {
            self.one_by_one(&steps[row * k..][..k], limit, codes);
        });
        let most = self.costs(steps, &plain, &self.slopes(steps, &plain, ctx));
        let mut slopes = self.slopes(steps, &codes, ctx);
        let mut rows: Vec<(&mut [f32], &mut [f32])> = codes
            .chunks_exact_mut(k)
            .zip(slopes.chunks_exact_mut(k))
            .collect();
        ctx.threads().parallel_chunks(&mut rows, 1, |row, rows| {
            for (codes, slopes) in rows {
                self.descend(&steps[row * k..][..k], limit, codes, slopes);
            }
        });
        let costs = self.costs(steps, &codes, &slopes);
        for (row, (cost, most)) in costs.iter().zip(&most).enumerate() {
            if cost >= most {
                let row = row * k..(row + 1) * k;
                codes[row.clone()].copy_from_slice(&plain[row]);
            }
        }
        codes
    }

    /// Rounds the numbers of a row one after another, each with the errors of those before made good.
    fn one_by_one(&self, steps: &[f32], limit: f32, codes: &mut [f32]) {
        let mut carried = vec![0.0f32; self.k];
        for (at, &i) in self.order.iter().enumerate() {
            let (below, above) = beside(steps[i], limit);
            codes[i] = (steps[i] + carried[at])
                .round_ties_even()
                .clamp(below, above);
            let error = steps[i] - codes[i];
            let adds = &self.adds[at * self.k..][at + 1..self.k];
            let behind = carried[at + 1..].iter_mut();
            behind.zip(adds).for_each(|(c, a)| *c += error * a);
        }
    }

    /// Moves single codes of a row to the other side as long as that lowers the cost.
    fn descend(&self, steps: &[f32], limit: f32, codes: &mut [f32], slopes: &mut [f32]) {
        for _ in 0..SWEEPS {
            let mut moved = false;
            for i in 0..self.k {
                let (below, above) = beside(steps[i], limit);
                let other = if codes[i] == below { above } else { below };
                let change = other - codes[i];
                let row = &self.products[i * self.k..][..self.k];
                let gain = change * (2.0 * slopes[i] + change * row[i]);
                if change != 0.0 && gain < -WORTH * row[i] {
                    codes[i] = other;
                    slopes
                        .iter_mut()
                        .zip(row)
                        .for_each(|(s, h)| *s += change * h);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// `H e` of each row.
    fn slopes(&self, steps: &[f32], codes: &[f32], ctx: &Ctx) -> Vec<f32> {
        let (k, plain) = (self.k, Epilogue::default());
        let errors: Vec<f32> = codes.iter().zip(steps).map(|(c, t)| c - t).collect();
        let mut slopes = vec![0.0f32; steps.len()];
        let sizes = [steps.len() / k, k, k];
        matmul(
            ctx,
            sizes,
            &errors,
            &self.products,
            Order::KN,
            &mut slopes,
            &plain,
        );
        slopes
    }

    /// `eᵀ H e` of each row.
    fn costs(&self, steps: &[f32], codes: &[f32], slopes: &[f32]) -> Vec<f64> {
        let errors = codes.iter().zip(steps).map(|(c, t)| f64::from(c - t));
        let all: Vec<f64> = errors.zip(slopes).map(|(e, s)| e * f64::from(*s)).collect();
        all.chunks_exact(self.k)
            .map(|row| row.iter().sum())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_kernels::{Isa, Threads};

    use super::*;
    use crate::quantize::testing::numbers;

    const LIMIT: f32 = 127.0;

    fn ctx() -> Ctx {
        Ctx::new(Isa::detect(), Threads::new(2))
    }

    /// Sums of rows whose numbers depend on their neighbours and have a mean of one.
    fn correlated(k: usize, groups: usize) -> Sums {
        let rows = 4 * k;
        let mut turned = Vec::new();
        for group in 0..groups {
            let mut x = numbers(rows * k, 7 + group as u32);
            for row in x.chunks_exact_mut(k) {
                for i in 1..k {
                    row[i] = 0.8 * row[i - 1] + 0.6 * row[i];
                }
                row.iter_mut().for_each(|x| *x += 1.0);
            }
            turned.extend(
                (0..k).flat_map(|c| x.chunks_exact(k).map(move |r| r[c]).collect::<Vec<_>>()),
            );
        }
        Sums::testing(groups, k, &turned)
    }

    fn cost(sums: &Sums, group: usize, errors: &[f64]) -> f64 {
        let k = errors.len();
        let mut products = vec![0.0; k * k];
        sums.add_to(group, false, &mut products);
        let row = |i: usize| -> f64 {
            let row = products[i * k..][..k].iter().zip(errors);
            row.map(|(h, e)| f64::from(*h) * e).sum()
        };
        (0..k).map(|i| errors[i] * row(i)).sum()
    }

    fn errors(numbers: &[f32], scale: f32, ints: &[i8]) -> Vec<f64> {
        let pairs = numbers.iter().zip(ints);
        pairs
            .map(|(w, &i)| f64::from(i) - f64::from(w / scale))
            .collect()
    }

    #[test]
    fn every_weight_goes_to_an_integer_beside_it_and_outputs_err_less() {
        for (k, groups, outputs) in [(1, 1, 3), (9, 4, 8), (33, 1, 5), (130, 2, 6)] {
            let sums = correlated(k, groups);
            let numbers = numbers(outputs * k, 3);
            let scales: Vec<f32> = (0..outputs).map(|o| 0.01 + 0.001 * o as f32).collect();
            let rows = Rows {
                numbers: &numbers,
                k,
                scales: &scales,
                limit: LIMIT,
            };
            let ints = round(&rows, &[&sums], false, &ctx());
            let (mut found, mut plain) = (0.0, 0.0);
            for row in 0..outputs {
                let (numbers, ints) = (&numbers[row * k..][..k], &ints[row * k..][..k]);
                let errors = errors(numbers, scales[row], ints);
                assert!(errors.iter().all(|e| e.abs() < 1.0), "{k} {errors:?}");
                let nearest: Vec<f64> = errors.iter().map(|e| e - e.round()).collect();
                let group = row / (outputs / groups);
                found += cost(&sums, group, &errors);
                plain += cost(&sums, group, &nearest);
            }
            assert!(k == 1 || found < 0.7 * plain, "{k}: {found} of {plain}");
        }
    }

    #[test]
    fn few_weights_are_rounded_nearly_as_well_as_can_be() {
        let k = 10;
        let sums = correlated(k, 1);
        let numbers = numbers(20 * k, 5);
        let rows = Rows {
            numbers: &numbers,
            k,
            scales: &[0.013],
            limit: LIMIT,
        };
        let ints = round(&rows, &[&sums], false, &ctx());
        let (mut found, mut best) = (0.0, 0.0);
        for (numbers, ints) in numbers.chunks_exact(k).zip(ints.chunks_exact(k)) {
            found += cost(&sums, 0, &errors(numbers, 0.013, ints));
            let every = (0..1u32 << k).map(|up| {
                let one = |i: usize| (numbers[i] / 0.013).floor() as i8 + (up >> i & 1) as i8;
                let ints: Vec<i8> = (0..k).map(one).collect();
                cost(&sums, 0, &errors(numbers, 0.013, &ints))
            });
            best += every.fold(f64::INFINITY, f64::min);
        }
        assert!(found < 1.3 * best, "{found} {best}");
    }

    #[test]
    fn with_a_bias_the_mean_of_the_inputs_counts_for_nothing() {
        let k = 16;
        let sums = correlated(k, 1);
        let numbers = numbers(40 * k, 9);
        let rows = Rows {
            numbers: &numbers,
            k,
            scales: &[0.02],
            limit: LIMIT,
        };
        let spread = |centred: bool| -> f64 {
            let ints = round(&rows, &[&sums], centred, &ctx());
            let of_row = |(w, i): (&[f32], &[i8])| {
                let errors = errors(w, 0.02, i);
                let mean = sums.mean_of(&errors)[0];
                cost(&sums, 0, &errors) - mean * mean * sums.rows() as f64
            };
            numbers
                .chunks_exact(k)
                .zip(ints.chunks_exact(k))
                .map(of_row)
                .sum()
        };
        assert!(
            spread(true) < 0.9 * spread(false),
            "{} {}",
            spread(true),
            spread(false)
        );
    }

    #[test]
    fn what_is_not_finite_or_was_not_seen_is_rounded_to_nearest() {
        let k = 3;
        let empty = Sums::testing(1, k, &[]);
        let numbers = [0.14f32, -0.26, 20.0];
        let rows = Rows {
            numbers: &numbers,
            k,
            scales: &[0.1],
            limit: LIMIT,
        };
        assert_eq!(round(&rows, &[&empty], true, &ctx()), [1, -3, 127]);
        let numbers = [0.14f32, f32::NAN, f32::INFINITY];
        let rows = Rows {
            numbers: &numbers,
            ..rows
        };
        let seen = correlated(k, 1);
        assert_eq!(round(&rows, &[&seen], false, &ctx()), [1, 0, 127]);
    }
}

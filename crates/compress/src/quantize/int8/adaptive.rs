//! Adaptive rounding: each weight up or down, as the outputs of its product on samples ask.
//!
//! The objective is AdaRound's (Nagel et al. 2020, "Up or down? Adaptive rounding for post-training
//! quantization", equation 20): for each output the errors `e` of its weights with the least `eᵀ H e`,
//! `H = E[x xᵀ]` of what they multiply, each weight at one of the two integers beside it. It is not
//! solved through a relaxation: columns are rounded one after another, those that follow make the
//! errors good (GPTQ, as in [`Factor`]), and then single weights change sides as long as that lowers
//! the sum. Where a bias takes up the mean error of an output, `H` is the covariance.

use edgesmith_kernels::Ctx;

use crate::quantize::weight_only::factor::Factor;

mod inputs;

pub use inputs::Inputs;
pub(super) use inputs::Sums;

/// The share of the mean of the diagonal of H that is added to it: what few samples leave open is
/// rounded to nearest.
const DAMPING: f64 = 0.01;

/// Sweeps over the weights of an output; most end after a few.
const SWEEPS: usize = 20;

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
    let (k, groups) = (rows.k, sums[0].groups);
    let of_group = rows.numbers.len() / groups;
    let mut ints = vec![0i8; rows.numbers.len()];
    let one = |group: usize, ints: &mut [i8], ctx: &Ctx| {
        let objective = Objective::of(sums, group, centred, ctx);
        let first = group * of_group / k;
        ctx.threads().parallel_chunks(ints, k, |row, ints| {
            let row = first + row;
            let numbers = &rows.numbers[row * k..][..k];
            let scale = rows.scales[row % rows.scales.len()];
            match &objective {
                Some(objective) => objective.round(numbers, scale, rows.limit, ints),
                None => nearest(numbers, scale, rows.limit, ints),
            }
        });
    };
    if groups == 1 {
        one(0, &mut ints, ctx);
    } else {
        let alone = Ctx::serial();
        ctx.threads()
            .parallel_chunks(&mut ints, of_group, |group, ints| one(group, ints, &alone));
    }
    ints
}

fn nearest(numbers: &[f32], scale: f32, limit: f32, ints: &mut [i8]) {
    for (int, w) in ints.iter_mut().zip(numbers) {
        *int = (w / scale).round_ties_even().clamp(-limit, limit) as i8;
    }
}

/// What errors of a group of weights cost.
struct Objective {
    k: usize,
    /// H, damped.
    products: Vec<f32>,
    order: Vec<usize>,
    factor: Factor,
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
            factor,
        })
    }

    fn round(&self, numbers: &[f32], scale: f32, limit: f32, ints: &mut [i8]) {
        nearest(numbers, scale, limit, ints);
        let steps: Vec<f32> = numbers.iter().map(|w| w / scale).collect();
        if steps.iter().any(|t| !t.is_finite()) {
            return;
        }
        let below = |t: f32| t.floor().clamp(-limit, limit);
        let above = |t: f32| t.ceil().clamp(-limit, limit);
        let mut codes = vec![0.0f32; self.k];
        let mut errors = vec![0.0f32; self.k];
        for (at, &i) in self.order.iter().enumerate() {
            let carry = &self.factor.carry[at * self.k..][..at];
            let carried: f32 = errors.iter().zip(carry).map(|(e, c)| e * c).sum();
            let t = steps[i];
            let wanted = (t + carried).round_ties_even();
            codes[i] = wanted.clamp(below(t), above(t));
            errors[at] = t - codes[i];
        }
        self.descend(&steps, &mut codes, |t| (below(t), above(t)));
        let plain: Vec<f32> = ints.iter().map(|&i| f32::from(i)).collect();
        if self.cost(&steps, &codes) < self.cost(&steps, &plain) {
            ints.iter_mut().zip(&codes).for_each(|(i, c)| *i = *c as i8);
        }
    }

    /// Moves single codes to the other side as long as that lowers the cost.
    fn descend(&self, steps: &[f32], codes: &mut [f32], ends: impl Fn(f32) -> (f32, f32)) {
        let k = self.k;
        let mut slopes = self.slopes(steps, codes);
        for _ in 0..SWEEPS {
            let mut moved = false;
            for i in 0..k {
                let (below, above) = ends(steps[i]);
                let other = if codes[i] == below { above } else { below };
                let change = other - codes[i];
                let row = &self.products[i * k..][..k];
                let gain = change * (2.0 * slopes[i] + change * row[i]);
                if change != 0.0 && gain < -1e-5 * row[i] {
                    codes[i] = other;
                    slopes.iter_mut().zip(row).for_each(|(s, h)| *s += change * h);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// `H e`.
    fn slopes(&self, steps: &[f32], codes: &[f32]) -> Vec<f32> {
        let mut slopes = vec![0.0f32; self.k];
        for (i, (t, c)) in steps.iter().zip(codes).enumerate() {
            let (error, row) = (c - t, &self.products[i * self.k..][..self.k]);
            slopes.iter_mut().zip(row).for_each(|(s, h)| *s += error * h);
        }
        slopes
    }

    /// `eᵀ H e`.
    fn cost(&self, steps: &[f32], codes: &[f32]) -> f64 {
        let slopes = self.slopes(steps, codes);
        let errors = steps.iter().zip(codes).map(|(t, c)| f64::from(c - t));
        errors.zip(&slopes).map(|(e, s)| e * f64::from(*s)).sum()
    }
}

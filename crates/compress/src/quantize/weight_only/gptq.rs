//! GPTQ: columns are rounded one after another, and those that follow make the error good.
//!
//! Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
//! Transformers" (2023), algorithm 1, in the form of [`super::factor`]. Blocks of columns are
//! updated by one product (section 3.3, step 2). The grid of a group is chosen when its first
//! column is reached, from its numbers as updated; with `act_order` all grids are chosen before
//! (static groups), and columns come in the order of their share in the inputs.

use edgesmith_ir::{Error, Result};
use edgesmith_kernels::gemm::{Epilogue, Order, matmul};

use super::blocks::{Blocks, Grid, Row, Scheme};
use super::factor::Factor;
use super::matrix::turned;
use super::method::Job;
use super::range;

/// Columns that are rounded between two updates of all that follow.
const BLOCK: usize = 128;

/// Rounds a weight column by column.
///
/// # Errors
/// When there is no XᵀX of what the weight multiplies.
pub fn round(job: &Job) -> Result<Blocks> {
    let hessian = job.hessian()?;
    let (w, scheme) = (job.weight, job.scheme);
    let order = order(hessian, w.k, job.settings.act_order);
    let factor = Factor::of(hessian, &order, job.settings.damping, job.ctx.threads())
        .ok_or_else(|| Error::invalid("XᵀX is not finite"))?;
    let mut costs = vec![0.0; w.k];
    for (&column, &cost) in order.iter().zip(&factor.cost) {
        costs[column] = cost;
    }
    let mut state: Vec<State> = job.rows(|i| State::new(job, w.row(i), &order, &costs));
    let (k, length) = (w.k, scheme.length(w.k));
    let step = if length > BLOCK && length < k {
        length
    } else {
        BLOCK
    };
    let mut errors = vec![0.0f32; w.n * k];
    let mut carried = vec![0.0f32; w.n * step];
    for first in (0..k).step_by(step) {
        let columns = Columns::of(&factor, first, step.min(k - first), k);
        let width = columns.width;
        let carried = &mut carried[..w.n * width];
        columns.carry(job, w.n, &errors, carried);
        let threads = job.ctx.threads();
        let before = &*carried;
        threads.parallel_chunks(&mut state, 8, |chunk, rows| {
            for (i, row) in rows.iter_mut().enumerate() {
                let before = &before[(chunk * 8 + i) * width..][..width];
                row.round(&columns, before, &order, scheme, job);
            }
        });
        for (row, state) in errors.chunks_exact_mut(k).zip(&state) {
            row[first..first + width].copy_from_slice(&state.errors);
        }
    }
    let rows = state.into_iter().map(|s| s.row).collect();
    Ok(Blocks::of_rows(w.n, k, scheme, rows))
}

/// The order in which columns are rounded.
fn order(hessian: &[f32], k: usize, act_order: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..k).collect();
    if act_order {
        order.sort_by(|&a, &b| hessian[b * k + b].total_cmp(&hessian[a * k + a]));
    }
    order
}

/// The columns of a block, and what their errors add to each other.
struct Columns<'a> {
    first: usize,
    width: usize,
    k: usize,
    factor: &'a Factor,
    /// `[width, width]`: in row `j`, what the error of `j` adds to each.
    within: Vec<f32>,
}

impl<'a> Columns<'a> {
    fn of(factor: &'a Factor, first: usize, width: usize, k: usize) -> Self {
        let rows = (first..first + width).flat_map(|i| &factor.carry[i * k + first..][..width]);
        let within = turned(&rows.copied().collect::<Vec<_>>(), width, width);
        Self {
            first,
            width,
            k,
            factor,
            within,
        }
    }

    /// What the errors of all columns before add to those of the block, for each of `n` rows.
    fn carry(&self, job: &Job, n: usize, errors: &[f32], carried: &mut [f32]) {
        let (first, width, k) = (self.first, self.width, self.k);
        if first == 0 {
            carried.fill(0.0);
            return;
        }
        let left: Vec<f32> = errors
            .chunks_exact(k)
            .flat_map(|row| &row[..first])
            .copied()
            .collect();
        let rows = (first..first + width).flat_map(|i| &self.factor.carry[i * k..][..first]);
        let right: Vec<f32> = rows.copied().collect();
        let plain = Epilogue::default();
        matmul(
            &job.ctx,
            [n, first, width],
            &left,
            &right,
            Order::NK,
            carried,
            &plain,
        );
    }

    fn cost(&self) -> &[f32] {
        &self.factor.cost[self.first..][..self.width]
    }
}

/// A row on its way.
#[derive(Default)]
struct State {
    row: Row,
    /// The numbers in the order of rounding.
    numbers: Vec<f32>,
    /// What each column of the block differs from its number by.
    errors: Vec<f32>,
    /// What errors add to the columns of the block.
    carried: Vec<f32>,
    /// The grids were chosen before.
    is_static: bool,
}

impl State {
    fn new(job: &Job, numbers: &[f32], order: &[usize], costs: &[f32]) -> Self {
        let mut row = Row::default();
        row.codes.resize(numbers.len(), 0);
        let is_static = job.settings.act_order;
        if is_static {
            let length = job.scheme.length(numbers.len());
            let blocks = numbers.chunks(length).zip(costs.chunks(length));
            row.grids = blocks.map(|(b, c)| choose(b, |i| c[i], job)).collect();
        }
        Self {
            row,
            numbers: order.iter().map(|&i| numbers[i]).collect(),
            is_static,
            ..Self::default()
        }
    }

    fn round(
        &mut self,
        columns: &Columns,
        before: &[f32],
        order: &[usize],
        scheme: Scheme,
        job: &Job,
    ) {
        let (first, width, length) = (columns.first, columns.width, scheme.length(columns.k));
        self.carried.clear();
        self.carried.extend(before);
        self.errors.clear();
        for c in 0..width {
            let at = first + c;
            if !self.is_static && at.is_multiple_of(length) {
                let grid = self.next_grid(columns, c, length.min(columns.k - at), job);
                self.row.grids.push(grid);
            }
            let grid = self.row.grids[order[at] / length];
            let code = grid.code(self.numbers[at] + self.carried[c], scheme.most());
            self.row.codes[order[at]] = code;
            let error = self.numbers[at] - grid.number(code);
            self.errors.push(error);
            let adds = &columns.within[c * width..][..width];
            for (sum, add) in self.carried[c + 1..].iter_mut().zip(&adds[c + 1..]) {
                *sum += error * add;
            }
        }
    }

    /// The grid of the group that starts at column `c`, from its numbers with all earlier errors
    /// made good.
    fn next_grid(&self, columns: &Columns, c: usize, length: usize, job: &Job) -> Grid {
        let start = columns.first + c;
        if start == 0 {
            let cost = &columns.factor.cost;
            return choose(&self.numbers[..length], |i| cost[i], job);
        }
        let mut carried = self.carried[c..c + length].to_vec();
        for i in 0..length {
            let adds = &columns.within[(c + i) * columns.width + c..][..length];
            let error = -carried[i];
            for (sum, add) in carried[i + 1..].iter_mut().zip(&adds[i + 1..]) {
                *sum += error * add;
            }
        }
        for (sum, number) in carried.iter_mut().zip(&self.numbers[start..]) {
            *sum += number;
        }
        let cost = &columns.cost()[c..];
        choose(&carried, |i| cost[i], job)
    }
}

fn choose(w: &[f32], cost: impl Fn(usize) -> f32, job: &Job) -> Grid {
    match job.settings.search_range {
        true => range::least_error(w, cost, job.scheme),
        false => range::whole(w, job.scheme),
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_kernels::{Ctx, Isa, Threads};

    use super::*;
    use crate::quantize::testing::numbers;
    use crate::quantize::weight_only::matrix::Matrix;
    use crate::quantize::weight_only::{Settings, method};

    /// XᵀX of inputs that depend on their neighbours.
    fn correlated(k: usize) -> Vec<f32> {
        let rows = 3 * k;
        let mut x = numbers(rows * k, 7);
        for row in x.chunks_exact_mut(k) {
            for i in 1..k {
                row[i] = 0.8 * row[i - 1] + 0.6 * row[i];
            }
        }
        let entry = |i: usize, j: usize| x.chunks_exact(k).map(|r| r[i] * r[j]).sum::<f32>();
        (0..k * k).map(|at| entry(at / k, at % k)).collect()
    }

    fn settings(bits: usize, group: usize, act_order: bool) -> Settings {
        let mut settings = Settings::new(&method::GPTQ, bits);
        settings.scheme.group = group;
        settings.act_order = act_order;
        settings
    }

    fn job<'a>(weight: &'a Matrix, hessian: &'a [f32], settings: &'a Settings) -> Job<'a> {
        Job {
            weight,
            hessian: Some(hessian),
            scheme: settings.scheme,
            settings,
            ctx: Ctx::new(Isa::detect(), Threads::new(2)),
        }
    }

    /// Algorithm 1 of the paper, row by row in f64: H⁻¹ by elimination, its upper factor, and
    /// updates of all columns that follow.
    fn textbook(weight: &Matrix, hessian: &[f32], scheme: Scheme, damping: f64) -> Vec<f64> {
        let k = weight.k;
        let mut h: Vec<f64> = hessian.iter().map(|&x| f64::from(x)).collect();
        let mean = (0..k).map(|i| h[i * k + i]).sum::<f64>() / k as f64;
        (0..k).for_each(|i| h[i * k + i] += damping * mean);
        let upper = upper_factor(&inverse(&h, k), k);
        let mut out = Vec::new();
        for i in 0..weight.n {
            let mut w: Vec<f64> = weight.row(i).iter().map(|&x| f64::from(x)).collect();
            let mut grid = Grid {
                scale: 1.0,
                zero: 0.0,
            };
            for j in 0..k {
                if j % scheme.length(k) == 0 {
                    let end = (j + scheme.length(k)).min(k);
                    let part: Vec<f32> = w[j..end].iter().map(|&x| x as f32).collect();
                    grid = range::whole(&part, scheme);
                }
                let number = f64::from(grid.number(grid.code(w[j] as f32, scheme.most())));
                let error = (w[j] - number) / upper[j * k + j];
                (j..k).for_each(|c| w[c] -= error * upper[j * k + c]);
                out.push(number);
            }
        }
        out
    }

    fn inverse(h: &[f64], k: usize) -> Vec<f64> {
        let mut a = h.to_vec();
        let mut b: Vec<f64> = (0..k * k)
            .map(|at| f64::from(u8::from(at / k == at % k)))
            .collect();
        for p in 0..k {
            let pivot = a[p * k + p];
            for c in 0..k {
                a[p * k + c] /= pivot;
                b[p * k + c] /= pivot;
            }
            for r in (0..k).filter(|&r| r != p) {
                let factor = a[r * k + p];
                for c in 0..k {
                    a[r * k + c] -= factor * a[p * k + c];
                    b[r * k + c] -= factor * b[p * k + c];
                }
            }
        }
        b
    }

    /// U with `UᵀU = a`.
    fn upper_factor(a: &[f64], k: usize) -> Vec<f64> {
        let mut u = vec![0.0; k * k];
        for i in 0..k {
            for j in i..k {
                let done: f64 = (0..i).map(|p| u[p * k + i] * u[p * k + j]).sum();
                let rest = a[i * k + j] - done;
                u[i * k + j] = if i == j {
                    rest.sqrt()
                } else {
                    rest / u[i * k + i]
                };
            }
        }
        u
    }

    fn energy(delta: &[f64], hessian: &[f32]) -> f64 {
        let k = hessian.len().isqrt();
        let row = |d: &[f64]| -> f64 {
            let inner = |i: usize| {
                (0..k)
                    .map(|j| f64::from(hessian[i * k + j]) * d[j])
                    .sum::<f64>()
            };
            (0..k).map(|i| d[i] * inner(i)).sum()
        };
        delta.chunks_exact(k).map(row).sum()
    }

    fn lost(weight: &Matrix, rounded: &[f64], hessian: &[f32]) -> f64 {
        let delta: Vec<f64> = weight
            .data
            .iter()
            .zip(rounded)
            .map(|(&w, r)| f64::from(w) - r)
            .collect();
        energy(&delta, hessian)
    }

    fn wide(numbers: &[f32]) -> Vec<f64> {
        numbers.iter().map(|&x| f64::from(x)).collect()
    }

    #[test]
    fn it_loses_what_the_textbook_loses() {
        for (k, group) in [
            (16, 16),
            (48, 32),
            (130, 0),
            (160, 16),
            (300, 128),
            (300, 256),
        ] {
            let (weight, h) = (
                Matrix {
                    n: 9,
                    k,
                    data: numbers(9 * k, 3),
                },
                correlated(k),
            );
            let settings = settings(4, group, false);
            let ours = round(&job(&weight, &h, &settings)).unwrap().numbers();
            let theirs = textbook(&weight, &h, settings.scheme, settings.damping);
            let (a, b) = (lost(&weight, &wide(&ours), &h), lost(&weight, &theirs, &h));
            assert!((a / b - 1.0).abs() < 1e-5, "{k} {group}: {a} {b}");
        }
    }

    #[test]
    fn inputs_that_depend_on_each_other_lose_less_than_by_rounding() {
        let (weight, h) = (
            Matrix {
                n: 16,
                k: 256,
                data: numbers(16 * 256, 5),
            },
            correlated(256),
        );
        for (bits, act_order) in [(3, false), (4, false), (4, true), (2, true)] {
            let settings = settings(bits, 64, act_order);
            let job = job(&weight, &h, &settings);
            let gptq = lost(&weight, &wide(&round(&job).unwrap().numbers()), &h);
            let nearest = super::super::rtn::round(&job).unwrap().numbers();
            assert!(
                gptq < 0.75 * lost(&weight, &wide(&nearest), &h),
                "{bits} {act_order}"
            );
        }
    }

    #[test]
    fn independent_inputs_are_rounded_to_nearest() {
        let weight = Matrix {
            n: 3,
            k: 70,
            data: numbers(210, 9),
        };
        let mut h = vec![0.0; 70 * 70];
        (0..70).for_each(|i| h[i * 71] = 1.0 + i as f32);
        for act_order in [false, true] {
            let settings = settings(4, 32, act_order);
            let job = job(&weight, &h, &settings);
            assert_eq!(
                round(&job).unwrap(),
                super::super::rtn::round(&job).unwrap()
            );
        }
    }

    #[test]
    fn threads_change_nothing() {
        let (weight, h) = (
            Matrix {
                n: 33,
                k: 200,
                data: numbers(33 * 200, 5),
            },
            correlated(200),
        );
        let settings = settings(4, 32, true);
        let on = |threads| {
            let mut job = job(&weight, &h, &settings);
            job.ctx = Ctx::new(Isa::detect(), Threads::new(threads));
            round(&job).unwrap()
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn without_data_it_says_so() {
        let weight = Matrix {
            n: 1,
            k: 16,
            data: numbers(16, 1),
        };
        let settings = settings(4, 16, false);
        let job = Job {
            hessian: None,
            ..job(&weight, &[], &settings)
        };
        assert!(round(&job).unwrap_err().to_string().contains("calibration"));
    }
}

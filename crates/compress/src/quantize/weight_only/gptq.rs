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

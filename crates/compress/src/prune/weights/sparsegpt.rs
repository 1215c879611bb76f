//! SparseGPT: columns are pruned one after another, and those that follow make the error good.
//!
//! E. Frantar and D. Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in
//! One-Shot" (2023), algorithm 1, in the form of [`Factor`], which GPTQ shares: the number of column
//! `i` with all earlier errors made good is `wᵢ + Σ_{j<i} carry[i][j] (wⱼ − ŵⱼ)`, and a squared error
//! of one there costs `cost[i]`. Of each block of 128 columns the share that is due by then goes, over
//! all rows; of N:M each group is chosen when its first column is reached. Where weights are rounded
//! too, what stays is rounded before its error is made good (section 3.4).
//!
//! An input that was always 0 costs nothing but what the diagonal is damped by: its weights go first.

use edgesmith_ir::{Error, Result};
use edgesmith_kernels::gemm::{Epilogue, Order, matmul};

use super::criteria::{Job, Solved};
use super::pattern::{Pattern, groups};
use super::select::{Lengths, kept_count, part};
use crate::quantize::weight_only::blocks::{Blocks, Grid, Row, Scheme};
use crate::quantize::weight_only::factor::Factor;
use crate::quantize::weight_only::matrix::turned;
use crate::quantize::weight_only::range;

/// Columns between two updates of all that follow.
const BLOCK: usize = 128;

/// Prunes a weight.
///
/// # Errors
/// When nobody saw what the weight multiplies, or that is not finite.
pub fn solve(job: &Job) -> Result<Solved> {
    let seen = job.seen()?;
    let of = job.lengths;
    let units = units(job.settings.pattern, of);
    let order: Vec<usize> = units.concat();
    let rows = of.rows / seen.groups;
    let mut out = Solved {
        kept: Vec::with_capacity(job.weight.data.len()),
        numbers: Vec::with_capacity(job.weight.data.len()),
        blocks: None,
    };
    let mut all = Vec::new();
    for group in 0..seen.groups {
        let damping = job.settings.damping;
        let factor = Factor::of(seen.products(group), &order, damping, job.ctx.threads());
        let factor = factor.ok_or_else(|| Error::invalid("XᵀX is not finite"))?;
        let weights = &job.weight.data[group * rows * of.columns..][..rows * of.columns];
        let mut sweep = Sweep::new(job, weights, &order, &factor);
        let mut first = 0;
        for block in blocks(&units) {
            let lengths: Vec<usize> = block.iter().map(Vec::len).collect();
            let width = lengths.iter().sum();
            sweep.block(first, width, &lengths);
            first += width;
        }
        let (kept, numbers, rounded) = sweep.finish(&order);
        out.kept.extend(kept);
        out.numbers.extend(numbers);
        all.extend(rounded);
    }
    out.blocks = job
        .scheme
        .map(|s| Blocks::of_rows(of.rows, of.columns, s, all));
    Ok(out)
}

/// The columns that are chosen together, in the order of the sweep.
fn units(pattern: Pattern, of: Lengths) -> Vec<Vec<usize>> {
    match pattern {
        Pattern::Of { m, .. } => groups(of.columns, of.taps, m),
        Pattern::Blocks { columns, .. } => {
            let all: Vec<usize> = (0..of.columns).collect();
            all.chunks(columns).map(<[usize]>::to_vec).collect()
        }
        Pattern::Unstructured => (0..of.columns).map(|c| vec![c]).collect(),
    }
}

/// Units of about [`BLOCK`] columns together.
fn blocks(units: &[Vec<usize>]) -> Vec<&[Vec<usize>]> {
    let (mut blocks, mut start, mut width) = (Vec::new(), 0, 0);
    for (i, unit) in units.iter().enumerate() {
        if width + unit.len() > BLOCK && width > 0 {
            blocks.push(&units[start..i]);
            (start, width) = (i, 0);
        }
        width += unit.len();
    }
    blocks.push(&units[start..]);
    blocks
}

/// A group of rows on its way.
struct Sweep<'a> {
    job: &'a Job<'a>,
    factor: &'a Factor,
    /// Rows and columns.
    n: usize,
    k: usize,
    /// The numbers, columns in the order of the sweep.
    numbers: Vec<f32>,
    /// What they became.
    became: Vec<f32>,
    /// `numbers` less that.
    errors: Vec<f32>,
    kept: Vec<bool>,
    /// Grids and codes of each row, where it is rounded.
    rounded: Vec<Row>,
    /// What errors of columns before add to those of the block.
    carried: Vec<f32>,
}

/// A row of a block.
#[derive(Default)]
struct Line {
    kept: Vec<bool>,
    became: Vec<f32>,
    errors: Vec<f32>,
    codes: Vec<u8>,
}

impl<'a> Sweep<'a> {
    fn new(job: &'a Job<'a>, weights: &[f32], order: &[usize], factor: &'a Factor) -> Self {
        let k = order.len();
        let n = weights.len() / k;
        let in_order = |row: &[f32]| order.iter().map(|&c| row[c]).collect::<Vec<f32>>();
        let rounded = job.scheme.map(|scheme| {
            let grids = |row: &[f32]| Row {
                codes: Vec::new(),
                grids: row
                    .chunks(scheme.length(k))
                    .map(|block| range::whole(block, scheme))
                    .collect(),
            };
            weights.chunks_exact(k).map(grids).collect()
        });
        Self {
            job,
            factor,
            n,
            k,
            numbers: weights.chunks_exact(k).flat_map(in_order).collect(),
            became: vec![0.0; weights.len()],
            errors: vec![0.0; weights.len()],
            kept: vec![true; weights.len()],
            rounded: rounded.unwrap_or_default(),
            carried: Vec::new(),
        }
    }

    /// Prunes the columns from `first` on.
    fn block(&mut self, first: usize, width: usize, units: &[usize]) {
        self.carry(first, width);
        let within = self.within(first, width);
        let pattern = self.job.settings.pattern;
        let chosen = match pattern {
            Pattern::Of { .. } => None,
            _ => Some(self.chosen(first, width, &within)),
        };
        let mut lines: Vec<Line> = (0..self.n).map(|_| Line::default()).collect();
        let this = &*self;
        let threads = this.job.ctx.threads();
        threads.parallel_chunks(&mut lines, 8, |chunk, lines| {
            for (i, line) in lines.iter_mut().enumerate() {
                let row = chunk * 8 + i;
                let chosen = chosen.as_ref().map(|c| &c[row * width..][..width]);
                *line = this.line(row, first, &within, units, chosen);
            }
        });
        for (row, line) in lines.into_iter().enumerate() {
            let at = row * self.k + first;
            self.became[at..at + width].copy_from_slice(&line.became);
            self.errors[at..at + width].copy_from_slice(&line.errors);
            self.kept[at..at + width].copy_from_slice(&line.kept);
            if let Some(row) = self.rounded.get_mut(row) {
                row.codes.extend(line.codes);
            }
        }
    }

    /// What the errors of all columns before add to those of the block, for each row.
    fn carry(&mut self, first: usize, width: usize) {
        let (n, k) = (self.n, self.k);
        self.carried = vec![0.0; n * width];
        if first == 0 {
            return;
        }
        let before = self.errors.chunks_exact(k).flat_map(|row| &row[..first]);
        let left: Vec<f32> = before.copied().collect();
        let rows = (first..first + width).flat_map(|i| &self.factor.carry[i * k..][..first]);
        let right: Vec<f32> = rows.copied().collect();
        let (to, plain) = (&mut self.carried, Epilogue::default());
        matmul(
            &self.job.ctx,
            [n, first, width],
            &left,
            &right,
            Order::NK,
            to,
            &plain,
        );
    }

    /// `[width, width]`: in row `j`, what the error of `j` adds to each column of the block.
    fn within(&self, first: usize, width: usize) -> Vec<f32> {
        let carry = &self.factor.carry;
        let rows = (first..first + width).flat_map(|i| &carry[i * self.k + first..][..width]);
        turned(&rows.copied().collect::<Vec<f32>>(), width, width)
    }

    /// What stays of the block, over all rows.
    fn chosen(&self, first: usize, width: usize, within: &[f32]) -> Vec<bool> {
        let mut scores = Vec::with_capacity(self.n * width);
        for row in 0..self.n {
            let carried = &self.carried[row * width..][..width];
            scores.extend(self.scores(row, first, carried, within, 0..width));
        }
        let lengths = Lengths {
            rows: self.n,
            columns: width,
            taps: 1,
        };
        let amount = self.job.amount;
        let due = part(amount, self.n * (first + width)) - part(amount, self.n * first);
        kept_count(&scores, lengths, self.job.settings.pattern, due)
    }

    /// What each of these columns of the block costs if it goes, with all earlier errors made good.
    fn scores(
        &self,
        row: usize,
        first: usize,
        carried: &[f32],
        within: &[f32],
        columns: std::ops::Range<usize>,
    ) -> Vec<f64> {
        let width = carried.len();
        let mut own = carried[columns.clone()].to_vec();
        for i in 0..own.len() {
            let adds = &within[(columns.start + i) * width + columns.start..][..own.len()];
            let error = -own[i];
            for (sum, add) in own[i + 1..].iter_mut().zip(&adds[i + 1..]) {
                *sum += error * add;
            }
        }
        let numbers = &self.numbers[row * self.k + first + columns.start..];
        let cost = &self.factor.cost[first + columns.start..];
        let score =
            |((c, w), cost): ((&f32, &f32), &f32)| f64::from(w + c).powi(2) * f64::from(*cost);
        own.iter().zip(numbers).zip(cost).map(score).collect()
    }

    fn line(
        &self,
        row: usize,
        first: usize,
        within: &[f32],
        units: &[usize],
        chosen: Option<&[bool]>,
    ) -> Line {
        let width: usize = units.iter().sum();
        let mut carried = self.carried[row * width..][..width].to_vec();
        let mut line = Line::default();
        let mut c = 0;
        for &length in units {
            match (chosen, self.job.settings.pattern) {
                (Some(chosen), _) => line.kept.extend(&chosen[c..c + length]),
                (None, Pattern::Of { n, .. }) => {
                    let scores = self.scores(row, first, &carried, within, c..c + length);
                    line.kept.extend(greatest(&scores, n));
                }
                (None, _) => line.kept.extend(vec![true; length]),
            }
            for c in c..c + length {
                let number = self.numbers[row * self.k + first + c];
                let became = match line.kept[c] {
                    true => number + carried[c],
                    false => 0.0,
                };
                let became = self.round(row, first + c, became, &mut line.codes);
                let error = number - became;
                line.became.push(became);
                line.errors.push(error);
                let adds = &within[c * width..][..width];
                for (sum, add) in carried[c + 1..].iter_mut().zip(&adds[c + 1..]) {
                    *sum += error * add;
                }
            }
            c += length;
        }
        line
    }

    /// A number as it is written; 0 stays 0.
    fn round(&self, row: usize, column: usize, number: f32, codes: &mut Vec<u8>) -> f32 {
        let (Some(scheme), Some(row)) = (self.job.scheme, self.rounded.get(row)) else {
            return number;
        };
        let grid: Grid = row.grids[column / Scheme::length(scheme, self.k)];
        let code = grid.code(number, scheme.most());
        codes.push(code);
        grid.number(code)
    }

    /// What stays, the numbers, and the codes, with columns as they lie.
    fn finish(self, order: &[usize]) -> (Vec<bool>, Vec<f32>, Vec<Row>) {
        let (mut kept, mut numbers) = (vec![true; self.kept.len()], vec![0.0; self.kept.len()]);
        for row in 0..self.n {
            for (i, &c) in order.iter().enumerate() {
                let at = row * self.k + i;
                let to = row * self.k + c;
                kept[to] = self.kept[at];
                numbers[to] = if self.kept[at] { self.became[at] } else { 0.0 };
            }
        }
        (kept, numbers, self.rounded)
    }
}

/// True for the `n` greatest; of equal ones the first go.
fn greatest(scores: &[f64], n: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(a.cmp(&b)));
    let mut kept = vec![true; scores.len()];
    let gone = scores.len().saturating_sub(n);
    order[..gone].iter().for_each(|&i| kept[i] = false);
    kept
}

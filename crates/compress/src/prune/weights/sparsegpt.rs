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

/// Where a row of a block lies.
struct Block<'b> {
    row: usize,
    first: usize,
    within: &'b [f32],
    /// What stays, where that is known before.
    chosen: Option<&'b [bool]>,
}

/// A row of a block on its way.
#[derive(Clone, Default)]
struct Line {
    /// What errors add to each column.
    carried: Vec<f32>,
    grids: Vec<Grid>,
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
        let rounded = job.scheme.map(|_| vec![Row::default(); n]);
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
                row.grids.extend(line.grids);
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
            self.job.ctx,
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
        let block = Block {
            row,
            first,
            within,
            chosen,
        };
        let mut line = Line {
            carried: self.carried[row * width..][..width].to_vec(),
            ..Line::default()
        };
        for (at, &unit) in units.iter().enumerate() {
            if let Some(scheme) = self.job.scheme {
                self.choose_grids(&block, &units[at..], scheme, &mut line);
            }
            self.unit(&block, unit, true, &mut line);
        }
        line
    }

    /// Chooses the grids of the groups that begin in the next unit: from what their columns of this
    /// block become if they are not rounded, and from those of later blocks as they are.
    fn choose_grids(&self, block: &Block, units: &[usize], scheme: Scheme, line: &mut Line) {
        let length = scheme.length(self.k);
        let start = block.first + line.kept.len();
        let Some(&unit) = units.first() else { return };
        let begins = (start..start + unit).filter(|c| c.is_multiple_of(length));
        for begin in begins {
            let end = (begin + length).min(self.k);
            let mut dry = line.clone();
            for &unit in units {
                if block.first + dry.kept.len() < end {
                    self.unit(block, unit, false, &mut dry);
                }
            }
            let here = &dry.became[begin - block.first..];
            let mut numbers = here[..here.len().min(end - begin)].to_vec();
            let rest = begin + numbers.len()..end;
            numbers.extend(&self.numbers[block.row * self.k..][rest]);
            line.grids.push(range::whole(&numbers, scheme));
        }
    }

    /// Prunes the next columns of a row, which are chosen together.
    fn unit(&self, block: &Block, length: usize, rounds: bool, line: &mut Line) {
        let (from, width) = (line.kept.len(), line.carried.len());
        match (block.chosen, self.job.settings.pattern) {
            (Some(chosen), _) => line.kept.extend(&chosen[from..from + length]),
            (None, Pattern::Of { n, .. }) => {
                let columns = from..from + length;
                let scores =
                    self.scores(block.row, block.first, &line.carried, block.within, columns);
                line.kept.extend(greatest(&scores, n));
            }
            (None, _) => line.kept.extend(vec![true; length]),
        }
        for c in from..from + length {
            let number = self.numbers[block.row * self.k + block.first + c];
            let mut became = match line.kept[c] {
                true => number + line.carried[c],
                false => 0.0,
            };
            if let Some(scheme) = self.job.scheme.filter(|_| rounds) {
                let group = (block.first + c) / scheme.length(self.k);
                let before = &self.rounded[block.row].grids;
                let grid: Grid = match before.get(group) {
                    Some(grid) => *grid,
                    None => line.grids[group - before.len()],
                };
                let code = grid.code(became, scheme.most());
                line.codes.push(code);
                became = grid.number(code);
            }
            let error = number - became;
            line.became.push(became);
            line.errors.push(error);
            let adds = &block.within[c * width..][..width];
            for (sum, add) in line.carried[c + 1..].iter_mut().zip(&adds[c + 1..]) {
                *sum += error * add;
            }
        }
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

#[cfg(test)]
mod tests {
    use edgesmith_kernels::{Isa, Threads};

    use super::super::criteria::{Criterion, MAGNITUDE, SPARSEGPT, WANDA};
    use super::super::{Settings, errors, select};
    use super::*;
    use crate::calibrate::Sums;
    use crate::quantize::testing::numbers;
    use crate::quantize::weight_only::matrix::Matrix;
    use edgesmith_kernels::Ctx;

    /// Sums of rows whose numbers depend on their neighbours.
    fn correlated(k: usize, groups: usize) -> Sums {
        let count = 3 * k;
        let mut turned = Vec::new();
        for g in 0..groups {
            let mut x = numbers(count * k, 7 + g as u32);
            for row in x.chunks_exact_mut(k) {
                for i in 1..k {
                    row[i] = 0.8 * row[i - 1] + 0.6 * row[i];
                }
                // Inputs of different sizes.
                row.iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x *= 1.0 + (i % 5) as f32);
            }
            let column = |c: usize| x.chunks_exact(k).map(move |r| r[c]).collect::<Vec<_>>();
            turned.extend((0..k).flat_map(column));
        }
        Sums::testing(groups, k, &turned)
    }

    struct Case {
        weight: Matrix,
        lengths: Lengths,
        seen: Sums,
    }

    impl Case {
        fn new(rows: usize, columns: usize, taps: usize, groups: usize) -> Self {
            Self {
                weight: Matrix {
                    n: rows,
                    k: columns,
                    data: numbers(rows * columns, 3),
                },
                lengths: Lengths {
                    rows,
                    columns,
                    taps,
                },
                seen: correlated(columns, groups),
            }
        }

        fn solved(
            &self,
            criterion: &'static Criterion,
            (pattern, amount): (&str, f64),
            scheme: Option<Scheme>,
        ) -> (Solved, f64) {
            let settings = Settings::new(criterion, pattern.parse().unwrap(), amount);
            let job = Job {
                weight: &self.weight,
                lengths: self.lengths,
                number: 0,
                amount: settings.amount,
                seen: Some(&self.seen),
                scheme,
                settings: &settings,
                ctx: &Ctx::new(Isa::detect(), Threads::new(2)),
            };
            let solved = criterion.solve(&job).unwrap();
            let error = errors::of(&job, &solved).own.unwrap();
            (solved, error)
        }
    }

    const PATTERNS: &[(&str, f64)] = &[
        ("unstructured", 0.5),
        ("unstructured", 0.8),
        ("2:4", 0.5),
        ("1:4", 0.75),
        ("4x1", 0.5),
        ("2x2", 0.5),
    ];

    #[test]
    fn it_costs_less_than_wanda_and_that_less_than_magnitude() {
        for (rows, columns, taps, groups) in [(24, 200, 1, 1), (16, 72, 9, 1), (16, 36, 9, 2)] {
            let case = Case::new(rows, columns, taps, groups);
            for &pattern in PATTERNS {
                let error = |c| case.solved(c, pattern, None).1;
                let [own, wanda, plain] = [&SPARSEGPT, &WANDA, &MAGNITUDE].map(error);
                assert!(
                    own < wanda && wanda < plain,
                    "{pattern:?} {own} {wanda} {plain}"
                );
            }
        }
    }

    #[test]
    fn the_count_is_exact_and_the_pattern_is_kept() {
        for (rows, columns, taps, groups) in [(7, 130, 1, 1), (5, 300, 1, 1), (6, 54, 9, 3)] {
            let case = Case::new(rows, columns, taps, groups);
            for amount in [0.1, 0.333, 0.5, 0.9] {
                let (solved, _) = case.solved(&SPARSEGPT, ("unstructured", amount), None);
                let gone = solved.kept.iter().filter(|k| !**k).count();
                let of_group = part(amount, rows * columns / groups);
                assert_eq!(gone, of_group * groups);
            }
            let (solved, _) = case.solved(&SPARSEGPT, ("2:4", 0.5), None);
            let pattern = "2:4".parse().unwrap();
            assert_eq!(select::broken(&solved.numbers, case.lengths, pattern), None);
        }
    }

    #[test]
    fn inputs_that_do_not_depend_on_each_other_leave_magnitude() {
        let (rows, k) = (9, 40);
        let mut case = Case::new(rows, k, 1, 1);
        let identity: Vec<f32> = (0..k * k)
            .map(|i| f32::from(u8::from(i % (k + 1) == 0)))
            .collect();
        case.seen = Sums::testing(1, k, &identity);
        for &pattern in PATTERNS {
            // One block of columns: the same numbers compete.
            let (own, plain) = (
                case.solved(&SPARSEGPT, pattern, None).0,
                case.solved(&MAGNITUDE, pattern, None).0,
            );
            assert_eq!(own.kept, plain.kept, "{pattern:?}");
            for (a, b) in own.numbers.iter().zip(&plain.numbers) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }

    #[test]
    fn what_stays_is_rounded_and_zero_stays_zero() {
        let case = Case::new(12, 160, 1, 1);
        for bits in [4, 8] {
            for (group, symmetric) in [(32, true), (0, true), (64, false)] {
                let scheme = Scheme {
                    bits,
                    group,
                    symmetric,
                };
                for pattern in ["unstructured", "2:4"] {
                    let (solved, error) = case.solved(&SPARSEGPT, (pattern, 0.5), Some(scheme));
                    let blocks = solved.blocks.unwrap();
                    let written = blocks.numbers();
                    for ((w, x), k) in written.iter().zip(&solved.numbers).zip(&solved.kept) {
                        assert!(w == x && (*k || *w == 0.0));
                    }
                    let (plain, pruned) = case.solved(&SPARSEGPT, (pattern, 0.5), None);
                    // Rounding afterwards, which nothing makes good.
                    let mut later = plain;
                    let grids = later.numbers.chunks_mut(scheme.length(160));
                    for row in grids {
                        let grid = range::whole(row, scheme);
                        for x in row {
                            *x = grid.number(grid.code(*x, scheme.most()));
                        }
                    }
                    assert!(error >= pruned * 0.99, "{error} {pruned}");
                    if bits == 4 && group == 32 {
                        let then = case.error(&later.numbers);
                        assert!(error < then, "{error} {then}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_input_that_was_never_there_loses_its_weights_first() {
        let (rows, k) = (4, 16);
        let mut case = Case::new(rows, k, 1, 1);
        let mut turned = numbers(k * 50, 1);
        turned[3 * 50..4 * 50].fill(0.0);
        case.seen = Sums::testing(1, k, &turned);
        let (solved, _) = case.solved(&SPARSEGPT, ("unstructured", 0.25), None);
        assert!((0..rows).all(|r| !solved.kept[r * k + 3]));
        assert!(solved.numbers.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn without_inputs_it_is_refused() {
        let mut case = Case::new(4, 16, 1, 1);
        case.seen = Sums::testing(1, 16, &[]);
        let settings = Settings::new(&SPARSEGPT, Pattern::Unstructured, 0.5);
        let job = Job {
            weight: &case.weight,
            lengths: case.lengths,
            number: 0,
            amount: 0.5,
            seen: Some(&case.seen),
            scheme: None,
            settings: &settings,
            ctx: &Ctx::serial(),
        };
        assert!(
            solve(&job)
                .unwrap_err()
                .to_string()
                .contains("calibration saw nothing")
        );
    }

    impl Case {
        fn error(&self, numbers: &[f32]) -> f64 {
            let settings = Settings::new(&MAGNITUDE, Pattern::Unstructured, 0.5);
            let job = Job {
                weight: &self.weight,
                lengths: self.lengths,
                number: 0,
                amount: 0.5,
                seen: Some(&self.seen),
                scheme: None,
                settings: &settings,
                ctx: &Ctx::serial(),
            };
            let solved = Solved {
                kept: Vec::new(),
                numbers: numbers.to_vec(),
                blocks: None,
            };
            errors::of(&job, &solved).own.unwrap()
        }
    }
}

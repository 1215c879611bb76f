//! What one look at many numbers tells: their ends, sums and squares by column, and in which bins
//! they lie.
//!
//! Sums are in f64, of eight numbers at a time that were added in f32, and in an order that depends on the lengths alone, so every instruction set gives
//! the same bits.

use std::ops::Range;

use crate::Ctx;
use crate::simd::{Body, Simd, dispatch};

/// Facts of the columns of a matrix, `[columns]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    /// The smallest number; ∞ in an empty column.
    pub min: Vec<f32>,
    /// The largest number; −∞ in an empty column.
    pub max: Vec<f32>,
    /// Σx.
    pub sums: Vec<f64>,
    /// Σx².
    pub squares: Vec<f64>,
    /// Zeros in all columns.
    pub zeros: u64,
}

/// Numbers that are looked at together.
const LANES: usize = 16;

/// Rows whose sums are in f32 before they join those in f64.
const NARROW: usize = 8;

/// Columns are repeated until they are so many, so that sums do not wait for each other.
const WIDE: usize = 64;

impl Columns {
    /// Facts of no numbers.
    pub fn new(columns: usize) -> Self {
        Self {
            min: vec![f32::INFINITY; columns],
            max: vec![f32::NEG_INFINITY; columns],
            sums: vec![0.0; columns],
            squares: vec![0.0; columns],
            zeros: 0,
        }
    }

    /// Facts of rows of `columns` numbers each, sums within 1e-6 of those of the magnitudes. Where one is
    /// not finite, a sum of squares is not; the ends are then any. Squares of numbers beyond 1e18 may be
    /// infinite too, and those of numbers below 1e-16 inexact. At most 2³² rows.
    ///
    /// # Panics
    /// When the last row is not whole, or there are no columns.
    pub fn of(ctx: &Ctx, data: &[f32], columns: usize) -> Self {
        assert!(columns > 0 && data.len().is_multiple_of(columns));
        let width = wide(columns);
        if data.len() < 2 * width {
            let mut facts = Self::new(columns);
            facts.add(data, |_| true);
            return facts;
        }
        let mut facts = Self::new(width);
        let (whole, rest) = data.split_at(data.len() / width * width);
        dispatch(
            ctx.isa(),
            Rows {
                facts: &mut facts,
                data: whole,
            },
        );
        facts.add(rest, |_| true);
        if width == columns {
            return facts;
        }
        facts.folded(columns)
    }

    /// As [`Columns::of`], where what is not finite counts nowhere.
    pub fn of_finite(data: &[f32], columns: usize) -> Self {
        let mut facts = Self::new(columns);
        facts.add(data, f32::is_finite);
        facts
    }

    /// Adds those numbers one by one, the first to the first column.
    fn add(&mut self, data: &[f32], wanted: fn(f32) -> bool) {
        for row in data.chunks(self.min.len()) {
            for (i, &x) in row.iter().enumerate().filter(|(_, x)| wanted(**x)) {
                let wide = f64::from(x);
                self.min[i] = if x < self.min[i] { x } else { self.min[i] };
                self.max[i] = if x > self.max[i] { x } else { self.max[i] };
                self.sums[i] += wide;
                self.squares[i] += wide * wide;
                self.zeros += u64::from(x == 0.0);
            }
        }
    }

    /// Adds the facts of other rows, whose first column is the column `first` here.
    pub fn merge(&mut self, other: &Self, first: usize) {
        for (i, at) in (first..).take(other.min.len()).enumerate() {
            self.min[at] = self.min[at].min(other.min[i]);
            self.max[at] = self.max[at].max(other.max[i]);
            self.sums[at] += other.sums[i];
            self.squares[at] += other.squares[i];
        }
        self.zeros += other.zeros;
    }

    /// The facts of `columns` columns, of which these are repetitions.
    fn folded(&self, columns: usize) -> Self {
        let mut facts = Self::new(columns);
        facts.zeros = self.zeros;
        for (i, at) in (0..self.min.len()).zip((0..columns).cycle()) {
            facts.min[at] = facts.min[at].min(self.min[i]);
            facts.max[at] = facts.max[at].max(self.max[i]);
            facts.sums[at] += self.sums[i];
            facts.squares[at] += self.squares[i];
        }
        facts
    }

    /// Facts of all columns as one.
    pub fn whole(&self) -> Self {
        self.folded(1)
    }
}

/// The least multiple of `columns` and [`LANES`] that is at least [`WIDE`].
fn wide(columns: usize) -> usize {
    let mut common = LANES;
    while !columns.is_multiple_of(common) {
        common /= 2;
    }
    let least = columns * (LANES / common);
    least * WIDE.div_ceil(least)
}

/// Rows as wide as `facts`, which is a multiple of [`LANES`].
struct Rows<'a> {
    facts: &'a mut Columns,
    data: &'a [f32],
}

impl Body for Rows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let facts = self.facts;
        let width = facts.min.len();
        let (min, _) = facts.min.as_chunks_mut::<LANES>();
        let (max, _) = facts.max.as_chunks_mut::<LANES>();
        let (sums, _) = facts.sums.as_chunks_mut::<LANES>();
        let (squares, _) = facts.squares.as_chunks_mut::<LANES>();
        for i in 0..min.len() {
            let ends = (&mut min[i], &mut max[i]);
            let sums = (&mut sums[i], &mut squares[i]);
            facts.zeros += add(&self.data[i * LANES..], width, ends, sums);
        }
    }
}

/// Adds the first numbers of each row; how many are zero. What is summed up stays in registers.
#[inline(always)]
fn add(
    data: &[f32],
    width: usize,
    (least, most): (&mut [f32; LANES], &mut [f32; LANES]),
    (sums, squares): (&mut [f64; LANES], &mut [f64; LANES]),
) -> u64 {
    let (mut min, mut max, mut sum, mut square) = (*least, *most, *sums, *squares);
    let mut zeros = [0u32; LANES];
    for rows in data.chunks(NARROW * width) {
        let (mut few, mut few_squares) = ([0.0f32; LANES], [0.0f32; LANES]);
        for row in rows.chunks(width) {
            let Some(x) = row.first_chunk::<LANES>() else {
                break;
            };
            for l in 0..LANES {
                min[l] = if x[l] < min[l] { x[l] } else { min[l] };
            }
            for l in 0..LANES {
                max[l] = if x[l] > max[l] { x[l] } else { max[l] };
            }
            for l in 0..LANES {
                few[l] += x[l];
            }
            for l in 0..LANES {
                few_squares[l] += x[l] * x[l];
            }
            for l in 0..LANES {
                zeros[l] += u32::from(x[l] == 0.0);
            }
        }
        for l in 0..LANES {
            sum[l] += f64::from(few[l]);
        }
        for l in 0..LANES {
            square[l] += f64::from(few_squares[l]);
        }
    }
    (*least, *most, *sums, *squares) = (min, max, sum, square);
    zeros.iter().map(|&n| u64::from(n)).sum()
}

/// Tables of [`Bins`] that count in turn, so that equal numbers do not wait for each other.
const TABLES: usize = 4;

/// Numbers whose bins are found at once.
const PART: usize = 512;

/// 1.5·2²³: added to a small number it leaves the nearest integer in the lowest bits.
const SHIFT: f32 = 12_582_912.0;

/// Counts of numbers in `2·half` bins of equal width that touch zero: bin `i` holds
/// `(i − half)·width ≤ x < (i − half + 1)·width`.
#[derive(Clone, Debug)]
pub struct Bins {
    half: usize,
    tables: Vec<u32>,
}

impl Bins {
    /// Nothing counted; `half` is a power of two, at most 2²⁰.
    ///
    /// # Panics
    /// When it is not.
    pub fn new(half: usize) -> Self {
        assert!(half.is_power_of_two() && half <= 1 << 20);
        Self {
            half,
            tables: vec![0; TABLES * 2 * half],
        }
    }

    /// Counts numbers that all lie within the bins, `inverse` one over their width, a power of two.
    /// At most 2³² in all.
    pub fn add(&mut self, ctx: &Ctx, data: &[f32], inverse: f32) {
        dispatch(
            ctx.isa(),
            Counted {
                bins: self,
                data,
                inverse,
            },
        );
    }

    /// Adds the counts of all tables to the first. All numbers that were counted lie from `min` to `max`.
    pub fn join(&mut self, ctx: &Ctx, ends: (f32, f32), inverse: f32) {
        let range = self.range(ends, inverse);
        dispatch(ctx.isa(), Joined { bins: self, range });
    }

    /// Adds the counts of the first table to `into`, and empties it; [`Bins::join`] comes before.
    pub fn take(&mut self, ends: (f32, f32), inverse: f32, into: &mut [u64]) {
        let range = self.range(ends, inverse);
        let table = &mut self.tables[range.clone()];
        for (n, count) in into[range].iter_mut().zip(table) {
            *n += u64::from(std::mem::take(count));
        }
    }

    /// The bins of numbers between the ends.
    fn range(&self, (min, max): (f32, f32), inverse: f32) -> Range<usize> {
        let half = self.half as i32;
        let (first, last) = (bin(min, inverse, half), bin(max, inverse, half));
        let end = (last + 1).clamp(0, 2 * half) as usize;
        (first.max(0) as usize).min(end)..end
    }
}

struct Joined<'a> {
    bins: &'a mut Bins,
    range: Range<usize>,
}

impl Body for Joined<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (first, rest) = self.bins.tables.split_at_mut(2 * self.bins.half);
        let first = &mut first[self.range.clone()];
        for table in rest.chunks_exact_mut(2 * self.bins.half) {
            for (n, count) in first.iter_mut().zip(&mut table[self.range.clone()]) {
                *n += *count;
                *count = 0;
            }
        }
    }
}

/// As [`Bins::add`] for few numbers: counts them where they belong in the end.
pub fn count_few(data: &[f32], inverse: f32, bins: &mut [u64]) {
    let half = (bins.len() / 2) as i32;
    for &x in data {
        bins[bin(x, inverse, half) as usize] += 1;
    }
}

struct Counted<'a> {
    bins: &'a mut Bins,
    data: &'a [f32],
    inverse: f32,
}

impl Body for Counted<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (half, inverse) = (self.bins.half as i32, self.inverse);
        let length = 2 * self.bins.half;
        let mask = length - 1;
        let (a, rest) = self.bins.tables.split_at_mut(length);
        let (b, rest) = rest.split_at_mut(length);
        let (c, d) = rest.split_at_mut(length);
        let mut indices = [0i32; PART];
        for part in self.data.chunks(PART) {
            for (i, &x) in indices.iter_mut().zip(part) {
                *i = bin(x, inverse, half);
            }
            let (groups, rest) = indices[..part.len()].as_chunks::<TABLES>();
            for group in groups {
                a[group[0] as usize & mask] += 1;
                b[group[1] as usize & mask] += 1;
                c[group[2] as usize & mask] += 1;
                d[group[3] as usize & mask] += 1;
            }
            for &i in rest {
                a[i as usize & mask] += 1;
            }
        }
    }
}

/// The bin of `x`, `⌊x·inverse⌋ + half`. A negative number whose product is too small for an f32 is
/// still negative.
#[inline(always)]
fn bin(x: f32, inverse: f32, half: i32) -> i32 {
    let scaled = x * inverse;
    let shifted = scaled + SHIFT;
    let nearest = shifted - SHIFT;
    let below = (nearest > scaled) | ((nearest == 0.0) & (x < 0.0));
    let integer = (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32);
    integer - i32::from(below) + half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::contexts;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 7919 + 13) % 1009) as f32 * 0.37 - 150.0)
            .collect()
    }

    #[test]
    fn columns_hold_what_each_number_alone_gives() {
        for columns in [1, 2, 3, 16, 24, 33, 64, 100] {
            for rows in [0, 1, 5, 300] {
                let data = numbers(columns * rows);
                for ctx in contexts() {
                    let facts = Columns::of(&ctx, &data, columns);
                    for c in 0..columns {
                        let own = || data.iter().skip(c).step_by(columns).copied();
                        let sum: f64 = own().map(f64::from).sum();
                        let size: f64 = own().map(|x| f64::from(x).abs()).sum();
                        assert!((facts.sums[c] - sum).abs() <= 1e-6 * size);
                        assert_eq!(facts.min[c], own().fold(f32::INFINITY, f32::min));
                        assert_eq!(facts.max[c], own().fold(f32::NEG_INFINITY, f32::max));
                    }
                    let squares: f64 = data.iter().map(|&x| f64::from(x).powi(2)).sum();
                    let own: f64 = facts.squares.iter().sum();
                    assert!((own - squares).abs() <= 1e-6 * squares);
                    assert_eq!(
                        facts,
                        Columns::of(
                            &Ctx::new(Isa::Generic, ctx.threads().clone()),
                            &data,
                            columns
                        )
                    );
                }
            }
        }
    }

    #[test]
    fn zeros_are_counted_and_what_is_not_finite_shows_in_the_squares() {
        let mut data = vec![1.0f32; 1000];
        (data[3], data[500], data[999]) = (0.0, -0.0, 0.0);
        for ctx in contexts() {
            assert_eq!(Columns::of(&ctx, &data, 1).zeros, 3);
            for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 777, 999] {
                    let mut data = data.clone();
                    data[at] = odd;
                    assert!(!Columns::of(&ctx, &data, 1).squares[0].is_finite());
                    let finite = Columns::of_finite(&data, 1);
                    assert_eq!((finite.min[0], finite.max[0]), (0.0, 1.0));
                    assert!(finite.sums[0] > 990.0);
                }
            }
        }
    }

    #[test]
    fn every_number_lies_in_its_bin() {
        let half = 256;
        let mut data: Vec<f32> = (0..20_003)
            .map(|i| ((i * 7919) % 10_007) as f32 * 0.0015 - 7.5)
            .collect();
        data.extend([
            0.0, -0.0, 1e-45, -1e-45, -1e-30, 7.999, -8.0, 0.03125, -0.03125,
        ]);
        let inverse = 32.0;
        let mut wanted = vec![0u64; 2 * half];
        for &x in &data {
            wanted[((f64::from(x) * 32.0).floor() + half as f64) as usize] += 1;
        }
        for ctx in contexts() {
            let mut bins = Bins::new(half);
            for part in data.chunks(777) {
                bins.add(&ctx, part, inverse);
            }
            let mut counts = vec![0; 2 * half];
            bins.join(&ctx, (-8.0, 7.999), inverse);
            bins.take((-8.0, 7.999), inverse, &mut counts);
            assert_eq!(counts, wanted);
            bins.take((-8.0, 7.999), inverse, &mut counts);
            assert_eq!(counts, wanted, "what was taken is gone");
            let mut few = vec![0; 2 * half];
            count_few(&data, inverse, &mut few);
            assert_eq!(few, wanted);
        }
    }
}

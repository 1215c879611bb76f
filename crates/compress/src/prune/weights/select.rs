//! Which numbers become zero: those of the least scores, as many as asked for.
//!
//! Counts are exact. Of equal scores those that come first in the matrix go first, so that no
//! threshold takes fewer or more than it should.

use super::pattern::{Pattern, groups};

/// A weight as a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Outputs.
    pub rows: usize,
    /// Inputs: channels of a group, times places of the window.
    pub columns: usize,
    /// Places of the window, which follow each other; 1 without one.
    pub taps: usize,
}

/// The numbers of a matrix that become zero together, in the order of the matrix.
struct Units {
    /// The mean score of each.
    scores: Vec<f64>,
    /// Numbers of each; those at the border have fewer.
    sizes: Vec<usize>,
    /// Units of one row, or one row of blocks.
    of_row: usize,
}

impl Units {
    fn of(scores: &[f64], of: Lengths, rows: usize, columns: usize) -> Self {
        let of_row = of.columns.div_ceil(columns);
        let count = of.rows.div_ceil(rows) * of_row;
        let (mut sums, mut sizes) = (vec![0.0f64; count], vec![0; count]);
        for (at, score) in scores.iter().enumerate() {
            let (r, c) = (at / of.columns, at % of.columns);
            let unit = r / rows * of_row + c / columns;
            sums[unit] += score;
            sizes[unit] += 1;
        }
        let mean = |(sum, &size): (&f64, &usize)| sum / size as f64;
        let scores = sums.iter().zip(&sizes).map(mean).collect();
        Self {
            scores,
            sizes,
            of_row,
        }
    }
}

/// Outputs and inputs of a unit.
fn sides(pattern: Pattern) -> (usize, usize) {
    match pattern {
        Pattern::Blocks { rows, columns } => (rows, columns),
        _ => (1, 1),
    }
}

/// True for each unit that goes, so that together about `target` numbers go: exactly so many where
/// units are of one number, else the nearest that units allow.
fn least(scores: &[f64], sizes: &[usize], target: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let by_score = |a: &usize, b: &usize| scores[*a].total_cmp(&scores[*b]).then(a.cmp(b));
    let size = sizes.first().copied().unwrap_or(1);
    let mut gone = vec![false; scores.len()];
    if sizes.iter().all(|&s| s == size) {
        let count = ((target + size / 2) / size).min(scores.len());
        if count > 0 && count < scores.len() {
            order.select_nth_unstable_by(count - 1, by_score);
        }
        order[..count].iter().for_each(|&i| gone[i] = true);
        return gone;
    }
    order.sort_unstable_by(by_score);
    let mut sum = 0;
    for i in order {
        if sum + sizes[i] > target && sum + sizes[i] - target > target.saturating_sub(sum) {
            break;
        }
        sum += sizes[i];
        gone[i] = true;
    }
    gone
}

/// `amount` of `count`, to the nearest.
pub fn part(amount: f64, count: usize) -> usize {
    ((amount * count as f64).round() as usize).min(count)
}

/// True for each number that stays. Of each row the same share goes where `by_row`, of the whole
/// matrix in any case; N:M takes its own share of each group.
pub fn kept(scores: &[f64], of: Lengths, pattern: Pattern, amount: f64, by_row: bool) -> Vec<bool> {
    if let Pattern::Of { n, m } = pattern {
        return of_groups(scores, of, n, m);
    }
    if !by_row {
        return kept_count(scores, of, pattern, part(amount, scores.len()));
    }
    let (rows, columns) = sides(pattern);
    let units = Units::of(scores, of, rows, columns);
    let (mut gone, mut before) = (Vec::with_capacity(units.scores.len()), 0);
    let each = units.scores.chunks(units.of_row);
    for (scores, sizes) in each.zip(units.sizes.chunks(units.of_row)) {
        let after = before + sizes.iter().sum::<usize>();
        // Shares of all rows so far are rounded, so that errors do not add up.
        gone.extend(least(
            scores,
            sizes,
            part(amount, after) - part(amount, before),
        ));
        before = after;
    }
    spread(&gone, of, pattern)
}

/// True for each number that stays where about `target` numbers of the whole matrix go.
pub fn kept_count(scores: &[f64], of: Lengths, pattern: Pattern, target: usize) -> Vec<bool> {
    let (rows, columns) = sides(pattern);
    let units = Units::of(scores, of, rows, columns);
    spread(&least(&units.scores, &units.sizes, target), of, pattern)
}

/// As [`kept`], of several matrices together: one threshold over all.
pub fn kept_of_all(all: &[(Vec<f64>, Lengths)], pattern: Pattern, amount: f64) -> Vec<Vec<bool>> {
    let (rows, columns) = sides(pattern);
    let (mut scores, mut sizes, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    let mut numbers = 0;
    for (own, of) in all {
        let units = Units::of(own, *of, rows, columns);
        counts.push(units.scores.len());
        scores.extend(units.scores);
        sizes.extend(units.sizes);
        numbers += own.len();
    }
    let gone = least(&scores, &sizes, part(amount, numbers));
    let mut rest = &gone[..];
    let each = all.iter().zip(counts);
    let one = |((_, of), count): (&(Vec<f64>, Lengths), usize)| {
        let (own, more) = rest.split_at(count);
        rest = more;
        spread(own, *of, pattern)
    };
    each.map(one).collect()
}

/// True for each number of a unit that stays.
fn spread(gone: &[bool], of: Lengths, pattern: Pattern) -> Vec<bool> {
    let (rows, columns) = sides(pattern);
    let of_row = of.columns.div_ceil(columns);
    let stays = |at: usize| {
        let (r, c) = (at / of.columns, at % of.columns);
        !gone[r / rows * of_row + c / columns]
    };
    (0..of.rows * of.columns).map(stays).collect()
}

fn of_groups(scores: &[f64], of: Lengths, n: usize, m: usize) -> Vec<bool> {
    let groups = groups(of.columns, of.taps, m);
    let mut kept = vec![true; scores.len()];
    for row in 0..of.rows {
        for group in &groups {
            let mut places: Vec<usize> = group.iter().map(|c| row * of.columns + c).collect();
            let by_score = |a: &usize, b: &usize| scores[*a].total_cmp(&scores[*b]).then(a.cmp(b));
            places.sort_unstable_by(by_score);
            let gone = places.len().saturating_sub(n);
            places[..gone].iter().for_each(|&at| kept[at] = false);
        }
    }
    kept
}

/// Checks that the zeros of a matrix lie as the pattern says; the first place where they do not.
pub fn broken(numbers: &[f32], of: Lengths, pattern: Pattern) -> Option<[usize; 2]> {
    match pattern {
        Pattern::Unstructured => None,
        Pattern::Of { n, m } => {
            let groups = groups(of.columns, of.taps, m);
            let wrong = |row: &usize| {
                let there = |c: &&usize| numbers[row * of.columns + **c] != 0.0;
                groups.iter().find(|g| g.iter().filter(there).count() > n)
            };
            (0..of.rows).find_map(|row| Some([row, wrong(&row)?[0]]))
        }
        Pattern::Blocks { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::random::Random;

    use super::*;

    fn gone(kept: &[bool]) -> usize {
        kept.iter().filter(|k| !**k).count()
    }

    /// Scores with many equal ones, zeros among them.
    fn scores(count: usize, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed);
        (0..count).map(|_| random.below(7) as f64).collect()
    }

    #[test]
    fn as_many_go_as_asked_for_whatever_is_equal() {
        for (rows, columns) in [(1, 1), (7, 13), (64, 50), (10, 3)] {
            let of = Lengths {
                rows,
                columns,
                taps: 1,
            };
            for amount in [0.0, 0.001, 0.3, 0.5, 0.77, 0.999, 1.0] {
                let n = rows * columns;
                for by_row in [false, true] {
                    let all = scores(n, 3);
                    let kept = kept(&all, of, Pattern::Unstructured, amount, by_row);
                    assert_eq!(gone(&kept), part(amount, n), "{rows} {columns} {amount}");
                    let worst_kept = (0..n).filter(|&i| kept[i]).map(|i| all[i]);
                    let best_gone = (0..n).filter(|&i| !kept[i]).map(|i| all[i]);
                    if let (Some(k), Some(g), false) = (
                        worst_kept.reduce(f64::min),
                        best_gone.reduce(f64::max),
                        by_row,
                    ) {
                        assert!(k >= g, "{k} {g}");
                    }
                }
            }
        }
    }

    #[test]
    fn rows_lose_alike() {
        let of = Lengths {
            rows: 9,
            columns: 10,
            taps: 1,
        };
        let kept = kept(&scores(90, 1), of, Pattern::Unstructured, 0.33, true);
        let each: Vec<usize> = kept.chunks(10).map(gone).collect();
        assert!(each.iter().all(|n| (3..=4).contains(n)), "{each:?}");
    }

    #[test]
    fn one_threshold_is_over_all() {
        let of = |rows| Lengths {
            rows,
            columns: 4,
            taps: 1,
        };
        let all = [(vec![1.0; 8], of(2)), (vec![2.0; 16], of(4))];
        let kept = kept_of_all(&all, Pattern::Unstructured, 0.5);
        assert_eq!([gone(&kept[0]), gone(&kept[1])], [8, 4]);
        assert_eq!(kept[1][..5], [false, false, false, false, true]);
        let blocks = Pattern::Blocks {
            rows: 2,
            columns: 1,
        };
        assert_eq!(gone(&kept_of_all(&all, blocks, 0.5)[1]), 4);
    }

    #[test]
    fn of_each_group_as_many_stay_as_may() {
        for (columns, taps) in [(8, 1), (10, 1), (36, 9), (30, 5), (3, 1)] {
            let of = Lengths {
                rows: 5,
                columns,
                taps,
            };
            let kept = kept(
                &scores(5 * columns, 2),
                of,
                Pattern::Of { n: 2, m: 4 },
                0.5,
                false,
            );
            for row in kept.chunks(columns) {
                for group in groups(columns, taps, 4) {
                    let stay = group.iter().filter(|&&c| row[c]).count();
                    assert_eq!(stay, group.len().min(2));
                }
            }
        }
    }

    #[test]
    fn blocks_go_whole_and_their_count_is_the_nearest() {
        for (rows, columns, r, c) in [(8, 6, 4, 1), (10, 7, 4, 1), (9, 9, 2, 4), (3, 3, 4, 4)] {
            let of = Lengths {
                rows,
                columns,
                taps: 1,
            };
            let pattern = Pattern::Blocks {
                rows: r,
                columns: c,
            };
            for amount in [0.0, 0.25, 0.5, 0.8, 1.0] {
                for by_row in [false, true] {
                    let kept = kept(&scores(rows * columns, 5), of, pattern, amount, by_row);
                    for at in 0..rows * columns {
                        let (y, x) = (at / columns / r * r, at % columns / c * c);
                        assert_eq!(kept[at], kept[y * columns + x]);
                    }
                    let off = gone(&kept).abs_diff(part(amount, rows * columns));
                    let rows_of = if by_row { rows.div_ceil(r) } else { 1 };
                    assert!(off <= rows_of * (r * c).div_ceil(2), "{off}");
                }
            }
        }
    }

    #[test]
    fn a_group_with_too_many_numbers_is_found() {
        let of = Lengths {
            rows: 2,
            columns: 4,
            taps: 1,
        };
        let pattern = Pattern::Of { n: 2, m: 4 };
        let good = [1.0, 0.0, -0.0, 1.0, 0.0, 0.0, 0.0, 2.0];
        assert_eq!(broken(&good, of, pattern), None);
        let bad = [1.0, 0.0, -0.0, 1.0, 0.0, 3.0, 1.0, 2.0];
        assert_eq!(broken(&bad, of, pattern), Some([1, 0]));
    }
}

//! The triangular factor of XᵀX that says how the error of one column is made good by others.
//!
//! GPTQ (Frantar et al. 2023, algorithm 1) updates the columns that are not rounded yet by rows of
//! the Cholesky factor of H⁻¹. With `H = R Rᵀ`, R upper triangular, the same updated column is
//! `wᵢ + Σ_{j<i} (R[j][i] / R[i][i]) (wⱼ − ŵⱼ)` (Babai's nearest plane; Chen et al. 2025), for
//! which nothing is inverted.

use edgesmith_kernels::Threads;

/// Rows and columns that are finished at once.
const BLOCK: usize = 64;

/// The share of the mean of the diagonal that is added to it where the first try fails, and what
/// it grows by from try to try.
const GROWTH: f64 = 10.0;

/// Tries with a growing diagonal before giving up.
const TRIES: usize = 8;

/// `[k, k]`: in row `i`, what the errors of the columns before `i` add to it, each divided by the
/// diagonal; and the squared diagonal of R.
pub struct Factor {
    /// Row by row; what is on and above the diagonal is 0.
    pub carry: Vec<f32>,
    /// The cost of a squared error of one in each column, once those before are made good.
    pub cost: Vec<f32>,
}

impl Factor {
    /// The factor of `h` (`[k, k]`, symmetric) with its columns in the order `order`, after
    /// `damping` times the mean of the diagonal was added to it, or more where it has no factor.
    /// `None` where no damping helps: a number is not finite.
    pub fn of(h: &[f32], order: &[usize], damping: f64, threads: &Threads) -> Option<Self> {
        let k = order.len();
        let mean = (0..k).map(|i| f64::from(h[i * k + i])).sum::<f64>() / k.max(1) as f64;
        let mut damping = damping;
        for _ in 0..TRIES {
            let mut l = backwards(h, order);
            for i in 0..k {
                l[i * k + i] += damping * mean;
                if l[i * k + i] == 0.0 {
                    l[i * k + i] = 1.0;
                }
            }
            if cholesky(&mut l, k, threads) {
                return Some(Self::from_backwards(&l, k));
            }
            damping = damping.max(1e-3) * GROWTH;
        }
        None
    }

    fn from_backwards(l: &[f64], k: usize) -> Self {
        let at = |j: usize, i: usize| l[(k - 1 - j) * k + (k - 1 - i)];
        let mut carry = vec![0.0f32; k * k];
        for i in 0..k {
            for j in 0..i {
                carry[i * k + j] = (at(j, i) / at(i, i)) as f32;
            }
        }
        let cost = (0..k).map(|i| (at(i, i) * at(i, i)) as f32).collect();
        Self { carry, cost }
    }
}

/// `h` in f64, its columns and rows in `order` from the last to the first.
fn backwards(h: &[f32], order: &[usize]) -> Vec<f64> {
    let k = order.len();
    let mut out = vec![0.0; k * k];
    for (row, &i) in out.chunks_exact_mut(k.max(1)).zip(order.iter().rev()) {
        for (x, &j) in row.iter_mut().zip(order.iter().rev()) {
            *x = f64::from(h[i * k + j]);
        }
    }
    out
}

/// Replaces the lower half of `a` by its Cholesky factor; false where it has none.
fn cholesky(a: &mut [f64], k: usize, threads: &Threads) -> bool {
    for first in (0..k).step_by(BLOCK) {
        let width = BLOCK.min(k - first);
        let (above, below) = a.split_at_mut((first + width) * k);
        let done = &mut above[first * k..];
        for i in 0..width {
            for j in 0..=i {
                let (x, y) = (&done[i * k..][..first + j], &done[j * k..][..first + j]);
                let rest = done[i * k + first + j] - dot(x, y);
                let pivot = done[j * k + first + j];
                done[i * k + first + j] = match i == j {
                    true => rest.sqrt(),
                    false => rest / pivot,
                };
            }
            let pivot = done[i * k + first + i];
            if !pivot.is_normal() {
                return false;
            }
        }
        let done = &*done;
        threads.parallel_chunks(below, 4 * k, |_, rows| {
            for row in rows.chunks_exact_mut(k) {
                for j in 0..width {
                    let other = &done[j * k..][..first + j];
                    let rest = row[first + j] - dot(&row[..first + j], other);
                    row[first + j] = rest / done[j * k + first + j];
                }
            }
        });
    }
    true
}

/// Solves `(H + d·I) x = b` for each row `b` of `rows` (`[m, k]`), in place, where `d` is `damping`
/// times the mean of the diagonal of `h` (`[k, k]`, symmetric), or more where it has no factor.
/// False where no damping helps.
pub fn solve(h: &[f32], k: usize, damping: f64, rows: &mut [f64], threads: &Threads) -> bool {
    let mean = (0..k).map(|i| f64::from(h[i * k + i])).sum::<f64>() / k.max(1) as f64;
    let mut damping = damping;
    for _ in 0..TRIES {
        let mut l: Vec<f64> = h.iter().map(|&x| f64::from(x)).collect();
        for i in 0..k {
            l[i * k + i] += damping * mean;
            if l[i * k + i] == 0.0 {
                l[i * k + i] = 1.0;
            }
        }
        if cholesky(&mut l, k, threads) {
            let l = &l;
            threads.parallel_chunks(rows, k.max(1), |_, x| {
                for i in 0..k {
                    x[i] = (x[i] - dot(&l[i * k..][..i], &x[..i])) / l[i * k + i];
                }
                for i in (0..k).rev() {
                    x[i] /= l[i * k + i];
                    let done = x[i];
                    for (y, c) in x[..i].iter_mut().zip(&l[i * k..][..i]) {
                        *y -= done * c;
                    }
                }
            });
            return true;
        }
        damping = damping.max(1e-3) * GROWTH;
    }
    false
}

/// The dot product, in sixteen sums.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const WIDTH: usize = 16;
    let mut sums = [0.0; WIDTH];
    let (a, b) = (a.chunks_exact(WIDTH), b.chunks_exact(WIDTH));
    let rest = |(x, y): (&f64, &f64)| x * y;
    let tail: f64 = a.remainder().iter().zip(b.remainder()).map(rest).sum();
    for (x, y) in a.zip(b) {
        for i in 0..WIDTH {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symmetric(k: usize) -> Vec<f32> {
        let x = |r: usize, c: usize| ((r * 31 + c * 17 + r * c) % 23) as f32 / 11.0 - 1.0;
        let entry = |i: usize, j: usize| (0..2 * k).map(|r| x(r, i) * x(r, j)).sum::<f32>();
        (0..k * k)
            .map(|at| entry(at / k, at % k) + f32::from(at / k == at % k))
            .collect()
    }

    #[test]
    fn the_factor_gives_the_matrix_back() {
        for k in [1, 5, 64, 65, 130] {
            let h = symmetric(k);
            let order: Vec<usize> = (0..k).map(|i| (i * 7 + 3) % k).collect();
            let is_order = order
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                == k;
            let order = if is_order { order } else { (0..k).collect() };
            let f = Factor::of(&h, &order, 0.0, &Threads::new(2)).unwrap();
            let r = |j: usize, i: usize| {
                let carry = if i == j {
                    1.0
                } else {
                    f64::from(f.carry[i * k + j])
                };
                if j > i {
                    0.0
                } else {
                    carry * f64::from(f.cost[i]).sqrt()
                }
            };
            let scale = f64::from(h[0]);
            for i in 0..k {
                for j in 0..k {
                    let product: f64 = (0..k).map(|c| r(i, c) * r(j, c)).sum();
                    let wanted = f64::from(h[order[i] * k + order[j]]);
                    assert!((product - wanted).abs() < 1e-4 * scale, "{k}: {i} {j}");
                }
            }
        }
    }

    #[test]
    fn a_solution_gives_the_right_side_back() {
        for k in [1, 5, 64, 65] {
            let h = symmetric(k);
            let wanted: Vec<f64> = (0..3 * k).map(|i| (i % 7) as f64 - 2.5).collect();
            let mut x = wanted.clone();
            assert!(solve(&h, k, 0.0, &mut x, &Threads::new(2)));
            for (row, wanted) in x.chunks(k).zip(wanted.chunks(k)) {
                for i in 0..k {
                    let own = (0..k)
                        .map(|j| f64::from(h[i * k + j]) * row[j])
                        .sum::<f64>();
                    assert!((own - wanted[i]).abs() < 1e-6, "{k}: {own} {}", wanted[i]);
                }
            }
        }
    }

    #[test]
    fn a_matrix_without_a_factor_is_damped_until_it_has_one() {
        let indefinite = [1.0, 1.0, 1.0, 1.0 - 1e-3];
        assert!(Factor::of(&indefinite, &[0, 1], 0.0, &Threads::new(1)).is_some());
        assert!(Factor::of(&[f32::NAN], &[0], 0.01, &Threads::new(1)).is_none());
    }

    #[test]
    fn an_input_that_was_never_there_costs_nothing() {
        let f = Factor::of(&[2.0, 0.0, 0.0, 0.0], &[0, 1], 0.0, &Threads::new(1)).unwrap();
        assert_eq!(f.carry, [0.0; 4]);
    }
}

//! How the grid of a block is chosen: by its ends, or narrower where that costs less.

use super::blocks::{Grid, Scheme};

/// The narrowest share of the range that is tried.
const LEAST: f32 = 0.4;

/// Shares of the range that are tried.
const STEPS: usize = 24;

/// The grid that covers all of `w`.
pub fn whole(w: &[f32], scheme: Scheme) -> Grid {
    let (lo, hi) = ends(w);
    Grid::cover(lo, hi, scheme)
}

/// The grid of the least Σ weight·(w − ŵ)², among those that cover shares of the range.
pub fn least_error(w: &[f32], weights: impl Fn(usize) -> f32, scheme: Scheme) -> Grid {
    search(w, scheme, |grid| {
        let error = |(i, &w): (usize, &f32)| {
            let e = w - grid.number(grid.code(w, scheme.most()));
            f64::from(weights(i) * e * e)
        };
        w.iter().enumerate().map(error).sum()
    })
}

/// The grid of the least `cost`, among those that cover shares of the range of `w`. The whole
/// range is the first, and stays where no other is better.
pub fn search(w: &[f32], scheme: Scheme, cost: impl Fn(Grid) -> f64) -> Grid {
    let (lo, hi) = ends(w);
    let mut best = Grid::cover(lo, hi, scheme);
    let mut least = cost(best);
    for step in 1..=STEPS {
        let share = 1.0 - (1.0 - LEAST) * step as f32 / STEPS as f32;
        let grid = Grid::cover(lo * share, hi * share, scheme);
        let cost = cost(grid);
        if cost < least {
            (best, least) = (grid, cost);
        }
    }
    best
}

fn ends(w: &[f32]) -> (f32, f32) {
    w.iter()
        .fold((0.0, 0.0), |(lo, hi), &x| (x.min(lo), x.max(hi)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_outlier_is_clipped_where_it_counts_little() {
        let scheme = Scheme {
            bits: 3,
            group: 0,
            symmetric: false,
        };
        let mut w: Vec<f32> = (0..63).map(|i| (i as f32 / 31.0) - 1.0).collect();
        w.push(4.0);
        let weight = |i: usize| if i == 63 { 0.01 } else { 1.0 };
        let narrow = least_error(&w, weight, scheme);
        assert!(narrow.scale < whole(&w, scheme).scale);
        let kept = least_error(&w, |i| if i == 63 { 100.0 } else { 1.0 }, scheme);
        assert!((kept.number(kept.code(4.0, 7.0)) - 4.0).abs() < 0.3);
    }
}

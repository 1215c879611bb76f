//! How a range is chosen from what was seen of a value: one row for each method.
//!
//! To add one: write its range function and its row.

use super::histogram::HALF;
use super::statistics::ValueStatistics;

mod entropy;

pub use entropy::ENTROPY;

/// The integers that a range is cut into.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levels {
    /// The smallest.
    pub min: i32,
    /// The largest.
    pub max: i32,
    /// The range is the same on both sides of zero.
    pub symmetric: bool,
}

/// What some observers can be told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// How much of the data a percentile range holds, in per cent.
    pub percentile: f64,
    /// How much more a clipped number counts than a rounded one in the squared error. Rounding
    /// errors average out in the sums of the next layer; clipping errors all point towards zero
    /// and add up.
    pub clip_weight: f64,
    /// Bins on each side of zero that an entropy range is searched with, at most those of the
    /// histogram.
    pub entropy_bins: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            percentile: 99.99,
            clip_weight: CLIP_WEIGHT,
            entropy_bins: HALF,
        }
    }
}

/// A way to choose a range.
pub struct Observer {
    /// The name on the command line.
    pub name: &'static str,
    /// One line on what it does.
    pub about: &'static str,
    /// The range: `lo ≤ 0 ≤ hi`.
    pub range: fn(&ValueStatistics, Levels, &Tuning) -> (f64, f64),
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every observer, the default first.
pub static OBSERVERS: &[&Observer] =
    &[&MSE, &MIN_MAX, &AVERAGE, &PERCENTILE, &ENTROPY, &OCTAV, &LP];

/// The observer of that name.
pub fn find(name: &str) -> Option<&'static Observer> {
    OBSERVERS.iter().copied().find(|o| o.name == name)
}

/// Everything that was seen.
pub static MIN_MAX: Observer = Observer {
    name: "minmax",
    about: "the smallest and the largest number seen",
    range: |seen, levels, _| even(seen.range(), levels),
};

/// All but the outermost of both sides; of one side where the data has one.
pub static PERCENTILE: Observer = Observer {
    name: "percentile",
    about: "all but the outermost 0.01 % of the numbers seen",
    range: percentile,
};

/// The range with the smallest expected squared error of quantisation, clipping counted more.
pub static MSE: Observer = Observer {
    name: "mse",
    about: "the range with the smallest expected squared error of quantisation",
    range: mse,
};

/// The mean of the samples' ranges, in the place of a moving average: it depends neither on the order
/// of the samples nor on batches.
pub static AVERAGE: Observer = Observer {
    name: "average",
    about: "the mean over samples of the smallest and the largest number of each",
    range: |seen, levels, _| even(seen.mean_range(), levels),
};

/// The range by the iteration of OCTAV (Sakr et al. 2022, "Optimal clipping and magnitude-aware
/// differentiation for improved quantization-aware training", equation 6): it minimises the squared error as [`MSE`]
/// with clipping counted once does, in a few steps instead of a search.
pub static OCTAV: Observer = Observer {
    name: "octav",
    about: "clips by the fixed point of OCTAV, with the smallest expected squared error",
    range: octav,
};

/// The range with the smallest measured error to the power of 2.4, which falls between that of
/// squared errors and that of everything seen.
pub static LP: Observer = Observer {
    name: "lp",
    about: "the range with the smallest mean of |error|^2.4",
    range: lp,
};

fn even((lo, hi): (f64, f64), levels: Levels) -> (f64, f64) {
    if levels.symmetric {
        let most = hi.max(-lo);
        (-most, most)
    } else {
        (lo, hi)
    }
}

fn percentile(seen: &ValueStatistics, levels: Levels, tuning: &Tuning) -> (f64, f64) {
    let (lo, hi) = seen.range();
    let sides = if lo < 0.0 && hi > 0.0 { 2.0 } else { 1.0 };
    let outside = (1.0 - tuning.percentile / 100.0).max(0.0) / sides * seen.count as f64;
    let bins = seen.histogram.bins();
    let cut = |indices: &mut dyn Iterator<Item = usize>| {
        let mut passed = 0.0;
        for i in indices {
            let n = bins[i] as f64;
            if n > 0.0 && passed + n > outside {
                return (i, (outside - passed) / n);
            }
            passed += n;
        }
        (HALF, 0.0)
    };
    let width = seen.histogram.width();
    let (i, inside) = cut(&mut (0..bins.len()));
    let low = (seen.histogram.edge(i) + inside * width).clamp(lo, 0.0);
    let (i, inside) = cut(&mut (0..bins.len()).rev());
    let high = (seen.histogram.edge(i + 1) - inside * width).clamp(0.0, hi);
    even((low, high), levels)
}

/// Running sums over one side of a histogram, from the outermost bin inwards.
struct Tail {
    width: f64,
    /// `[n, Σ|x|, Σx²]` of the bins from `i` on, with the middle of a bin for its numbers.
    outer: Vec<[f64; 3]>,
}

impl Tail {
    fn new(seen: &ValueStatistics, positive: bool) -> Self {
        let width = seen.histogram.width();
        let bins = seen.histogram.bins();
        let mut outer = vec![[0.0; 3]; HALF + 1];
        for i in (0..HALF).rev() {
            let n = if positive {
                bins[HALF + i]
            } else {
                bins[HALF - 1 - i]
            };
            let zeros = if positive && i == 0 { seen.zeros } else { 0 };
            let (n, x) = ((n - zeros) as f64, (i as f64 + 0.5) * width);
            let [a, b, c] = outer[i + 1];
            outer[i] = [a + n, b + n * x, c + n * x * x];
        }
        Self { width, outer }
    }

    /// `Σ(|x| − cut)²` over the numbers beyond `cut`, and how many those are.
    fn beyond(&self, cut: f64) -> (f64, f64) {
        let i = ((cut / self.width).ceil() as usize).min(HALF);
        let [n, sum, squares] = self.outer[i];
        (squares - 2.0 * cut * sum + cut * cut * n, n)
    }

    /// How many numbers lie beyond `cut`, and the sum of their magnitudes.
    fn outside(&self, cut: f64) -> (f64, f64) {
        let i = ((cut / self.width).ceil() as usize).min(HALF);
        (self.outer[i][0], self.outer[i][1])
    }

    /// How many numbers there are.
    fn count(&self) -> f64 {
        self.outer[0][0]
    }
}

/// Cuts tried on each side, from the whole range down to 1/`CUTS` of it.
const CUTS: usize = 128;

/// The default weight of clipping, chosen on calibration data alone: `examples/choose_ranges.rs`
/// prints the outputs' SQNR on samples that gave no ranges. Over seven small networks the mean was
/// 27.4 dB with 5, 27.1 with 1, 27.0 with 10 and 26.0 with min-max ranges.
const CLIP_WEIGHT: f64 = 5.0;

/// An end of a range, and `Σ(|x| − end)²` and the count of the numbers beyond it.
type End = (f64, (f64, f64));

/// Numbers inside the range err by `step²/12` on average, exact zeros by nothing, numbers outside
/// by their distance to its end.
fn mse(seen: &ValueStatistics, levels: Levels, tuning: &Tuning) -> (f64, f64) {
    let (lo, hi) = even(seen.range(), levels);
    let (below, above) = (Tail::new(seen, false), Tail::new(seen, true));
    let count = below.count() + above.count();
    let steps = f64::from(levels.max - levels.min);
    // An end of the range, with what lies beyond it.
    let under = |a: f64| (a, below.beyond(-a));
    let over = |b: f64| (b, above.beyond(b));
    let error = |(a, (under, n)): End, (b, (over, m)): End| {
        let step = (b - a) / steps;
        tuning.clip_weight * (under + over) + (count - n - m) * step * step / 12.0
    };
    let cuts = |end: f64| (1..=CUTS).rev().map(move |i| end * i as f64 / CUTS as f64);
    let mut best = (error(under(lo), over(hi)), (lo, hi));
    let mut consider = |a: End, b: End| {
        let e = error(a, b);
        if e < best.0 {
            best = (e, (a.0, b.0));
        }
    };
    if levels.symmetric {
        cuts(hi).for_each(|b| consider(under(-b), over(b)));
        return best.1;
    }
    let ends = |end: f64, of: &dyn Fn(f64) -> End| match end {
        0.0 => vec![of(0.0)],
        _ => cuts(end).map(of).collect(),
    };
    let highs = ends(hi, &over);
    for a in ends(lo, &under) {
        highs.iter().for_each(|&b| consider(a, b));
    }
    best.1
}

/// Iterations after which OCTAV has long settled.
const OCTAV_STEPS: usize = 64;

/// On each side, `s ← Σ|x|·[|x| > s] / (c·n(|x| ≤ s) + n(|x| > s))`, where `c·s²` is the expected
/// squared error of a number that is rounded: `steps⁻²/3` of symmetric ranges, a quarter of that
/// of one-sided ones. Ranges with two sides share the step and meet in turns.
fn octav(seen: &ValueStatistics, levels: Levels, _: &Tuning) -> (f64, f64) {
    let (lo, hi) = even(seen.range(), levels);
    let (below, above) = (Tail::new(seen, false), Tail::new(seen, true));
    let count = below.count() + above.count();
    let steps = f64::from(levels.max - levels.min);
    let (mut a, mut b) = (lo, hi);
    let mean = (below.outer[0][1] + above.outer[0][1]) / count.max(1.0);
    if levels.symmetric {
        (a, b) = (-mean, mean);
    } else {
        (a, b) = (a.max(-mean), b.min(mean));
    }
    for _ in 0..OCTAV_STEPS {
        let (n, x) = above.outside(b);
        let (m, y) = below.outside(-a);
        let inside = (count - n - m) / (12.0 * steps * steps);
        (a, b) = if levels.symmetric {
            let s = (x + y) / (4.0 * inside + n + m);
            (-s, s)
        } else {
            // Where the gradient of inside·(b − a)² + Σ(x − b)² + Σ(y + a)² is zero.
            let (u, v) = (inside + n, inside + m);
            let det = u * v - inside * inside;
            let (up, down) = (x * v - inside * y, y * u - inside * x);
            if up <= 0.0 || hi == 0.0 {
                (-y / v, 0.0)
            } else if down <= 0.0 || lo == 0.0 {
                (0.0, x / u)
            } else {
                (-down / det, up / det)
            }
        };
        (a, b) = (a.max(lo), b.min(hi));
    }
    (a, b)
}

/// The exponent of [`LP`], as in BRECQ and GPTQ's search of scales.
const POWER: f64 = 2.4;

/// Cuts tried on each side by [`LP`].
const LP_CUTS: usize = 32;

/// A rounded number errs by `(step/2)^p / (p + 1)` on average, exact zeros by nothing, numbers outside
/// by their distance to the end of the range.
fn lp(seen: &ValueStatistics, levels: Levels, _: &Tuning) -> (f64, f64) {
    let (lo, hi) = even(seen.range(), levels);
    let steps = f64::from(levels.max - levels.min);
    let bins = seen.histogram.bins();
    let middles = bins.iter().enumerate().filter(|(_, n)| **n > 0);
    let middle = |i: usize| seen.histogram.edge(i) + seen.histogram.width() / 2.0;
    let zero = |i: usize| if i == HALF { seen.zeros } else { 0 };
    let bins: Vec<(f64, f64)> = middles
        .map(|(i, &n)| (middle(i), (n - zero(i)) as f64))
        .collect();
    let error = |a: f64, b: f64| {
        let rounded = ((b - a) / steps / 2.0).powf(POWER) / (POWER + 1.0);
        let one = |&(x, n): &(f64, f64)| {
            n * if x > b {
                (x - b).powf(POWER)
            } else if x < a {
                (a - x).powf(POWER)
            } else {
                rounded
            }
        };
        bins.iter().map(one).sum::<f64>()
    };
    let cuts = |end: f64| {
        (1..=LP_CUTS)
            .rev()
            .map(move |i| end * i as f64 / LP_CUTS as f64)
    };
    let pairs: Vec<(f64, f64)> = if levels.symmetric {
        cuts(hi).map(|b| (-b, b)).collect()
    } else if lo == 0.0 || hi == 0.0 {
        cuts(1.0).map(|f| (lo * f, hi * f)).collect()
    } else {
        cuts(lo)
            .flat_map(|a| cuts(hi).map(move |b| (a, b)))
            .collect()
    };
    let mut best = (f64::INFINITY, (lo, hi));
    for (a, b) in pairs {
        let e = error(a, b);
        if e < best.0 {
            best = (e, (a, b));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgesmith_ir::Tensor;

    const BYTES: Levels = Levels {
        min: 0,
        max: 255,
        symmetric: false,
    };

    fn seen(data: Vec<f32>) -> ValueStatistics {
        let mut s = ValueStatistics::new(None);
        s.add(&Tensor::vector(data)).unwrap();
        s
    }

    /// The weighted error of quantising `data` to that range, number by number.
    fn measured(data: &[f32], (lo, hi): (f64, f64)) -> f64 {
        let step = (hi - lo) / 255.0;
        let zero = (-lo / step).round_ties_even();
        data.iter()
            .map(|&x| {
                let q = (f64::from(x) / step).round_ties_even() + zero;
                let error = ((q.clamp(0.0, 255.0) - zero) * step - f64::from(x)).powi(2);
                if (0.0..=255.0).contains(&q) {
                    error
                } else {
                    CLIP_WEIGHT * error
                }
            })
            .sum()
    }

    #[test]
    fn the_least_squares_range_beats_all_others_by_measurement() {
        let mut data: Vec<f32> = (0..20_000)
            .map(|i| {
                let u = (f64::from(i) + 0.5) / 20_000.0;
                ((u / (1.0 - u)).ln() * 0.7) as f32
            })
            .collect();
        data.extend([40.0, -25.0]);
        let s = seen(data.clone());
        let tuning = Tuning::default();
        let best = measured(&data, (MSE.range)(&s, BYTES, &tuning));
        for other in [&MIN_MAX, &PERCENTILE] {
            assert!(
                best < measured(&data, (other.range)(&s, BYTES, &tuning)),
                "{}",
                other.name
            );
        }
        let (lo, hi) = s.range();
        for i in 1..=20 {
            for j in 1..=20 {
                let e = measured(&data, (lo * f64::from(i) / 20.0, hi * f64::from(j) / 20.0));
                assert!(best < e * 1.02, "{i} {j}: {best} against {e}");
            }
        }
    }

    fn heavy_tailed(n: u32) -> Vec<f32> {
        let at = |i: u32| {
            let u = (f64::from(i) + 0.5) / f64::from(n);
            ((u / (1.0 - u)).ln() * 0.7) as f32
        };
        (0..n).map(at).collect()
    }

    /// The smallest and the chosen mean of |error|^p of quantising `data`, number by number.
    fn searched(data: &[f32], p: f64, chosen: (f64, f64), levels: Levels) -> (f64, f64) {
        let steps = f64::from(levels.max - levels.min);
        let error = |(lo, hi): (f64, f64)| {
            let step = (hi - lo) / steps;
            let zero = (-lo / step).round_ties_even();
            let one = |&x: &f32| {
                let q = (f64::from(x) / step).round_ties_even() + zero;
                ((q.clamp(0.0, steps) - zero) * step - f64::from(x))
                    .abs()
                    .powf(p)
            };
            data.iter().map(one).sum::<f64>()
        };
        let (lo, hi) = data.iter().fold((0f64, 0f64), |(l, h), &x| {
            (l.min(x.into()), h.max(x.into()))
        });
        let tries = (1..=60)
            .flat_map(|i| (1..=60).map(move |j| (f64::from(i) / 60.0, f64::from(j) / 60.0)));
        let least = tries
            .map(|(i, j)| error((lo * i, hi * j)))
            .fold(f64::INFINITY, f64::min);
        (least, error(chosen))
    }

    #[test]
    fn octav_and_lp_are_as_good_as_a_search_by_measurement() {
        let few = Levels {
            min: 0,
            max: 15,
            symmetric: false,
        };
        for levels in [BYTES, few] {
            let mut data = heavy_tailed(4000);
            data.extend([30.0, -20.0]);
            let s = seen(data.clone());
            for (observer, p) in [(&OCTAV, 2.0), (&LP, POWER)] {
                let range = (observer.range)(&s, levels, &Tuning::default());
                let (least, found) = searched(&data, p, range, levels);
                assert!(
                    found < least * 1.05,
                    "{} {range:?} {found} {least}",
                    observer.name
                );
            }
            let positive: Vec<f32> = data.iter().map(|x| x.max(0.0)).collect();
            let s = seen(positive.clone());
            for (observer, p) in [(&OCTAV, 2.0), (&LP, POWER)] {
                let range = (observer.range)(&s, levels, &Tuning::default());
                let (least, found) = searched(&positive, p, range, levels);
                assert!(
                    found < least * 1.05,
                    "{} {range:?} {found} {least}",
                    observer.name
                );
            }
        }
    }

    #[test]
    fn the_average_is_that_of_samples() {
        let mut s = ValueStatistics::new(None);
        s.add(&Tensor::from_vec(&[2, 2], vec![-1.0f32, 4.0, 1.0, 2.0]).unwrap())
            .unwrap();
        s.add(&Tensor::from_vec(&[1, 2], vec![-3.0f32, 3.0]).unwrap())
            .unwrap();
        let (lo, hi) = (AVERAGE.range)(&s, BYTES, &Tuning::default());
        assert_eq!((lo, hi), (-1.0, 3.0));
    }

    #[test]
    fn ranges_hold_zero_and_lie_within_what_was_seen() {
        for data in [
            vec![1.0f32, 2.0, 5.0],
            vec![-3.0, -1.0],
            vec![-2.0, 9.0],
            vec![0.0],
            vec![0.5],
        ] {
            let s = seen(data);
            for o in OBSERVERS {
                let (lo, hi) = (o.range)(&s, BYTES, &Tuning::default());
                let (a, b) = s.range();
                assert!(
                    a <= lo && lo <= 0.0 && 0.0 <= hi && hi <= b,
                    "{} {lo} {hi}",
                    o.name
                );
                let (lo, hi) = (o.range)(
                    &s,
                    Levels {
                        symmetric: true,
                        ..BYTES
                    },
                    &Tuning::default(),
                );
                assert_eq!(lo, -hi);
            }
        }
    }

    #[test]
    fn a_percentile_cuts_one_side_of_one_sided_data() {
        let s = seen((0..100_000).map(|i| i as f32 / 1000.0).collect());
        let (lo, hi) = (PERCENTILE.range)(
            &s,
            BYTES,
            &Tuning {
                percentile: 99.0,
                ..Tuning::default()
            },
        );
        assert!(lo == 0.0 && (hi - 99.0).abs() < 0.1, "{hi}");
        let s = seen((-50_000..50_000).map(|i| i as f32 / 1000.0).collect());
        let (lo, hi) = (PERCENTILE.range)(
            &s,
            BYTES,
            &Tuning {
                percentile: 99.0,
                ..Tuning::default()
            },
        );
        assert!(
            (lo + 49.5).abs() < 0.1 && (hi - 49.5).abs() < 0.1,
            "{lo} {hi}"
        );
    }
}

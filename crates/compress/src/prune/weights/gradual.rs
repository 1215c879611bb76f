//! Gradual pruning: the share of zeros grows while the model learns, first fast, then slowly.
//!
//! M. Zhu and S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
//! compression" (2017), equation 1. Numbers are chosen by size. Until the last choice what is masked
//! counts as zero, is moved by no gradient and keeps its number: it comes back where others have become
//! smaller. From then on masks stay as they are.

use edgesmith_ir::{Error, Model, Result};
use edgesmith_train::masked::Gradual;

use super::pattern::Pattern;
use super::scope::Scope;
use super::select::{Lengths, kept, kept_of_all};
use super::sites::{Choice, Site, Sites};

/// The part of a run in which masks must stay as they are.
const LEAST_FIXED: f64 = 0.2;

/// How the share of zeros grows.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The share in the end.
    pub sparsity: f64,
    /// Where it begins, as a part of the run, and where it has its last value.
    pub window: [f64; 2],
    /// Steps between two choices of masks.
    pub every: usize,
    /// How zeros lie.
    pub pattern: Pattern,
    /// Over what scores compete.
    pub scope: Scope,
    /// Which weights.
    pub choice: Choice,
}

impl Schedule {
    /// # Errors
    /// When a number is out of range.
    pub fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.sparsity) || self.sparsity == 0.0 {
            let what = format!("the sparsity {} is no share", self.sparsity);
            return Err(Error::usage(what).hint("more than 0, less than 1"));
        }
        let [from, to] = self.window;
        if !(0.0..=1.0 - LEAST_FIXED).contains(&to) || !(0.0..=to).contains(&from) {
            let what = format!("sparsity cannot grow from {from} to {to} of the run");
            return Err(Error::usage(what).hint(
                "parts of the run, the second up to 0.8: the rest trains with masks that stay",
            ));
        }
        if self.every == 0 {
            return Err(Error::usage("masks are chosen every 1 step or more"));
        }
        Ok(())
    }

    /// The steps of the window.
    fn steps(&self, total: usize) -> [usize; 2] {
        let [from, to] = self.window.map(|part| (part * total as f64) as usize);
        [from, to.max(from)]
    }

    /// s(t) = s_f (1 − (1 − (t − t₀) / (t₁ − t₀))³), from 0 at t₀ to s_f at t₁.
    fn share(&self, step: usize, total: usize) -> f64 {
        let [from, to] = self.steps(total);
        if step >= to {
            return self.sparsity;
        }
        let done = step.saturating_sub(from) as f64 / (to - from) as f64;
        self.sparsity * (1.0 - (1.0 - done).powi(3))
    }
}

/// The weights of a model that are pruned while it learns.
#[derive(Debug)]
pub struct Weights {
    schedule: Schedule,
    sites: Vec<Site>,
}

impl Weights {
    /// Those of a model as it is trained.
    ///
    /// # Errors
    /// When the schedule is wrong, or no weight can be pruned.
    pub fn of(model: &Model, schedule: &Schedule) -> Result<Self> {
        schedule.check()?;
        let choice = Choice {
            pattern: Some(schedule.pattern),
            ..schedule.choice.clone()
        };
        let sites = Sites::of(model, &choice)?;
        if sites.all.is_empty() {
            return Err(sites.nothing());
        }
        Ok(Self {
            schedule: schedule.clone(),
            sites: sites.all,
        })
    }

    /// Keeps those of these names alone: what is trained.
    pub fn retain(&mut self, is_trained: impl Fn(&str) -> bool) {
        self.sites.retain(|s| is_trained(&s.name));
    }

    /// The weights.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }
}

impl Gradual for Weights {
    fn names(&self) -> Vec<String> {
        self.sites.iter().map(|s| s.name.clone()).collect()
    }

    fn fixed_from(&self, total: usize) -> usize {
        self.schedule.steps(total)[1]
    }

    fn due(&self, step: usize, total: usize) -> Option<f64> {
        let [from, to] = self.schedule.steps(total);
        let is_due = step == to
            || step < to && step > from && (step - from).is_multiple_of(self.schedule.every);
        is_due.then(|| self.schedule.share(step, total))
    }

    fn choose(&self, parameters: &[&[f32]], sparsity: f64) -> Result<Vec<Vec<bool>>> {
        let (pattern, scope) = (self.schedule.pattern, self.schedule.scope);
        let mut all: Vec<(Vec<f64>, Lengths)> = Vec::new();
        for (site, numbers) in self.sites.iter().zip(parameters) {
            if numbers.len() != site.lengths.rows * site.lengths.columns {
                return Err(Error::internal("a pruned parameter has other lengths"));
            }
            let scores = numbers.iter().map(|&w| f64::from(w).powi(2)).collect();
            all.push((site.by_rows(scores), site.lengths));
        }
        let by_rows = match (pattern, scope) {
            (Pattern::Of { n, m }, _) => growing(&all, [n, m], sparsity / self.schedule.sparsity),
            (_, Scope::Global) => kept_of_all(&all, pattern, sparsity),
            _ => {
                let lengths: Vec<Lengths> = all.iter().map(|(_, of)| *of).collect();
                let shares = scope.shares(&lengths, sparsity);
                let by_row = scope == Scope::Row;
                let one = |((scores, of), share): (&(Vec<f64>, Lengths), f64)| {
                    kept(scores, *of, pattern, share.max(0.0), by_row)
                };
                all.iter().zip(shares).map(one).collect()
            }
        };
        let in_order = self.sites.iter().zip(by_rows);
        Ok(in_order.map(|(site, kept)| site.in_order(kept)).collect())
    }
}

/// N:M on the way: of each group M − 1 stay first, then fewer, until it is N.
fn growing(all: &[(Vec<f64>, Lengths)], [n, m]: [usize; 2], done: f64) -> Vec<Vec<bool>> {
    let gone = ((m - n) as f64 * done).round() as usize;
    let pattern = Pattern::Of { n: m - gone, m };
    let one = |(scores, of): &(Vec<f64>, Lengths)| match gone {
        0 => vec![true; scores.len()],
        _ => kept(scores, *of, pattern, 0.0, false),
    };
    all.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text::parse;

    use super::*;

    fn schedule(sparsity: f64, pattern: &str, scope: Scope) -> Schedule {
        Schedule {
            sparsity,
            window: [0.1, 0.7],
            every: 7,
            pattern: pattern.parse().unwrap(),
            scope,
            choice: Choice::default(),
        }
    }

    #[test]
    fn the_share_grows_from_0_to_the_last_and_stays() {
        let s = schedule(0.9, "unstructured", Scope::Global);
        for total in [10, 100, 1234] {
            let shares: Vec<f64> = (0..total).map(|t| s.share(t, total)).collect();
            let [from, to] = s.steps(total);
            assert_eq!([shares[from], shares[to]], [0.0, 0.9]);
            assert!(shares.windows(2).all(|w| w[0] <= w[1]));
            assert_eq!(shares[total - 1], 0.9);
            // Half of the window has seen seven eighths.
            let half = s.share((from + to) / 2, total);
            assert!(
                (half - 0.9 * 0.875).abs() < 0.9 * 3.0 / (to - from) as f64,
                "{half}"
            );
        }
    }

    const NET: &str = "opset 17 graph g(x: f32[1,8]) -> (y) {
        a: f32[8,8] = {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,
                       1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8}
        b: f32[8,2] = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}
        h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }";

    #[test]
    fn the_last_choice_is_of_the_exact_count_and_the_last_layer_stays() {
        let model = parse(NET).unwrap();
        for (pattern, sparsity, gone) in [
            ("unstructured", 0.9, 58),
            ("2:4", 0.5, 32),
            ("4x1", 0.75, 48),
        ] {
            for scope in [Scope::Global, Scope::Layer] {
                let w = Weights::of(&model, &schedule(sparsity, pattern, scope)).unwrap();
                assert_eq!(w.names(), ["a"]);
                let data: Vec<f32> = (0..64).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
                let total = 100;
                let dues: Vec<usize> = (0..total).filter(|&t| w.due(t, total).is_some()).collect();
                assert_eq!(*dues.last().unwrap(), w.fixed_from(total));
                let last = w.due(70, total).unwrap();
                let kept = w.choose(&[&data], last).unwrap();
                assert_eq!(kept[0].iter().filter(|k| !**k).count(), gone, "{pattern}");
            }
        }
    }

    #[test]
    fn of_groups_one_more_goes_at_a_time() {
        let model = parse(NET).unwrap();
        let w = Weights::of(&model, &schedule(0.5, "2:4", Scope::Layer)).unwrap();
        let data: Vec<f32> = (0..64).map(|i| i as f32).collect();
        let gone = |s| {
            let kept = w.choose(&[&data], s).unwrap();
            kept[0].iter().filter(|k| !**k).count()
        };
        assert_eq!([0.0, 0.1, 0.3, 0.5].map(gone), [0, 0, 16, 32]);
    }

    #[test]
    fn schedules_that_leave_no_time_are_refused() {
        let with = |sparsity, window, every| Schedule {
            window,
            every,
            ..schedule(sparsity, "unstructured", Scope::Layer)
        };
        assert!(with(0.9, [0.0, 0.8], 1).check().is_ok());
        for (sparsity, window, every) in [
            (1.5, [0.1, 0.7], 1),
            (0.0, [0.1, 0.7], 1),
            (f64::NAN, [0.1, 0.7], 1),
            (0.9, [0.1, 0.9], 1),
            (0.9, [0.7, 0.1], 1),
            (0.9, [-0.1, 0.5], 1),
            (0.9, [0.1, 0.7], 0),
        ] {
            assert!(with(sparsity, window, every).check().is_err());
        }
    }
}

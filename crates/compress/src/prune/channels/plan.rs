//! Which channels go: scores are compared within a scope, and go in steps so that what stays is a
//! multiple.

use std::collections::BTreeSet;

use edgesmith_ir::analysis::Cost;
use edgesmith_ir::channels::{Kept, cut, length};
use edgesmith_ir::{Model, Result};

use super::{Of, Seen, Settings, criteria};
use crate::prune::groups::{Group, Groups, forms};

/// Among which groups scores are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Each group for itself: all lose the same share.
    #[default]
    Local,
    /// All, each score divided by the mean of its group.
    Global,
    /// Groups of the same form (operators, kernels), each score divided by the mean of its group;
    /// each form loses the same share (G. Fang et al., 2024).
    Isomorphic,
}

/// Every scope, with its name.
pub static SCOPES: &[(&str, Scope)] = &[
    ("local", Scope::Local),
    ("global", Scope::Global),
    ("isomorphic", Scope::Isomorphic),
];

/// Some of a group that go at once, the least important of those that are left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// The group.
    pub group: usize,
    /// How many of it go.
    pub count: usize,
    /// Their mean score, divided by that of the group.
    pub score: f64,
}

/// Groups with scores, and the steps in which each can lose some.
pub(super) struct Plan {
    /// The classes of each group, the least important first.
    orders: Vec<Vec<usize>>,
    /// What each group loses, step after step.
    pub steps: Vec<Vec<Step>>,
    /// Sets of groups that are compared.
    sets: Vec<Vec<usize>>,
    /// How many each group has.
    counts: Vec<usize>,
}

impl Plan {
    /// Scores each group and cuts it into steps.
    pub fn of(groups: &Groups, settings: &Settings, seen: &Seen) -> Result<Self> {
        let cx = criteria::Cx::new(groups, seen, settings.seed);
        let (mut orders, mut steps) = (Vec::new(), Vec::new());
        for (i, group) in groups.groups.iter().enumerate() {
            let scores = (settings.criterion.score)(&cx, group)?;
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(a.cmp(&b)));
            steps.push(steps_of(i, &scores, &order, settings));
            orders.push(order);
        }
        let counts: Vec<usize> = groups.groups.iter().map(Group::count).collect();
        let all = 0..groups.groups.len();
        let sets = match settings.scope {
            Scope::Local => all.map(|i| vec![i]).collect(),
            Scope::Global => vec![all.collect()],
            Scope::Isomorphic => forms(&groups.groups).into_values().collect(),
        };
        Ok(Self {
            orders,
            steps,
            sets,
            counts,
        })
    }

    /// The most that group `i` can lose.
    pub fn most(&self, i: usize) -> usize {
        self.steps[i].iter().map(|s| s.count).sum()
    }

    /// How many of each group stay, of the share that is asked for.
    pub fn choose(&self, groups: &Groups, settings: &Settings, before: Cost) -> Result<Vec<usize>> {
        let price = |cost: Cost| match settings.of {
            Of::Parameters => cost.params,
            Of::Bytes => cost.weight_bytes,
            Of::Count | Of::Macs | Of::Latency => cost.macs,
        };
        if settings.of == Of::Count {
            return Ok(self.of_share(settings.amount));
        }
        let wanted = (price(before) as f64 * (1.0 - settings.amount)).floor();
        let fits = |stay: &[usize]| -> Result<bool> {
            let kept = self.kept(groups, stay);
            let model = cut_of(groups, &kept)?;
            let cost = super::cost_of(&model)?;
            Ok(price(cost) as f64 <= wanted)
        };
        // The smallest share of all that is enough.
        let (mut low, mut high) = (0.0, 1.0);
        let mut best = self.of_share(1.0);
        if settings.amount == 0.0 {
            return Ok(self.counts.clone());
        }
        if !fits(&best)? {
            return Ok(best);
        }
        for _ in 0..14 {
            let middle = (low + high) / 2.0;
            let stay = self.of_share(middle);
            if fits(&stay)? {
                (best, high) = (stay, middle);
            } else {
                low = middle;
            }
        }
        Ok(best)
    }

    /// How many stay where each set loses this share of its channels.
    fn of_share(&self, share: f64) -> Vec<usize> {
        let mut stay = self.counts.clone();
        for set in &self.sets {
            if let [group] = set[..] {
                stay[group] = self.alone(group, share);
                continue;
            }
            let total: usize = set.iter().map(|&g| self.counts[g]).sum();
            let wanted = (share * total as f64).round() as usize;
            let mut steps: Vec<Step> = set.iter().flat_map(|&g| self.steps[g].clone()).collect();
            // Steps of a group have growing scores, so that a stable sort keeps their order.
            steps.sort_by(|a, b| a.score.total_cmp(&b.score));
            let mut gone = 0;
            for step in steps {
                // The step that crosses the line is taken where that comes nearer.
                if gone + step.count / 2 > wanted || gone >= wanted {
                    break;
                }
                gone += step.count;
                stay[step.group] -= step.count;
            }
        }
        stay
    }

    /// How many of a group stay that loses this share, as near as its steps come.
    fn alone(&self, group: usize, share: f64) -> usize {
        let count = self.counts[group];
        let wanted = count as f64 * (1.0 - share);
        let distance = |n: usize| (n as f64 - wanted).abs();
        let (mut best, mut stay) = (count, count);
        for step in &self.steps[group] {
            stay -= step.count;
            if distance(stay) <= distance(best) {
                best = stay;
            }
        }
        best
    }

    /// The indices that stay where so many of each group do.
    pub fn kept(&self, groups: &Groups, stay: &[usize]) -> Kept {
        let mut kept = Kept::new();
        for (i, group) in groups.groups.iter().enumerate() {
            let gone = &self.orders[i][..self.counts[i] - stay[i]];
            for &class in gone {
                for (axis, indices) in &group.dimension.classes[class] {
                    let gone: BTreeSet<usize> = indices.iter().copied().collect();
                    let all = || (0..length(&groups.model, &groups.inferred, *axis)).collect();
                    let left = kept.entry(*axis).or_insert_with(all);
                    left.retain(|i: &usize| !gone.contains(i));
                }
            }
        }
        kept
    }
}

/// The model without what is not kept; itself where all is.
pub(super) fn cut_of(groups: &Groups, kept: &Kept) -> Result<Model> {
    match kept.is_empty() {
        true => Ok(groups.model.clone()),
        false => cut(&groups.model, &groups.inferred, kept),
    }
}

/// The steps of a group: the first leaves a multiple, each of the others takes one multiple.
fn steps_of(group: usize, scores: &[f64], order: &[usize], settings: &Settings) -> Vec<Step> {
    let count = scores.len();
    let multiple = settings.round_to.clamp(1, count.max(1));
    let most = match (settings.scope, settings.of) {
        // What is asked of each group alone is what it loses.
        (Scope::Local, Of::Count) => 1.0,
        _ => settings.most.clamp(0.0, 1.0),
    };
    let most = (most * count as f64).floor() as usize;
    let least = multiple.max(1);
    let mean = scores.iter().sum::<f64>() / count.max(1) as f64;
    let mut steps = Vec::new();
    let mut gone = 0;
    loop {
        let rest = (count - gone) % multiple;
        let own = if rest == 0 { multiple } else { rest };
        if gone + own > most || count - gone - own < least {
            return steps;
        }
        let sum: f64 = order[gone..gone + own].iter().map(|&i| scores[i]).sum();
        let score = sum / own as f64 / if mean > 0.0 { mean } else { 1.0 };
        steps.push(Step {
            group,
            count: own,
            score,
        });
        gone += own;
    }
}

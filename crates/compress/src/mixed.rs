//! Mixed precision: as few layers as a goal needs are given more bits than the others.
//!
//! Layers are ordered by what their rounding costs ([`sense`], or the prices of weights), and the
//! least number of them is found by halving; each plan on the way is measured ([`judge`]) and shown.

use edgesmith_ir::{Error, Model, Progress, Result};

use crate::quantize::Layer;
use crate::quantize::changes::Changes;

pub mod bytes;
pub mod choose;
pub mod judge;
pub mod noise;
pub mod sense;
pub mod weights;

use judge::Judge;

/// What the result is to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Goal {
    /// Points of accuracy that may be lost; without labels, points of samples whose largest answer
    /// may be another.
    pub max_drop: Option<f64>,
    /// The least signal to noise of the outputs against the float model, in dB.
    pub min_sqnr_db: Option<f64>,
    /// The most bytes of the file.
    pub size: Option<u64>,
    /// The longest run of one sample here, in ms: the median.
    pub latency_ms: Option<f64>,
}

impl Goal {
    /// True where nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True where it cannot be judged without samples.
    pub fn needs_samples(&self) -> bool {
        self.is_of_quality() || self.latency_ms.is_some()
    }

    /// True where answers have to be good, whatever it costs.
    fn is_of_quality(&self) -> bool {
        self.max_drop.is_some() || self.min_sqnr_db.is_some()
    }
}

/// A layer that can be given more bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// What is given to which nodes.
    pub layers: Vec<Layer>,
    /// Bytes that it costs.
    pub bytes: u64,
    /// Multiply-accumulates that become slower.
    pub macs: u64,
    /// The error that goes: a share of the energy of what it is an error of.
    pub gain: f64,
}

/// What makes models whose layers have more bits.
pub trait Maker {
    /// What layers can be given, in an order in which each is possible after those before it.
    fn moves(&self) -> &[Move];

    /// What a move costs that has only to be good: moves of less are taken first.
    fn cost(&self, of: &Move) -> u64;

    /// The model with these of the moves.
    ///
    /// # Errors
    /// When a step to it fails.
    fn make(&mut self, taken: &[usize]) -> Result<(Model, Changes)>;
}

/// A plan that was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// How many moves were made.
    pub moves: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// Points of accuracy lost, or of answers that changed, where there is data to judge by.
    pub drop: Option<f64>,
    /// Signal to noise of the outputs in dB, where there is data to judge by.
    pub sqnr_db: Option<f64>,
    /// The median of a run of one sample in ms, where the goal asks for it.
    pub latency_ms: Option<f64>,
    /// It keeps the whole goal.
    pub meets: bool,
}

/// How a plan was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Search {
    /// The plans in the order in which they were tried; the last one is not always the one taken.
    pub tried: Vec<Tried>,
    /// What was tried of the plan that was taken.
    pub taken: Option<Tried>,
    /// What layers are given in that plan.
    pub layers: Vec<Layer>,
    /// How many layers there are.
    pub moves: usize,
    /// Parts of the goal that were missed, as sentences.
    pub missed: Vec<String>,
}

/// Plans that leave out one move each that are tried at the end.
const REFINEMENTS: usize = 12;

/// Finds the plan that keeps the goal with the fewest layers of more bits, or, where only size or
/// latency is given, the one with the least error that keeps them. The account of the search is in
/// the changes.
///
/// # Errors
/// When no plan is as good as the goal says, a plan cannot be made or measured, or the user cancels.
pub fn search(
    maker: &mut dyn Maker,
    goal: &Goal,
    judge: &mut Judge,
    progress: &dyn Progress,
) -> Result<(Model, Changes)> {
    let mut finder = Finder {
        maker,
        goal,
        judge,
        progress,
        found: Search::default(),
    };
    finder.found.moves = finder.maker.moves().len();
    let best = match goal.is_of_quality() {
        true => finder.good()?,
        false => finder.within()?,
    };
    Ok(finder.finish(best))
}

struct Finder<'a, 'b> {
    maker: &'a mut dyn Maker,
    goal: &'a Goal,
    judge: &'a mut Judge<'b>,
    progress: &'a dyn Progress,
    found: Search,
}

/// A plan with its model.
struct Attempt {
    taken: Vec<usize>,
    model: Model,
    changes: Changes,
    tried: Tried,
}

impl Finder<'_, '_> {
    fn attempt(&mut self, taken: &[usize], judged: bool) -> Result<Attempt> {
        self.progress.check()?;
        let mut taken = taken.to_vec();
        taken.sort_unstable();
        let (model, changes) = self.maker.make(&taken)?;
        let mut tried = Tried {
            moves: taken.len(),
            bytes: self.judge.bytes(&model)?,
            drop: None,
            sqnr_db: None,
            latency_ms: None,
            meets: true,
        };
        if judged && let Some(quality) = self.judge.quality(&model, self.progress)? {
            (tried.drop, tried.sqnr_db) = (quality.drop, Some(quality.sqnr_db));
        }
        if self.goal.latency_ms.is_some() {
            tried.latency_ms = Some(self.judge.latency_ms(&model)?);
        }
        tried.meets = self.missed(&tried).is_empty();
        self.found.tried.push(tried.clone());
        Ok(Attempt {
            taken,
            model,
            changes,
            tried,
        })
    }

    /// What a plan misses of the goal.
    fn missed(&self, tried: &Tried) -> Vec<String> {
        let mut missed = Vec::new();
        if let (Some(most), Some(drop)) = (self.goal.max_drop, tried.drop)
            && drop > most
        {
            missed.push(format!("{drop:.2} points are lost, over {most}"));
        }
        if let (Some(least), Some(sqnr)) = (self.goal.min_sqnr_db, tried.sqnr_db)
            && sqnr < least
        {
            missed.push(format!("the SQNR is {sqnr:.1} dB, under {least}"));
        }
        if let Some(most) = self.goal.size.filter(|&s| tried.bytes > s) {
            missed.push(format!("the file has {} bytes, over {most}", tried.bytes));
        }
        if let (Some(most), Some(ms)) = (self.goal.latency_ms, tried.latency_ms)
            && ms > most
        {
            missed.push(format!("a run takes {ms:.3} ms, over {most}"));
        }
        missed
    }

    fn is_good(&self, tried: &Tried) -> bool {
        let drop = self
            .goal
            .max_drop
            .is_none_or(|most| tried.drop.is_some_and(|d| d <= most));
        let sqnr = self.goal.min_sqnr_db;
        drop && sqnr.is_none_or(|least| tried.sqnr_db.is_some_and(|s| s >= least))
    }

    /// Moves by what they gain for what they cost, the best first. Where costs are equal it is the
    /// gain that counts.
    fn order(&self, cost: impl Fn(&Move) -> u64) -> Vec<usize> {
        let moves = self.maker.moves();
        let worth = |m: &Move| m.gain / cost(m).max(1) as f64;
        let mut order: Vec<usize> = (0..moves.len()).collect();
        order.sort_by(|&a, &b| worth(&moves[b]).total_cmp(&worth(&moves[a])));
        order
    }

    /// The fewest moves whose answers are good.
    fn good(&mut self) -> Result<Attempt> {
        let mut best = self.attempt(&[], true)?;
        if self.is_good(&best.tried) {
            return Ok(best);
        }
        let order = self.order(|m| self.maker.cost(m));
        let (mut bad, mut good) = (0, order.len());
        while good - bad > 1 {
            let middle = usize::midpoint(bad, good);
            let attempt = self.attempt(&order[..middle], true)?;
            if self.is_good(&attempt.tried) {
                (good, best) = (middle, attempt);
            } else {
                bad = middle;
            }
        }
        if !self.is_good(&best.tried) {
            let of = order.len();
            let missed = self.missed(&best.tried).join("; ");
            let what =
                format!("no plan keeps the goal: with none of {of} layers given more {missed}");
            let hint = "ask for less, or for more bits to begin with; the path is in the order of layers \
                        by what their rounding costs, and all but one were tried too";
            return Err(Error::unsupported(what).hint(hint));
        }
        for &i in order[..good].iter().rev().take(REFINEMENTS) {
            let without: Vec<usize> = best.taken.iter().copied().filter(|&t| t != i).collect();
            if without.is_empty() || without.len() == best.taken.len() {
                continue;
            }
            let attempt = self.attempt(&without, true)?;
            if self.is_good(&attempt.tried) {
                best = attempt;
            }
        }
        Ok(best)
    }

    /// The moves that gain most within size and latency.
    fn within(&mut self) -> Result<Attempt> {
        let base = self.attempt(&[], true)?;
        if !base.tried.meets {
            return Ok(base);
        }
        let mut taken = match self.goal.size {
            Some(size) => self.fitting(size.saturating_sub(base.tried.bytes)),
            None => self.order(|m| m.macs),
        };
        // With every layer given all, nothing would be left to quantise.
        if taken.len() == self.found.moves {
            taken.pop();
        }
        let mut best = base;
        if self.goal.latency_ms.is_none() {
            while !taken.is_empty() {
                let attempt = self.attempt(&taken, true)?;
                if attempt.tried.meets {
                    return Ok(attempt);
                }
                taken.pop();
            }
            return Ok(best);
        }
        let (mut good, mut bad) = (0, taken.len() + 1);
        while bad - good > 1 {
            let middle = usize::midpoint(good, bad);
            let attempt = self.attempt(&taken[..middle], true)?;
            if attempt.tried.meets {
                (good, best) = (middle, attempt);
            } else {
                bad = middle;
            }
        }
        Ok(best)
    }

    /// The moves that gain most a byte and fit into so many bytes together.
    fn fitting(&self, mut bytes: u64) -> Vec<usize> {
        let mut taken = self.order(|m| m.bytes);
        taken.retain(|&i| {
            let cost = self.maker.moves()[i].bytes;
            let fits = cost <= bytes;
            bytes -= if fits { cost } else { 0 };
            fits
        });
        taken
    }

    fn finish(mut self, best: Attempt) -> (Model, Changes) {
        self.found.missed = self.missed(&best.tried);
        let moves = self.maker.moves();
        let given = best.taken.iter().flat_map(|&i| &moves[i].layers);
        self.found.layers = given.cloned().collect();
        self.found.taken = Some(best.tried);
        let mut changes = best.changes;
        changes.search = Some(self.found);
        (best.model, changes)
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{NoProgress, Tensor, text};

    use super::bytes::Bytes;
    use super::sense::Sense;
    use super::weights::Weights;
    use super::*;
    use crate::calibrate;
    use crate::quantize::int8::{self, Ready};
    use crate::quantize::testing::numbers;
    use crate::quantize::weight_only::{self, method};
    use crate::samples::InMemory;

    /// Four products of 32 by 32; the third has a channel that is 40 times as large as the others.
    fn net() -> Model {
        let weights = (1..5).map(|i| {
            let mut data = numbers(32 * 32, i);
            if i == 3 {
                data.iter_mut().step_by(32).for_each(|w| *w *= 40.0);
            }
            let list: Vec<String> = data.iter().map(|x| format!("{x:?}")).collect();
            format!("  w{i}: f32[32,32] = {{{}}}\n", list.join(","))
        });
        let weights: String = weights.collect();
        let source = format!(
            "opset 17\ngraph net(x: f32[n,32]) -> (y: f32[n,32]) {{\n{weights}  a = MatMul(x, w1) \
             {{name=\"m1\"}}\n  b = Relu(a) {{name=\"r1\"}}\n  c = MatMul(b, w2) {{name=\"m2\"}}\n  d = Relu(c) \
             {{name=\"r2\"}}\n  e = MatMul(d, w3) {{name=\"m3\"}}\n  f = Tanh(e) {{name=\"t\"}}\n  y = MatMul(f, \
             w4) {{name=\"m4\"}}\n}}\n"
        );
        text::parse(&source).unwrap()
    }

    fn samples(labels: bool) -> InMemory {
        InMemory {
            name: "x".into(),
            rows: Tensor::from_vec(&[64, 32], numbers(64 * 32, 9)).unwrap(),
            labels: labels.then(|| (0..64).map(|i| i % 32).collect()),
        }
    }

    fn weights(goal: Goal) -> Result<(Model, Changes)> {
        let (model, samples) = (net(), samples(false));
        let mut settings = weight_only::Settings::new(&method::RTN, 4);
        settings.scheme.group = 16;
        let mut maker = Weights::new(&model, None, &settings, &NoProgress)?;
        let mut judge = Judge::new(&model, Some(&samples), &goal, None)?;
        search(&mut maker, &goal, &mut judge, &NoProgress)
    }

    fn int8(goal: Goal) -> Result<(Model, Changes)> {
        let (model, samples) = (net(), samples(false));
        let settings = int8::Settings {
            per_channel: false,
            smooth: false,
            ..int8::Settings::default()
        };
        let calibration = calibrate::Settings::default();
        let mut look = int8::look(&samples, &calibration, &NoProgress);
        let ready = Ready::of(&model, &mut look, &settings)?;
        let mut maker = Bytes::new(
            &ready,
            &settings,
            Sense::Sqnr,
            &samples,
            &samples,
            &NoProgress,
        )?;
        let mut judge = Judge::new(&model, Some(&samples), &goal, None)?;
        search(&mut maker, &goal, &mut judge, &NoProgress)
    }

    fn sqnr(db: f64) -> Goal {
        Goal {
            min_sqnr_db: Some(db),
            ..Goal::default()
        }
    }

    #[test]
    fn a_goal_that_is_kept_already_raises_nothing() {
        for (_, changes) in [weights(sqnr(1.0)).unwrap(), int8(sqnr(1.0)).unwrap()] {
            let search = changes.search.unwrap();
            assert_eq!((search.tried.len(), search.layers.len()), (1, 0));
        }
    }

    #[test]
    fn the_layer_that_loses_most_is_the_first_to_stay_float() {
        let plain = int8(sqnr(1.0)).unwrap().1.search.unwrap();
        let before = plain.taken.unwrap().sqnr_db.unwrap();
        let (model, changes) = int8(sqnr(before + 2.0)).unwrap();
        let search = changes.search.unwrap();
        assert_eq!(search.layers, [Layer::float("m3")]);
        assert!(search.taken.unwrap().sqnr_db.unwrap() >= before + 2.0 && search.missed.is_empty());
        let kept = model.graph.nodes().find(|(_, n)| n.name == "m3").unwrap().1;
        let weight = kept.input(1).and_then(|v| model.graph.constant(v));
        assert!(weight.is_some_and(|t| t.dtype().is_float()));
    }

    #[test]
    fn none_of_the_raised_layers_could_be_left_out() {
        let search = weights(sqnr(35.0)).unwrap().1.search.unwrap();
        let taken = search.taken.unwrap();
        assert!(taken.sqnr_db.unwrap() >= 35.0 && taken.moves > 0);
        let fewer = search.tried.iter().filter(|t| t.moves + 1 == taken.moves);
        let fewer: Vec<&Tried> = fewer.collect();
        assert!(fewer.len() >= taken.moves, "each was left out once");
        assert!(fewer.iter().all(|t| !t.meets));
    }

    #[test]
    fn a_size_is_used_up_and_not_passed() {
        let least = weights(sqnr(1.0)).unwrap().1.search.unwrap().taken.unwrap();
        let size = least.bytes + 1200;
        let goal = Goal {
            size: Some(size),
            ..Goal::default()
        };
        let search = weights(goal).unwrap().1.search.unwrap();
        let taken = search.taken.unwrap();
        assert!(taken.bytes <= size && taken.bytes + 600 > size, "{taken:?}");
        assert!(taken.sqnr_db > least.sqnr_db);
        let goal = Goal {
            size: Some(100),
            ..Goal::default()
        };
        let search = weights(goal).unwrap().1.search.unwrap();
        assert!(search.missed[0].contains("over 100") && search.layers.is_empty());
    }

    #[test]
    fn a_goal_that_no_plan_keeps_is_refused() {
        let e = int8(sqnr(500.0)).unwrap_err().to_string();
        assert!(e.contains("no plan keeps the goal"), "{e}");
    }

    #[test]
    fn a_drop_is_of_labels_or_of_answers_that_changed() {
        let goal = Goal {
            max_drop: Some(0.0),
            ..Goal::default()
        };
        let model = net();
        for labels in [true, false] {
            let samples = samples(labels);
            let mut judge = Judge::new(&model, Some(&samples), &goal, None).unwrap();
            let own = judge.quality(&model, &NoProgress).unwrap().unwrap();
            assert_eq!((own.drop, own.sqnr_db), (Some(0.0), f64::INFINITY));
            let settings = weight_only::Settings::new(&method::RTN, 2);
            let coarse = weight_only::quantize(&model, None, &settings, &NoProgress)
                .unwrap()
                .0;
            let lost = judge.quality(&coarse, &NoProgress).unwrap().unwrap();
            assert!(lost.drop.unwrap() != 0.0 && lost.sqnr_db < 20.0);
        }
    }
}

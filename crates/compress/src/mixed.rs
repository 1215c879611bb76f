//! Mixed precision: as few layers as a goal needs are given more bits than the others.
//!
//! Layers are ordered by what their rounding costs ([`sense`], or the prices of weights), and the
//! least number of them is found by halving; each plan on the way is measured ([`judge`]) and shown.

use edgesmith_ir::{Error, Model, Progress, Result};

use crate::quantize::Layer;
use crate::quantize::changes::Changes;

pub mod bytes;
pub mod judge;
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

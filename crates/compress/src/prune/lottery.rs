//! Lottery tickets: a part of a network that learns as well as the whole, begun with the same numbers.
//!
//! J. Frankle and M. Carbin, "The Lottery Ticket Hypothesis" (2019): train, prune a share of what is
//! left in each layer by size, set what stays back to what it was, and train again; of the layer before
//! the output half as much goes. With `rewind` numbers go back to those of an early step (Frankle et
//! al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", 2020). Each run begins with new
//! states of the optimizer and the schedule from its beginning.

use std::collections::BTreeMap;

use edgesmith_ir::random::Random;
use edgesmith_ir::{Error, Model, NoStore, Result, Tensor};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::fresh::fresh;
use edgesmith_train::{Data, Settings as TrainSettings, Training, Watch, trainer};

mod saved;

pub use saved::Shelf;

use saved::Keeps;

use super::weights::sites::{Choice, Site, Sites};
use crate::samples::{Samples, named};

/// What a ticket is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The weights that stay begin as they began.
    Ticket,
    /// The same weights stay, and begin with other numbers.
    Reinit,
    /// As many weights of each layer stay, by chance, and begin as they began.
    Random,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::Reinit => "reinit",
            Self::Random => "random",
        }
    }
}

/// What can be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How often a share is pruned.
    pub levels: usize,
    /// The share of what is left that goes each time.
    pub rate: f64,
    /// The same of the layer before an output.
    pub last_rate: f64,
    /// The step to whose numbers weights go back.
    pub rewind: usize,
    /// What tickets are compared with.
    pub controls: Vec<Kind>,
    /// The first level at which they are.
    pub controls_from: usize,
    /// Runs from other numbers.
    pub trials: usize,
    /// Nodes whose weights stay, by name.
    pub exclude: Vec<String>,
}

impl Settings {
    /// # Errors
    /// When a number is out of range.
    pub fn check(&self) -> Result<()> {
        for (name, rate) in [("prune-rate", self.rate), ("last-rate", self.last_rate)] {
            if !(0.0..1.0).contains(&rate) {
                let what = format!("the {name} {rate} is no share");
                return Err(Error::usage(what).hint("from 0 to less than 1"));
            }
        }
        if self.levels == 0 || self.trials == 0 || self.rate == 0.0 {
            return Err(Error::usage("there is nothing to prune")
                .hint("levels and trials are at least 1, the rate is more than 0"));
        }
        Ok(())
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which numbers it began with, from 0 on.
    pub trial: usize,
    /// How often a share was pruned; 0 is the whole network.
    pub level: usize,
    /// What it is.
    pub kind: Kind,
    /// Weights that are left.
    pub left: usize,
    /// The step of the least loss on validation.
    pub early_step: usize,
    /// That loss.
    pub early_loss: f64,
    /// The part of right answers there, on validation.
    pub early: f64,
    /// The same after the last step.
    pub end: f64,
    /// The same on the test, where there is one.
    pub test: Option<f64>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Lottery {
    /// What was asked for.
    pub settings: Settings,
    /// Weights that could be pruned.
    pub weights: usize,
    /// Steps of a run.
    pub steps: usize,
    /// Every run, in order.
    pub rows: Vec<Row>,
}

impl Lottery {
    /// The runs of a level and kind.
    pub fn of(&self, level: usize, kind: Kind) -> impl Iterator<Item = &Row> {
        let is = move |r: &&Row| r.level == level && r.kind == kind;
        self.rows.iter().filter(is)
    }
}

/// Samples with labels that judge.
#[derive(Clone, Copy)]
pub struct Judges<'a> {
    /// Those that say when a run was best.
    pub validate: &'a dyn Samples,
    /// Those that nothing is chosen by.
    pub test: Option<&'a dyn Samples>,
    /// Threads.
    pub threads: usize,
}

/// What is trained again and again.
pub struct Draw<'a> {
    /// The training graph.
    pub training: Training,
    /// How.
    pub train: TrainSettings,
    /// What can be told.
    pub settings: &'a Settings,
    /// Who judges.
    pub judges: Judges<'a>,
    /// Where runs are kept that are over.
    shelf: Option<Shelf<'a>>,
    /// The weights, and those before an output.
    sites: Vec<(Site, bool)>,
}

/// Masks of weights, in the order of tensors, by the place of the weight.
type Masks = Vec<Vec<bool>>;

impl<'a> Draw<'a> {
    /// The weights of a training graph that tickets are drawn of.
    ///
    /// # Errors
    /// When a setting is wrong, or there are no weights.
    pub fn of(
        training: Training,
        train: TrainSettings,
        settings: &'a Settings,
        judges: Judges<'a>,
    ) -> Result<Self> {
        settings.check()?;
        let choice = Choice {
            everything: true,
            exclude: settings.exclude.clone(),
            pattern: None,
        };
        let sites = Sites::of(&training.base, &choice)?;
        let nothing = sites.nothing();
        let is_trained = |s: &Site| training.parameters.iter().any(|p| p.name == s.name);
        let mut found = Vec::new();
        for site in sites.all.into_iter().filter(is_trained) {
            let is_last = site.nodes.iter().any(|id| sites.last.contains(id));
            found.push((site, is_last));
        }
        if found.is_empty() {
            return Err(nothing);
        }
        Ok(Self {
            training,
            train,
            settings,
            judges,
            shelf: None,
            sites: found,
        })
    }

    /// Keeps each run that is over, and goes on behind those that are kept already. A quantised model
    /// has none kept.
    #[must_use]
    pub fn kept(mut self, shelf: Option<Shelf<'a>>) -> Self {
        self.shelf = shelf.filter(|_| self.training.thawed.weights.is_empty());
        self
    }

    /// Draws tickets; the runs, and the last ticket of the first trial as it was trained, with its
    /// masks by name.
    ///
    /// # Errors
    /// When a run fails, or the user cancels.
    pub fn draw(&self, data: &mut dyn Data, follow: &dyn Watch) -> Result<Drawn> {
        let mut found = Lottery {
            settings: self.settings.clone(),
            weights: self.sites.iter().map(|(s, _)| numbers(s)).sum(),
            steps: data.count() / self.train.batch.min(data.count().max(1)) * self.train.epochs,
            rows: Vec::new(),
        };
        if self.settings.rewind >= found.steps {
            let what = format!(
                "there is no step {} in {}",
                self.settings.rewind, found.steps
            );
            return Err(Error::usage(what).hint("--rewind is a step early in the run"));
        }
        let mut last = None;
        let mut number = 0;
        let mut run =
            |keeps: Keeps, begin: &Model, back: Option<&Vec<Vec<f32>>>, masks: &Masks, trial| {
                number += 1;
                let at = (number - 1, keeps);
                self.run_or_recall(at, begin, back, masks, (trial, &mut *data, follow))
            };
        for trial in 0..self.settings.trials {
            let seed = self.train.seed + trial as u64;
            let begin = fresh(&self.training.base, seed, &[])?;
            let mut masks: Masks = self
                .sites
                .iter()
                .map(|(s, _)| vec![true; numbers(s)])
                .collect();
            let whole = run(Keeps::Numbers, &begin, None, &masks, trial)?;
            found.rows.push(whole.row(0, Kind::Ticket, &masks));
            let back = whole.kept.clone();
            let mut trained = whole;
            for level in 1..=self.settings.levels {
                masks = self.pruned(&masks, &trained.last);
                let compared = level >= self.settings.controls_from;
                for &kind in self.settings.controls.iter().filter(|_| compared) {
                    let (begin, back, masks) = match kind {
                        Kind::Reinit => {
                            (fresh(&self.training.base, !seed, &[])?, None, masks.clone())
                        }
                        _ => (begin.clone(), back.as_ref(), by_chance(&masks, seed, level)),
                    };
                    let run = run(Keeps::Row, &begin, back, &masks, trial)?;
                    found.rows.push(run.row(level, kind, &masks));
                }
                let keeps = match trial == 0 && level == self.settings.levels {
                    true => Keeps::Model,
                    false => Keeps::Numbers,
                };
                trained = run(keeps, &begin, back.as_ref(), &masks, trial)?;
                let row = trained.row(level, Kind::Ticket, &masks);
                tell(&row, found.weights, follow);
                found.rows.push(row);
            }
            if trial == 0 {
                let named = self.sites.iter().zip(&masks);
                let named = named.map(|((s, _), m)| (s.name.clone(), m.clone()));
                last = Some((trained.model, named.collect()));
            }
        }
        if let Some(shelf) = &self.shelf {
            shelf.forget(number);
        }
        let (model, masks) = last.ok_or_else(|| Error::internal("there is a trial at least"))?;
        let model = model.ok_or_else(|| Error::internal("the last ticket keeps its model"))?;
        Ok(Drawn {
            lottery: found,
            model,
            masks,
        })
    }

    /// What stays after another share of the smallest numbers of each layer went.
    fn pruned(&self, masks: &Masks, trained: &[Vec<f32>]) -> Masks {
        let one = |((site, is_last), mask): (&(Site, bool), &Vec<bool>)| {
            let place = self
                .training
                .parameters
                .iter()
                .position(|p| p.name == site.name);
            let numbers = place.map_or(&[][..], |i| &trained[i]);
            let rate = if *is_last {
                self.settings.last_rate
            } else {
                self.settings.rate
            };
            smaller(mask, numbers, rate)
        };
        self.sites.iter().zip(masks).map(one).collect()
    }

    /// Parameters as a run begins: those of `begin`, or of the early step, masked.
    fn begun(
        &self,
        begin: &Model,
        back: Option<&Vec<Vec<f32>>>,
        masks: &Masks,
    ) -> Result<Training> {
        let mut training = self.training.clone();
        for (i, p) in training.parameters.iter_mut().enumerate() {
            let own = p.value.and_then(|v| begin.graph.constant(v)).cloned();
            let mut numbers = match (back, own) {
                (Some(back), _) => back[i].clone(),
                (None, Some(t)) => t.to_f32()?.into_owned(),
                (None, None) => p.data.to_f32()?.into_owned(),
            };
            if let Some(at) = self.sites.iter().position(|(s, _)| s.name == p.name) {
                edgesmith_train::masked::apply(&masks[at], &mut numbers);
                p.mask = Some(masks[at].clone());
            }
            p.data = Tensor::from_vec(p.data.dims(), numbers)?;
        }
        for s in &mut training.states {
            if let Some(t) = begin.graph.constant(s.value) {
                s.data = t.clone();
            }
        }
        Ok(training)
    }

    /// A run, or what is kept of it.
    fn run_or_recall(
        &self,
        (number, keeps): (usize, Keeps),
        begin: &Model,
        back: Option<&Vec<Vec<f32>>>,
        masks: &Masks,
        (trial, data, follow): (usize, &mut dyn Data, &dyn Watch),
    ) -> Result<Run> {
        let shelf = self.shelf.as_ref();
        if let Some(run) = shelf.and_then(|s| s.load(number, &self.training)) {
            follow.note(&format!("run {} was done before", number + 1));
            return Ok(run);
        }
        let run = self.run(begin, back, masks, trial, data, follow)?;
        if let Some(shelf) = shelf {
            shelf.save(number, &run, keeps, &self.training)?;
        }
        Ok(run)
    }

    fn run(
        &self,
        begin: &Model,
        back: Option<&Vec<Vec<f32>>>,
        masks: &Masks,
        trial: usize,
        data: &mut dyn Data,
        follow: &dyn Watch,
    ) -> Result<Run> {
        let training = self.begun(begin, back, masks)?;
        let is_first = back.is_none();
        let settings = TrainSettings {
            seed: self.train.seed + trial as u64,
            keep_at: (is_first).then_some(self.settings.rewind),
            patience: 0,
            ..self.train.clone()
        };
        let (mut judged, mut at) = (Vec::new(), 0);
        let every = settings.judge_every;
        let steps = data.count() / settings.batch.min(data.count().max(1));
        let mut judge = |model: &Model| {
            at = next(at, every, steps);
            let found = self.judged(model, self.judges.validate)?;
            judged.push((at, found));
            Ok(-found.loss)
        };
        let quiet = Quiet(follow);
        let judge = Some(trainer::JudgedBy::Model(&mut judge));
        let made = trainer::train(&training, data, &settings, judge, (&NoStore, ""), &quiet)?;
        if let Some(why) = made.broken {
            return Err(Error::invalid(why)
                .hint("a smaller --rate, a longer --warmup, or --clip 1 may help"));
        }
        let shown: Vec<&[f32]> = made.last.iter().map(Vec::as_slice).collect();
        let states: Vec<Tensor> = training.states.iter().map(|s| s.data.clone()).collect();
        // States after the last step are those of the best epoch where it was the last.
        let model = match made.best + 1 == settings.epochs {
            true => made.model,
            false if states.is_empty() => training.model_with(&shown, &states)?,
            false => made.model,
        };
        let least = judged.iter().min_by(|a, b| a.1.loss.total_cmp(&b.1.loss));
        let (early_step, early) = *least.ok_or_else(|| Error::internal("an epoch is judged"))?;
        let end = judged.last().map_or(early.right, |(_, j)| j.right);
        let test = self.judges.test;
        let tested = test.map(|t| self.judged(&model, t)).transpose()?;
        Ok(Run {
            trial,
            early_step,
            early,
            end,
            tested: tested.map(|t| t.right),
            kept: made.kept,
            last: made.last,
            model: Some(model),
        })
    }

    fn judged(&self, model: &Model, samples: &dyn Samples) -> Result<Judged> {
        let options = Options {
            threads: self.judges.threads,
            ..Options::default()
        };
        let mut session = Session::prepare(model, &options)?;
        let labels = samples.labels().ok_or_else(|| {
            Error::invalid("samples without labels judge nothing")
                .hint("an array `labels`, the class of each sample")
        })?;
        let made_by = model
            .graph
            .outputs
            .first()
            .and_then(|v| model.graph.value(*v).producer());
        let is_softmax = made_by.is_some_and(|(id, _)| model.graph.node(id).is("Softmax"));
        let (mut loss, mut right, mut count) = (0.0, 0u64, 0u64);
        for batch in samples.batches(BATCH) {
            let (range, fed) = batch?;
            let outputs = session.run(&named(&fed))?;
            let first = outputs.first();
            let first = first.ok_or_else(|| Error::invalid("the model has no output"))?;
            let data = first.to_f32()?;
            let width = (data.len() / range.len().max(1)).max(1);
            for (line, &label) in data.chunks(width).zip(&labels[range]) {
                let Some(&own) = usize::try_from(label).ok().and_then(|l| line.get(l)) else {
                    continue;
                };
                let score = |x: f32| {
                    if is_softmax {
                        x.max(f32::MIN_POSITIVE).ln()
                    } else {
                        x
                    }
                };
                let line: Vec<f32> = line.iter().map(|x| score(*x)).collect();
                let own = score(own);
                let most = line.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = line.iter().map(|x| f64::from(x - most).exp()).sum();
                loss += sum.ln() - f64::from(own - most);
                let best = line.iter().position(|x| *x == most);
                right += u64::from(best == usize::try_from(label).ok());
                count += 1;
            }
        }
        let count = count.max(1) as f64;
        Ok(Judged {
            loss: loss / count,
            right: right as f64 / count,
        })
    }
}

/// Samples that are judged at once.
const BATCH: usize = 256;

/// A mean loss, of scores, and the part of right answers.
#[derive(Debug, Clone, Copy)]
struct Judged {
    loss: f64,
    right: f64,
}

/// What [`Draw::draw`] found.
#[derive(Debug)]
pub struct Drawn {
    /// The runs.
    pub lottery: Lottery,
    /// The last ticket of the first trial, trained.
    pub model: Model,
    /// Its masks, by the name of the constant.
    pub masks: BTreeMap<String, Vec<bool>>,
}

struct Run {
    trial: usize,
    early_step: usize,
    early: Judged,
    end: f64,
    tested: Option<f64>,
    kept: Option<Vec<Vec<f32>>>,
    last: Vec<Vec<f32>>,
    /// The trained model, where it was kept.
    model: Option<Model>,
}

impl Run {
    fn row(&self, level: usize, kind: Kind, masks: &Masks) -> Row {
        Row {
            trial: self.trial,
            level,
            kind,
            left: masks.iter().flatten().filter(|k| **k).count(),
            early_step: self.early_step,
            early_loss: self.early.loss,
            early: self.early.right,
            end: self.end,
            test: self.tested,
        }
    }
}

fn numbers(site: &Site) -> usize {
    site.lengths.rows * site.lengths.columns
}

/// The step of the judgement after the one at `at`.
fn next(at: usize, every: usize, steps: usize) -> usize {
    let end = (at / steps.max(1) + 1) * steps;
    match every {
        0 => end,
        n => ((at / n + 1) * n).min(end),
    }
}

/// What stays where the share `rate` of what is left goes: the smallest numbers.
fn smaller(mask: &[bool], numbers: &[f32], rate: f64) -> Vec<bool> {
    let mut left: Vec<usize> = (0..mask.len()).filter(|&i| mask[i]).collect();
    let size = |i: &usize| numbers.get(*i).map_or(0.0, |x| x.abs());
    left.sort_by(|a, b| size(a).total_cmp(&size(b)).then(a.cmp(b)));
    let gone = (rate * left.len() as f64).round() as usize;
    let mut mask = mask.to_vec();
    left[..gone.min(left.len())]
        .iter()
        .for_each(|&i| mask[i] = false);
    mask
}

/// As many of each layer, by chance.
fn by_chance(masks: &Masks, seed: u64, level: usize) -> Masks {
    let one = |(i, mask): (usize, &Vec<bool>)| {
        let mut random = Random::of(&[seed, 0x1077, level as u64, i as u64]);
        let left = mask.iter().filter(|k| **k).count();
        let mut other = vec![false; mask.len()];
        random
            .some(left, mask.len())
            .into_iter()
            .for_each(|i| other[i] = true);
        other
    };
    masks.iter().enumerate().map(one).collect()
}

fn tell(row: &Row, all: usize, follow: &dyn Watch) {
    follow.note(&format!(
        "trial {} level {}: {:.2} % of {all} weights are left, {:.2} % right in the end",
        row.trial,
        row.level,
        100.0 * row.left as f64 / all.max(1) as f64,
        100.0 * row.test.unwrap_or(row.end)
    ));
}

/// Tells of no steps and epochs: there are many runs.
struct Quiet<'a>(&'a dyn Watch);

impl edgesmith_ir::Progress for Quiet<'_> {
    fn start(&self, phase: &str, total: u64) {
        self.0.start(phase, total);
    }
    fn advance(&self, units: u64) {
        self.0.advance(units);
    }
    fn finish(&self) {
        self.0.finish();
    }
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

impl Watch for Quiet<'_> {}

#[cfg(test)]
mod tests {
    use edgesmith_ir::NoProgress;

    use super::*;
    use crate::quantize::testing::numbers as numbers_of;
    use crate::samples::InMemory;

    /// Rows of four numbers, of two classes.
    struct Rows;

    impl Rows {
        fn of(range: std::ops::Range<usize>) -> (Tensor, Vec<i64>) {
            let data = range.clone().flat_map(|i| numbers_of(4, i as u32));
            let data: Vec<f32> = data.collect();
            let labels = data
                .chunks(4)
                .map(|r| i64::from(r[0] + r[1] > r[2]))
                .collect();
            (Tensor::from_vec(&[range.len(), 4], data).unwrap(), labels)
        }
    }

    impl Data for Rows {
        fn count(&self) -> usize {
            64
        }
        fn batch(&mut self, samples: &[usize], _: usize) -> Result<Vec<(String, Tensor)>> {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            for &i in samples {
                let (row, label) = Self::of(i..i + 1);
                x.extend_from_slice(&row.to_f32()?);
                y.extend(label);
            }
            let x = Tensor::from_vec(&[samples.len(), 4], x)?;
            Ok(vec![("x".into(), x), ("labels".into(), Tensor::vector(y))])
        }
    }

    fn training() -> Training {
        let list = |n: usize| {
            let all: Vec<String> = numbers_of(n, 1).iter().map(|x| format!("{x:?}")).collect();
            all.join(",")
        };
        let source = format!(
            "opset 17 graph g(x: f32[n,4]) -> (y: f32[n,2]) {{
            w: f32[4,8] = {{{}}} b: f32[8] = {{0,0,0,0,0,0,0,0}} v: f32[8,2] = {{{}}} c: f32[2] = {{0,0}}
            h = Gemm(x, w, b) r = Relu(h) y = Gemm(r, v, c) }}",
            list(32),
            list(16)
        );
        let model = edgesmith_ir::text::parse(&source).unwrap();
        let mut draft = edgesmith_train::Draft::new(&model, &Default::default()).unwrap();
        let loss = edgesmith_train::losses::find("cross-entropy").unwrap();
        draft.add_term(loss, 1.0, &Default::default()).unwrap();
        draft.finish().unwrap()
    }

    fn settings(rewind: usize) -> Settings {
        Settings {
            levels: 3,
            rate: 0.25,
            last_rate: 0.125,
            rewind,
            controls: vec![Kind::Reinit, Kind::Random],
            controls_from: 2,
            trials: 2,
            exclude: Vec::new(),
        }
    }

    fn judge() -> InMemory {
        let (rows, labels) = Rows::of(100..150);
        InMemory {
            name: "x".into(),
            rows,
            labels: Some(labels),
        }
    }

    fn how() -> TrainSettings {
        TrainSettings {
            epochs: 2,
            batch: 8,
            rate: 0.02,
            threads: 1,
            judge_every: 3,
            ..TrainSettings::default()
        }
    }

    #[test]
    fn what_stays_begins_as_it_was_before_the_step_bit_for_bit() {
        for rewind in [0, 5] {
            let (settings, judge) = (settings(rewind), judge());
            let judges = Judges {
                validate: &judge,
                test: None,
                threads: 1,
            };
            let draw = Draw::of(training(), how(), &settings, judges).unwrap();
            let begin = fresh(&draw.training.base, 0, &[]).unwrap();
            let whole = vec![vec![true; 32], vec![true; 16]];
            let run = draw
                .run(&begin, None, &whole, 0, &mut Rows, &NoProgress)
                .unwrap();
            let kept = run.kept.clone().unwrap();
            let masks = draw.pruned(&whole, &run.last);
            let begun = draw.begun(&begin, Some(&kept), &masks).unwrap();
            for (p, back) in begun.parameters.iter().zip(&kept) {
                let at = draw.sites.iter().position(|(s, _)| s.name == p.name);
                for (i, (x, b)) in p.data.to_f32().unwrap().iter().zip(back).enumerate() {
                    match at.is_none_or(|at| masks[at][i]) {
                        true => assert_eq!(x.to_bits(), b.to_bits()),
                        false => assert_eq!(x.to_bits(), 0),
                    }
                }
            }
            if rewind == 0 {
                let first = draw.begun(&begin, None, &whole).unwrap();
                for (p, back) in first.parameters.iter().zip(&kept) {
                    assert_eq!(&p.data.to_f32().unwrap()[..], &back[..]);
                }
            }
        }
    }

    #[test]
    fn every_level_has_its_runs_and_the_same_seed_gives_the_same() {
        let (settings, judge) = (settings(0), judge());
        let drawn = |_| {
            let judges = Judges {
                validate: &judge,
                test: Some(&judge),
                threads: 1,
            };
            let draw = Draw::of(training(), how(), &settings, judges).unwrap();
            draw.draw(&mut Rows, &NoProgress).unwrap()
        };
        let first = drawn(0);
        let found = &first.lottery;
        assert_eq!((found.weights, found.steps), (48, 16));
        let left = |level| found.of(level, Kind::Ticket).next().unwrap().left;
        // Of 32 a quarter goes each time, of 16 before the output an eighth.
        assert_eq!([0, 1, 2, 3].map(left), [48, 24 + 14, 18 + 12, 13 + 10]);
        let count = |level, kind| found.of(level, kind).count();
        assert_eq!([count(1, Kind::Ticket), count(1, Kind::Reinit)], [2, 0]);
        assert_eq!([count(3, Kind::Reinit), count(3, Kind::Random)], [2, 2]);
        for row in &found.rows {
            assert!(row.early_step >= 3 && row.early_step <= 16);
            assert_eq!(row.test, Some(row.end), "the same samples judge both");
        }
        assert_eq!(drawn(1).lottery, first.lottery);
        for (name, mask) in &first.masks {
            let v = first.model.graph.find_value(name).unwrap();
            let data = first.model.graph.constant(v).unwrap().to_f32().unwrap();
            assert!(data.iter().zip(mask).all(|(x, k)| *k || *x == 0.0));
        }
    }

    /// Stores in memory that let so many runs be kept and then fail.
    struct Shelves {
        all: std::cell::RefCell<BTreeMap<String, Vec<u8>>>,
        left: std::cell::Cell<usize>,
    }

    struct One<'a>(&'a Shelves, String);

    impl crate::calibrate::Stores for Shelves {
        fn store(&self, key: &str) -> Box<dyn edgesmith_ir::Store + '_> {
            Box::new(One(self, key.into()))
        }
    }

    impl edgesmith_ir::Store for One<'_> {
        fn load(&self) -> Option<Vec<u8>> {
            self.0.all.borrow().get(&self.1).cloned()
        }
        fn save(&self, bytes: &[u8]) -> Result<()> {
            let left = self.0.left.get().checked_sub(1);
            self.0
                .left
                .set(left.ok_or_else(|| Error::invalid("the disk is full"))?);
            self.0.all.borrow_mut().insert(self.1.clone(), bytes.into());
            Ok(())
        }
        fn forget(&self) {
            self.0.all.borrow_mut().remove(&self.1);
        }
    }

    #[test]
    fn a_search_that_was_broken_off_goes_on_to_the_same_bytes() {
        let (settings, judge) = (settings(5), judge());
        let draw = |stores: Option<&Shelves>| {
            let judges = Judges {
                validate: &judge,
                test: Some(&judge),
                threads: 1,
            };
            let shelf = stores.map(|stores| Shelf {
                stores,
                key: "k".into(),
            });
            let draw = Draw::of(training(), how(), &settings, judges).unwrap();
            draw.kept(shelf).draw(&mut Rows, &NoProgress)
        };
        let whole = draw(None).unwrap();
        for runs in [1, 4, 9, 15] {
            let shelves = Shelves {
                all: Default::default(),
                left: runs.into(),
            };
            let e = draw(Some(&shelves)).unwrap_err().to_string();
            assert!(e.contains("the disk is full"), "{e}");
            assert_eq!(shelves.all.borrow().len(), runs);
            shelves.left.set(usize::MAX);
            let found = draw(Some(&shelves)).unwrap();
            assert_eq!(found.lottery, whole.lottery, "{runs}");
            assert_eq!(found.model.graph, whole.model.graph, "{runs}");
            assert_eq!(found.masks, whole.masks);
            assert!(shelves.all.borrow().is_empty(), "what is over is dropped");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let with = |change: &dyn Fn(&mut Settings)| {
            let mut s = settings(0);
            change(&mut s);
            s.check()
        };
        assert!(with(&|_| ()).is_ok());
        assert!(with(&|s| s.rate = 1.0).is_err());
        assert!(with(&|s| s.rate = 0.0).is_err());
        assert!(with(&|s| s.last_rate = -0.1).is_err());
        assert!(with(&|s| s.levels = 0).is_err());
        assert!(with(&|s| s.trials = 0).is_err());
        let (settings, judge) = (settings(1000), judge());
        let judges = Judges {
            validate: &judge,
            test: None,
            threads: 1,
        };
        let draw = Draw::of(training(), how(), &settings, judges).unwrap();
        let e = draw.draw(&mut Rows, &NoProgress).unwrap_err().to_string();
        assert!(e.contains("there is no step 1000 in 16"), "{e}");
    }

    #[test]
    fn a_share_of_what_is_left_goes_and_nothing_comes_back() {
        let numbers = [0.5f32, -0.1, 0.2, -3.0, 0.0, 0.2, 1.0, -0.4, 0.3, 0.05];
        let mut mask = vec![true; 10];
        for left in [8, 6, 5, 4, 3] {
            let after = smaller(&mask, &numbers, 0.2);
            assert_eq!(after.iter().filter(|k| **k).count(), left);
            assert!(after.iter().zip(&mask).all(|(a, b)| *b || !*a));
            mask = after;
        }
        assert!(mask[0] && mask[3] && mask[6]);
    }

    #[test]
    fn chance_leaves_as_many_of_each_layer() {
        let masks = vec![vec![true, false, false, true, true], vec![false; 3]];
        let other = by_chance(&masks, 1, 2);
        let left = |m: &Masks| -> Vec<usize> {
            m.iter().map(|m| m.iter().filter(|k| **k).count()).collect()
        };
        assert_eq!(left(&other), left(&masks));
        assert_eq!(by_chance(&masks, 1, 2), other);
    }

    #[test]
    fn judgements_come_at_steps_and_at_ends_of_epochs() {
        let mut at = 0;
        let steps: Vec<usize> = (0..6)
            .map(|_| {
                at = next(at, 4, 10);
                at
            })
            .collect();
        assert_eq!(steps, [4, 8, 10, 12, 16, 20]);
        assert_eq!([next(0, 0, 10), next(10, 0, 10)], [10, 20]);
    }
}

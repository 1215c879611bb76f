//! The loop: batches in, steps of the optimizer, validation, checkpoints.

use std::time::{Duration, Instant};

use edgesmith_ir::random::Random;
use edgesmith_ir::{Error, Model, Progress, Result, Store, Tensor};
use edgesmith_runtime::{Options, Session};

use crate::optimizer::{self, MOMENTUM, Numbers, Optimizer};
use crate::schedule::{self, Schedule};
use crate::training::Training;

mod checkpoint;
mod held;
mod settings;
mod weights;

pub use checkpoint::{Checkpoint, Epoch};
use held::Held;
pub use settings::Settings;
use weights::Weights;

/// Where samples come from.
pub trait Data {
    /// How many there are.
    fn count(&self) -> usize;

    /// The length of each sample, where those of a batch should be alike so that little is padded.
    ///
    /// # Errors
    /// When a sample cannot be read.
    fn lengths(&self) -> Result<Option<Vec<usize>>> {
        Ok(None)
    }

    /// What the training graph is fed for these samples in this epoch: the inputs of the model and
    /// what is wanted beside, by name. The same numbers give the same tensors.
    ///
    /// # Errors
    /// When a sample cannot be read.
    fn batch(&mut self, samples: &[usize], epoch: usize) -> Result<Vec<(String, Tensor)>>;

    /// Keeps what was found of samples so far for the next run; called where the state of a run is kept.
    ///
    /// # Errors
    /// When it cannot be written.
    fn keep(&mut self) -> Result<()> {
        Ok(())
    }

    /// What a sample is called in messages.
    fn name(&self, sample: usize) -> String {
        format!("example {sample}")
    }
}

/// Who follows a run.
pub trait Watch: Progress {
    /// The loss of a step, and each of its terms without its weight.
    fn step(&self, _step: usize, _loss: f32, _terms: &[f32]) {}
    /// An epoch is over.
    fn epoch(&self, _epoch: &Epoch) {}
    /// Something is to be told.
    fn note(&self, _note: &str) {}
}

impl Watch for edgesmith_ir::NoProgress {}

/// How good a model is; larger is better.
pub type Judge<'a> = dyn FnMut(&Model) -> Result<f64> + 'a;

/// What tells which epoch is the best.
pub enum JudgedBy<'a> {
    /// How good its model is.
    Model(&'a mut Judge<'a>),
    /// The loss on samples that nothing is learned from: smaller is better. Terms have their last weights,
    /// nothing is dropped, and normalisations go by their running statistics.
    Loss(&'a mut dyn Data),
}

/// A trained model and how it came to be.
#[derive(Debug)]
pub struct Outcome {
    /// The model: of the best epoch where somebody judged, else of the last.
    pub model: Model,
    /// Every epoch.
    pub history: Vec<Epoch>,
    /// Why it ended early, where numbers were none any more: the model is that of the best epoch before.
    pub broken: Option<String>,
    /// The epoch of the model, from 0 on.
    pub best: usize,
    /// Steps that were done before, in a run that was broken off.
    pub resumed_at: usize,
    /// The parameters before the step of [`Settings::keep_at`], in order.
    pub kept: Option<Vec<Vec<f32>>>,
    /// The parameters after the last step.
    pub last: Vec<Vec<f32>>,
    /// Seconds of the run, judging and those before it was broken off among them.
    pub seconds: f64,
}

/// How long a run goes between two checkpoints, and how many times what writing one takes.
const BETWEEN: Duration = Duration::from_secs(20);
const TIMES: u32 = 20;
/// Batches within which samples are sorted by length.
const ALIKE: usize = 32;

/// Trains a model. Where `store` has the state of the same run, it goes on from there, to the
/// same bytes: `key` says what is the same.
///
/// # Errors
/// When a setting is wrong, nothing of the model is trained, a batch cannot be had, the loss or a parameter
/// is no number any more and no epoch before was judged, or the user cancels; the state is kept then.
pub fn train(
    training: &Training,
    data: &mut dyn Data,
    settings: &Settings,
    judge: Option<JudgedBy>,
    (store, key): (&dyn Store, &str),
    watch: &dyn Watch,
) -> Result<Outcome> {
    let mut run = Run::new(training, data.count(), settings, key)?;
    let resumed_at = run.resume(store)?;
    if resumed_at > 0 {
        watch.note(&format!("goes on at step {resumed_at} of {}", run.total));
    }
    let held = match judge {
        Some(JudgedBy::Loss(_)) => Some(Held::new(training, settings)?),
        _ => None,
    };
    let result = run.go(data, (judge, held), store, watch);
    watch.finish();
    result?;
    let (model, best) = run.chosen()?;
    Ok(Outcome {
        model,
        seconds: run.done.seconds,
        history: run.done.history,
        broken: run.done.broken,
        best,
        resumed_at,
        kept: run.kept,
        last: run.weights.numbers(),
    })
}

struct Run<'a> {
    training: &'a Training,
    settings: &'a Settings,
    optimizer: &'static Optimizer,
    schedule: &'static Schedule,
    session: Session,
    /// The session is of the graph that takes the place of the first.
    is_late: bool,
    weights: Weights,
    done: Checkpoint,
    batch: usize,
    steps: usize,
    total: usize,
    warmup: usize,
    kept: Option<Vec<Vec<f32>>>,
    /// The shapes of the batch before, and the lengths of masks for it.
    shapes: Vec<Vec<usize>>,
    lengths: Vec<Vec<usize>>,
    /// Until when seconds are counted.
    counted: Instant,
}

/// A session of a training graph.
fn session(graph: &Model, settings: &Settings) -> Result<Session> {
    let options = Options {
        threads: settings.threads,
        bf16: settings.bf16,
        integer: false,
        batch_bytes: usize::MAX,
        ..Options::default()
    };
    Session::prepare(graph, &options)
}

impl<'a> Run<'a> {
    fn new(
        training: &'a Training,
        count: usize,
        settings: &'a Settings,
        key: &str,
    ) -> Result<Self> {
        settings.check()?;
        if count == 0 {
            return Err(Error::invalid("there are no samples to train on"));
        }
        if training.parameters.iter().all(|p| p.value.is_none()) {
            let what = "the loss depends on nothing of the model that is trained";
            return Err(Error::unsupported(what).hint(
                "train the f32 model, or one quantised with QuantizeLinear and DequantizeLinear; freeze less",
            ));
        }
        let optimizer = optimizer::find(&settings.optimizer)?;
        let batch = settings.batch.min(count);
        let steps = count / batch;
        let total = steps
            .checked_mul(settings.epochs)
            .ok_or_else(|| Error::usage(format!("{} epochs are too many", settings.epochs)))?;
        Ok(Self {
            session: session(&training.graph, settings)?,
            is_late: false,
            weights: Weights::new(training, optimizer.states, settings.ema > 0.0)?,
            done: Checkpoint::new(key, training.terms.len()),
            schedule: schedule::find(&settings.schedule)?,
            warmup: (settings.warmup * total as f64) as usize,
            training,
            settings,
            optimizer,
            batch,
            steps,
            total,
            kept: None,
            shapes: Vec::new(),
            lengths: Vec::new(),
            counted: Instant::now(),
        })
    }

    /// Takes up a run that was broken off; the steps that were done.
    fn resume(&mut self, store: &dyn Store) -> Result<usize> {
        let kept = store.load().and_then(|b| Checkpoint::from_bytes(&b));
        let Some(kept) = kept.filter(|k| k.key == self.done.key) else {
            return Ok(0);
        };
        let gradual = self.training.gradual.as_deref();
        let first = gradual.and_then(|g| (0..kept.step).find(|&s| g.due(s, self.total).is_some()));
        let masked = match (gradual, first) {
            (Some(g), Some(_)) => g.names(),
            _ => Vec::new(),
        };
        let is_fixed = gradual.is_some_and(|g| kept.step > g.fixed_from(self.total));
        self.weights.restore(&kept.tensors, (&masked, is_fixed))?;
        self.done = kept;
        Ok(self.done.step)
    }

    fn save(&mut self, data: &mut dyn Data, store: &dyn Store) -> Result<()> {
        data.keep()?;
        self.done.tensors = self.weights.tensors()?;
        self.count_seconds();
        store.save(&self.done.to_bytes()?)
    }

    fn go(
        &mut self,
        data: &mut dyn Data,
        (mut judge, mut held): (Option<JudgedBy>, Option<Held>),
        store: &dyn Store,
        watch: &dyn Watch,
    ) -> Result<()> {
        watch.start("training", self.total as u64);
        watch.advance(self.done.step as u64);
        let (mut saved, mut took) = (Instant::now(), Duration::ZERO);
        let lengths = data.lengths()?;
        while self.done.step < self.total && !self.done.stopped {
            let epoch = self.done.step / self.steps;
            let order = self.order(data.count(), epoch, lengths.as_deref());
            while self.done.step < (epoch + 1) * self.steps {
                if watch.cancelled() {
                    self.save(data, store)?;
                    return Err(Error::cancelled());
                }
                let first = self.done.step % self.steps * self.batch;
                let samples = &order[first..first + self.batch];
                let fed = data.batch(samples, epoch)?;
                self.mask()?;
                if self.settings.keep_at == Some(self.done.step) {
                    self.kept = Some(self.weights.numbers());
                }
                let terms = self.step(fed)?;
                if !terms[0].is_finite() {
                    let why = format!("the loss is {} in step {}", terms[0], self.done.step);
                    broken_by(data, samples, epoch)?;
                    self.end_broken(why)?;
                    return self.save(data, store);
                }
                let every = self.settings.judge_every;
                let is_last = self.done.step == (epoch + 1) * self.steps;
                if let Some(JudgedBy::Model(judge)) = &mut judge
                    && every > 0
                    && self.done.step.is_multiple_of(every)
                    && !is_last
                {
                    judge(&self.model()?)?;
                }
                watch.step(self.done.step, terms[0], &terms[1..]);
                watch.advance(1);
                if saved.elapsed() > BETWEEN.max(took * TIMES) {
                    let started = Instant::now();
                    self.save(data, store)?;
                    (saved, took) = (Instant::now(), started.elapsed());
                }
            }
            match self.weights.are_finite() {
                true => self.end_epoch(epoch, (judge.as_mut(), held.as_mut()), watch)?,
                false => {
                    let why = format!("a parameter is infinite or NaN after epoch {}", epoch + 1);
                    self.end_broken(why)?;
                }
            }
            self.save(data, store)?;
        }
        Ok(())
    }

    /// The samples of an epoch by chance; those of like length together, where they have one.
    fn order(&self, count: usize, epoch: usize, lengths: Option<&[usize]>) -> Vec<usize> {
        let mut random = Random::of(&[self.settings.seed, 1, epoch as u64]);
        let mut order = random.order(count);
        let Some(lengths) = lengths else {
            return order;
        };
        order.truncate(self.steps * self.batch);
        for part in order.chunks_mut(ALIKE * self.batch) {
            part.sort_by_key(|&i| lengths[i]);
        }
        let batches = random.order(self.steps);
        let of = |&b: &usize| &order[b * self.batch..(b + 1) * self.batch];
        batches.iter().flat_map(of).copied().collect()
    }

    /// Ends a run whose numbers are none any more with the best epoch before, where one was judged.
    fn end_broken(&mut self, why: String) -> Result<()> {
        let best = self.done.best.map(|b| &self.done.history[b]);
        if best.and_then(Epoch::worth).is_none() {
            return Err(Error::invalid(why)
                .hint("a smaller --rate, a longer --warmup, or --clip 1 may help"));
        }
        self.done.stopped = true;
        self.done.broken = Some(why);
        Ok(())
    }

    /// One step; the loss and its terms. Where the loss is no number, nothing is changed.
    fn step(&mut self, mut fed: Vec<(String, Tensor)>) -> Result<Vec<f32>> {
        let part = self.done.step as f64 / self.total as f64;
        if let Some((_, graph)) = self.training.late.as_ref().filter(|l| part >= l.0)
            && !self.is_late
        {
            self.session = session(graph, self.settings)?;
            self.is_late = true;
        }
        for (i, term) in self.training.terms.iter().enumerate() {
            let last = self
                .settings
                .last_weights
                .get(i)
                .copied()
                .unwrap_or(term.weight);
            let weight = term.weight + (last - term.weight) * part;
            fed.push((term.input.clone(), Tensor::scalar(weight as f32)));
        }
        let masks = self.masks(&fed)?;
        fed.extend(masks);
        self.weights.feed(&mut fed)?;
        let named: Vec<(&str, Tensor)> = fed.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        let outputs = self.session.run(&named)?;
        drop(named);
        drop(fed);
        let scalars = 1 + self.training.terms.len();
        let terms: Result<Vec<f32>> = outputs[..scalars].iter().map(number).collect();
        let terms = terms?;
        if !terms[0].is_finite() {
            return Ok(terms);
        }
        let gradients = &outputs[scalars..scalars + self.training.parameters.len()];
        let numbers = Numbers {
            rate: self.rate(self.done.step),
            momentum: self.settings.momentum.unwrap_or(MOMENTUM),
            beta2: self.settings.beta2,
            epsilon: self.settings.epsilon,
            decay: self.settings.decay,
            step: self.done.step as u64 + 1,
        };
        self.weights
            .update(self.optimizer, &numbers, gradients, self.settings.clip)?;
        self.weights.average(self.settings.ema, numbers.step);
        self.weights.renew(&outputs[scalars + gradients.len()..]);
        self.done.losses.push(terms[0]);
        for (sum, term) in self.done.sums.iter_mut().zip(&terms[1..]) {
            *sum += f64::from(*term);
        }
        self.done.step += 1;
        Ok(terms)
    }

    /// Draws the masks of a step: 0 for what is dropped, else what makes the mean as it was.
    fn masks(&mut self, batch: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        if self.training.masks.is_empty() {
            return Ok(Vec::new());
        }
        let shapes: Vec<Vec<usize>> = batch.iter().map(|(_, t)| t.dims().to_vec()).collect();
        if self.shapes != shapes {
            self.lengths = self.training.lengths_of_masks(batch)?;
            self.shapes = shapes;
        }
        let mut masks = Vec::new();
        for (i, (mask, dims)) in self.training.masks.iter().zip(&self.lengths).enumerate() {
            let numbers = [self.settings.seed, 2, self.done.step as u64, i as u64];
            let mut random = Random::of(&numbers);
            let kept = (1.0 / (1.0 - mask.ratio)) as f32;
            let draw = |_| match random.unit() < mask.ratio {
                true => 0.0,
                false => kept,
            };
            let data: Vec<f32> = (0..dims.iter().product()).map(draw).collect();
            masks.push((mask.name.clone(), Tensor::from_vec(dims, data)?));
        }
        Ok(masks)
    }

    /// Chooses masks where a step asks for that.
    fn mask(&mut self) -> Result<()> {
        let Some(gradual) = self.training.gradual.as_deref() else {
            return Ok(());
        };
        let step = self.done.step;
        if let Some(sparsity) = gradual.due(step, self.total) {
            let is_fixed = step >= gradual.fixed_from(self.total);
            self.weights.mask(gradual, sparsity, is_fixed)?;
        }
        Ok(())
    }

    /// True where masks are as they will be in the end.
    fn is_sparse(&self) -> bool {
        let gradual = self.training.gradual.as_deref();
        gradual.is_none_or(|g| self.done.step > g.fixed_from(self.total))
    }

    /// The learning rate of a step.
    fn rate(&self, step: usize) -> f64 {
        self.settings.rate * self.schedule.at(step, self.total, self.warmup)
    }

    fn count_seconds(&mut self) {
        let before = std::mem::replace(&mut self.counted, Instant::now());
        self.done.seconds += (self.counted - before).as_secs_f64();
    }

    fn end_epoch(
        &mut self,
        epoch: usize,
        (judge, held): (Option<&mut JudgedBy>, Option<&mut Held>),
        watch: &dyn Watch,
    ) -> Result<()> {
        let first = self.done.losses.len().saturating_sub(self.steps);
        let losses = &self.done.losses[first..];
        let loss = losses.iter().map(|&l| f64::from(l)).sum::<f64>() / losses.len().max(1) as f64;
        let (judged, validation) = match (judge, held) {
            (Some(JudgedBy::Model(judge)), _) => (Some(judge(&self.model()?)?), None),
            (Some(JudgedBy::Loss(data)), Some(held)) => {
                (None, Some(held.loss(&self.weights, *data, self.batch)?))
            }
            _ => (None, None),
        };
        let terms = self.done.sums.iter_mut();
        let entry = Epoch {
            epoch,
            loss,
            terms: terms
                .map(|sum| std::mem::take(sum) / self.steps as f64)
                .collect(),
            rate: self.rate(self.done.step.saturating_sub(1)),
            judged,
            validation,
        };
        watch.epoch(&entry);
        self.done.history.push(entry);
        let better = |b: usize| {
            let at = |i: usize| self.done.history[i].worth();
            at(epoch).is_none() || at(epoch) > at(b)
        };
        // A model that is not yet as sparse as it is to be is none to choose.
        if self.is_sparse() && self.done.best.is_none_or(better) {
            self.done.best = Some(epoch);
            self.weights.keep_best();
        }
        let since = epoch - self.done.best.unwrap_or(epoch);
        self.done.stopped = self.settings.patience > 0 && since >= self.settings.patience;
        Ok(())
    }

    /// The model of this moment.
    fn model(&self) -> Result<Model> {
        let shown = self.weights.shown();
        let shown: Vec<&[f32]> = shown.iter().map(|w| &w[..]).collect();
        self.training.model_with(&shown, &self.weights.states)
    }

    fn chosen(&self) -> Result<(Model, usize)> {
        let model = match self.weights.best() {
            Some((parameters, states)) => self.training.model_with(&parameters, states)?,
            None => self.model()?,
        };
        Ok((model, self.done.best.unwrap_or(0)))
    }
}

/// Says which sample of a batch makes its loss no number, where one does by itself.
fn broken_by(data: &mut dyn Data, samples: &[usize], epoch: usize) -> Result<()> {
    for (name, t) in data.batch(samples, epoch)? {
        if !t.dtype().is_float() || t.dims().first() != Some(&samples.len()) {
            continue;
        }
        let each = t.count() / samples.len().max(1);
        let numbers = t.to_f32()?;
        if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
            let of = data.name(samples[at / each.max(1)]);
            let what = format!("{of} has the number {} in \"{name}\"", numbers[at]);
            return Err(Error::invalid(what).hint("leave the example out, or mend its numbers"));
        }
    }
    Ok(())
}

/// The number of a tensor of one.
fn number(t: &Tensor) -> Result<f32> {
    let data = t.to_f32()?;
    data.first()
        .copied()
        .ok_or_else(|| Error::internal("a loss is one number"))
}

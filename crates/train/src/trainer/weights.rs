//! The numbers that a run changes: parameters, states of the optimizer, running means, the best.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use edgesmith_ir::{DType, Error, Result, Tensor};

use crate::masked::{Gradual, apply};
use crate::optimizer::{Numbers, Optimizer};
use crate::training::Training;

/// Floats that a tensor shows without copying them, and that are changed when no tensor does.
#[derive(Clone)]
struct Shown(Arc<Vec<f32>>);

impl AsRef<[u8]> for Shown {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// A scale stays above this part of the mean with which it began.
const LEAST: f64 = 1e-3;

struct Weight {
    name: String,
    dims: Vec<usize>,
    decay: f64,
    rate: f64,
    gradient: f64,
    /// What it stays above.
    least: Option<f32>,
    data: Arc<Vec<f32>>,
    states: Vec<Vec<f32>>,
    mean: Option<Vec<f32>>,
    best: Option<Vec<f32>>,
    /// What never learns.
    mask: Option<Vec<bool>>,
    /// What is zero now, where masks change during the run.
    changing: Option<Changing>,
}

/// A mask that is chosen during the run.
struct Changing {
    kept: Vec<bool>,
    /// What is masked is zero for good; before that it keeps its number, and can come back.
    is_fixed: bool,
}

impl Weight {
    /// The numbers that are multiplied, with what is masked now set to zero.
    fn masked<'w>(&self, numbers: &'w [f32]) -> Cow<'w, [f32]> {
        match &self.changing {
            Some(Changing {
                kept,
                is_fixed: false,
            }) => {
                let mut numbers = numbers.to_vec();
                apply(kept, &mut numbers);
                Cow::Owned(numbers)
            }
            _ => Cow::Borrowed(numbers),
        }
    }

    /// The masks of what no gradient moves.
    fn still(&self) -> impl Iterator<Item = &[bool]> {
        let changing = self.changing.as_ref().map(|c| c.kept.as_slice());
        self.mask.as_deref().into_iter().chain(changing)
    }

    /// The masks of what is zero for good.
    fn fixed(&self) -> impl Iterator<Item = &[bool]> {
        let changing = self.changing.as_ref().filter(|c| c.is_fixed);
        let changing = changing.map(|c| c.kept.as_slice());
        self.mask.as_deref().into_iter().chain(changing)
    }
}

impl Weight {
    /// Sets what does not learn to zero, in the states of the optimizer and in means too.
    fn clear(&mut self) {
        let masks: Vec<Vec<bool>> = self.fixed().map(<[bool]>::to_vec).collect();
        for mask in masks {
            apply(&mask, Arc::make_mut(&mut self.data).as_mut_slice());
            let others = self.states.iter_mut().chain(&mut self.mean);
            others.for_each(|x| apply(&mask, x));
        }
    }
}

pub(super) struct Weights {
    all: Vec<Weight>,
    state_names: Vec<String>,
    pub states: Vec<Tensor>,
    best_states: Vec<Tensor>,
}

impl Weights {
    pub fn new(training: &Training, states: usize, averaged: bool) -> Result<Self> {
        let mut all = Vec::new();
        for p in &training.parameters {
            let data = p.data.to_f32()?.into_owned();
            all.push(Weight {
                name: p.name.clone(),
                dims: p.data.dims().to_vec(),
                decay: p.decay,
                rate: p.rate,
                gradient: p.gradient,
                least: p.is_positive.then_some((p.rate * LEAST) as f32),
                states: vec![vec![0.0; data.len()]; states],
                mean: averaged.then(|| data.clone()),
                best: None,
                mask: p.mask.clone(),
                changing: None,
                data: Arc::new(data),
            });
        }
        let states = &training.states;
        Ok(Self {
            all,
            state_names: states.iter().map(|s| s.name.clone()).collect(),
            states: states.iter().map(|s| s.data.clone()).collect(),
            best_states: Vec::new(),
        })
    }

    /// Adds the parameters as the model has them, and states, to what is fed.
    pub fn feed_shown(&self, fed: &mut Vec<(String, Tensor)>) -> Result<()> {
        for (w, numbers) in self.all.iter().zip(self.shown()) {
            let data = Tensor::from_vec(&w.dims, numbers.into_owned())?;
            fed.push((w.name.clone(), data));
        }
        let states = self.state_names.iter().cloned();
        fed.extend(states.zip(self.states.iter().cloned()));
        Ok(())
    }

    /// Adds the parameters and states to what a step is fed.
    pub fn feed(&self, fed: &mut Vec<(String, Tensor)>) -> Result<()> {
        for w in &self.all {
            let shown = match w.masked(&w.data) {
                Cow::Borrowed(_) => Arc::clone(&w.data),
                Cow::Owned(numbers) => Arc::new(numbers),
            };
            let bytes = Bytes::from_owner(Shown(shown));
            fed.push((
                w.name.clone(),
                Tensor::from_bytes(DType::F32, &w.dims, bytes)?,
            ));
        }
        for (name, state) in self.state_names.iter().zip(&self.states) {
            fed.push((name.clone(), state.clone()));
        }
        Ok(())
    }

    /// Moves every parameter by its gradient; all together are at most `clip` long, where that is
    /// not 0.
    pub fn update(
        &mut self,
        optimizer: &Optimizer,
        numbers: &Numbers,
        gradients: &[Tensor],
        clip: f64,
    ) -> Result<()> {
        let mut scale = 1.0f32;
        if clip > 0.0 {
            let mut square = 0.0f64;
            for (w, g) in self.all.iter().zip(gradients) {
                let mut gradient = g.to_f32()?;
                for mask in w.still() {
                    apply(mask, gradient.to_mut());
                }
                let sum: f64 = gradient.iter().map(|&x| f64::from(x).powi(2)).sum();
                square += w.gradient.powi(2) * sum;
            }
            let length = square.sqrt();
            if length > clip {
                scale = (clip / length) as f32;
            }
        }
        for (w, g) in self.all.iter_mut().zip(gradients) {
            let mut gradient = g.to_f32()?;
            if gradient.len() != w.data.len() {
                return Err(Error::internal(format!(
                    "the gradient of \"{}\" has other lengths",
                    w.name
                )));
            }
            for mask in w.still() {
                apply(mask, gradient.to_mut());
            }
            let data = Arc::make_mut(&mut w.data);
            let own = Numbers {
                decay: numbers.decay * w.decay,
                rate: numbers.rate * w.rate,
                ..*numbers
            };
            let factor = scale * w.gradient as f32;
            if factor == 1.0 {
                (optimizer.update)(&own, data, &gradient, &mut w.states);
            } else {
                let scaled: Vec<f32> = gradient.iter().map(|x| x * factor).collect();
                (optimizer.update)(&own, data, &scaled, &mut w.states);
            }
            if let Some(least) = w.least {
                data.iter_mut().for_each(|x| *x = x.max(least));
            }
            w.clear();
        }
        Ok(())
    }

    /// Chooses anew what is masked of these parameters; from now on for good where `is_fixed`.
    pub fn mask(&mut self, gradual: &dyn Gradual, sparsity: f64, is_fixed: bool) -> Result<()> {
        let names = gradual.names();
        let find = |name: &String| self.all.iter().position(|w| w.name == *name);
        let places: Option<Vec<usize>> = names.iter().map(find).collect();
        let places = places.ok_or_else(|| Error::internal("a masked parameter is trained"))?;
        let data: Vec<&[f32]> = places.iter().map(|&i| &self.all[i].data[..]).collect();
        let chosen = gradual.choose(&data, sparsity)?;
        for (i, kept) in places.into_iter().zip(chosen) {
            let w = &mut self.all[i];
            if kept.len() != w.data.len() {
                return Err(Error::internal(
                    "a mask has as many numbers as its parameter",
                ));
            }
            // What is masked now does not go on by the steps before.
            w.states.iter_mut().for_each(|s| apply(&kept, s));
            w.changing = Some(Changing { kept, is_fixed });
            w.clear();
        }
        Ok(())
    }

    /// Moves the running means by a step; the first steps count more.
    pub fn average(&mut self, keep: f64, step: u64) {
        let early = (1.0 + step as f64) / (10.0 + step as f64);
        let keep = keep.min(early) as f32;
        for w in &mut self.all {
            if let Some(mean) = &mut w.mean {
                for (m, x) in mean.iter_mut().zip(w.data.iter()) {
                    *m = keep * *m + (1.0 - keep) * x;
                }
            }
        }
    }

    /// Takes over the states that a step renewed.
    pub fn renew(&mut self, states: &[Tensor]) {
        for (own, new) in self.states.iter_mut().zip(states) {
            *own = new.detached();
        }
    }

    /// The parameters as the model has them: running means where there are any, masked.
    pub fn shown(&self) -> Vec<Cow<'_, [f32]>> {
        let mut shown = Vec::new();
        for w in &self.all {
            shown.push(w.masked(w.mean.as_deref().unwrap_or(&w.data)));
        }
        shown
    }

    /// True where every parameter and state of this moment is a finite number.
    pub fn are_finite(&self) -> bool {
        let finite = |numbers: &[f32]| numbers.iter().all(|x| x.is_finite());
        let of_state = |s: &Tensor| s.to_f32().is_ok_and(|numbers| finite(&numbers));
        let mean = |w: &Weight| w.mean.as_deref().is_none_or(finite);
        self.all.iter().all(|w| finite(&w.data) && mean(w)) && self.states.iter().all(of_state)
    }

    /// The numbers of the parameters of this moment.
    pub fn numbers(&self) -> Vec<Vec<f32>> {
        self.all.iter().map(|w| w.data.to_vec()).collect()
    }

    /// Remembers this moment as the best.
    pub fn keep_best(&mut self) {
        for w in &mut self.all {
            let shown = w.masked(w.mean.as_deref().unwrap_or(&w.data));
            w.best = Some(shown.into_owned());
        }
        self.best_states.clone_from(&self.states);
    }

    /// The parameters and states of the best moment.
    pub fn best(&self) -> Option<(Vec<&[f32]>, &[Tensor])> {
        let best: Option<Vec<&[f32]>> = self.all.iter().map(|w| w.best.as_deref()).collect();
        Some((best?, &self.best_states))
    }

    /// Everything, in order.
    pub fn tensors(&self) -> Result<Vec<Vec<f32>>> {
        let mut all = Vec::new();
        for w in &self.all {
            all.push(w.data.to_vec());
            all.extend(w.states.iter().cloned());
            all.push(w.mean.clone().unwrap_or_default());
            all.push(w.best.clone().unwrap_or_default());
            if let Some(c) = &w.changing {
                let numbers = c.kept.iter().map(|&k| f32::from(u8::from(k)));
                all.push(numbers.collect());
            }
        }
        for s in self.states.iter().chain(&self.best_states) {
            all.push(s.to_f32()?.into_owned());
        }
        Ok(all)
    }

    /// Takes over what [`Weights::tensors`] gave; `masked` are the parameters whose masks change, where
    /// they were chosen by then, and whether for good.
    pub fn restore(
        &mut self,
        tensors: &[Vec<f32>],
        (masked, is_fixed): (&[String], bool),
    ) -> Result<()> {
        let mut rest = tensors.iter();
        let mut next = |len: usize, may_miss: bool| {
            let found = rest
                .next()
                .filter(|t| t.len() == len || (may_miss && t.is_empty()));
            found.cloned().ok_or_else(|| {
                Error::invalid("the kept state is of another model")
                    .hint("remove the checkpoint to begin anew")
            })
        };
        for w in &mut self.all {
            let len = w.data.len();
            w.data = Arc::new(next(len, false)?);
            for s in &mut w.states {
                *s = next(len, false)?;
            }
            let mean = next(len, true)?;
            w.mean = w.mean.is_some().then_some(mean);
            w.best = Some(next(len, true)?).filter(|b| !b.is_empty());
            if masked.contains(&w.name) {
                let kept = next(len, false)?.iter().map(|&x| x != 0.0).collect();
                w.changing = Some(Changing { kept, is_fixed });
            }
        }
        for s in &mut self.states {
            *s = Tensor::from_vec(s.dims(), next(s.count(), false)?)?;
        }
        if self.all.iter().all(|w| w.best.is_some()) {
            for s in &self.states {
                let data = next(s.count(), false)?;
                self.best_states.push(Tensor::from_vec(s.dims(), data)?);
            }
        }
        Ok(())
    }
}

//! Learning of the rounding of a block: up or down for each weight, by the output of all together.

use std::borrow::Cow;

use edgesmith_ir::random::Random;
use edgesmith_ir::{
    DType, Error, Model, Node, NodeId, Progress, Result, Tensor, TensorType, ValueId,
};
use edgesmith_runtime::{Options, Session};
use edgesmith_train::differentiate;
use edgesmith_train::optimizer::{ADAM, Numbers};

use super::part::without_dead;

/// Steps of a block.
pub(super) const STEPS: usize = 1000;

/// Samples of a step.
const BATCH: usize = 32;

/// Bytes of what enters or leaves a block in one step, at most but for one sample.
const STEP_BYTES: usize = 8 << 20;

/// How far a step moves what decides up or down.
const RATE: f64 = 0.1;

/// How far a step moves a bias, in parts of the error of rounding to nearest.
const BIAS_RATE: f64 = 0.02;

/// The part of the steps in which nothing pulls weights to an end (AdaRound, appendix).
const WARMUP: f64 = 0.2;

/// The exponents between which the pull to the ends grows.
const EXPONENTS: [f64; 2] = [20.0, 2.0];

/// How much the pull counts beside the error of rounding to nearest, weight by weight.
const PULL: f64 = 10.0;

/// The stretched sigmoid goes from γ to ζ and is cut off at 0 and 1 (AdaRound, equation 23).
const GAMMA: f32 = -0.1;
const ZETA: f32 = 1.1;

/// A product of the block.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub node: NodeId,
    /// The weight in floats.
    pub weight: Vec<f32>,
    pub dims: Vec<usize>,
    /// One for each channel, or one.
    pub scales: Vec<f32>,
    /// Numbers that follow each other in one channel.
    pub inner: usize,
    /// The largest magnitude of an integer.
    pub limit: f32,
    /// The constant of the integers.
    pub ints: ValueId,
    pub bias: Option<Bias>,
}

/// The bias of a product, in floats, with what it is counted in.
#[derive(Debug, Clone)]
pub(super) struct Bias {
    pub float: Vec<f32>,
    pub scales: Vec<f32>,
    pub ints: ValueId,
}

/// Integers that were found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub ints: Vec<i8>,
    pub bias: Option<Vec<i32>>,
}

/// What leaves a block, wanted, by what enters.
pub(super) struct Samples<'a> {
    pub entries: &'a [Tensor],
    pub exits: &'a [Tensor],
}

impl Samples<'_> {
    /// Some of them, one behind the other.
    fn batch(&self, chosen: &[usize]) -> Result<[Tensor; 2]> {
        Ok([joined(self.entries, chosen)?, joined(self.exits, chosen)?])
    }
}

fn joined(all: &[Tensor], chosen: &[usize]) -> Result<Tensor> {
    let first = &all[chosen[0]];
    let mut dims = first.dims().to_vec();
    let mut data = Vec::with_capacity(first.count() * chosen.len());
    for &i in chosen {
        data.extend_from_slice(&all[i].to_f32()?);
    }
    if let Some(n) = dims.first_mut() {
        *n *= chosen.len();
    }
    Tensor::from_vec(&dims, data)
}

/// A parameter with what its optimizer keeps.
struct Moved {
    data: Vec<f32>,
    states: Vec<Vec<f32>>,
}

impl Moved {
    fn new(data: Vec<f32>) -> Self {
        let states = vec![vec![0.0; data.len()]; ADAM.states];
        Self { data, states }
    }

    fn step(&mut self, gradient: &[f32], rate: f64, step: usize) {
        let numbers = Numbers {
            rate,
            momentum: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            decay: 0.0,
            step: step as u64 + 1,
        };
        (ADAM.update)(&numbers, &mut self.data, gradient, &mut self.states);
    }
}

/// The rounding of a weight while it is learned: `Ŵ = s · clip(⌊W/s⌋ + h(V), −limit, limit)`.
struct Soft<'a> {
    layer: &'a Layer,
    v: Moved,
}

impl<'a> Soft<'a> {
    /// Begins where `Ŵ` is `W`.
    fn new(layer: &'a Layer) -> Self {
        let v = layer.weight.iter().enumerate().map(|(i, w)| {
            let t = w / layer.scale(i);
            let part = ((t - t.floor() - GAMMA) / (ZETA - GAMMA)).clamp(1e-3, 1.0 - 1e-3);
            -(1.0 / part - 1.0).ln()
        });
        Self {
            layer,
            v: Moved::new(v.collect()),
        }
    }

    /// h, and its derivative.
    fn part(v: f32) -> (f32, f32) {
        let s = 1.0 / (1.0 + (-v).exp());
        let h = s * (ZETA - GAMMA) + GAMMA;
        let slope = (ZETA - GAMMA) * s * (1.0 - s);
        if (0.0..=1.0).contains(&h) {
            (h, slope)
        } else {
            (h.clamp(0.0, 1.0), 0.0)
        }
    }

    /// The integers and what lies between, in steps.
    fn steps(&self, hard: bool) -> impl Iterator<Item = f32> {
        let all = self.layer.weight.iter().zip(&self.v.data).enumerate();
        all.map(move |(i, (w, &v))| {
            let h = Self::part(v).0;
            let h = if hard {
                f32::from(u8::from(h >= 0.5))
            } else {
                h
            };
            let t = (w / self.layer.scale(i)).floor() + h;
            t.clamp(-self.layer.limit, self.layer.limit)
        })
    }

    fn weight(&self) -> Result<Tensor> {
        let all = self.steps(false).enumerate();
        let data = all.map(|(i, t)| t * self.layer.scale(i)).collect();
        Tensor::from_vec(&self.layer.dims, data)
    }

    /// Moves V by the gradient of the error times `factor`, and by the pull to the ends with this
    /// exponent: that of `1 − |2h − 1|^β` (AdaRound, equation 24).
    fn step(&mut self, gradient: &[f32], factor: f32, pull: Option<f32>, step: usize) {
        let layer = self.layer;
        let all = layer
            .weight
            .iter()
            .zip(&self.v.data)
            .zip(gradient)
            .enumerate();
        let slopes: Vec<f32> = all
            .map(|(i, ((w, &v), g))| {
                let (h, slope) = Self::part(v);
                let scale = layer.scale(i);
                let inside = ((w / scale).floor() + h).abs() <= layer.limit;
                let error = if inside { g * scale * factor } else { 0.0 };
                let u = 2.0 * h - 1.0;
                let pull = pull.map_or(0.0, |b| {
                    -2.0 * PULL as f32 * b * u.abs().powf(b - 1.0) * u.signum()
                });
                (error + pull) * slope
            })
            .collect();
        self.v.step(&slopes, RATE, step);
    }
}

impl Layer {
    pub(super) fn scale(&self, i: usize) -> f32 {
        self.scales[i / self.inner.max(1) % self.scales.len()]
    }

    /// The weight rounded to nearest.
    fn nearest(&self) -> Result<Tensor> {
        let all = self.weight.iter().enumerate();
        let round = |(i, w): (usize, &f32)| {
            let t = (w / self.scale(i)).round_ties_even();
            t.clamp(-self.limit, self.limit) * self.scale(i)
        };
        Tensor::from_vec(&self.dims, all.map(round).collect())
    }
}

/// The block with its weights and biases as inputs, and the gradients of its error.
struct Course {
    session: Session,
    batch: usize,
    names: Vec<String>,
}

/// The name of an input of the course.
fn named(what: &str, i: usize) -> String {
    format!("rounding/{what}{i}")
}

impl Course {
    /// `part` is the quantised block, whose only input and output are those of the block.
    fn new(part: &Model, layers: &[Layer], samples: &Samples) -> Result<Self> {
        let (entry, exit) = (samples.entries[0].dims(), samples.exits[0].dims());
        let bytes = samples.entries[0]
            .byte_len()
            .max(samples.exits[0].byte_len());
        let most = (STEP_BYTES / bytes.max(1))
            .clamp(1, BATCH)
            .min(samples.entries.len());
        // What repeats the batch of the file takes no other.
        let batch = match super::part::takes(part, entry, exit, most) {
            true => most,
            false => 1,
        };
        let mut model = super::part::typed(part, entry, batch);
        let mut wanted = Vec::new();
        let mut names = Vec::new();
        for (i, layer) in layers.iter().enumerate() {
            let mut feed = |what: &str, dims: &[usize], place: usize| {
                let name = named(what, i);
                let v = model
                    .graph
                    .add_input(&name, TensorType::fixed(DType::F32, dims));
                model.graph.set_input(layer.node, place, Some(v));
                names.push(name);
                wanted.push(v);
            };
            feed("w", &layer.dims, 1);
            if let Some(bias) = &layer.bias {
                feed("b", &[bias.float.len()], 2);
            }
        }
        let y = model.graph.outputs[0];
        let mut dims = exit.to_vec();
        if let Some(n) = dims.first_mut() {
            *n *= batch;
        }
        let t = model
            .graph
            .add_input(&named("exit", 0), TensorType::fixed(DType::F32, &dims));
        let graph = &mut model.graph;
        let apart = graph.add_op(
            Node::new("Sub", "rounding/apart"),
            &[y, t],
            "rounding/apart",
        );
        let node = Node::new("Mul", "rounding/squares");
        let squares = graph.add_op(node, &[apart, apart], "rounding/squares");
        let node = Node::new("ReduceMean", "rounding/error");
        let node = node.with("keepdims", edgesmith_ir::Attribute::Int(0));
        let error = graph.add_op(node, &[squares], "rounding/error");
        let gradients = differentiate(&mut model, error, &wanted)?;
        let gradients: Option<Vec<ValueId>> = gradients.into_iter().collect();
        let gradients = gradients.ok_or_else(|| {
            Error::unsupported("the output of a block does not depend on a weight of it")
        })?;
        model.graph.outputs = [error].into_iter().chain(gradients).collect();
        without_dead(&mut model)?;
        let options = Options {
            integer: false,
            batch_bytes: usize::MAX,
            ..Options::default()
        };
        Ok(Self {
            session: Session::prepare(&model, &options)?,
            batch,
            names,
        })
    }

    /// The mean squared error with these weights and biases, and its gradients.
    fn run(
        &mut self,
        entry: &str,
        samples: &Samples,
        chosen: &[usize],
        given: Vec<Tensor>,
    ) -> Result<(f64, Vec<Tensor>)> {
        let [x, t] = samples.batch(chosen)?;
        let exit = named("exit", 0);
        let mut fed = vec![(entry, x), (&exit[..], t)];
        fed.extend(self.names.iter().map(String::as_str).zip(given));
        let mut outputs = self.session.run(&fed)?;
        let error = outputs.remove(0);
        let error = error.to_f32()?.first().copied().unwrap_or(f32::NAN);
        Ok((f64::from(error), outputs))
    }
}

/// Learns the rounding of the layers of a block.
///
/// # Errors
/// When the block has no gradient, a step does not run, or the user cancels.
pub(super) fn learn(
    part: &Model,
    layers: &[Layer],
    samples: &Samples,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Vec<Found>> {
    let mut course = Course::new(part, layers, samples)?;
    let entry = part.graph.value(part.graph.inputs[0]).name.clone();
    let mut soft: Vec<Soft> = layers.iter().map(Soft::new).collect();
    let of_bias = |l: &Layer| l.bias.as_ref().map(|b| Moved::new(b.float.clone()));
    let mut biases: Vec<Option<Moved>> = layers.iter().map(of_bias).collect();
    let nearest = plain_error(&mut course, &entry, layers, samples)?;
    if !(nearest.is_finite() && nearest > 0.0) {
        return Err(Error::unsupported(
            "rounding to nearest loses nothing that can be measured",
        ));
    }
    let weights: usize = layers.iter().map(|l| l.weight.len()).sum();
    let factor = (weights as f64 / nearest) as f32;
    let warm = (STEPS as f64 * WARMUP) as usize;
    let mut queue = Queue::new(samples.entries.len(), seed);
    for step in 0..STEPS {
        progress.check()?;
        let mut given = Vec::new();
        for (soft, bias) in soft.iter().zip(&biases) {
            given.push(soft.weight()?);
            given.extend(bias.as_ref().map(|b| Tensor::vector(b.data.clone())));
        }
        let (_, gradients) = course.run(&entry, samples, &queue.take(course.batch), given)?;
        let mut gradients = gradients.iter();
        let mut next = || -> Result<Cow<'_, [f32]>> {
            let missing = || Error::internal("a gradient for each parameter");
            gradients.next().ok_or_else(missing)?.to_f32()
        };
        for (soft, bias) in soft.iter_mut().zip(&mut biases) {
            soft.step(&next()?, factor, exponent(step, warm), step);
            if let Some(bias) = bias {
                let rate = BIAS_RATE * rest(step) * nearest.sqrt();
                bias.step(&next()?, rate, step);
            }
        }
        progress.advance(1);
    }
    Ok(soft
        .iter()
        .zip(&biases)
        .map(|(s, b)| found(s, b.as_ref()))
        .collect())
}

/// The part of a rate that is left at a step, along a cosine.
fn rest(step: usize) -> f64 {
    let part = step as f64 / STEPS as f64;
    0.5 * (1.0 + (std::f64::consts::PI * part).cos())
}

/// The exponent of the pull to the ends, where there is any yet.
fn exponent(step: usize, warm: usize) -> Option<f32> {
    let after = step.checked_sub(warm)?;
    let part = after as f64 / (STEPS - warm).max(1) as f64;
    let left = 0.5 * (1.0 + (std::f64::consts::PI * part).cos());
    Some((EXPONENTS[1] + (EXPONENTS[0] - EXPONENTS[1]) * left) as f32)
}

/// The mean squared error of some samples with weights rounded to nearest.
fn plain_error(
    course: &mut Course,
    entry: &str,
    layers: &[Layer],
    samples: &Samples,
) -> Result<f64> {
    let batches = (samples.entries.len() / course.batch).clamp(1, 4);
    let mut sum = 0.0;
    for batch in 0..batches {
        let mut given = Vec::new();
        for layer in layers {
            given.push(layer.nearest()?);
            let bias = layer.bias.as_ref().map(|b| Tensor::vector(b.float.clone()));
            given.extend(bias);
        }
        let chosen: Vec<usize> = (batch * course.batch..(batch + 1) * course.batch).collect();
        sum += course.run(entry, samples, &chosen, given)?.0;
    }
    Ok(sum / batches as f64)
}

fn found(soft: &Soft, bias: Option<&Moved>) -> Found {
    let layer = soft.layer;
    let bias = bias.zip(layer.bias.as_ref()).map(|(moved, bias)| {
        let all = moved.data.iter().enumerate();
        let int = |(i, b): (usize, &f32)| {
            let scale = bias.scales[i % bias.scales.len()];
            let steps = (f64::from(*b) / f64::from(scale)).round_ties_even();
            steps.clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32
        };
        all.map(int).collect()
    });
    Found {
        ints: soft.steps(true).map(|t| t as i8).collect(),
        bias,
    }
}

/// Samples in an order that is drawn anew when all were taken.
struct Queue {
    random: Random,
    count: usize,
    left: Vec<usize>,
}

impl Queue {
    fn new(count: usize, seed: u64) -> Self {
        Self {
            random: Random::of(&[seed]),
            count,
            left: Vec::new(),
        }
    }

    fn take(&mut self, n: usize) -> Vec<usize> {
        if self.left.len() < n {
            self.left = self.random.order(self.count);
        }
        self.left.split_off(self.left.len() - n)
    }
}

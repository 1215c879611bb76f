//! The noise of a model at what it answers, sample by sample: what settings of INT8 are chosen by.

use edgesmith_ir::{Error, Graph, Model, Progress, Result, Tensor};

use super::judge::{Recorded, prepared};
use crate::calibrate::Mask;
use crate::samples::{Part, Samples, named};
use crate::simulate::Runs;

/// Samples that are judged by at most, and others than those that were learned from that are enough.
const MOST: usize = 128;
const ENOUGH: usize = 16;

/// Samples that are run at once.
const BATCH: usize = 16;

/// Operators whose result hides the noise of what they read where that is far from a border.
const SATURATING: &[&str] = &["Softmax", "LogSoftmax", "Sigmoid"];

/// The samples to judge by where the first `learned` were learned from: the others, or all where
/// those are few.
pub fn judges(samples: &dyn Samples, learned: usize) -> Part<'_> {
    let all = samples.count();
    let start = if all >= learned + ENOUGH { learned } else { 0 };
    Part::new(samples, start..all.min(start + MOST))
}

/// Compares models with the float one on some samples: by their outputs, and by what a Softmax or
/// Sigmoid at the end reads. Tokens that are padding do not count.
pub struct Noise<'a> {
    float: Recorded,
    more: Vec<String>,
    samples: Part<'a>,
}

/// The noise of each sample, as a share of the signal of all: the mean over all values compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Shares(Vec<f64>);

impl<'a> Noise<'a> {
    /// # Errors
    /// When the float model cannot be run.
    pub fn new(float: &Model, samples: Part<'a>) -> Result<Self> {
        let more = before_outputs(&float.graph);
        Ok(Self {
            float: Recorded::new(prepared(&showing(float, &more)?)?),
            more,
            samples,
        })
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.samples.count()
    }

    /// The noise of a model whose values have the names of those of the float one.
    ///
    /// # Errors
    /// When it does not run, or the user cancels.
    pub fn of(&mut self, model: &Model, progress: &dyn Progress) -> Result<Shares> {
        let mut session = prepared(&showing(model, &self.more)?)?;
        self.float.rewind();
        let mut values: Vec<Sums> = Vec::new();
        for batch in self.samples.batches(BATCH) {
            progress.check()?;
            let (range, inputs) = batch?;
            let mask = Mask::of(&inputs)?;
            let a = self.float.run(&named(&inputs))?;
            let b = session.run(&named(&inputs))?;
            values.resize_with(a.len(), Sums::default);
            for (sums, (r, x)) in values.iter_mut().zip(a.iter().zip(&b)) {
                if r.dtype().is_float() {
                    sums.add(r, x, range.len(), mask.as_ref())?;
                }
            }
        }
        Ok(Shares::of(&values))
    }
}

/// The names of what a saturating operator at the end of a graph reads.
fn before_outputs(graph: &Graph) -> Vec<String> {
    let outputs = graph.outputs.iter();
    let read = outputs.filter_map(|&v| {
        let node = graph.node(graph.value(v).producer()?.0);
        let saturates = SATURATING.iter().any(|op| node.is(op));
        let read = saturates.then(|| node.input(0))??;
        Some(graph.value(read).name.clone())
    });
    read.collect()
}

/// The model with more outputs.
fn showing(model: &Model, more: &[String]) -> Result<Model> {
    let mut model = model.clone();
    for name in more {
        let value = model.graph.find_value(name);
        let value =
            value.ok_or_else(|| Error::internal(format!("the value \"{name}\" lost its name")))?;
        model.graph.outputs.push(value);
    }
    Ok(model)
}

/// Signal of a value, and its noise by sample.
#[derive(Default)]
struct Sums {
    signal: f64,
    noise: Vec<f64>,
}

impl Sums {
    /// Adds a value of so many samples; one that is not a part for each of them counts with the first.
    fn add(&mut self, r: &Tensor, x: &Tensor, samples: usize, mask: Option<&Mask>) -> Result<()> {
        if r.dims() != x.dims() {
            let what = format!("the float model gives {}, the other {}", r.ty(), x.ty());
            return Err(Error::invalid(what));
        }
        let first = self.noise.len();
        self.noise.resize(first + samples, 0.0);
        let tokens = mask.and_then(|m| m.of_rows(r.dims()));
        let row = r.count() / tokens.map_or(1, <[bool]>::len).max(1);
        let part = match r.dims().first() {
            Some(&n) if n == samples => r.count() / samples.max(1),
            _ => r.count(),
        };
        let (r, x) = (r.to_f32()?, x.to_f32()?);
        for (i, (&r, &x)) in r.iter().zip(&*x).enumerate() {
            let is_padding = tokens.is_some_and(|t| !t[i / row.max(1)]);
            if is_padding || r == x && r.is_infinite() || r.is_nan() && x.is_nan() {
                continue;
            }
            let (r, d) = (f64::from(r), f64::from(r) - f64::from(x));
            self.signal += r * r;
            self.noise[first + i / part.max(1)] += if d.is_nan() { f64::INFINITY } else { d * d };
        }
        Ok(())
    }
}

impl Shares {
    fn of(values: &[Sums]) -> Self {
        let judged: Vec<&Sums> = values.iter().filter(|v| !v.noise.is_empty()).collect();
        let count = judged.iter().map(|v| v.noise.len()).max().unwrap_or(0);
        let share = |i: usize| {
            let of_value = |v: &&Sums| match v.noise[i] {
                0.0 => 0.0,
                noise => noise / v.signal / judged.len() as f64,
            };
            judged.iter().map(of_value).sum()
        };
        Self((0..count).map(share).collect())
    }

    /// Those of a test.
    #[cfg(test)]
    pub fn testing(shares: &[f64]) -> Self {
        Self(shares.to_vec())
    }

    /// The noise of all samples as a share of the signal.
    pub fn total(&self) -> f64 {
        self.0.iter().sum()
    }

    /// Signal to noise, in dB.
    pub fn db(&self) -> f64 {
        -10.0 * self.total().log10()
    }

    /// By how many standard errors of the difference, sample by sample, this is noisier than `other`.
    pub fn noisier_than(&self, other: &Self) -> f64 {
        let apart: Vec<f64> = self.0.iter().zip(&other.0).map(|(a, b)| a - b).collect();
        let (sum, n) = (self.total() - other.total(), apart.len() as f64);
        if sum == 0.0 {
            return 0.0;
        }
        let spread: f64 = apart.iter().map(|d| (d - sum / n).powi(2)).sum();
        let error = (spread * n / (n - 1.0)).sqrt();
        if error > 0.0 && error.is_finite() {
            sum / error
        } else {
            sum.signum() * f64::INFINITY
        }
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{NoProgress, text};

    use super::*;
    use crate::samples::InMemory;

    fn model(scale: f32) -> Model {
        let source = format!(
            "opset 17\ngraph g(x: f32[n,2]) -> (y: f32[n,2]) {{\n  s: f32[] = {{{scale:?}}}\n  \
             h = Mul(x, s) {{name=\"m\"}}\n  y = Softmax(h) {{name=\"r\", axis=1}}\n}}\n"
        );
        text::parse(&source).unwrap()
    }

    fn rows(data: Vec<f32>) -> InMemory {
        InMemory {
            name: "x".into(),
            rows: Tensor::from_vec(&[data.len() / 2, 2], data).unwrap(),
            labels: None,
        }
    }

    #[test]
    fn noise_that_a_softmax_hides_is_seen_before_it() {
        let samples = rows(vec![90.0, -90.0, -80.0, 80.0]);
        let mut noise = Noise::new(&model(1.0), judges(&samples, 0)).unwrap();
        let same = noise.of(&model(1.0), &NoProgress).unwrap();
        assert_eq!(same.total(), 0.0);
        let found = noise.of(&model(0.5), &NoProgress).unwrap();
        assert!((found.total() - 0.125).abs() < 1e-6, "{found:?}");
        assert!((found.db() - 9.03).abs() < 0.01, "{}", found.db());
    }

    #[test]
    fn samples_that_were_learned_from_judge_only_where_there_are_few_others() {
        let samples = rows(vec![1.0; 2 * 40]);
        for (learned, start, count) in [(0, 0, 40), (24, 24, 16), (25, 0, 40), (100, 0, 40)] {
            let part = judges(&samples, learned);
            assert_eq!((part.start(), part.count()), (start, count), "{learned}");
        }
    }

    #[test]
    fn a_difference_counts_by_how_much_samples_agree_on_it() {
        let of = |shares: [f64; 4]| Shares::testing(&shares);
        let plain = of([1.0, 2.0, 3.0, 4.0]);
        let all = of([1.11, 2.1, 3.09, 4.1]);
        let one = of([0.6, 2.4, 2.6, 4.8]);
        assert!(
            all.noisier_than(&plain) > 20.0,
            "{}",
            all.noisier_than(&plain)
        );
        assert!(
            one.noisier_than(&plain) < 1.0,
            "{}",
            one.noisier_than(&plain)
        );
        assert!(plain.noisier_than(&all) < -20.0);
        assert_eq!(plain.noisier_than(&plain), 0.0);
        assert_eq!(of([2.0; 4]).noisier_than(&of([1.0; 4])), f64::INFINITY);
    }

    #[test]
    fn what_is_no_number_is_the_worst() {
        let of = |x: f32| {
            let mut sums = Sums::default();
            let r = Tensor::vector(vec![1.0, f32::NAN, f32::INFINITY]);
            let x = Tensor::vector(vec![x, f32::NAN, f32::INFINITY]);
            sums.add(&r, &x, 3, None).unwrap();
            Shares::of(&[sums]).total()
        };
        assert_eq!((of(0.5), of(f32::NAN)), (0.25, f64::INFINITY));
    }
}

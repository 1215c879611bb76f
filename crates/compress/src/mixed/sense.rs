//! How much the outputs suffer where one layer alone is quantised.

use edgesmith_ir::{Error, Model, Progress, Result, Tensor};
use edgesmith_runtime::Session;

use super::judge::{Recorded, prepared};
use crate::evaluate;
use crate::samples::{Part, Samples, named};

/// How the cost of rounding a layer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    /// The noise at the outputs, as a share of the signal, with this layer alone quantised.
    Sqnr,
    /// How much the cross-entropy of the labels grows with this layer alone quantised.
    Loss,
    /// `tr(ΔW H ΔWᵀ) / tr(W H Wᵀ)` of the rounded weight, `H = XᵀX`: no model is run.
    Trace,
}

/// Every way, with its name on the command line.
pub const SENSES: &[(&str, Sense)] = &[
    ("sqnr", Sense::Sqnr),
    ("loss", Sense::Loss),
    ("trace", Sense::Trace),
];

/// Samples that are enough to order layers by noise, and by loss.
const FOR_NOISE: usize = 16;
const FOR_LOSS: usize = 256;

/// Samples that are run at once.
const BATCH: usize = 16;

/// Measures models against the float one.
pub struct Sensor<'a> {
    sense: Sense,
    float: Recorded,
    samples: &'a dyn Samples,
    /// The loss of the float model.
    loss: f64,
}

impl<'a> Sensor<'a> {
    /// # Errors
    /// When the loss is asked for and there are no labels, or the float model does not run.
    pub fn new(sense: Sense, float: &Model, samples: &'a dyn Samples) -> Result<Self> {
        let mut sensor = Self {
            sense,
            float: Recorded::new(prepared(float)?),
            samples,
            loss: 0.0,
        };
        if sense == Sense::Loss {
            if samples.labels().is_none() {
                return Err(Error::usage("the sensitivity loss needs labels")
                    .hint("name data with an array \"labels\", or take sqnr"));
            }
            sensor.loss = loss(&mut prepared(float)?, samples)?;
        }
        Ok(sensor)
    }

    /// What a model costs; 0 where it answers as the float one does.
    ///
    /// # Errors
    /// When it does not run, or the user cancels.
    pub fn cost(&mut self, model: &Model, progress: &dyn Progress) -> Result<f64> {
        let mut session = prepared(model)?;
        if self.sense == Sense::Loss {
            return Ok(loss(&mut session, self.samples)? - self.loss);
        }
        self.float.rewind();
        let few = Part::new(self.samples, 0..FOR_NOISE);
        let found = evaluate::fidelity(&mut self.float, &mut session, &few, BATCH, progress)?;
        Ok(10f64.powf(-found.sqnr_db / 10.0))
    }
}

/// The mean cross-entropy of the labels. Rows of the first output that are probabilities already are
/// taken as such, others as logits.
fn loss(session: &mut Session, samples: &dyn Samples) -> Result<f64> {
    let labels = samples.labels().unwrap_or_default();
    let (mut sum, mut count) = (0.0, 0usize);
    for batch in samples.batches(BATCH) {
        let (range, inputs) = batch?;
        if range.start >= FOR_LOSS {
            break;
        }
        let outputs = session.run(&named(&inputs))?;
        let first = outputs.first().map(Tensor::to_f32).transpose()?;
        let first = first.unwrap_or_default();
        let width = first.len() / range.len().max(1);
        for (row, i) in first.chunks_exact(width.max(1)).zip(range) {
            let label = labels.get(i).and_then(|&l| usize::try_from(l).ok());
            let label = label.filter(|&l| l < width).ok_or_else(|| {
                Error::invalid(format!(
                    "the label of sample {i} is none of {width} classes"
                ))
            })?;
            sum += cross_entropy(row, label);
            count += 1;
        }
    }
    Ok(sum / count.max(1) as f64)
}

fn cross_entropy(row: &[f32], label: usize) -> f64 {
    let wide = || row.iter().map(|&x| f64::from(x));
    let sum: f64 = wide().sum();
    if (sum - 1.0).abs() < 1e-3 && wide().all(|x| x >= 0.0) {
        return -f64::from(row[label]).max(1e-12).ln();
    }
    let most = wide().fold(f64::NEG_INFINITY, f64::max);
    let all: f64 = wide().map(|x| (x - most).exp()).sum();
    all.ln() + most - f64::from(row[label])
}

#[cfg(test)]
mod tests {
    use super::cross_entropy;

    #[test]
    fn logits_and_probabilities_have_the_same_loss() {
        let logits = [1.0f32, 3.0, -2.0];
        let all: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let shares: Vec<f32> = logits
            .iter()
            .map(|&x| (f64::from(x).exp() / all) as f32)
            .collect();
        for label in 0..3 {
            let (a, b) = (cross_entropy(&logits, label), cross_entropy(&shares, label));
            assert!((a - b).abs() < 1e-6 && (a + f64::from(shares[label]).ln()).abs() < 1e-6);
        }
    }
}

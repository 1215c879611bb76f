//! How good a model is on samples that it does not learn from.

use edgesmith_ir::{Error, Model, Result};
use edgesmith_runtime::{Options, Session};

use crate::samples::{Samples, named};

/// Samples of a run.
const BATCH: usize = 64;

/// The part of right answers on labelled samples, from 0 to 1; without labels, minus the mean
/// square of output and input `like`.
///
/// # Errors
/// When the model does not run on the samples.
pub fn judge(
    model: &Model,
    samples: &dyn Samples,
    like: Option<&str>,
    threads: usize,
) -> Result<f64> {
    let options = Options {
        threads,
        ..Options::default()
    };
    let mut session = Session::prepare(model, &options)?;
    let (mut sum, mut count) = (0.0, 0u64);
    for batch in samples.batches(BATCH) {
        let (range, fed) = batch?;
        let outputs = session.run(&named(&fed))?;
        let first = outputs
            .first()
            .ok_or_else(|| Error::invalid("the model has no output"))?;
        let data = first.to_f32()?;
        let width = data.len() / range.len().max(1);
        match (samples.labels(), like) {
            (Some(labels), None) => {
                for (line, &label) in data.chunks(width.max(1)).zip(&labels[range]) {
                    let best = (0..line.len()).reduce(|a, b| if line[b] > line[a] { b } else { a });
                    if label >= 0 {
                        sum += f64::from(u8::from(best.map(|b| b as i64) == Some(label)));
                        count += 1;
                    }
                }
            }
            (_, Some(like)) => {
                let input = fed.iter().find(|(n, _)| n == like);
                let (_, input) = input.ok_or_else(|| {
                    Error::invalid(format!("the samples have no input \"{like}\""))
                })?;
                for (a, b) in data.iter().zip(input.to_f32()?.iter()) {
                    sum -= f64::from(a - b).powi(2);
                    count += 1;
                }
            }
            (None, None) => {
                return Err(Error::invalid("samples without labels judge nothing")
                    .hint("an array `labels`, the class of each sample"));
            }
        }
    }
    Ok(sum / count.max(1) as f64)
}

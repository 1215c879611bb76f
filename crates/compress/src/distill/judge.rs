//! How good a model is on samples that it does not learn from.

use edgesmith_ir::{Error, Model, Result};
use edgesmith_runtime::{Options, Session};

use crate::samples::{Samples, named};

/// Samples of a run.
const BATCH: usize = 64;

/// The part of right answers on labelled samples, from 0 to 1; without labels, minus the mean
/// square of output and input `like`. Where a model answers with one number, that is right by its
/// sign, or by the side of ½ where it comes of a Sigmoid.
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
    let graph = &model.graph;
    let first = graph.outputs.first();
    let is_odds = first.is_some_and(|&v| graph.producer_is(v, "Sigmoid").is_none());
    let middle = if is_odds { 0.0 } else { 0.5 };
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
                    let best = match line {
                        [one] => Some(usize::from(*one > middle)),
                        _ => (0..line.len()).reduce(|a, b| if line[b] > line[a] { b } else { a }),
                    };
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

#[cfg(test)]
mod tests {
    use edgesmith_ir::{Tensor, text};

    use super::*;
    use crate::samples::Batch;

    struct Four;

    impl Samples for Four {
        fn count(&self) -> usize {
            4
        }

        fn labels(&self) -> Option<&[i64]> {
            Some(&[1, 0, 1, -1])
        }

        fn batches(&self, _: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
            let x = Tensor::from_vec(&[4, 1], vec![0.3f32, 0.2, -1.0, 5.0]);
            Box::new(std::iter::once(x.map(|x| (0..4, vec![("x".into(), x)]))))
        }
    }

    #[test]
    fn one_number_is_right_by_its_sign_or_by_the_side_of_a_half() {
        for op in ["Identity", "Sigmoid"] {
            let source =
                format!("opset 17 graph g(x: f32[n,1]) -> (y: f32[n,1]) {{ y = {op}(x) }}");
            let model = text::parse(&source).unwrap();
            // 0.3 is yes and right, 0.2 yes and wrong, -1 no and wrong; one sample has no class.
            assert_eq!(judge(&model, &Four, None, 1).unwrap(), 1.0 / 3.0, "{op}");
        }
    }
}

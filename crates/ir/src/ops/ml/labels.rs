//! The labels of classes: integers or strings.

use super::samples;
use crate::infer::InferCx;
use crate::{DType, Dim, Error, Node, Result, Tensor};

/// The label of each class.
pub enum Labels {
    /// Integers.
    Ints(Vec<i64>),
    /// Strings.
    Strings(Vec<String>),
}

impl Labels {
    /// The labels in attribute `strings`, else those in attribute `ints`.
    ///
    /// # Errors
    /// When neither holds any.
    pub fn of(node: &Node, ints: &str, strings: &str) -> Result<Self> {
        if let Some(s) = node.strings(strings).filter(|s| !s.is_empty()) {
            return Ok(Self::Strings(s));
        }
        match node.ints(ints).filter(|i| !i.is_empty()) {
            Some(i) => Ok(Self::Ints(i.to_vec())),
            None => Err(Error::invalid(format!(
                "neither \"{ints}\" nor \"{strings}\" gives labels"
            ))),
        }
    }

    /// How many classes.
    pub fn count(&self) -> usize {
        match self {
            Self::Ints(v) => v.len(),
            Self::Strings(v) => v.len(),
        }
    }

    /// The type of the labels.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Ints(_) => DType::I64,
            Self::Strings(_) => DType::String,
        }
    }

    /// The label of each of `classes`. A class over the last one stands for itself, as 0 and 1 do
    /// where a file names one label.
    ///
    /// # Errors
    /// Never for lengths that fit memory.
    pub fn tensor(&self, classes: &[usize]) -> Result<Tensor> {
        let dims = [classes.len()];
        match self {
            Self::Ints(v) => {
                let label = |&c: &usize| v.get(c).copied().unwrap_or(c as i64);
                Tensor::from_vec(&dims, classes.iter().map(label).collect())
            }
            Self::Strings(v) => {
                let label = |&c: &usize| v.get(c).cloned().unwrap_or_else(|| c.to_string());
                Tensor::from_strings(&dims, classes.iter().map(label).collect())
            }
        }
    }
}

/// The rule of classifiers: a label for each sample, and `scores` numbers.
pub fn infer(cx: &mut InferCx, labels: &Labels, scores: Dim) {
    let count = samples::count(cx);
    let shape = samples::results(cx, scores);
    cx.set_tensor(0, Some(labels.dtype()), Some([count].into_iter().collect()));
    cx.set_tensor(1, Some(DType::F32), Some(shape));
}

/// The first place of the largest number.
pub fn largest(scores: &[f64]) -> usize {
    (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_scores_wins() {
        assert_eq!(largest(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(largest(&[f64::NAN, 1.0]), 0);
    }
}

//! What is done to the scores of a model at its end: attribute `post_transform`.

use crate::ops::unary::sigmoid;
use crate::{Error, Node, Result};

/// A function of all scores of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    /// Left as they are.
    None,
    /// Softmax.
    Softmax,
    /// The logistic function of each.
    Logistic,
    /// Softmax of those that are not 0.
    SoftmaxZero,
    /// The quantile of the normal distribution of each.
    Probit,
}

impl Transform {
    /// The transform that the node names.
    ///
    /// # Errors
    /// When it names none of ONNX's.
    pub fn of(node: &Node) -> Result<Self> {
        match node.string("post_transform").unwrap_or("NONE") {
            "NONE" => Ok(Self::None),
            "SOFTMAX" => Ok(Self::Softmax),
            "LOGISTIC" => Ok(Self::Logistic),
            "SOFTMAX_ZERO" => Ok(Self::SoftmaxZero),
            "PROBIT" => Ok(Self::Probit),
            other => Err(unknown(other)),
        }
    }

    /// The transform of a code of TreeEnsemble.
    ///
    /// # Errors
    /// When it is none of ONNX's.
    pub fn of_code(code: i64) -> Result<Self> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Softmax),
            2 => Ok(Self::Logistic),
            3 => Ok(Self::SoftmaxZero),
            4 => Ok(Self::Probit),
            other => Err(unknown(&other.to_string())),
        }
    }

    /// Transforms the scores of one sample.
    pub fn apply(self, scores: &mut [f64]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|s| *s = sigmoid(*s)),
            Self::Probit => scores.iter_mut().for_each(|s| *s = probit(*s)),
            Self::Softmax => softmax(scores, |_| true),
            Self::SoftmaxZero => softmax(scores, |s| s.abs() > 1e-7),
        }
    }
}

fn unknown(word: &str) -> Error {
    Error::invalid(format!(
        "post_transform \"{word}\" is none of NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO, PROBIT"
    ))
}

/// Softmax of the scores that take part; the others become 0.
fn softmax(scores: &mut [f64], takes_part: impl Fn(f64) -> bool) {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for s in scores.iter_mut() {
        *s = if takes_part(*s) {
            (*s - max).exp()
        } else {
            0.0
        };
        sum += *s;
    }
    scores.iter_mut().for_each(|s| *s /= sum);
}

/// The quantile of the normal distribution at `p`, by Winitzki's approximation of the inverse
/// error function ("A handy approximation for the error function and its inverse", 2008), which
/// runtimes use: right to two parts in a thousand.
fn probit(p: f64) -> f64 {
    const A: f64 = 0.147;
    let x = 2.0 * p - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (std::f64::consts::PI * A) + 0.5 * log;
    let root = ((half * half - log / A).sqrt() - half).sqrt();
    std::f64::consts::SQRT_2 * if x < 0.0 { -root } else { root }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_take_no_part_in_softmax_zero() {
        let mut scores = [1.0, 0.0, 1.0];
        Transform::SoftmaxZero.apply(&mut scores);
        assert_eq!(scores, [0.5, 0.0, 0.5]);
    }

    #[test]
    fn the_quantile_at_a_half_is_zero_and_signs_mirror() {
        assert_eq!(probit(0.5), 0.0);
        assert_eq!(probit(0.1), -probit(0.9));
        // The exact quantile is 1.281552.
        assert!((probit(0.9) - 1.281_552).abs() < 5e-3);
    }
}

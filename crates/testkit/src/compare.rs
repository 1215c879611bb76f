//! Comparing answers: within a tolerance, with the worst element named.

use edgesmith_ir::eval::evaluate;
use edgesmith_ir::verify::verify;
use edgesmith_ir::{Model, Tensor};

use crate::random;

/// How far `a` may be from the expected `b`: `|a − b| ≤ absolute + relative · scale`, where
/// `scale` is the largest finite magnitude in the expected tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Part of the largest magnitude.
    pub relative: f32,
    /// In the unit of the data.
    pub absolute: f32,
}

impl Tolerance {
    /// Bit for bit, but for the sign of zero.
    pub const EXACT: Self = Self {
        relative: 0.0,
        absolute: 0.0,
    };

    /// What sums in another order may differ in f32.
    pub const ROUNDING: Self = Self {
        relative: 1e-5,
        absolute: 1e-6,
    };
}

/// What differs most between two tensors, in words; `None` where they agree. NaN agrees with NaN,
/// an infinity with the same infinity.
pub fn difference(found: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Option<String> {
    if found.ty() != expected.ty() {
        return Some(format!("found {}, expected {}", found.ty(), expected.ty()));
    }
    let (Ok(a), Ok(b)) = (found.to_f32(), expected.to_f32()) else {
        return (found != expected).then(|| format!("{} with other elements", found.ty()));
    };
    let finite = b.iter().filter(|x| x.is_finite());
    let scale = finite.fold(0f32, |m, x| m.max(x.abs()));
    let limit = tolerance.absolute + tolerance.relative * scale;
    let mut worst: Option<(usize, f32)> = None;
    let mut wrong = 0usize;
    for (i, (&x, &y)) in a.iter().zip(b.iter()).enumerate() {
        let agrees = x == y || (x.is_nan() && y.is_nan());
        let far = (x - y).abs();
        if agrees || far <= limit {
            continue;
        }
        wrong += 1;
        let far = if far.is_nan() { f32::INFINITY } else { far };
        if worst.is_none_or(|(_, w)| far > w) {
            worst = Some((i, far));
        }
    }
    let (i, far) = worst?;
    let place = place(i, found.dims());
    Some(format!(
        "{wrong} of {} elements of {} differ by more than {limit:e}; the worst, at {place:?}: \
         found {}, expected {}, apart {far:e}",
        a.len(),
        found.ty(),
        a[i],
        b[i]
    ))
}

/// The coordinates of element `i`.
fn place(mut i: usize, dims: &[usize]) -> Vec<usize> {
    let mut at = vec![0; dims.len()];
    for (slot, &d) in at.iter_mut().zip(dims).rev() {
        *slot = i % d;
        i /= d;
    }
    at
}

/// Asserts that two tensors agree.
///
/// # Panics
/// When they do not; the message names the worst element.
pub fn assert_close(found: &Tensor, expected: &Tensor, tolerance: Tolerance) {
    if let Some(message) = difference(found, expected, tolerance) {
        panic!("{message}");
    }
}

/// Asserts that a model is well formed.
///
/// # Panics
/// When it is not; the message has all faults.
pub fn check(model: &Model) {
    if let Err(faults) = verify(model) {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        panic!("the model is not sound:\n{}", lines.join("\n"));
    }
}

/// Asserts that two models with the same inputs give the same answers to random inputs of `seed`,
/// by reference evaluation.
///
/// # Panics
/// When they do not, or when one of them cannot be evaluated.
pub fn assert_same_answers(found: &Model, expected: &Model, seed: u64, tolerance: Tolerance) {
    let inputs = random::inputs(expected, seed);
    let inputs: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(n, t)| (n.as_str(), t.clone()))
        .collect();
    let answers = |m: &Model| match evaluate(m, &inputs) {
        Ok(outputs) => outputs,
        Err(e) => panic!("the model cannot be evaluated: {e}"),
    };
    let (a, b) = (answers(found), answers(expected));
    assert_eq!(a.len(), b.len(), "the number of outputs");
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        if let Some(message) = difference(x, y, tolerance) {
            panic!("output {i}, seed {seed}: {message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(data: &[f32]) -> Tensor {
        Tensor::vector(data.to_vec())
    }

    #[test]
    fn the_worst_element_is_named() {
        let a = Tensor::from_vec(&[2, 2], vec![1f32, 2.0, 3.5, 4.1]).unwrap();
        let b = Tensor::from_vec(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        let message = difference(&a, &b, Tolerance::ROUNDING).unwrap();
        assert!(message.contains("2 of 4"), "{message}");
        assert!(message.contains("[1, 0]"), "{message}");
    }

    #[test]
    fn nan_agrees_with_nan_and_with_nothing_else() {
        let (a, b) = (vector(&[f32::NAN, 1.0]), vector(&[f32::NAN, 1.0]));
        assert_eq!(difference(&a, &b, Tolerance::EXACT), None);
        assert!(difference(&a, &vector(&[0.0, 1.0]), Tolerance::ROUNDING).is_some());
    }

    #[test]
    fn another_shape_is_a_difference() {
        let a = vector(&[1.0, 2.0]);
        let b = a.reshaped(&[2, 1]).unwrap();
        assert!(difference(&a, &b, Tolerance::ROUNDING).is_some());
    }
}

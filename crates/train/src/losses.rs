//! Losses: what training makes small. Each adds nodes of ONNX to the training graph.
//!
//! Means are over the batch, or over all elements where the formula says so.

use edgesmith_ir::{Error, Result, ValueId};

use crate::draft::Draft;

mod features;
mod labels;
mod relations;
mod response;
pub mod same;

pub use labels::BINARY;

/// What a loss compares, and its numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The student's value, where it is not the output.
    pub student: Option<String>,
    /// The teacher's value, where it is not the output.
    pub teacher: Option<String>,
    /// The temperature of a softmax.
    pub temperature: Option<f64>,
    /// The weight of the classes beside the right one.
    pub beta: Option<f64>,
    /// Some samples have no label.
    pub unlabelled: bool,
    /// The share of its class that each sample gives to all classes alike.
    pub smoothing: Option<f64>,
    /// Samples are mixed: each has a share of several classes.
    pub is_mixed: bool,
    /// The input of the model that the output should be like.
    pub like_input: Option<String>,
}

impl Request {
    /// T: the temperature of a softmax.
    pub fn temperature(&self) -> f64 {
        self.temperature.unwrap_or(4.0)
    }

    /// beta: the weight of the classes beside the right one.
    pub fn beta(&self) -> f64 {
        self.beta.unwrap_or(8.0)
    }

    /// epsilon: the share that all classes have alike.
    pub fn smoothing(&self) -> f64 {
        self.smoothing.unwrap_or(0.0)
    }

    /// The loss and what it compares.
    pub fn describe(&self, loss: &str) -> String {
        match (&self.student, &self.teacher) {
            (Some(s), Some(t)) => format!("{loss} {s} : {t}"),
            (Some(s), None) => format!("{loss} {s}"),
            _ => loss.to_owned(),
        }
    }
}

/// What a loss cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Classes of the samples.
    Labels,
    /// Numbers that the output should be.
    Targets,
    /// The outputs of a teacher.
    Teacher,
    /// A value of the student and one of the teacher.
    Pair,
}

/// A row of the list of losses.
pub struct Loss {
    /// Its name.
    pub name: &'static str,
    /// One sentence with its source.
    pub about: &'static str,
    /// The formula, of s the student's and t the teacher's value.
    pub formula: &'static str,
    /// Where the formula stands: a paper or a book, and the place in it.
    pub source: &'static str,
    /// What it cannot do without.
    pub needs: Needs,
    /// The values that `same` stands for, where the loss has such.
    pub same: Option<same::Find>,
    /// Adds it to a training graph; its value is one number.
    pub add: fn(&mut Draft, &Request) -> Result<ValueId>,
}

impl Loss {
    /// The numbers of a request that stand in the formula, by their names there.
    pub fn numbers(&self, request: &Request) -> Vec<(&'static str, f64)> {
        let words: Vec<&str> = self.formula.split(|c: char| !c.is_alphanumeric()).collect();
        let all = [
            ("T", request.temperature()),
            ("beta", request.beta()),
            ("epsilon", request.smoothing()),
        ];
        all.into_iter().filter(|(n, _)| words.contains(n)).collect()
    }
}

/// Every loss: of labels, of the teacher's response, of its features, of its relations.
pub static LOSSES: &[&Loss] = &[
    &labels::CROSS_ENTROPY,
    &BINARY,
    &labels::MSE,
    &response::KD,
    &response::DKD,
    &response::LOGITS_MSE,
    &features::HINT,
    &features::ATTENTION_TRANSFER,
    &features::ATTENTION_SCORES,
    &features::COSINE,
    &relations::ATTENTION,
    &relations::VALUES,
    &relations::SIMILARITY,
    &relations::DISTANCE,
    &relations::ANGLE,
];

/// The loss of that name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Loss> {
    let found = LOSSES.iter().copied().find(|l| l.name == name);
    found.ok_or_else(|| Error::unknown("loss", name, LOSSES.iter().map(|l| l.name)))
}

/// The student's and the teacher's value that a loss compares.
fn pair(draft: &mut Draft, request: &Request) -> Result<(ValueId, ValueId)> {
    let (Some(student), Some(teacher)) = (&request.student, &request.teacher) else {
        return Err(Error::usage(
            "it compares two values: name the student's and the teacher's",
        ));
    };
    Ok((draft.value(student)?, draft.taught(Some(teacher))?))
}

/// x by its length along an axis, or by `least` where it is shorter.
fn normed(draft: &mut Draft, x: ValueId, axis: i64, least: f64) -> ValueId {
    let length = draft.reduced("ReduceL2", x, &[axis], true);
    by_at_least(draft, x, length, least)
}

/// x / divisor, where a divisor below `least` counts as that.
fn by_at_least(draft: &mut Draft, x: ValueId, divisor: ValueId, least: f64) -> ValueId {
    let least = draft.number(least);
    let divisor = draft.op("Max", &[divisor, least]);
    draft.op("Div", &[x, divisor])
}

/// The mean of (a − b)² over all elements.
fn mean_square(draft: &mut Draft, a: ValueId, b: ValueId) -> ValueId {
    let difference = draft.op("Sub", &[a, b]);
    let square = draft.op("Mul", &[difference, difference]);
    draft.mean(square)
}

/// Smooth L1 of a − b with the bend at 1, averaged over all elements (R. Girshick, 2015).
fn mean_smooth(draft: &mut Draft, a: ValueId, b: ValueId) -> ValueId {
    let difference = draft.op("Sub", &[a, b]);
    let size = draft.op("Abs", &[difference]);
    let one = draft.number(1.0);
    // ½m² + (|d| − m), where m is the smaller of |d| and 1.
    let inner = draft.op("Min", &[size, one]);
    let square = draft.op("Mul", &[inner, inner]);
    let half = draft.scaled(square, 0.5);
    let outer = draft.op("Sub", &[size, inner]);
    let sum = draft.op("Add", &[half, outer]);
    draft.mean(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_has_the_numbers_that_stand_in_it() {
        let numbers = |name: &str| find(name).unwrap().numbers(&Request::default());
        assert_eq!(numbers("kd"), [("T", 4.0)]);
        assert_eq!(numbers("dkd"), [("T", 4.0), ("beta", 8.0)]);
        assert_eq!(numbers("cross-entropy"), [("epsilon", 0.0)]);
        assert!(numbers("rkd-angle").is_empty() && numbers("hint").is_empty());
    }

    #[test]
    fn every_loss_says_where_its_formula_stands() {
        for l in LOSSES {
            assert!(!l.source.is_empty() && !l.formula.is_empty(), "{}", l.name);
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        for (i, l) in LOSSES.iter().enumerate() {
            assert!(LOSSES[..i].iter().all(|m| m.name != l.name));
            assert_eq!(find(l.name).unwrap().name, l.name);
        }
    }
}

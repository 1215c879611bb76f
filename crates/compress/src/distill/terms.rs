//! A term of the loss as it is written: `NAME [WEIGHT[..LAST]] [STUDENT : TEACHER | same |
//! uniform]`.

use edgesmith_ir::{Error, Model, Result};
use edgesmith_train::losses::{self, Loss, Needs};

/// A term of the loss.
#[derive(Clone)]
pub struct TermGiven {
    /// The loss.
    pub loss: &'static Loss,
    /// Its weight at the beginning.
    pub weight: f64,
    /// Its weight at the end.
    pub last: f64,
    /// The student's value.
    pub student: Option<String>,
    /// The teacher's value.
    pub teacher: Option<String>,
    /// It stands for terms of values that are found in both models.
    pub paired: Option<Paired>,
}

/// How values of the two models are paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paired {
    /// Those of one name.
    Same,
    /// Each of the student with that of the teacher which stands as far along.
    Uniform,
}

impl TermGiven {
    /// Reads a term.
    ///
    /// # Errors
    /// When the loss is unknown, a weight is no number from 0, or values are missing or too many.
    pub fn parse(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace().peekable();
        let loss = losses::find(words.next().unwrap_or(""))?;
        let mut weights = None;
        if let Some(found) = words.peek().and_then(|w| range(w)) {
            weights = Some(found);
            words.next();
        }
        let (weight, last) = weights.unwrap_or((1.0, 1.0));
        let rest: Vec<&str> = words.collect();
        let paired = match rest[..] {
            ["same"] => Some(Paired::Same),
            ["uniform"] => Some(Paired::Uniform),
            _ => None,
        };
        let (student, teacher) = match (loss.needs, &rest[..]) {
            (Needs::Pair, ["same" | "uniform"]) if loss.same.is_some() => (None, None),
            (Needs::Pair, [s, ":", t]) => (Some((*s).to_owned()), Some((*t).to_owned())),
            (Needs::Pair, _) => {
                return Err(
                    Error::usage(format!("the loss \"{text}\" compares two values")).hint(
                        match loss.same {
                            None => format!("{} WEIGHT STUDENT : TEACHER", loss.name),
                            Some(_) => format!(
                                "{0} WEIGHT STUDENT : TEACHER, {0} WEIGHT same, or {0} WEIGHT uniform",
                                loss.name
                            ),
                        },
                    ),
                );
            }
            (_, []) => (None, None),
            (_, [word, ..]) => {
                return Err(
                    Error::usage(format!("\"{word}\" in \"{text}\" is no weight"))
                        .hint(format!("{} WEIGHT, or WEIGHT..LAST", loss.name)),
                );
            }
        };
        if weight < 0.0 || last < 0.0 {
            return Err(Error::usage(format!("a weight of \"{text}\" is below 0")));
        }
        Ok(Self {
            loss,
            weight,
            last,
            student,
            teacher,
            paired,
        })
    }

    /// The terms that it stands for: itself, or one for each pair of values.
    ///
    /// # Errors
    /// When the two have no such values.
    pub fn pairs(&self, student: &Model, teacher: Option<&Model>) -> Result<Vec<Self>> {
        let (Some(teacher), Some(paired)) = (teacher, self.paired) else {
            return Ok(vec![self.clone()]);
        };
        let pairs = match paired {
            Paired::Same => losses::same::names(self.loss, student, teacher)?
                .into_iter()
                .map(|name| (name.clone(), name))
                .collect(),
            Paired::Uniform => losses::same::uniform(self.loss, student, teacher)?,
        };
        let of = |(student, teacher)| Self {
            student: Some(student),
            teacher: Some(teacher),
            paired: None,
            ..self.clone()
        };
        Ok(pairs.into_iter().map(of).collect())
    }
}

/// `W` or `W..LAST`.
fn range(word: &str) -> Option<(f64, f64)> {
    let number = |w: &str| w.parse::<f64>().ok().filter(|x| x.is_finite());
    match word.split_once("..") {
        None => number(word).map(|w| (w, w)),
        Some((a, b)) => Some((number(a)?, number(b)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_has_a_weight_and_values() {
        let t = TermGiven::parse("hint 10..1 relu3 : layer4.out").unwrap();
        assert_eq!((t.loss.name, t.weight, t.last), ("hint", 10.0, 1.0));
        assert_eq!(t.student.as_deref(), Some("relu3"));
        assert_eq!(t.teacher.as_deref(), Some("layer4.out"));
        assert_eq!(TermGiven::parse("kd").unwrap().weight, 1.0);
        let paired = |t: &str| TermGiven::parse(t).unwrap().paired;
        assert_eq!(paired("hint 2 same"), Some(Paired::Same));
        assert_eq!(paired("attention uniform"), Some(Paired::Uniform));
    }

    #[test]
    fn what_is_no_term_is_refused() {
        for text in [
            "",
            "kdd",
            "kd x",
            "kd same",
            "similarity same",
            "hint 1",
            "hint a b",
            "kd -1",
        ] {
            assert!(TermGiven::parse(text).is_err(), "{text}");
        }
    }
}

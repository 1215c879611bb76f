//! Labels that are held in memory: classes by number or by name, or numbers to meet.

use std::collections::BTreeMap;

use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Result, Tensor};

use super::Target;

/// The answers to all samples.
#[derive(Debug, Default)]
pub struct Labels {
    classes: Vec<i64>,
    values: Vec<f32>,
    /// Numbers of a sample.
    width: usize,
    names: Vec<String>,
}

impl Labels {
    /// Classes by number.
    pub fn classes(classes: Vec<i64>, names: Vec<String>) -> Self {
        Self {
            classes,
            names,
            ..Self::default()
        }
    }

    /// An array with a row for each sample: whole numbers are classes where `values` does not say
    /// otherwise.
    ///
    /// # Errors
    /// When a sample has several whole numbers, or elements are no numbers.
    pub fn of_array(t: &Tensor, values: bool) -> Result<Self> {
        let count = t.dims().first().copied().unwrap_or(0);
        let width = t.count().checked_div(count).unwrap_or(1);
        if values || t.dtype().is_float() {
            return Ok(Self {
                values: t.to_f32()?.into_owned(),
                width,
                ..Self::default()
            });
        }
        if width != 1 {
            return Err(Error::unsupported(format!(
                "labels have {width} whole numbers each, and a class is one"
            ))
            .hint("say that they are values, or write the number of the class"));
        }
        Ok(Self::classes(t.to_i64()?, Vec::new()))
    }

    /// A text for each sample: classes that are all whole numbers from 0 are those numbers, others
    /// are numbered in the order of their names. With `values` they are numbers.
    ///
    /// # Errors
    /// When a value is no number; the row is named.
    pub fn of_texts(texts: Vec<String>, values: bool) -> Result<Self> {
        if values {
            let number = |(i, t): (usize, &String)| {
                let parsed = t.trim().parse::<f32>().ok().filter(|x| x.is_finite());
                let fault = || Error::invalid(format!("the label \"{t}\" is no number"));
                parsed.ok_or_else(fault).at(|| format!("row {i}"))
            };
            let values = texts.iter().enumerate().map(number);
            return Ok(Self {
                values: values.collect::<Result<_>>()?,
                width: 1,
                ..Self::default()
            });
        }
        let number = |t: &String| t.trim().parse::<i64>().ok().filter(|&c| c >= 0);
        if let Some(classes) = texts.iter().map(number).collect() {
            return Ok(Self::classes(classes, Vec::new()));
        }
        let mut numbers: BTreeMap<&str, i64> = texts.iter().map(|t| (t.as_str(), 0)).collect();
        numbers.values_mut().zip(0..).for_each(|(n, i)| *n = i);
        let classes = texts.iter().map(|t| numbers[t.as_str()]).collect();
        let names = numbers.keys().map(|n| (*n).to_owned()).collect();
        Ok(Self::classes(classes, names))
    }

    /// Samples that have an answer; `None` where none has.
    pub fn len(&self) -> Option<usize> {
        match (self.classes.len(), self.values.len()) {
            (0, 0) => None,
            (0, values) => Some(values / self.width.max(1)),
            (classes, _) => Some(classes),
        }
    }

    /// The answer to a sample.
    pub fn of(&self, index: usize) -> Target {
        if let Some(&class) = self.classes.get(index) {
            return Target::Class(class);
        }
        let start = index.saturating_mul(self.width);
        match self.values.get(start..start.saturating_add(self.width)) {
            Some(values) if !values.is_empty() => Target::Values(values.to_vec()),
            _ => Target::Unknown,
        }
    }

    /// The names of classes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Refuses another number of answers than of samples.
    ///
    /// # Errors
    /// When they differ.
    pub fn check(&self, samples: usize) -> Result<()> {
        match self.len() {
            Some(n) if n != samples => Err(Error::invalid(format!(
                "there are {n} labels for {samples} samples"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn texts_are_numbered_by_name_unless_they_are_numbers() {
        let named = Labels::of_texts(texts(&["cat", "ant", "cat"]), false).unwrap();
        assert_eq!(
            (named.of(0), named.of(1)),
            (Target::Class(1), Target::Class(0))
        );
        assert_eq!(named.names(), ["ant", "cat"]);
        let numbers = Labels::of_texts(texts(&["3", " 0"]), false).unwrap();
        assert_eq!(numbers.of(0), Target::Class(3));
        assert!(numbers.names().is_empty());
        let values = Labels::of_texts(texts(&["3", "-0.5"]), true).unwrap();
        assert_eq!(values.of(1), Target::Values(vec![-0.5]));
        let e = Labels::of_texts(texts(&["3", "x"]), true).unwrap_err();
        assert!(e.to_string().contains("row 1"), "{e}");
    }

    #[test]
    fn arrays_are_classes_or_values_by_their_type() {
        let classes = Labels::of_array(&Tensor::vector(vec![2u8, 1]), false).unwrap();
        assert_eq!(classes.of(0), Target::Class(2));
        assert_eq!(classes.of(2), Target::Unknown);
        let rows = Tensor::from_vec(&[2, 2], vec![1.0f32, 2.0, 3.0, 4.0]).unwrap();
        let values = Labels::of_array(&rows, false).unwrap();
        assert_eq!(values.of(1), Target::Values(vec![3.0, 4.0]));
        assert_eq!(values.len(), Some(2));
        assert!(values.check(3).is_err() && Labels::default().check(3).is_ok());
        let several = Tensor::from_vec(&[1, 2], vec![1i64, 0]).unwrap();
        assert!(Labels::of_array(&several, false).is_err());
        assert!(Labels::of_array(&several, true).is_ok());
    }
}

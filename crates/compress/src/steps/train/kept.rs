//! What a training keeps from run to run, and what it depends on: its state, and the answers of its teacher.

use edgesmith_ir::{Model, Result};
use edgesmith_train::training::Wanted;
use edgesmith_train::{Data, Settings, Training};

use super::sound::Judged;
use super::{digest, digest_of, gradual};
use crate::calibrate;
use crate::distill::{Examples, Shelf, Taught, told};
use crate::steps::{Given, Work};

/// A training with its files.
pub struct Kept<'a, 'w> {
    /// Where it is kept.
    pub work: &'a Work<'w>,
    /// What is learned.
    pub examples: &'a Examples,
    /// The training graph.
    pub training: &'a Training,
    /// How.
    pub settings: &'a Settings,
    /// Who teaches.
    pub teacher: Option<&'a Model>,
}

impl<'a> Kept<'a, '_> {
    /// What tells this run apart from others: of the same key, the same bytes come of it. Empty where
    /// nothing is kept.
    ///
    /// # Errors
    /// When examples cannot be read.
    pub fn key(&self, given: &Given, model: &Model, judged: Option<&Judged>) -> Result<String> {
        if self.work.stores.is_none() {
            return Ok(String::new());
        }
        let teacher = self.teacher.map(calibrate::model_digest);
        let judges = match judged {
            Some(Judged::Model(samples, _)) => digest_of(*samples)?,
            _ => String::new(),
        };
        let Training { terms, gradual, .. } = self.training;
        Ok(digest(&[
            "training",
            &calibrate::model_digest(model),
            &teacher.unwrap_or_default(),
            &told(given, |_| true),
            &self.examples.digest()?,
            &self.examples.validation_digest()?,
            &judges,
            &format!("{:?} {terms:?} {gradual:?}", self.settings),
            &gradual::digest(self.training),
        ]))
    }

    /// Examples with what the teacher makes of them, where there is one; `part` says which examples.
    ///
    /// # Errors
    /// When the teacher cannot be prepared, or the examples cannot be read.
    pub fn taught<'d>(&self, data: Box<dyn Data + 'd>, part: &str) -> Result<Box<dyn Data + 'd>>
    where
        'a: 'd,
    {
        let Some(teacher) = self.teacher else {
            return Ok(data);
        };
        let fed = &self.training.fed;
        let is_steady = part != "train" || self.examples.is_steady();
        let shelf: Option<Box<Shelf<'d>>> = match self.work.stores {
            None => None,
            Some(stores) => {
                let key = self.answers(teacher, part)?;
                Some(Box::new(move |epoch| {
                    stores.store(&format!("{key} {epoch}"))
                }))
            }
        };
        let threads = self.settings.threads;
        let taught = Taught::new(data, teacher, fed, (shelf, is_steady), threads)?;
        Ok(Box::new(taught))
    }

    /// What the teacher's answers depend on.
    fn answers(&self, teacher: &Model, part: &str) -> Result<String> {
        let graph = &self.training.base.graph;
        let inputs = graph.inputs.iter().map(|&v| graph.value(v));
        let inputs = inputs.filter(|v| v.constant.is_none());
        let inputs: Vec<String> = inputs.map(|v| format!("{} {:?}", v.name, v.ty)).collect();
        let asked = self.training.fed.iter();
        let asked = asked.filter(|f| f.wanted == Wanted::Teacher);
        let asked: Vec<&str> = asked.map(|f| f.of.as_str()).collect();
        let Settings { batch, threads, .. } = self.settings;
        Ok(digest(&[
            "answers",
            part,
            &calibrate::model_digest(teacher),
            &format!("{asked:?} {inputs:?} {batch} {threads}"),
            &self.examples.digest()?,
            &self.examples.validation_digest()?,
        ]))
    }
}

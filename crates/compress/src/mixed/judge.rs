//! Measures a plan: what its answers lose, how large its file is, how long a run takes.

use std::time::{Duration, Instant};

use edgesmith_ir::{Error, Model, Progress, Result, Tensor};
use edgesmith_passes::{Level, RunOptions, optimize};
use edgesmith_runtime::{Options, Session};

use super::Goal;
use crate::evaluate::{self, Judgement};
use crate::samples::{Samples, named};
use crate::simulate::Runs;

/// How long runs are measured, how many there are at least and at most, and how many before them.
const LASTS: Duration = Duration::from_millis(500);
const LEAST_RUNS: usize = 5;
const MOST_RUNS: usize = 200;
const WARM_RUNS: usize = 3;

/// Samples that are run at once.
const BATCH: usize = 16;

/// Bytes of outputs of the float model that are kept for the next plan.
const KEPT: usize = 256 << 20;

/// Bytes of a file beside those of the constants, for a node.
const BYTES_OF_NODE: u64 = 160;

/// Tells the bytes of the file that a model would be.
pub type Size<'a> = dyn Fn(&Model) -> Result<u64> + 'a;

/// What judges plans.
pub struct Judge<'a> {
    reference: Recorded,
    samples: Option<&'a dyn Samples>,
    /// Without labels or classes there is no drop.
    wants_drop: bool,
    accuracy: Option<f64>,
    first: Option<Vec<(String, Tensor)>>,
    size: Option<&'a Size<'a>>,
}

/// How good the answers of a plan are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Points of accuracy lost, or without labels of samples whose largest answer is another.
    pub drop: Option<f64>,
    /// Signal to noise of the outputs, in dB.
    pub sqnr_db: f64,
}

impl<'a> Judge<'a> {
    /// Judges by `samples`, where there are any; runs are timed on the first of them.
    ///
    /// # Errors
    /// When the model cannot be run.
    pub fn new(
        model: &Model,
        samples: Option<&'a dyn Samples>,
        goal: &Goal,
        size: Option<&'a Size<'a>>,
    ) -> Result<Self> {
        let first = samples.and_then(|s| s.batches(1).next()).transpose()?;
        Ok(Self {
            reference: Recorded::new(prepared(model)?),
            samples,
            wants_drop: goal.max_drop.is_some(),
            accuracy: None,
            first: first.map(|(_, inputs)| inputs),
            size,
        })
    }

    /// Bytes of the file of a model; without a way to tell, about so many.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn bytes(&self, model: &Model) -> Result<u64> {
        match self.size {
            Some(size) => size(model),
            None => {
                let constants = crate::quantize::constant_bytes(&model.graph) as u64;
                Ok(constants + model.graph.nodes().count() as u64 * BYTES_OF_NODE)
            }
        }
    }

    /// How good the answers of a model are; `None` without samples.
    ///
    /// # Errors
    /// When it does not run on the samples, or a drop is asked for and cannot be told.
    pub fn quality(&mut self, model: &Model, progress: &dyn Progress) -> Result<Option<Quality>> {
        let Some(samples) = self.samples else {
            return Ok(None);
        };
        let mut session = prepared(model)?;
        self.reference.rewind();
        let judged = evaluate::judge(&mut self.reference, &mut session, samples, BATCH, progress)?;
        let drop = match self.drop(&judged, samples, progress)? {
            None if self.wants_drop => {
                let what =
                    "a drop can be told of models whose first output is a row of classes only";
                return Err(Error::usage(what).hint("give the goal as --min-sqnr DB"));
            }
            drop => drop,
        };
        Ok(Some(Quality {
            drop,
            sqnr_db: judged.fidelity.sqnr_db,
        }))
    }

    fn drop(
        &mut self,
        judged: &Judgement,
        samples: &dyn Samples,
        progress: &dyn Progress,
    ) -> Result<Option<f64>> {
        let share = |(right, all): (u64, u64)| right as f64 / all.max(1) as f64 * 100.0;
        let Some(own) = judged.accuracy else {
            let (same, all) = judged.fidelity.agreement;
            return Ok((all > 0).then(|| 100.0 - share((same, all))));
        };
        let float = match self.accuracy {
            Some(known) => known,
            None => {
                let session = &mut self.reference.session;
                let found = evaluate::evaluate(session, samples, BATCH, progress)?;
                *self.accuracy.insert(found.accuracy.map_or(0.0, share))
            }
        };
        Ok(Some(float - share(own)))
    }

    /// The median of runs of one sample, in ms.
    ///
    /// # Errors
    /// When there is no sample, or the model does not run.
    pub fn latency_ms(&self, model: &Model) -> Result<f64> {
        let first = self.first.as_ref().ok_or_else(|| {
            Error::usage("a latency is measured on a sample, and there is none")
                .hint("name some: --calibrate CALIB.npz")
        })?;
        let mut session = prepared(model)?;
        for _ in 0..WARM_RUNS {
            session.run(&named(first))?;
        }
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.len() < LEAST_RUNS || start.elapsed() < LASTS && times.len() < MOST_RUNS {
            let begin = Instant::now();
            session.run(&named(first))?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }
}

/// A session of a model as it is run in the end.
pub(super) fn prepared(model: &Model) -> Result<Session> {
    let mut model = model.clone();
    optimize(&mut model, Level::Extended, &RunOptions::default())?;
    Session::prepare(&model, &Options::default())
}

/// A session whose outputs are kept, for the same inputs again.
pub(super) struct Recorded {
    session: Session,
    kept: Vec<Vec<Tensor>>,
    bytes: usize,
    next: usize,
}

impl Recorded {
    pub fn new(session: Session) -> Self {
        Self {
            session,
            kept: Vec::new(),
            bytes: 0,
            next: 0,
        }
    }

    /// The same inputs come again, from the first on.
    pub fn rewind(&mut self) {
        self.next = 0;
    }
}

impl Runs for Recorded {
    fn run(&mut self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
        let at = self.next;
        self.next += 1;
        if let Some(known) = self.kept.get(at) {
            return Ok(known.clone());
        }
        let outputs = self.session.run(inputs)?;
        let bytes: usize = outputs.iter().map(Tensor::byte_len).sum();
        if at == self.kept.len() && self.bytes + bytes <= KEPT {
            self.bytes += bytes;
            self.kept.push(outputs.clone());
        }
        Ok(outputs)
    }
}

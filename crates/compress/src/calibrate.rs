//! One pass over calibration data that sees every value and keeps a fixed number of facts.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::infer;
use edgesmith_ir::{Error, Graph, Model, Progress, Result, Tensor, ValueId};
use edgesmith_kernels::{Ctx, Isa, Threads};
use edgesmith_runtime::{Options, Session};

use crate::samples::{Samples, named};

mod gram;
mod histogram;
pub mod observers;
mod runnable;
mod statistics;

pub use gram::Gram;
pub use histogram::Histogram;
pub use statistics::{Channels, Statistics, ValueStatistics};

/// How calibration runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Samples that are run at once; the statistics do not depend on it.
    pub batch: usize,
    /// At most so many samples are used, or as many as end the last batch where the model fixes
    /// its size; `None`: all.
    pub samples: Option<usize>,
    /// Threads; 0 is one for each core.
    pub threads: usize,
    /// The values to look at, by name; `None`: every float value.
    pub only: Option<BTreeSet<String>>,
    /// Values of which XᵀX is collected, with the axis along which a row lies.
    pub grams: BTreeMap<String, i64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch: 1,
            samples: None,
            threads: 0,
            only: None,
            grams: BTreeMap::new(),
        }
    }
}

/// Fewer samples are worth a warning.
const FEW: usize = 32;

/// Runs the samples through `model` and collects the statistics of every float value. The memory
/// taken is that of one batch and a fixed amount for each value, however many samples there are.
/// Values that need the answer of an unknown operator get no statistics.
///
/// # Errors
/// When there are no samples, the model does not run on them, or the user cancels.
pub fn calibrate(
    model: &Model,
    samples: &dyn Samples,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Statistics> {
    let count = settings
        .samples
        .map_or(samples.count(), |n| n.min(samples.count()));
    if count == 0 {
        return Err(Error::invalid("there are no samples to calibrate with"));
    }
    let (model, unknown) = runnable::runnable(model)?;
    let mut collector = Collector::of(&model, settings)?;
    let options = Options {
        threads: settings.threads,
        integer: false,
        ..Options::default()
    };
    let mut session = Session::prepare(&model, &options)?;
    let wanted = collector.wanted();
    progress.start("calibrate", count as u64);
    let mut seen = 0;
    for batch in samples.batches(batch_of(count, samples.count(), settings.batch)) {
        progress.check()?;
        let (range, batch) = batch?;
        if range.start >= count {
            break;
        }
        seen = range.end;
        let mask = mask(&batch)?;
        let mut failed = None;
        session.run_watching(&named(&batch), &wanted, &mut |v, t| {
            if let Err(e) = collector.add(v, t, mask.as_ref()) {
                failed.get_or_insert(e);
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        progress.advance(range.len() as u64);
    }
    progress.finish();
    let mut statistics = collector.finish(&model.graph, seen);
    let unseen = unknown.iter().map(|place| {
        format!("{place} cannot be run: what needs its answer was not seen and stays float")
    });
    statistics.warnings.extend(unseen);
    Ok(statistics)
}

/// The size of batches that end with sample `count` of `all`: at most `most`.
fn batch_of(count: usize, all: usize, most: usize) -> usize {
    let most = most.clamp(1, count);
    let ends = |n: &usize| count == all || count.is_multiple_of(*n);
    (1..=most).rev().find(ends).unwrap_or(1)
}

/// Which tokens of a batch are no padding: where the input `attention_mask`, `[batch, tokens]`, is
/// not 0.
struct Mask {
    dims: [usize; 2],
    tokens: Vec<bool>,
}

fn mask(batch: &[(String, Tensor)]) -> Result<Option<Mask>> {
    let Some((_, t)) = batch.iter().find(|(name, _)| name == "attention_mask") else {
        return Ok(None);
    };
    let &[samples, tokens] = t.dims() else {
        return Ok(None);
    };
    let numbers = if t.dtype().is_float() {
        t.to_f32()?.iter().map(|&x| x != 0.0).collect()
    } else {
        t.to_i64()?.into_iter().map(|x| x != 0).collect()
    };
    Ok(Some(Mask {
        dims: [samples, tokens],
        tokens: numbers,
    }))
}

/// The statistics in the making.
struct Collector {
    values: BTreeMap<ValueId, ValueStatistics>,
    grams: BTreeMap<ValueId, Gram>,
    ctx: Ctx,
}

impl Collector {
    fn of(model: &Model, settings: &Settings) -> Result<Self> {
        let types = infer::infer(model, &[])?;
        let graph = &model.graph;
        let float = |v: &ValueId| types.tensor(*v).is_some_and(|t| t.dtype.is_float());
        let made = |v: &ValueId| graph.value(*v).producer().is_some() || graph.is_input(*v);
        let activations = || {
            let all = graph.values().map(|(v, _)| v);
            all.filter(|v| float(v) && made(v) && graph.constant(*v).is_none())
        };
        let name = |v: &ValueId| &graph.value(*v).name;
        let only = settings.only.as_ref();
        let values = activations()
            .filter(|v| only.is_none_or(|o| o.contains(name(v))))
            .map(|v| (v, ValueStatistics::new(channel_axis(graph, v))))
            .collect();
        let grams = activations()
            .filter_map(|v| Some((v, Gram::new(*settings.grams.get(name(&v))?))))
            .collect();
        let threads = Threads::of(settings.threads);
        let ctx = Ctx::new(Isa::detect(), threads);
        Ok(Self { values, grams, ctx })
    }

    fn wanted(&self) -> Vec<ValueId> {
        let grams = self.grams.keys().filter(|v| !self.values.contains_key(v));
        self.values.keys().chain(grams).copied().collect()
    }

    fn add(&mut self, v: ValueId, t: &Tensor, mask: Option<&Mask>) -> Result<()> {
        if let Some(gram) = self.grams.get_mut(&v) {
            let mask = mask.filter(|m| t.rank() > 2 && t.dims()[..2] == m.dims);
            gram.add(&self.ctx, t, mask.map(|m| &m.tokens[..]))?;
        }
        self.values.get_mut(&v).map_or(Ok(()), |seen| seen.add(t))
    }

    fn finish(mut self, graph: &Graph, samples: usize) -> Statistics {
        for gram in self.grams.values_mut() {
            gram.flush(&self.ctx);
        }
        let name = |v: ValueId| graph.value(v).name.clone();
        let values = self.values.into_iter().map(|(v, s)| (name(v), s)).collect();
        let grams = self.grams.into_iter().map(|(v, g)| (name(v), g)).collect();
        let mut statistics = Statistics {
            samples: samples as u64,
            values,
            grams,
            warnings: Vec::new(),
        };
        statistics.warnings = warnings(&statistics);
        statistics
    }
}

/// The axis along which the products that read `v` sum up: where means explain their outputs.
fn channel_axis(graph: &Graph, v: ValueId) -> Option<i64> {
    graph.value(v).consumers().iter().find_map(|&(id, i)| {
        let node = graph.node(id);
        match node.op.as_str() {
            "Conv" if i == 0 => Some(1),
            "Gemm" | "MatMul" if i == 0 => Some(-1),
            _ => None,
        }
    })
}

fn warnings(s: &Statistics) -> Vec<String> {
    let mut warnings = Vec::new();
    if s.samples < FEW as u64 {
        warnings.push(format!(
            "calibration saw {} samples; ranges from fewer than {FEW} are seldom right",
            s.samples
        ));
    }
    for (name, seen) in s.values.iter().filter(|(_, v)| v.not_finite > 0) {
        let n = seen.not_finite;
        warnings.push(format!(
            "\"{name}\" held {n} numbers that are not finite in calibration"
        ));
    }
    let constant = s
        .values
        .iter()
        .filter(|(_, v)| v.is_constant())
        .map(|(n, _)| format!("\"{n}\""));
    let constant: Vec<String> = constant.collect();
    if let Some(first) = constant.first() {
        warnings.push(format!(
            "{} values never changed in calibration, {first} among them",
            constant.len()
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{NoProgress, text};

    use super::*;
    use crate::samples::InMemory;

    const NET: &str = r#"
opset 17
graph net(x: f32[n,3]) -> (y: f32[n,2]) {
  w: f32[3,2] = {0.5,-0.25,1.0,0.75,0.3,0.7}
  h = Relu(x) {name="r"}
  y = MatMul(h, w) {name="m"}
}
"#;

    fn samples(n: usize) -> InMemory {
        let rows = (0..n * 3)
            .map(|i| ((i * 7919) % 997) as f32 / 500.0 - 1.0)
            .collect();
        let rows = Tensor::from_vec(&[n, 3], rows).unwrap();
        InMemory {
            name: "x".into(),
            rows,
            labels: None,
        }
    }

    fn run(n: usize, batch: usize) -> Statistics {
        let settings = Settings {
            batch,
            threads: 1,
            ..Settings::default()
        };
        calibrate(
            &text::parse(NET).unwrap(),
            &samples(n),
            &settings,
            &NoProgress,
        )
        .unwrap()
    }

    #[test]
    fn sees_every_value_once_whatever_the_batch() {
        let s = run(100, 1);
        assert_eq!(s, run(100, 7));
        let counts: Vec<(&str, u64)> = s
            .values
            .iter()
            .map(|(n, v)| (n.as_str(), v.count))
            .collect();
        assert_eq!(counts, [("h", 300), ("x", 300), ("y", 200)]);
        assert_eq!(s.values["h"].channels.as_ref().unwrap().means().len(), 3);
        assert!(s.warnings.is_empty(), "{:?}", s.warnings);
    }

    #[test]
    fn the_statistics_of_more_samples_take_no_more_room() {
        let size = |s: &Statistics| {
            let one = |v: &ValueStatistics| {
                v.histogram.bins().len() + v.channels.as_ref().map_or(0, |c| c.sums.len())
            };
            s.values.values().map(one).sum::<usize>()
        };
        assert_eq!(size(&run(100, 8)), size(&run(1000, 8)));
    }

    #[test]
    fn few_samples_and_constant_values_are_warned_of() {
        let rows =
            Tensor::from_vec(&[2, 3], vec![-1.0f32, f32::NAN, -2.0, -3.0, -1.0, -2.0]).unwrap();
        let data = InMemory {
            name: "x".into(),
            rows,
            labels: None,
        };
        let model = text::parse(NET).unwrap();
        let s = calibrate(&model, &data, &Settings::default(), &NoProgress).unwrap();
        assert!(s.warnings[0].contains("2 samples"));
        assert!(
            s.warnings
                .iter()
                .any(|w| w.contains("\"x\" held 1 numbers"))
        );
        assert!(s.warnings.iter().any(|w| w.contains("never changed")));
    }

    #[test]
    fn no_samples_are_an_error() {
        let model = text::parse(NET).unwrap();
        assert!(calibrate(&model, &samples(0), &Settings::default(), &NoProgress).is_err());
    }
}

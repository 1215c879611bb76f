//! One pass over calibration data that sees every value and keeps a fixed number of facts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use edgesmith_ir::infer;
use edgesmith_ir::{Graph, Model, NoStore, Progress, Result, Store, Tensor, ValueId};
use edgesmith_kernels::Ctx;
use edgesmith_runtime::{Options, Session, View};

use crate::samples::{Samples, named};

mod choice;
mod gram;
mod histogram;
mod key;
mod likeness;
pub mod observers;
mod parts;
mod runnable;
pub mod segments;
mod shelf;
mod statistics;
mod stored;
mod sums;

use choice::Choice;
pub use gram::Gram;
pub(crate) use gram::add_products;
pub use histogram::{HALF, Histogram};
pub use key::{key, model_digest};
pub use likeness::unlike;
use parts::Tables;
pub use shelf::Shelf;
#[cfg(test)]
pub(crate) use shelf::testing::Memory;
pub use statistics::{Channels, Statistics, ValueStatistics};
pub use stored::Checkpoint;
use stored::checkpoint;
pub(crate) use stored::{sealed, unsealed, written};
pub(crate) use sums::{Reading, Sums};

/// How calibration runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Samples that are run at once; the statistics do not depend on it.
    pub batch: usize,
    /// At most so many samples are used, or as many as end the last batch where the model fixes
    /// its size; `None`: all.
    pub samples: Option<usize>,
    /// Which they are: chosen by this seed, not the first ones.
    pub seed: Option<u64>,
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
            seed: None,
            threads: 0,
            only: None,
            grams: BTreeMap::new(),
        }
    }
}

/// Fewer samples are worth a warning.
const FEW: usize = 32;

/// Stores by key.
pub trait Stores {
    /// The store of what one model, set of samples and settings give; `key` is of the model and the
    /// settings.
    fn store(&self, key: &str) -> Box<dyn Store + '_>;
}

/// How long calibration runs between two checkpoints, and how many times what writing one takes.
const BETWEEN: Duration = Duration::from_secs(10);
const TIMES: u32 = 20;

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
    calibrate_kept(model, samples, settings, &NoStore, progress)
}

/// As [`calibrate`], with what `store` has of an earlier run of the same model, samples and
/// settings: a whole one is taken as it is, one that was broken off goes on where its last
/// checkpoint was. The statistics are the same, bit for bit.
///
/// # Errors
/// As [`calibrate`], and when the store cannot be written.
pub fn calibrate_kept(
    model: &Model,
    samples: &dyn Samples,
    settings: &Settings,
    store: &dyn Store,
    progress: &dyn Progress,
) -> Result<Statistics> {
    let choice = Choice::of(samples, settings)?;
    let (model, unknown) = runnable::runnable(model)?;
    let mut collector = Collector::of(&model, settings)?;
    let kept = store.load().and_then(|b| Checkpoint::from_bytes(&b));
    let kept = kept.filter(|k| k.seen <= choice.end && collector.fits(&k.statistics));
    let mut seen = 0;
    if let Some(kept) = kept {
        if kept.whole {
            return Ok(kept.statistics);
        }
        (seen, collector.statistics) = (kept.seen, kept.statistics);
    }
    let mut session = session(&model, settings)?;
    let wanted: Vec<ValueId> = collector.names.keys().copied().collect();
    progress.start("calibrate", choice.count as u64);
    progress.advance(collector.statistics.samples);
    let mut next = Instant::now() + BETWEEN;
    for batch in choice.batches(samples) {
        progress.check()?;
        let (range, batch) = batch?;
        if range.end <= seen {
            continue;
        }
        seen = range.end;
        collector.statistics.samples += range.len() as u64;
        let mask = Mask::of(&batch)?;
        let mut failed = None;
        session.run_watching(&named(&batch), &wanted, &mut |v, t| {
            if let Err(e) = collector.add(v, &t, mask.as_ref()) {
                failed.get_or_insert(e);
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        progress.advance(range.len() as u64);
        if Instant::now() >= next {
            let start = Instant::now();
            store.save(&checkpoint(seen, false, &collector.statistics)?)?;
            next = Instant::now() + BETWEEN.max(start.elapsed() * TIMES);
        }
    }
    progress.finish();
    let mut statistics = collector.finish(session.ctx());
    let unseen = unknown.iter().map(|place| unseen(place));
    statistics.warnings.extend(unseen);
    store.save(&checkpoint(seen, true, &statistics)?)?;
    Ok(statistics)
}

/// A session of the float model.
fn session(model: &Model, settings: &Settings) -> Result<Session> {
    let options = Options {
        threads: settings.threads,
        integer: false,
        ..Options::default()
    };
    Session::prepare(model, &options)
}

/// Which tokens of a batch are no padding: where the input `attention_mask`, `[batch, tokens]`, is
/// not 0.
pub(crate) struct Mask {
    dims: [usize; 2],
    tokens: Vec<bool>,
}

impl Mask {
    /// That of a batch, where it has one.
    pub fn of(batch: &[(String, Tensor)]) -> Result<Option<Self>> {
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
        Ok(Some(Self {
            dims: [samples, tokens],
            tokens: numbers,
        }))
    }

    /// What counts of the rows of a value with these lengths; `None` where its rows are not those
    /// of tokens.
    pub fn of_rows(&self, dims: &[usize]) -> Option<&[bool]> {
        (dims.len() > 2 && dims[..2] == self.dims).then_some(&self.tokens[..])
    }
}

/// The statistics in the making.
struct Collector {
    names: BTreeMap<ValueId, String>,
    statistics: Statistics,
    tables: Tables,
}

impl Collector {
    fn of(model: &Model, settings: &Settings) -> Result<Self> {
        let types = infer::infer(model, &[])?;
        let graph = &model.graph;
        let float = |v: ValueId| types.tensor(v).is_some_and(|t| t.dtype.is_float());
        let made = |v: ValueId| graph.value(v).producer().is_some() || graph.is_input(v);
        let is_activation = |v: ValueId| float(v) && made(v) && graph.constant(v).is_none();
        let mut statistics = Statistics::default();
        let mut names = BTreeMap::new();
        for (v, value) in graph.values().filter(|(v, _)| is_activation(*v)) {
            let name = &value.name;
            if let Some(&axis) = settings.grams.get(name) {
                statistics.grams.insert(name.clone(), Gram::new(axis));
            }
            if settings.only.as_ref().is_none_or(|o| o.contains(name)) {
                let seen = ValueStatistics::new(channel_axis(graph, v));
                statistics.values.insert(name.clone(), seen);
            }
            if statistics.grams.contains_key(name) || statistics.values.contains_key(name) {
                names.insert(v, name.clone());
            }
        }
        Ok(Self {
            names,
            statistics,
            tables: Tables::default(),
        })
    }

    /// True where `statistics` are of the same values.
    fn fits(&self, statistics: &Statistics) -> bool {
        let own = &self.statistics;
        own.values.keys().eq(statistics.values.keys())
            && own.grams.keys().eq(statistics.grams.keys())
    }

    fn add(&mut self, v: ValueId, value: &View, mask: Option<&Mask>) -> Result<()> {
        let Some(name) = self.names.get(&v) else {
            return Ok(());
        };
        if let Some(gram) = self.statistics.grams.get_mut(name) {
            let mask = mask.and_then(|m| m.of_rows(value.dims()));
            gram.add(value.ctx(), &value.tensor()?, mask)?;
        }
        let seen = self.statistics.values.get_mut(name);
        seen.map_or(Ok(()), |seen| seen.add_view(value, &mut self.tables))
    }

    fn finish(mut self, ctx: &Ctx) -> Statistics {
        for gram in self.statistics.grams.values_mut() {
            gram.flush(ctx);
        }
        self.statistics.warnings = warnings(&self.statistics);
        self.statistics
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

/// What is said of a node that cannot be run.
fn unseen(place: &str) -> String {
    format!("{place} cannot be run: what needs its answer was not seen and stays float")
}

/// What is said of few samples.
fn few(samples: u64) -> Option<String> {
    (samples < FEW as u64).then(|| {
        format!("calibration saw {samples} samples; ranges from fewer than {FEW} are seldom right")
    })
}

fn warnings(s: &Statistics) -> Vec<String> {
    let mut warnings: Vec<String> = few(s.samples).into_iter().collect();
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
    fn a_seed_chooses_samples() {
        let of = |seed| {
            let settings = Settings {
                samples: Some(40),
                seed,
                threads: 1,
                ..Settings::default()
            };
            let model = text::parse(NET).unwrap();
            calibrate(&model, &samples(300), &settings, &NoProgress).unwrap()
        };
        assert_eq!(of(Some(1)), of(Some(1)));
        assert_ne!(of(Some(1)).values["h"].sum, of(Some(2)).values["h"].sum);
        assert_ne!(of(Some(1)).values["h"].sum, of(None).values["h"].sum);
        assert_eq!([of(Some(1)).samples, of(None).samples], [40, 40]);
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

    /// Keeps what it is told.
    #[derive(Default)]
    struct OneStore {
        bytes: std::cell::RefCell<Option<Vec<u8>>>,
    }

    impl Store for OneStore {
        fn load(&self) -> Option<Vec<u8>> {
            self.bytes.borrow().clone()
        }

        fn save(&self, bytes: &[u8]) -> Result<()> {
            *self.bytes.borrow_mut() = Some(bytes.to_vec());
            Ok(())
        }

        fn forget(&self) {
            *self.bytes.borrow_mut() = None;
        }
    }

    fn asking(samples: Option<usize>) -> Settings {
        Settings {
            samples,
            threads: 1,
            grams: BTreeMap::from([("h".to_owned(), -1)]),
            ..Settings::default()
        }
    }

    #[test]
    fn a_run_goes_on_where_an_earlier_one_was_broken_off() {
        let (model, data) = (text::parse(NET).unwrap(), samples(300));
        let whole = calibrate(&model, &data, &asking(None), &NoProgress).unwrap();
        let first = asking(Some(37));
        let mut collector = Collector::of(&model, &first).unwrap();
        let mut session = Session::prepare(&model, &Options::default()).unwrap();
        let wanted: Vec<ValueId> = collector.names.keys().copied().collect();
        for batch in data.batches(1).take(37) {
            let add = &mut |v, t: View| collector.add(v, &t, None).unwrap();
            session
                .run_watching(&named(&batch.unwrap().1), &wanted, add)
                .unwrap();
        }
        collector.statistics.samples = 37;
        let store = OneStore::default();
        store
            .save(&checkpoint(37, false, &collector.statistics).unwrap())
            .unwrap();
        let resumed = calibrate_kept(&model, &data, &asking(None), &store, &NoProgress).unwrap();
        assert!(resumed == whole);
        let empty = samples(300);
        let again = calibrate_kept(&model, &empty, &asking(None), &store, &NoProgress).unwrap();
        assert_eq!(again, whole);
    }

    #[test]
    fn what_was_kept_of_other_values_is_not_taken() {
        let (model, data) = (text::parse(NET).unwrap(), samples(40));
        let store = OneStore::default();
        let other = Settings {
            grams: BTreeMap::new(),
            ..asking(None)
        };
        calibrate_kept(&model, &data, &other, &store, &NoProgress).unwrap();
        let s = calibrate_kept(&model, &data, &asking(None), &store, &NoProgress).unwrap();
        assert_eq!(
            s,
            calibrate(&model, &data, &asking(None), &NoProgress).unwrap()
        );
    }

    #[test]
    fn no_samples_are_an_error() {
        let model = text::parse(NET).unwrap();
        assert!(calibrate(&model, &samples(0), &Settings::default(), &NoProgress).is_err());
    }
}

//! How good a model is: on labels, and against the model that it was made from.

use std::collections::BTreeMap;
use std::ops::Range;

use edgesmith_ir::{Error, Graph, Model, Progress, Result, Tensor, ValueId};
use edgesmith_runtime::{Options, Session};

use crate::samples::{Batch, Samples, named};
use crate::simulate::Runs;

mod integers;
mod spread;

use integers::Grid;
use spread::Spread;

/// What a model got right.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Samples that were run.
    pub samples: u64,
    /// Right answers and answers with a label; `None` without labels.
    pub accuracy: Option<(u64, u64)>,
    /// The largest element of each sample's first output, by index.
    pub classes: Vec<usize>,
}

/// How close a model is to its reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fidelity {
    /// Signal to noise, `10·log10(Σr² / Σ(r − x)²)`; ∞ where nothing differs.
    pub sqnr_db: f64,
    /// Samples whose largest element is the same, and all samples.
    pub agreement: (u64, u64),
    /// The largest difference of two elements.
    pub max_abs_error: f64,
    /// The cosine of the angle between all elements of both.
    pub cosine: f64,
}

/// How close one value is to that of the reference.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueFidelity {
    /// The name of the value in the reference.
    pub value: String,
    /// Its name in the model: the same, or with `_q` at the end where it is made as integers alone.
    pub made: String,
    /// The node that makes it in the reference.
    pub node: String,
    /// Signal to noise.
    pub sqnr_db: f64,
}

/// Running sums of a comparison.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    reference: f64,
    other: f64,
    product: f64,
    difference: f64,
    largest: f64,
}

impl Sums {
    fn add(&mut self, reference: &Tensor, other: &Tensor) -> Result<()> {
        if reference.dims() != other.dims() {
            return Err(Error::invalid(format!(
                "the reference gives {}, the model {}",
                reference.ty(),
                other.ty()
            )));
        }
        for (&r, &x) in reference.to_f32()?.iter().zip(&*other.to_f32()?) {
            let (r, x) = (f64::from(r), f64::from(x));
            let d = r - x;
            self.reference += r * r;
            self.other += x * x;
            self.product += r * x;
            if d != 0.0 && !d.is_nan() || (r.is_nan() != x.is_nan()) {
                self.difference += if d.is_nan() { f64::INFINITY } else { d * d };
                self.largest = self
                    .largest
                    .max(if d.is_nan() { f64::INFINITY } else { d.abs() });
            }
        }
        Ok(())
    }

    fn sqnr_db(&self) -> f64 {
        if self.difference == 0.0 {
            f64::INFINITY
        } else {
            10.0 * (self.reference / self.difference).log10()
        }
    }

    fn cosine(&self) -> f64 {
        let norm = (self.reference * self.other).sqrt();
        if norm == 0.0 {
            1.0
        } else {
            self.product / norm
        }
    }
}

/// The index of the largest element of each sample, over the last axis of the first output.
///
/// # Errors
/// When the output does not hold one row of numbers for each sample.
fn classes(outputs: &[Tensor], samples: usize) -> Result<Vec<usize>> {
    let first = outputs
        .first()
        .ok_or_else(|| Error::invalid("the model has no output"))?;
    let data = first.to_f32()?;
    let width = first.dims().last().copied().unwrap_or(0);
    if width == 0 || data.len() != samples * width {
        return Err(Error::invalid(format!(
            "the first output, {}, is not one row of classes for each of {samples} samples",
            first.ty()
        )));
    }
    let largest = |row: &[f32]| {
        let mut best = 0;
        for (i, x) in row.iter().enumerate() {
            if *x > row[best] || row[best].is_nan() {
                best = i;
            }
        }
        best
    };
    Ok(data.chunks_exact(width).map(largest).collect())
}

/// Runs the samples and counts right answers, where there are labels.
///
/// # Errors
/// When the model does not run on the samples, labels do not fit the classes of its first output,
/// or the user cancels.
pub fn evaluate(
    session: &mut Session,
    samples: &dyn Samples,
    batch: usize,
    progress: &dyn Progress,
) -> Result<Evaluation> {
    let labels = samples.labels();
    let mut result = Evaluation {
        samples: samples.count() as u64,
        accuracy: labels.map(|_| (0, 0)),
        classes: Vec::new(),
    };
    progress.start("evaluate", samples.count() as u64);
    for batch in samples.batches(batch.max(1)) {
        progress.check()?;
        let (range, inputs) = batch?;
        let outputs = session.run(&named(&inputs))?;
        if let (Some(labels), Some(count)) = (labels, &mut result.accuracy) {
            let found = classes(&outputs, range.len())?;
            count_right(labels, range.clone(), &outputs, &found, count)?;
            result.classes.extend(found);
        }
        progress.advance(range.len() as u64);
    }
    progress.finish();
    Ok(result)
}

/// Counts the samples of a range whose class is their label, and all.
fn count_right(
    labels: &[i64],
    range: Range<usize>,
    outputs: &[Tensor],
    found: &[usize],
    (right, all): &mut (u64, u64),
) -> Result<()> {
    let width = outputs[0].dims().last().copied().unwrap_or(0);
    for (i, &class) in range.zip(found) {
        let label = labels.get(i).and_then(|&l| usize::try_from(l).ok());
        let label = label.filter(|&l| l < width).ok_or_else(|| {
            Error::invalid(format!(
                "the label of sample {i} is none of {width} classes"
            ))
        })?;
        *right += u64::from(label == class);
        *all += 1;
    }
    Ok(())
}

/// Runs the samples through both and compares all float outputs.
///
/// # Errors
/// When one does not run on the samples, their outputs differ in number or shape, or the user
/// cancels.
pub fn fidelity(
    reference: &mut dyn Runs,
    model: &mut dyn Runs,
    samples: &dyn Samples,
    batch: usize,
    progress: &dyn Progress,
) -> Result<Fidelity> {
    Ok(judge(reference, model, &Unlabelled(samples), batch, progress)?.fidelity)
}

/// Samples of which nobody asks the labels.
struct Unlabelled<'a>(&'a dyn Samples);

impl Samples for Unlabelled<'_> {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn batches(&self, size: usize) -> Box<dyn Iterator<Item = Result<Batch>> + '_> {
        self.0.batches(size)
    }
}

/// How close a model is to its reference, with how sure that is, and what it got right.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// How close the outputs are.
    pub fidelity: Fidelity,
    /// Where the signal to noise of all such samples lies with 95 % confidence, in dB, by the
    /// spread of these (delta method for a ratio of sums); `None` where nothing differs, or the
    /// outputs are not one part for each of two samples or more.
    pub sqnr_interval_db: Option<(f64, f64)>,
    /// Right answers and answers with a label; `None` without labels.
    pub accuracy: Option<(u64, u64)>,
}

/// Runs the samples through both once: compares all float outputs, and counts right answers where
/// there are labels.
///
/// # Errors
/// As [`fidelity`] and [`evaluate`].
pub fn judge(
    reference: &mut dyn Runs,
    model: &mut dyn Runs,
    samples: &dyn Samples,
    batch: usize,
    progress: &dyn Progress,
) -> Result<Judgement> {
    let mut sums = Sums::default();
    let mut spread = Spread::default();
    let mut agreement = (0, 0);
    let labels = samples.labels();
    let mut accuracy = labels.map(|_| (0, 0));
    progress.start("compare", samples.count() as u64);
    for batch in samples.batches(batch.max(1)) {
        progress.check()?;
        let (range, inputs) = batch?;
        let a = reference.run(&named(&inputs))?;
        let b = model.run(&named(&inputs))?;
        if a.len() != b.len() {
            return Err(Error::invalid(
                "the models have different numbers of outputs",
            ));
        }
        let floats = a.iter().zip(&b).filter(|(r, _)| r.dtype().is_float());
        let floats: Vec<_> = floats.collect();
        for (r, x) in &floats {
            sums.add(r, x)?;
        }
        spread.add(&floats, range.len())?;
        if let (Some(labels), Some(count)) = (labels, &mut accuracy) {
            let found = classes(&b, range.len())?;
            count_right(labels, range.clone(), &b, &found, count)?;
        }
        if let (Ok(a), Ok(b)) = (classes(&a, range.len()), classes(&b, range.len())) {
            agreement.0 += a.iter().zip(&b).filter(|(a, b)| a == b).count() as u64;
            agreement.1 += a.len() as u64;
        }
        progress.advance(range.len() as u64);
    }
    progress.finish();
    Ok(Judgement {
        fidelity: Fidelity {
            sqnr_db: sums.sqnr_db(),
            agreement,
            max_abs_error: sums.largest,
            cosine: sums.cosine(),
        },
        sqnr_interval_db: spread.interval_db(),
        accuracy,
    })
}

/// A value that both models make.
struct Common {
    reference: ValueId,
    made: ValueId,
    /// Where the model makes integers.
    grid: Option<Grid>,
}

/// What quantisation adds to the name of a value for its integers.
const INTEGERS: &str = "_q";

/// Values that both models make, by name, in the order of the reference; those that the model makes
/// as integers alone are found by their longer name.
fn common_values(reference: &Graph, other: &Graph) -> Vec<Common> {
    let made: BTreeMap<&str, ValueId> = other
        .values()
        .filter(|(_, v)| v.producer().is_some())
        .map(|(id, v)| (v.name.as_str(), id))
        .collect();
    let common = |(id, v): (ValueId, &edgesmith_ir::Value)| {
        v.producer()?;
        let (made, grid) = match made.get(v.name.as_str()) {
            Some(&same) => (same, None),
            None => {
                let integers = *made.get(format!("{}{INTEGERS}", v.name).as_str())?;
                (integers, Some(Grid::of(other, integers)?))
            }
        };
        Some(Common {
            reference: id,
            made,
            grid,
        })
    };
    reference.values().filter_map(common).collect()
}

/// Runs the first `count` samples one by one through both models and compares every value that
/// both make under the same name. Quantised values are compared as what they are dequantised to.
/// Integers of operators on integers, which have the name with `_q` behind, count as that value.
///
/// # Errors
/// When a model does not run on the samples, or the user cancels.
pub fn value_fidelity(
    reference: &Model,
    model: &Model,
    samples: &dyn Samples,
    count: usize,
    progress: &dyn Progress,
) -> Result<Vec<ValueFidelity>> {
    let pairs = common_values(&reference.graph, &model.graph);
    let wanted: Vec<ValueId> = pairs.iter().map(|p| p.reference).collect();
    let others: Vec<ValueId> = pairs.iter().map(|p| p.made).collect();
    let back: BTreeMap<ValueId, &Common> = pairs.iter().map(|p| (p.made, p)).collect();
    let options = Options {
        integer: false,
        ..Options::default()
    };
    let mut a = Session::prepare(reference, &options)?;
    let mut b = Session::prepare(model, &options)?;
    let mut sums: BTreeMap<ValueId, Sums> = BTreeMap::new();
    let count = count.min(samples.count());
    progress.start("compare values", count as u64);
    for batch in samples.batches(1) {
        progress.check()?;
        let (range, inputs) = batch?;
        if range.start >= count {
            break;
        }
        let mut seen: BTreeMap<ValueId, Tensor> = BTreeMap::new();
        a.run_watching(&named(&inputs), &wanted, &mut |v, t| {
            if t.dtype().is_float()
                && let Ok(t) = t.tensor()
            {
                seen.insert(v, t);
            }
        })?;
        b.run_watching(&named(&inputs), &others, &mut |v, t| {
            let Some((pair, r)) = back
                .get(&v)
                .and_then(|p| Some((p, seen.get(&p.reference)?)))
            else {
                return;
            };
            let Ok(t) = t.tensor() else { return };
            let floats = pair.grid.map_or(Ok(t.clone()), |g| g.floats(&t));
            let floats = floats.ok().filter(|t| t.dtype().is_float());
            if let Some(t) = floats.filter(|t| t.dims() == r.dims()) {
                let mut sum = sums.get(&pair.reference).copied().unwrap_or_default();
                if sum.add(r, &t).is_ok() {
                    sums.insert(pair.reference, sum);
                }
            }
        })?;
        progress.advance(range.len() as u64);
    }
    progress.finish();
    let graph = &reference.graph;
    let names: BTreeMap<ValueId, ValueId> = pairs.iter().map(|p| (p.reference, p.made)).collect();
    let row = |(&v, s): (&ValueId, &Sums)| ValueFidelity {
        value: graph.value(v).name.clone(),
        made: model.graph.value(names[&v]).name.clone(),
        node: graph
            .value(v)
            .producer()
            .map_or_else(String::new, |(n, _)| graph.node(n).name.clone()),
        sqnr_db: s.sqnr_db(),
    };
    Ok(sums.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{NoProgress, text};

    use super::*;
    use crate::samples::InMemory;

    fn model(weight: &str) -> Model {
        let source = format!(
            "opset 17\ngraph g(x: f32[n,2]) -> (y: f32[n,2]) {{\n  w: f32[2,2] = {{{weight}}}\n  \
             h = MatMul(x, w) {{name=\"m\"}}\n  y = Relu(h) {{name=\"r\"}}\n}}\n"
        );
        text::parse(&source).unwrap()
    }

    fn samples(labels: Option<Vec<i64>>) -> InMemory {
        let rows = Tensor::from_vec(&[3, 2], vec![1.0f32, 0.0, 0.0, 2.0, 3.0, 4.0]).unwrap();
        InMemory {
            name: "x".into(),
            rows,
            labels,
        }
    }

    fn session(weight: &str) -> Session {
        Session::prepare(&model(weight), &Options::default()).unwrap()
    }

    #[test]
    fn right_answers_are_counted_across_batches() {
        for batch in [1, 2, 3] {
            let data = samples(Some(vec![0, 1, 0]));
            let e = evaluate(&mut session("1.0,0.0,0.0,1.0"), &data, batch, &NoProgress).unwrap();
            assert_eq!((e.accuracy, e.classes), (Some((2, 3)), vec![0, 1, 1]));
        }
        let e = evaluate(
            &mut session("1.0,0.0,0.0,1.0"),
            &samples(None),
            2,
            &NoProgress,
        )
        .unwrap();
        assert_eq!(e.accuracy, None);
    }

    #[test]
    fn labels_outside_the_classes_are_refused() {
        for labels in [vec![0, 1, 2], vec![0, -1, 0], vec![0]] {
            let data = samples(Some(labels));
            assert!(evaluate(&mut session("1.0,0.0,0.0,1.0"), &data, 2, &NoProgress).is_err());
        }
    }

    #[test]
    fn one_run_judges_answers_and_distance() {
        let (mut a, mut b) = (session("1.0,0.0,0.0,1.0"), session("1.0,0.0,0.0,0.5"));
        let data = samples(Some(vec![0, 1, 1]));
        let j = judge(&mut a, &mut b, &data, 2, &NoProgress).unwrap();
        assert_eq!(j.accuracy, Some((2, 3)));
        let (low, high) = j.sqnr_interval_db.unwrap();
        assert!(low < j.fidelity.sqnr_db && j.fidelity.sqnr_db < high);
        let j = judge(
            &mut session("1.0,0.0,0.0,1.0"),
            &mut a,
            &data,
            2,
            &NoProgress,
        )
        .unwrap();
        assert_eq!(j.sqnr_interval_db, None);
    }

    #[test]
    fn fidelity_is_the_ratio_of_signal_and_difference() {
        let (mut a, mut b) = (session("1.0,0.0,0.0,1.0"), session("1.0,0.0,0.0,0.5"));
        let f = fidelity(&mut a, &mut b, &samples(None), 2, &NoProgress).unwrap();
        assert!((f.sqnr_db - 10.0 * (30.0f64 / 5.0).log10()).abs() < 1e-6);
        assert_eq!((f.max_abs_error, f.agreement), (2.0, (2, 3)));
        let f = fidelity(
            &mut session("1.0,0.0,0.0,1.0"),
            &mut a,
            &samples(None),
            2,
            &NoProgress,
        );
        assert_eq!(f.unwrap().sqnr_db, f64::INFINITY);
    }

    #[test]
    fn integers_are_compared_as_the_floats_that_they_stand_for() {
        let quantized = text::parse(
            "opset 17\ngraph g(x: f32[n,2]) -> (y: f32[n,2]) {\n  s: f32[] = {0.5}\n  z: u8[] = {8}\n  \
             w: f32[2,2] = {1,0,0,1}\n  f = MatMul(x, w) {name=\"m\"}\n  \
             h_q = QuantizeLinear(f, s, z) {name=\"q\"}\n  d = DequantizeLinear(h_q, s, z)\n  \
             y = Relu(d) {name=\"r\"}\n}\n",
        );
        let (a, b) = (model("1.0,0.0,0.0,1.0"), quantized.unwrap());
        let rows = value_fidelity(&a, &b, &samples(None), 3, &NoProgress).unwrap();
        let h = rows.iter().find(|r| r.value == "h").unwrap();
        assert_eq!((h.made.as_str(), h.sqnr_db), ("h_q", f64::INFINITY));
    }

    #[test]
    fn values_of_the_same_name_are_compared() {
        let (a, b) = (model("1.0,0.0,0.0,1.0"), model("1.0,0.0,0.0,0.5"));
        let rows = value_fidelity(&a, &b, &samples(None), 3, &NoProgress).unwrap();
        let names: Vec<(&str, &str)> = rows
            .iter()
            .map(|r| (r.value.as_str(), r.node.as_str()))
            .collect();
        assert_eq!(names.len(), 2);
        assert!(names.contains(&("h", "m")) && names.contains(&("y", "r")));
        assert!(
            rows.iter()
                .all(|r| (r.sqnr_db - 10.0 * 6.0f64.log10()).abs() < 1e-6)
        );
    }
}

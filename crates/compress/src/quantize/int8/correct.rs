//! Bias correction from data: each product's bias makes up for the mean by which its outputs differ
//! from those of the float model, channel by channel (Nagel et al. 2019, "Data-free quantization
//! through weight equalization and bias correction", section 4.2, with means from samples). What
//! brings the means of a product together may still move the answers apart, where ranges cut tails
//! off: a shift stays only where the outputs of the model come closer.

use std::collections::BTreeMap;

use edgesmith_ir::{Error, Graph, Model, NodeId, Progress, Result, Tensor, ValueId};
use edgesmith_runtime::{Options, Session};

use crate::samples::{Samples, named};

/// A shift above so many times the root mean square of its channel is no rounding error.
const ABSURD: f64 = 0.5;

/// Sums of one output by channel.
#[derive(Debug, Clone, Default)]
struct Means {
    sums: Vec<f64>,
    squares: Vec<f64>,
    count: f64,
}

impl Means {
    fn add(&mut self, t: &Tensor, axis: usize) -> Result<()> {
        let data = t.to_f32()?;
        let channels = t.dims()[axis];
        let inner: usize = t.dims()[axis + 1..].iter().product();
        self.sums.resize(channels, 0.0);
        self.squares.resize(channels, 0.0);
        for (i, x) in data.iter().enumerate() {
            let (c, x) = (i / inner % channels, f64::from(*x));
            self.sums[c] += x;
            self.squares[c] += x * x;
        }
        self.count += data.len() as f64 / channels.max(1) as f64;
        Ok(())
    }

    fn mean(&self, c: usize) -> f64 {
        self.sums[c] / self.count
    }
}

/// A product with an integer bias in the quantised model.
#[derive(Debug, Clone)]
struct Product {
    name: String,
    /// What it makes in the float model, and in the quantised one before rounding.
    float: ValueId,
    quantized: ValueId,
    axis: usize,
    ints: ValueId,
    scales: ValueId,
}

/// Corrects the biases of `quantized` one after the other, by the first `count` samples: each product
/// is seen with all before it corrected. To correct several at once would make up for the shift of
/// the first in each that follows. A shift after which the outputs have more noise is taken back. The
/// answer says whose shifts were too large to be rounding errors, and left.
///
/// # Errors
/// When a model does not run on the samples, or the user cancels.
pub(super) fn correct_biases(
    float: &Model,
    quantized: &mut Model,
    samples: &dyn Samples,
    count: usize,
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    let products = products(&float.graph, &quantized.graph)?;
    let wanted: Vec<(ValueId, usize)> = products.iter().map(|p| (p.float, p.axis)).collect();
    progress.start("correct biases", products.len() as u64);
    let targets = look(float, &wanted, samples, count, None, progress)?;
    let mut rejected = Vec::new();
    let mut noise = f64::INFINITY;
    // The last shift, until the outputs with it are known.
    let mut last: Option<(ValueId, Option<Tensor>)> = None;
    for p in &products {
        let own = [(p.quantized, p.axis)];
        let mut found = look(quantized, &own, samples, count, Some(&targets), progress)?;
        let now = found.noise();
        match last.take().filter(|_| now.total_cmp(&noise).is_gt()) {
            Some((ints, before)) => {
                quantized.graph.value_mut(ints).constant = before;
                found = look(quantized, &own, samples, count, Some(&targets), progress)?;
            }
            None => noise = now,
        }
        let before = quantized.graph.constant(p.ints).cloned();
        if let (Some(target), Some(found)) =
            (targets.means.get(&p.float), found.means.get(&p.quantized))
        {
            if shift(&mut quantized.graph, p, target, found)? {
                last = Some((p.ints, before));
            } else {
                rejected.push(format!(
                    "the outputs of \"{}\" differ too much from the float model's: its bias stays",
                    p.name
                ));
            }
        }
        progress.advance(1);
    }
    if let Some((ints, before)) = last {
        let found = look(quantized, &[], samples, count, Some(&targets), progress)?;
        if found.noise().total_cmp(&noise).is_gt() {
            quantized.graph.value_mut(ints).constant = before;
        }
    }
    progress.finish();
    Ok(rejected)
}

/// What was seen in a run of the samples.
#[derive(Default)]
struct Seen {
    means: BTreeMap<ValueId, Means>,
    /// The outputs of the model, batch by batch, where they are not compared with others.
    outputs: Vec<Vec<Tensor>>,
    /// Signal and noise of each output, against others.
    noises: Vec<(f64, f64)>,
}

impl Seen {
    /// Adds the difference of the outputs of a batch.
    fn compare(&mut self, wanted: &[Tensor], found: &[Tensor]) -> Result<()> {
        self.noises.resize(wanted.len(), (0.0, 0.0));
        let pairs = wanted.iter().zip(found);
        for ((a, b), (signal, noise)) in pairs.zip(&mut self.noises) {
            if !a.dtype().is_float() {
                continue;
            }
            for (&a, &b) in a.to_f32()?.iter().zip(&*b.to_f32()?) {
                *signal += f64::from(a).powi(2);
                *noise += f64::from(a - b).powi(2);
            }
        }
        Ok(())
    }

    /// The noise of each output as a share of its signal, summed up.
    fn noise(&self) -> f64 {
        let share = |(signal, noise): &(f64, f64)| noise / signal.max(f64::MIN_POSITIVE);
        self.noises.iter().map(share).sum()
    }
}

/// Products of both models that have an integer bias, in order.
fn products(float: &Graph, quantized: &Graph) -> Result<Vec<Product>> {
    let by_name: BTreeMap<&str, NodeId> =
        float.nodes().map(|(id, n)| (n.name.as_str(), id)).collect();
    let mut found = Vec::new();
    for id in quantized.order()? {
        let node = quantized.node(id);
        let is_conv = node.is("Conv");
        let Some(bias) = node.input(2).filter(|_| is_conv || node.is("Gemm")) else {
            continue;
        };
        let source = quantized.producer_is(bias, "DequantizeLinear");
        let twin = by_name.get(node.name.as_str()).map(|&id| float.node(id));
        let (Some(source), Some(twin)) = (source, twin.filter(|t| t.op == node.op)) else {
            continue;
        };
        let source = quantized.node(source);
        let parts = (
            twin.output(0),
            node.output(0),
            source.input(0),
            source.input(1),
        );
        if let (Some(float), Some(quantized), Some(ints), Some(scales)) = parts {
            found.push(Product {
                name: node.name.clone(),
                float,
                quantized,
                axis: 1,
                ints,
                scales,
            });
        }
    }
    Ok(found)
}

/// Sums of these values over the first `count` samples.
fn look(
    model: &Model,
    wanted: &[(ValueId, usize)],
    samples: &dyn Samples,
    count: usize,
    targets: Option<&Seen>,
    progress: &dyn Progress,
) -> Result<Seen> {
    let options = Options {
        integer: false,
        ..Options::default()
    };
    let mut session = Session::prepare(model, &options)?;
    let axes: BTreeMap<ValueId, usize> = wanted.iter().copied().collect();
    let values: Vec<ValueId> = axes.keys().copied().collect();
    let mut seen = Seen::default();
    for (at, batch) in samples.batches(1).enumerate() {
        progress.check()?;
        let (range, batch) = batch?;
        if range.start >= count {
            break;
        }
        let mut failed: Option<Error> = None;
        let outputs = session.run_watching(&named(&batch), &values, &mut |v, t| {
            let axis = axes.get(&v).copied().filter(|&a| a < t.dims().len());
            if let Some(axis) = axis
                && let Err(e) = t
                    .tensor()
                    .and_then(|t| seen.means.entry(v).or_default().add(&t, axis))
            {
                failed.get_or_insert(e);
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        match targets {
            Some(targets) => seen.compare(&targets.outputs[at], &outputs)?,
            None => seen.outputs.push(outputs),
        }
    }
    Ok(seen)
}

/// Adds the difference of the means to a bias; false where it is too large.
fn shift(graph: &mut Graph, p: &Product, target: &Means, found: &Means) -> Result<bool> {
    let (Some(ints), Some(scales)) = (graph.constant(p.ints), graph.constant(p.scales)) else {
        return Ok(true);
    };
    let (ints, scales) = (
        ints.data::<i32>()?.into_owned(),
        scales.to_f32()?.into_owned(),
    );
    if ints.len() != target.sums.len() || ints.len() != found.sums.len() {
        return Ok(true);
    }
    let mut shifted = Vec::with_capacity(ints.len());
    for (c, &int) in ints.iter().enumerate() {
        let difference = target.mean(c) - found.mean(c);
        let size = (target.squares[c] / target.count).sqrt();
        if !difference.is_finite()
            || difference.abs() > ABSURD * size.max(f64::from(f32::MIN_POSITIVE))
        {
            if size > 0.0 {
                return Ok(false);
            }
            shifted.push(int);
            continue;
        }
        let steps = difference / f64::from(scales[c % scales.len()]);
        let sum = (f64::from(int) + steps).round_ties_even();
        shifted.push(sum.clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32);
    }
    let dims = graph
        .constant(p.ints)
        .map_or(Vec::new(), |t| t.dims().to_vec());
    graph.value_mut(p.ints).constant = Some(Tensor::from_vec(&dims, shifted)?);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{NoProgress, text};

    use super::*;
    use crate::calibrate;
    use crate::quantize::int8::{Settings, look, post_training};
    use crate::samples::InMemory;

    const NET: &str = r#"
opset 17
graph net(x: f32[n,3]) -> (y: f32[n,2]) {
  w: f32[3,4] = {0.5,-0.25,1.0,0.75,0.3,0.7,-0.4,0.2,0.1,0.9,-0.8,0.6}
  b: f32[4] = {0.1,-0.2,0.3,0.05}
  v: f32[4,2] = {0.4,-0.6,0.2,0.8,0.1,-0.9,0.7,0.3}
  c: f32[2] = {0.5,-1.0}
  h = Gemm(x, w, b) {name="h"}
  r = Relu(h) {name="r"}
  y = Gemm(r, v, c) {name="y"}
}
"#;

    fn samples() -> InMemory {
        let rows = (0..64 * 3)
            .map(|i| ((i * 7919) % 997) as f32 / 400.0 - 0.5)
            .collect();
        InMemory {
            name: "x".into(),
            rows: Tensor::from_vec(&[64, 3], rows).unwrap(),
            labels: None,
        }
    }

    fn shift_of_means(settings: &Settings) -> f64 {
        let model = text::parse(NET).unwrap();
        let (samples, calibration) = (samples(), calibrate::Settings::default());
        let mut look = look(&samples, &calibration, &NoProgress);
        let (q, changes) =
            post_training(&model, &mut look, &samples, settings, &NoProgress).unwrap();
        assert!(changes.warnings.is_empty(), "{:?}", changes.warnings);
        let mean = |m: &Model| {
            let y = m.graph.find_value("y").unwrap();
            super::look(m, &[(y, 1)], &samples, 32, None, &NoProgress)
                .unwrap()
                .means
                .remove(&y)
                .unwrap()
        };
        let (a, b) = (mean(&model), mean(&q));
        (0..2).map(|c| (a.mean(c) - b.mean(c)).abs()).sum()
    }

    #[test]
    fn the_mean_shift_of_outputs_goes_to_zero() {
        let coarse = Settings {
            reduce_range: true,
            bias_correction: false,
            ..Settings::default()
        };
        let corrected = Settings {
            bias_samples: 32,
            ..coarse.clone()
        };
        let (before, after) = (shift_of_means(&coarse), shift_of_means(&corrected));
        assert!(after < before / 20.0 && after < 2e-4, "{before} {after}");
    }

    #[test]
    fn an_absurd_shift_is_refused() {
        let mut graph = text::parse("opset 17\ngraph g(x: f32[1]) -> (y: f32[1]) {\n  b: i32[1] = {5}\n  s: f32[1] = {0.5}\n  y = Relu(x)\n}\n").unwrap().graph;
        let (ints, scales) = (
            graph.find_value("b").unwrap(),
            graph.find_value("s").unwrap(),
        );
        let p = Product {
            name: "p".into(),
            float: ints,
            quantized: ints,
            axis: 1,
            ints,
            scales,
        };
        let sums = |x: f64| Means {
            sums: vec![x],
            squares: vec![1.0],
            count: 1.0,
        };
        assert!(!shift(&mut graph, &p, &sums(9.0), &sums(1.0)).unwrap());
        assert!(shift(&mut graph, &p, &sums(1.25), &sums(1.0)).unwrap());
        let b = graph
            .constant(ints)
            .unwrap()
            .data::<i32>()
            .unwrap()
            .into_owned();
        assert_eq!(b, [6]);
    }
}

//! Cross-layer equalisation: neighbours share the ranges of their weights channel by channel, so that
//! one scale for a whole weight suits all channels (Nagel et al. 2019, "Data-free quantization
//! through weight equalization and bias correction", equation 11).
//!
//! For channel `i` between two products, `s = sqrt(max|W1[i]| / max|W2[:, i]|)`; the first weight and
//! bias are divided by it, the second weight multiplied. What lies between must give `f(s·x) = s·f(x)`:
//! nothing, Relu, LeakyRelu, PRelu with one slope, or a Clip from 0 of whose upper end the calibration
//! data stay clear by half, before and after. No channel grows beyond twice the largest activation of
//! all, which have one scale too. Sweeps go on until nothing changes, which for a depthwise convolution
//! between two others is the rule of three.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Graph, Model, NodeId, Result, Tensor, ValueId};

use super::rules;
use crate::calibrate::{Channels, Statistics};

/// Sweeps after which the factors have long settled.
const SWEEPS: usize = 40;

/// Factors closer to 1 than this end the sweeps.
const SETTLED: f64 = 1e-3;

/// A weight and bias in the making.
struct Layer {
    weight: Vec<f32>,
    dims: Vec<usize>,
    bias: Option<Vec<f32>>,
    groups: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Conv,
    Gemm,
    GemmTransposed,
}

impl Layer {
    fn of(graph: &Graph, id: NodeId) -> Option<Self> {
        let node = graph.node(id);
        let kind = match (node.is("Conv"), node.is("Gemm")) {
            (true, _) => Kind::Conv,
            (_, true) if node.int("transB").unwrap_or(0) != 0 => Kind::GemmTransposed,
            (_, true) => Kind::Gemm,
            _ => return None,
        };
        let plain = |name| node.float(name).unwrap_or(1.0) == 1.0;
        if kind != Kind::Conv
            && (!plain("alpha") || !plain("beta") || node.int("transA").unwrap_or(0) != 0)
        {
            return None;
        }
        let v = node.input(1)?;
        graph.sole_consumer(v)?;
        let t = graph.constant(v)?;
        let bias = match node.input(2) {
            Some(b) => {
                graph.sole_consumer(b)?;
                Some(graph.constant(b)?.to_f32().ok()?.into_owned())
            }
            None => None,
        };
        let layer = Self {
            weight: t.to_f32().ok()?.into_owned(),
            dims: t.dims().to_vec(),
            bias,
            groups: usize::try_from(node.int("group").unwrap_or(1)).ok()?.max(1),
            kind,
        };
        let fits = layer
            .bias
            .as_ref()
            .is_none_or(|b| b.len() == layer.outputs());
        (fits && layer.outputs().is_multiple_of(layer.groups) && !layer.weight.is_empty())
            .then_some(layer)
    }

    fn outputs(&self) -> usize {
        self.dims[usize::from(self.kind == Kind::Gemm)]
    }

    fn inputs(&self) -> usize {
        match self.kind {
            Kind::Conv => self.dims[1] * self.groups,
            Kind::Gemm => self.dims[0],
            Kind::GemmTransposed => self.dims[1],
        }
    }

    /// The output and the input channel of each element of the weight.
    fn channels(&self, i: usize) -> (usize, usize) {
        match self.kind {
            Kind::Gemm => (i % self.dims[1], i / self.dims[1]),
            Kind::GemmTransposed => (i / self.dims[1], i % self.dims[1]),
            Kind::Conv => {
                let window: usize = self.dims[2..].iter().product();
                let (o, c) = (i / window / self.dims[1], i / window % self.dims[1]);
                let group = o / (self.dims[0] / self.groups);
                (o, group * self.dims[1] + c)
            }
        }
    }

    fn largest(&self, of_inputs: bool) -> Vec<f32> {
        let count = if of_inputs {
            self.inputs()
        } else {
            self.outputs()
        };
        let mut most = vec![0.0f32; count];
        for (i, w) in self.weight.iter().enumerate() {
            let (o, c) = self.channels(i);
            let m = &mut most[if of_inputs { c } else { o }];
            *m = m.max(w.abs());
        }
        most
    }

    fn scale(&mut self, factors: &[f64], of_inputs: bool) {
        for i in 0..self.weight.len() {
            let (o, c) = self.channels(i);
            let factor = if of_inputs {
                factors[c]
            } else {
                1.0 / factors[o]
            };
            self.weight[i] = (f64::from(self.weight[i]) * factor) as f32;
        }
        if let (Some(bias), false) = (&mut self.bias, of_inputs) {
            for (b, s) in bias.iter_mut().zip(factors) {
                *b = (f64::from(*b) / s) as f32;
            }
        }
    }
}

/// Two products with nothing but a homogeneous function between them.
struct Link {
    first: NodeId,
    second: NodeId,
    /// The values between, the output of the first included.
    values: Vec<ValueId>,
    /// The smallest product of all factors that a channel may have so far.
    least: Vec<f64>,
    total: Vec<f64>,
}

/// Equalises all neighbours. The result computes the same in floats, up to rounding, on data like the
/// calibration's. The second answer names the values that differ from the model's: those need new
/// statistics.
///
/// # Errors
/// When the graph has a cycle.
pub fn equalize(model: &Model, statistics: &Statistics) -> Result<(Model, BTreeSet<String>)> {
    let mut out = model.clone();
    let mut layers: BTreeMap<NodeId, Layer> = BTreeMap::new();
    for id in out.graph.order()? {
        layers.extend(Layer::of(&out.graph, id).map(|l| (id, l)));
    }
    let mut links: Vec<Link> = layers
        .keys()
        .filter_map(|&id| link(&out.graph, id, &layers, statistics))
        .collect();
    for _ in 0..SWEEPS {
        let moved = links.iter_mut().map(|l| balance(l, &mut layers));
        if moved.fold(0.0, f64::max) < SETTLED {
            break;
        }
    }
    let mut changed = BTreeSet::new();
    for link in links.iter().filter(|l| l.total.iter().any(|s| *s != 1.0)) {
        let names = link.values.iter().map(|&v| out.graph.value(v).name.clone());
        changed.extend(names);
        for id in [link.first, link.second] {
            store(&mut out.graph, id, &layers[&id])?;
        }
    }
    super::drop_unused(&mut out.graph);
    Ok((out, changed))
}

/// The link that starts at a product, where its output has one reader each until another product.
fn link(
    graph: &Graph,
    first: NodeId,
    layers: &BTreeMap<NodeId, Layer>,
    statistics: &Statistics,
) -> Option<Link> {
    let channels = layers[&first].outputs();
    let captured = graph.captured();
    let mut values = vec![graph.node(first).output(0)?];
    let mut least = None;
    loop {
        let v = *values.last()?;
        let (next, i) = graph
            .sole_consumer(v)
            .filter(|_| !graph.is_output(v) && !captured.contains(&v))?;
        if let Some(layer) = layers.get(&next) {
            let seen = statistics.of(&graph.value(v).name);
            let seen = seen.and_then(|s| s.channels.as_ref());
            let magnitudes = seen.map(Channels::magnitudes);
            let magnitudes = magnitudes.filter(|m| m.len() == channels);
            let fits = i == 0 && layer.inputs() == channels;
            return fits.then(|| Link {
                first,
                second: next,
                values,
                least: within_range(&magnitudes.unwrap_or_default(), least, channels),
                total: vec![1.0; channels],
            });
        }
        let node = graph.node(next);
        let made = node.output(0)?;
        match node.op.as_str() {
            "Relu" | "LeakyRelu" if node.domain.is_empty() => {}
            "PRelu" => {
                graph
                    .constant(node.input(1)?)
                    .filter(|t| t.count() == 1 && i == 0)?;
            }
            "Clip"
                if node
                    .inputs()
                    .iter()
                    .skip(1)
                    .flatten()
                    .all(|&b| graph.constant(b).is_some()) =>
            {
                let (lo, hi) = rules::bounds(graph, node);
                let seen = statistics.of(&graph.value(made).name)?.channels.as_ref()?;
                let fits = lo == 0.0 && hi > 0.0 && seen.max.len() == channels && seen.axis == 1;
                least = Some(bounds(&seen.max, hi)).filter(|_| fits && least.is_none());
                least.as_ref()?;
            }
            _ => return None,
        }
        values.push(made);
    }
}

/// How many times as large as the largest activation of all a channel may become: activations have
/// one scale, which channels with hardly a weight would take from the others.
const GROWTH: f64 = 2.0;

/// The smallest factor of each channel that leaves it within that growth. Bounds that a Clip sets hold
/// too.
fn within_range(magnitudes: &[f32], clip: Option<Vec<f64>>, channels: usize) -> Vec<f64> {
    let most = magnitudes.iter().fold(f32::MIN_POSITIVE, |a, &m| a.max(m));
    let mut least = clip.unwrap_or_else(|| vec![0.0; channels]);
    for (least, m) in least.iter_mut().zip(magnitudes) {
        *least = least.max(f64::from(m / most) / GROWTH);
    }
    least
}

/// How much more than calibration saw a divided channel may hold before a Clip ends it.
const HEADROOM: f64 = 2.0;

/// The smallest factor of each channel below a Clip. A channel that comes near its end keeps the factor
/// 1, which infinity stands for.
fn bounds(max: &[f32], hi: f32) -> Vec<f64> {
    let one = |&m: &f32| {
        let least = HEADROOM * f64::from(m.max(0.0)) / f64::from(hi);
        if least < 1.0 { least } else { f64::INFINITY }
    };
    max.iter().map(one).collect()
}

/// One step of a link; gives the largest logarithm of a factor.
fn balance(link: &mut Link, layers: &mut BTreeMap<NodeId, Layer>) -> f64 {
    let first = layers[&link.first].largest(false);
    let second = layers[&link.second].largest(true);
    let mut factors = vec![1.0; first.len()];
    for (i, factor) in factors.iter_mut().enumerate() {
        let (a, b) = (f64::from(first[i]), f64::from(second[i]));
        let least = link.least[i];
        if a <= 0.0 || b <= 0.0 || least.is_infinite() {
            continue;
        }
        let wanted = (link.total[i] * (a / b).sqrt()).clamp(1e-6, 1e6).max(least);
        *factor = wanted / link.total[i];
        link.total[i] = wanted;
    }
    if let Some(layer) = layers.get_mut(&link.first) {
        layer.scale(&factors, false);
    }
    if let Some(layer) = layers.get_mut(&link.second) {
        layer.scale(&factors, true);
    }
    factors.iter().map(|s| s.ln().abs()).fold(0.0, f64::max)
}

fn store(graph: &mut Graph, id: NodeId, layer: &Layer) -> Result<()> {
    let node = graph.node(id);
    let (weight, bias) = (node.input(1), node.input(2));
    let parts = [
        (1, weight, Some(&layer.weight)),
        (2, bias, layer.bias.as_ref()),
    ];
    for (i, v, data) in parts {
        if let (Some(v), Some(data)) = (v, data) {
            let dims = graph.constant(v).map_or(Vec::new(), |t| t.dims().to_vec());
            let tensor = Tensor::from_vec(&dims, data.clone())?;
            super::replace_constant(graph, id, i, "equal", tensor);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{eval, text, verify};

    use super::*;
    use crate::calibrate::ValueStatistics;

    const NET: &str = r#"
opset 17
graph net(x: f32[n,2,4,4]) -> (y: f32[n,2,4,4]) {
  w1: f32[3,2,1,1] = {8.0,-4.0,0.02,0.03,0.5,1.0}
  b1: f32[3] = {0.5,0.01,-0.2}
  w2: f32[3,1,3,3] = {0.1,0.2,-0.1,0.3,0.2,0.1,0.05,0.1,0.2,3.0,-2.0,1.0,0.5,4.0,2.0,1.0,0.5,0.25,0.5,0.1,0.2,0.7,0.1,-0.3,0.2,0.1,0.4}
  b2: f32[3] = {0.1,0.2,0.3}
  w3: f32[2,3,1,1] = {0.5,0.7,-0.2,0.3,-0.6,0.1}
  zero: f32[] = {0.0}
  end: f32[] = {END}
  c1 = Conv(x, w1, b1) {name="c1"}
  r1 = Relu(c1) {name="r1"}
  c2 = Conv(r1, w2, b2) {pads=[1,1,1,1], group=3, name="c2"}
  r2 = Clip(c2, zero, end) {name="r2"}
  y = Conv(r2, w3) {name="y"}
}
"#;

    fn net(end: f32) -> Model {
        text::parse(&NET.replace("END", &format!("{end:?}"))).unwrap()
    }

    fn input() -> Tensor {
        let data = (0..128)
            .map(|i| ((i * 37 % 29) as f32 - 12.0) * 0.1)
            .collect();
        Tensor::from_vec(&[4, 2, 4, 4], data).unwrap()
    }

    fn statistics(model: &Model) -> Statistics {
        let mut s = Statistics::default();
        eval::evaluate_with(model, &[("x", input())], &mut |v, t| {
            let seen = s.values.entry(model.graph.value(v).name.clone());
            seen.or_insert_with(|| ValueStatistics::new(Some(1)))
                .add(t)
                .unwrap();
        })
        .unwrap();
        s
    }

    /// How far the largest magnitudes of the channels of a weight lie apart.
    fn spread(model: &Model, name: &str) -> f32 {
        let (id, _) = model.graph.nodes().find(|(_, n)| n.name == name).unwrap();
        let most = Layer::of(&model.graph, id).unwrap().largest(false);
        most.iter().fold(0.0f32, |m, x| m.max(*x)) / most.iter().fold(f32::MAX, |m, x| m.min(*x))
    }

    #[test]
    fn the_float_function_stays_and_channels_come_together() {
        // Where no channel reaches the end of the Clip, where some do, and where all do.
        for (end, moves) in [(1000.0, true), (6.0, true), (0.05, true)] {
            let model = net(end);
            let (equal, changed) = equalize(&model, &statistics(&model)).unwrap();
            verify::verify(&equal).unwrap();
            assert_eq!(changed.contains("r1"), moves);
            let a = eval::evaluate(&model, &[("x", input())]).unwrap();
            let b = eval::evaluate(&equal, &[("x", input())]).unwrap();
            let (a, b) = (a[0].to_f32().unwrap(), b[0].to_f32().unwrap());
            let most = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert!(
                a.iter().zip(&*b).all(|(a, b)| (a - b).abs() <= 1e-5 * most),
                "{end}"
            );
            assert!(spread(&equal, "c1") < spread(&model, "c1") / 3.0);
        }
    }

    #[test]
    fn factors_of_a_pair_are_those_of_the_paper() {
        let model = text::parse(
            "opset 17\ngraph g(x: f32[n,2]) -> (y: f32[n,1]) {\n  w: f32[2,2] = {8.0,0.5,4.0,0.25}\n  \
             v: f32[1,2] = {2.0,0.125}\n  h = Gemm(x, w)\n  r = Relu(h)\n  y = Gemm(r, v) {transB=1}\n}\n",
        )
        .unwrap();
        let (equal, _) = equalize(&model, &Statistics::default()).unwrap();
        let mut layers: Vec<Layer> = equal
            .graph
            .order()
            .unwrap()
            .into_iter()
            .filter_map(|id| Layer::of(&equal.graph, id))
            .collect();
        let second = layers.pop().unwrap().largest(true);
        let first = layers.pop().unwrap().largest(false);
        for (a, b) in first.iter().zip(&second) {
            assert!((a - b).abs() < 1e-4 * a, "{first:?} {second:?}");
        }
        assert!((first[0] - 4.0).abs() < 1e-3 && (first[1] - 0.25).abs() < 1e-4);
    }

    #[test]
    fn no_channel_outgrows_the_others() {
        // The first channel has hardly a weight before it, and the most behind.
        let model = text::parse(
            "opset 17\ngraph g(x: f32[n,2]) -> (y: f32[n,1]) {\n  w: f32[2,2] = {0.001,0.5,0.001,0.25}\n  \
             b: f32[2] = {1.0,2.0}\n  v: f32[1,2] = {2.0,0.125}\n  h = Gemm(x, w, b)\n  r = Relu(h)\n  \
             y = Gemm(r, v) {transB=1}\n}\n",
        )
        .unwrap();
        let x = Tensor::from_vec(&[2, 2], vec![0.5f32, 1.0, -1.0, 2.0]).unwrap();
        let largest = |model: &Model| {
            let mut s = Statistics::default();
            eval::evaluate_with(model, &[("x", x.clone())], &mut |v, t| {
                let seen = s.values.entry(model.graph.value(v).name.clone());
                let seen = seen.or_insert_with(|| ValueStatistics::new(Some(1)));
                seen.add(t).unwrap();
            })
            .unwrap();
            (s.values["r"].max, s)
        };
        let (before, s) = largest(&model);
        let (equal, changed) = equalize(&model, &s).unwrap();
        assert!(changed.contains("r"));
        assert!(largest(&equal).0 <= 2.0 * before * 1.0001);
        // Without statistics nothing holds it back.
        let (equal, _) = equalize(&model, &Statistics::default()).unwrap();
        assert!(largest(&equal).0 > 4.0 * before);
    }

    #[test]
    fn a_clip_without_statistics_ends_a_link() {
        let model = net(6.0);
        let (_, changed) = equalize(&model, &Statistics::default()).unwrap();
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), ["c1", "r1"]);
    }
}

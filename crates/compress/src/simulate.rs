//! What a device computes whose kernels add products of bytes in 16 bits: an INT8 model in QDQ
//! form, node by node, with every sum of a pair that saturates counted.
//!
//! `vpmaddubsw` (Intel SDM, volume 2: PMADDUBSW) multiplies unsigned with signed bytes and adds two
//! neighbours, `sat16(a₀·b₀ + a₁·b₁)`; what follows is exact. The order taken is that of kernels on
//! such devices: for MatMul and Gemm neighbours along the sum; for Conv those of a channels-last
//! window, the input channel fastest, then the taps in row-major order, group by group; an odd
//! last product has a zero beside it. Padding is the zero point of the input. Signed activations are
//! shifted to unsigned by 128. Depthwise convolutions, whose kernels multiply in 16 bits and add in
//! 32, are exact, and so are products of two activations and those whose weight has a zero point
//! other than 0; [`Simulator::exact`] names the latter two.

use edgesmith_ir::error::At;
use edgesmith_ir::eval::{self, EvalCx};
use edgesmith_ir::{Error, Graph, Item, Model, NodeId, Result, Tensor, ValueId};
use edgesmith_runtime::Session;

use crate::target::PairSums;

mod pairs;
mod product;

use product::Product;

/// What runs on tensors by name: a session, or a simulator.
pub trait Runs {
    /// The outputs, in order, for inputs by name.
    ///
    /// # Errors
    /// When an input does not fit or a node fails.
    fn run(&mut self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>>;
}

impl Runs for Session {
    fn run(&mut self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
        Session::run(self, inputs)
    }
}

/// How often a node's sums of pairs saturated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saturation {
    /// The node.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Sums of pairs that were made.
    pub sums: u64,
    /// Those of them that do not fit in 16 bits.
    pub saturated: u64,
}

/// A node that a run computes.
struct Step {
    id: NodeId,
    /// What it reads.
    reads: Vec<ValueId>,
    /// Set where sums of pairs are simulated.
    product: Option<Product>,
    counts: [u64; 2],
    /// Values that nothing reads after it.
    last: Vec<ValueId>,
}

/// A model in QDQ form on a simulated device.
pub struct Simulator {
    model: Model,
    pairs: PairSums,
    threads: usize,
    steps: Vec<Step>,
    /// What does not depend on the inputs, by [`ValueId::index`].
    known: Vec<Option<Item>>,
    exact: Vec<String>,
}

impl Simulator {
    /// Makes a model ready for a device that adds `pairs` so, on `threads` threads (0: one for each
    /// core).
    ///
    /// # Errors
    /// When the graph has a cycle, or a constant cannot be computed.
    pub fn new(model: &Model, pairs: PairSums, threads: usize) -> Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let graph = &model.graph;
        let mut known: Vec<Option<Item>> = vec![None; graph.value_slots()];
        for (v, value) in graph.values() {
            known[v.index()] = value.constant.clone().map(Item::Tensor);
        }
        let mut steps = Vec::new();
        let mut exact = Vec::new();
        for id in graph.order()? {
            let node = graph.node(id);
            let product = Product::of(graph, id)?;
            if product.is_none() && product::multiplies(graph, id) {
                exact.push(node.place());
            }
            let captured = node.subgraphs().flat_map(|g| g.captures.iter());
            let reads: Vec<ValueId> = match &product {
                Some(p) => p.reads(),
                None => {
                    let own = node.inputs().iter().flatten().copied();
                    own.chain(captured.map(|c| c.outer)).collect()
                }
            };
            let fixed = reads.iter().all(|v| known[v.index()].is_some());
            if fixed && product.is_none() && !node.outputs().is_empty() {
                let items = evaluate(model, id, &known)?;
                for (v, item) in node.outputs().iter().zip(items) {
                    if let Some(v) = v {
                        known[v.index()] = Some(item);
                    }
                }
                continue;
            }
            steps.push(Step {
                id,
                reads,
                product,
                counts: [0; 2],
                last: Vec::new(),
            });
        }
        prune(graph, &mut steps);
        Ok(Self {
            model: model.clone(),
            pairs,
            threads: if threads == 0 { cores() } else { threads },
            steps,
            known,
            exact,
        })
    }

    /// What saturated in all runs so far, by node, in the order in which they run.
    pub fn saturation(&self) -> Vec<Saturation> {
        let simulated = self.steps.iter().filter(|s| s.product.is_some());
        let row = |s: &Step| {
            let node = self.model.graph.node(s.id);
            Saturation {
                node: node.name.clone(),
                op: node.op.clone(),
                sums: s.counts[0],
                saturated: s.counts[1],
            }
        };
        simulated.map(row).collect()
    }

    /// Products of bytes that are taken to be exact, because the simulation does not know the
    /// order of their sums.
    pub fn exact(&self) -> &[String] {
        &self.exact
    }

    fn feed(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<Option<Item>>> {
        let mut values = self.known.clone();
        for &v in &self.model.graph.inputs {
            let name = &self.model.graph.value(v).name;
            let given = inputs.iter().find(|(n, _)| n == name);
            if let Some((_, t)) = given {
                values[v.index()] = Some(Item::Tensor(t.clone()));
            } else if values[v.index()].is_none() {
                return Err(Error::invalid(format!("input \"{name}\" is missing")));
            }
        }
        Ok(values)
    }
}

impl Runs for Simulator {
    fn run(&mut self, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>> {
        let mut values = self.feed(inputs)?;
        let graph = &self.model.graph;
        for step in &mut self.steps {
            let node = graph.node(step.id);
            let items = match &step.product {
                Some(product) => {
                    let (y, counts) = product
                        .run(node, &values, self.pairs, self.threads)
                        .at(|| node.place())?;
                    step.counts[0] += counts[0];
                    step.counts[1] += counts[1];
                    vec![Item::Tensor(y)]
                }
                None => evaluate(&self.model, step.id, &values)?,
            };
            for (v, item) in node.outputs().iter().zip(items) {
                if let Some(v) = v {
                    values[v.index()] = Some(item);
                }
            }
            for v in &step.last {
                values[v.index()] = None;
            }
        }
        let output = |v: &ValueId| {
            let item = values[v.index()].clone();
            let made = item.ok_or_else(|| Error::invalid("an output is made by no node"))?;
            made.into_tensor()
        };
        graph.outputs.iter().map(output).collect()
    }
}

/// Drops nodes whose results nothing reads, and finds where each value is read last.
fn prune(graph: &Graph, steps: &mut Vec<Step>) {
    let mut wanted: std::collections::BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
    let mut kept = Vec::new();
    for mut step in std::mem::take(steps).into_iter().rev() {
        let made = graph.node(step.id).outputs().iter().flatten();
        if !made.clone().any(|v| wanted.contains(v)) {
            continue;
        }
        let made: Vec<ValueId> = made.copied().collect();
        let constant = |v: &ValueId| graph.value(*v).constant.is_some();
        let mut last: Vec<ValueId> = Vec::new();
        for &v in &step.reads {
            let is_made = graph.value(v).producer().is_some();
            if wanted.insert(v) && is_made && !constant(&v) {
                last.push(v);
            }
        }
        last.extend(made.iter().filter(|v| !wanted.contains(v)));
        step.last = last;
        kept.push(step);
    }
    kept.reverse();
    *steps = kept;
}

fn evaluate(model: &Model, id: NodeId, values: &[Option<Item>]) -> Result<Vec<Item>> {
    let node = model.graph.node(id);
    let inputs: Vec<Option<Item>> = node
        .inputs()
        .iter()
        .map(|v| v.and_then(|v| values[v.index()].clone()))
        .collect();
    eval::evaluate_node(&EvalCx::within(model, node, &inputs, values)).at(|| node.place())
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::text;

    use super::*;
    use crate::calibrate::{Statistics, ValueStatistics};
    use crate::quantize::affine::Byte;
    use crate::quantize::int8;

    /// Large weights of one sign beside each other, a depthwise layer, groups and a head.
    const NET: &str = r#"
opset 17
graph net(x: f32[n,3,5,5]) -> (y: f32[n,4]) {
  w1: f32[8,3,3,3] = {W216}
  b1: f32[8] = {0.1,-0.2,0.3,0.05,0.0,0.1,0.2,-0.3}
  w2: f32[8,1,3,3] = {W72}
  w3: f32[8,4,1,1] = {W32}
  w4: f32[8,4] = {W32}
  c1 = Conv(x, w1, b1) {pads=[1,1,1,1], strides=[2,1], name="c1"}
  r1 = Relu(c1) {name="r1"}
  c2 = Conv(r1, w2) {pads=[1,1,1,1], group=8, name="c2"}
  c3 = Conv(c2, w3) {group=2, name="c3"}
  g = GlobalAveragePool(c3) {name="g"}
  f = Flatten(g) {name="f"}
  y = MatMul(f, w4) {name="m"}
}
"#;

    fn net() -> Model {
        let mut text = NET.to_owned();
        for n in [216usize, 72, 32] {
            let numbers = (0..n).map(|i| {
                let w = ((i * 37 + n) % 41) as f32 / 41.0 + 0.5;
                format!("{}", if i % 11 == 0 { -w } else { w })
            });
            let list = numbers.collect::<Vec<_>>().join(",");
            text = text.replace(&format!("W{n}"), &list);
        }
        text::parse(&text).unwrap()
    }

    fn input(seed: usize) -> Tensor {
        let data = (0..2 * 75).map(|i| ((i * 7919 + seed * 131) % 997) as f32 / 500.0 - 0.2);
        Tensor::from_vec(&[2, 3, 5, 5], data.collect()).unwrap()
    }

    fn quantized(settings: &int8::Settings) -> Model {
        let model = net();
        let mut s = Statistics {
            samples: 32,
            ..Statistics::default()
        };
        for seed in 0..4 {
            eval::evaluate_with(&model, &[("x", input(seed))], &mut |v, t| {
                let name = model.graph.value(v).name.clone();
                let seen = s.values.entry(name);
                let seen = seen.or_insert_with(|| ValueStatistics::new(None));
                seen.add(t).unwrap();
            })
            .unwrap();
        }
        int8::quantize(&model, &s, settings).unwrap().0
    }

    fn difference(a: &[Tensor], b: &[Tensor]) -> f32 {
        let (a, b) = (a[0].to_f32().unwrap(), b[0].to_f32().unwrap());
        assert_eq!(a.len(), b.len());
        let apart = a.iter().zip(&*b).map(|(a, b)| (a - b).abs());
        apart.fold(0.0, f32::max) / b.iter().fold(0.0f32, |m, x| m.max(x.abs()))
    }

    fn simulated(model: &Model, pairs: PairSums, threads: usize) -> (Vec<Tensor>, Vec<Saturation>) {
        let mut simulator = Simulator::new(model, pairs, threads).unwrap();
        assert!(simulator.exact().is_empty(), "{:?}", simulator.exact());
        let y = simulator.run(&[("x", input(9))]).unwrap();
        (y, simulator.saturation())
    }

    #[test]
    fn exact_sums_give_what_the_reference_gives() {
        for (activations, symmetric, per_channel) in [
            (Byte::Unsigned, false, true),
            (Byte::Signed, false, true),
            (Byte::Signed, true, false),
        ] {
            let model = quantized(&int8::Settings {
                activations,
                symmetric,
                per_channel,
                ..int8::Settings::default()
            });
            let expected = eval::evaluate(&model, &[("x", input(9))]).unwrap();
            for threads in [1, 3] {
                let (y, saturation) = simulated(&model, PairSums::Exact, threads);
                assert!(difference(&y, &expected) < 1e-5);
                let names: Vec<&str> = saturation.iter().map(|s| s.node.as_str()).collect();
                assert_eq!(names, ["c1", "c3", "m"]);
                assert!(saturation.iter().all(|s| s.saturated == 0));
            }
        }
    }

    #[test]
    fn sums_of_pairs_are_counted() {
        let model = quantized(&int8::Settings::default());
        let (_, saturation) = simulated(&model, PairSums::Saturate, 2);
        let sums: Vec<u64> = saturation.iter().map(|s| s.sums).collect();
        assert_eq!(sums, [2 * 15 * 8 * 14, 2 * 15 * 8 * 2, 2 * 4 * 4]);
    }

    #[test]
    fn saturation_spoils_the_answer_and_weights_of_7_bits_cure_it() {
        let of = |reduce_range| {
            let model = quantized(&int8::Settings {
                reduce_range,
                ..int8::Settings::default()
            });
            let (exact, _) = simulated(&model, PairSums::Exact, 1);
            let (device, saturation) = simulated(&model, PairSums::Saturate, 1);
            let saturated: u64 = saturation.iter().map(|s| s.saturated).sum();
            (difference(&device, &exact), saturated)
        };
        let (apart, saturated) = of(false);
        assert!(saturated > 100 && apart > 0.01, "{saturated} {apart}");
        assert_eq!(of(true), (0.0, 0));
    }

    #[test]
    fn a_product_of_two_activations_is_named_as_exact() {
        let model = text::parse(
            "opset 17\ngraph g(x: f32[2,2]) -> (y: f32[2,2]) {\n  s: f32[] = {0.01}\n  z: u8[] = {3}\n  \
             q = QuantizeLinear(x, s, z) {name=\"q\"}\n  d = DequantizeLinear(q, s, z) {name=\"d\"}\n  \
             y = MatMul(d, d) {name=\"m\"}\n}\n",
        )
        .unwrap();
        let simulator = Simulator::new(&model, PairSums::Saturate, 1).unwrap();
        assert_eq!(simulator.exact(), ["MatMul \"m\""]);
        assert!(simulator.saturation().is_empty());
    }

    #[test]
    fn a_missing_or_wrong_input_is_an_error() {
        let model = quantized(&int8::Settings::default());
        let mut simulator = Simulator::new(&model, PairSums::Saturate, 1).unwrap();
        assert!(simulator.run(&[]).is_err());
        let wrong = Tensor::from_vec(&[1, 2, 5, 5], vec![0.0f32; 50]).unwrap();
        assert!(simulator.run(&[("x", wrong)]).is_err());
    }
}

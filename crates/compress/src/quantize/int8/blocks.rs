//! Adaptive rounding by blocks: the weights of a part of the network are rounded together, so that
//! what leaves the part on samples is what leaves it in floats (Li et al. 2021, "BRECQ: pushing the
//! limit of post-training quantization by block reconstruction", section 3.3, with the rounding of
//! Nagel et al. 2020, "Up or down?", equations 21 to 25).
//!
//! What enters a block is what the quantised network before it makes, rounded already; what should
//! leave it is what the float network makes. Activations inside are quantised, with gradients straight
//! through. A block keeps what was learned only where that brings its output closer.

use std::collections::BTreeMap;

use edgesmith_ir::{DType, Graph, Model, NodeId, Progress, Result, Tensor, ValueId, packed};
use edgesmith_runtime::{Options, Session};

use super::weights::float_bias;
use crate::quantize::changes::BlockChange;
use crate::quantize::sources::Source;
use crate::samples::{self, Samples};

mod find;
mod learn;
mod part;

use find::Block;
use learn::{Bias, Found, Layer, STEPS, learn};

/// Bytes of what enters and leaves a block, of all samples together.
const MEMORY: usize = 512 << 20;

/// The order of samples is drawn from this number and the number of the block.
const SEED: u64 = 11;

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Every block whose rounding was learned, in order.
    pub blocks: Vec<BlockChange>,
    /// What could not be done, in sentences.
    pub warnings: Vec<String>,
}

/// Rounds the weights of `quantized` by blocks, where there are any. `float` is the model that it was
/// made from, by the names of values and nodes; `sources` are those of its constants.
///
/// # Errors
/// When a model does not run on the samples, or the user cancels; `quantized` may be changed then.
pub(super) fn round_by_blocks(
    float: &Model,
    quantized: &mut Model,
    sources: &mut [Source],
    (samples, count): (&dyn Samples, usize),
    progress: &dyn Progress,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let sites = sites(&float.graph, &quantized.graph, sources)?;
    let is_there = |name: &str| quantized.graph.find_value(name).is_some();
    let blocks = find::blocks(float, &|name| sites.contains_key(name), &is_there)?;
    let inside: usize = blocks.iter().map(|b| b.products.len()).sum();
    if inside < sites.len() {
        outcome.warnings.push(format!(
            "{} of {} products are in no block, for more than one value enters or leaves it: they are rounded one by one",
            sites.len() - inside,
            sites.len()
        ));
    }
    let Some(first) = blocks.first() else {
        return Ok(outcome);
    };
    progress.start("round by blocks", (blocks.len() * STEPS) as u64);
    let mut between = Between::begin(float, quantized, &first.entry, (samples, count))?;
    for (number, block) in blocks.iter().enumerate() {
        progress.check()?;
        between.advance(float, quantized, &block.entry)?;
        let layers: Vec<Layer> = block.products.iter().map(|p| sites[p].clone()).collect();
        let seed = SEED + number as u64;
        match between.round(float, quantized, (block, &layers, seed), progress)? {
            Ok(change) => {
                if change.after < change.before {
                    mark(sources, &quantized.graph, &layers);
                }
                outcome.blocks.push(change);
            }
            Err(why) => {
                let last = block.products.last().map_or("", String::as_str);
                outcome.warnings.push(format!(
                    "the block that ends with \"{last}\" is rounded product by product: {why}"
                ));
                progress.advance(STEPS as u64);
            }
        }
    }
    progress.finish();
    Ok(outcome)
}

/// Says that the weights of these layers are not the nearest any more.
fn mark(sources: &mut [Source], graph: &Graph, layers: &[Layer]) {
    for layer in layers {
        let name = &graph.value(layer.ints).name;
        let own = sources.iter_mut().filter(|s| s.constant == *name);
        own.for_each(|s| s.is_nearest = false);
    }
}

/// The products whose rounding can be learned, by name.
fn sites(float: &Graph, quantized: &Graph, sources: &[Source]) -> Result<BTreeMap<String, Layer>> {
    let mut sites = BTreeMap::new();
    for (_, node) in float.nodes() {
        let twin = quantized
            .nodes()
            .find(|(_, n)| n.name == node.name && n.op == node.op);
        let Some((id, _)) = twin.filter(|_| !node.name.is_empty()) else {
            continue;
        };
        if let Some(layer) = site(float, quantized, sources, (node, id))? {
            sites.insert(node.name.clone(), layer);
        }
    }
    Ok(sites)
}

fn site(
    float: &Graph,
    quantized: &Graph,
    sources: &[Source],
    (node, id): (&edgesmith_ir::Node, NodeId),
) -> Result<Option<Layer>> {
    let products = ["Conv", "Gemm", "MatMul"];
    let twin = quantized.node(id);
    let constant = |i: usize| {
        let dq = quantized.producer_is(twin.input(i)?, "DequantizeLinear")?;
        let alone = quantized.sole_consumer(twin.input(i)?).is_some();
        let node = quantized.node(dq);
        let ints = node.input(0)?;
        let (data, scale) = (
            quantized.constant(ints)?,
            quantized.constant(node.input(1)?)?,
        );
        let alone = alone && quantized.sole_consumer(ints).is_some();
        alone.then_some((ints, data, scale, node.int("axis").unwrap_or(1)))
    };
    let weight = node.input(1).and_then(|v| float.constant(v));
    let (Some(weight), Some((ints, data, scale, axis))) = (weight, constant(1)) else {
        return Ok(None);
    };
    let name = &quantized.value(ints).name;
    let limit = sources
        .iter()
        .find(|s| s.constant == *name)
        .and_then(|s| s.limit);
    let dims = weight.dims().to_vec();
    let is_whole = matches!(data.dtype(), DType::I8 | DType::I4) && data.dims() == dims;
    let Some(limit) = limit.filter(|_| is_whole && products.contains(&&node.op[..])) else {
        return Ok(None);
    };
    let inner = match usize::try_from(axis) {
        Ok(axis) if scale.count() > 1 && axis < dims.len() => dims[axis + 1..].iter().product(),
        _ if scale.count() == 1 => 1,
        _ => return Ok(None),
    };
    let bias = match constant(2) {
        Some((ints, data, scale, _)) => {
            let outputs = data.count();
            let float = float_bias(float, node, outputs)?.unwrap_or_else(|| vec![0.0; outputs]);
            Some(Bias {
                float,
                scales: scale.to_f32()?.into_owned(),
                ints,
            })
        }
        None => None,
    };
    Ok(Some(Layer {
        node: id,
        weight: weight.to_f32()?.into_owned(),
        dims,
        scales: scale.to_f32()?.into_owned(),
        inner,
        limit: limit as f32,
        ints,
        bias,
    }))
}

/// What passes between two blocks, sample by sample.
struct Between {
    /// The name of the value.
    at: String,
    float: Vec<Tensor>,
    quantized: Vec<Tensor>,
}

impl Between {
    /// The value `entry` of the first samples.
    fn begin(
        float: &Model,
        quantized: &Model,
        entry: &str,
        (samples, count): (&dyn Samples, usize),
    ) -> Result<Self> {
        let run = |model: &Model| -> Result<Vec<Tensor>> {
            let mut model = model.clone();
            let v = model.graph.find_value(entry);
            model.graph.outputs = v.into_iter().collect();
            let is_input = v.is_some_and(|v| model.graph.is_input(v));
            let mut session = match is_input {
                true => None,
                false => {
                    part::without_dead(&mut model)?;
                    Some(Session::prepare(&model, &Options::default())?)
                }
            };
            let mut all = Vec::new();
            for batch in samples.batches(1) {
                let (range, batch) = batch?;
                if range.start >= count {
                    break;
                }
                let fed = samples::named(&batch);
                let made = match &mut session {
                    Some(session) => session.run(&fed)?.into_iter().next(),
                    None => fed.into_iter().find(|(n, _)| *n == entry).map(|(_, t)| t),
                };
                all.extend(made.map(|t| t.detached()));
            }
            Ok(all)
        };
        Ok(Self {
            at: entry.into(),
            float: run(float)?,
            quantized: run(quantized)?,
        })
    }

    /// Goes on to the value `to`.
    fn advance(&mut self, float: &Model, quantized: &Model, to: &str) -> Result<()> {
        if self.at != to {
            self.float = outputs(float, (&self.at, to), &self.float)?;
            self.quantized = outputs(quantized, (&self.at, to), &self.quantized)?;
            self.at = to.into();
        }
        Ok(())
    }

    /// Keeps as many samples as fit in memory with `exit` bytes of each that leaves a block.
    fn fit(&mut self, exit: usize) {
        let entry = self.float.first().map_or(0, Tensor::byte_len);
        let most = (MEMORY / (2 * entry + 3 * exit).max(1)).max(1);
        self.float.truncate(most);
        self.quantized.truncate(most);
    }

    /// Rounds a block, and goes on to what leaves it. The inner error says why the block was left.
    fn round(
        &mut self,
        float: &Model,
        quantized: &mut Model,
        (block, layers, seed): (&Block, &[Layer], u64),
        progress: &dyn Progress,
    ) -> Result<std::result::Result<BlockChange, String>> {
        let ends = (block.entry.as_str(), block.exit.as_str());
        let first = &self.float[..self.float.len().min(1)];
        let one = outputs(float, ends, first)?;
        self.fit(one.first().map_or(0, Tensor::byte_len));
        let wanted = outputs(float, ends, &self.float)?;
        let before = outputs(quantized, ends, &self.quantized)?;
        let samples = learn::Samples {
            entries: &self.quantized,
            exits: &wanted,
        };
        let part = part::part(quantized, ends.0, ends.1)?;
        let found = learn(&part, layers, &samples, seed, progress);
        progress.check()?;
        let result = match found {
            Ok(found) => {
                let kept = replace(quantized, layers, &found)?;
                let after = outputs(quantized, ends, &self.quantized)?;
                let errors = (error(&wanted, &before)?, error(&wanted, &after)?);
                let change = BlockChange {
                    products: block.products.clone(),
                    weights: layers.iter().map(|l| l.weight.len()).sum(),
                    samples: wanted.len(),
                    before: errors.0,
                    after: errors.1,
                };
                if errors.1 < errors.0 {
                    self.quantized = after;
                } else {
                    restore(quantized, kept);
                    self.quantized = before;
                }
                Ok(change)
            }
            Err(e) => {
                self.quantized = before;
                Err(e.to_string())
            }
        };
        self.float = wanted;
        self.at.clone_from(&block.exit);
        Ok(result)
    }
}

/// What leaves a part of a model for each of these.
fn outputs(model: &Model, (entry, exit): (&str, &str), samples: &[Tensor]) -> Result<Vec<Tensor>> {
    let Some(first) = samples.first() else {
        return Ok(Vec::new());
    };
    let part = part::part(model, entry, exit)?;
    let part = part::typed(&part, first.dims(), 1);
    let mut session = Session::prepare(&part, &Options::default())?;
    let mut all = Vec::with_capacity(samples.len());
    for sample in samples {
        let made = session.run(&[(entry, sample.clone())])?;
        all.extend(made.into_iter().next().map(|t| t.detached()));
    }
    Ok(all)
}

/// The squared error of all samples, as a share of the signal.
fn error(wanted: &[Tensor], found: &[Tensor]) -> Result<f64> {
    let (mut signal, mut noise) = (0.0f64, 0.0f64);
    for (a, b) in wanted.iter().zip(found) {
        for (a, b) in a.to_f32()?.iter().zip(&*b.to_f32()?) {
            signal += f64::from(*a).powi(2);
            noise += f64::from(a - b).powi(2);
        }
    }
    Ok(noise / signal.max(f64::MIN_POSITIVE))
}

/// Constants with what they held.
type Kept = Vec<(ValueId, Option<Tensor>)>;

/// Puts what was found into the model; what was there before.
fn replace(model: &mut Model, layers: &[Layer], found: &[Found]) -> Result<Kept> {
    let mut kept = Kept::new();
    let mut put = |v: ValueId, make: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<()> {
        let value = model.graph.value_mut(v);
        if let Some(old) = value.constant.take() {
            value.constant = Some(make(&old)?);
            kept.push((v, Some(old)));
        }
        Ok(())
    };
    for (layer, found) in layers.iter().zip(found) {
        put(layer.ints, &|old| match old.dtype() {
            DType::I4 => {
                let ints = found.ints.iter().map(|&i| i128::from(i));
                packed::encode_integers(DType::I4, old.dims(), ints)
            }
            _ => Tensor::from_vec(old.dims(), found.ints.clone()),
        })?;
        if let (Some(site), Some(bias)) = (&layer.bias, &found.bias) {
            put(site.ints, &|old| Tensor::from_vec(old.dims(), bias.clone()))?;
        }
    }
    Ok(kept)
}

fn restore(model: &mut Model, kept: Kept) {
    for (v, old) in kept {
        model.graph.value_mut(v).constant = old;
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{NoProgress, text};

    use super::*;
    use crate::calibrate;
    use crate::quantize::changes::Changes;
    use crate::quantize::int8::{RoundBy, Settings, look, post_training};
    use crate::quantize::testing::numbers;
    use crate::samples::InMemory;

    /// Rows whose numbers depend on their neighbours.
    fn samples() -> InMemory {
        let mut rows = numbers(96 * 16, 7);
        for row in rows.chunks_exact_mut(16) {
            for i in 1..16 {
                row[i] = 0.8 * row[i - 1] + 0.6 * row[i];
            }
        }
        InMemory {
            name: "x".into(),
            rows: Tensor::from_vec(&[96, 16], rows).unwrap(),
            labels: None,
        }
    }

    fn model(body: &str) -> Model {
        with_outputs("y", body)
    }

    fn with_outputs(outputs: &str, body: &str) -> Model {
        let mut source = format!("opset 17 graph g(x: f32[n,16]) -> ({outputs}) {{ {body} }}");
        for seed in 1..5 {
            let list: Vec<String> = numbers(256, seed)
                .iter()
                .map(|x| format!("{x:?}"))
                .collect();
            source = source.replace(&format!("W{seed}"), &list.join(","));
        }
        text::parse(&source).unwrap()
    }

    const RESIDUAL: &str = "w: f32[16,16] = {W1} v: f32[16,16] = {W2} u: f32[16,16] = {W3}
        b: f32[16] = {0.1,0,0,0.3,0,0,0,0,-0.2,0,0,0,0,0,0,0.5}
        s = Gemm(x, u, b) {name=\"s\"} t = Relu(s)
        h = Gemm(t, w, b) {name=\"h\"} r = Relu(h) p = Gemm(r, v) {name=\"p\"} a = Add(p, t) y = Relu(a)";

    fn rounded(model: &Model, round_by: RoundBy) -> (Model, Changes) {
        let (samples, calibration) = (samples(), calibrate::Settings::default());
        let mut look = look(&samples, &calibration, &NoProgress);
        let settings = Settings {
            narrow_weights: true,
            smooth: false,
            adaptive_samples: 96,
            round_by,
            ..Settings::default()
        };
        post_training(model, &mut look, &samples, &settings, &NoProgress).unwrap()
    }

    #[test]
    fn what_leaves_a_block_comes_closer_than_by_layers() {
        let (model, changes) = rounded(&model(RESIDUAL), RoundBy::Blocks);
        assert!(changes.warnings.is_empty(), "{:?}", changes.warnings);
        let products: Vec<usize> = changes.blocks.iter().map(|b| b.products.len()).collect();
        assert_eq!(products, [1, 2]);
        let block = &changes.blocks[1];
        assert!(block.after < 0.9 * block.before, "{block:?}");
        let compared = crate::quantize::sources::compare(&model.graph, &changes.sources);
        assert_eq!(
            compared.unwrap().len(),
            3,
            "each weight is beside what it was"
        );
    }

    #[test]
    fn a_block_of_one_product_is_rounded_about_as_well_as_the_product() {
        let alone = "u: f32[16,16] = {W4} b: f32[16] = {0.1,0,0,0.3,0,0,0,0,-0.2,0,0,0,0,0,0,0.5}
            y = Gemm(x, u, b) {name=\"s\"}";
        let (_, changes) = rounded(&model(alone), RoundBy::Blocks);
        let block = &changes.blocks[0];
        let ratio = block.after / block.before;
        assert!((0.7..1.3).contains(&ratio), "{ratio}");
    }

    #[test]
    fn where_there_is_no_block_all_bytes_are_those_of_layers_and_a_warning_tells() {
        let net = "u: f32[16,16] = {W4} v: f32[16,16] = {W2}
            s = Gemm(x, u) {name=\"s\"} t = Gemm(x, v) {name=\"t\"}";
        let net = with_outputs("s, t", net);
        let [layers, blocks] = [RoundBy::Layers, RoundBy::Blocks].map(|by| rounded(&net, by));
        assert!(blocks.1.blocks.is_empty());
        assert_eq!(
            text::print(&layers.0).unwrap(),
            text::print(&blocks.0).unwrap()
        );
        let warned = &blocks.1.warnings;
        assert!(
            warned.iter().any(|w| w.contains("in no block")),
            "{warned:?}"
        );
    }

    #[test]
    fn the_same_samples_give_the_same_bytes() {
        let net = model(RESIDUAL);
        let printed = || text::print(&rounded(&net, RoundBy::Blocks).0).unwrap();
        assert_eq!(printed(), printed());
    }
}

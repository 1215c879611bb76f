//! Puts a plan into the graph: quantise and dequantise nodes around what it names.

use std::borrow::Cow;
use std::collections::BTreeMap;

use edgesmith_ir::{Attribute, Graph, Node, NodeId, Result, Tensor, ValueId};

use super::Settings;
use super::adaptive::{self, Inputs};
use super::plan::Plan;
use super::weights::{self, Demand, Weight};
use crate::calibrate::Statistics;
use crate::quantize::affine::{Affine, Byte};
use crate::quantize::rules::Rule;
use crate::quantize::sources::Source;
use crate::quantize::weight_only::matrix::turned;

/// The changes in progress.
pub(super) struct Rewrite<'a> {
    graph: &'a mut Graph,
    plan: &'a Plan,
    statistics: &'a Statistics,
    settings: &'a Settings,
    /// What products multiply, where weights are rounded by it.
    pub inputs: Option<&'a Inputs>,
    /// That of the nodes that quantise and dequantise activations.
    domain: &'a str,
    /// Dequantised twins of values that other nodes make.
    twins: BTreeMap<ValueId, ValueId>,
    weights: BTreeMap<(ValueId, Option<usize>), (Weight, ValueId)>,
    /// Zero points of activations, which nodes share, by the name asked for.
    zeros: BTreeMap<String, ValueId>,
    /// Bounds of activations of fewer bits than their type has, which nodes share.
    bounds: BTreeMap<String, ValueId>,
    pub quantizers: usize,
    pub dequantizers: usize,
    /// What the constants were made from.
    pub sources: Vec<Source>,
}

impl<'a> Rewrite<'a> {
    pub fn new(
        graph: &'a mut Graph,
        plan: &'a Plan,
        statistics: &'a Statistics,
        settings: &'a Settings,
        domain: &'a str,
    ) -> Self {
        Self {
            inputs: None,
            domain,
            graph,
            plan,
            statistics,
            settings,
            twins: BTreeMap::new(),
            weights: BTreeMap::new(),
            zeros: BTreeMap::new(),
            bounds: BTreeMap::new(),
            quantizers: 0,
            dequantizers: 0,
            sources: Vec::new(),
        }
    }

    pub fn run(&mut self) -> Result<()> {
        let plan = self.plan;
        self.quantize_weights()?;
        for &(id, rule) in &plan.nodes {
            self.inputs(id, rule)?;
        }
        for &(id, _) in &plan.nodes {
            self.outputs(id);
        }
        Ok(())
    }

    /// The axis of the scales of a weight of `rank` axes.
    fn axis(&self, id: NodeId, rule: &Rule, rank: usize) -> Option<usize> {
        let axis = (rule.weight_axis)(self.graph.node(id));
        let last_only = axis < 0;
        let axis = if last_only { rank - 1 } else { axis as usize };
        (self.settings.per_channel && !(last_only && rank > 2)).then_some(axis)
    }

    /// The constant weight of a product, with the axis of its scales.
    fn weight_of(&self, id: NodeId, rule: &Rule) -> Option<(ValueId, Option<usize>)> {
        let v = self.graph.node(id).input(1).filter(|_| rule.is_product())?;
        let rank = self.graph.constant(v)?.rank();
        Some((v, self.axis(id, rule, rank)))
    }

    /// How many outputs along the channels a product has.
    fn channels(&self, id: NodeId, rule: &Rule, dims: &[usize]) -> usize {
        let axis = (rule.weight_axis)(self.graph.node(id));
        dims[if axis < 0 {
            dims.len() - 1
        } else {
            axis as usize
        }]
    }

    fn input_scale(&self, id: NodeId) -> f32 {
        let input = self.graph.node(id).input(0);
        let affine = input.and_then(|v| self.plan.affine(v));
        affine.map_or(1.0, |a| a.scale)
    }

    /// Each weight once, fit for all nodes that read it.
    fn quantize_weights(&mut self) -> Result<()> {
        let mut demands: BTreeMap<(ValueId, Option<usize>), Vec<Demand>> = BTreeMap::new();
        let mut readers: BTreeMap<(ValueId, Option<usize>), Vec<String>> = BTreeMap::new();
        let mut nodes: BTreeMap<(ValueId, Option<usize>), Vec<NodeId>> = BTreeMap::new();
        for &(id, rule) in &self.plan.nodes {
            let Some(key) = self.weight_of(id, rule) else {
                continue;
            };
            let Some(t) = self.graph.constant(key.0) else {
                continue;
            };
            let outputs = self.channels(id, rule, t.dims());
            let reader = self.graph.node(id).name.clone();
            readers.entry(key).or_default().push(reader);
            nodes.entry(key).or_default().push(id);
            demands.entry(key).or_default().push(Demand {
                input_scale: self.input_scale(id),
                bias: weights::float_bias(self.graph, self.graph.node(id), outputs)?,
            });
        }
        for (key, demands) in demands {
            let Some(t) = self.graph.constant(key.0).cloned() else {
                continue;
            };
            let is_wide = nodes[&key].iter().any(|id| self.plan.wide.contains(id));
            let limit = self.settings.weight_limit(is_wide);
            let mut weight = Weight::of(&t, key.1, &demands, limit, self.settings)?;
            let is_adaptive = self.adapt(&mut weight, &t, &nodes[&key])?;
            let name = self.graph.value(key.0).name.clone();
            let (ints, zero) = (weight.tensor()?, weight.zero()?);
            let zero = self.add(&format!("{name}_zero"), zero);
            let dequantized = self.constant(&name, ints, &weight.scales, Some(zero), key.1)?;
            self.sources.extend(self.source(
                dequantized,
                Source {
                    axis: key.1,
                    limit: Some(limit),
                    is_nearest: !is_adaptive,
                    nodes: readers.remove(&key).unwrap_or_default(),
                    ..Source::narrow("", "", t)
                },
            ));
            self.weights.insert(key, (weight, dequantized));
        }
        Ok(())
    }

    /// Rounds a weight anew by what the products that read it multiply, where that is known of all.
    fn adapt(&self, weight: &mut Weight, float: &Tensor, readers: &[NodeId]) -> Result<bool> {
        let Some(inputs) = self.inputs else {
            return Ok(false);
        };
        let sums: Option<Vec<_>> = readers.iter().map(|&id| inputs.of_node(id)).collect();
        let Some(sums) = sums.filter(|s| s.iter().all(|one| one.like(s[0]))) else {
            return Ok(false);
        };
        let is_turned = |&id: &NodeId| {
            let node = self.graph.node(id);
            node.is("MatMul") || node.is("Gemm") && node.int("transB").unwrap_or(0) == 0
        };
        let turns = is_turned(&readers[0]);
        if readers.iter().any(|id| is_turned(id) != turns) {
            return Ok(false);
        }
        let has_bias = |&id: &NodeId| !self.graph.node(id).is("MatMul");
        let centred = self.settings.bias_correction && readers.iter().all(has_bias);
        let limit = weight.limit as f32;
        let (data, k) = (float.to_f32()?, sums[0].k);
        let rows = match turns {
            true => Cow::Owned(turned(&data, k, data.len() / k)),
            false => data,
        };
        let rows = adaptive::Rows {
            numbers: &rows,
            k,
            scales: &weight.scales,
            limit,
        };
        let ints = adaptive::round(&rows, &sums, centred, inputs.ctx());
        weight.ints = match turns {
            true => turned(&ints, ints.len() / k, k),
            false => ints,
        };
        Ok(true)
    }

    /// The source of a constant with the names that the node which makes `dequantized` reads.
    fn source(&self, dequantized: ValueId, source: Source) -> Option<Source> {
        let (id, _) = self.graph.value(dequantized).producer()?;
        let node = self.graph.node(id);
        let name = |i: usize| node.input(i).map(|v| self.graph.value(v).name.clone());
        Some(Source {
            constant: name(0)?,
            scale: name(1),
            zero: name(2),
            ..source
        })
    }

    /// A dequantised constant; without a zero point it is 0.
    fn constant(
        &mut self,
        name: &str,
        ints: Tensor,
        scales: &[f32],
        zero: Option<ValueId>,
        axis: Option<usize>,
    ) -> Result<ValueId> {
        let dims: &[usize] = if axis.is_some() { &[scales.len()] } else { &[] };
        let ints = self.add(&format!("{name}_q"), ints);
        let scale = self.add(
            &format!("{name}_scale"),
            Tensor::from_vec(dims, scales.to_vec())?,
        );
        let mut node = Node::new("DequantizeLinear", &format!("{name}_dq"));
        if let Some(axis) = axis {
            node.set("axis", Attribute::Int(axis as i64));
        }
        self.dequantizers += 1;
        let inputs: Vec<ValueId> = [ints, scale].into_iter().chain(zero).collect();
        Ok(self.graph.add_op(node, &inputs, &format!("{name}_dq")))
    }

    /// The zero point of a tensor of activations as a constant, made once. Those of weights have
    /// one each: ONNX Runtime rewrites them with the weight.
    fn zero(&mut self, affine: Affine) -> ValueId {
        let name = format!("zero_{}_{}", affine.byte.dtype(), affine.zero);
        if let Some(&v) = self.zeros.get(&name) {
            return v;
        }
        let v = self.add(&name, affine.byte.zeros(affine.zero, None));
        self.zeros.insert(name, v);
        v
    }

    fn add(&mut self, name: &str, data: Tensor) -> ValueId {
        let name = self.graph.fresh_name(name);
        self.graph.add_constant(&name, data)
    }

    /// Lets a quantised node read dequantised values.
    fn inputs(&mut self, id: NodeId, rule: &Rule) -> Result<()> {
        let weight = self.weight_of(id, rule);
        let node = self.graph.node(id);
        let data: Vec<(usize, ValueId)> = node.inputs()[..rule.data_inputs(node)]
            .iter()
            .enumerate()
            .filter_map(|(i, v)| Some((i, (*v)?)))
            .filter(|&(i, _)| i != 1 || weight.is_none())
            .collect();
        let input = data.first().map(|&(_, v)| v);
        for (i, v) in data {
            let twin = self.twin(v)?;
            self.record(v, twin, id);
            self.graph.set_input(id, i, Some(twin));
        }
        if let (Some(key), Some(input)) = (weight, input) {
            self.bias(id, rule, key, input)?;
            let dequantized = self.weights[&key].1;
            self.graph.set_input(id, 1, Some(dequantized));
        }
        Ok(())
    }

    /// Keeps what the constant behind `twin` was made from, and that the node `id` reads it.
    fn record(&mut self, v: ValueId, twin: ValueId, id: NodeId) {
        let Some(float) = self.graph.constant(v).cloned() else {
            return;
        };
        let reader = self.graph.node(id).name.clone();
        let Some(source) = self.source(twin, Source::narrow("", &reader, float)) else {
            return;
        };
        match self
            .sources
            .iter_mut()
            .find(|s| s.constant == source.constant)
        {
            Some(known) => known.read_by(&reader),
            None => self.sources.push(source),
        }
    }

    /// What a quantised node reads instead of `v`.
    fn twin(&mut self, v: ValueId) -> Result<ValueId> {
        if self.plan.made.contains_key(&v) {
            return Ok(v);
        }
        if let Some(&twin) = self.twins.get(&v) {
            return Ok(twin);
        }
        let name = self.graph.value(v).name.clone();
        let twin = if let Some(t) = self.graph.constant(v).cloned() {
            let data = t.to_f32()?;
            let range = data.iter().fold((0.0f64, 0.0f64), |(lo, hi), &x| {
                (lo.min(f64::from(x)), hi.max(f64::from(x)))
            });
            let affine = self
                .settings
                .affine(range, self.settings.activations.whole());
            let ints = self.add(&format!("{name}_q"), affine.tensor(&t)?);
            let (scale, zero) = self.parameters(&name, affine);
            self.dequantize(&name, ints, scale, zero, None)
        } else {
            let nothing = || self.settings.affine((0.0, 0.0), self.settings.activations);
            let affine = self.plan.affine(v).unwrap_or_else(nothing);
            self.pair(&name, v, affine, None)
        };
        self.twins.insert(v, twin);
        Ok(twin)
    }

    /// Scale and zero point as constants.
    fn parameters(&mut self, name: &str, affine: Affine) -> (ValueId, ValueId) {
        let scale = self.add(&format!("{name}_scale"), Tensor::scalar(affine.scale));
        let zero = self.zero(affine);
        (scale, zero)
    }

    /// Quantises `from` and dequantises it again, into `to` where that is given.
    fn pair(&mut self, name: &str, from: ValueId, affine: Affine, to: Option<ValueId>) -> ValueId {
        let (scale, zero) = self.parameters(name, affine);
        let node = Node::new("QuantizeLinear", &format!("{name}_q"));
        let node = node.in_domain(self.domain);
        let ints = self
            .graph
            .add_op(node, &[from, scale, zero], &format!("{name}_q"));
        self.quantizers += 1;
        let ints = self.bounded(name, ints, affine.byte);
        self.dequantize(name, ints, scale, zero, to)
    }

    /// The integers within their bounds, where their type has more.
    fn bounded(&mut self, name: &str, ints: ValueId, byte: Byte) -> ValueId {
        let Some(bounds) = byte.bounds() else {
            return ints;
        };
        let [low, high] = bounds.map(|end| {
            let name = format!("bound_{}_{end}", byte.dtype());
            match self.bounds.get(&name) {
                Some(&v) => v,
                None => {
                    let v = self.add(&name, byte.zeros(end, None));
                    self.bounds.insert(name, v);
                    v
                }
            }
        });
        let node = Node::new("Clip", &format!("{name}_bounded"));
        let made = format!("{name}_bounded");
        self.graph.add_op(node, &[ints, low, high], &made)
    }

    fn dequantize(
        &mut self,
        name: &str,
        ints: ValueId,
        scale: ValueId,
        zero: ValueId,
        to: Option<ValueId>,
    ) -> ValueId {
        self.dequantizers += 1;
        let node = Node::new("DequantizeLinear", &format!("{name}_dq"));
        let node = node.in_domain(self.domain);
        let inputs = [ints, scale, zero];
        match to {
            Some(to) => {
                self.graph.add_node(node, &inputs.map(Some), &[Some(to)]);
                to
            }
            None => self.graph.add_op(node, &inputs, &format!("{name}_dq")),
        }
    }

    /// Gives a product its bias in 32 bits, corrected where that is asked for.
    fn bias(
        &mut self,
        id: NodeId,
        rule: &Rule,
        key: (ValueId, Option<usize>),
        input: ValueId,
    ) -> Result<()> {
        let node = self.graph.node(id);
        if node.is("MatMul") {
            return Ok(());
        }
        let weight = &self.weights[&key].0;
        let outputs = self.channels(id, rule, &weight.dims);
        let bias = weights::float_bias(self.graph, node, outputs)?;
        let loss = if self.settings.bias_correction {
            self.loss(id, key, input)?
        } else {
            None
        };
        let mut total = match (&bias, &loss) {
            (None, None) => return Ok(()),
            (Some(b), _) => b.iter().map(|&b| f64::from(b)).collect(),
            (None, Some(_)) => vec![0.0; outputs],
        };
        for (t, l) in total.iter_mut().zip(loss.iter().flatten()) {
            *t += l;
        }
        let (ints, scales) =
            weights::integer_bias(&total, self.input_scale_of(input), &weight.scales);
        let axis = (scales.len() > 1 || key.1.is_some()).then_some(0);
        let name = match node.input(2) {
            Some(b) => self.graph.value(b).name.clone(),
            None => format!("{}_bias", self.graph.value(key.0).name),
        };
        let bias = self.constant(&name, Tensor::vector(ints), &scales, None, axis)?;
        self.graph.set_input(id, 2, Some(bias));
        Ok(())
    }

    fn input_scale_of(&self, input: ValueId) -> f32 {
        self.plan.affine(input).map_or(1.0, |a| a.scale)
    }

    fn loss(
        &self,
        id: NodeId,
        key: (ValueId, Option<usize>),
        input: ValueId,
    ) -> Result<Option<Vec<f64>>> {
        if let (Some(sums), Some(t)) = (
            self.inputs.and_then(|i| i.of_node(id)),
            self.graph.constant(key.0),
        ) {
            let errors = self.weights[&key].0.errors(t)?;
            let node = self.graph.node(id);
            let turns = node.is("Gemm") && node.int("transB").unwrap_or(0) == 0;
            return Ok(Some(sums.mean_of(&match turns {
                true => turned(&errors, sums.k, errors.len() / sums.k),
                false => errors,
            })));
        }
        let seen = self.statistics.of(&self.graph.value(input).name);
        let (Some(channels), Some(t)) = (
            seen.and_then(|s| s.channels.as_ref()),
            self.graph.constant(key.0),
        ) else {
            return Ok(None);
        };
        let weight = &self.weights[&key].0;
        let errors = weight.errors(t)?;
        let node = self.graph.node(id);
        Ok(weights::mean_loss(
            node,
            &weight.dims,
            &errors,
            &channels.means(),
        ))
    }

    /// Quantises what a node makes; the dequantised value keeps its name and its readers.
    fn outputs(&mut self, id: NodeId) {
        let mut maker = id;
        if let Some(bound) = self.plan.bounds.get(&id) {
            let made = self.graph.node(bound.node).output(0);
            if bound.kept {
                maker = bound.node;
            } else {
                self.graph.remove_node(bound.node);
                self.graph.set_output(id, 0, made);
            }
        }
        for (i, v) in self
            .graph
            .node(maker)
            .outputs()
            .to_vec()
            .into_iter()
            .enumerate()
        {
            let Some((v, affine)) = v.and_then(|v| Some((v, *self.plan.made.get(&v)?))) else {
                continue;
            };
            let name = self.graph.value(v).name.clone();
            let raw = self.graph.fresh_name(&format!("{name}_f"));
            let raw = self.graph.add_value(&raw, self.graph.value(v).ty.clone());
            self.graph.set_output(maker, i, Some(raw));
            self.pair(&name, raw, affine, Some(v));
        }
    }
}

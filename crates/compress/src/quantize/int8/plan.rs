//! Which nodes are quantised, and with which parameters.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Error, Graph, Model, Node, NodeId, Result, ValueId, infer};

use super::Settings;
use crate::calibrate::Statistics;
use crate::quantize::affine::Affine;
use crate::quantize::rules::{self, Kind, Rule, Site};
use edgesmith_ir::pattern::matches;

/// A Relu, Clip or bias after a quantised node, which comes before the rounding of its result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// The node of the bound.
    pub node: NodeId,
    /// False where saturation does its work, so that it goes.
    pub kept: bool,
}

/// What is to be done to a graph.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes that become quantised, with their rule, in an order that follows the edges.
    pub nodes: Vec<(NodeId, &'static Rule)>,
    /// Bounds by the node before them.
    pub bounds: BTreeMap<NodeId, Bound>,
    /// Parameters of values that quantised nodes make.
    pub made: BTreeMap<ValueId, Affine>,
    /// Parameters of values that quantised nodes read and others make.
    pub read: BTreeMap<ValueId, Affine>,
    /// Products whose weights have 8 bits where others have 4.
    pub wide: BTreeSet<NodeId>,
    /// Why the other nodes stay as they are.
    pub left: BTreeMap<NodeId, String>,
}

type Chosen = BTreeMap<NodeId, &'static Rule>;

impl Plan {
    pub fn of(model: &Model, statistics: &Statistics, settings: &Settings) -> Result<Self> {
        let planner = Planner::run(model, Some(statistics), settings)?;
        match planner.observed.iter().find(|&&v| !planner.seen(v)) {
            Some(&v) => {
                let name = &model.graph.value(v).name;
                Err(Error::invalid(format!(
                    "calibration saw nothing of \"{name}\""
                )))
            }
            None => Ok(planner.plan),
        }
    }

    /// The names of the values whose statistics a plan and its biases are made from.
    pub fn needs(model: &Model, settings: &Settings) -> Result<BTreeSet<String>> {
        let planner = Planner::run(model, None, settings)?;
        let of_product = |(id, _): &(NodeId, &Rule)| {
            let node = model.graph.node(*id);
            let output = node
                .output(0)
                .filter(|_| !planner.plan.bounds.contains_key(id));
            node.input(0).into_iter().chain(output)
        };
        let products = planner.plan.nodes.iter().filter(|(_, r)| r.is_product());
        let values = products
            .flat_map(of_product)
            .chain(planner.observed.iter().copied());
        Ok(values.map(|v| model.graph.value(v).name.clone()).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The parameters of a value.
    pub fn affine(&self, v: ValueId) -> Option<Affine> {
        self.made.get(&v).or_else(|| self.read.get(&v)).copied()
    }

    /// The node that took over the bound `id`, where it is gone.
    pub fn producer_of_bound(&self, id: NodeId) -> Option<NodeId> {
        let found = self.bounds.iter().find(|(_, b)| b.node == id && !b.kept);
        found.map(|(&producer, _)| producer)
    }
}

struct Planner<'a> {
    graph: &'a Graph,
    captured: BTreeSet<ValueId>,
    /// `None`: everything counts as seen.
    statistics: Option<&'a Statistics>,
    settings: &'a Settings,
    chosen: Chosen,
    plan: Plan,
    /// Values whose range was asked for.
    observed: BTreeSet<ValueId>,
    /// Values of 8 bits where others have 4.
    whole: BTreeSet<ValueId>,
}

impl<'a> Planner<'a> {
    fn run(
        model: &'a Model,
        statistics: Option<&'a Statistics>,
        settings: &'a Settings,
    ) -> Result<Self> {
        let types = infer::infer(model, &[])?;
        let order = model.graph.order()?;
        let mut planner = Planner {
            graph: &model.graph,
            captured: model.graph.captured(),
            statistics,
            settings,
            chosen: Chosen::new(),
            plan: Plan::default(),
            observed: BTreeSet::new(),
            whole: BTreeSet::new(),
        };
        for &id in &order {
            let node = model.graph.node(id);
            let site = Site {
                graph: &model.graph,
                types: &types,
                node,
            };
            match planner.qualifies(&site) {
                Ok(rule) => _ = planner.chosen.insert(id, rule),
                Err(reason) => _ = planner.plan.left.insert(id, reason),
            }
        }
        planner.keep_ends(&order);
        planner.settle();
        if settings.wide_ends {
            planner.widen_ends(&order);
        }
        planner.parameters(&order);
        Ok(planner)
    }

    fn qualifies(&self, site: &Site) -> Result<&'static Rule, String> {
        let node = site.node;
        let rule = rules::find(node).ok_or("the operator has no quantised form")?;
        let computed =
            rule.is_product() && (node.input(1)).is_some_and(|v| self.graph.constant(v).is_none());
        let asked = self.settings.also.contains(&node.op)
            || self.settings.integer_outputs && (computed || node.is("Softmax"));
        if computed && !asked {
            return Err(
                "a product of two computed operands is quantised only when asked for".into(),
            );
        }
        if !rule.default && !asked {
            return Err("the operator is quantised only when asked for".into());
        }
        if self.is_excluded(node) {
            return Err("excluded by name".into());
        }
        if !site.is_float(0) {
            return Err("its input is not f32".into());
        }
        (rule.check)(site)?;
        let made = node.output(0).filter(|_| rule.kind != Kind::Share);
        let read = node.inputs()[..rule.data_inputs(node)].iter().flatten();
        let read = read.copied().filter(|&v| self.graph.constant(v).is_none());
        for v in read.chain(made) {
            if !self.is_covered(v) {
                let name = &self.graph.value(v).name;
                return Err(format!("calibration saw nothing of \"{name}\""));
            }
        }
        Ok(rule)
    }

    fn seen(&self, v: ValueId) -> bool {
        let name = &self.graph.value(v).name;
        self.statistics.is_none_or(|s| s.of(name).is_some())
    }

    /// True where a plan can do without the statistics of `v`, or has them.
    fn is_covered(&self, v: ValueId) -> bool {
        let shares = |v| {
            self.maker(v)
                .is_some_and(|id| self.chosen[&id].kind == Kind::Share)
        };
        self.seen(v) || shares(v) || self.bound_of(v).is_some_and(|b| self.seen(b))
    }

    /// What the Relu, Clip or bias that alone reads `v` makes, where it can take part.
    fn bound_of(&self, v: ValueId) -> Option<ValueId> {
        let (id, _) = self.graph.sole_consumer(v)?;
        let node = self.graph.node(id);
        let is_bound = rules::find(node).is_some_and(|r| r.kind == Kind::Bound);
        if self.is_bias(v, node) && !self.is_excluded(node) && !self.captured.contains(&v) {
            return node.output(0);
        }
        let bounds = node.inputs().iter().skip(1).flatten();
        let takes_part = is_bound
            && !self.is_excluded(node)
            && !self.captured.contains(&v)
            && bounds.copied().all(|v| self.graph.constant(v).is_some());
        node.output(0).filter(|_| takes_part)
    }

    /// True where `node` adds a constant of at most one number a column to the product `v` of a
    /// MatMul. It stays float between the product and the rounding of its result, which is then
    /// the only one.
    fn is_bias(&self, v: ValueId, node: &Node) -> bool {
        let product = self
            .graph
            .producer_is(v, "MatMul")
            .map(|id| self.graph.node(id));
        let weight = product.and_then(|n| self.graph.constant(n.input(1)?));
        let bias = node
            .inputs()
            .iter()
            .flatten()
            .find_map(|&b| self.graph.constant(b));
        let (Some(weight), Some(bias), true) = (weight, bias, node.is("Add")) else {
            return false;
        };
        let columns = weight.dims().last();
        bias.count() == 1 || Some(&bias.count()) == columns && bias.dims().last() == columns
    }

    fn is_excluded(&self, node: &Node) -> bool {
        self.settings.exclude.iter().any(|p| matches(p, &node.name))
    }

    fn leave(&mut self, id: NodeId, reason: &str) {
        self.chosen.remove(&id);
        self.plan.left.insert(id, reason.into());
    }

    /// The first and the last product that are chosen.
    fn ends(&self, order: &[NodeId]) -> [Option<NodeId>; 2] {
        let is_product = |id: &&NodeId| self.chosen.get(id).is_some_and(|r| r.is_product());
        let first = order.iter().find(is_product);
        [first, order.iter().rev().find(is_product)].map(|id| id.copied())
    }

    /// Leaves the first and the last product all 8 bits: their weights, and what they read.
    fn widen_ends(&mut self, order: &[NodeId]) {
        for id in self.ends(order).into_iter().flatten() {
            self.plan.wide.insert(id);
            let node = self.graph.node(id);
            let data = node.inputs()[..self.chosen[&id].data_inputs(node)].iter();
            for mut v in data.flatten().copied() {
                self.whole.insert(v);
                // What shares its parameters is as wide.
                while let Some(input) = self.shares(v) {
                    v = input;
                    self.whole.insert(v);
                }
            }
        }
    }

    /// What `v` has its parameters from, where a chosen node only moves numbers.
    fn shares(&self, v: ValueId) -> Option<ValueId> {
        let maker = self.maker(v)?;
        let input = self.graph.node(maker).input(0)?;
        (self.chosen[&maker].kind == Kind::Share).then_some(input)
    }

    fn keep_ends(&mut self, order: &[NodeId]) {
        let [first, last] = self.ends(order);
        if let (true, Some(id)) = (self.settings.keep_first, first) {
            self.leave(id, "the first product is kept");
        }
        if let (true, Some(id)) = (self.settings.keep_last, last) {
            self.leave(id, "the last product is kept");
        }
    }

    /// Takes out nodes that would only add conversions, until nothing changes.
    fn settle(&mut self) {
        loop {
            let idle: Vec<(NodeId, &str)> = self
                .chosen
                .iter()
                .filter(|(_, rule)| !rule.is_product())
                .filter_map(|(&id, rule)| Some((id, self.idle(id, rule)?)))
                .collect();
            if idle.is_empty() {
                return;
            }
            for (id, reason) in idle {
                self.leave(id, reason);
            }
        }
    }

    /// Why quantising this node would gain nothing.
    fn idle(&self, id: NodeId, rule: &Rule) -> Option<&'static str> {
        let node = self.graph.node(id);
        let data = node.inputs()[..rule.data_inputs(node)].iter().flatten();
        let computed = data.copied().filter(|&v| self.graph.constant(v).is_none());
        if !computed.clone().all(|v| self.maker(v).is_some()) || computed.count() == 0 {
            return Some("an input comes from a node that is not quantised");
        }
        let bound =
            rule.kind == Kind::Bound && self.bounded(node).is_some_and(|p| !self.may_float(p));
        if rule.shrinks || bound || self.feeds(node) {
            return None;
        }
        Some("nothing quantised reads it")
    }

    /// The chosen node that makes `v`.
    fn maker(&self, v: ValueId) -> Option<NodeId> {
        let (id, _) = self.graph.value(v).producer()?;
        self.chosen.contains_key(&id).then_some(id)
    }

    /// True where a chosen node reads an output of `node` as an activation, or an output of the model is
    /// to be integers.
    fn feeds(&self, node: &Node) -> bool {
        let reads = |&(id, i): &(NodeId, usize)| {
            let rule = self.chosen.get(&id);
            rule.is_some_and(|r| i < r.data_inputs(self.graph.node(id)))
        };
        let outputs = node.outputs().iter().flatten();
        outputs.copied().any(|v| {
            let is_output = self.settings.integer_outputs && self.graph.is_output(v);
            is_output || self.graph.value(v).consumers().iter().any(reads)
        })
    }

    /// The chosen node that alone feeds the bound `node` and feeds nothing else.
    fn bounded(&self, node: &Node) -> Option<NodeId> {
        let v = node.input(0)?;
        self.graph.sole_consumer(v)?;
        let producer = self.maker(v)?;
        let takes = matches!(
            self.chosen[&producer].kind,
            Kind::Product { .. } | Kind::Own
        );
        (takes && !self.captured.contains(&v)).then_some(producer)
    }

    fn may_float(&self, id: NodeId) -> bool {
        matches!(
            self.chosen[&id].kind,
            Kind::Product {
                float_output: true,
                ..
            }
        )
    }

    fn parameters(&mut self, order: &[NodeId]) {
        for &id in order {
            let Some(&rule) = self.chosen.get(&id) else {
                continue;
            };
            if self.plan.bounds.values().any(|b| b.node == id) {
                continue;
            }
            self.plan.nodes.push((id, rule));
            let node = self.graph.node(id);
            for &v in node.inputs()[..rule.data_inputs(node)].iter().flatten() {
                if self.plan.affine(v).is_none() && self.graph.constant(v).is_none() {
                    let affine = self.observed(v);
                    self.plan.read.insert(v, affine);
                }
            }
            match rule.kind {
                Kind::Share => self.share(node),
                _ => self.own(id, node),
            }
        }
    }

    fn share(&mut self, node: &Node) {
        if let Some(affine) = node.input(0).and_then(|v| self.plan.affine(v)) {
            let outputs = node.outputs().iter().flatten();
            self.plan.made.extend(outputs.map(|&v| (v, affine)));
        }
    }

    fn own(&mut self, id: NodeId, node: &Node) {
        if self.may_float(id) && !self.feeds(node) {
            return;
        }
        let Some(mut made) = node.output(0) else {
            return;
        };
        let next = self.graph.sole_consumer(made).map(|(next, _)| next);
        let chosen = next.filter(|n| self.chosen.contains_key(n));
        let bias = chosen.filter(|&n| self.is_bias(made, self.graph.node(n)));
        if let Some(next) = bias.filter(|_| !self.captured.contains(&made)) {
            made = self.graph.node(next).output(0).unwrap_or(made);
            let kept = Bound {
                node: next,
                kept: true,
            };
            self.plan.bounds.insert(id, kept);
        }
        let bound = next.filter(|n| self.chosen.get(n).is_some_and(|r| r.kind == Kind::Bound));
        if let Some(next) = bound.filter(|&n| self.bounded(self.graph.node(n)) == Some(id)) {
            let bound = self.graph.node(next);
            made = bound.output(0).unwrap_or(made);
            let (lo, hi) = rules::bounds(self.graph, bound);
            let kept = !self.observed(made).clips_to(lo, hi);
            self.plan.bounds.insert(id, Bound { node: next, kept });
        }
        let mut affine = self.observed(made);
        if node.is("Softmax") && self.settings.integer_outputs {
            // Probabilities: none is cut off.
            affine = self.settings.affine((0.0, 1.0), self.settings.activations);
        }
        self.plan.made.insert(made, affine);
    }

    fn observed(&mut self, v: ValueId) -> Affine {
        self.observed.insert(v);
        let s = self.settings;
        let byte = match self.whole.contains(&v) {
            true => s.activations.whole(),
            false => s.activations,
        };
        let levels = byte.levels(s.symmetric);
        let seen = self
            .statistics
            .and_then(|s| s.of(&self.graph.value(v).name));
        let range = seen.map_or((0.0, 0.0), |seen| {
            (s.observer.range)(seen, levels, &s.tuning)
        });
        s.affine(range, byte)
    }
}

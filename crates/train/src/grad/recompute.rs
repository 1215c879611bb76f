//! Values of the forward pass that are computed again behind the loss, so that they need not be
//! kept until they are read there.
//!
//! The forward pass is cut into segments. What a segment makes and no later one reads is made again
//! when the gradients come back to it; the last segment stays. T. Chen et al., "Training deep nets
//! with sublinear memory cost", 2016.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Model, Node, NodeId, ValueId, ops};

use super::View;
use super::names::Names;

mod cuts;

/// Which values of the forward pass are kept until the gradients are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep<'a> {
    /// All that a gradient reads.
    #[default]
    Everything,
    /// Those behind which a segment ends: these values, those that a later segment reads, and those
    /// of the last segment.
    Values(&'a [ValueId]),
    /// As `Values`, where the segments are chosen so that the bytes that are kept and those of the
    /// largest segment are fewest together. Lengths that are not known count as 1.
    Chosen,
}

/// A forward graph that is cut into segments.
struct Segments<'a> {
    model: &'a Model,
    view: &'a View,
    /// The segment of each node of the forward pass.
    of: BTreeMap<NodeId, usize>,
    /// The value that ends each segment but the last.
    ends: Vec<ValueId>,
    /// Values that are there until they are read.
    kept: BTreeSet<ValueId>,
}

impl<'a> Segments<'a> {
    fn of(model: &'a Model, view: &'a View, keep: Keep) -> Self {
        let ends = match keep {
            Keep::Everything => Vec::new(),
            Keep::Values(values) => values.to_vec(),
            Keep::Chosen => cuts::chosen(model, view),
        };
        let ends: BTreeSet<ValueId> = ends.into_iter().collect();
        let (mut of, mut in_order, mut segment) = (BTreeMap::new(), Vec::new(), 0);
        for &id in &view.order {
            of.insert(id, segment);
            let outputs = model.graph.node(id).outputs().iter().flatten();
            let end = outputs.copied().find(|v| ends.contains(v));
            if let Some(end) = end {
                in_order.push(end);
                segment += 1;
            }
        }
        let mut segments = Self {
            model,
            view,
            of,
            ends: in_order,
            kept: BTreeSet::new(),
        };
        segments.keep();
        segments
    }

    /// Finds what is kept: what is read beyond its segment, and what cannot be made twice.
    fn keep(&mut self) {
        let graph = &self.model.graph;
        let last = self.ends.len();
        let captured = graph.captured();
        for (&id, &segment) in &self.of {
            let node = graph.node(id);
            let whole = segment == last || !is_repeatable(self.model, node);
            for &v in node.outputs().iter().flatten() {
                let readers = graph.value(v).consumers().iter();
                let mut beyond = readers.filter_map(|(n, _)| self.of.get(n));
                let is_read_beyond = beyond.any(|&s| s > segment);
                if whole || is_read_beyond || graph.is_output(v) || captured.contains(&v) {
                    self.kept.insert(v);
                }
            }
        }
        self.kept.extend(&self.ends);
        self.kept.extend(of_constants(self.model, &self.view.order));
    }

    /// The node of the forward pass that makes `v` again, where it is not kept.
    fn maker(&self, v: ValueId) -> Option<NodeId> {
        let (id, _) = self.model.graph.value(v).producer()?;
        (self.of.contains_key(&id) && !self.kept.contains(&v)).then_some(id)
    }

    /// The nodes whose results those of `behind` read, and what these read in turn.
    fn due(&self, behind: &[NodeId]) -> BTreeSet<NodeId> {
        let inputs = |id: &NodeId| self.model.graph.node(*id).inputs().iter().flatten();
        let mut due = BTreeSet::new();
        let mut open: Vec<ValueId> = behind.iter().flat_map(inputs).copied().collect();
        while let Some(v) = open.pop() {
            if let Some(id) = self.maker(v)
                && due.insert(id)
            {
                open.extend(inputs(&id));
            }
        }
        due
    }
}

/// True where a node makes the same whenever it runs.
fn is_repeatable(model: &Model, node: &Node) -> bool {
    let known = ops::find(&node.domain, &node.op).is_some_and(|def| def.deterministic);
    known && model.function(node).is_none() && node.subgraphs().next().is_none()
}

/// The values that constants alone decide: a runtime makes them once.
fn of_constants(model: &Model, order: &[NodeId]) -> BTreeSet<ValueId> {
    let graph = &model.graph;
    let mut found = BTreeSet::new();
    for &id in order {
        let node = graph.node(id);
        let fixed = |v: &ValueId| {
            let is_constant = graph.value(*v).constant.is_some() && !graph.is_input(*v);
            is_constant || found.contains(v)
        };
        if node.inputs().iter().flatten().all(fixed) {
            found.extend(node.outputs().iter().flatten());
        }
    }
    found
}

/// Lets the nodes `behind` the forward pass read values that are made again, where `keep` does not
/// keep them. `gradients` says the gradient of each value.
pub(super) fn recompute(
    model: &mut Model,
    view: &View,
    names: &mut Names,
    keep: Keep,
    behind: &[NodeId],
    gradients: &[Vec<ValueId>],
) {
    let segments = Segments::of(model, view, keep);
    let due = segments.due(behind);
    if due.is_empty() {
        return;
    }
    let mut plan: Vec<(NodeId, usize)> = Vec::new();
    for &id in view.order.iter().filter(|id| due.contains(id)) {
        plan.push((id, segments.of[&id]));
    }
    // The last segment comes first; each in the order of the forward pass.
    plan.sort_by_key(|&(_, segment)| std::cmp::Reverse(segment));
    // A segment begins when the gradient of its end is there.
    let start = |&end: &ValueId| gradients.get(end.index())?.first().copied();
    let starts: Vec<Option<ValueId>> = segments.ends.iter().map(start).collect();
    let kept = segments.kept;
    let mut again = Again {
        names,
        made: BTreeMap::new(),
    };
    for (id, segment) in plan {
        again.node(model, id, starts[segment], &kept);
    }
    for &id in behind {
        let inputs = model.graph.node(id).inputs().to_vec();
        for (i, v) in inputs.into_iter().enumerate() {
            let new = v.and_then(|v| again.made.get(&v).copied());
            if new.is_some() {
                model.graph.set_input(id, i, new);
            }
        }
    }
}

/// What is made again.
struct Again<'a> {
    names: &'a mut Names,
    made: BTreeMap<ValueId, ValueId>,
}

impl Again<'_> {
    /// Adds a node once more. Where it reads nothing that is made again, it waits for `start`.
    fn node(
        &mut self,
        model: &mut Model,
        id: NodeId,
        start: Option<ValueId>,
        kept: &BTreeSet<ValueId>,
    ) {
        let mut node = model.graph.node(id).clone();
        node.name = format!("{}/again", node.name);
        let (old, outputs) = (node.inputs().to_vec(), node.outputs().to_vec());
        let new = |v: &Option<ValueId>| v.map(|v| self.made.get(&v).copied().unwrap_or(v));
        let mut inputs: Vec<Option<ValueId>> = old.iter().map(new).collect();
        if let Some(start) = start.filter(|_| inputs == old) {
            wait(model, self.names, &mut inputs, start);
        }
        let outputs: Vec<Option<ValueId>> = outputs
            .into_iter()
            .map(|v| {
                let v = v?;
                let value = model.graph.value(v);
                let (name, ty) = (
                    self.names.fresh(&format!("{}/again", value.name)),
                    value.ty.clone(),
                );
                let new = model.graph.add_value(&name, ty);
                if !kept.contains(&v) {
                    self.made.insert(v, new);
                }
                Some(new)
            })
            .collect();
        model.graph.add_node(node, &inputs, &outputs);
    }
}

/// Lets one of `inputs` that is no constant be there no sooner than `start`: one that a node makes
/// rather than an input of the graph.
fn wait(model: &mut Model, names: &mut Names, inputs: &mut [Option<ValueId>], start: ValueId) {
    let graph = &mut model.graph;
    let is_made = |v: &ValueId| graph.value(*v).producer().is_some();
    let is_given = |v: &ValueId| is_made(v) || graph.is_input(*v);
    let place = |f: &dyn Fn(&ValueId) -> bool| {
        let mut each = inputs.iter();
        each.position(|v| v.as_ref().is_some_and(f))
    };
    let Some(i) = place(&is_made).or_else(|| place(&is_given)) else {
        return;
    };
    let name = names.fresh("after");
    let ty = inputs[i].and_then(|v| graph.value(v).ty.clone());
    let later = graph.add_value(&name, ty);
    let node = Node::new("After", &name).in_domain(ops::gradient::DOMAIN);
    graph.add_node(node, &[inputs[i], Some(start)], &[Some(later)]);
    inputs[i] = Some(later);
    let version = model.opsets.entry(ops::gradient::DOMAIN.into());
    version.or_insert(1);
}

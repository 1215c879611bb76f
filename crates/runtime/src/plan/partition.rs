//! Which device runs which nodes: units, their verdicts, and parts that are convex and worth it.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::{Graph, NodeId, ValueId};

use super::Planner;
use crate::device::Unit;
use crate::providers::cpu;

/// What runs at one time: nodes of one unit, or a part with all of its units.
#[derive(Clone)]
pub(super) struct Item {
    /// Units, in an order in which they run.
    pub units: Vec<usize>,
    /// True once a device has it.
    pub taken: bool,
}

/// The units of a graph, what each waits for, and what they are gathered in.
pub(super) struct Partition<'a> {
    pub units: Vec<Unit<'a>>,
    /// For each unit, those that make what it reads.
    waits: Vec<BTreeSet<usize>>,
    pub items: Vec<Item>,
}

impl<'a> Partition<'a> {
    /// Every unit by itself. `order` leaves out what is planned later.
    pub fn new(planner: &Planner<'a>, order: &[NodeId]) -> Self {
        let graph = planner.graph();
        let here: BTreeSet<NodeId> = order.iter().copied().collect();
        let mut units: Vec<Unit> = Vec::new();
        let mut maker: BTreeMap<NodeId, usize> = BTreeMap::new();
        for &id in order {
            let node = graph.node(id);
            let result = node.output(0);
            if node.is("DequantizeLinear")
                && result.is_some_and(|v| {
                    let readers = graph.value(v).consumers();
                    let close = |(r, _): &(NodeId, usize)| here.contains(r);
                    !planner.is_kept(v) && !readers.is_empty() && readers.iter().all(close)
                })
            {
                continue;
            }
            if let Some(unit) = absorbs(planner, id).and_then(|from| maker.get(&from)) {
                units[*unit].nodes.push(id);
                maker.insert(id, *unit);
                continue;
            }
            let mut nodes: Vec<NodeId> =
                node.inputs()
                    .iter()
                    .flatten()
                    .fold(Vec::new(), |mut nodes: Vec<NodeId>, &v| {
                        let from = graph.producer_is(v, "DequantizeLinear");
                        nodes.extend(from.filter(|f| here.contains(f) && !nodes.contains(f)));
                        nodes
                    });
            nodes.push(id);
            maker.insert(id, units.len());
            units.push(Unit {
                model: planner.model,
                inferred: planner.inferred,
                main: id,
                nodes,
            });
        }
        let waits = units.iter().map(|u| waits(graph, u, &maker)).collect();
        let items = (0..units.len()).map(|u| Item {
            units: vec![u],
            taken: false,
        });
        Self {
            items: items.collect(),
            units,
            waits,
        }
    }

    /// For each item, those that it waits for.
    fn item_waits(&self) -> Vec<BTreeSet<usize>> {
        let mut item_of = vec![0; self.units.len()];
        for (i, item) in self.items.iter().enumerate() {
            item.units.iter().for_each(|&u| item_of[u] = i);
        }
        let of = |(i, item): (usize, &Item)| {
            let all = item.units.iter().flat_map(|&u| &self.waits[u]);
            all.map(|&w| item_of[w]).filter(|&w| w != i).collect()
        };
        self.items.iter().enumerate().map(of).collect()
    }

    /// Items in an order in which they run: what the file has first comes first.
    pub fn order(&self) -> Vec<usize> {
        let waits = self.item_waits();
        let mut readers = vec![Vec::new(); waits.len()];
        let mut open: Vec<usize> = waits.iter().map(BTreeSet::len).collect();
        for (i, waits) in waits.iter().enumerate() {
            waits.iter().for_each(|&w| readers[w].push(i));
        }
        let mut ready: BTreeSet<(usize, usize)> = BTreeSet::new();
        let first = |i: usize| self.items[i].units.first().copied().unwrap_or(0);
        for (i, &n) in open.iter().enumerate() {
            if n == 0 {
                ready.insert((first(i), i));
            }
        }
        let mut order = Vec::new();
        while let Some((_, i)) = ready.pop_first() {
            order.push(i);
            for &r in &readers[i] {
                open[r] -= 1;
                if open[r] == 0 {
                    ready.insert((first(r), r));
                }
            }
        }
        order
    }

    /// Claimed items gathered into few convex parts. A path from one part into another crosses what
    /// is not claimed, and each crossing counts one: items with the same count are a part.
    pub fn gather(&self, claimed: &BTreeSet<usize>) -> Vec<Vec<usize>> {
        let waits = self.item_waits();
        let mut count = vec![0usize; self.items.len()];
        let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for i in self.order() {
            let mine = claimed.contains(&i);
            let crossed = |&w: &usize| count[w] + usize::from(!mine && claimed.contains(&w));
            count[i] = waits[i].iter().map(crossed).max().unwrap_or(0);
            if mine {
                parts.entry(count[i]).or_default().push(i);
            }
        }
        parts.into_values().collect()
    }

    /// Makes one item of several.
    pub fn merge(&mut self, parts: &[Vec<usize>]) {
        let mut gone = BTreeSet::new();
        let mut merged = Vec::new();
        for part in parts {
            let units = part.iter().flat_map(|&i| self.items[i].units.clone());
            merged.push(Item {
                units: units.collect(),
                taken: true,
            });
            gone.extend(part.iter().copied());
        }
        let kept = (0..self.items.len()).filter(|i| !gone.contains(i));
        let mut items: Vec<Item> = kept.map(|i| self.items[i].clone()).collect();
        items.extend(merged);
        self.items = items;
    }

    /// Nodes of items, each once, in an order in which they run.
    pub fn nodes(&self, items: &[usize]) -> Vec<NodeId> {
        let mut seen = BTreeSet::new();
        let units = items.iter().flat_map(|&i| &self.items[i].units);
        let nodes = units.flat_map(|&u| &self.units[u].nodes).copied();
        nodes.filter(|&id| seen.insert(id)).collect()
    }
}

/// The node whose result QuantizeLinear `id` alone reads.
fn absorbs(planner: &Planner, id: NodeId) -> Option<NodeId> {
    let graph = planner.graph();
    let node = graph.node(id);
    let v = node.is("QuantizeLinear").then(|| node.input(0))??;
    let (from, 0) = graph.value(v).producer()? else {
        return None;
    };
    let before = graph.node(from);
    let alone = before.outputs().iter().flatten().count() == 1
        && graph.value(v).consumers().len() == 1
        && !planner.is_kept(v);
    let quantizes = before.is("DequantizeLinear") || before.is("QuantizeLinear");
    (alone && !quantizes).then_some(from)
}

/// The units that make what `unit` reads, directly or through its DequantizeLinear nodes.
fn waits(graph: &Graph, unit: &Unit, maker: &BTreeMap<NodeId, usize>) -> BTreeSet<usize> {
    let own = maker.get(&unit.main);
    let mut waits = BTreeSet::new();
    for &id in &unit.nodes {
        let node = graph.node(id);
        let captured = node.subgraphs().flat_map(|g| &g.captures);
        let read = node.inputs().iter().flatten().copied();
        for v in read.chain(captured.map(|c| c.outer)) {
            if let Some((from, _)) = graph.value(v).producer()
                && let Some(from) = maker.get(&from)
                && Some(from) != own
            {
                waits.insert(*from);
            }
        }
    }
    waits
}

/// Multiply-accumulates and bytes of a nanosecond, and nanoseconds of a node, as a rough guess for
/// the cpu provider.
const MACS: f64 = 16.0;
const BYTES: f64 = 8.0;
const NODE: f64 = 200.0;

/// How much slower the evaluation of an operator without a kernel is.
const WITHOUT_KERNEL: f64 = 50.0;

impl Planner<'_> {
    /// A guess of what a unit takes without a device, in nanoseconds.
    pub(super) fn guess_ns(&self, unit: &Unit) -> f64 {
        let macs = unit.nodes.iter().filter_map(|id| self.macs.get(id));
        let macs = macs.sum::<u64>() as f64;
        let bytes = |v: &ValueId| unit.inferred.tensor(*v).and_then(|t| t.bytes());
        let bytes = unit.outputs().iter().filter_map(bytes).sum::<usize>() as f64;
        let node = unit.node();
        let slow = match cpu::has_kernel(&node.domain, &node.op) {
            true => 1.0,
            false => WITHOUT_KERNEL,
        };
        NODE + slow * (macs / MACS + bytes / BYTES)
    }

    /// A guess of what copies in and out of a part take, in nanoseconds. The graph's own inputs and
    /// outputs cost nothing: they are copied wherever they go.
    pub(super) fn border_ns(&self, reads: &[ValueId], makes: &[ValueId], launch: f64) -> f64 {
        let inside = |v: &&ValueId| !self.graph().is_input(**v);
        let out = |v: &&ValueId| !self.outputs.contains(v);
        let crossing = reads.iter().filter(inside).chain(makes.iter().filter(out));
        let bytes: Vec<usize> = crossing
            .map(|v| {
                self.inferred
                    .tensor(*v)
                    .and_then(|t| t.bytes())
                    .unwrap_or(0)
            })
            .collect();
        match bytes.is_empty() {
            true => 0.0,
            false => launch + 2.0 * bytes.iter().sum::<usize>() as f64 / BYTES,
        }
    }
}

//! Parts of a graph on devices: making them ready, running them, and what happens where they fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use edgesmith_ir::{Error, Model, NodeId, Result, ValueId};

use super::partition::Partition;
use super::{Arg, Layout, Planner, Program, Shelf, Step, StepRow, Work};
use crate::device::{Device, Part, Unit};
use crate::providers::Chosen;

/// A part of a graph that a device has, and why it is thought to be worth it.
#[derive(Debug, Clone, Default)]
pub struct PlacedPart {
    /// The provider.
    pub provider: String,
    /// The names of its nodes, in an order in which they run.
    pub nodes: Vec<String>,
    /// A guess of how many nanoseconds less the device takes than the cpu provider.
    pub saves_ns: f64,
    /// A guess of the nanoseconds of the copies at its borders and of its start.
    pub border_ns: f64,
}

/// Nodes that a device could not make ready, though it wanted them.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The provider.
    pub provider: &'static str,
    /// How many nodes.
    pub nodes: usize,
    /// What the device said.
    pub why: String,
}

/// How often a device is asked again after a part failed to compile.
const TRIES: usize = 8;

/// A part on a device.
pub(crate) struct OnDevice {
    pub part: Box<dyn Part>,
    pub provider: &'static str,
    /// What is told of it.
    pub placed: PlacedPart,
    /// What it reads, in the order of its inputs.
    pub inputs: Vec<Arg>,
    /// What it makes, and the step's write that holds it; `None`: on the heap.
    pub outputs: Vec<(ValueId, Option<usize>)>,
    /// The same nodes by the providers after it.
    pub fallback: Program,
    /// Why the device no longer runs it.
    pub fault: Mutex<Option<Error>>,
}

impl OnDevice {
    /// What made the device fail, if it did.
    pub fn fault(&self) -> Option<Error> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.clone()
    }
}

/// What comes next in a plan with parts.
pub(super) enum Next {
    Node(NodeId),
    Part(Box<Made>),
}

/// A part that a device made ready, before it is a step.
pub(super) struct Made {
    nodes: Vec<NodeId>,
    model: Model,
    part: Box<dyn Part>,
    provider: &'static str,
    /// The place of its device in the list of providers.
    rank: usize,
    /// What it is thought to save, and what its borders cost.
    guess: Guess,
}

/// Guesses of a part, in nanoseconds.
#[derive(Clone, Copy)]
struct Guess {
    saves: f64,
    border: f64,
}

/// Why units are not with a device.
struct Refusal {
    /// By their main nodes.
    why: BTreeMap<NodeId, String>,
    /// True where the device wanted them, and could not make them ready.
    failed: bool,
}

impl<'a> Planner<'a> {
    /// Offers the nodes of `order` to the devices, best first; what comes after what.
    pub(super) fn with_devices(&mut self, order: &[NodeId]) -> Vec<Next> {
        let devices: Vec<(usize, Chosen)> = self
            .maker
            .providers
            .iter()
            .cloned()
            .enumerate()
            .filter(|(_, p)| p.device.is_some())
            .collect();
        if devices.is_empty() {
            return order.iter().copied().map(Next::Node).collect();
        }
        let mut partition = Partition::new(self, order);
        let mut made: BTreeMap<usize, Made> = BTreeMap::new();
        for (rank, chosen) in devices {
            if let Some(device) = chosen.device {
                let parts = self.offer(&mut partition, (rank, chosen.row.name), &device);
                made.extend(parts);
            }
        }
        let mut next = Vec::new();
        let mut seen = BTreeSet::new();
        for i in partition.order() {
            let units = &partition.items[i].units;
            let part = units.iter().find_map(|u| made.remove(u));
            if let Some(part) = part {
                next.push(Next::Part(Box::new(part)));
                continue;
            }
            let nodes = partition.nodes(&[i]);
            next.extend(
                nodes
                    .into_iter()
                    .filter(|&id| seen.insert(id))
                    .map(Next::Node),
            );
        }
        self.mark_taken(&next);
        next
    }

    /// Marks the nodes of parts as done, but for a DequantizeLinear that others read too.
    fn mark_taken(&mut self, next: &[Next]) {
        let parts = next.iter().filter_map(|n| match n {
            Next::Part(made) => Some(made),
            Next::Node(_) => None,
        });
        let own: BTreeSet<NodeId> = next
            .iter()
            .filter_map(|n| match n {
                Next::Node(id) => Some(*id),
                Next::Part(_) => None,
            })
            .collect();
        for made in parts {
            let why = format!(
                "{} takes it: its part saves about {:.0} us, copies and a start cost {:.0} us",
                made.provider,
                made.guess.saves / 1e3,
                made.guess.border / 1e3
            );
            for id in made.nodes.iter().filter(|id| !own.contains(id)) {
                self.done[id.index()] = true;
                self.placements[id.index()].provider = made.provider.into();
                self.placements[id.index()].kernel = "part".into();
                self.note(*id, &why);
            }
        }
    }

    /// Lets one device take what it can of what is not taken; each part with its first unit.
    fn offer(
        &mut self,
        partition: &mut Partition<'a>,
        (rank, name): (usize, &'static str),
        device: &Arc<dyn Device>,
    ) -> Vec<(usize, Made)> {
        let mut refused: BTreeMap<NodeId, String> = BTreeMap::new();
        let mut ready: Vec<(Vec<usize>, Made)> = Vec::new();
        let mut failed: BTreeMap<NodeId, String> = BTreeMap::new();
        for _ in 0..TRIES {
            let mut claimed = BTreeSet::new();
            for (i, item) in partition.items.iter().enumerate() {
                let [unit] = item.units[..] else { continue };
                let unit = &partition.units[unit];
                if item.taken || refused.contains_key(&unit.main) {
                    continue;
                }
                match self.verdict(unit, rank, device) {
                    Ok(()) => {
                        claimed.insert(i);
                    }
                    Err(why) => {
                        refused.insert(unit.main, why);
                    }
                }
            }
            ready.clear();
            let before = refused.len();
            for part in partition.gather(&claimed) {
                match self.compile(partition, &part, (rank, name), device) {
                    Ok(made) => ready.push((part, made)),
                    Err(Refusal { why, failed: fails }) => {
                        if fails {
                            failed.extend(why.clone());
                        }
                        refused.extend(why);
                    }
                }
            }
            if refused.len() == before {
                break;
            }
        }
        self.say_refused(partition, name, &refused);
        self.say_failed(partition, name, &failed);
        let (items, made): (Vec<Vec<usize>>, Vec<Made>) = ready.into_iter().unzip();
        let first = |part: &Vec<usize>| partition.items[part[0]].units[0];
        let keys: Vec<usize> = items.iter().map(first).collect();
        partition.merge(&items);
        keys.into_iter().zip(made).collect()
    }

    /// Says of the nodes of units why the device called `name` does not have them.
    fn say_refused(
        &mut self,
        partition: &Partition<'a>,
        name: &str,
        refused: &BTreeMap<NodeId, String>,
    ) {
        for unit in &partition.units {
            if let Some(why) = refused.get(&unit.main) {
                for &id in &unit.nodes {
                    self.note(id, &format!("{name}: {why}"));
                }
            }
        }
    }

    /// Keeps what the device called `name` said of units that it could not make ready.
    fn say_failed(
        &mut self,
        partition: &Partition<'a>,
        name: &'static str,
        failed: &BTreeMap<NodeId, String>,
    ) {
        let mut by_reason: BTreeMap<&str, BTreeSet<NodeId>> = BTreeMap::new();
        for unit in &partition.units {
            if let Some(why) = failed.get(&unit.main) {
                by_reason.entry(why).or_default().extend(&unit.nodes);
            }
        }
        let of = |(why, nodes): (&str, BTreeSet<NodeId>)| Failure {
            provider: name,
            nodes: nodes.len(),
            why: why.to_owned(),
        };
        self.failures.extend(by_reason.into_iter().map(of));
    }

    /// Adds to what is said of a node.
    fn note(&mut self, id: NodeId, text: &str) {
        let note = &mut self.placements[id.index()].note;
        if note
            .as_ref()
            .is_some_and(|n| n.split("; ").any(|n| n == text))
        {
            return;
        }
        *note = Some(match note.take() {
            Some(before) => format!("{before}; {text}"),
            None => text.to_owned(),
        });
    }

    /// What the plan itself asks of a unit, then the device's own verdict.
    fn verdict(&self, unit: &Unit, rank: usize, device: &Arc<dyn Device>) -> Result<(), String> {
        let node = unit.node();
        let before = &self.maker.providers[..rank];
        if before.iter().any(|p| p.row.takes(&node.domain, &node.op)) {
            return Err("a provider before it runs the operator".into());
        }
        if node.subgraphs().next().is_some() {
            return Err("the graphs inside the node are placed by themselves".into());
        }
        let mut values = unit.inputs().into_iter().chain(unit.outputs());
        if values.any(|v| unit.typed(v).is_none()) {
            return Err("its shapes are known only in the run".into());
        }
        device.verdict(unit)
    }

    /// A part made ready; else why which units are refused.
    fn compile(
        &self,
        partition: &Partition<'a>,
        items: &[usize],
        (rank, provider): (usize, &'static str),
        device: &Arc<dyn Device>,
    ) -> Result<Made, Refusal> {
        let nodes = partition.nodes(items);
        let model = self.part_of(&nodes);
        let units: Vec<&Unit> = items
            .iter()
            .flat_map(|&i| &partition.items[i].units)
            .map(|&u| &partition.units[u])
            .collect();
        let all = |why: &str| {
            let each = units.iter().map(|u| (u.main, why.to_owned()));
            each.collect::<BTreeMap<_, _>>()
        };
        let guess: f64 = units.iter().map(|u| self.guess_ns(u)).sum();
        let saves = guess * (1.0 - 1.0 / device.speed());
        let (reads, makes) = (&model.graph.inputs, &model.graph.outputs);
        let border = self.border_ns(reads, makes, device.launch_ns());
        if border > saves {
            let why = all(&format!(
                "copies and a start of about {:.0} us would cost more than the {:.0} us that \
                 it saves",
                border / 1e3,
                saves / 1e3
            ));
            return Err(Refusal { why, failed: false });
        }
        let failure = match device.compile(&model) {
            Ok(part) => {
                return Ok(Made {
                    nodes,
                    model,
                    part,
                    provider,
                    rank,
                    guess: Guess { saves, border },
                });
            }
            Err(e) => e,
        };
        let mut why: BTreeMap<NodeId, String> = BTreeMap::new();
        let mut kinds: BTreeMap<String, Option<String>> = BTreeMap::new();
        for unit in &units {
            let kind = kinds.entry(unit.full_op()).or_insert_with(|| {
                let alone = device.compile(&self.part_of(&unit.nodes));
                alone.err().map(|e| one_line(&e, provider))
            });
            if let Some(reason) = kind {
                why.insert(unit.main, reason.clone());
            }
        }
        let why = match why.is_empty() {
            true => all(&one_line(&failure, provider)),
            false => why,
        };
        Err(Refusal { why, failed: true })
    }

    /// The nodes as a model of their own, with the ids that they have here.
    fn part_of(&self, nodes: &[NodeId]) -> Model {
        let mine: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let mut model = self.model.clone();
        let graph = &mut model.graph;
        let ids: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
        ids.into_iter()
            .filter(|id| !mine.contains(id))
            .for_each(|id| graph.remove_node(id));
        let mut read = BTreeSet::new();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for &id in nodes {
            let node = self.graph().node(id);
            read.extend(node.inputs().iter().flatten().copied());
            for &v in node.outputs().iter().flatten() {
                let is_read = self.is_read_outside(v, &mine);
                let clone = node.is("DequantizeLinear") && !self.is_kept(v);
                if (is_read && !clone) || self.is_kept(v) {
                    outputs.push(v);
                }
            }
        }
        let values: Vec<ValueId> = graph.values().map(|(v, _)| v).collect();
        for v in values {
            let value = graph.value_mut(v);
            if !read.contains(&v) {
                value.constant = None;
            } else if value.constant.is_none() && value.producer().is_none() {
                inputs.push(v);
            }
            value.ty = self.inferred.types[v.index()].clone();
        }
        (graph.inputs, graph.outputs) = (inputs, outputs);
        graph.captures.clear();
        model
    }

    /// True where a node outside of `mine` reads `v`, or a DequantizeLinear that is there as well.
    fn is_read_outside(&self, v: ValueId, mine: &BTreeSet<NodeId>) -> bool {
        let graph = self.graph();
        let mut readers = graph.value(v).consumers().iter();
        readers.any(|(r, _)| {
            let node = graph.node(*r);
            let twice = || {
                let made = node.outputs().iter().flatten();
                let mut readers = made.flat_map(|&v| graph.value(v).consumers());
                readers.any(|(r, _)| !mine.contains(r))
            };
            !mine.contains(r) || (node.is("DequantizeLinear") && twice())
        })
    }

    /// Adds the step of a part.
    pub(super) fn add_part(&mut self, made: Made) -> Result<()> {
        let inputs: Vec<Arg> = made
            .model
            .graph
            .inputs
            .iter()
            .map(|&v| self.argument(v))
            .collect::<Result<_>>()?;
        let (mut outputs, mut writes, mut makes) = (Vec::new(), Vec::new(), Vec::new());
        for &v in &made.model.graph.outputs {
            outputs.push(match self.write(v, Layout::Plain) {
                Some(slot) => {
                    makes.push((v, slot, Layout::Plain));
                    writes.push(slot);
                    (v, Some(writes.len() - 1))
                }
                None => {
                    self.places[v.index()].heap = true;
                    (v, None)
                }
            });
        }
        let named = |id: Option<&NodeId>| {
            id.map_or_else(String::new, |id| self.graph().node(*id).name.clone())
        };
        let macs = made.nodes.iter().filter_map(|id| self.macs.get(id));
        let row = StepRow {
            name: format!(
                "{} to {}",
                named(made.nodes.first()),
                named(made.nodes.last())
            ),
            op: "part".into(),
            provider: made.provider,
            kernel: format!("{} nodes", made.nodes.len()),
            integer: false,
            macs: macs.sum(),
            bytes: 0,
        };
        let name = |id: &NodeId| self.graph().node(*id).name.clone();
        let placed = PlacedPart {
            provider: made.provider.into(),
            nodes: made.nodes.iter().map(name).collect(),
            saves_ns: made.guess.saves,
            border_ns: made.guess.border,
        };
        let mut maker = self.maker.clone();
        maker.providers.drain(..=made.rank);
        let fallback = Program::new(made.model, maker, Shelf::default());
        let reads = inputs.iter().filter_map(Arg::slot).collect();
        self.push(Step {
            work: Work::Device(Box::new(OnDevice {
                part: made.part,
                provider: made.provider,
                placed,
                inputs,
                outputs,
                fallback,
                fault: Mutex::default(),
            })),
            reads,
            writes,
            row,
            makes,
            lines: None,
        });
        Ok(())
    }
}

/// What a device said, in one line: the first that does not only announce another.
fn one_line(e: &Error, provider: &str) -> String {
    let text = e.to_string();
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let first = lines.clone().next().unwrap_or_default();
    let line = lines.find(|l| !l.ends_with(':')).unwrap_or(first);
    let own = line
        .strip_prefix(provider)
        .and_then(|l| l.strip_prefix(": "));
    own.unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_why_is_kept() {
        let e = Error::invalid("general error: Exception from core.cpp:105:\nthere is no Foo\nend");
        assert_eq!(one_line(&e.at("dev"), "dev"), "there is no Foo");
        let e = Error::invalid("it has no Foo").at("dev");
        assert_eq!(one_line(&e, "dev"), "it has no Foo");
        assert_eq!(one_line(&Error::invalid("it stops:"), "dev"), "it stops:");
    }
}

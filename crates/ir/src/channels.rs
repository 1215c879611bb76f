//! Which channels stand and fall together: indices of axes that a graph ties to each other.
//!
//! Every index of every axis of known length is a slot. Operators unite slots, or hold them where
//! they are: a class of slots of which none is held can leave the graph as a whole, and what is
//! left computes the same as if all readers of these channels had zeros for them.

use std::collections::{BTreeMap, BTreeSet};

use crate::infer::Inferred;
use crate::{Error, Model, Node, NodeId, Result, ValueId};

mod attended;
mod cut;
mod grouped;
mod masked;
mod merged;
mod moved;
mod recurrent;
mod rules;
mod shuffled;
mod weighted;

pub use cut::{Kept, chosen, cut, length};
pub use masked::{is_of_squares, masked};
use rules::Cx;
pub use shuffled::{Shuffle, as_places, as_shuffles};

/// Graphs of more slots are refused.
const MOST_SLOTS: usize = 1 << 26;

/// An axis of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Axis {
    /// The value.
    pub value: ValueId,
    /// Which of its axes.
    pub axis: usize,
}

impl Axis {
    /// This axis of this value.
    pub fn of(value: ValueId, axis: usize) -> Self {
        Self { value, axis }
    }
}

/// Indices of axes that stand and fall together.
pub type Class = BTreeMap<Axis, Vec<usize>>;

/// Classes that are tied to the same axes in the same way, and so can take each other's place.
#[derive(Debug, Clone)]
pub struct Dimension {
    /// In the order of their first index.
    pub classes: Vec<Class>,
}

/// What of an axis that stands for several in a Reshape can be made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// The first of the several that is longer than 1: channels of a flattened image, heads.
    #[default]
    Outer,
    /// The last of them: the width of heads.
    Inner,
}

/// How ties are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// What of several axes in one can be made smaller.
    pub split: Split,
    /// Axes over which a LayerNormalization or a ReduceMean goes are not held: without some channels
    /// they take the mean and the variance of those that are left, which is not what they computed
    /// before.
    pub means: bool,
}

/// An operand that a node sums along an axis: without some indices, the node computes what it did
/// with zeros there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Read {
    /// The node.
    pub node: NodeId,
    /// Which of its inputs.
    pub input: usize,
    /// Along which axis.
    pub axis: usize,
}

/// Why some weights keep all their channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The first node that holds some, and what it does.
    pub why: String,
    /// Other nodes of the same operator that hold some for the same reason.
    pub more: usize,
    /// The weights.
    pub weights: Vec<ValueId>,
}

/// What holds a class.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reason {
    op: String,
    place: String,
    why: String,
}

/// True of a node of an operator by its name, that has its domain before it where that is not
/// `ai.onnx`.
fn is_named(node: &Node, name: &str) -> bool {
    let own = name.strip_suffix(node.op.as_str());
    own.is_some_and(|own| match node.domain.as_str() {
        "" => own.is_empty(),
        domain => own.strip_suffix('.') == Some(domain),
    })
}

/// The slots of a graph, united.
pub struct Ties {
    values: Vec<ValueId>,
    /// The first slot and the length of each axis, by [`ValueId::index`]; 0 where it is not known.
    axes: Vec<Vec<(usize, usize)>>,
    parents: Vec<u32>,
    /// Why the class of this root is held: an index into the reasons, from 1.
    held: Vec<u32>,
    reasons: Vec<Reason>,
    /// Axes of weights along which channels are made.
    makes: BTreeSet<Axis>,
    /// What is summed along an axis.
    reads: BTreeSet<Read>,
    /// Axes that a product of two activations takes one by one, and those that it sums along.
    heads: BTreeSet<Axis>,
    widths: BTreeSet<Axis>,
    /// Axes of Reshapes that are not one to one, until all else is tied.
    merges: Vec<merged::Merge>,
    /// Axes of groups that have to stay equally wide.
    grouped: Vec<grouped::Grouped>,
}

/// The reason of what a model shows to the outside.
const INTERFACE: u32 = 1;

/// The reason of what is alone along its axis, which is not told.
const ALONE: u32 = 2;

/// What is told of it.
pub const SHOWN: &str = "an input or an output of the model";

impl Ties {
    /// The ties of the main graph.
    ///
    /// # Errors
    /// When the graph has a cycle, or too many slots.
    pub fn of(model: &Model, inferred: &Inferred, options: Options) -> Result<Self> {
        let graph = &model.graph;
        let mut ties = Self::free(model, inferred)?;
        // First, so that this is the reason where there are others.
        for &v in graph.inputs.iter().chain(&graph.outputs) {
            for axis in 0..ties.rank(v) {
                ties.hold(Axis::of(v, axis), INTERFACE);
            }
        }
        for axis in ties.all() {
            if ties.length(axis) == Some(1) {
                ties.hold(axis, ALONE);
            }
        }
        for id in graph.order()? {
            let node = graph.node(id);
            let mut cx = Cx {
                model,
                inferred,
                id,
                node,
                options,
                ties: &mut ties,
            };
            if let Err(why) = rules::tie(&mut cx) {
                let reason = ties.reason(node, &why);
                let captured = node.subgraphs().flat_map(|g| &g.captures).map(|c| c.outer);
                let edges = node.inputs().iter().chain(node.outputs()).flatten();
                for v in edges.copied().chain(captured) {
                    for axis in 0..ties.rank(v) {
                        ties.hold(Axis::of(v, axis), reason);
                    }
                }
            }
        }
        for merge in std::mem::take(&mut ties.merges) {
            merged::settle(&mut ties, graph, &merge, options.split);
        }
        let groups = std::mem::take(&mut ties.grouped);
        grouped::settle(&mut ties, graph, &groups);
        Ok(ties)
    }

    /// Slots that nothing ties yet.
    fn free(model: &Model, inferred: &Inferred) -> Result<Self> {
        let mut count = 0usize;
        let mut axes = Vec::new();
        for (v, value) in model.graph.values() {
            let shape = match &value.constant {
                Some(data) => Some(data.ty().shape.unwrap_or_default()),
                None => inferred.tensor(v).and_then(|t| t.shape.clone()),
            };
            let mut own = Vec::new();
            for dim in shape.iter().flat_map(|s| s.iter()) {
                let length = dim.known().unwrap_or(0);
                own.push((count, length));
                count = count.saturating_add(length);
            }
            axes.push(own);
        }
        if count > MOST_SLOTS {
            let what = format!("the axes of all values have {count} indices");
            return Err(Error::unsupported(what).hint(format!("{MOST_SLOTS} can be tied")));
        }
        Ok(Self {
            values: model.graph.values().map(|(v, _)| v).collect(),
            axes,
            parents: (0..count as u32).collect(),
            held: vec![0; count],
            reasons: Vec::new(),
            makes: BTreeSet::new(),
            reads: BTreeSet::new(),
            heads: BTreeSet::new(),
            widths: BTreeSet::new(),
            merges: Vec::new(),
            grouped: Vec::new(),
        })
    }

    fn rank(&self, v: ValueId) -> usize {
        self.axes[v.index()].len()
    }

    /// The length of an axis, where it is known.
    fn length(&self, axis: Axis) -> Option<usize> {
        let (_, length) = self.axes[axis.value.index()].get(axis.axis)?;
        (*length > 0).then_some(*length)
    }

    fn slot(&self, axis: Axis, index: usize) -> usize {
        self.axes[axis.value.index()][axis.axis].0 + index
    }

    fn root(&mut self, slot: usize) -> usize {
        let mut at = slot;
        while self.parents[at] as usize != at {
            // Halves the path for those who come after.
            self.parents[at] = self.parents[self.parents[at] as usize];
            at = self.parents[at] as usize;
        }
        at
    }

    /// Ties one index to another.
    fn unite(&mut self, (a, i): (Axis, usize), (b, j): (Axis, usize)) {
        self.join(self.slot(a, i), self.slot(b, j));
    }

    /// Ties one slot to another.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (root, child) = (a.min(b), a.max(b));
        self.parents[child] = root as u32;
        if [0, ALONE].contains(&self.held[root]) && self.held[child] > 0 {
            self.held[root] = self.held[child];
        }
    }

    /// The number of a reason, of those that are above that of what is alone.
    fn reason(&mut self, node: &Node, why: &str) -> u32 {
        let reason = Reason {
            op: node.op.clone(),
            place: node.place(),
            why: why.into(),
        };
        let at = self.reasons.iter().rposition(|r| *r == reason);
        let at = at.unwrap_or_else(|| {
            self.reasons.push(reason);
            self.reasons.len() - 1
        });
        at as u32 + ALONE + 1
    }

    fn hold(&mut self, axis: Axis, reason: u32) {
        for i in 0..self.length(axis).unwrap_or(0) {
            let slot = self.slot(axis, i);
            let root = self.root(slot);
            if [0, ALONE].contains(&self.held[root]) {
                self.held[root] = reason;
            }
        }
    }

    /// What is summed along an axis, in the order of nodes.
    pub fn reads(&self) -> impl Iterator<Item = Read> {
        self.reads.iter().copied()
    }

    /// True where a product of two activations takes this axis one by one, as it does heads.
    pub fn is_head(&self, axis: Axis) -> bool {
        self.heads.contains(&axis)
    }

    /// True where a product of two activations sums along this axis.
    pub fn is_width(&self, axis: Axis) -> bool {
        self.widths.contains(&axis)
    }

    /// True where channels are made along this axis of a weight.
    pub fn makes(&self, axis: Axis) -> bool {
        self.makes.contains(&axis)
    }

    /// Every axis of known length.
    fn all(&self) -> Vec<Axis> {
        let values = self.values.iter().zip(&self.axes);
        values
            .flat_map(|(&v, own)| (0..own.len()).map(move |a| Axis::of(v, a)))
            .collect()
    }

    /// The dimensions that can be made smaller: those along which a weight makes channels and
    /// which nothing holds.
    pub fn dimensions(&mut self) -> Vec<Dimension> {
        let mut classes: BTreeMap<usize, Class> = BTreeMap::new();
        for axis in self.all() {
            for i in 0..self.length(axis).unwrap_or(0) {
                let slot = self.slot(axis, i);
                let root = self.root(slot);
                if self.held[root] == 0 {
                    let class = classes.entry(root).or_default();
                    class.entry(axis).or_default().push(i);
                }
            }
        }
        let mut found: BTreeMap<Vec<(Axis, usize)>, Vec<Class>> = BTreeMap::new();
        for class in classes.into_values() {
            if class.keys().any(|a| self.makes(*a)) {
                let ways = class.iter().map(|(a, i)| (*a, i.len())).collect();
                found.entry(ways).or_default().push(class);
            }
        }
        let dimensions = found.into_values().map(|classes| Dimension { classes });
        dimensions.collect()
    }

    /// What keeps weights as they are; [`SHOWN`] first.
    pub fn held(&mut self) -> Vec<Held> {
        let mut found: BTreeMap<u32, Vec<ValueId>> = BTreeMap::new();
        for axis in self.makes.clone() {
            let reasons = (0..self.length(axis).unwrap_or(0)).map(|i| {
                let slot = self.slot(axis, i);
                let root = self.root(slot);
                self.held[root]
            });
            let reasons: BTreeSet<u32> = reasons.filter(|&r| r > 0 && r != ALONE).collect();
            for reason in reasons {
                found.entry(reason).or_default().push(axis.value);
            }
        }
        let mut told: Vec<(&Reason, Held)> = Vec::new();
        let mut shown = Vec::new();
        for (reason, weights) in found {
            if reason == INTERFACE {
                shown.push(Held {
                    why: SHOWN.into(),
                    more: 0,
                    weights,
                });
                continue;
            }
            let reason = &self.reasons[(reason - ALONE - 1) as usize];
            let alike = |r: &Reason| (&r.op, &r.why) == (&reason.op, &reason.why);
            match told.iter_mut().find(|(r, _)| alike(r)) {
                Some((_, held)) => {
                    held.more += 1;
                    held.weights.extend(weights);
                }
                None => {
                    let held = Held {
                        why: format!("{}: {}", reason.place, reason.why),
                        more: 0,
                        weights,
                    };
                    told.push((reason, held));
                }
            }
        }
        shown.extend(told.into_iter().map(|(_, held)| held));
        shown
    }
}

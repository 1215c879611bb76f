//! Where a model is cut: which nodes make a segment.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::infer::Inferred;
use edgesmith_ir::{DType, Dim, Graph, Node, NodeId, Result, Tensor, ValueId};

use super::Segment;
use crate::calibrate::Gram;
use crate::calibrate::runnable::reads;

/// A node that multiplies by a weight of which XᵀX is wanted.
#[derive(Debug, Clone)]
pub struct Product {
    /// What it multiplies.
    pub reads: ValueId,
    /// The axis of a row of that.
    pub axis: i64,
    /// Numbers of a row.
    pub k: usize,
}

/// How a model is cut.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of weights and XᵀX of one segment; a single node may take more.
    pub bytes: usize,
    /// No product depends on another of its segment.
    pub sequential: bool,
}

/// Nodes that every segment computes for itself: constants, and shapes and indices that depend on
/// inputs of the graph and on constants alone.
pub fn again(graph: &Graph, types: &Inferred) -> Result<BTreeSet<NodeId>> {
    let mut again = BTreeSet::new();
    for id in graph.order()? {
        let node = graph.node(id);
        let is_small = |v: ValueId| {
            let ty = types.tensor(v);
            ty.is_some_and(|t| {
                t.dtype.is_integer() && t.shape.as_ref().is_some_and(|s| s.rank() <= 1)
            })
        };
        let is_there = |v: ValueId| match graph.value(v).producer() {
            Some((maker, _)) => again.contains(&maker),
            None => true,
        };
        let mut made = node.outputs().iter().flatten();
        let is_shape = made.all(|&v| is_small(v)) && reads(node).all(is_there);
        if node.is("Constant") || is_shape {
            again.insert(id);
        }
    }
    Ok(again)
}

/// The nodes that lead to what the products read, and the products, in order; and which of them
/// lead to any.
fn order(
    graph: &Graph,
    products: &BTreeMap<NodeId, Product>,
    again: &BTreeSet<NodeId>,
) -> Result<(Vec<NodeId>, BTreeSet<NodeId>)> {
    let mut order = graph.order()?;
    let mut needed: BTreeSet<ValueId> = BTreeSet::new();
    let mut runs = BTreeSet::new();
    for &id in order.iter().rev() {
        let node = graph.node(id);
        let leads = node.outputs().iter().flatten().any(|v| needed.contains(v));
        if leads {
            needed.extend(reads(node));
            runs.insert(id);
        } else if let Some(product) = products.get(&id) {
            needed.insert(product.reads);
        }
    }
    runs.retain(|id| !again.contains(id));
    order.retain(|id| runs.contains(id) || products.contains_key(id));
    Ok((order, runs))
}

/// Finds where to cut.
pub struct Cutter<'c> {
    graph: &'c Graph,
    types: &'c Inferred,
    /// Types with the shapes of the first batch.
    shapes: &'c Inferred,
    /// The nodes that run, and the products.
    order: Vec<NodeId>,
    runs: BTreeSet<NodeId>,
    products: &'c BTreeMap<NodeId, Product>,
    limits: Limits,
}

/// What crosses before each node of the order, and after the last.
struct Borders {
    /// Where each value is made and read last that a node of the order makes and another reads.
    lives: BTreeMap<ValueId, (usize, usize)>,
    /// `None` where something crosses that is no tensor of a known type.
    bytes: Vec<Option<usize>>,
}

impl Borders {
    /// The values that cross before node `at`.
    fn crossing(&self, at: usize) -> Vec<ValueId> {
        let crosses = |(made, last): (usize, usize)| made < at && at <= last;
        let lives = self.lives.iter().filter(|(_, life)| crosses(**life));
        lives.map(|(v, _)| *v).collect()
    }
}

impl<'c> Cutter<'c> {
    /// `types` are those of any run, and with the shapes of the first batch.
    ///
    /// # Errors
    /// When the graph has a cycle.
    pub fn new(
        graph: &'c Graph,
        [types, shapes]: [&'c Inferred; 2],
        products: &'c BTreeMap<NodeId, Product>,
        limits: Limits,
        again: &BTreeSet<NodeId>,
    ) -> Result<Self> {
        let (order, runs) = order(graph, products, again)?;
        Ok(Self {
            graph,
            types,
            shapes,
            order,
            runs,
            products,
            limits,
        })
    }

    /// The segments, in order.
    pub fn cut(&self) -> Vec<Segment> {
        let borders = self.borders();
        let (mut all, mut start) = (Vec::new(), 0);
        let mut looked: BTreeSet<ValueId> = BTreeSet::new();
        while start < self.order.len() {
            let end = self.end(start, &borders, &looked);
            let nodes = &self.order[start..end];
            let products = nodes.iter().filter_map(|id| self.products.get(id));
            let new: Vec<&Product> = products.filter(|p| looked.insert(p.reads)).collect();
            let name = |p: &&Product| (self.graph.value(p.reads).name.clone(), p.axis);
            let runs = |id: &NodeId| self.runs.contains(id);
            all.push(Segment {
                grams: new.iter().map(name).collect(),
                seen: new.iter().map(|p| p.reads).collect(),
                nodes: nodes.iter().copied().filter(runs).collect(),
                crossing: borders.crossing(end),
            });
            start = end;
        }
        all
    }

    /// Where the segment ends that begins at `start`.
    fn end(&self, start: usize, borders: &Borders, looked: &BTreeSet<ValueId>) -> usize {
        let mut costs = Costs::new(self, looked);
        let mut sums = Vec::new();
        let mut last_product = None;
        let mut limit = self.order.len();
        for at in start..self.order.len() {
            let id = self.order[at];
            let depends = self.products.get(&id).is_some_and(|p| costs.depends(p));
            let sum = costs.add(id);
            let follows = self.limits.sequential && depends;
            if at > start && (sum > self.limits.bytes || follows) {
                limit = at;
                if follows {
                    sums.clear();
                }
                break;
            }
            sums.push(sum);
            if self.products.contains_key(&id) {
                last_product = Some(at);
            }
        }
        if limit == self.order.len() {
            return limit;
        }
        // After the last product where the next one depends on it; else in the dearer half.
        let least = match sums.last() {
            None => last_product.map_or(start + 1, |at| at + 1),
            Some(&most) => {
                let half = sums.iter().position(|&s| s >= most / 2);
                start + half.unwrap_or(0) + 1
            }
        };
        let bytes = |&at: &usize| Some((borders.bytes[at]?, std::cmp::Reverse(at)));
        let best = (least..=limit)
            .filter(|at| bytes(at).is_some())
            .min_by_key(bytes);
        let earlier = || {
            (start + 1..least)
                .rev()
                .find(|&at| borders.bytes[at].is_some())
        };
        let later = || (limit..self.order.len()).find(|&at| borders.bytes[at].is_some());
        best.or_else(earlier)
            .or_else(later)
            .unwrap_or(self.order.len())
    }

    fn borders(&self) -> Borders {
        let mut made: BTreeMap<ValueId, usize> = BTreeMap::new();
        let mut lives: BTreeMap<ValueId, (usize, usize)> = BTreeMap::new();
        for (at, &id) in self.order.iter().enumerate() {
            // Of a product that does not run nothing is there but what is looked at.
            let looked = self.products.get(&id).map(|p| p.reads);
            let runs = self.runs.contains(&id);
            let read = reads(self.graph.node(id)).filter(|v| runs || looked == Some(*v));
            for v in read {
                if let Some(&made) = made.get(&v) {
                    lives.insert(v, (made, at));
                }
            }
            let outputs = self.graph.node(id).outputs().iter().flatten();
            made.extend(outputs.map(|&v| (v, at)));
        }
        // What begins to cross and what ends, of bytes and of values without.
        let mut steps = vec![[0i128; 2]; self.order.len() + 2];
        for (&v, &(made, last)) in &lives {
            let size = match self.bytes(v) {
                Some(bytes) => [bytes as i128, 0],
                None => [0, 1],
            };
            for (i, size) in size.into_iter().enumerate() {
                steps[made + 1][i] += size;
                steps[last + 1][i] -= size;
            }
        }
        let mut sum = [0i128; 2];
        let mut bytes = Vec::new();
        for step in &steps[..=self.order.len()] {
            sum = [sum[0] + step[0], sum[1] + step[1]];
            let known = usize::try_from(sum[0]).unwrap_or(usize::MAX);
            bytes.push((sum[1] == 0).then_some(known));
        }
        Borders { lives, bytes }
    }

    /// Bytes of a value in the first batch, about; `None` where it is no tensor of a known type.
    fn bytes(&self, v: ValueId) -> Option<usize> {
        const LENGTH: usize = 64;
        let ty = self.types.tensor(v)?;
        if ty.dtype == DType::String {
            return None;
        }
        let shape = self.shapes.tensor(v).unwrap_or(ty).shape.as_ref();
        let count = shape.map_or(LENGTH * LENGTH, |s| {
            let length = |d: &Dim| d.known().unwrap_or(LENGTH);
            s.iter().map(length).fold(1, usize::saturating_mul)
        });
        Some(count.saturating_mul(ty.dtype.bits().max(8) / 8))
    }
}

/// Bytes of the nodes of a segment, and what depends on its products.
struct Costs<'c> {
    cutter: &'c Cutter<'c>,
    looked: &'c BTreeSet<ValueId>,
    constants: BTreeSet<ValueId>,
    rows: BTreeSet<ValueId>,
    after: BTreeSet<ValueId>,
    sum: usize,
}

impl<'c> Costs<'c> {
    fn new(cutter: &'c Cutter<'c>, looked: &'c BTreeSet<ValueId>) -> Self {
        Self {
            cutter,
            looked,
            constants: BTreeSet::new(),
            rows: BTreeSet::new(),
            after: BTreeSet::new(),
            sum: 0,
        }
    }

    fn depends(&self, product: &Product) -> bool {
        self.after.contains(&product.reads)
    }

    /// Adds a node; the bytes of all.
    fn add(&mut self, id: NodeId) -> usize {
        let graph = self.cutter.graph;
        let node = graph.node(id);
        if self.cutter.runs.contains(&id) && is_packed(node) {
            for v in reads(node).filter(|v| self.constants.insert(*v)) {
                self.sum += graph.constant(v).map_or(0, Tensor::byte_len);
            }
        }
        let product = self.cutter.products.get(&id);
        if let Some(p) = product
            && !self.looked.contains(&p.reads)
            && self.rows.insert(p.reads)
        {
            self.sum += Gram::bytes(p.k);
        }
        if product.is_some() || reads(node).any(|v| self.after.contains(&v)) {
            self.after.extend(node.outputs().iter().flatten());
        }
        self.sum
    }
}

/// True where kernels lay the constants of the node out anew.
fn is_packed(node: &Node) -> bool {
    !node.is("Gather")
}

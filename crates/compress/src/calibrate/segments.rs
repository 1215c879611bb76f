//! A model cut into segments that run one after another, each in a session of its own, so that no
//! more than one segment's weights and XᵀX are in memory.
//!
//! All samples go through a segment before the next one begins. What nodes of later segments read
//! is kept between, batch by batch ([`Shelf`]); graph inputs come from the samples again, and
//! shapes that depend on nothing else are computed again.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::infer::{self, Inferred};
use edgesmith_ir::{
    DType, Dim, Error, Graph, Model, Node, NodeId, Progress, Result, Shape, Tensor, TensorType,
    Type, ValueId,
};

use super::choice::Choice;
use super::runnable::{reads, runnable};
use super::shelf::{Reader, Shelf, Writer};
use super::{Collector, Gram, Settings, Statistics, few, mask, session, unseen};
use crate::samples::{Batch, Samples};

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

/// A part of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Its nodes, in order; those that are computed again left out.
    pub nodes: Vec<NodeId>,
    /// Values whose XᵀX is collected here, with the axis of a row.
    pub grams: BTreeMap<String, i64>,
    /// The values of `grams`.
    seen: Vec<ValueId>,
    /// Values of this and earlier segments that later ones read.
    crossing: Vec<ValueId>,
}

/// A model in segments.
pub struct Segments<'a> {
    /// The part of the model that can be run.
    pub model: Cow<'a, Model>,
    /// In the order in which they run.
    pub all: Vec<Segment>,
    /// What cannot be run, in words.
    unknown: Vec<String>,
    types: Inferred,
    again: BTreeSet<NodeId>,
    choice: Choice,
    samples: &'a dyn Samples,
    settings: Settings,
}

impl<'a> Segments<'a> {
    /// Cuts the nodes that XᵀX of what `products` read depends on, where few values cross. The
    /// same model, samples, settings and limits give the same segments.
    ///
    /// # Errors
    /// When there are no samples, or the types of the model cannot be inferred.
    pub fn of(
        model: &'a Model,
        samples: &'a dyn Samples,
        settings: &Settings,
        products: &BTreeMap<NodeId, Product>,
        limits: Limits,
    ) -> Result<Self> {
        let choice = Choice::of(samples, settings)?;
        let (model, unknown) = runnable(model)?;
        let types = infer::infer(&model, &[])?;
        let first = choice.batches(samples).next().transpose()?;
        let shapes = first.and_then(|batch| infer::infer(&model, &fed(&model, &batch)).ok());
        let again = again(&model.graph, &types)?;
        let (order, runs) = order(&model.graph, products, &again)?;
        let cutter = Cutter {
            graph: &model.graph,
            types: &types,
            shapes: shapes.as_ref().unwrap_or(&types),
            order,
            runs,
            products,
            limits,
        };
        Ok(Self {
            all: cutter.cut(),
            unknown,
            types,
            again,
            choice,
            samples,
            settings: settings.clone(),
            model,
        })
    }

    /// Segment `at` as a model: its inputs are graph inputs and values of earlier segments, its
    /// outputs what later ones read. Ids are those of the whole model.
    pub fn part(&self, at: usize) -> Model {
        let segment = &self.all[at];
        let whole = &self.model.graph;
        let mine = self.with_again(&segment.nodes);
        let mut model = Model::clone(&self.model);
        let graph = &mut model.graph;
        let others = whole.nodes().map(|(id, _)| id);
        let others: Vec<NodeId> = others.filter(|id| !mine.contains(id)).collect();
        others.into_iter().for_each(|id| graph.remove_node(id));
        let read = mine.iter().flat_map(|&id| reads(whole.node(id)));
        let read: BTreeSet<ValueId> = read.chain(segment.seen.iter().copied()).collect();
        graph.inputs.retain(|v| read.contains(v));
        let values: Vec<ValueId> = graph.values().map(|(v, _)| v).collect();
        for v in values {
            let is_input = whole.is_input(v);
            let value = graph.value_mut(v);
            if !read.contains(&v) {
                value.constant = None;
            } else if value.constant.is_none() && value.producer().is_none() && !is_input {
                value.ty = self.types.tensor(v).map(open_type);
                graph.inputs.push(v);
            }
        }
        let made = |v: &ValueId| graph.value(*v).producer().is_some();
        let mut outputs: Vec<ValueId> = segment.crossing.iter().copied().filter(made).collect();
        if outputs.is_empty() {
            outputs = segment.seen.iter().copied().filter(made).collect();
        }
        graph.outputs = outputs;
        model
    }

    /// What makes numbers from so many samples less trustworthy, as sentences.
    pub fn warnings(&self, samples: u64) -> Vec<String> {
        let unknown = self.unknown.iter().map(|place| unseen(place));
        few(samples).into_iter().chain(unknown).collect()
    }

    /// The nodes, and those that are computed again for them.
    fn with_again(&self, nodes: &[NodeId]) -> BTreeSet<NodeId> {
        let graph = &self.model.graph;
        let mut all: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let mut open: Vec<NodeId> = nodes.to_vec();
        while let Some(id) = open.pop() {
            let makers = reads(graph.node(id)).filter_map(|v| graph.value(v).producer());
            for (maker, _) in makers {
                if self.again.contains(&maker) && all.insert(maker) {
                    open.push(maker);
                }
            }
        }
        all
    }

    /// Runs all samples through segment `at`, as which `part` stands. What was seen, and in how many
    /// parts of the shelf the values lie that later segments read.
    ///
    /// # Errors
    /// When the segment does not run, values of the segment before are lost, values cannot be
    /// written, or the user cancels.
    pub fn run(
        &self,
        at: usize,
        part: &Model,
        aim: Aim,
        shelf: &Shelf,
        progress: &dyn Progress,
    ) -> Result<(Statistics, usize)> {
        let segment = &self.all[at];
        let (looks, carries) = (aim != Aim::Carry, aim != Aim::Look);
        let carries = carries && at + 1 < self.all.len();
        let phase = match looks {
            true => "calibrate",
            false => "run rounded",
        };
        let phase = format!("{phase} segment {} of {}", at + 1, self.all.len());
        progress.start(&phase, self.choice.count as u64);
        let mut collector = Collector::of(
            part,
            &Settings {
                only: Some(BTreeSet::new()),
                grams: if looks {
                    segment.grams.clone()
                } else {
                    BTreeMap::new()
                },
                ..self.settings.clone()
            },
        )?;
        let wanted: Vec<ValueId> = collector.names.keys().copied().collect();
        let mut session = session(part, &self.settings)?;
        let mut before = at.checked_sub(1).map(|cut| Before {
            crossing: &self.all[cut].crossing,
            reader: Reader::new(shelf, cut),
        });
        let mut writer = Writer::new(shelf, at);
        for batch in self.choice.batches(self.samples) {
            progress.check()?;
            let (range, batch) = batch?;
            let came = before.as_mut().map_or(Ok(BTreeMap::new()), Before::next)?;
            let inputs = inputs(&part.graph, &batch, &came);
            let mask = mask(&batch)?;
            collector.statistics.samples += range.len() as u64;
            let mut failed = None;
            let outputs = session.run_watching(&inputs, &wanted, &mut |v, t| {
                if let Err(e) = collector.add(v, &t, mask.as_ref()) {
                    failed.get_or_insert(e);
                }
            })?;
            if let Some(e) = failed {
                return Err(e);
            }
            if carries {
                let made = part.graph.outputs.iter().copied().zip(outputs);
                let mut all = came;
                all.extend(made);
                writer.add(&picked(&segment.crossing, &all)?)?;
            }
            progress.advance(range.len() as u64);
        }
        progress.finish();
        let statistics = collector.finish(session.ctx());
        Ok((statistics, writer.finish()?))
    }
}

/// What a run of a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// XᵀX.
    Look,
    /// The values that later segments read.
    Carry,
    /// Both.
    Both,
}

/// The values that cross the cut before a segment.
struct Before<'s> {
    crossing: &'s [ValueId],
    reader: Reader<'s>,
}

impl Before<'_> {
    fn next(&mut self) -> Result<BTreeMap<ValueId, Tensor>> {
        let values = self.reader.next()?;
        Ok(self.crossing.iter().copied().zip(values).collect())
    }
}

/// The inputs of a segment: of the samples, or of the segments before.
fn inputs<'g>(
    graph: &'g Graph,
    batch: &[(String, Tensor)],
    came: &BTreeMap<ValueId, Tensor>,
) -> Vec<(&'g str, Tensor)> {
    let of = |&v: &ValueId| {
        let name = graph.value(v).name.as_str();
        let sample = || batch.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        let found = came.get(&v).or_else(sample)?;
        Some((name, found.clone()))
    };
    graph.inputs.iter().filter_map(of).collect()
}

fn picked(wanted: &[ValueId], all: &BTreeMap<ValueId, Tensor>) -> Result<Vec<Tensor>> {
    let one = |v: &ValueId| all.get(v).cloned();
    let found: Option<Vec<Tensor>> = wanted.iter().map(one).collect();
    found.ok_or_else(|| Error::internal("what crosses a cut was made or came"))
}

/// The types of the inputs of the graph in this batch.
fn fed(model: &Model, (_, batch): &Batch) -> Vec<(ValueId, Type)> {
    let of = |&v: &ValueId| {
        let (_, t) = batch
            .iter()
            .find(|(n, _)| *n == model.graph.value(v).name)?;
        Some((v, t.ty().into()))
    };
    model.graph.inputs.iter().filter_map(of).collect()
}

/// A type that says nothing of lengths that a run decides.
fn open_type(ty: &TensorType) -> Type {
    let open = |d: &Dim| d.known().map_or(Dim::Unknown, Dim::Known);
    let shape = ty.shape.as_ref();
    Type::Tensor(TensorType {
        dtype: ty.dtype,
        shape: shape.map(|s| s.iter().map(open).collect::<Shape>()),
    })
}

/// Nodes that every segment computes for itself: constants, and shapes and indices that depend on
/// inputs of the graph and on constants alone.
fn again(graph: &Graph, types: &Inferred) -> Result<BTreeSet<NodeId>> {
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
struct Cutter<'c> {
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

impl Cutter<'_> {
    fn cut(&self) -> Vec<Segment> {
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
            for v in reads(self.graph.node(id)) {
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

#[cfg(test)]
mod tests {
    use edgesmith_ir::text;

    use super::*;
    use crate::samples::InMemory;

    /// `a` and `b` are products of weights of 256 numbers, `c` one of what both give; a sequence
    /// lives between `s` and `e`.
    const NET: &str = r#"
opset 21
graph g(x: f32[n,4]) -> (y) {
  wa: f32[4,4] = {1,2,3,4,1,2,3,4,1,2,3,4,1,2,3,4}
  at: i64[] = {0}
  a = MatMul(x, wa) {name="a"}
  b = MatMul(x, wa) {name="b"}
  s = SequenceConstruct(a, b) {name="s"}
  r = Relu(a) {name="r"}
  e = SequenceAt(s, at) {name="e"}
  m = Mul(e, r) {name="m"}
  c = MatMul(m, wa) {name="c"}
  y = Neg(c) {name="y"}
}
"#;

    fn cut(limits: Limits) -> Vec<Vec<String>> {
        let model = text::parse(NET).unwrap();
        let named = |name: &str| {
            let mut nodes = model.graph.nodes();
            nodes.find(|(_, n)| n.name == name).unwrap().0
        };
        let product = |name: &str| {
            let id = named(name);
            let reads = model.graph.node(id).input(0).unwrap();
            let (axis, k) = (-1, 4);
            (id, Product { reads, axis, k })
        };
        let products = ["a", "b", "c"].map(product).into();
        let samples = InMemory {
            name: "x".into(),
            rows: Tensor::from_vec(&[2, 4], vec![1.0f32; 8]).unwrap(),
            labels: None,
        };
        let of = Segments::of(&model, &samples, &Settings::default(), &products, limits);
        let of = of.unwrap();
        let names = |s: &Segment| {
            let nodes = s.nodes.iter();
            nodes.map(|&id| model.graph.node(id).name.clone()).collect()
        };
        of.all.iter().map(names).collect()
    }

    #[test]
    fn sequences_do_not_cross_and_what_no_product_needs_is_left_out() {
        let (bytes, sequential) = (0, false);
        let found = cut(Limits { bytes, sequential });
        assert_eq!(found, [&["a"][..], &["b"], &["s", "r", "e"], &["m"], &[]]);
    }

    #[test]
    fn products_that_depend_on_others_stand_in_the_next_segment() {
        let (bytes, sequential) = (usize::MAX, true);
        let found = cut(Limits { bytes, sequential });
        assert_eq!(found.len(), 2);
        let found = cut(Limits {
            bytes,
            sequential: false,
        });
        assert_eq!(found, [&["a", "b", "s", "r", "e", "m"][..]]);
    }
}

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
    Dim, Error, Graph, Model, NodeId, Progress, Result, Shape, Tensor, TensorType, Type, ValueId,
};

use edgesmith_kernels::Ctx;
use edgesmith_runtime::View;

use super::choice::Choice;
use super::runnable::{reads, runnable};
use super::shelf::{Reader, Shelf, Writer};
use super::{Collector, Mask, Settings, Statistics, few, session, unseen};
use crate::samples::{Batch, Samples};

mod cut;

use cut::{Cutter, again};
pub use cut::{Limits, Product};

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
        let known = [&types, shapes.as_ref().unwrap_or(&types)];
        let cutter = Cutter::new(&model.graph, known, products, limits, &again)?;
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
        let looks = aim != Aim::Carry;
        let mut collector = self.collector(at, part, looks)?;
        let wanted: Vec<ValueId> = collector.names.keys().copied().collect();
        let pass = Pass {
            part,
            aim,
            wanted: &wanted,
        };
        let mut see = |v, t: &View, mask: Option<&Mask>| collector.add(v, t, mask);
        let watched = self.watch(at, &pass, &mut see, shelf, progress)?;
        collector.statistics.samples += watched.samples;
        Ok((collector.finish(&watched.ctx), watched.parts))
    }

    /// As [`Segments::run`], with `see` told of the values that are wanted of each batch.
    ///
    /// # Errors
    /// As [`Segments::run`], and when `see` fails.
    pub(crate) fn watch(
        &self,
        at: usize,
        pass: &Pass,
        see: &mut See,
        shelf: &Shelf,
        progress: &dyn Progress,
    ) -> Result<Watched> {
        let (part, aim) = (pass.part, pass.aim);
        let carries = aim != Aim::Look && at + 1 < self.all.len();
        let phase = match aim {
            Aim::Carry => "run changed",
            Aim::Look | Aim::Both => "calibrate",
        };
        let phase = format!("{phase} segment {} of {}", at + 1, self.all.len());
        progress.start(&phase, self.choice.count as u64);
        let mut session = session(part, &self.settings)?;
        let mut before = at.checked_sub(1).map(|cut| Before {
            crossing: &self.all[cut].crossing,
            reader: Reader::new(shelf, cut),
        });
        let mut writer = Writer::new(shelf, at);
        let mut samples = 0;
        for batch in self.choice.batches(self.samples) {
            progress.check()?;
            let (range, batch) = batch?;
            let came = before.as_mut().map_or(Ok(BTreeMap::new()), Before::next)?;
            let inputs = inputs(&part.graph, &batch, &came);
            let mask = Mask::of(&batch)?;
            samples += range.len() as u64;
            let mut added = Ok(());
            let outputs = session.run_watching(&inputs, pass.wanted, &mut |v, t| {
                if added.is_ok() {
                    added = see(v, &t, mask.as_ref());
                }
            })?;
            added?;
            if carries {
                let mut all = came;
                all.extend(part.graph.outputs.iter().copied().zip(outputs));
                writer.add(&picked(&self.all[at].crossing, &all)?)?;
            }
            progress.advance(range.len() as u64);
        }
        progress.finish();
        Ok(Watched {
            samples,
            parts: writer.finish()?,
            ctx: session.ctx().clone(),
        })
    }

    /// Collects XᵀX of a segment, or nothing.
    fn collector(&self, at: usize, part: &Model, looks: bool) -> Result<Collector> {
        let grams = if looks {
            self.all[at].grams.clone()
        } else {
            BTreeMap::new()
        };
        let settings = Settings {
            only: Some(BTreeSet::new()),
            grams,
            ..self.settings.clone()
        };
        Collector::of(part, &settings)
    }
}

/// How a segment is run.
pub(crate) struct Pass<'p> {
    /// The segment as a model.
    pub part: &'p Model,
    /// What for.
    pub aim: Aim,
    /// The values to see.
    pub wanted: &'p [ValueId],
}

/// Is told of a value of a batch.
pub(crate) type See<'s> = dyn FnMut(ValueId, &View, Option<&Mask>) -> Result<()> + 's;

/// What came of a run.
pub(crate) struct Watched {
    /// Samples that went through.
    pub samples: u64,
    /// Parts of the shelf that hold what later segments read.
    pub parts: usize,
    /// Threads and instructions.
    pub ctx: Ctx,
}

impl Segment {
    /// True where XᵀX of a value is collected here.
    pub(crate) fn sees(&self, v: ValueId) -> bool {
        self.seen.contains(&v)
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

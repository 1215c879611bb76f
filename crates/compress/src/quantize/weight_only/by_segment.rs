//! GPTQ and AWQ segment by segment: what XᵀX of a segment is needed for is done before the next
//! one runs, so that never all XᵀX and never all weights are in memory.
//!
//! The files are those of a calibration that runs the whole model at once, byte for byte. With
//! `sequential` they are others: what a weight multiplies then comes from the weights rounded before
//! it, as in section 4 of the GPTQ paper, and a segment runs twice, before and after it is rounded.

use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Graph, Model, NodeId, Progress, Result, Tensor, ValueId};
use edgesmith_kernels::{Ctx, Isa, Threads};
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use super::matrix::{Lies, turned};
use super::method::Rounded;
use super::rounding::{Rounding, add, by_weight, read_at, scaled_together, unseen};
use super::sites::{Site, products};
use super::{Found, Settings, plain};
use crate::calibrate::segments::{Aim, Limits, Segments};
use crate::calibrate::{self, Shelf, Statistics, Stores};
use crate::quantize::changes::{Changes, WeightChange};
use crate::samples::Samples;

/// Where XᵀX comes from.
pub struct Calibration<'a> {
    /// The samples.
    pub samples: &'a dyn Samples,
    /// Which of them, and on how many threads.
    pub settings: calibrate::Settings,
    /// Where finished segments are kept, so that a run that was broken off goes on.
    pub stores: Option<&'a dyn Stores>,
}

/// A quantised model, what became of it, and what is to be said of the data.
pub type Done = (Model, Changes, Vec<String>);

/// As [`super::quantize`], with XᵀX of one segment at a time; `None` where the whole model is one.
///
/// # Errors
/// As [`super::quantize`], and when a segment does not run or cannot be kept.
pub fn by_segment(
    model: &Model,
    from: &Calibration,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Option<Done>> {
    let limits = Limits {
        bytes: settings.segment,
        sequential: settings.sequential,
    };
    let key = || calibrate::key(model, &from.settings);
    let plain = plain(model)?;
    let products = products(&plain.graph, settings);
    let segments = Segments::of(&plain, from.samples, &from.settings, &products, limits)?;
    if segments.all.len() < 2 {
        return Ok(None);
    }
    let found = Found::of(&plain, settings)?;
    let shelf = Shelf::new(from.stores, || {
        let own = Settings {
            threads: 0,
            ..settings.clone()
        };
        // Patterns of settings name nodes, which the key does not; versions may round otherwise.
        let version = env!("CARGO_PKG_VERSION");
        let each = found.sites.iter().map(|s| (s.weight, s.lies, s.scheme));
        let each: Vec<_> = each.collect();
        format!("{version} {} {own:?} {each:?}", key())
    });
    let ctx = Ctx::new(Isa::detect(), Threads::of(settings.threads));
    let mut run = Run {
        graph: &found.out.graph,
        sites: &found.sites,
        weights: by_weight(&found.sites).into_values().collect(),
        settings,
        segments: &segments,
        shelf: &shelf,
        rounding: Rounding::new(settings, &ctx),
        state: State::default(),
        progress,
    };
    for at in run.resumed()..segments.all.len() {
        run.segment(at)?;
    }
    let (state, scales) = (run.state, run.rounding.scales);
    let mut rounding = Rounding::new(settings, &ctx);
    rounding.scales = scales;
    let one = |graph: &Graph, number, sites: &[&Site]| {
        if !state.rounded.contains(&number) {
            return rounding.one(graph, sites, None);
        }
        let kept: Option<Kept> = shelf.take(&weight_name(number));
        kept.map(Kept::rounded).ok_or_else(lost)
    };
    let (out, changes) = found.written(settings, &rounding.scales, one, progress)?;
    Ok(Some((out, changes, segments.warnings(state.samples))))
}

/// What is known after a segment.
#[derive(Default, Serialize, Deserialize)]
struct State {
    /// Parts of the shelf that hold the values which later segments read.
    parts: usize,
    /// As many of the segment before, which are no longer needed.
    parts_before: usize,
    samples: u64,
    /// Values whose XᵀX was there.
    seen: BTreeSet<String>,
    /// XᵀX of weights that later segments multiply by too; `None` where some was empty.
    sums: BTreeMap<usize, Option<Vec<f32>>>,
    /// Scales of inputs, by the name of the value.
    scales: BTreeMap<String, Vec<f32>>,
    /// Numbers of the weights that are rounded.
    rounded: BTreeSet<usize>,
}

struct Run<'a> {
    /// The model that is written in the end.
    graph: &'a Graph,
    sites: &'a [Site],
    /// The sites of each weight, by its number.
    weights: Vec<Vec<&'a Site>>,
    settings: &'a Settings,
    segments: &'a Segments<'a>,
    shelf: &'a Shelf<'a>,
    rounding: Rounding<'a>,
    state: State,
    progress: &'a dyn Progress,
}

fn weight_name(number: usize) -> String {
    format!("weight {number}")
}

fn segment_name(at: usize) -> String {
    format!("segment {at}")
}

fn lost() -> Error {
    Error::io("a rounded weight is no longer in the cache").hint("run again")
}

impl<'a> Run<'a> {
    /// Takes up what an earlier run kept; the segment to go on with.
    fn resumed(&mut self) -> usize {
        let last = self.segments.all.len() - 1;
        for at in (0..=last).rev().filter(|_| self.shelf.is_kept()) {
            let Some(state) = self.shelf.get::<State>(&segment_name(at)) else {
                continue;
            };
            let is_there = |&n: &usize| self.shelf.get::<Kept>(&weight_name(n)).is_some();
            let values = at == last || self.shelf.has_values(at, state.parts);
            if values && state.rounded.iter().all(is_there) {
                let scales = state.scales.iter();
                let by_value =
                    scales.filter_map(|(name, s)| Some((self.graph.find_value(name)?, s.clone())));
                self.rounding.scales = by_value.collect();
                self.state = state;
                self.forget_before(at);
                return at + 1;
            }
        }
        0
    }

    /// Runs a segment, rounds what can be rounded then, and keeps that.
    fn segment(&mut self, at: usize) -> Result<()> {
        let mut part = self.segments.part(at);
        let sequential = self.settings.sequential;
        let aim = if sequential { Aim::Look } else { Aim::Both };
        if sequential {
            self.put_rounded(&mut part)?;
        }
        let run = |part: &Model, aim| self.segments.run(at, part, aim, self.shelf, self.progress);
        let (statistics, mut parts) = run(&part, aim)?;
        self.round(at, &statistics)?;
        self.state.samples = statistics.samples;
        drop(statistics);
        if sequential && at + 1 < self.segments.all.len() {
            self.put_rounded(&mut part)?;
            let run = self
                .segments
                .run(at, &part, Aim::Carry, self.shelf, self.progress);
            parts = run?.1;
        }
        self.state.parts_before = std::mem::replace(&mut self.state.parts, parts);
        if self.shelf.is_kept() {
            self.shelf.put(&segment_name(at), &self.state)?;
        }
        self.forget_before(at);
        Ok(())
    }

    /// Drops what only segment `at` needed.
    fn forget_before(&self, at: usize) {
        if let Some(cut) = at.checked_sub(1) {
            self.shelf.forget_values(cut, self.state.parts_before);
            self.shelf.forget(&segment_name(cut));
        }
    }

    /// Rounds the weights of which all XᵀX was seen with segment `at`.
    fn round(&mut self, at: usize, statistics: &Statistics) -> Result<()> {
        if self.settings.method.scales_inputs {
            self.find_scales(statistics)?;
        }
        self.state.seen.extend(statistics.grams.keys().cloned());
        let name = |v: &ValueId| self.graph.value(*v).name.clone();
        let is_new = |v: &ValueId| statistics.grams.contains_key(&name(v));
        let numbers = 0..self.weights.len();
        let due: Vec<usize> = numbers
            .filter(|&n| read_at(&self.weights[n]).iter().any(is_new))
            .collect();
        let (n, of) = (at + 1, self.segments.all.len());
        self.progress
            .start(&format!("round segment {n} of {of}"), due.len() as u64);
        for number in due {
            self.progress.check()?;
            self.round_one(number, statistics)?;
            self.progress.advance(1);
        }
        self.progress.finish();
        Ok(())
    }

    fn round_one(&mut self, number: usize, statistics: &Statistics) -> Result<()> {
        let sites = &self.weights[number];
        let reads = read_at(sites);
        let names = reads.iter().map(|v| &self.graph.value(*v).name);
        let names: Vec<&String> = names.collect();
        let products = |name: &str| statistics.gram(name).map(|g| &g.products[..]);
        if let [name] = names[..] {
            return self.keep(number, products(name));
        }
        for name in names.iter().filter(|n| statistics.grams.contains_key(**n)) {
            match (self.state.sums.get_mut(&number), products(name)) {
                (None, gram) => _ = self.state.sums.insert(number, gram.map(<[f32]>::to_vec)),
                (Some(Some(sum)), Some(gram)) => add(sum, gram),
                (Some(sum), _) => *sum = None,
            }
        }
        if names.iter().all(|n| self.state.seen.contains(*n)) {
            let sum = self.state.sums.remove(&number).flatten();
            return self.keep(number, sum.as_deref());
        }
        Ok(())
    }

    /// Rounds a weight and keeps it.
    fn keep(&mut self, number: usize, gram: Option<&[f32]>) -> Result<()> {
        let sites = &self.weights[number];
        let name = || format!("weight \"{}\"", self.graph.value(sites[0].weight).name);
        let one = self.rounding.one(self.graph, sites, gram).at(name)?;
        self.shelf.put(&weight_name(number), &Kept::of(one)?)?;
        self.state.rounded.insert(number);
        Ok(())
    }

    /// The scales of the values that were seen.
    fn find_scales(&mut self, statistics: &Statistics) -> Result<()> {
        for (v, sites) in scaled_together(self.sites) {
            let name = &self.graph.value(v).name;
            if !statistics.grams.contains_key(name) {
                continue;
            }
            self.progress.check()?;
            let gram = statistics.gram(name);
            let gram = gram.ok_or_else(|| unseen(self.graph, v))?;
            if let Some(s) = self.rounding.scales_of(self.graph, &sites, gram)? {
                self.state.scales.insert(name.clone(), s.clone());
                self.rounding.scales.insert(v, s);
            }
        }
        Ok(())
    }

    /// Puts the numbers that codes stand for in the place of the weights of a segment that are rounded
    /// by now. Tables, which need no XᵀX, are rounded here.
    fn put_rounded(&mut self, part: &mut Model) -> Result<()> {
        let there: Vec<(usize, Site)> = (self.weights.iter().enumerate())
            .flat_map(|(n, sites)| sites.iter().map(move |s| (n, **s)))
            .filter(|(_, site)| is_same(site, self.graph, &part.graph))
            .collect();
        let mut put: BTreeMap<(usize, ValueId), ValueId> = BTreeMap::new();
        for (number, site) in there {
            if read_at(&self.weights[number]).is_empty() && !self.state.rounded.contains(&number) {
                self.keep(number, None)?;
            }
            if !self.state.rounded.contains(&number) {
                continue;
            }
            let new = match put.get(&(number, site.weight)) {
                Some(&v) => v,
                None => {
                    let numbers = self.numbers(number)?;
                    let graph = &mut part.graph;
                    let name = graph.fresh_name(&weight_name(number));
                    let v = graph.add_constant(&name, numbers);
                    put.insert((number, site.weight), v);
                    v
                }
            };
            part.graph.set_input(site.node, site.input, Some(new));
        }
        Ok(())
    }

    /// The numbers of a rounded weight as its tensor has them, divided by the scales of its inputs.
    fn numbers(&self, number: usize) -> Result<Tensor> {
        let kept: Option<Kept> = self.shelf.get(&weight_name(number));
        let (rounded, WeightChange { dims: [n, k], .. }) =
            kept.map(Kept::rounded).ok_or_else(lost)?;
        let mut numbers = Rounded::numbers(&rounded);
        let site = self.weights[number][0];
        if let Some(scales) = site.reads.and_then(|v| self.rounding.scales.get(&v)) {
            for row in numbers.chunks_exact_mut(k.max(1)) {
                row.iter_mut().zip(scales).for_each(|(x, s)| *x /= s);
            }
        }
        if site.lies == Lies::InputsFirst {
            numbers = turned(&numbers, n, k);
        }
        let dims = self.graph.constant(site.weight).map(Tensor::dims);
        Tensor::from_vec(dims.unwrap_or(&[n, k]), numbers)
    }
}

/// True where a part of the float model has the node of the site with the same weight.
fn is_same(site: &Site, graph: &Graph, part: &Graph) -> bool {
    let node = |graph: &Graph, id: NodeId| {
        let node = graph.get_node(id)?;
        let weight = node.input(site.input)?;
        graph.constant(weight)?;
        Some((node.op.clone(), graph.value(weight).name.clone()))
    };
    let own = node(graph, site.node);
    own.is_some() && own == node(part, site.node)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use edgesmith_ir::{NoProgress, text};

    use super::super::{format, grams, method, quantize};
    use super::*;
    use crate::calibrate::Memory;
    use crate::quantize::Layer;
    use crate::quantize::testing::numbers;
    use crate::samples::InMemory;

    fn list(n: usize, seed: u32) -> String {
        let each = numbers(n, seed).into_iter().map(|x| format!("{x:?}"));
        each.collect::<Vec<_>>().join(",")
    }

    /// Products that depend on each other, one weight four times, a late use of the input, a body
    /// that reads from around itself, a shape that is computed, and an output in the middle.
    fn net() -> Model {
        net_with("")
    }

    /// With a setting of the Gemm.
    fn net_with(setting: &str) -> Model {
        let w = |name: &str, seed| format!("  {name}: f32[16,16] = {{{}}}\n", list(256, seed));
        let weights: String = ["wa", "wb", "wc", "wd", "tied"]
            .into_iter()
            .zip(1..)
            .map(|(name, seed)| w(name, seed))
            .collect();
        let source = format!(
            r#"
opset 21
graph net(x: f32[n,16]) -> (z, b) {{
{weights}  s: f32[16] = {{{}}}
  o: f32[16] = {{{}}}
  shape = Shape(x) {{name="shape"}}
  h = LayerNormalization(x, s, o) {{name="h"}}
  q = MatMul(h, wa) {{name="q"}}
  k = MatMul(h, wb) {{name="k"}}
  qk = Mul(q, k) {{name="qk"}}
  b = Relu(qk) {{name="b"}}
  t1 = MatMul(b, tied) {{name="t1"}}
  flat = Reshape(t1, shape) {{name="flat"}}
  r1 = Add(flat, x) {{name="r1"}}
  t2 = MatMul(r1, tied) {{name="t2"}}
  yes: bool[] = {{true}}
  chosen = If(yes) {{name="if", then_branch=graph yes() -> (y1) {{
    capture a: f32[n,16] = t2; capture b1: f32[n,16] = q; y1 = Add(a, b1)
  }}, else_branch=graph no() -> (y2) {{
    capture d: f32[n,16] = t2; y2 = Neg(d)
  }}}}
  t3 = MatMul(chosen, tied) {{name="t3"}}
  t4 = MatMul(h, tied) {{name="t4"}}
  t34 = Add(t3, t4) {{name="t34"}}
  c = Gemm(t34, wc) {{name="c"{setting}}}
  z = MatMul(c, wd) {{name="z"}}
}}
"#,
            list(16, 8),
            list(16, 9),
        );
        text::parse(&source).unwrap()
    }

    fn printed(model: &Model) -> String {
        text::print(model).unwrap()
    }

    fn samples() -> InMemory {
        let rows = Tensor::from_vec(&[40, 16], numbers(640, 77)).unwrap();
        InMemory {
            name: "x".into(),
            rows,
            labels: None,
        }
    }

    fn settings(method: &'static method::Method) -> Settings {
        let mut settings = Settings::new(method, 4);
        settings.scheme.group = 16;
        settings.threads = 1;
        settings
    }

    fn asked(model: &Model, settings: &Settings) -> calibrate::Settings {
        calibrate::Settings {
            only: Some(BTreeSet::new()),
            grams: grams(&model.graph, settings),
            threads: 1,
            ..calibrate::Settings::default()
        }
    }

    fn at_once(model: &Model, settings: &Settings) -> (Model, Changes) {
        let asked = asked(model, settings);
        let seen = calibrate::calibrate(model, &samples(), &asked, &NoProgress).unwrap();
        quantize(model, Some(&seen), settings, &NoProgress).unwrap()
    }

    fn cut(
        model: &Model,
        settings: &Settings,
        stores: Option<&dyn Stores>,
        progress: &dyn Progress,
    ) -> Result<Option<Done>> {
        let data = samples();
        let from = Calibration {
            samples: &data,
            settings: asked(model, settings),
            stores,
        };
        by_segment(model, &from, settings, progress)
    }

    #[test]
    fn whatever_the_segments_the_model_is_the_same() {
        let model = net();
        for method in [&method::GPTQ, &method::AWQ, &method::AWQ_GPTQ] {
            let mut settings = settings(method);
            let (wanted, changes) = at_once(&model, &settings);
            assert!(cut(&model, &settings, None, &NoProgress).unwrap().is_none());
            for bytes in [0, 20_000, 40_000] {
                settings.segment = bytes;
                let done = cut(&model, &settings, None, &NoProgress).unwrap().unwrap();
                assert_eq!(printed(&done.0), printed(&wanted), "{bytes}");
                assert_eq!(done.1, changes, "{bytes}");
                assert!(done.2.is_empty());
            }
        }
    }

    #[test]
    fn cuts_between_nodes_that_one_kernel_runs_change_nothing() {
        let w = |name: &str, seed| format!("  {name}: f32[16,16] = {{{}}}\n", list(256, seed));
        let weights: String = ["wa", "wb", "wc", "wd"]
            .into_iter()
            .zip(1..)
            .map(|(name, seed)| w(name, seed))
            .collect();
        let source = format!(
            "opset 21\ngraph g(x: f32[n,16]) -> (z) {{\n{weights}  o: f32[16] = {{{}}}\n  \
             a = MatMul(x, wa)\n  a1 = Add(a, o)\n  a2 = Sigmoid(a1)\n  b = MatMul(a2, wb)\n  \
             b1 = Add(b, o)\n  b2 = Add(b1, x)\n  b3 = Tanh(b2)\n  c = Gemm(b3, wc, o)\n  \
             c1 = Gelu(c)\n  c2 = Softmax(c1)\n  z = MatMul(c2, wd)\n}}\n",
            list(16, 9),
        );
        let model = text::parse(&source).unwrap();
        let mut settings = settings(&method::GPTQ);
        let (wanted, changes) = at_once(&model, &settings);
        settings.segment = 0;
        let done = cut(&model, &settings, None, &NoProgress).unwrap().unwrap();
        assert_eq!(printed(&done.0), printed(&wanted));
        assert_eq!(done.1, changes);
    }

    #[test]
    fn segments_without_a_node_that_runs_are_segments() {
        let source = format!(
            "opset 21\ngraph g(x: f32[n,16]) -> (a, b) {{\n  wa: f32[16,16] = {{{}}}\n  \
             wb: f32[16,16] = {{{}}}\n  a = MatMul(x, wa) {{name=\"a\"}}\n  \
             b = MatMul(x, wb) {{name=\"b\"}}\n}}\n",
            list(256, 1),
            list(256, 2),
        );
        let model = text::parse(&source).unwrap();
        let mut settings = settings(&method::GPTQ);
        let (wanted, _) = at_once(&model, &settings);
        settings.segment = 0;
        let done = cut(&model, &settings, None, &NoProgress).unwrap().unwrap();
        assert_eq!(printed(&done.0), printed(&wanted));
    }

    #[test]
    fn what_only_the_last_products_read_does_not_cross() {
        let source = format!(
            "opset 21\ngraph g(x: f32[n,16]) -> (z) {{\n  wa: f32[16,16] = {{{}}}\n  \
             wb: f32[16,16] = {{{}}}\n  a = MatMul(x, wa) {{name=\"a\"}}\n  \
             r = Relu(x) {{name=\"r\"}}\n  z = Gemm(r, wb, a) {{name=\"z\"}}\n}}\n",
            list(256, 1),
            list(256, 2),
        );
        let model = text::parse(&source).unwrap();
        let mut settings = settings(&method::GPTQ);
        settings.format = &format::QDQ;
        let (wanted, _) = at_once(&model, &settings);
        settings.segment = 0;
        let done = cut(&model, &settings, None, &NoProgress).unwrap().unwrap();
        assert_eq!(printed(&done.0), printed(&wanted));
    }

    #[test]
    fn inputs_are_those_of_rounded_weights_where_that_is_asked_for() {
        let model = net();
        let mut settings = settings(&method::GPTQ);
        let (plain, _) = at_once(&model, &settings);
        settings.sequential = true;
        let done = cut(&model, &settings, None, &NoProgress).unwrap().unwrap();
        assert_ne!(printed(&done.0), printed(&plain));
        settings.segment = 0;
        let finer = cut(&model, &settings, None, &NoProgress).unwrap().unwrap();
        assert_eq!(printed(&done.0), printed(&finer.0));
    }

    #[test]
    fn a_factor_of_a_gemm_goes_into_its_weight_before_xtx_is_asked_for() {
        let near = |a: &[f64], b: &[f64]| {
            let apart = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-4 * a;
            assert_eq!((a.len(), b.len()), (5, 5));
            assert!(!a.iter().zip(b).any(apart), "{a:?} {b:?}");
        };
        let errors = |changes: &Changes| {
            let mut weights = changes.weights.clone();
            weights.sort_by(|a, b| a.weight.cmp(&b.weight));
            let errors = weights.iter().filter_map(|w| w.output_error);
            errors.collect::<Vec<_>>()
        };
        let (plain, halved) = (net(), net_with(", alpha=0.5"));
        let mut settings = settings(&method::GPTQ);
        let whole = |model| errors(&at_once(model, &settings).1);
        near(&whole(&halved), &whole(&plain));
        settings.segment = 0;
        for sequential in [false, true] {
            settings.sequential = sequential;
            let done = |model| cut(model, &settings, None, &NoProgress).unwrap().unwrap().1;
            near(&errors(&done(&halved)), &errors(&done(&plain)));
        }
    }

    /// Says stop when it was asked so often.
    struct Until(AtomicU64);

    impl Progress for Until {
        fn start(&self, _: &str, _: u64) {}
        fn advance(&self, _: u64) {}
        fn finish(&self) {}
        fn cancelled(&self) -> bool {
            let before = |n: u64| n.checked_sub(1);
            let left = self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, before);
            left.is_err()
        }
    }

    #[test]
    fn a_run_that_was_broken_off_anywhere_goes_on_and_gives_the_same() {
        let model = net();
        for sequential in [false, true] {
            let mut settings = settings(&method::AWQ_GPTQ);
            settings.segment = 20_000;
            settings.sequential = sequential;
            let whole = cut(&model, &settings, None, &NoProgress).unwrap().unwrap();
            let memory = Memory::default();
            let mut times = 0;
            let last = loop {
                times += 1;
                let until = Until(AtomicU64::new(60 + times));
                match cut(&model, &settings, Some(&memory), &until) {
                    Ok(done) => break done.unwrap(),
                    Err(e) => assert!(e.to_string().contains("cancel"), "{e}"),
                }
                assert!(times < 100);
            };
            assert!(times > 2, "{times}");
            assert_eq!(printed(&last.0), printed(&whole.0));
            assert_eq!(last.1, whole.1);
            let values = memory.0.borrow();
            assert!(values.keys().all(|k| !k.contains("cut")), "values are left");
        }
    }

    #[test]
    fn what_was_kept_of_other_bits_is_not_taken() {
        let mut settings = settings(&method::GPTQ);
        settings.segment = 0;
        settings.layers = vec![Layer {
            pattern: "q".into(),
            bits: Some(8),
            group: None,
        }];
        let (model, memory) = (net(), Memory::default());
        cut(&model, &settings, Some(&memory), &NoProgress).unwrap();
        // The other node has the name now.
        let mut other = model.clone();
        for (id, name) in [("q", "k"), ("k", "q")].map(|(from, to)| {
            let (id, _) = model.graph.nodes().find(|(_, n)| n.name == from).unwrap();
            (id, to)
        }) {
            other.graph.node_mut(id).name = name.into();
        }
        let fresh = cut(&other, &settings, None, &NoProgress).unwrap().unwrap();
        let kept = cut(&other, &settings, Some(&memory), &NoProgress).unwrap();
        assert_eq!(printed(&kept.unwrap().0), printed(&fresh.0));
    }

    #[test]
    fn a_weight_that_is_lost_or_damaged_is_made_again() {
        let model = net();
        let mut settings = settings(&method::GPTQ);
        settings.segment = 0;
        let memory = Memory::default();
        let stores: Option<&dyn Stores> = Some(&memory);
        let whole = cut(&model, &settings, stores, &NoProgress)
            .unwrap()
            .unwrap();
        let names: Vec<String> = memory.0.borrow().keys().cloned().collect();
        assert!(names.iter().any(|n| n.contains("weight 0")));
        for name in names {
            *memory
                .0
                .borrow_mut()
                .get_mut(&name)
                .unwrap()
                .last_mut()
                .unwrap() ^= 1;
            let again = cut(&model, &settings, stores, &NoProgress)
                .unwrap()
                .unwrap();
            assert_eq!(printed(&again.0), printed(&whole.0));
        }
    }
}

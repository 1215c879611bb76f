//! Rounding weights one after the other, and writing them into the model.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Graph, Model, Progress, Result, Tensor, ValueId};
use edgesmith_kernels::{Ctx, gemm};

use super::blocks::Blocks;
use super::format::Writer;
use super::matrix::{Lies, Matrix};
use super::method::{self, Job, Rounded};
use super::sites::{Site, Use};
use super::{Settings, awq, range, rtn};
use crate::calibrate::{Gram, Statistics};
use crate::quantize::changes::WeightChange;

/// A weight that was rounded, and what became of it.
pub type Change = (Rounded, WeightChange);

/// Numbers of a part of a weight that is rounded in parts: 4 MiB.
const PART: usize = 1 << 20;

/// The fewest rows of a part: as many as a thread takes at once.
const LEAST_ROWS: usize = 8;

/// Weights on their way.
pub struct Rounding<'a> {
    pub settings: &'a Settings,
    pub ctx: &'a Ctx,
    /// Scales of inputs, by the value that weights read.
    pub scales: BTreeMap<ValueId, Vec<f32>>,
}

/// The values that are read at these sites, each once, in the order in which products of the model
/// first read them: that in which segments see them.
pub fn read_at(sites: &[&Site]) -> Vec<ValueId> {
    let reads = sites.iter().filter_map(|s| Some((s.since, s.reads?)));
    let reads: BTreeSet<(usize, ValueId)> = reads.collect();
    reads.into_iter().map(|(_, v)| v).collect()
}

/// XᵀX of what is read at these sites: the sum where values differ.
pub fn gram<'s>(
    graph: &Graph,
    sites: &[&Site],
    statistics: &'s Statistics,
) -> Option<Cow<'s, [f32]>> {
    let mut sum: Option<Cow<[f32]>> = None;
    for v in read_at(sites) {
        let products = &statistics.gram(&graph.value(v).name)?.products;
        match &mut sum {
            None => sum = Some(Cow::Borrowed(products)),
            Some(sum) => add(sum.to_mut(), products),
        }
    }
    sum
}

/// Adds numbers one by one.
pub fn add(sum: &mut [f32], more: &[f32]) {
    sum.iter_mut().zip(more).for_each(|(s, p)| *s += p);
}

/// The sites at which each value is read that weights share scales of: those whose weight multiplies
/// nothing else.
pub fn scaled_together(sites: &[Site]) -> BTreeMap<ValueId, Vec<&Site>> {
    let shared = by_weight(sites);
    let mut readers: BTreeMap<ValueId, Vec<&Site>> = BTreeMap::new();
    for site in sites {
        let alone = shared[&(site.weight, site.lies)]
            .iter()
            .all(|s| s.reads == site.reads);
        if let Some(v) = site.reads.filter(|_| alone && site.does == Use::Product) {
            readers.entry(v).or_default().push(site);
        }
    }
    readers
}

/// Writes one weight after the other into the model, as `one` rounds it, which is told its number:
/// memory holds the codes of one.
pub fn write(
    model: &mut Model,
    sites: &[Site],
    settings: &Settings,
    mut one: impl FnMut(&Graph, usize, &[&Site]) -> Result<Change>,
    progress: &dyn Progress,
) -> Result<Vec<WeightChange>> {
    let by_weight = by_weight(sites);
    let numbers = |graph: &Graph, s: &Site| graph.constant(s.weight).map_or(0, Tensor::count);
    let all = by_weight
        .values()
        .map(|s| numbers(&model.graph, s[0]))
        .sum::<usize>();
    progress.start("round weights", all as u64);
    let mut writer = Writer::new(model);
    let mut changes = Vec::new();
    for (number, (key, sites)) in by_weight.into_iter().enumerate() {
        progress.check()?;
        let name = writer.model.graph.value(key.0).name.clone();
        let one = one(&writer.model.graph, number, &sites);
        let (rounded, mut change) = one.at(|| format!("weight \"{name}\""))?;
        let count = numbers(&writer.model.graph, sites[0]);
        for site in sites {
            let node = writer.model.graph.node(site.node).name.clone();
            let written = (settings.format.write)(&mut writer, site, &rounded);
            written.at(|| format!("node \"{node}\""))?;
            change.nodes.push(node);
        }
        change.bits = writer.bits[&key] as f64 / count.max(1) as f64;
        changes.push(change);
        progress.advance(count as u64);
    }
    progress.finish();
    Ok(changes)
}

impl<'a> Rounding<'a> {
    /// Without scales of inputs.
    pub fn new(settings: &'a Settings, ctx: &'a Ctx) -> Self {
        Self {
            settings,
            ctx,
            scales: BTreeMap::new(),
        }
    }

    /// The scales of the inputs that weights of one value share.
    pub fn find_scales(
        &self,
        graph: &Graph,
        sites: &[Site],
        statistics: Option<&Statistics>,
        progress: &dyn Progress,
    ) -> Result<BTreeMap<ValueId, Vec<f32>>> {
        let readers = scaled_together(sites);
        progress.start("scale inputs", readers.len() as u64);
        let mut scales = BTreeMap::new();
        for (v, sites) in readers {
            progress.check()?;
            let gram = statistics.and_then(|s| s.gram(&graph.value(v).name));
            let gram = gram.ok_or_else(|| unseen(graph, v))?;
            scales.extend(self.scales_of(graph, &sites, gram)?.map(|s| (v, s)));
            progress.advance(1);
        }
        progress.finish();
        Ok(scales)
    }

    /// The scales of the inputs of these sites, which read one value.
    pub fn scales_of(
        &self,
        graph: &Graph,
        sites: &[&Site],
        gram: &Gram,
    ) -> Result<Option<Vec<f32>>> {
        let weights = sites.iter().map(|s| matrix_of(graph, s));
        let weights = weights.collect::<Result<Vec<_>>>()?;
        let weights: Vec<&Matrix> = weights.iter().collect();
        let scheme = sites[0].scheme;
        Ok(awq::scales(&weights, gram, scheme, self.settings, self.ctx))
    }

    /// Rounds one weight, with XᵀX of what it multiplies. Tables, which multiply nothing, are rounded
    /// to nearest; but for plain rounding with the range of the least error.
    pub fn one(&self, graph: &Graph, sites: &[&Site], gram: Option<&[f32]>) -> Result<Change> {
        let scales = sites[0].reads.and_then(|v| self.scales.get(&v));
        let is_table = sites.iter().any(|s| s.does == Use::Table);
        let by_rows = is_table || self.settings.method.by_rows;
        if by_rows && gram.is_none() && scales.is_none() {
            return self.in_parts(graph, sites[0], is_table, PART);
        }
        let plain = matrix_of(graph, sites[0])?;
        let weight = scales.map_or(Cow::Borrowed(&plain), |s| Cow::Owned(plain.scaled(s)));
        let hessian = match (gram, scales) {
            (Some(gram), Some(s)) => Some(Cow::Owned(unscaled(gram, s))),
            _ => gram.map(Cow::Borrowed),
        };
        let job = self.job(&weight, hessian.as_deref(), sites[0]);
        let rounded = self.rounded(&job, is_table)?;
        let report = self.report(graph, sites[0], &plain, &rounded, scales, gram);
        Ok((rounded, report))
    }

    /// Rounds a weight by its numbers alone, some rows of about `most` numbers after the other:
    /// memory holds the numbers of those.
    pub(super) fn in_parts(
        &self,
        graph: &Graph,
        site: &Site,
        is_table: bool,
        most: usize,
    ) -> Result<Change> {
        let t = tensor_of(graph, site)?;
        let [n, k] = Matrix::size(t, site.lies);
        let rows = (most / k.max(1)).max(LEAST_ROWS);
        let (mut all, mut squares) = (None::<Blocks>, Squares::default());
        for part in 0..n.div_ceil(rows).max(1) {
            let first = part * rows;
            let weight = Matrix::part(t, site.lies, first..n.min(first + rows))?;
            let rounded = self.rounded(&self.job(&weight, None, site), is_table)?;
            let delta = apart(&weight.data, rounded.numbers());
            squares.add(&weight.data, &delta);
            let Rounded::Blocks(mut blocks) = rounded else {
                return Err(Error::internal(
                    "what is rounded by rows has codes in blocks",
                ));
            };
            match &mut all {
                Some(all) => all.append(blocks),
                None => {
                    blocks.codes.reserve_exact(n * k - blocks.codes.len());
                    all = Some(blocks);
                }
            }
        }
        let all = all.ok_or_else(|| Error::internal("there is one part at least"))?;
        let change = change(graph, site, [n, k], &squares);
        Ok((Rounded::Blocks(all), change))
    }

    fn job<'j>(&'j self, weight: &'j Matrix, hessian: Option<&'j [f32]>, site: &Site) -> Job<'j> {
        Job {
            weight,
            hessian,
            scheme: site.scheme,
            settings: self.settings,
            ctx: self.ctx.clone(),
        }
    }

    fn rounded(&self, job: &Job, is_table: bool) -> Result<Rounded> {
        if is_table && self.settings.method.name != method::RTN.name {
            let grid = |_, w: &[f32]| range::least_error(w, |_| 1.0, job.scheme);
            return Ok(Rounded::Blocks(rtn::by_blocks(job, grid)));
        }
        (self.settings.method.round)(job)
    }

    fn report(
        &self,
        graph: &Graph,
        site: &Site,
        weight: &Matrix,
        rounded: &Rounded,
        scales: Option<&Vec<f32>>,
        gram: Option<&[f32]>,
    ) -> WeightChange {
        let mut numbers = rounded.numbers();
        for row in numbers.chunks_exact_mut(weight.k) {
            row.iter_mut()
                .zip(scales.into_iter().flatten())
                .for_each(|(x, s)| *x /= s);
        }
        let delta = apart(&weight.data, numbers);
        let mut squares = Squares::default();
        squares.add(&weight.data, &delta);
        let mut change = change(graph, site, [weight.n, weight.k], &squares);
        if let Some(gram) = gram {
            let k = weight.k;
            let gram = gemm::PackedF32::new(self.ctx, gram, gemm::Order::KN, k, k);
            let energy = |m: &[f32]| awq::energy(m, weight.n, &gram, self.ctx);
            let whole = energy(&weight.data).max(f64::MIN_POSITIVE);
            change.output_error = Some(energy(&delta) / whole);
            drop(delta);
            let job = self.job(weight, None, site);
            let nearest = rtn::by_blocks(&job, |_, w| range::whole(w, job.scheme));
            let nearest = apart(&weight.data, nearest.numbers());
            change.output_error_of_rounding = Some(energy(&nearest) / whole);
        }
        change
    }
}

/// The sums of squares of a weight and of what rounding took from it.
#[derive(Default)]
struct Squares {
    whole: f64,
    lost: f64,
}

impl Squares {
    fn add(&mut self, weight: &[f32], delta: &[f32]) {
        let sum = |from, d: &[f32]| d.iter().fold(from, |sum, &x| sum + f64::from(x).powi(2));
        self.whole = sum(self.whole, weight);
        self.lost = sum(self.lost, delta);
    }
}

/// What became of a weight that was rounded elsewhere.
pub fn known(graph: &Graph, site: &Site, blocks: &Blocks) -> Result<Change> {
    let weight = matrix_of(graph, site)?;
    let mut squares = Squares::default();
    squares.add(&weight.data, &apart(&weight.data, blocks.numbers()));
    let change = change(graph, site, [weight.n, weight.k], &squares);
    Ok((Rounded::Blocks(blocks.clone()), change))
}

/// `weight − numbers`.
fn apart(weight: &[f32], mut numbers: Vec<f32>) -> Vec<f32> {
    numbers
        .iter_mut()
        .zip(weight)
        .for_each(|(x, w)| *x = w - *x);
    numbers
}

/// What became of a weight of `dims` rows and columns, but for its nodes and bits.
fn change(graph: &Graph, site: &Site, dims: [usize; 2], squares: &Squares) -> WeightChange {
    WeightChange {
        weight: graph.value(site.weight).name.clone(),
        nodes: Vec::new(),
        dims,
        bits: 0.0,
        sqnr_db: 10.0 * (squares.whole / squares.lost).log10(),
        output_error: None,
        output_error_of_rounding: None,
    }
}

/// `H[i][j] / (s[i] s[j])`: of inputs that were divided by `s`.
fn unscaled(gram: &[f32], s: &[f32]) -> Vec<f32> {
    let k = s.len();
    let entry = |(at, h): (usize, &f32)| h / (s[at / k] * s[at % k]);
    gram.iter().enumerate().map(entry).collect()
}

/// What is said where XᵀX of a value is missing.
pub fn unseen(graph: &Graph, v: ValueId) -> Error {
    let name = &graph.value(v).name;
    Error::invalid(format!("calibration saw nothing of \"{name}\""))
}

/// The sites of each weight, weights in the order of their values.
pub fn by_weight(sites: &[Site]) -> BTreeMap<(ValueId, Lies), Vec<&Site>> {
    let mut all: BTreeMap<_, Vec<&Site>> = BTreeMap::new();
    for site in sites {
        all.entry((site.weight, site.lies)).or_default().push(site);
    }
    all
}

/// The weight of a site as a matrix.
pub fn matrix_of(graph: &Graph, site: &Site) -> Result<Matrix> {
    Matrix::of(tensor_of(graph, site)?, site.lies)
}

fn tensor_of<'g>(graph: &'g Graph, site: &Site) -> Result<&'g Tensor> {
    let t = graph.constant(site.weight);
    t.ok_or_else(|| Error::internal("the weight of a site is constant"))
}

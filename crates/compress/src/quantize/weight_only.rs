//! Weights alone in 2, 3, 4 or 8 bits, in blocks: activations stay in float.
//!
//! A weight is rounded by a [`method`], to codes in [`blocks`] or of a table ([`nf4`]), and written
//! in a [`format`]. XᵀX of what it multiplies comes from calibration ([`grams`] says of which
//! values).

use std::collections::BTreeMap;

use edgesmith_ir::error::At;
use edgesmith_ir::{Error, Graph, Model, NodeId, Progress, Result, ValueId};
use edgesmith_kernels::{Ctx, Isa, Threads, gemm};
use edgesmith_passes::convert_opset;

use super::changes::{Changes, Fate, NodeChange};
use crate::calibrate::Statistics;

pub mod awq;
pub mod blocks;
mod factor;
pub mod format;
pub mod gptq;
pub mod hqq;
pub mod matrix;
pub mod method;
pub mod nf4;
mod range;
pub mod rtn;
mod scale;
mod sites;

use blocks::Scheme;
use format::{Format, Writer};
use matrix::{Lies, Matrix};
use method::{Job, Method, Rounded};
pub use sites::grams;
use sites::{Site, Use};

/// What weight-only quantisation can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How weights are rounded.
    pub method: &'static Method,
    /// The form in which they are written.
    pub format: &'static Format,
    /// Bits and blocks.
    pub scheme: Scheme,
    /// Grids are searched for that cost less than the whole range.
    pub search_range: bool,
    /// GPTQ: the share of the mean of the diagonal of XᵀX that is added to it.
    pub damping: f64,
    /// GPTQ: columns in the order of their share in the inputs, with static groups.
    pub act_order: bool,
    /// NF4: the largest magnitudes of blocks in 8 bits.
    pub double_quantize: bool,
    /// Tables of embeddings are rounded too.
    pub embeddings: bool,
    /// Nodes that stay as they are, by name; `*` stands for any text.
    pub exclude: Vec<String>,
    /// Threads; 0 is one for each core.
    pub threads: usize,
}

impl Settings {
    /// Settings of a method for codes of `bits` bits.
    pub fn new(method: &'static Method, bits: usize) -> Self {
        let is_table = method.name == method::NF4.name;
        Self {
            method,
            format: if is_table {
                &format::BNB4
            } else {
                &format::MATMULNBITS
            },
            scheme: Scheme {
                bits,
                group: if is_table { 64 } else { 128 },
                symmetric: false,
            },
            search_range: false,
            damping: 0.01,
            act_order: false,
            double_quantize: false,
            embeddings: true,
            exclude: Vec::new(),
            threads: 0,
        }
    }

    /// # Errors
    /// When bits or blocks are not done.
    fn check(&self) -> Result<()> {
        let Scheme { bits, group, .. } = self.scheme;
        if ![2, 3, 4, 8].contains(&bits) {
            return Err(Error::usage(format!("weights of {bits} bits are not done"))
                .hint("2, 3, 4 and 8 are"));
        }
        if group != 0 && !(group.is_power_of_two() && (16..=256).contains(&group)) {
            return Err(
                Error::usage(format!("blocks of {group} numbers are not done"))
                    .hint("16, 32, 64, 128 and 256 are, and whole rows"),
            );
        }
        let is_table = self.method.name == method::NF4.name;
        if is_table != (self.format.name == format::BNB4.name) {
            let (method, format) = (self.method.name, self.format.name);
            return Err(Error::usage(format!("{method} is not written as {format}"))
                .hint("nf4 is written as bnb4, and nothing else is"));
        }
        Ok(())
    }
}

/// What became of one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightReport {
    /// The name of the constant.
    pub weight: String,
    /// The nodes that read it.
    pub nodes: Vec<String>,
    /// Outputs and inputs.
    pub dims: [usize; 2],
    /// Bits written for a number: codes, scales and zero points.
    pub bits: f64,
    /// Signal to noise of the numbers, in dB.
    pub sqnr_db: f64,
    /// `‖X(W − Ŵ)ᵀ‖² / ‖XWᵀ‖²`, where the inputs were seen.
    pub output_error: Option<f64>,
    /// The same for rounding to nearest in the same blocks.
    pub output_error_of_rounding: Option<f64>,
}

/// Rounds the weights of a float model. Values keep their names.
///
/// # Errors
/// When the settings do not fit each other, the method needs XᵀX and there is none, the opset
/// cannot be raised, nothing can be rounded, or the user cancels.
pub fn quantize(
    model: &Model,
    statistics: Option<&Statistics>,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<(Model, Changes, Vec<WeightReport>)> {
    settings.check()?;
    let mut out = model.clone();
    if out.opset() < settings.format.opset {
        convert_opset(&mut out, settings.format.opset)?;
    }
    super::plain_gemm(&mut out.graph)?;
    let (mut sites, mut left) = sites::find(&out.graph, settings);
    if settings.method.name == method::NF4.name {
        sites.retain(|s| {
            let is_product = s.does == Use::Product;
            if !is_product {
                left.insert(s.node, "NF4 has no form for it".into());
            }
            is_product
        });
    }
    if sites.is_empty() {
        return Err(
            Error::unsupported("no weight of the model can be rounded alone")
                .hint("MatMul, Gemm, Gather and 1x1 Conv with constant f32 weights can be"),
        );
    }
    let mut changes = Changes {
        nodes: account(model, &left),
        weight_bytes_before: super::constant_bytes(&model.graph),
        ..Changes::default()
    };
    let ctx = Ctx::new(Isa::detect(), Threads::of(settings.threads));
    let mut rounding = Rounding {
        statistics,
        settings,
        ctx: &ctx,
        scales: BTreeMap::new(),
    };
    if settings.method.scales_inputs {
        rounding.scales = rounding.find_scales(&out.graph, &sites, progress)?;
        scale::insert(&mut out.graph, &mut sites, &rounding.scales);
        changes.narrowing_nodes = 0;
    }
    let rounded = rounding.round(&out.graph, &sites, progress)?;
    let mut reports: BTreeMap<(ValueId, Lies), WeightReport> = BTreeMap::new();
    let mut writer = Writer::new(&mut out);
    for site in &sites {
        let key = (site.weight, site.lies);
        let (weight, report) = &rounded[&key];
        let node = writer.model.graph.node(site.node).name.clone();
        (settings.format.write)(&mut writer, site, weight).at(|| format!("node \"{node}\""))?;
        reports
            .entry(key)
            .or_insert_with(|| report.clone())
            .nodes
            .push(node);
    }
    for (key, report) in &mut reports {
        report.bits = writer.bits[key] as f64 / report.dims.iter().product::<usize>() as f64;
    }
    super::drop_unused(&mut out.graph);
    changes.weight_bytes_after = super::constant_bytes(&out.graph);
    Ok((out, changes, reports.into_values().collect()))
}

fn account(model: &Model, left: &BTreeMap<NodeId, String>) -> Vec<NodeChange> {
    let fate = |id| {
        left.get(&id)
            .map_or(Fate::Converted, |why| Fate::Left(why.clone()))
    };
    let change = |(id, node): (NodeId, &edgesmith_ir::Node)| NodeChange {
        name: node.name.clone(),
        op: node.op.clone(),
        fate: fate(id),
    };
    model.graph.nodes().map(change).collect()
}

type RoundedWeights = BTreeMap<(ValueId, Lies), (Rounded, WeightReport)>;

/// Weights on their way.
struct Rounding<'a> {
    statistics: Option<&'a Statistics>,
    settings: &'a Settings,
    ctx: &'a Ctx,
    /// Scales of inputs, by the value that weights read.
    scales: BTreeMap<ValueId, Vec<f32>>,
}

impl Rounding<'_> {
    /// XᵀX of what is read at these sites: the sum where values differ.
    fn gram(&self, graph: &Graph, sites: &[&Site]) -> Option<Vec<f32>> {
        let statistics = self.statistics?;
        let mut reads: Vec<ValueId> = sites.iter().filter_map(|s| s.reads).collect();
        reads.dedup();
        let mut sum: Option<Vec<f32>> = None;
        for v in reads {
            let gram = statistics.gram(&graph.value(v).name)?;
            match &mut sum {
                None => sum = Some(gram.products.clone()),
                Some(sum) => sum
                    .iter_mut()
                    .zip(&gram.products)
                    .for_each(|(s, p)| *s += p),
            }
        }
        sum
    }

    /// The scales of the inputs that weights of one value share.
    fn find_scales(
        &self,
        graph: &Graph,
        sites: &[Site],
        progress: &dyn Progress,
    ) -> Result<BTreeMap<ValueId, Vec<f32>>> {
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
        progress.start("scale inputs", readers.len() as u64);
        let mut scales = BTreeMap::new();
        for (v, sites) in readers {
            progress.check()?;
            let gram = self.statistics.and_then(|s| s.gram(&graph.value(v).name));
            let gram = gram.ok_or_else(|| unseen(graph, v))?;
            let weights = sites
                .iter()
                .map(|s| matrix_of(graph, s))
                .collect::<Result<Vec<_>>>()?;
            let weights: Vec<&Matrix> = weights.iter().collect();
            let found = awq::scales(
                &weights,
                gram,
                self.settings.scheme,
                self.settings,
                self.ctx,
            );
            scales.extend(found.map(|s| (v, s)));
            progress.advance(1);
        }
        progress.finish();
        Ok(scales)
    }

    fn round(
        &self,
        graph: &Graph,
        sites: &[Site],
        progress: &dyn Progress,
    ) -> Result<RoundedWeights> {
        let by_weight = by_weight(sites);
        let numbers = |s: &Site| graph.constant(s.weight).map_or(0, |t| t.count() as u64);
        progress.start(
            "round weights",
            by_weight.values().map(|s| numbers(s[0])).sum(),
        );
        let mut rounded = RoundedWeights::new();
        for (key, sites) in by_weight {
            progress.check()?;
            let one = self.one(graph, &sites);
            let place = || format!("weight \"{}\"", graph.value(key.0).name);
            rounded.insert(key, one.at(place)?);
            progress.advance(numbers(sites[0]));
        }
        progress.finish();
        Ok(rounded)
    }

    /// Rounds one weight. Tables, which multiply nothing, are rounded to nearest; but for plain
    /// rounding with the range of the least error.
    fn one(&self, graph: &Graph, sites: &[&Site]) -> Result<(Rounded, WeightReport)> {
        let plain = matrix_of(graph, sites[0])?;
        let scales = sites[0].reads.and_then(|v| self.scales.get(&v));
        let weight = scales.map_or_else(|| plain.clone(), |s| plain.scaled(s));
        let gram = self.gram(graph, sites);
        let hessian = match (&gram, scales) {
            (Some(gram), Some(s)) => Some(unscaled(gram, s)),
            _ => gram.clone(),
        };
        let job = Job {
            weight: &weight,
            hessian: hessian.as_deref(),
            scheme: self.settings.scheme,
            settings: self.settings,
            ctx: self.ctx.clone(),
        };
        let is_table = sites.iter().any(|s| s.does == Use::Table);
        let rounded = match is_table && self.settings.method.name != method::RTN.name {
            true => Rounded::Blocks(rtn::by_blocks(&job, |_, w| {
                range::least_error(w, |_| 1.0, job.scheme)
            })),
            false => (self.settings.method.round)(&job)?,
        };
        let report = self.report(graph, sites[0], &plain, &rounded, scales, gram.as_deref())?;
        Ok((rounded, report))
    }

    fn report(
        &self,
        graph: &Graph,
        site: &Site,
        weight: &Matrix,
        rounded: &Rounded,
        scales: Option<&Vec<f32>>,
        gram: Option<&[f32]>,
    ) -> Result<WeightReport> {
        let mut numbers = rounded.numbers();
        for row in numbers.chunks_exact_mut(weight.k) {
            row.iter_mut()
                .zip(scales.into_iter().flatten())
                .for_each(|(x, s)| *x /= s);
        }
        let nearest = rtn::by_blocks(
            &Job {
                weight,
                hessian: None,
                scheme: self.settings.scheme,
                settings: self.settings,
                ctx: self.ctx.clone(),
            },
            |_, w| range::whole(w, self.settings.scheme),
        );
        let packed =
            gram.map(|g| gemm::PackedF32::new(self.ctx, g, gemm::Order::KN, weight.k, weight.k));
        let apart = |other: &[f32]| -> Vec<f32> {
            weight.data.iter().zip(other).map(|(a, b)| a - b).collect()
        };
        let error = |delta: &[f32]| {
            let packed = packed.as_ref()?;
            let of = |m: &[f32]| awq::energy(m, weight.n, packed, self.ctx);
            Some(of(delta) / of(&weight.data).max(f64::MIN_POSITIVE))
        };
        let delta = apart(&numbers);
        let square = |d: &[f32]| d.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        Ok(WeightReport {
            weight: graph.value(site.weight).name.clone(),
            nodes: Vec::new(),
            dims: [weight.n, weight.k],
            bits: 0.0,
            sqnr_db: 10.0 * (square(&weight.data) / square(&delta)).log10(),
            output_error: error(&delta),
            output_error_of_rounding: error(&apart(&nearest.numbers())),
        })
    }
}

/// `H[i][j] / (s[i] s[j])`: of inputs that were divided by `s`.
fn unscaled(gram: &[f32], s: &[f32]) -> Vec<f32> {
    let k = s.len();
    let entry = |(at, h): (usize, &f32)| h / (s[at / k] * s[at % k]);
    gram.iter().enumerate().map(entry).collect()
}

fn unseen(graph: &Graph, v: ValueId) -> Error {
    let name = &graph.value(v).name;
    Error::invalid(format!("calibration saw nothing of \"{name}\""))
}

fn by_weight(sites: &[Site]) -> BTreeMap<(ValueId, Lies), Vec<&Site>> {
    let mut all: BTreeMap<_, Vec<&Site>> = BTreeMap::new();
    for site in sites {
        all.entry((site.weight, site.lies)).or_default().push(site);
    }
    all
}

fn matrix_of(graph: &Graph, site: &Site) -> Result<Matrix> {
    let t = graph.constant(site.weight);
    let t = t.ok_or_else(|| Error::internal("the weight of a site is constant"))?;
    Matrix::of(t, site.lies)
}

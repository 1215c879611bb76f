//! What weights cost with each number of bits: bytes, and what rounding to nearest takes from their
//! outputs.

use edgesmith_ir::{Model, Progress, Result, Tensor};
use edgesmith_kernels::{Ctx, Isa, Threads, gemm};

use super::blocks::Scheme;
use super::method::Job;
use super::rounding::{Rounding, by_weight, gram, matrix_of};
use super::sites::Site;
use super::{Settings, awq, method, range, rtn, sites};
use crate::calibrate::Statistics;

/// What a weight costs with so many bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Priced {
    /// The name of the constant.
    pub weight: String,
    /// The nodes that read it.
    pub nodes: Vec<String>,
    /// Numbers in it.
    pub numbers: u64,
    /// Bits of a code.
    pub bits: usize,
    /// About how many bytes it takes.
    pub bytes: u64,
    /// `tr(ΔW H ΔWᵀ) / tr(W H Wᵀ)` of rounding to nearest, `H = XᵀX`; without `H`, `‖ΔW‖² / ‖W‖²`.
    pub error: f64,
}

/// What each weight costs with each of so many bits, weight by weight.
///
/// # Errors
/// When a weight cannot be read, or the user cancels.
pub fn prices(
    model: &Model,
    statistics: Option<&Statistics>,
    settings: &Settings,
    bits: &[usize],
    progress: &dyn Progress,
) -> Result<Vec<Priced>> {
    let mut model = model.clone();
    crate::quantize::plain_gemm(&mut model.graph)?;
    let (sites, _) = sites::find(&model.graph, settings);
    let ctx = Ctx::new(Isa::detect(), Threads::of(settings.threads));
    let rounding = Rounding::new(settings, &ctx);
    let weights = by_weight(&sites);
    progress.start("price weights", weights.len() as u64);
    let mut priced = Vec::new();
    for sites in weights.values() {
        progress.check()?;
        for &bits in bits {
            let scheme = Scheme {
                bits,
                ..sites[0].scheme
            };
            priced.push(rounding.price(&model, sites, scheme, statistics)?);
        }
        progress.advance(1);
    }
    progress.finish();
    Ok(priced)
}

impl Rounding<'_> {
    fn price(
        &self,
        model: &Model,
        sites: &[&Site],
        scheme: Scheme,
        statistics: Option<&Statistics>,
    ) -> Result<Priced> {
        let graph = &model.graph;
        let weight = matrix_of(graph, sites[0])?;
        let plain = Settings {
            method: &method::RTN,
            ..self.settings.clone()
        };
        let job = Job {
            weight: &weight,
            hessian: None,
            scheme,
            settings: &plain,
            ctx: self.ctx.clone(),
        };
        let mut delta = rtn::by_blocks(&job, |_, w| range::whole(w, scheme)).numbers();
        let pairs = delta.iter_mut().zip(&weight.data);
        pairs.for_each(|(x, w)| *x = w - *x);
        let square = |d: &[f32]| d.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let (lost, whole) = match statistics.and_then(|s| gram(graph, sites, s)) {
            Some(gram) => {
                let k = weight.k;
                let gram = gemm::PackedF32::new(self.ctx, &gram, gemm::Order::KN, k, k);
                let energy = |d: &[f32]| awq::energy(d, weight.n, &gram, self.ctx);
                (energy(&delta), energy(&weight.data))
            }
            None => (square(&delta), square(&weight.data)),
        };
        let name = |s: &&Site| graph.node(s.node).name.clone();
        let numbers = graph.constant(sites[0].weight).map_or(0, Tensor::count) as u64;
        // Codes of 3 bits are kept in 4.
        let stored = scheme.bits.next_power_of_two() as u64;
        let groups = (weight.n * weight.k.div_ceil(scheme.length(weight.k))) as u64;
        let zero = if scheme.symmetric { 0 } else { stored };
        Ok(Priced {
            weight: graph.value(sites[0].weight).name.clone(),
            nodes: sites.iter().map(name).collect(),
            numbers,
            bits: scheme.bits,
            bytes: (numbers * stored + groups * (32 + zero)).div_ceil(8),
            error: lost / whole.max(f64::MIN_POSITIVE),
        })
    }
}

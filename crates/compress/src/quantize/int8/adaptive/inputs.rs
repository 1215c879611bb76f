//! What products multiply their weights with: sums over the samples.

use std::collections::BTreeMap;

use edgesmith_ir::{Error, Model, NodeId, Progress, Result, ValueId};
use edgesmith_kernels::{Ctx, Isa, Threads};
use edgesmith_runtime::{Options, Session};

use super::super::{Settings, plan::Plan, prepared};
use crate::calibrate::{Mask, Reading, Statistics, Sums};
use crate::samples::{Samples, named};

/// Bytes of sums at most: weights whose sums come on top of that are rounded to nearest.
const MOST: usize = 2 << 30;

/// The sums of the inputs of every product whose weight can be rounded by them, by node of the
/// prepared model.
#[derive(Debug)]
pub struct Inputs {
    sums: BTreeMap<NodeId, Sums>,
    /// Products whose sums would take too much memory.
    left: usize,
    ctx: Ctx,
}

impl Inputs {
    /// Runs the first `count` samples through a float model and sums up what its products read that
    /// are to be quantised.
    ///
    /// # Errors
    /// When the model does not run on the samples, or the user cancels.
    pub fn of(
        model: &Model,
        statistics: &Statistics,
        settings: &Settings,
        samples: &dyn Samples,
        count: usize,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let model = prepared(model, settings)?;
        let plan = Plan::of(&model, statistics, settings)?;
        let mut all = Self {
            sums: BTreeMap::new(),
            left: 0,
            ctx: Ctx::new(Isa::detect(), Threads::of(0)),
        };
        let (mut sites, mut bytes) = (Vec::new(), 0usize);
        let products = plan.nodes.iter().filter(|(_, r)| r.is_product());
        for &(id, _) in products {
            let Some(site) = Reading::of(&model, id) else {
                continue;
            };
            let own = site.k.saturating_mul(site.k).saturating_mul(site.groups);
            let own = own.saturating_mul(size_of::<f32>());
            if own > MOST - bytes {
                all.left += 1;
                continue;
            }
            bytes += own;
            all.sums.insert(id, site.sums());
            sites.push(site);
        }
        progress.start("sum up inputs", count as u64);
        all.run(&model, &sites, samples, count, progress)?;
        progress.finish();
        Ok(all)
    }

    /// The instructions and threads to round with.
    pub(in super::super) fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Says how many weights were rounded to nearest for want of memory.
    pub(in super::super) fn warning(&self) -> Option<String> {
        (self.left > 0).then(|| {
            format!(
                "{} weights are rounded to nearest: what their products read takes more than {} GiB to sum up",
                self.left,
                MOST >> 30
            )
        })
    }

    /// The sums of a product, where rows were seen.
    pub(in super::super) fn of_node(&self, id: NodeId) -> Option<&Sums> {
        self.sums.get(&id).filter(|s| s.rows() > 0)
    }

    fn run(
        &mut self,
        model: &Model,
        sites: &[Reading],
        samples: &dyn Samples,
        count: usize,
        progress: &dyn Progress,
    ) -> Result<()> {
        let options = Options {
            integer: false,
            ..Options::default()
        };
        let mut session = Session::prepare(model, &options)?;
        let mut watched: Vec<ValueId> = sites.iter().map(|s| s.value).collect();
        watched.sort_unstable();
        watched.dedup();
        for batch in samples.batches(1) {
            progress.check()?;
            let (range, batch) = batch?;
            if range.start >= count {
                break;
            }
            let mask = Mask::of(&batch)?;
            let mut failed: Option<Error> = None;
            session.run_watching(&named(&batch), &watched, &mut |v, view| {
                let mut add = || -> Result<()> {
                    let tensor = view.tensor()?;
                    for site in sites.iter().filter(|s| s.value == v) {
                        if let Some(sums) = self.sums.get_mut(&site.node) {
                            sums.add(view.ctx(), &tensor, &site.reads, mask.as_ref())?;
                        }
                    }
                    Ok(())
                };
                if let Err(e) = add() {
                    failed.get_or_insert(e);
                }
            })?;
            if let Some(e) = failed {
                return Err(e);
            }
            progress.advance(range.len() as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{NoProgress, Tensor, eval, text};

    use super::*;
    use crate::calibrate::{self, calibrate};
    use crate::quantize::testing::numbers;
    use crate::samples::InMemory;

    /// The sums of the only product of a net, and the products of its outputs with themselves: those
    /// that the sums tell for its weight, and those of the reference.
    fn energies(net: &str, x: &Tensor) -> (Vec<f64>, Vec<f64>) {
        let model = text::parse(net).unwrap();
        let samples = InMemory {
            name: "x".into(),
            rows: x.clone(),
            labels: None,
        };
        let settings = calibrate::Settings::default();
        let seen = calibrate(&model, &samples, &settings, &NoProgress).unwrap();
        let settings = Settings::default();
        let all = Inputs::of(&model, &seen, &settings, &samples, 100, &NoProgress).unwrap();
        let (id, node) = model.graph.nodes().next().unwrap();
        let sums = all.of_node(id).unwrap();
        let w = model.graph.constant(node.input(1).unwrap()).unwrap();
        let outputs = w.count() / sums.k;
        let data = w.to_f32().unwrap();
        let is_last = node.is("MatMul") || node.is("Gemm") && node.int("transB").is_none();
        let weight = |o: usize, i: usize| match is_last {
            true => data[i * outputs + o],
            false => data[o * sums.k + i],
        };
        let told = |o: usize| -> f64 {
            let mut h = vec![0.0; sums.k * sums.k];
            sums.add_to(o / (outputs / sums.groups), false, &mut h);
            let pair = |(at, h): (usize, &f32)| {
                f64::from(*h)
                    * f64::from(weight(o, at / sums.k))
                    * f64::from(weight(o, at % sums.k))
            };
            h.iter().enumerate().map(pair).sum()
        };
        let y = eval::evaluate(&model, &[("x", x.clone())])
            .unwrap()
            .remove(0);
        let inner = match is_last || node.is("Gemm") {
            true => 1,
            false => y.dims()[2..].iter().product::<usize>(),
        };
        let mut wanted = vec![0.0; outputs];
        for (at, y) in y.to_f32().unwrap().iter().enumerate() {
            wanted[at / inner % outputs] += f64::from(*y).powi(2);
        }
        ((0..outputs).map(told).collect(), wanted)
    }

    fn list(n: usize, seed: u32) -> String {
        let all: Vec<String> = numbers(n, seed).iter().map(|x| format!("{x:?}")).collect();
        all.join(",")
    }

    #[test]
    fn the_sums_tell_the_energy_of_every_output() {
        let conv = |attributes: &str, w: [usize; 4]| {
            let n = w.iter().product();
            format!(
                "opset 17\ngraph g(x: f32[n,4,6,5]) -> (y: f32[n,{},a,b]) {{\n  w: f32[{},{},{},{}] = {{{}}}\n  \
                 y = Conv(x, w) {{{attributes}, name=\"c\"}}\n}}\n",
                w[0],
                w[0],
                w[1],
                w[2],
                w[3],
                list(n, 3)
            )
        };
        let product = |op: &str, w: [usize; 2]| {
            format!(
                "opset 17\ngraph g(x: f32[n,7]) -> (y: f32[n,3]) {{\n  w: f32[{},{}] = {{{}}}\n  y = {op}\n}}\n",
                w[0],
                w[1],
                list(21, 3)
            )
        };
        let planes = Tensor::from_vec(&[3, 4, 6, 5], numbers(360, 1)).unwrap();
        let rows = Tensor::from_vec(&[9, 7], numbers(63, 1)).unwrap();
        for (net, x) in [
            (conv("pads=[1,1,1,1]", [6, 4, 3, 3]), &planes),
            (conv("strides=[2,1],pads=[0,1,2,0]", [6, 4, 3, 2]), &planes),
            (conv("group=4,dilations=[2,2]", [8, 1, 2, 2]), &planes),
            (
                conv(
                    "group=2,auto_pad=\"SAME_LOWER\",strides=[2,2]",
                    [4, 2, 3, 3],
                ),
                &planes,
            ),
            (conv("strides=[1,1]", [5, 4, 1, 1]), &planes),
            (product("MatMul(x, w) {name=\"m\"}", [7, 3]), &rows),
            (product("Gemm(x, w) {name=\"m\"}", [7, 3]), &rows),
            (product("Gemm(x, w) {transB=1,name=\"m\"}", [3, 7]), &rows),
        ] {
            let (told, wanted) = energies(&net, x);
            for (t, w) in told.iter().zip(&wanted) {
                assert!((t - w).abs() < 1e-4 * w, "{net}: {t} {w}");
            }
        }
    }
}

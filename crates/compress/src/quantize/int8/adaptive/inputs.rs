//! What products multiply their weights with: sums over the samples.

use std::collections::BTreeMap;

use edgesmith_ir::geometry::Window;
use edgesmith_ir::{Error, Model, Node, NodeId, Progress, Result, Tensor, ValueId};
use edgesmith_kernels::{Ctx, Isa, Threads};
use edgesmith_runtime::{Options, Session};

use super::super::{Settings, plan::Plan, prepared};
use crate::calibrate::{Mask, Statistics, add_products};
use crate::samples::{Samples, named};

/// Rows of a sample that are looked at: evenly spread where there are more.
const POSITIONS: usize = 1024;

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

/// Σ x xᵀ and Σ x of the rows that a product multiplies with its weight.
#[derive(Debug)]
pub(in super::super) struct Sums {
    pub groups: usize,
    /// Numbers of a row of one group: weights of an output.
    pub k: usize,
    rows: u64,
    /// `[groups, k, k]`.
    products: Vec<f32>,
    /// `[groups, k]`.
    sums: Vec<f64>,
}

/// How a product reads its input.
enum Reads {
    /// Rows along the last axis.
    Rows,
    /// Windows of a convolution with a kernel of these lengths.
    Windows(Box<Node>, Vec<usize>),
}

struct Site {
    node: NodeId,
    value: ValueId,
    reads: Reads,
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
            let Some((site, groups, k)) = site(&model, id) else {
                continue;
            };
            let own = k.saturating_mul(k).saturating_mul(groups);
            let own = own.saturating_mul(size_of::<f32>());
            if own > MOST - bytes {
                all.left += 1;
                continue;
            }
            bytes += own;
            sites.push(site);
            all.sums.insert(id, Sums::new(groups, k));
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
        self.sums.get(&id).filter(|s| s.rows > 0)
    }

    fn run(
        &mut self,
        model: &Model,
        sites: &[Site],
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

/// How the product `id` reads, in how many groups of rows of which length; `None` where its rows are not those of its weight.
fn site(model: &Model, id: NodeId) -> Option<(Site, usize, usize)> {
    let graph = &model.graph;
    let node = graph.node(id);
    let (value, weight) = (node.input(0)?, graph.constant(node.input(1)?)?);
    let dims = weight.dims();
    let int = |name| node.int(name).unwrap_or(0) != 0;
    let (groups, k, reads) = match node.op.as_str() {
        "Conv" if dims.len() > 2 => {
            let groups = usize::try_from(node.int("group").unwrap_or(1)).ok()?;
            let k = dims[1..].iter().product();
            let kernel = dims[2..].to_vec();
            (groups, k, Reads::Windows(Box::new(node.clone()), kernel))
        }
        "Gemm" if dims.len() == 2 && !int("transA") => {
            (1, dims[usize::from(int("transB"))], Reads::Rows)
        }
        "MatMul" if dims.len() == 2 => (1, dims[0], Reads::Rows),
        _ => return None,
    };
    let fits =
        groups > 0 && k > 0 && weight.count() > 0 && weight.count().is_multiple_of(groups * k);
    let site = Site {
        node: id,
        value,
        reads,
    };
    fits.then_some((site, groups, k))
}

impl Sums {
    fn new(groups: usize, k: usize) -> Self {
        Self {
            groups,
            k,
            rows: 0,
            products: vec![0.0; groups * k * k],
            sums: vec![0.0; groups * k],
        }
    }

    /// The mean of the rows of a group.
    pub fn mean(&self, group: usize) -> impl Iterator<Item = f64> + '_ {
        let sums = &self.sums[group * self.k..][..self.k];
        sums.iter().map(|s| s / self.rows.max(1) as f64)
    }

    /// True where the rows of both have the same weights.
    pub fn like(&self, other: &Self) -> bool {
        (self.groups, self.k) == (other.groups, other.k)
    }

    /// What each output is on average where the weights are `numbers`, by outputs.
    pub fn mean_of(&self, numbers: &[f64]) -> Vec<f64> {
        let of_group = numbers.len() / self.groups;
        let groups = numbers.chunks_exact(of_group).enumerate();
        let rows = |(g, numbers): (usize, &[f64])| {
            let means: Vec<f64> = self.mean(g).collect();
            let row = |row: &[f64]| row.iter().zip(&means).map(|(w, m)| w * m).sum();
            numbers.chunks_exact(self.k).map(row).collect::<Vec<f64>>()
        };
        groups.flat_map(rows).collect()
    }

    /// Adds Σ x xᵀ of a group to `products`, or Σ (x − mean)(x − mean)ᵀ.
    pub fn add_to(&self, group: usize, centred: bool, products: &mut [f32]) {
        let k = self.k;
        let own = &self.products[group * k * k..][..k * k];
        if !centred {
            products.iter_mut().zip(own).for_each(|(p, o)| *p += o);
            return;
        }
        let means: Vec<f64> = self.mean(group).collect();
        for (i, (row, own)) in products
            .chunks_exact_mut(k)
            .zip(own.chunks_exact(k))
            .enumerate()
        {
            let shift = self.rows as f64 * means[i];
            for ((p, o), m) in row.iter_mut().zip(own).zip(&means) {
                *p += (f64::from(*o) - shift * m) as f32;
            }
        }
    }

    fn add(&mut self, ctx: &Ctx, x: &Tensor, reads: &Reads, mask: Option<&Mask>) -> Result<()> {
        let turned = match reads {
            Reads::Rows => self.rows_of(x, mask)?,
            Reads::Windows(node, kernel) => self.windows_of(ctx, x, node, kernel)?,
        };
        self.add_turned(ctx, &turned);
        Ok(())
    }

    /// Adds rows, `[groups, k, rows]`. Where a number is not finite none of them counts.
    fn add_turned(&mut self, ctx: &Ctx, turned: &[f32]) {
        let count = turned.len() / (self.groups * self.k);
        if count == 0 || turned.iter().any(|x| !x.is_finite()) {
            return;
        }
        self.rows += count as u64;
        for (sum, row) in self.sums.iter_mut().zip(turned.chunks_exact(count)) {
            *sum += row.iter().map(|&x| f64::from(x)).sum::<f64>();
        }
        let k = self.k;
        let groups = turned.chunks_exact(k * count);
        if self.groups == 1 {
            add_products(ctx, turned, k, count, &mut self.products);
        } else {
            let groups: Vec<&[f32]> = groups.collect();
            let alone = Ctx::serial();
            let each = |g: usize, products: &mut [f32]| {
                add_products(&alone, groups[g], k, count, products);
            };
            ctx.threads()
                .parallel_chunks(&mut self.products, k * k, each);
        }
    }

    /// Rows along the last axis, turned: `[k, rows]`. Those of padding are left out.
    fn rows_of(&self, x: &Tensor, mask: Option<&Mask>) -> Result<Vec<f32>> {
        let (data, k) = (x.to_f32()?, self.k);
        if x.dims().last() != Some(&k) {
            return Err(Error::internal(format!("{} has no rows of {k}", x.ty())));
        }
        let all = data.len() / k;
        let mask = mask.and_then(|m| m.of_rows(x.dims()));
        let mask = mask.filter(|m| m.len() == all);
        let rows: Vec<usize> = (0..all).filter(|&r| mask.is_none_or(|m| m[r])).collect();
        let step = step(rows.len(), 1);
        let rows: Vec<usize> = rows.into_iter().step_by(step).collect();
        let column = |c: usize| rows.iter().map(move |r| r * k + c);
        Ok((0..k).flat_map(column).map(|at| data[at]).collect())
    }

    /// Windows of a convolution, turned: `[groups, k, windows]`.
    fn windows_of(&self, ctx: &Ctx, x: &Tensor, node: &Node, kernel: &[usize]) -> Result<Vec<f32>> {
        let (data, dims) = (x.to_f32()?, x.dims());
        let (samples, channels) = (dims[0], dims[1]);
        let window = Window::of(node, &dims[2..], kernel)?;
        let (plane, taps) = (window.output().iter().product::<usize>(), window.taps());
        let area: usize = dims[2..].iter().product();
        if channels * taps != self.groups * self.k {
            return Err(Error::internal(format!(
                "{} does not fit the weight",
                x.ty()
            )));
        }
        let width = window.axes.last().map_or(1, |a| a.output);
        let step = step(samples * plane, width);
        let chosen: Vec<usize> = (0..samples * plane).step_by(step).collect();
        // By tap and window, where its number lies in the first channel.
        let count = chosen.len();
        let mut places = vec![PADDING; taps * count];
        let mut sources = Vec::new();
        for (at, &w) in chosen.iter().enumerate() {
            window.sources(w % plane, &mut sources);
            let first = w / plane * channels * area;
            for &(tap, i) in &sources {
                places[tap * count + at] = first + i;
            }
        }
        let mut turned = vec![0.0f32; channels * taps * count];
        let each = |c: usize, part: &mut [f32]| {
            for (to, &place) in part.iter_mut().zip(&places) {
                if place != PADDING {
                    *to = data[place + c * area];
                }
            }
        };
        ctx.threads()
            .parallel_chunks(&mut turned, taps * count, each);
        Ok(turned)
    }
}

/// No place: the number is 0.
const PADDING: usize = usize::MAX;

/// How far apart rows lie so that about [`POSITIONS`] are taken; those of a plane do not all lie in the
/// same columns.
fn step(count: usize, width: usize) -> usize {
    let step = count.div_ceil(POSITIONS).max(1);
    match step > 1 && width > 1 && (width.is_multiple_of(step) || step.is_multiple_of(width)) {
        true => step + 1,
        false => step,
    }
}

#[cfg(test)]
impl Sums {
    /// Sums of rows that are given turned, `[groups, k, rows]`.
    pub fn testing(groups: usize, k: usize, turned: &[f32]) -> Self {
        let mut sums = Self::new(groups, k);
        sums.add_turned(&Ctx::serial(), turned);
        sums
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use edgesmith_ir::{NoProgress, eval, text};

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

    #[test]
    fn a_mask_counts_for_rows_of_tokens_alone() {
        let sums = Sums::new(1, 2);
        let ids = Tensor::from_vec(&[1, 3], vec![1i64, 1, 0]).unwrap();
        let mask = Mask::of(&[("attention_mask".into(), ids)]).unwrap();
        let rows = |dims: &[usize]| {
            let x = Tensor::from_vec(dims, numbers(dims.iter().product(), 1)).unwrap();
            sums.rows_of(&x, mask.as_ref()).unwrap().len() / 2
        };
        assert_eq!((rows(&[1, 3, 2]), rows(&[1, 3, 4, 2])), (2, 12));
    }

    #[test]
    fn of_many_rows_some_are_taken_from_every_column() {
        for (count, width) in [
            (10, 10),
            (12544, 112),
            (12544 * 2, 112),
            (4096, 64),
            (5000, 1),
            (65536, 4),
        ] {
            let step = step(count, width);
            let taken = count.div_ceil(step);
            assert!(
                taken <= POSITIONS && (step == 1 || taken > POSITIONS / 3),
                "{count} {step}"
            );
            let columns: std::collections::BTreeSet<usize> =
                (0..count).step_by(step).map(|i| i % width).collect();
            assert!(columns.len() > width / 2, "{count} {width} {step}");
        }
    }
}

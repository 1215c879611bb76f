//! Sums of what a product multiplies its weight with: Σ x xᵀ and Σ x over rows, or over the windows
//! of a convolution.

use edgesmith_ir::geometry::Window;
use edgesmith_ir::{Error, Model, Node, NodeId, Result, Tensor, ValueId};
use edgesmith_kernels::Ctx;

use super::{Mask, add_products};

/// Rows of a sample that are looked at: evenly spread where there are more.
const POSITIONS: usize = 1024;

/// Σ x xᵀ and Σ x of the rows that a product multiplies with its weight.
#[derive(Debug, Clone)]
pub(crate) struct Sums {
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
pub(crate) enum Reads {
    /// Rows along the last axis.
    Rows,
    /// Windows of a convolution with a kernel of these lengths.
    Windows(Box<Node>, Vec<usize>),
}

/// What a product multiplies its weight with.
pub(crate) struct Reading {
    /// The product.
    pub node: NodeId,
    /// The value that it reads.
    pub value: ValueId,
    /// How.
    pub reads: Reads,
    /// Groups of rows.
    pub groups: usize,
    /// Numbers of a row.
    pub k: usize,
}

impl Reading {
    /// How the product `id` reads; `None` where its rows are not those of its weight.
    pub fn of(model: &Model, id: NodeId) -> Option<Self> {
        let graph = &model.graph;
        let node = graph.node(id);
        let (value, weight) = (node.input(0)?, graph.constant(node.input(1)?)?);
        let dims = weight.dims();
        let int = |name| node.int(name).unwrap_or(0) != 0;
        let (groups, k, reads) = match node.op.as_str() {
            "Conv" | "FusedConv" if dims.len() > 2 => {
                let groups = usize::try_from(node.int("group").unwrap_or(1)).ok()?;
                let k = dims[1..].iter().product();
                let kernel = dims[2..].to_vec();
                (groups, k, Reads::Windows(Box::new(node.clone()), kernel))
            }
            "Gemm" | "FusedGemm" if dims.len() == 2 && !int("transA") => {
                (1, dims[usize::from(int("transB"))], Reads::Rows)
            }
            "MatMul" if dims.len() == 2 => (1, dims[0], Reads::Rows),
            "FusedMatMul" if dims.len() == 2 && !int("transA") => {
                (1, dims[usize::from(int("transB"))], Reads::Rows)
            }
            _ => return None,
        };
        let fits =
            groups > 0 && k > 0 && weight.count() > 0 && weight.count().is_multiple_of(groups * k);
        fits.then_some(Self {
            node: id,
            value,
            reads,
            groups,
            k,
        })
    }

    /// True where both read the same rows.
    pub fn is_like(&self, other: &Self) -> bool {
        let same = match (&self.reads, &other.reads) {
            (Reads::Rows, Reads::Rows) => true,
            (Reads::Windows(a, k), Reads::Windows(b, l)) => k == l && a.attributes == b.attributes,
            _ => false,
        };
        same && (self.value, self.groups, self.k) == (other.value, other.groups, other.k)
    }

    /// Nothing seen yet of its rows.
    pub fn sums(&self) -> Sums {
        Sums::new(self.groups, self.k)
    }
}

impl Sums {
    /// Nothing seen yet.
    pub fn new(groups: usize, k: usize) -> Self {
        Self {
            groups,
            k,
            rows: 0,
            products: vec![0.0; groups * k * k],
            sums: vec![0.0; groups * k],
        }
    }

    /// Rows seen.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Σ x xᵀ of a group, `[k, k]`.
    pub fn products(&self, group: usize) -> &[f32] {
        &self.products[group * self.k * self.k..][..self.k * self.k]
    }

    /// The mean of x² of each of the `k` numbers of a row of a group.
    pub fn mean_squares(&self, group: usize) -> impl Iterator<Item = f64> + '_ {
        let diagonal = self.products(group).iter().step_by(self.k + 1);
        diagonal.map(|&x| f64::from(x) / self.rows.max(1) as f64)
    }

    /// Adds what was seen of other rows with the same weights.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        let products = self.products.iter_mut().zip(&other.products);
        products.for_each(|(a, b)| *a += b);
        self.sums
            .iter_mut()
            .zip(&other.sums)
            .for_each(|(a, b)| *a += b);
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

    /// Adds what a product reads of a tensor.
    ///
    /// # Errors
    /// When the tensor does not fit the weight.
    pub fn add(&mut self, ctx: &Ctx, x: &Tensor, reads: &Reads, mask: Option<&Mask>) -> Result<()> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::testing::numbers;

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

//! XᵀX of what products read: all that GPTQ and AWQ need to know of the calibration data.

use edgesmith_ir::{Error, Result, Tensor};
use edgesmith_kernels::Ctx;
use edgesmith_kernels::gemm::{Epilogue, Order, PackedF32, gemm};
use serde::{Deserialize, Serialize};

/// Rows that are multiplied at once, whatever the batch: the sums do not depend on it.
const ROWS: usize = 256;

/// Columns of a part of the product; those above the diagonal are not computed.
const PART: usize = 256;

/// Σ x xᵀ and Σ|x| over the rows `x` of a value, `k` numbers each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gram {
    /// The axis of the `k` numbers; negative ones count from the back.
    pub axis: i64,
    /// Numbers of a row; 0 before the first.
    pub k: usize,
    /// Rows seen.
    pub rows: u64,
    /// Rows left out because a number in them was not finite.
    pub not_finite: u64,
    /// `[k, k]`, symmetric.
    pub products: Vec<f32>,
    /// Σ|x| of each of the `k`.
    pub magnitudes: Vec<f64>,
    /// Rows that wait to be multiplied.
    pending: Vec<f32>,
}

impl Gram {
    /// Nothing seen yet of rows along `axis`.
    pub fn new(axis: i64) -> Self {
        Self {
            axis,
            k: 0,
            rows: 0,
            not_finite: 0,
            products: Vec::new(),
            magnitudes: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Bytes that it takes for rows of `k` numbers.
    pub fn bytes(k: usize) -> usize {
        (k * k + ROWS * k) * size_of::<f32>() + k * size_of::<f64>()
    }

    /// Adds the rows of a tensor; those for which `mask`, one number for each, holds 0 count nowhere.
    ///
    /// # Errors
    /// When the tensor is not of floats, or its rows have not as many numbers as those before.
    pub fn add(&mut self, ctx: &Ctx, tensor: &Tensor, mask: Option<&[bool]>) -> Result<()> {
        let (dims, rank) = (tensor.dims(), tensor.rank() as i64);
        let axis = self.axis + if self.axis < 0 { rank } else { 0 };
        let axis = usize::try_from(axis).ok().filter(|&a| a < dims.len());
        let axis =
            axis.ok_or_else(|| Error::invalid(format!("{} has too few axes", tensor.ty())))?;
        let k = dims[axis];
        if self.k == 0 && k > 0 {
            self.k = k;
            self.products = vec![0.0; k * k];
            self.magnitudes = vec![0.0; k];
        }
        if k != self.k {
            return Err(Error::invalid(format!(
                "{} has {k} numbers in a row, those before had {}",
                tensor.ty(),
                self.k
            )));
        }
        let data = tensor.to_f32()?;
        let inner: usize = dims[axis + 1..].iter().product();
        if k == 0 || inner == 0 {
            return Ok(());
        }
        let mask = mask.filter(|m| m.len() * k == data.len());
        for (b, block) in data.chunks_exact(k * inner).enumerate() {
            for at in 0..inner {
                if mask.is_none_or(|m| m[b * inner + at]) {
                    self.row(ctx, block[at..].iter().step_by(inner).copied());
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, ctx: &Ctx, row: impl Iterator<Item = f32>) {
        let start = self.pending.len();
        self.pending.extend(row);
        if self.pending[start..].iter().any(|x| !x.is_finite()) {
            self.pending.truncate(start);
            self.not_finite += 1;
            return;
        }
        for (sum, x) in self.magnitudes.iter_mut().zip(&self.pending[start..]) {
            *sum += f64::from(x.abs());
        }
        self.rows += 1;
        if self.pending.len() == ROWS * self.k {
            self.flush(ctx);
        }
    }

    /// Multiplies what waits. To be called after the last tensor.
    pub fn flush(&mut self, ctx: &Ctx) {
        let (k, rows) = (self.k, self.pending.len() / self.k.max(1));
        if rows == 0 {
            return;
        }
        let mut turned = vec![0.0f32; k * rows];
        for (r, row) in self.pending.chunks_exact(k).enumerate() {
            for (c, &x) in row.iter().enumerate() {
                turned[c * rows + r] = x;
            }
        }
        add_products(ctx, &turned, k, rows, &mut self.products);
        self.pending.clear();
    }

    /// The mean of |x| for each of the `k`.
    pub fn mean_magnitudes(&self) -> Vec<f64> {
        let n = self.rows.max(1) as f64;
        self.magnitudes.iter().map(|m| m / n).collect()
    }
}

/// Adds XᵀX to `products`, `[k, k]`, where `turned` is Xᵀ: `[k, rows]`.
pub fn add_products(ctx: &Ctx, turned: &[f32], k: usize, rows: usize, products: &mut [f32]) {
    let mut part = vec![0.0f32; k * PART.min(k)];
    for first in (0..k).step_by(PART) {
        let width = PART.min(k - first);
        let right = PackedF32::new(
            ctx,
            &turned[first * rows..][..width * rows],
            Order::NK,
            rows,
            width,
        );
        let below = k - first;
        let part = &mut part[..below * width];
        let left = &turned[first * rows..];
        let plain = Epilogue::default();
        gemm(ctx, below, left, rows, &right, part, width, &plain);
        for (r, sums) in part.chunks_exact(width).enumerate() {
            let row = &mut products[(first + r) * k + first..][..width];
            row.iter_mut().zip(sums).for_each(|(p, s)| *p += s);
        }
    }
    for i in 0..k {
        for j in i + 1..k {
            products[i * k + j] = products[j * k + i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 7919 % 1009) as f32 / 504.0 - 1.0) * (1.0 + (i % 5) as f32))
            .collect()
    }

    fn gram(k: usize, rows: usize, batch: usize) -> Gram {
        let data = numbers(k * rows);
        let ctx = Ctx::serial();
        let mut g = Gram::new(-1);
        for part in data.chunks(batch * k) {
            g.add(
                &ctx,
                &Tensor::from_vec(&[part.len() / k, k], part.to_vec()).unwrap(),
                None,
            )
            .unwrap();
        }
        g.flush(&ctx);
        g
    }

    #[test]
    fn it_is_the_product_whatever_the_batch() {
        for (k, rows) in [(1, 1), (3, 255), (257, 300), (300, 513)] {
            let g = gram(k, rows, 7);
            assert_eq!(g, gram(k, rows, rows));
            let data = numbers(k * rows);
            for (i, j) in [
                (0, 0),
                (0, k - 1),
                (k - 1, 0),
                (k / 2, k - 1),
                (k - 1, k - 1),
            ] {
                let exact: f64 = data
                    .chunks(k)
                    .map(|x| f64::from(x[i]) * f64::from(x[j]))
                    .sum();
                let scale: f64 = data.chunks(k).map(|x| f64::from(x[i] * x[j]).abs()).sum();
                let got = f64::from(g.products[i * k + j]);
                assert!(
                    (got - exact).abs() <= 1e-6 * scale,
                    "{k} {i} {j}: {got} {exact}"
                );
            }
        }
    }

    #[test]
    fn rows_may_lie_along_another_axis() {
        let ctx = Ctx::serial();
        let mut g = Gram::new(1);
        let t = Tensor::from_vec(&[1, 2, 3], vec![1.0f32, 2.0, 3.0, 10.0, 20.0, 30.0]).unwrap();
        g.add(&ctx, &t, None).unwrap();
        g.flush(&ctx);
        assert_eq!(
            (g.rows, &g.products[..]),
            (3, &[14.0, 140.0, 140.0, 1400.0][..])
        );
        assert_eq!(g.mean_magnitudes(), [2.0, 20.0]);
    }

    #[test]
    fn a_row_that_is_not_finite_counts_nowhere() {
        let ctx = Ctx::serial();
        let mut g = Gram::new(-1);
        let t = Tensor::from_vec(&[2, 2], vec![1.0f32, f32::NAN, 2.0, 3.0]).unwrap();
        g.add(&ctx, &t, None).unwrap();
        g.flush(&ctx);
        assert_eq!((g.rows, g.not_finite), (1, 1));
        assert_eq!(g.products, [4.0, 6.0, 6.0, 9.0]);
    }

    #[test]
    fn a_row_that_the_mask_leaves_out_counts_nowhere() {
        let ctx = Ctx::serial();
        let mut g = Gram::new(-1);
        let t = Tensor::from_vec(&[1, 2, 2], vec![1.0f32, 9.0, 2.0, 3.0]).unwrap();
        g.add(&ctx, &t, Some(&[false, true])).unwrap();
        g.flush(&ctx);
        assert_eq!((g.rows, &g.products[..]), (1, &[4.0, 6.0, 6.0, 9.0][..]));
    }

    #[test]
    fn rows_of_another_length_are_refused() {
        let ctx = Ctx::serial();
        let mut g = Gram::new(-1);
        g.add(
            &ctx,
            &Tensor::from_vec(&[1, 2], vec![1.0f32, 2.0]).unwrap(),
            None,
        )
        .unwrap();
        assert!(
            g.add(
                &ctx,
                &Tensor::from_vec(&[1, 3], vec![1.0f32; 3]).unwrap(),
                None
            )
            .is_err()
        );
    }
}

//! QEmbedLayerNormalization: the sum of quantised word, position and segment embeddings,
//! normalised.

use super::BASE;
use super::grid::Grid;
use crate::eval::{EvalCx, items};
use crate::infer::InferCx;
use crate::ops::arith::{expect_dims, expect_rank};
use crate::ops::{Arity, AttrKind, OpDef, attr, gather};
use crate::{DType, Dim, Error, Result, Shape, Tensor, checked_count};

/// `com.microsoft.QEmbedLayerNormalization`.
pub static Q_EMBED_LAYER_NORMALIZATION: OpDef = OpDef {
    name: "QEmbedLayerNormalization",
    inputs: Arity(18, 18),
    outputs: Arity(2, 2),
    attrs: &[attr("epsilon", AttrKind::Float(Some(1e-12)))],
    infer,
    eval: Some(eval),
    examples: &[
        "com.microsoft.QEmbedLayerNormalization(i32[2,3]{0,4,1,2,2,3}, i32[2,3]{0,1,0,1,1,0}, \
                 u8[5,4], u8[3,4], u8[2,4], u8[4], u8[4], i32[2,3]{1,1,0,1,1,1}, f32{0.1}, f32{0.2}, \
                 f32{0.3}, f32{0.4}, f32{0.5}, u8{1}, u8{2}, u8{3}, u8{4}, u8{5})",
    ],
    ..BASE
};

fn infer(cx: &mut InferCx) -> Result<()> {
    let ids = cx.shape(0).filter(|s| s.rank() == 2);
    let hidden = cx.shape(2).filter(|s| s.rank() == 2);
    let dim = |s: Option<&Shape>, a: usize| s.map_or(Dim::Unknown, |s| s[a].clone());
    let shape = [dim(ids, 0), dim(ids, 1), dim(hidden, 1)];
    let batch = [dim(ids, 0)];
    cx.set_tensor(0, Some(DType::F32), Some(shape.into_iter().collect()));
    cx.set_tensor(1, Some(DType::I32), Some(batch.into_iter().collect()));
    Ok(())
}

/// A quantised table with one row of `hidden` numbers for each id.
struct Table {
    rows: Vec<f32>,
    count: usize,
    hidden: usize,
}

impl Table {
    fn of(cx: &EvalCx, data: usize, scale: usize, zero: usize) -> Result<Self> {
        let t = cx.input(data)?;
        expect_rank(&format!("input {data}"), t, 2..=2)?;
        Ok(Self {
            rows: reals(cx, data, scale, zero)?,
            count: t.dims()[0],
            hidden: t.dims()[1],
        })
    }

    fn row(&self, id: i64) -> Result<&[f32]> {
        let at = gather::place(id, self.count)?;
        Ok(&self.rows[at * self.hidden..][..self.hidden])
    }
}

/// The numbers of input `data` on the grid of inputs `scale` and `zero`.
fn reals(cx: &EvalCx, data: usize, scale: usize, zero: usize) -> Result<Vec<f32>> {
    let t = cx.input(data)?;
    let parameters = [cx.input(scale)?, cx.input(zero)?].map(|t| Some(t.clone()));
    Grid::of(&cx.with_inputs(&items(parameters)), 0, t.dtype())?.reals(t)
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let ids = cx.input(0)?;
    expect_rank("the word ids", ids, 2..=2)?;
    let (batch, sequence) = (ids.dims()[0], ids.dims()[1]);
    let (words, positions) = (Table::of(cx, 2, 8, 13)?, Table::of(cx, 3, 9, 14)?);
    let segments = match cx.optional(1) {
        None => None,
        Some(s) => {
            expect_dims("the segment ids", s, ids.dims())?;
            Some((s.to_i64()?, Table::of(cx, 4, 10, 15)?))
        }
    };
    let hidden = words.hidden;
    let (gamma, beta) = (reals(cx, 5, 11, 16)?, reals(cx, 6, 12, 17)?);
    let widths = [positions.hidden, gamma.len(), beta.len()];
    let segment_width = segments.as_ref().map_or(hidden, |(_, t)| t.hidden);
    if hidden == 0 || widths != [hidden; 3] || segment_width != hidden {
        return Err(Error::invalid(format!(
            "embeddings, gamma and beta should have {hidden} columns"
        )));
    }
    let epsilon = f64::from(cx.float("epsilon", 1e-12));
    let dims = [batch, sequence, hidden];
    let mut y = Vec::with_capacity(checked_count(&dims)?);
    for (i, &word) in ids.to_i64()?.iter().enumerate() {
        let mut sum: Vec<f64> = words.row(word)?.iter().map(|&v| v.into()).collect();
        let mut add = |row: &[f32]| {
            sum.iter_mut()
                .zip(row)
                .for_each(|(s, &v)| *s += f64::from(v))
        };
        add(positions.row((i % sequence) as i64)?);
        if let Some((ids, table)) = &segments {
            add(table.row(ids[i])?);
        }
        let mean = sum.iter().sum::<f64>() / hidden as f64;
        let square = sum.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / hidden as f64;
        let deviation = (square + epsilon).sqrt();
        let scaled = sum.iter().zip(gamma.iter().zip(&beta));
        y.extend(
            scaled
                .map(|(v, (&g, &b))| ((v - mean) / deviation * f64::from(g) + f64::from(b)) as f32),
        );
    }
    Ok(vec![
        Tensor::from_vec(&dims, y)?,
        Tensor::from_vec(&[batch], mask_counts(cx, ids.dims())?)?,
    ])
}

/// How many elements of each row of the mask are 1; zeros where there is no mask.
fn mask_counts(cx: &EvalCx, dims: &[usize]) -> Result<Vec<i32>> {
    let Some(mask) = cx.optional(7) else {
        return Ok(vec![0; dims[0]]);
    };
    expect_dims("the mask", mask, dims)?;
    let mask = mask.to_i64()?;
    let row = |b: usize| mask[b * dims[1]..][..dims[1]].iter().filter(|&&m| m == 1);
    Ok((0..dims[0]).map(|b| row(b).count() as i32).collect())
}

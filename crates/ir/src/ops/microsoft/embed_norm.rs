//! EmbedLayerNormalization: the sum of word, position and segment rows, normalised.

use super::BASE;
use super::skip_norm::moments;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::{expect_dims, expect_rank, floats, from_floats, integers};
use crate::ops::gather::place;
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::{DType, Dim, Error, Result, Shape, Tensor, checked_count};

/// Inputs: word ids, segment ids, word rows, position rows, segment rows, gamma, beta, mask,
/// position ids. Outputs: the norm, the number of words of each sentence that the mask keeps, and
/// the sum; ONNX Runtime asks for the first two.
pub static EMBED_LAYER_NORMALIZATION: OpDef = OpDef {
    name: "EmbedLayerNormalization",
    inputs: Arity(7, 9),
    outputs: Arity(2, 3),
    attrs: &[
        attr("epsilon", AttrKind::Float(Some(1e-12))),
        attr("mask_index_type", AttrKind::Int(None)),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "com.microsoft.EmbedLayerNormalization(i32[2,3]{0,1,2,4,3,0}, i32[2,3]{0,1,1,0,0,1}, f32[5,4], f32[3,4], f32[2,4], f32[4], f32[4], i32[2,3]{1,1,0,1,1,1}) -> 3",
        "com.microsoft.EmbedLayerNormalization(i32[2,3]{0,1,2,4,3,0}, , f32[5,4], f32[6,4], , f32[4], f32[4], , i32[1,3]{5,1,2})",
    ],
    ..BASE
};

/// A table of rows, and the row that each id picks.
fn rows(table: &Tensor, ids: &[i64]) -> Result<(Vec<f64>, Vec<usize>)> {
    let picked = ids.iter().map(|&i| {
        if i < 0 {
            return Err(Error::invalid(format!("row {i} does not exist")));
        }
        place(i, table.dims()[0])
    });
    Ok((floats(table)?, picked.collect::<Result<_>>()?))
}

fn ids(t: &Tensor) -> Result<Vec<i64>> {
    Ok(integers(t)?.into_iter().map(|i| i as i64).collect())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (words, table) = (cx.input(0)?, cx.input(2)?);
    expect_rank("the word ids", words, 2..=2)?;
    expect_rank("the word rows", table, 2..=2)?;
    let (batch, length, width) = (words.dims()[0], words.dims()[1], table.dims()[1]);
    let dims = [batch, length, width];
    let mut sum = vec![0.0; checked_count(&dims)?];
    let mut add = |table: &Tensor, ids: Vec<i64>| -> Result<()> {
        expect_rank("a table", table, 2..=2)?;
        expect_dims("a table", table, &[table.dims()[0], width])?;
        let (data, picked) = rows(table, &ids)?;
        for (sum, row) in sum.chunks_mut(width.max(1)).zip(picked) {
            let row = &data[row * width..][..width];
            sum.iter_mut().zip(row).for_each(|(s, r)| *s += r);
        }
        Ok(())
    };
    add(table, ids(words)?)?;
    let positions = match cx.optional(8) {
        None => (0..length as i64).collect(),
        Some(p) => {
            let rows = if p.dims().first() == Some(&batch) {
                batch
            } else {
                1
            };
            expect_dims("the position ids", p, &[rows, length])?;
            ids(p)?
        }
    };
    let all = positions.iter().copied().cycle().take(batch * length);
    add(cx.input(3)?, all.collect())?;
    if let (Some(segments), Some(table)) = (cx.optional(1), cx.optional(4)) {
        expect_dims("the segment ids", segments, words.dims())?;
        add(table, ids(segments)?)?;
    }
    let row = |i: usize| -> Result<Vec<f64>> {
        expect_dims("a vector along the last axis", cx.input(i)?, &[width])?;
        floats(cx.input(i)?)
    };
    let (gamma, beta) = (row(5)?, row(6)?);
    let epsilon = f64::from(cx.float("epsilon", 1e-12));
    let mut y = sum.clone();
    for row in y.chunks_mut(width.max(1)) {
        let (mean, inverse) = moments(row, true, epsilon);
        for ((v, g), b) in row.iter_mut().zip(&gamma).zip(&beta) {
            *v = (*v - mean) * inverse * g + b;
        }
    }
    Ok(vec![
        from_floats(table.dtype(), &dims, y)?,
        Tensor::from_vec(&[batch], kept(cx.optional(7), batch, length)?)?,
        from_floats(table.dtype(), &dims, sum)?,
    ])
}

/// For each sentence the place of the first 0 of its mask; 0 without a mask.
fn kept(mask: Option<&Tensor>, batch: usize, length: usize) -> Result<Vec<i32>> {
    let Some(mask) = mask else {
        return Ok(vec![0; batch]);
    };
    expect_dims("the mask", mask, &[batch, length])?;
    let mask = integers(mask)?;
    let row = |b: usize| &mask[b * length..][..length];
    let first = |b: usize| row(b).iter().position(|&m| m == 0).unwrap_or(length);
    Ok((0..batch).map(|b| first(b) as i32).collect())
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let (ids, table) = (cx.shape(0), cx.shape(2));
    let shape: Option<Shape> = match (ids, table) {
        (Some(i), Some(t)) if i.rank() == 2 && t.rank() == 2 => Some(
            [i[0].clone(), i[1].clone(), t[1].clone()]
                .into_iter()
                .collect(),
        ),
        _ => None,
    };
    let batch = shape.as_ref().map_or(Dim::Unknown, |s| s[0].clone());
    let dtype = cx.dtype(2);
    cx.set_tensor(0, dtype, shape.clone());
    cx.set_tensor(1, Some(DType::I32), Some([batch].into_iter().collect()));
    cx.set_tensor(2, dtype, shape);
    Ok(())
}

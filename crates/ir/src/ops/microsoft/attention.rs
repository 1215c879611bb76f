//! Attention and MultiHeadAttention: softmax of the scaled products of queries and keys, by head.

use super::BASE;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::{broadcast_indices, expect_dims, expect_rank, floats, from_floats};
use crate::ops::matmul::Product;
use crate::ops::{Arity, AttrKind, OpDef, attr};
use crate::{Dim, Error, Node, Result, Shape, Tensor, checked_count};

pub mod heads;
pub mod mask;

use heads::{Heads, Past};
use mask::Mask;

/// Attention whose queries, keys and values are products of one input with one weight. Inputs:
/// input, weights, bias, mask, past, attention bias. Outputs: the result and the present.
pub static ATTENTION: OpDef = OpDef {
    name: "Attention",
    inputs: Arity(2, 7),
    outputs: Arity(1, 2),
    attrs: &[
        attr("do_rotary", AttrKind::Int(Some(0))),
        attr("mask_filter_value", AttrKind::Float(Some(-10000.0))),
        attr("num_heads", AttrKind::Int(None)),
        attr("past_present_share_buffer", AttrKind::Int(None)),
        attr("qkv_hidden_sizes", AttrKind::Ints),
        attr("rotary_embedding_dim", AttrKind::Int(None)),
        attr("scale", AttrKind::Float(None)),
        attr("unidirectional", AttrKind::Int(Some(0))),
    ],
    infer: infer_attention,
    eval: Some(eval_attention),
    examples: &[
        "com.microsoft.Attention(f32[2,3,4], f32[4,12], f32[12], i32[2,3]{1,1,0,1,1,1}) {num_heads=2}",
        "com.microsoft.Attention(f32[2,3,4], f32[4,12], f32[12], i32[2]{2,3}) {num_heads=2, scale=0.3}",
        "com.microsoft.Attention(f32[2,3,4], f32[4,12], f32[12], i32[4]{2,3,0,1}) {num_heads=2}",
        "com.microsoft.Attention(f32[2,3,4], f32[4,14], f32[14]) {num_heads=2, qkv_hidden_sizes=[4,4,6]}",
        "com.microsoft.Attention(f32[2,3,4], f32[4,12], f32[12], , f32[2,2,2,1,2]) {num_heads=2, unidirectional=1} -> 2",
        "com.microsoft.Attention(f32[2,3,4], f32[4,12], f32[12], i32[2,3,3]{1,0,1,1,1,1,0,0,1,1,0,0,1,1,0,1,1,1}, , f32[1,2,3,3]) {num_heads=2, mask_filter_value=-3e38}",
    ],
    ..BASE
};

/// Attention of given queries, keys and values. Inputs: query, key, value, bias, mask of keys,
/// attention bias, past key, past value. Outputs: the result, present key, present value, and the
/// softmax.
pub static MULTI_HEAD_ATTENTION: OpDef = OpDef {
    name: "MultiHeadAttention",
    inputs: Arity(1, 10),
    outputs: Arity(1, 4),
    attrs: &[
        attr("mask_filter_value", AttrKind::Float(Some(-10000.0))),
        attr("num_heads", AttrKind::Int(None)),
        attr("scale", AttrKind::Float(None)),
        attr("unidirectional", AttrKind::Int(Some(0))),
    ],
    infer: infer_multi_head,
    eval: Some(eval_multi_head),
    examples: &[
        "com.microsoft.MultiHeadAttention(f32[2,3,4], f32[2,5,4], f32[2,5,6], f32[14]) {num_heads=2}",
        "com.microsoft.MultiHeadAttention(f32[2,3,4], f32[2,5,4], f32[2,5,4], , i32[2,5]{1,1,1,0,0,1,1,1,1,1}) {num_heads=2}",
        "com.microsoft.MultiHeadAttention(f32[2,3,4], f32[2,3,4], f32[2,3,4], , , f32[1,1,3,5], f32[2,2,2,2], f32[2,2,2,2]) {num_heads=2, unidirectional=1} -> 4",
        "com.microsoft.MultiHeadAttention(f32[2,3,4], f32[2,2,5,2], f32[2,2,5,2]) {num_heads=2, scale=0.2}",
        "com.microsoft.MultiHeadAttention(f32[2,3,2,3,2]) {num_heads=2}",
        "com.microsoft.MultiHeadAttention(f32[2,3,4], f32[2,3,2,2,2]) {num_heads=2}",
    ],
    ..BASE
};

/// The number of heads of a node.
///
/// # Errors
/// When it is not positive.
pub fn heads(node: &Node) -> Result<usize> {
    let heads = node.int("num_heads").unwrap_or(0);
    usize::try_from(heads)
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| Error::invalid(format!("num_heads is {heads}")))
}

/// The widths of queries, keys and values in the `columns` of a merged weight.
///
/// # Errors
/// When they do not add up, or the heads do not divide them.
pub fn widths(node: &Node, columns: usize) -> Result<[usize; 3]> {
    let heads = heads(node)?;
    let widths = match node.ints("qkv_hidden_sizes") {
        None | Some([]) => [columns / 3; 3],
        Some(given) => {
            let read: Vec<usize> = given.iter().filter_map(|&w| w.try_into().ok()).collect();
            <[usize; 3]>::try_from(read)
                .map_err(|_| Error::invalid(format!("qkv_hidden_sizes is {given:?}")))?
        }
    };
    let sum = widths.iter().try_fold(0usize, |s, &w| s.checked_add(w));
    let fits = sum == Some(columns)
        && widths[0] == widths[1]
        && widths.iter().all(|w| w.is_multiple_of(heads));
    if fits {
        return Ok(widths);
    }
    Err(Error::invalid(format!(
        "widths {widths:?} do not make {columns} columns of {heads} heads"
    )))
}

fn refuse_others(cx: &EvalCx, inputs: &[usize], flags: &[&str]) -> Result<()> {
    if let Some(i) = inputs.iter().find(|&&i| cx.optional(i).is_some()) {
        return Err(Error::unsupported(format!("input {i} is not done")));
    }
    match flags.iter().find(|f| cx.int(f, 0) != 0) {
        Some(flag) => Err(Error::unsupported(format!("{flag} is not done"))),
        None => Ok(()),
    }
}

fn eval_attention(cx: &EvalCx) -> Result<Vec<Tensor>> {
    refuse_others(cx, &[6], &["do_rotary", "past_present_share_buffer"])?;
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    expect_rank("the input", x, 3..=3)?;
    expect_rank("the weights", w, 2..=2)?;
    let widths = widths(cx.node, w.dims()[1])?;
    let product = Product::of(x.dims(), w.dims())?;
    let mut all = product.multiply(&floats(x)?, &floats(w)?)?;
    let columns = w.dims()[1];
    if let Some(bias) = cx.optional(2) {
        expect_dims("the bias", bias, &[columns])?;
        let bias = floats(bias)?;
        all.iter_mut()
            .enumerate()
            .for_each(|(i, v)| *v += bias[i % columns]);
    }
    let n = heads(cx.node)?;
    let rows = [x.dims()[0], x.dims()[1]];
    let at = [0, widths[0], widths[0] + widths[1]];
    let [q, k, v] = [0, 1, 2].map(|i| Heads::of(&all, rows, columns, at[i], [n, widths[i] / n]));
    let past = match cx.optional(4) {
        None => None,
        Some(past) => Some(Past::of_both(past)?),
    };
    let (y, present) = attend(cx, [q, k, v], past, [cx.optional(3), cx.optional(5)])?;
    let mut outputs = vec![from_floats(x.dtype(), &y.dims, y.data)?];
    if let Some([k, v]) = &present
        && widths[1] == widths[2]
    {
        let dims = [&[2], &k.dims()[..]].concat();
        let both = [k.data.clone(), v.data.clone()].concat();
        outputs.push(from_floats(x.dtype(), &dims, both)?);
    }
    Ok(outputs)
}

/// A result of attention.
struct Attended {
    dims: [usize; 3],
    data: Vec<f64>,
    /// The softmax, where the node has an output for it.
    weights: Option<(Vec<usize>, Vec<f64>)>,
}

/// The attention of queries, keys and values after what came before; masks are the mask of keys
/// and the attention bias. Also the keys and values with those before.
fn attend(
    cx: &EvalCx,
    [q, k, v]: [Heads; 3],
    past: Option<Past>,
    masks: [Option<&Tensor>; 2],
) -> Result<(Attended, Option<[Heads; 2]>)> {
    let before = past.as_ref().map_or(0, |p| p.keys.length);
    let (k, v) = match past {
        None => (k, v),
        Some(past) => (past.keys.followed_by(&k)?, past.values.followed_by(&v)?),
    };
    let fits = (q.batch, q.heads, q.size) == (k.batch, k.heads, k.size)
        && (k.batch, k.heads, k.length) == (v.batch, v.heads, v.length);
    if !fits {
        let of = |h: &Heads| Shape::fixed(&h.dims());
        return Err(Error::invalid(format!(
            "queries {}, keys {} and values {} do not fit",
            of(&q),
            of(&k),
            of(&v)
        )));
    }
    let (s, t) = (q.length, k.length);
    let dims = [q.batch, q.heads, s, t];
    let filter = f64::from(cx.float("mask_filter_value", -10000.0));
    let mask = Mask::of(masks[0], filter, [q.batch, s, t])?;
    let extra = match masks[1] {
        None => None,
        Some(bias) => Some((floats(bias)?, broadcast_indices(bias.dims(), &dims)?)),
    };
    let causal = cx.int("unidirectional", 0) != 0;
    let scale = match cx.float("scale", 0.0) {
        0.0 => 1.0 / (q.size as f64).sqrt(),
        scale => f64::from(scale),
    };
    let mut keep = (cx.node.output(3).is_some()).then(Vec::new);
    let mut data = vec![0.0; checked_count(&[q.batch, s, q.heads, v.size])?];
    let mut scores = vec![0.0; t];
    for row in 0..q.batch * q.heads * s {
        let (b, n, i) = (row / s / q.heads, row / s % q.heads, row % s);
        for (j, score) in scores.iter_mut().enumerate() {
            let dot: f64 = q
                .row(b, n, i)
                .iter()
                .zip(k.row(b, n, j))
                .map(|(a, b)| a * b)
                .sum();
            let more = extra.as_ref().map_or(0.0, |(d, at)| d[at[row * t + j]]);
            let hidden = causal && j > before + i;
            *score = if hidden {
                f64::from(f32::MIN)
            } else {
                dot * scale + mask.at(b, i, j) + more
            };
        }
        softmax(&mut scores);
        let y = &mut data[((b * s + i) * q.heads + n) * v.size..][..v.size];
        for (j, &weight) in scores.iter().enumerate() {
            y.iter_mut()
                .zip(v.row(b, n, j))
                .for_each(|(y, v)| *y += weight * v);
        }
        if let Some(keep) = &mut keep {
            keep.extend_from_slice(&scores);
        }
    }
    let y = Attended {
        dims: [q.batch, s, q.heads * v.size],
        data,
        weights: keep.map(|w| (dims.to_vec(), w)),
    };
    Ok((y, Some([k, v])))
}

fn softmax(line: &mut [f64]) {
    let max = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    line.iter_mut().for_each(|v| *v = (*v - max).exp());
    let sum: f64 = line.iter().sum();
    line.iter_mut().for_each(|v| *v /= sum);
}

fn eval_multi_head(cx: &EvalCx) -> Result<Vec<Tensor>> {
    refuse_others(cx, &[8, 9], &[])?;
    let n = heads(cx.node)?;
    let mut parts = heads::parts(n, [0, 1, 2].map(|i| cx.optional(i)))?;
    if let Some(part) = parts.iter().find(|p| p.heads != n) {
        let found = part.heads;
        return Err(Error::invalid(format!("expected {n} heads, found {found}")));
    }
    if let Some(bias) = cx.optional(3) {
        let total: usize = parts.iter().map(|p| n * p.size).sum();
        expect_dims("the bias", bias, &[total])?;
        let bias = floats(bias)?;
        let mut at = 0;
        for part in &mut parts {
            let width = n * part.size;
            part.add(&bias[at..][..width]);
            at += width;
        }
    }
    let past = match (cx.optional(6), cx.optional(7)) {
        (Some(k), Some(v)) => Some(Past {
            keys: Heads::of_tensor(k)?,
            values: Heads::of_tensor(v)?,
        }),
        (None, None) => None,
        _ => return Err(Error::invalid("past keys and values come together")),
    };
    let dtype = cx.input(0)?.dtype();
    let (y, present) = attend(cx, parts, past, [cx.optional(4), cx.optional(5)])?;
    let mut outputs = vec![from_floats(dtype, &y.dims, y.data)?];
    for h in present.iter().flatten() {
        outputs.push(from_floats(dtype, &h.dims(), h.data.clone())?);
    }
    if let Some((dims, weights)) = y.weights {
        outputs.push(from_floats(dtype, &dims, weights)?);
    }
    Ok(outputs)
}

fn infer_attention(cx: &mut InferCx) -> Result<()> {
    let heads = heads(cx.node)?;
    let columns = cx.shape(1).and_then(|w| w.0.last()?.known());
    let width = match columns {
        None => Dim::Unknown,
        Some(columns) => Dim::Known(widths(cx.node, columns)?[2]),
    };
    let Some(x) = cx.shape(0).filter(|x| x.rank() == 3) else {
        cx.set_tensor(0, cx.dtype(0), Some(Shape::unknown(3)));
        return Ok(());
    };
    let (batch, length) = (x[0].clone(), x[1].clone());
    let size = match &width {
        Dim::Known(w) => Dim::Known(w / heads),
        _ => Dim::Unknown,
    };
    let total = match cx.shape(4).filter(|p| p.rank() == 5) {
        None if cx.has(4) => Dim::Unknown,
        None => length.clone(),
        Some(past) => sum(&past[3], &length),
    };
    let y = [batch.clone(), length, width].into_iter().collect();
    let present = [Dim::Known(2), batch, Dim::Known(heads), total, size];
    cx.set_tensor(0, cx.dtype(0), Some(y));
    cx.set_tensor(1, cx.dtype(0), Some(present.into_iter().collect()));
    Ok(())
}

/// The sum of two lengths, where it is known.
fn sum(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(a), Dim::Known(b)) => a.checked_add(*b).map_or(Dim::Unknown, Dim::Known),
        (Dim::Known(0), other) | (other, Dim::Known(0)) => other.clone(),
        _ => Dim::Unknown,
    }
}

fn infer_multi_head(cx: &mut InferCx) -> Result<()> {
    let heads = heads(cx.node)?;
    let dtype = cx.dtype(0);
    let shapes = [0, 1, 2].map(|i| cx.has(i).then(|| cx.shape(i)));
    let Some(found) = heads::shapes(heads, shapes) else {
        cx.set_tensor(0, dtype, Some(Shape::unknown(3)));
        return Ok(());
    };
    let [batch, s, t] = found.dims;
    let total = match cx.shape(6).filter(|p| p.rank() == 4) {
        None if cx.has(6) => Dim::Unknown,
        None => t,
        Some(past) => sum(&past[2], &t),
    };
    let width = match found.sizes[1] {
        Dim::Known(size) => size.checked_mul(heads).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    };
    let n = Dim::Known(heads);
    let y = [batch.clone(), s.clone(), width].into_iter().collect();
    cx.set_tensor(0, dtype, Some(y));
    for (o, size) in found.sizes.into_iter().enumerate() {
        let present = [batch.clone(), n.clone(), total.clone(), size];
        cx.set_tensor(o + 1, dtype, Some(present.into_iter().collect()));
    }
    let weights = [batch, n, s, total].into_iter().collect();
    cx.set_tensor(3, dtype, Some(weights));
    Ok(())
}

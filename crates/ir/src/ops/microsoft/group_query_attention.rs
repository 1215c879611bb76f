//! GroupQueryAttention: causal attention in which groups of query heads share keys and values,
//! with a cache of those that came before (Ainslie et al., "GQA", 2023).

use super::BASE;
use super::attention::heads::Heads;
use super::rotary_embedding::Rotation;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::ops::arith::{broadcast_indices, expect_dims, expect_rank, floats, from_floats};
use crate::ops::{Arity, AttrKind, OpDef, attr, axes};
use crate::{Dim, Error, Node, Result, Shape, Tensor, checked_count};

/// `com.microsoft.GroupQueryAttention`, with a float cache that grows.
pub static GROUP_QUERY_ATTENTION: OpDef = OpDef {
    name: "GroupQueryAttention",
    inputs: Arity(7, 16),
    outputs: Arity(1, 4),
    attrs: &[
        attr("causal", AttrKind::Int(Some(1))),
        attr("do_rotary", AttrKind::Int(Some(0))),
        attr("k_quant_type", AttrKind::String(Some("NONE"))),
        attr("kv_cache_bit_width", AttrKind::Int(None)),
        attr("kv_num_heads", AttrKind::Int(None)),
        attr("local_window_size", AttrKind::Int(Some(-1))),
        attr("num_heads", AttrKind::Int(None)),
        attr("qk_norm_epsilon", AttrKind::Float(Some(1e-6))),
        attr("qk_output", AttrKind::Int(Some(0))),
        attr("rotary_interleaved", AttrKind::Int(Some(0))),
        attr("scale", AttrKind::Float(None)),
        attr("sliding_window_cache", AttrKind::Int(Some(0))),
        attr("smooth_softmax", AttrKind::Int(Some(-1))),
        attr("softcap", AttrKind::Float(Some(0.0))),
        attr("v_quant_type", AttrKind::String(Some("NONE"))),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "com.microsoft.GroupQueryAttention(f32[1,3,8], f32[1,3,4], f32[1,3,4], _, _, i32[1]{2}, \
         i32{3}) {num_heads=4, kv_num_heads=2} -> 3",
        "com.microsoft.GroupQueryAttention(f32[1,1,16], _, _, f32[1,2,3,2], f32[1,2,3,2], i32[1]{3}, \
         i32{4}, f32[8,1], f32[8,1]) {num_heads=4, kv_num_heads=2, do_rotary=1, \
         local_window_size=2} -> 3",
    ],
    ..BASE
};

fn positive(node: &Node, name: &str) -> Result<usize> {
    let value = node.int(name).unwrap_or(0);
    usize::try_from(value)
        .ok()
        .filter(|&v| v > 0 && v < 1 << 31)
        .ok_or_else(|| Error::invalid(format!("{name} is {value}")))
}

/// Heads of queries, and of keys and values.
fn head_counts(node: &Node) -> Result<(usize, usize)> {
    let (n, kv) = (
        positive(node, "num_heads")?,
        positive(node, "kv_num_heads")?,
    );
    if !n.is_multiple_of(kv) {
        return Err(Error::invalid(format!(
            "{n} heads do not fall into {kv} groups"
        )));
    }
    Ok((n, kv))
}

fn refuse(cx: &EvalCx) -> Result<()> {
    let quantised = ["k_quant_type", "v_quant_type"]
        .iter()
        .any(|name| cx.node.string(name).unwrap_or("NONE") != "NONE");
    let what = match () {
        () if quantised => "a quantised cache",
        () if cx.int("sliding_window_cache", 0) != 0 => "a cache of the window alone",
        () if cx.node.output(3).is_some() => "the product of queries and keys as output",
        () => return Ok(()),
    };
    Err(Error::unsupported(format!("{what} is not done")))
}

/// Queries, keys and values by head, from three inputs or one.
fn parts(cx: &EvalCx) -> Result<[Heads; 3]> {
    let (n, kv) = head_counts(cx.node)?;
    let query = cx.input(0)?;
    expect_rank("the query", query, 3..=3)?;
    let of = |t: &Tensor, [first, count, all]: [usize; 3]| -> Result<Heads> {
        expect_rank("queries, keys and values", t, 3..=3)?;
        let width = t.dims()[2];
        if !width.is_multiple_of(all) {
            return Err(Error::invalid(format!(
                "{} does not split into {all} heads",
                t.ty()
            )));
        }
        let size = width / all;
        let rows = [t.dims()[0], t.dims()[1]];
        Ok(Heads::of(
            &floats(t)?,
            rows,
            width,
            first * size,
            [count, size],
        ))
    };
    match (cx.optional(1), cx.optional(2)) {
        (Some(k), Some(v)) => Ok([
            of(query, [0, n, n])?,
            of(k, [0, kv, kv])?,
            of(v, [0, kv, kv])?,
        ]),
        (None, None) => {
            let all = n + 2 * kv;
            Ok([
                of(query, [0, n, all])?,
                of(query, [n, kv, all])?,
                of(query, [n + kv, kv, all])?,
            ])
        }
        _ => Err(Error::invalid("key and value are given together")),
    }
}

/// Each head over its root mean square, times a weight.
fn normalised(heads: &mut Heads, weight: &Tensor, epsilon: f64) -> Result<()> {
    expect_dims("the weight of the norm", weight, &[heads.size])?;
    let weight = floats(weight)?;
    for row in heads.data.chunks_mut(heads.size.max(1)) {
        let square = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        let root = (square + epsilon).sqrt();
        row.iter_mut()
            .zip(&weight)
            .for_each(|(v, w)| *v *= w / root);
    }
    Ok(())
}

/// How many keys came before, for each sentence.
fn lengths(cx: &EvalCx, batch: usize, sequence: usize) -> Result<(Vec<usize>, usize)> {
    let given = cx.input(5)?;
    if given.count() != batch {
        return Err(Error::invalid(format!(
            "seqlens_k should have {batch} elements, found {}",
            given.ty()
        )));
    }
    let total = axes::length(axes::scalar(cx.input(6)?)?, "total_sequence_length")?;
    let prompt = total == sequence;
    let past = given.to_i64()?.into_iter().map(|last| {
        let own = usize::try_from(last).ok().map(|l| l + 1);
        match own {
            Some(own) if own > total => None,
            Some(_) if prompt => Some(0),
            Some(own) => own.checked_sub(sequence),
            None => None,
        }
    });
    let past: Option<Vec<usize>> = past.collect();
    let past = past.ok_or_else(|| {
        Error::invalid(format!(
            "seqlens_k does not fit {sequence} positions of {total}"
        ))
    })?;
    Ok((past, total))
}

/// The cache with the new rows after those of each sentence; zeros behind them.
fn present(cache: Option<&Tensor>, new: &Heads, past: &[usize], length: usize) -> Result<Heads> {
    let cache = cache.map(Heads::of_tensor).transpose()?;
    if let Some(c) = &cache
        && ((c.batch, c.heads, c.size) != (new.batch, new.heads, new.size)
            || past.iter().any(|&p| p > c.length))
    {
        return Err(Error::invalid(format!(
            "a cache of {} does not fit keys of {}",
            Shape::fixed(&c.dims()),
            Shape::fixed(&new.dims())
        )));
    }
    if cache.is_none() && past.iter().any(|&p| p > 0) {
        return Err(Error::invalid("keys came before, but there is no cache"));
    }
    let dims = [new.batch, new.heads, length, new.size];
    let mut data = vec![0.0; checked_count(&dims)?];
    for (b, &before) in past.iter().enumerate() {
        for n in 0..new.heads {
            let mut put = |i: usize, row: &[f64]| {
                let at = ((b * new.heads + n) * length + i) * new.size;
                data[at..][..new.size].copy_from_slice(row);
            };
            for i in 0..before {
                if let Some(c) = &cache {
                    put(i, c.row(b, n, i));
                }
            }
            for i in 0..new.length {
                put(before + i, new.row(b, n, i));
            }
        }
    }
    Ok(Heads {
        length,
        data,
        ..*new
    })
}

/// Turns queries and keys by their positions, where the node asks for it.
fn rotate(cx: &EvalCx, parts: [&mut Heads; 2], past: &[usize]) -> Result<()> {
    if cx.int("do_rotary", 0) == 0 {
        return Ok(());
    }
    let interleaved = cx.int("rotary_interleaved", 0) != 0;
    let rotation = Rotation::of(cx.input(7)?, cx.input(8)?, interleaved)?;
    let ids = match cx.optional(9) {
        None => None,
        Some(t) => Some(t.to_i64()?),
    };
    for heads in parts {
        let (length, count) = (heads.length, heads.heads);
        if let Some(ids) = &ids
            && ids.len() != heads.batch * length
        {
            return Err(Error::invalid(
                "position_ids has another number of positions",
            ));
        }
        for (row, head) in heads.data.chunks_mut(heads.size.max(1)).enumerate() {
            let (b, i) = (row / length / count, row % length);
            let position = match &ids {
                Some(ids) => ids[b * length + i],
                None => (past[b] + i) as i64,
            };
            rotation.turn(head, position)?;
        }
    }
    Ok(())
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    refuse(cx)?;
    let [mut q, mut k, v] = parts(cx)?;
    if (q.batch, q.length, q.size) != (k.batch, k.length, k.size) || k.dims() != v.dims() {
        return Err(Error::invalid("queries, keys and values do not fit"));
    }
    if let (Some(of_q), Some(of_k)) = (cx.optional(14), cx.optional(15)) {
        let epsilon = f64::from(cx.float("qk_norm_epsilon", 1e-6));
        normalised(&mut q, of_q, epsilon)?;
        normalised(&mut k, of_k, epsilon)?;
    }
    let (past, total) = lengths(cx, q.batch, q.length)?;
    rotate(cx, [&mut q, &mut k], &past)?;
    let buffer = cx
        .optional(3)
        .map_or(0, |t| t.dims().get(2).copied().unwrap_or(0));
    let length = buffer.max(total);
    let keys = present(cx.optional(3), &k, &past, length)?;
    let values = present(cx.optional(4), &v, &past, length)?;
    let dtype = cx.input(0)?.dtype();
    let (dims, y) = attend(cx, &q, [&keys, &values], &past, total)?;
    let mut outputs = vec![from_floats(dtype, &dims, y)?];
    for h in [keys, values] {
        outputs.push(from_floats(dtype, &h.dims(), h.data)?);
    }
    Ok(outputs)
}

/// What is known of a row of scores before softmax.
struct Rule {
    scale: f64,
    cap: f64,
    causal: bool,
    /// Keys that a query sees, itself included; 0 for all.
    window: usize,
    /// What takes part in each head's softmax beside the keys.
    sinks: Option<Vec<f64>>,
    bias: Option<(Vec<f64>, Vec<usize>)>,
}

impl Rule {
    fn of(cx: &EvalCx, q: &Heads, total: usize) -> Result<Self> {
        let sinks = match cx.optional(11) {
            Some(t) => {
                expect_dims("head_sink", t, &[q.heads])?;
                Some(floats(t)?)
            }
            None if cx.int("smooth_softmax", -1) == 1 => Some(vec![0.0; q.heads]),
            None => None,
        };
        let bias = match cx.optional(10) {
            None => None,
            Some(t) => {
                let dims = [q.batch, q.heads, q.length, total];
                Some((floats(t)?, broadcast_indices(t.dims(), &dims)?))
            }
        };
        Ok(Self {
            scale: match cx.float("scale", 0.0) {
                0.0 => 1.0 / (q.size as f64).sqrt(),
                scale => f64::from(scale),
            },
            cap: f64::from(cx.float("softcap", 0.0)),
            causal: cx.int("causal", 1) != 0,
            window: usize::try_from(cx.int("local_window_size", -1)).unwrap_or(0),
            sinks,
            bias,
        })
    }
}

fn attend(
    cx: &EvalCx,
    q: &Heads,
    [keys, values]: [&Heads; 2],
    past: &[usize],
    total: usize,
) -> Result<([usize; 3], Vec<f64>)> {
    let rule = Rule::of(cx, q, total)?;
    let dims = [q.batch, q.length, q.heads * q.size];
    let mut y = vec![0.0; checked_count(&dims)?];
    let group = q.heads / keys.heads;
    for row in 0..q.batch * q.heads * q.length {
        let (b, n, i) = (
            row / q.length / q.heads,
            row / q.length % q.heads,
            row % q.length,
        );
        let end = past[b] + if rule.causal { i + 1 } else { q.length };
        let start = match rule.window {
            0 => 0,
            window => end.saturating_sub(window),
        };
        let score = |j: usize| {
            let pairs = q.row(b, n, i).iter().zip(keys.row(b, n / group, j));
            let dot = pairs.map(|(a, b)| a * b).sum::<f64>() * rule.scale;
            let capped = match rule.cap {
                cap if cap > 0.0 => cap * (dot / cap).tanh(),
                _ => dot,
            };
            let bias = &rule.bias;
            capped + bias.as_ref().map_or(0.0, |(d, at)| d[at[row * total + j]])
        };
        let mut scores: Vec<f64> = (start..end).map(score).collect();
        let sink = rule.sinks.as_ref().map(|s| s[n]);
        softmax(&mut scores, sink);
        let y = &mut y[((b * q.length + i) * q.heads + n) * q.size..][..q.size];
        for (j, weight) in (start..end).zip(scores) {
            let v = values.row(b, n / group, j);
            y.iter_mut().zip(v).for_each(|(y, v)| *y += weight * v);
        }
    }
    Ok((dims, y))
}

/// Softmax, in whose sum `sink` takes part.
fn softmax(line: &mut [f64], sink: Option<f64>) {
    let max = line
        .iter()
        .copied()
        .chain(sink)
        .fold(f64::NEG_INFINITY, f64::max);
    line.iter_mut().for_each(|v| *v = (*v - max).exp());
    let sum = line.iter().sum::<f64>() + sink.map_or(0.0, |s| (s - max).exp());
    line.iter_mut().for_each(|v| *v /= sum);
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let (n, kv) = head_counts(cx.node)?;
    let q = cx.shape(0).filter(|s| s.rank() == 3);
    let dim = |a: usize| q.map_or(Dim::Unknown, |s| s[a].clone());
    let size = match (dim(2).known(), cx.has(1)) {
        (None, _) => Dim::Unknown,
        (Some(width), true) => Dim::Known(width / n),
        (Some(width), false) => Dim::Known(width / (n + 2 * kv)),
    };
    let width = size.known().and_then(|s| s.checked_mul(n));
    let width = width.map_or(Dim::Unknown, Dim::Known);
    let total = match cx.ints(6).as_deref() {
        Some(&[total]) if !cx.has(3) => usize::try_from(total).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    };
    let y: Shape = [dim(0), dim(1), width].into_iter().collect();
    let present: Shape = [dim(0), Dim::Known(kv), total, size].into_iter().collect();
    cx.set_tensor(0, cx.dtype(0), Some(y));
    for o in [1, 2] {
        cx.set_tensor(o, cx.dtype(0), Some(present.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_takes_its_part_of_the_sum() {
        let mut line = [0.0, 0.0];
        softmax(&mut line, Some(0.0));
        assert_eq!(line, [1.0 / 3.0; 2]);
        softmax(&mut line, None);
        assert_eq!(line, [0.5; 2]);
    }
}

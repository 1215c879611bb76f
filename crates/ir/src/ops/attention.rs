//! Attention: softmax(Q·Kᵀ)·V over heads, with masks, a soft cap and a cache of keys and values.

use super::arith::{any, from_floats};
use super::heads::{self, Heads};
use super::{Arity, AttrKind, OpDef, arith, attr, concat};
use crate::error::At;
use crate::eval::EvalCx;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{DType, Error, Result, Tensor};

/// ONNX Attention.
pub static ATTENTION: OpDef = OpDef {
    name: "Attention",
    since: &[23, 24],
    inputs: Arity(3, 7),
    outputs: Arity(1, 4),
    attrs: &[
        attr("is_causal", AttrKind::Int(Some(0))),
        attr("kv_num_heads", AttrKind::Int(None)),
        attr("q_num_heads", AttrKind::Int(None)),
        attr("qk_matmul_output_mode", AttrKind::Int(Some(0))),
        attr("scale", AttrKind::Float(None)),
        attr("softcap", AttrKind::Float(Some(0.0))),
        attr("softmax_precision", AttrKind::Int(None)),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "Attention(f32[2,2,3,4], f32[2,2,5,4], f32[2,2,5,6])",
        "Attention(f32[2,3,8], f32[2,3,4], f32[2,3,4], f32[3,3]) \
         {q_num_heads=2,kv_num_heads=1,is_causal=1,softcap=2.0}",
        "Attention(f32[1,2,2,4], f32[1,1,2,4], f32[1,1,2,4], bool[2,5]{true,true,true,true,false,true,true,true,true,true}, \
         f32[1,1,3,4], f32[1,1,3,4]) {qk_matmul_output_mode=2} -> 4",
        "Attention(f16[2,1,1,4], f16[2,1,4,4], f16[2,1,4,4], f16[1,2], _, _, i64[2]{1,2})",
    ],
    ..OpDef::BASE
};

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let (q_heads, kv_heads) = (cx.node.int("q_num_heads"), cx.node.int("kv_num_heads"));
    let query = heads::split(cx.input(0)?, q_heads)?;
    let keys = cached(cx.optional(4), heads::split(cx.input(1)?, kv_heads)?)?;
    let values = cached(cx.optional(5), heads::split(cx.input(2)?, kv_heads)?)?;
    let (q, k, v) = (Heads::of(&query)?, Heads::of(&keys)?, Heads::of(&values)?);
    heads::check(&q, &k, &v)?;
    let mut scores = heads::products(&q, &k, heads::scale(cx, q.size))?;
    let mode = cx.int("qk_matmul_output_mode", 0);
    let dims = [q.batch, q.heads, q.steps, k.steps];
    let mut shown = None;
    let mut show = |at: i64, scores: &[f64]| {
        if mode == at && cx.node.output(3).is_some() {
            shown = Some(from_floats(query.dtype(), &dims, scores.to_vec()));
        }
    };
    show(0, &scores);
    let cap = f64::from(cx.float("softcap", 0.0));
    if cap > 0.0 {
        scores.iter_mut().for_each(|s| *s = (*s / cap).tanh() * cap);
    }
    show(1, &scores);
    add_mask(cx, &mut scores, dims)?;
    hide(cx, &mut scores, dims)?;
    show(2, &scores);
    heads::softmax(&mut scores, k.steps);
    show(3, &scores);
    let y = heads::weigh(&scores, &q, &v, query.dtype())?;
    let y = if cx.input(0)?.rank() == 3 {
        heads::join(&y)?
    } else {
        y
    };
    let mut out = vec![y, keys, values];
    out.extend(shown.transpose()?);
    if cx.node.output(3).is_some() && out.len() < 4 {
        return Err(Error::invalid(format!(
            "qk_matmul_output_mode {mode} is none of 0 to 3"
        )));
    }
    Ok(out)
}

/// What a cache holds, then what is new.
fn cached(past: Option<&Tensor>, new: Tensor) -> Result<Tensor> {
    let Some(past) = past else {
        return Ok(new);
    };
    concat::join(&[past, &new], 2).at(|| format!("the cache {}", past.ty()))
}

/// Adds the mask, which broadcasts to the scores; what it leaves out at the end of the last axis
/// is hidden since version 24.
fn add_mask(cx: &EvalCx, scores: &mut [f64], dims: [usize; 4]) -> Result<()> {
    let Some(mask) = cx.optional(3) else {
        return Ok(());
    };
    let mut values = any(mask)?;
    if mask.dtype() == DType::Bool {
        let bias = |v: f64| if v != 0.0 { 0.0 } else { f64::NEG_INFINITY };
        values.iter_mut().for_each(|v| *v = bias(*v));
    }
    let refuse = || {
        let to = Shape::fixed(&dims);
        Error::invalid(format!(
            "a mask of {} does not fit scores of {to}",
            mask.ty()
        ))
    };
    let front = 4usize.checked_sub(mask.rank()).ok_or_else(refuse)?;
    let mut own = [1usize; 4];
    own[front..].copy_from_slice(mask.dims());
    let short = cx.version >= 24 && mask.rank() > 0 && own[3] < dims[3];
    let fits = |i: usize| own[i] == dims[i] || own[i] == 1 || i == 3 && short;
    if !(0..4).all(fits) {
        return Err(refuse());
    }
    let at = |i: usize, index: usize| if own[i] == 1 { 0 } else { index };
    for (row, line) in scores.chunks_mut(dims[3].max(1)).enumerate() {
        let (i, rest) = (row % dims[2], row / dims[2]);
        let (h, b) = (rest % dims[1], rest / dims[1]);
        let start = ((at(0, b) * own[1] + at(1, h)) * own[2] + at(2, i)) * own[3];
        for (j, score) in line.iter_mut().enumerate() {
            *score += match short {
                true if j >= own[3] => f64::NEG_INFINITY,
                true => values[start + j],
                false => values[start + at(3, j)],
            };
        }
    }
    Ok(())
}

/// Hides keys that come later than their query, and those that are padding.
fn hide(cx: &EvalCx, scores: &mut [f64], dims: [usize; 4]) -> Result<()> {
    let [batch, heads, queries, keys] = dims;
    let causal = cx.int("is_causal", 0) != 0;
    let past = cx.optional(4).map_or(0, |t| t.dims()[2]);
    let valid = match cx.optional(6) {
        Some(t) => {
            arith::expect_dims("nonpad_kv_seqlen", t, &[batch])?;
            Some(t.to_i64()?)
        }
        None => None,
    };
    for (row, line) in scores.chunks_mut(keys.max(1)).enumerate() {
        let seen = if causal {
            past + row % queries + 1
        } else {
            keys
        };
        let valid = valid.as_ref().map(|v| v[row / queries / heads]);
        let valid = valid.map_or(keys, |n| usize::try_from(n).unwrap_or(0));
        for score in line.iter_mut().skip(seen.min(valid)) {
            *score = f64::NEG_INFINITY;
        }
    }
    Ok(())
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let (q_heads, kv_heads) = (cx.node.int("q_num_heads"), cx.node.int("kv_num_heads"));
    let [batch, q_heads, queries, _] = heads::dims(cx, 0, q_heads)?;
    let [_, kv_heads, steps, size] = heads::dims(cx, 1, kv_heads)?;
    let [_, _, _, value_size] = heads::dims(cx, 2, cx.node.int("kv_num_heads"))?;
    let total = if cx.has(4) {
        concat::sum(&heads::dims(cx, 4, None)?[2], &steps)
    } else {
        steps
    };
    let y = match cx.shape(0).map(Shape::rank) {
        Some(3) => {
            let width = q_heads.known().zip(value_size.known());
            let width = width.map_or(Dim::Unknown, |(h, d)| Dim::Known(h.saturating_mul(d)));
            Some(Shape::from_iter([batch.clone(), queries.clone(), width]))
        }
        Some(_) => Some(Shape::from_iter([
            batch.clone(),
            q_heads.clone(),
            queries.clone(),
            value_size.clone(),
        ])),
        None => None,
    };
    let (dtype, value_dtype) = (cx.dtype(0), cx.dtype(2));
    for (other, wanted) in [(1, dtype), (4, dtype), (5, value_dtype)] {
        if let (Some(found), Some(wanted)) = (cx.dtype(other), wanted)
            && found != wanted
        {
            return Err(Error::invalid(format!(
                "input {other} should be {wanted}, it is {found}"
            )));
        }
    }
    cx.set_tensor(0, dtype, y);
    let cache =
        |size: Dim| Shape::from_iter([batch.clone(), kv_heads.clone(), total.clone(), size]);
    let outputs = [
        (dtype, cache(size)),
        (value_dtype, cache(value_size)),
        (
            dtype,
            Shape::from_iter([batch.clone(), q_heads, queries, total.clone()]),
        ),
    ];
    for (o, (dtype, shape)) in outputs.into_iter().enumerate() {
        if cx.node.output(o + 1).is_some() {
            cx.set_tensor(o + 1, dtype, Some(shape));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::eval;
    use crate::text::parse;

    #[test]
    fn two_queries_give_what_onnx_runtime_gives() {
        for (attributes, expected) in [
            ("", [2.339_523, 23.395_231, 1.391_140_7, 13.911_406_5]),
            ("is_causal=1", [1.0, 10.0, 1.391_140_7, 13.911_406_5]),
            (
                "softcap=1.0",
                [2.138_860_2, 21.388_601, 1.582_886_2, 15.828_862],
            ),
            (
                "scale=1.0",
                [2.462_117_2, 24.621_172, 1.238_405_7, 12.384_057],
            ),
        ] {
            let model = parse(&format!(
                "opset 23 graph g() -> (y) {{
                q: f32[1,1,2,2] = {{1,0,0,2}} k: f32[1,1,2,2] = {{1,1,2,0}}
                v: f32[1,1,2,2] = {{1,10,3,30}} y = Attention(q, k, v) {{{attributes}}} }}"
            ));
            let y = eval::evaluate(&model.unwrap(), &[]).unwrap();
            for (y, e) in y[0].data::<f32>().unwrap().iter().zip(expected) {
                assert!((y - e).abs() < 1e-5, "{attributes}: {y}, expected {e}");
            }
        }
    }
}

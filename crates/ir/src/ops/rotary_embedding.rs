//! RotaryEmbedding: pairs of elements turned by an angle that depends on their position.
//!
//! J. Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.

use super::arith::{expect_dims, expect_rank, floats, from_floats};
use super::heads;
use super::{Arity, AttrKind, OpDef, attr, axes};
use crate::eval::EvalCx;
use crate::{Error, Result, Tensor};

/// ONNX RotaryEmbedding.
pub static ROTARY_EMBEDDING: OpDef = OpDef {
    name: "RotaryEmbedding",
    since: &[23],
    inputs: Arity(3, 4),
    attrs: &[
        attr("interleaved", AttrKind::Int(Some(0))),
        attr("num_heads", AttrKind::Int(None)),
        attr("rotary_embedding_dim", AttrKind::Int(Some(0))),
    ],
    eval: Some(eval),
    examples: &[
        "RotaryEmbedding(f32[1,2,3,4], f32[5,2], f32[5,2], i64[1,3]{0,4,1})",
        "RotaryEmbedding(f32[1,3,12], f32[1,3,2], f32[1,3,2]) \
         {num_heads=2,interleaved=1,rotary_embedding_dim=4}",
    ],
    ..OpDef::BASE
};

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let split = heads::split(x, cx.node.int("num_heads"))?;
    let [batch, heads, steps, size] = *split.dims() else {
        return Err(Error::internal("heads have 4 axes"));
    };
    let width = match axes::length(cx.int("rotary_embedding_dim", 0), "rotary_embedding_dim")? {
        0 => size,
        width => width,
    };
    if width > size || width % 2 != 0 {
        return Err(Error::invalid(format!(
            "{width} of {size} elements of a head cannot be turned in pairs"
        )));
    }
    let half = width / 2;
    let (cos, sin) = (cx.input(1)?, cx.input(2)?);
    let rows = rows(cx.optional(3), cos, [batch, steps, half])?;
    expect_dims("the sines", sin, cos.dims())?;
    let (cos, sin) = (floats(cos)?, floats(sin)?);
    let interleaved = cx.int("interleaved", 0) != 0;
    let mut data = floats(&split)?;
    for (i, head) in data.chunks_mut(size.max(1)).enumerate() {
        let row = rows[i / (heads * steps) * steps + i % steps];
        for p in 0..half {
            let (a, b) = if interleaved {
                (2 * p, 2 * p + 1)
            } else {
                (p, p + half)
            };
            let (c, s) = (cos[row * half + p], sin[row * half + p]);
            (head[a], head[b]) = (c * head[a] - s * head[b], s * head[a] + c * head[b]);
        }
    }
    let y = from_floats(x.dtype(), split.dims(), data)?;
    Ok(vec![if x.rank() == 3 { heads::join(&y)? } else { y }])
}

/// The row of the cache for each step of each sequence.
fn rows(
    ids: Option<&Tensor>,
    cache: &Tensor,
    [batch, steps, half]: [usize; 3],
) -> Result<Vec<usize>> {
    let Some(ids) = ids else {
        expect_dims("the cosines", cache, &[batch, steps, half])?;
        return Ok((0..batch * steps).collect());
    };
    expect_dims("the positions", ids, &[batch, steps])?;
    expect_rank("the cosines", cache, 2..=2)?;
    let length = cache.dims()[0];
    expect_dims("the cosines", cache, &[length, half])?;
    let row = |id: i64| usize::try_from(id).ok().filter(|&i| i < length);
    let rows: Option<Vec<usize>> = ids.to_i64()?.into_iter().map(row).collect();
    rows.ok_or_else(|| Error::invalid(format!("a position is outside a cache of {length} rows")))
}

#[cfg(test)]
mod tests {
    use crate::eval;
    use crate::text::parse;

    #[test]
    fn halves_and_neighbours_are_turned_as_in_onnx_runtime() {
        for (interleaved, expected) in [(0, [-1.8f32, -4.0, 2.6, 2.0]), (1, [-1.0, 2.0, -4.0, 3.0])]
        {
            let model = parse(&format!(
                "opset 23 graph g() -> (y) {{
                x: f32[1,1,1,4] = {{1,2,3,4}} c: f32[2,2] = {{1,1,0.6,0}} s: f32[2,2] = {{0,0,0.8,1}}
                p: i64[1,1] = {{1}} y = RotaryEmbedding(x, c, s, p) {{interleaved={interleaved}}} }}"
            ));
            let y = eval::evaluate(&model.unwrap(), &[]).unwrap();
            for (y, e) in y[0].data::<f32>().unwrap().iter().zip(expected) {
                assert!((y - e).abs() < 1e-6, "{y}, expected {e}");
            }
        }
    }
}

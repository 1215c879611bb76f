//! LinearAttention: a state of fixed size that each step decays, corrects, writes and reads.
//!
//! S. Yang et al., "Gated Delta Networks: Improving Mamba2 with Delta Rule", 2024.

use super::arith::{expect_dims, expect_rank, floats, from_floats};
use super::{Arity, AttrKind, OpDef, attr};
use crate::eval::EvalCx;
use crate::graph::Node;
use crate::infer::InferCx;
use crate::types::{Dim, Shape};
use crate::{Error, Result, Tensor, checked_count};

/// ONNX LinearAttention.
pub static LINEAR_ATTENTION: OpDef = OpDef {
    name: "LinearAttention",
    since: &[27],
    inputs: Arity(3, 6),
    outputs: Arity(2, 2),
    attrs: &[
        attr("chunk_size", AttrKind::Int(Some(64))),
        attr("kv_num_heads", AttrKind::Int(None)),
        attr("q_num_heads", AttrKind::Int(None)),
        attr("scale", AttrKind::Float(Some(0.0))),
        attr("update_rule", AttrKind::String(Some("gated_delta"))),
    ],
    infer,
    eval: Some(eval),
    examples: &[
        "LinearAttention@27(f32[2,3,8], f32[2,3,4], f32[2,3,6], _, f32[2,3,2], f32[2,3,1]) \
         {q_num_heads=4,kv_num_heads=2} -> 2",
        "LinearAttention@27(f32[1,2,4], f32[1,2,4], f32[1,2,4], f32[1,2,2,2]) \
         {q_num_heads=2,kv_num_heads=2,update_rule=\"linear\"} -> 2",
        "LinearAttention@27(f16[1,2,4], f16[1,2,4], f16[1,2,4], _, f16[1,2,4]) \
         {q_num_heads=2,kv_num_heads=2,update_rule=\"gated\",scale=1.5} -> 2",
    ],
    ..OpDef::BASE
};

/// Lengths: queries and keys have `keys` elements in a head, values `values`.
struct Sizes {
    batch: usize,
    steps: usize,
    q_heads: usize,
    kv_heads: usize,
    keys: usize,
    values: usize,
}

fn heads(node: &Node) -> Result<(usize, usize)> {
    let count = |name: &str| usize::try_from(node.int(name)?).ok().filter(|&n| n > 0);
    match (count("q_num_heads"), count("kv_num_heads")) {
        (Some(q), Some(kv)) if q.is_multiple_of(kv) => Ok((q, kv)),
        _ => Err(Error::invalid(
            "q_num_heads should be a multiple of kv_num_heads, and both be given",
        )),
    }
}

impl Sizes {
    fn of(cx: &EvalCx) -> Result<Self> {
        let (q_heads, kv_heads) = heads(cx.node)?;
        let (q, v) = (cx.input(0)?, cx.input(2)?);
        expect_rank("the queries", q, 3..=3)?;
        expect_rank("the values", v, 3..=3)?;
        let &[batch, steps, width] = q.dims() else {
            return Err(Error::internal("queries have 3 axes"));
        };
        let sizes = Self {
            batch,
            steps,
            q_heads,
            kv_heads,
            keys: width / q_heads,
            values: v.dims()[2] / kv_heads,
        };
        if sizes.keys == 0 || sizes.values == 0 {
            return Err(Error::invalid(format!(
                "{} and {} have too few elements for their heads",
                q.ty(),
                v.ty()
            )));
        }
        for (what, t, size) in [
            ("the queries", q, q_heads * sizes.keys),
            ("the keys", cx.input(1)?, kv_heads * sizes.keys),
            ("the values", v, kv_heads * sizes.values),
        ] {
            expect_dims(what, t, &[batch, steps, size])?;
        }
        Ok(sizes)
    }

    fn state(&self) -> [usize; 4] {
        [self.batch, self.kv_heads, self.keys, self.values]
    }
}

/// An input of numbers for each step, spread to `width`: one number serves as many neighbours as
/// there are fewer of them.
fn gate(cx: &EvalCx, i: usize, s: &Sizes, widths: [usize; 2]) -> Result<Option<Vec<f64>>> {
    let Some(t) = cx.optional(i) else {
        return Ok(None);
    };
    let own = t.dims().last().copied().unwrap_or(0);
    let full = widths[0].max(widths[1]);
    if !widths.contains(&own) || t.dims() != [s.batch, s.steps, own] {
        return Err(Error::invalid(format!(
            "input {i} should be of [{},{},{} or {}], found {}",
            s.batch,
            s.steps,
            widths[0],
            widths[1],
            t.ty()
        )));
    }
    checked_count(&[s.batch, s.steps, full])?;
    let share = full.checked_div(own).unwrap_or(1);
    let data = floats(t)?;
    let spread = data.iter().flat_map(|&v| std::iter::repeat_n(v, share));
    Ok(Some(spread.collect()))
}

fn eval(cx: &EvalCx) -> Result<Vec<Tensor>> {
    let s = Sizes::of(cx)?;
    let (q, k, v) = (
        floats(cx.input(0)?)?,
        floats(cx.input(1)?)?,
        floats(cx.input(2)?)?,
    );
    let decay = gate(cx, 4, &s, [s.kv_heads, s.kv_heads * s.keys])?;
    let beta = gate(cx, 5, &s, [s.kv_heads, 1])?;
    let rule = cx.node.string("update_rule").unwrap_or("gated_delta");
    let wanted = match rule {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        _ => {
            return Err(Error::unsupported(format!(
                "the rule \"{rule}\" is unknown"
            )));
        }
    };
    if wanted != (decay.is_some(), beta.is_some()) {
        return Err(Error::invalid(format!(
            "the inputs decay and beta do not fit the rule \"{rule}\""
        )));
    }
    let scale = match cx.float("scale", 0.0) {
        0.0 => 1.0 / (s.keys as f64).sqrt(),
        scale => scale.into(),
    };
    let dtype = cx.input(0)?.dtype();
    let (mut state, state_dtype) = match cx.optional(3) {
        Some(t) => {
            expect_dims("the state", t, &s.state())?;
            (floats(t)?, t.dtype())
        }
        None => (vec![0.0; checked_count(&s.state())?], dtype),
    };
    let dims = [s.batch, s.steps, s.q_heads * s.values];
    let mut y = vec![0.0; checked_count(&dims)?];
    let area = s.keys * s.values;
    let group = s.q_heads / s.kv_heads;
    for h in 0..s.batch * s.kv_heads {
        let (b, head) = (h / s.kv_heads, h % s.kv_heads);
        let state = &mut state[h * area..][..area];
        for t in b * s.steps..(b + 1) * s.steps {
            let row = t * s.kv_heads + head;
            let key = &k[row * s.keys..][..s.keys];
            if let Some(decay) = &decay {
                let share = decay.len() / (s.batch * s.steps * s.kv_heads);
                for (i, row_of_state) in state.chunks_mut(s.values.max(1)).enumerate() {
                    let factor = decay[row * share + if share == 1 { 0 } else { i }].exp();
                    row_of_state.iter_mut().for_each(|x| *x *= factor);
                }
            }
            let rate = beta.as_ref().map(|b| b[row]);
            write(state, key, &v[row * s.values..][..s.values], rate);
            for g in 0..group {
                let at = (t * s.kv_heads + head) * group + g;
                let query = &q[at * s.keys..][..s.keys];
                let out = &mut y[at * s.values..][..s.values];
                read(state, query, |i, x| out[i] += x * scale);
            }
        }
    }
    Ok(vec![
        from_floats(dtype, &dims, y)?,
        from_floats(state_dtype, &s.state(), state)?,
    ])
}

/// Shows the elements of vectorᵀ · state, in parts that are to be summed, by place.
fn read(state: &[f64], vector: &[f64], mut show: impl FnMut(usize, f64)) {
    let width = state.len() / vector.len().max(1);
    for (row, factor) in state.chunks(width.max(1)).zip(vector) {
        row.iter()
            .enumerate()
            .for_each(|(i, x)| show(i, x * factor));
    }
}

/// Adds key ⊗ value to the state; with a rate, that of what the state does not yet give for key.
fn write(state: &mut [f64], key: &[f64], value: &[f64], rate: Option<f64>) {
    let mut value = value.to_vec();
    if let Some(rate) = rate {
        read(state, key, |i, x| value[i] -= x);
        value.iter_mut().for_each(|v| *v *= rate);
    }
    for (row, factor) in state.chunks_mut(value.len().max(1)).zip(key) {
        row.iter_mut()
            .zip(&value)
            .for_each(|(x, v)| *x += factor * v);
    }
}

fn infer(cx: &mut InferCx) -> Result<()> {
    let (q_heads, kv_heads) = heads(cx.node)?;
    let axis = |i: usize, a: usize| match cx.shape(i) {
        Some(s) if s.rank() != 3 => Err(Error::invalid(format!(
            "input {i} should have 3 axes, found {s}"
        ))),
        s => Ok(s.map_or(Dim::Unknown, |s| s[a].clone())),
    };
    let share = |d: Dim, n: usize| d.known().map_or(Dim::Unknown, |d| Dim::Known(d / n));
    let values = share(axis(2, 2)?, kv_heads);
    let keys = share(axis(0, 2)?, q_heads);
    let (batch, steps) = (axis(0, 0)?, axis(0, 1)?);
    let width = values.known().and_then(|v| v.checked_mul(q_heads));
    let width = width.map_or(Dim::Unknown, Dim::Known);
    let y = Shape::from_iter([batch.clone(), steps, width]);
    cx.set_tensor(0, cx.dtype(0), Some(y));
    if cx.node.output(1).is_some() {
        let dtype = if cx.has(3) { cx.dtype(3) } else { cx.dtype(0) };
        let state = Shape::from_iter([batch, Dim::Known(kv_heads), keys, values]);
        cx.set_tensor(1, dtype, Some(state));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delta_rule_replaces_what_a_key_gives() {
        let mut state = vec![0.0; 4];
        write(&mut state, &[1.0, 0.0], &[3.0, 4.0], Some(1.0));
        write(&mut state, &[1.0, 0.0], &[5.0, 6.0], Some(1.0));
        assert_eq!(state, [5.0, 6.0, 0.0, 0.0]);
        write(&mut state, &[0.0, 1.0], &[1.0, 1.0], None);
        let mut out = [0.0; 2];
        read(&state, &[1.0, 10.0], |i, x| out[i] += x);
        assert_eq!(out, [15.0, 16.0]);
    }
}

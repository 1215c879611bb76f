//! Attention in its three forms, as products, a softmax and what hides keys.

use edgesmith_ir::ops::microsoft::attention::{heads, widths};
use edgesmith_ir::{Attribute, DType, Dim, Error, Node, Result, ValueId};

use super::super::site::Site;

type Outputs = Result<Vec<Option<ValueId>>>;

/// Queries, keys and values of (batch, heads, steps, size).
struct Heads {
    q: ValueId,
    k: ValueId,
    v: ValueId,
    /// Elements of a row of queries and keys.
    size: usize,
}

/// `v` of (batch, steps, heads · size) as (batch, heads, steps, size).
fn split(site: &mut Site, v: ValueId, heads: usize) -> ValueId {
    let lengths = site.list(&[0, 0, heads as i64, -1]);
    let rows = site.op("Reshape", &[v, lengths]);
    turned(site, rows)
}

/// `v` of (batch, heads, steps, size) as (batch, steps, heads · size).
fn join(site: &mut Site, v: ValueId) -> ValueId {
    let rows = turned(site, v);
    let lengths = site.list(&[0, 0, -1]);
    site.op("Reshape", &[rows, lengths])
}

/// `v` with its two middle axes in each other's place.
fn turned(site: &mut Site, v: ValueId) -> ValueId {
    let node = Node::new("Transpose", "").with("perm", Attribute::Ints(vec![0, 2, 1, 3]));
    site.add(node, &[v])
}

/// The length of axis `axis` of a new value, as one number.
fn length(site: &mut Site, v: ValueId, axis: usize) -> ValueId {
    let shape = site.op("Shape", &[v]);
    let at = scalar(site, axis as i64);
    site.op("Gather", &[shape, at])
}

fn scalar(site: &mut Site, x: i64) -> ValueId {
    site.constant(edgesmith_ir::Tensor::scalar(x))
}

/// The places 0, 1, … up to `end`, one number.
fn places(site: &mut Site, end: ValueId) -> ValueId {
    let (zero, one) = (scalar(site, 0), scalar(site, 1));
    site.op("Range", &[zero, end, one])
}

/// Axes of length 1 at `axes` of the result.
fn with_axes(site: &mut Site, v: ValueId, axes: &[i64]) -> ValueId {
    let axes = site.list(axes);
    site.op("Unsqueeze", &[v, axes])
}

/// What is known of the length of an axis, from the end.
fn last(site: &Site, v: ValueId) -> Result<usize> {
    let last = site.shape(v).and_then(|s| s.last()?.known());
    last.ok_or_else(|| {
        Error::unsupported("the width of a head is not known")
            .hint("give the model's dimensions numbers")
    })
}

/// (batch, heads, queries, keys): the scaled products.
fn scores(site: &mut Site, h: &Heads, scale: Option<f32>) -> Result<ValueId> {
    let x = site.x(0)?;
    let scale = scale.map_or(1.0 / (h.size as f64).sqrt(), f64::from);
    let q = site.scaled(h.q, x, scale)?;
    let node = Node::new("Transpose", "").with("perm", Attribute::Ints(vec![0, 1, 3, 2]));
    let k = site.add(node, &[h.k]);
    Ok(site.op("MatMul", &[q, k]))
}

/// True where key j is no later than query i, which comes after `past` others: (queries, keys).
fn earlier(site: &mut Site, h: &Heads, past: Option<ValueId>) -> ValueId {
    let (queries, keys) = (length(site, h.q, 2), length(site, h.k, 2));
    let (mut rows, columns) = (places(site, queries), places(site, keys));
    if let Some(past) = past {
        rows = site.op("Add", &[rows, past]);
    }
    let rows = with_axes(site, rows, &[1]);
    site.op("LessOrEqual", &[columns, rows])
}

/// `scores` where `seen`, else `x`.
fn shown(site: &mut Site, seen: ValueId, scores: ValueId, x: f64) -> Result<ValueId> {
    let like = site.x(0)?;
    let x = site.number(like, x)?;
    Ok(site.op("Where", &[seen, scores, x]))
}

/// 0 where `seen`, else `x`.
fn bias(site: &mut Site, seen: ValueId, x: f64) -> Result<ValueId> {
    let like = site.x(0)?;
    let zero = site.number(like, 0.0)?;
    shown(site, seen, zero, x)
}

/// Keys or values behind those that came before.
fn after(site: &mut Site, past: Option<ValueId>, new: ValueId) -> ValueId {
    match past {
        Some(past) => site.op_with("Concat", &[past, new], "axis", 2),
        None => new,
    }
}

/// ONNX's Attention of (Q, K, V, mask, past keys, past values, number of valid keys).
pub(super) fn of_heads(site: &mut Site) -> Outputs {
    let x = [site.x(0)?, site.x(1)?, site.x(2)?];
    let is_joined = site.rank(x[0])? == 3;
    let counts = head_counts(site, x)?;
    let mut parts = x;
    for (part, &heads) in parts.iter_mut().zip(&[counts[0], counts[1], counts[1]]) {
        if site.rank(*part)? == 3 {
            *part = split(site, *part, heads);
        }
    }
    let size = match is_joined {
        true => last(site, x[0])? / counts[0].max(1),
        false => last(site, x[0])?,
    };
    let past = [4, 5].map(|i| site.node().input(i));
    let before = past[0].map(|p| length(site, p, 2));
    let [k, v] = [0, 1].map(|i| after(site, past[i], parts[i + 1]));
    let groups = counts[0] / counts[1].max(1);
    let [shared_k, shared_v] = [k, v].map(|v| shared(site, v, counts[0], groups));
    let h = Heads {
        q: parts[0],
        k: shared_k?,
        v: shared_v?,
        size,
    };
    let given = site.node().float("scale");
    let plain = scores(site, &h, given)?;
    let capped = capped(site, plain)?;
    let masked = masked(site, capped)?;
    let hidden = hidden(site, &h, masked, before)?;
    let weights = site.op_with("Softmax", &[hidden], "axis", -1);
    let y = site.op("MatMul", &[weights, h.v]);
    let y = if is_joined { join(site, y) } else { y };
    let stage = match site.node().int("qk_matmul_output_mode").unwrap_or(0) {
        0 => plain,
        1 => capped,
        2 => hidden,
        _ => weights,
    };
    Ok(vec![Some(y), Some(k), Some(v), Some(stage)])
}

/// The numbers of heads of queries, and of keys and values.
fn head_counts(site: &Site, x: [ValueId; 3]) -> Result<[usize; 2]> {
    let count = |name: &str, v: ValueId| {
        let given = site.node().int(name).and_then(|n| usize::try_from(n).ok());
        match site.rank(v)? {
            4 => site.length(v, 1),
            _ => given,
        }
        .filter(|&n| n > 0)
        .ok_or_else(|| Error::unsupported("the number of heads is not known"))
    };
    let counts = [count("q_num_heads", x[0])?, count("kv_num_heads", x[1])?];
    if !counts[0].is_multiple_of(counts[1]) {
        return Err(Error::invalid(format!(
            "{} heads do not share {}",
            counts[0], counts[1]
        )));
    }
    Ok(counts)
}

/// Heads of keys or values, each repeated for the `groups` neighbours that share it.
fn shared(site: &mut Site, v: ValueId, heads: usize, groups: usize) -> Result<ValueId> {
    if groups == 1 {
        return Ok(v);
    }
    let size = length(site, v, 3);
    let lengths = site.list(&[1, 1, groups as i64, 1, 1]);
    let apart = with_axes(site, v, &[2]);
    let repeated = site.op("Expand", &[apart, lengths]);
    let size = with_axes(site, size, &[0]);
    let front = site.list(&[0, heads as i64, -1]);
    let lengths = site.op_with("Concat", &[front, size], "axis", 0);
    Ok(site.op("Reshape", &[repeated, lengths]))
}

fn capped(site: &mut Site, scores: ValueId) -> Result<ValueId> {
    let cap = f64::from(site.node().float("softcap").unwrap_or(0.0));
    if cap <= 0.0 {
        return Ok(scores);
    }
    let x = site.x(0)?;
    let small = site.scaled(scores, x, 1.0 / cap)?;
    let bent = site.op("Tanh", &[small]);
    site.scaled(bent, x, cap)
}

/// Adds the mask; what it leaves out at the end of the last axis is hidden since opset 24.
fn masked(site: &mut Site, scores: ValueId) -> Result<ValueId> {
    let Some(mask) = site.node().input(3) else {
        return Ok(scores);
    };
    let rank = site.rank(mask)?;
    let x = site.x(0)?;
    let mut added = match site.dtype(mask)? {
        DType::Bool => bias(site, mask, f64::NEG_INFINITY)?,
        dtype if dtype == site.dtype(x)? => mask,
        _ => site.cast_like(mask, x)?,
    };
    if site.opset() >= 24 && rank > 0 {
        let [keys, own] = [(scores, 3), (added, rank - 1)].map(|(v, axis)| length(site, v, axis));
        let missing = site.op("Sub", &[keys, own]);
        let missing = with_axes(site, missing, &[0]);
        let none = site.list(&vec![0; 2 * rank - 1]);
        let pads = site.op_with("Concat", &[none, missing], "axis", 0);
        let fill = site.number(x, f64::NEG_INFINITY)?;
        added = site.op("Pad", &[added, pads, fill]);
    }
    Ok(site.op("Add", &[scores, added]))
}

/// Hides keys that come later than their query, and those that are padding.
fn hidden(
    site: &mut Site,
    h: &Heads,
    mut scores: ValueId,
    before: Option<ValueId>,
) -> Result<ValueId> {
    if site.node().int("is_causal").unwrap_or(0) != 0 {
        let seen = earlier(site, h, before);
        scores = shown(site, seen, scores, f64::NEG_INFINITY)?;
    }
    if let Some(valid) = site.node().input(6) {
        let keys = length(site, h.k, 2);
        let columns = places(site, keys);
        let lengths = site.list(&[-1, 1, 1, 1]);
        let valid = site.op("Reshape", &[valid, lengths]);
        let seen = site.op("Less", &[columns, valid]);
        scores = shown(site, seen, scores, f64::NEG_INFINITY)?;
    }
    Ok(scores)
}

/// What com.microsoft's two forms share: the result, keys and values with those before, weights.
fn attended(
    site: &mut Site,
    mut h: Heads,
    past: [Option<ValueId>; 2],
    [mask, extra]: [Option<ValueId>; 2],
) -> Result<[ValueId; 4]> {
    let before = past[0].map(|p| length(site, p, 2));
    h.k = after(site, past[0], h.k);
    h.v = after(site, past[1], h.v);
    let scale = site.node().float("scale").filter(|&s| s != 0.0);
    let mut scores = scores(site, &h, scale)?;
    if let Some(mask) = mask {
        let seen = seen(site, &h, mask)?;
        let filter = site.node().float("mask_filter_value").unwrap_or(-10000.0);
        let added = bias(site, seen, f64::from(filter))?;
        scores = site.op("Add", &[scores, added]);
    }
    if let Some(extra) = extra {
        scores = site.op("Add", &[scores, extra]);
    }
    if site.node().int("unidirectional").unwrap_or(0) != 0 {
        let seen = earlier(site, &h, before);
        scores = shown(site, seen, scores, f64::from(f32::MIN))?;
    }
    let weights = site.op_with("Softmax", &[scores], "axis", -1);
    let y = site.op("MatMul", &[weights, h.v]);
    Ok([join(site, y), h.k, h.v, weights])
}

/// Which keys a mask of com.microsoft shows: (batch, 1, 1 or queries, keys).
fn seen(site: &mut Site, h: &Heads, mask: ValueId) -> Result<ValueId> {
    let zero = match site.dtype(mask)? {
        DType::I32 => site.constant(edgesmith_ir::Tensor::scalar(0i32)),
        _ => scalar(site, 0),
    };
    let axes: &[i64] = match site.rank(mask)? {
        1 => return between_bounds(site, h, mask),
        2 => &[1, 2],
        3 => &[1],
        other => {
            return Err(Error::unsupported(format!(
                "a mask of {other} axes is not done"
            )));
        }
    };
    let seen = site.op("Greater", &[mask, zero]);
    Ok(with_axes(site, seen, axes))
}

/// A mask of one axis: how many keys each sentence has; behind these, which is its first.
fn between_bounds(site: &mut Site, h: &Heads, mask: ValueId) -> Result<ValueId> {
    let (x, none) = (site.x(0)?, || Dim::Unknown);
    let batch = site
        .shape(x)
        .and_then(|s| s.first().cloned())
        .unwrap_or_else(none);
    let bounds = site
        .shape(mask)
        .and_then(|s| s.first().cloned())
        .unwrap_or_else(none);
    let has_starts = match (&batch, &bounds) {
        (b, n) if b.same(n) => false,
        (Dim::Known(b), Dim::Known(n)) if *n == 2 * b => true,
        _ => {
            return Err(Error::unsupported("a mask of unknown form is not done")
                .hint("give the model's dimensions numbers"));
        }
    };
    let keys = length(site, h.k, 2);
    let columns = places(site, keys);
    let mask = site.op_with("Cast", &[mask], "to", i64::from(DType::I64.onnx()));
    let lengths = match has_starts {
        true => site.list(&[2, -1, 1, 1, 1]),
        false => site.list(&[1, -1, 1, 1, 1]),
    };
    let bounds = site.op("Reshape", &[mask, lengths]);
    let bound = |site: &mut Site, i: i64| {
        let at = scalar(site, i);
        site.op("Gather", &[bounds, at])
    };
    let end = bound(site, 0);
    let mut seen = site.op("Less", &[columns, end]);
    if has_starts {
        let start = bound(site, 1);
        let begun = site.op("GreaterOrEqual", &[columns, start]);
        seen = site.op("And", &[seen, begun]);
    }
    Ok(seen)
}

/// Columns `from..to` of the last axis.
fn columns(site: &mut Site, v: ValueId, from: usize, to: usize) -> ValueId {
    let [from, to, axis] = [from as i64, to as i64, -1].map(|i| site.list(&[i]));
    site.op("Slice", &[v, from, to, axis])
}

/// com.microsoft's MultiHeadAttention of (query, key, value, bias, mask, extra bias, past keys, past
/// values).
pub(super) fn multi_head(site: &mut Site) -> Outputs {
    for i in [8, 9] {
        if site.node().input(i).is_some() {
            return Err(Error::unsupported(format!("input {i} is not done")));
        }
    }
    let n = heads(site.node())?;
    let (mut parts, sizes) = given_parts(site, n)?;
    if let Some(bias) = site.node().input(3) {
        let mut at = 0;
        for (part, size) in parts.iter_mut().zip(sizes) {
            let own = columns(site, bias, at, at + n * size);
            let lengths = site.list(&[n as i64, 1, size as i64]);
            let own = site.op("Reshape", &[own, lengths]);
            *part = site.op("Add", &[*part, own]);
            at += n * size;
        }
    }
    let [q, k, v] = parts;
    let size = sizes[0];
    let past = [6, 7].map(|i| site.node().input(i));
    let masks = [4, 5].map(|i| site.node().input(i));
    let made = attended(site, Heads { q, k, v, size }, past, masks)?;
    Ok(made.map(Some).to_vec())
}

/// The three parts by head, and the size of a row of each, from any of the layouts.
fn given_parts(site: &mut Site, n: usize) -> Result<([ValueId; 3], [usize; 3])> {
    let given = [0, 1, 2].map(|i| site.node().input(i));
    let whole = |site: &mut Site, v: ValueId| -> Result<(ValueId, usize)> {
        let width = last(site, v)?;
        Ok(match site.rank(v)? {
            4 => (v, width),
            _ => (split(site, v, n), width / n),
        })
    };
    let packed = |site: &mut Site, v: ValueId, part: i64| -> Result<(ValueId, usize)> {
        let (size, at) = (last(site, v)?, scalar(site, part));
        let rows = site.op_with("Gather", &[v, at], "axis", 3);
        Ok((turned(site, rows), size))
    };
    let [q, k, v] = match given {
        [Some(all), None, None] => [0, 1, 2].map(|p| packed(site, all, p)),
        [Some(q), Some(both), None] => {
            [whole(site, q), packed(site, both, 0), packed(site, both, 1)]
        }
        [Some(q), Some(k), Some(v)] => [q, k, v].map(|v| whole(site, v)),
        _ => return Err(Error::invalid("queries or keys are missing")),
    };
    let (q, k, v) = (q?, k?, v?);
    Ok(([q.0, k.0, v.0], [q.1, k.1, v.1]))
}

/// com.microsoft's Attention of (input, weights, bias, mask, past, extra bias).
pub(super) fn of_one_weight(site: &mut Site) -> Outputs {
    let flags = ["do_rotary", "past_present_share_buffer"];
    let set = |f: &&str| site.node().int(f).unwrap_or(0) != 0;
    if let Some(flag) = flags.into_iter().find(set) {
        return Err(Error::unsupported(format!("{flag} is not done")));
    }
    if site.node().input(6).is_some() {
        return Err(Error::unsupported("input 6 is not done"));
    }
    let (x, w) = (site.x(0)?, site.x(1)?);
    let n = heads(site.node())?;
    let widths = widths(site.node(), last(site, w)?)?;
    let mut all = site.op("MatMul", &[x, w]);
    if let Some(bias) = site.node().input(2) {
        all = site.op("Add", &[all, bias]);
    }
    let mut at = 0;
    let [q, k, v] = widths.map(|width| {
        let part = columns(site, all, at, at + width);
        at += width;
        split(site, part, n)
    });
    let past = match site.node().input(4) {
        None => [None; 2],
        Some(past) => [0, 1].map(|i| {
            let at = scalar(site, i);
            Some(site.op("Gather", &[past, at]))
        }),
    };
    let masks = [3, 5].map(|i| site.node().input(i));
    let size = widths[0] / n;
    let [y, k, v, _] = attended(site, Heads { q, k, v, size }, past, masks)?;
    let mut outputs = vec![Some(y)];
    if site.node().output(1).is_some() && widths[1] == widths[2] {
        let [k, v] = [k, v].map(|v| with_axes(site, v, &[0]));
        outputs.push(Some(site.op_with("Concat", &[k, v], "axis", 0)));
    }
    Ok(outputs)
}

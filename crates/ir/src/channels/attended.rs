//! Operators of attention: heads that go whole, and numbers of every head.

use std::collections::BTreeMap;

use crate::ValueId;

use super::rules::Cx;
use super::{Axis, Split};

/// Heads that lie one after another along an axis: so many, each of so many numbers.
#[derive(Clone, Copy)]
struct Part {
    v: ValueId,
    axis: usize,
    first: usize,
    heads: usize,
    size: usize,
    /// What its numbers are tied to: those of queries and keys, or those of values.
    numbers: Option<Numbers>,
    /// Only the numbers of one head, of an axis of their own.
    is_width: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Numbers {
    Keys,
    Values,
}

/// Heads of queries, and those of keys and values that groups of them share.
#[derive(Clone, Copy)]
struct Heads {
    all: usize,
    shared: usize,
}

impl Heads {
    /// How many can go.
    fn groups(self) -> usize {
        if self.shared > 1 {
            self.shared
        } else {
            self.all
        }
    }
}

/// What a node attends with.
struct Attended {
    parts: Vec<Part>,
    heads: Heads,
    /// Heads have an axis of their own, and their numbers another.
    is_apart: bool,
}

impl Attended {
    fn new(heads: Heads, is_apart: bool) -> Result<Self, String> {
        let is_whole = heads.shared > 0 && heads.all.is_multiple_of(heads.shared);
        is_whole
            .then_some(Self {
                parts: Vec::new(),
                heads,
                is_apart,
            })
            .ok_or_else(|| "its heads do not fall into groups".to_owned())
    }

    /// All heads along one axis, from `first` on.
    fn flat(
        &mut self,
        cx: &Cx,
        (v, axis, first): (ValueId, usize, usize),
        (heads, size): (usize, usize),
        numbers: Option<Numbers>,
    ) -> Result<(), String> {
        if first + heads * size > cx.length(v, axis)? {
            return Err("its lengths do not fit its heads".into());
        }
        self.parts.push(Part {
            v,
            axis,
            first,
            heads,
            size,
            numbers,
            is_width: false,
        });
        Ok(())
    }

    /// \[batch, heads, length, numbers\].
    fn apart(&mut self, cx: &Cx, v: ValueId, heads: usize, numbers: Numbers) -> Result<(), String> {
        if cx.rank(cx.ranked(v)?) != 4 {
            return Err("its heads have no axis of their own".into());
        }
        self.flat(cx, (v, 1, 0), (heads, 1), None)?;
        let size = cx.length(v, 3)?;
        self.flat(cx, (v, 3, 0), (1, size), Some(numbers))?;
        if let Some(part) = self.parts.last_mut() {
            part.is_width = true;
        }
        Ok(())
    }

    /// A mask or bias of scores, \[.., heads, queries, keys\].
    fn mask(&mut self, cx: &mut Cx, input: usize) -> Result<(), String> {
        let Some(v) = cx.node.input(input) else {
            return Ok(());
        };
        let rank = cx.rank(cx.ranked(v)?);
        let heads = self.heads.all;
        for a in 0..rank {
            match a + 3 == rank && cx.length(v, a) == Ok(heads) {
                true => self.flat(cx, (v, a, 0), (heads, 1), None)?,
                false => cx.hold(v, a, "it is a mask of scores"),
            }
        }
        Ok(())
    }

    /// Ties what was gathered.
    fn tie(&self, cx: &mut Cx) {
        let does = |split| self.is_apart || cx.options.split == split;
        let (heads, numbers) = (does(Split::Outer), does(Split::Inner));
        let mut first: BTreeMap<usize, (ValueId, usize, usize)> = BTreeMap::new();
        let mut columns: BTreeMap<(Numbers, usize), (ValueId, usize, usize)> = BTreeMap::new();
        for part in &self.parts {
            let Part { v, axis, .. } = *part;
            let all = (part.first..).take(part.heads * part.size);
            let is_shared_by_all = self.heads.shared == 1 && part.heads == 1;
            if heads && !part.is_width && !is_shared_by_all {
                let groups = self.heads.groups();
                for place in all {
                    let head = (place - part.first) / part.size;
                    let at = (v, axis, place);
                    let one = *first.entry(head * groups / part.heads).or_insert(at);
                    cx.tie_at(one, at);
                }
            } else if let Some(kind) = part.numbers.filter(|_| numbers) {
                for place in all {
                    let number = (place - part.first) % part.size;
                    let at = (v, axis, place);
                    let one = *columns.entry((kind, number)).or_insert(at);
                    cx.tie_at(one, at);
                }
            } else {
                let why = match heads {
                    true => "all its heads share it",
                    false => "the width of its heads stays",
                };
                cx.hold(v, axis, why);
            }
        }
    }
}

/// A count of heads that an attribute has.
fn count(cx: &Cx, name: &str) -> Result<usize, String> {
    let heads = cx.node.int(name).unwrap_or(0);
    let heads = usize::try_from(heads).ok().filter(|&n| n > 0);
    heads.ok_or_else(|| format!("it has no {name}"))
}

/// The size of each of so many heads along an axis.
fn size(cx: &Cx, v: ValueId, axis: usize, heads: usize) -> Result<usize, String> {
    let whole = cx.length(v, axis)?;
    let fits = heads > 0 && whole.is_multiple_of(heads);
    let size = fits.then(|| whole / heads);
    size.ok_or_else(|| "its lengths do not fit its heads".into())
}

/// Batches stay, places of queries go with those of the result, and places of keys are held.
fn places(cx: &mut Cx, y: ValueId, axis: usize) -> Result<(), String> {
    let q = cx.x(0)?;
    cx.tie((q, 0), (y, 0));
    cx.tie((q, axis), (y, axis));
    for i in [1, 2] {
        if let Some(v) = cx.node.input(i).filter(|v| cx.rank(*v) > axis) {
            cx.tie((v, 0), (y, 0));
            cx.hold(v, axis, "it goes over these places");
        }
    }
    Ok(())
}

/// Holds what the other inputs and outputs have.
fn hold_others(cx: &mut Cx, inputs: &[usize], outputs: &[usize], axes: &[usize]) {
    let inputs = inputs.iter().filter_map(|&i| cx.node.input(i));
    let outputs = outputs.iter().filter_map(|&i| cx.node.output(i));
    for v in inputs.chain(outputs).collect::<Vec<_>>() {
        for a in 0..cx.rank(v) {
            if !axes.contains(&a) {
                cx.hold(v, a, "it is of places or of a cache");
            }
        }
    }
}

/// Attention of `ai.onnx`, whose heads have an axis of their own or not.
pub(super) fn attention(cx: &mut Cx) -> Result<(), String> {
    let (q, k, v, y) = (cx.x(0)?, cx.x(1)?, cx.x(2)?, cx.y()?);
    let rank = cx.rank(q);
    if [k, v, y].iter().any(|v| cx.rank(*v) != rank) || !(3..=4).contains(&rank) {
        return Err("its inputs have different axes".into());
    }
    if cx.node.output(3).is_some() {
        return Err("it shows its scores".into());
    }
    let is_apart = rank == 4;
    let heads = match is_apart {
        true => [cx.length(q, 1)?, cx.length(k, 1)?],
        false => [count(cx, "q_num_heads")?, count(cx, "kv_num_heads")?],
    };
    let [all, shared] = heads;
    let mut found = Attended::new(Heads { all, shared }, is_apart)?;
    let both = [(q, all, Numbers::Keys), (y, all, Numbers::Values)];
    let keys = [(k, shared, Numbers::Keys), (v, shared, Numbers::Values)];
    for (v, heads, numbers) in both.into_iter().chain(keys) {
        if is_apart {
            found.apart(cx, v, heads, numbers)?;
        } else {
            let size = size(cx, v, 2, heads)?;
            found.flat(cx, (v, 2, 0), (heads, size), Some(numbers))?;
        }
    }
    found.mask(cx, 3)?;
    caches(cx, &mut found, [4, 5])?;
    hold_others(cx, &[6], &[], &[]);
    places(cx, y, rank - 2)?;
    found.tie(cx);
    told(cx, (q, y), (is_apart, rank));
    Ok(())
}

/// Keys and values that came before, and those that are given on.
fn caches(cx: &mut Cx, found: &mut Attended, inputs: [usize; 2]) -> Result<(), String> {
    let shared = found.heads.shared;
    for (i, numbers) in [Numbers::Keys, Numbers::Values].into_iter().enumerate() {
        let both = [cx.node.input(inputs[i]), cx.node.output(i + 1)];
        for v in both.into_iter().flatten() {
            found.apart(cx, v, shared, numbers)?;
        }
    }
    hold_others(cx, &inputs, &[1, 2], &[1, 3]);
    Ok(())
}

/// Says where heads are, and where their numbers are summed up.
fn told(cx: &mut Cx, (q, y): (ValueId, ValueId), (is_apart, rank): (bool, usize)) {
    let split = cx.options.split;
    if is_apart || split == Split::Outer {
        let axis = if is_apart { 1 } else { rank - 1 };
        cx.ties.heads.insert(Axis::of(y, axis));
    }
    if is_apart || split == Split::Inner {
        cx.ties.widths.insert(Axis::of(q, rank - 1));
        cx.reads(0, rank - 1);
    }
}

/// MultiHeadAttention of ONNX Runtime, of queries, keys and values that are apart.
pub(super) fn multi_head(cx: &mut Cx) -> Result<(), String> {
    if cx.node.input(1).is_none() || cx.node.input(2).is_none() {
        return Err("its queries, keys and values are packed in one".into());
    }
    let (q, k, v, y) = (cx.x(0)?, cx.x(1)?, cx.x(2)?, cx.y()?);
    if [q, k, v, y].iter().any(|v| cx.rank(*v) != 3) || cx.node.output(3).is_some() {
        return Err("its keys are packed, or it shows its scores".into());
    }
    let all = count(cx, "num_heads")?;
    let mut found = Attended::new(Heads { all, shared: all }, false)?;
    let kinds = [Numbers::Keys, Numbers::Keys, Numbers::Values];
    let bias = match cx.node.input(3) {
        Some(_) => Some(cx.x(3)?),
        None => None,
    };
    let mut first = 0;
    for (v, numbers) in [q, k, v].into_iter().zip(kinds) {
        let size = size(cx, v, 2, all)?;
        found.flat(cx, (v, 2, 0), (all, size), Some(numbers))?;
        if let Some(bias) = bias {
            found.flat(cx, (bias, 0, first), (all, size), Some(numbers))?;
            first += all * size;
        }
    }
    let size = size(cx, y, 2, all)?;
    found.flat(cx, (y, 2, 0), (all, size), Some(Numbers::Values))?;
    found.mask(cx, 5)?;
    caches(cx, &mut found, [6, 7])?;
    hold_others(cx, &[4, 8, 9], &[], &[]);
    places(cx, y, 1)?;
    found.tie(cx);
    told(cx, (q, y), (false, 3));
    // The bias of queries is read with them.
    if bias.is_some() && cx.options.split == Split::Inner {
        cx.reads(3, 0);
    }
    Ok(())
}

/// GroupQueryAttention of ONNX Runtime: heads alone.
pub(super) fn group_query(cx: &mut Cx) -> Result<(), String> {
    let (q, y) = (cx.x(0)?, cx.y()?);
    let heads = Heads {
        all: count(cx, "num_heads")?,
        shared: count(cx, "kv_num_heads")?,
    };
    let Heads { all, shared } = heads;
    if cx.node.output(3).is_some() || cx.node.input(12).is_some() {
        return Err("its cache is quantised, or it shows its scores".into());
    }
    let mut found = Attended::new(heads, false)?;
    match (cx.node.input(1), cx.node.input(2)) {
        (Some(k), Some(v)) => {
            for (v, heads) in [(q, all), (k, shared), (v, shared)] {
                let size = size(cx, cx.ranked(v)?, 2, heads)?;
                found.flat(cx, (v, 2, 0), (heads, size), None)?;
            }
        }
        _ => {
            let size = size(cx, q, 2, all + 2 * shared)?;
            for (first, heads) in [(0, all), (all, shared), (all + shared, shared)] {
                found.flat(cx, (q, 2, first * size), (heads, size), None)?;
            }
        }
    }
    let own = size(cx, y, 2, all)?;
    found.flat(cx, (y, 2, 0), (all, own), None)?;
    found.mask(cx, 10)?;
    if let Some(sinks) = cx.node.input(11) {
        found.flat(cx, (sinks, 0, 0), (all, 1), None)?;
    }
    caches(cx, &mut found, [3, 4])?;
    hold_others(cx, &[5, 6, 7, 8, 9, 13, 14, 15], &[], &[]);
    places(cx, y, 1)?;
    found.tie(cx);
    if cx.options.split == Split::Outer {
        cx.ties.heads.insert(Axis::of(y, 2));
    }
    Ok(())
}

/// Attention of ONNX Runtime, which makes queries, keys and values of one weight: heads alone.
pub(super) fn merged(cx: &mut Cx) -> Result<(), String> {
    let (x, w, y) = (cx.x(0)?, cx.x(1)?, cx.y()?);
    let all = count(cx, "num_heads")?;
    if cx.node.int("do_rotary").unwrap_or(0) != 0 || cx.rank(x) != 3 || cx.rank(w) != 2 {
        return Err("it turns places, or has other axes".into());
    }
    let columns = cx.length(w, 1)?;
    let widths = match cx.node.ints("qkv_hidden_sizes") {
        None | Some([]) => vec![columns / 3; 3],
        Some(list) => list.iter().map(|&n| n.max(0) as usize).collect(),
    };
    let fits = |n: &usize| *n > 0 && n.is_multiple_of(all);
    if widths.len() != 3 || widths.iter().sum::<usize>() != columns || !widths.iter().all(fits) {
        return Err("its widths do not fit its heads".into());
    }
    let mut found = Attended::new(Heads { all, shared: all }, false)?;
    let bias = cx.node.input(2);
    let mut first = 0;
    for n in &widths {
        found.flat(cx, (w, 1, first), (all, n / all), None)?;
        if let Some(bias) = bias {
            found.flat(cx, (bias, 0, first), (all, n / all), None)?;
        }
        first += n;
    }
    found.flat(cx, (y, 2, 0), (all, widths[2] / all), None)?;
    found.mask(cx, 5)?;
    for v in [cx.node.input(4), cx.node.output(1)].into_iter().flatten() {
        if cx.rank(cx.ranked(v)?) != 5 {
            return Err("its cache has other axes".into());
        }
        found.flat(cx, (v, 2, 0), (all, 1), None)?;
    }
    hold_others(cx, &[4], &[1], &[2]);
    hold_others(cx, &[3, 6], &[], &[]);
    cx.tie((x, 0), (y, 0));
    cx.hold(x, 1, "it goes over these places");
    cx.hold(y, 1, "it goes over these places");
    cx.tie((x, 2), (w, 0));
    cx.makes(w, 1);
    cx.reads(1, 0);
    found.tie(cx);
    if cx.options.split == Split::Outer {
        cx.ties.heads.insert(Axis::of(y, 2));
    }
    Ok(())
}

/// RotaryEmbedding of `ai.onnx`: x, cosines, sines, places.
pub(super) fn rotary(cx: &mut Cx) -> Result<(), String> {
    turned(cx, [1, 2], &[3])
}

/// RotaryEmbedding of ONNX Runtime: x, places, cosines, sines.
pub(super) fn rotary_of_runtime(cx: &mut Cx) -> Result<(), String> {
    turned(cx, [2, 3], &[1])
}

/// Pairs of numbers are turned by an angle: they go together, with their cosine and sine.
fn turned(cx: &mut Cx, tables: [usize; 2], others: &[usize]) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let (cos, sin) = (cx.x(tables[0])?, cx.x(tables[1])?);
    let rank = cx.rank(x);
    let last = rank.checked_sub(1).filter(|r| (2..=3).contains(r));
    let last = last.ok_or("it has other axes")?;
    let angles = (cos, cx.rank(cos).checked_sub(1).ok_or("it has no cosines")?);
    let pairs = cx.length(cos, angles.1)?;
    let whole = cx.length(x, last)?;
    let own = cx.node.int("num_heads").unwrap_or(0).max(0) as usize;
    let size = match (rank, own) {
        (4, _) => whole,
        (_, 0) => 2 * pairs,
        (_, heads) => size(cx, x, last, heads)?,
    };
    if size == 0 || !whole.is_multiple_of(size) || 2 * pairs > size {
        return Err("its lengths do not fit its heads".into());
    }
    for a in 0..rank {
        cx.tie((x, a), (y, a));
    }
    for (v, axis) in [angles, (sin, cx.rank(sin).saturating_sub(1))] {
        for a in (0..cx.rank(v)).filter(|a| *a != axis) {
            cx.hold(v, a, "these are its places");
        }
    }
    hold_others(cx, others, &[], &[]);
    if rank == 3 && cx.options.split == Split::Outer {
        cx.hold(cos, angles.1, "the width of its heads stays");
        cx.hold(sin, cx.rank(sin) - 1, "the width of its heads stays");
        for place in 0..whole {
            cx.tie_at((x, last, place), (x, last, place / size * size));
        }
        return Ok(());
    }
    cx.tie(angles, (sin, cx.rank(sin) - 1));
    let is_interleaved = cx.node.int("interleaved").unwrap_or(0) != 0;
    for place in 0..whole {
        let number = place % size;
        let pair = match is_interleaved {
            true => number / 2,
            false => number % pairs.max(1),
        };
        if number < 2 * pairs {
            cx.tie_at((x, last, place), (angles.0, angles.1, pair));
        } else {
            cx.tie_at((x, last, place), (x, last, number));
        }
    }
    Ok(())
}

/// A norm of a sum, as ONNX Runtime has it in one node.
pub(super) fn skip_norm(cx: &mut Cx) -> Result<(), String> {
    let (x, y) = (cx.x(0)?, cx.y()?);
    let last = cx.rank(x).checked_sub(1).ok_or("it has no axes")?;
    let inputs: Vec<ValueId> = cx.node.inputs().iter().flatten().copied().collect();
    for v in inputs.into_iter().chain(cx.node.output(3)) {
        cx.ranked(v)?;
        cx.broadcast(v, y);
    }
    let why = "its mean goes over all of them; in the graph before it was fused the width can go";
    cx.hold(y, last, why);
    hold_others(cx, &[], &[1, 2], &[]);
    Ok(())
}

//! Attention by head: softmax of the scaled products of queries and keys, times the values.
//!
//! A task takes one head of one sentence. A block of queries meets the keys a part at a time, so
//! that their scores stay in the first cache; what is known of a row, the largest score and the
//! sums that follow from it, is corrected when a larger score comes (Milakov and Gimelshein,
//! "Online normalizer calculation for softmax", 2018, algorithm 3). No result depends on threads.

use crate::Ctx;
use crate::activation::exp_below;
use crate::floats::{Floats, FloatsMut};
use crate::gemm::{Epilogue, Order, PackedF32, gemm, gemm_mixed};
use crate::simd::{Body, MAX_LANES, Simd, dispatch};
use crate::threads::Shared;

#[cfg(target_arch = "x86_64")]
mod tiles;

/// Queries of a block.
const QUERIES: usize = 48;

/// Keys of a part.
const KEYS: usize = 128;

/// Elements of a query for which tiles of BF16 are not worth it.
const FEW: usize = 16;

/// How many of what there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sentences.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Rows of queries.
    pub queries: usize,
    /// Rows of keys and values.
    pub keys: usize,
    /// Elements of a query and a key.
    pub size: usize,
    /// Elements of a value.
    pub value_size: usize,
}

/// Rows of all heads: the row of sentence `b`, head `n` and place `i` starts at
/// `b * batch + n * head + i * row`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The elements; rounded only where [`takes_rounded`].
    pub data: Floats<'a>,
    /// From one sentence to the next.
    pub batch: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one place to the next.
    pub row: usize,
}

impl<'a> Rows<'a> {
    fn of(&self, b: usize, n: usize) -> Floats<'a> {
        self.data.skip(b * self.batch + n * self.head)
    }

    fn fits(&self, shape: &Shape, rows: usize, size: usize) -> bool {
        let last = |n: usize, step: usize| n.saturating_sub(1) * step;
        let end = last(shape.batch, self.batch)
            + last(shape.heads, self.head)
            + last(rows, self.row)
            + size;
        shape.batch * shape.heads * rows == 0 || end <= self.data.len()
    }
}

/// What is added to the scores before the softmax.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scores<'a> {
    /// What products are multiplied by.
    pub scale: f32,
    /// One number for each key of each sentence.
    pub keys: Option<&'a [f32]>,
    /// A matrix of queries and keys for each head of each sentence: the elements, and the steps
    /// from one sentence and from one head to the next.
    pub pairs: Option<(&'a [f32], [usize; 2])>,
    /// Hides the keys after query `i` + so many.
    pub causal: Option<usize>,
}

/// Whether queries, keys and values may be rounded to BF16.
pub fn takes_rounded(ctx: &Ctx, shape: &Shape) -> bool {
    ctx.bf16() && shape.size >= FEW
}

/// `y[batch, queries, heads, value_size]`: attention of queries `q`, keys `k` and values `v`.
pub fn attention(ctx: &Ctx, shape: Shape, [q, k, v]: [Rows; 3], scores: Scores, y: &mut [f32]) {
    let Shape {
        batch,
        heads,
        queries,
        keys,
        size,
        value_size,
    } = shape;
    let width = heads * value_size;
    assert!(q.fits(&shape, queries, size), "queries have their shape");
    assert!(k.fits(&shape, keys, size), "keys have their shape");
    assert!(v.fits(&shape, keys, value_size), "values have their shape");
    assert_eq!(y.len(), batch * queries * width, "the result has its shape");
    assert!(
        scores.keys.is_none_or(|m| m.len() == batch * keys),
        "there is a number for each key"
    );
    let matrix = |(data, [b, n]): (&[f32], [usize; 2])| {
        (batch.max(1) - 1) * b + (heads.max(1) - 1) * n + queries * keys <= data.len()
    };
    assert!(scores.pairs.is_none_or(matrix), "matrices have their shape");
    if y.is_empty() {
        return;
    }
    if keys == 0 {
        return y.fill(0.0);
    }
    let shared = Shared::new(y);
    let serial = ctx.on_one_thread();
    let one = |task: usize, packed: &mut Option<Packed>| {
        let (b, n) = (task / heads, task % heads);
        let head = OneHead {
            shape: &shape,
            q: (q.of(b, n), q.row),
            k: (k.of(b, n), k.row),
            v: (v.of(b, n), v.row),
            scale: scores.scale,
            by_key: scores.keys.map(|m| &m[b * keys..][..keys]),
            pairs: (scores.pairs).map(|(data, [step_b, step_n])| &data[b * step_b + n * step_n..]),
            causal: scores.causal,
        };
        let write = |i: usize, sums: &[f32], total: &[f32; MAX_LANES]| {
            let part = 1.0 / total_of(total);
            let at = ((b * queries + i) * heads + n) * value_size;
            // SAFETY: these elements belong to this head of this sentence alone.
            let y = unsafe { shared.slice(at..at + value_size) };
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = sum * part);
        };
        #[cfg(target_arch = "x86_64")]
        if takes_rounded(&serial, &shape) {
            // SAFETY: a context has BF16 only where the CPU has AMX and AVX-512.
            return unsafe { tiles::attend(&head, write) };
        }
        let packed = packed.get_or_insert_with(|| Packed::new(&shape));
        attend(&serial, &head, packed, write);
    };
    ctx.threads().parallel_ranges(batch * heads, 1, |tasks| {
        let mut packed = None;
        tasks.for_each(|task| one(task, &mut packed));
    });
}

/// One head of one sentence: queries, keys and values with the distances of their rows, and what
/// becomes of scores.
struct OneHead<'a> {
    shape: &'a Shape,
    q: (Floats<'a>, usize),
    k: (Floats<'a>, usize),
    v: (Floats<'a>, usize),
    scale: f32,
    by_key: Option<&'a [f32]>,
    pairs: Option<&'a [f32]>,
    causal: Option<usize>,
}

impl<'a> OneHead<'a> {
    /// How products of the queries from `first` on with `keys` keys from `begin` on become scores.
    fn among(&self, first: usize, rows: usize, begin: usize, keys: usize) -> Among<'a> {
        let row = self.shape.keys;
        Among {
            rows,
            keys,
            scale: self.scale,
            by_key: self.by_key.map(|m| &m[begin..begin + keys]),
            pairs: self.pairs.map(|p| &p[first * row + begin..]),
            pairs_row: row,
            seen: self.causal.map(|past| (first + past + 1, begin)),
        }
    }
}

/// Attention of a head by products of matrices; `write` takes the place of each query, its sums of
/// weighted values, and the sums of its weights.
fn attend(
    ctx: &Ctx,
    head: &OneHead,
    packed: &mut Packed,
    write: impl Fn(usize, &[f32], &[f32; MAX_LANES]),
) {
    let (queries, size) = (head.shape.queries, head.shape.value_size);
    packed.pack(ctx, head);
    let Packed { parts, block } = packed;
    for first in (0..queries).step_by(QUERIES) {
        let rows = (queries - first).min(QUERIES);
        block.clear();
        for (part, (keys, values)) in parts.iter().enumerate() {
            let mut among = head.among(first, rows, part * KEYS, keys.n());
            let (q, stride) = head.q;
            let q = q.skip(first * stride);
            let mut by_key = Epilogue::default();
            if is_scaled(keys) {
                among.scale = 1.0;
                by_key.bias = among.by_key.take();
            }
            let to = FloatsMut::F32(&mut block.scores);
            gemm_mixed(ctx, rows, q, stride, keys, to, KEYS, &by_key);
            dispatch(ctx.isa(), Weigh(block, &among));
            let carried = Epilogue {
                residual: Some(block.carried[..].into()),
                ..Epilogue::default()
            };
            let sums = &mut block.sums[..rows * size];
            gemm(ctx, rows, &block.scores, KEYS, values, sums, size, &carried);
        }
        for i in 0..rows {
            write(first + i, &block.sums[i * size..][..size], &block.totals[i]);
        }
    }
}

/// The sum of all lanes, pairwise.
#[inline(always)]
fn total_of(lanes: &[f32; MAX_LANES]) -> f32 {
    let mut lanes = *lanes;
    let mut n = MAX_LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
    }
    lanes[0]
}

/// What one head after the other is done with.
struct Packed {
    /// The keys and values of a head, a part after the other.
    parts: Vec<(PackedF32, PackedF32)>,
    block: Block,
}

impl Packed {
    fn new(shape: &Shape) -> Self {
        Self {
            parts: Vec::new(),
            block: Block::new(shape.value_size),
        }
    }

    /// Packs the keys and values of a head.
    fn pack(&mut self, ctx: &Ctx, head: &OneHead) {
        let Shape {
            keys,
            size,
            value_size,
            ..
        } = *head.shape;
        let ((k, k_row), (v, v_row)) = (head.k, head.v);
        for (part, begin) in (0..keys).step_by(KEYS).enumerate() {
            let count = (keys - begin).min(KEYS);
            let (k, v) = (k.skip(begin * k_row), v.skip(begin * v_row));
            match self.parts.get_mut(part) {
                Some((packed_k, packed_v)) => {
                    packed_k.again(ctx, k, k_row, Order::NK);
                    packed_v.again(ctx, v, v_row, Order::KN);
                }
                None => self.parts.push((
                    PackedF32::of_rows(ctx, k, k_row, Order::NK, size, count),
                    PackedF32::of_rows(ctx, v, v_row, Order::KN, count, value_size),
                )),
            }
            let keys = &mut self.parts[part].0;
            if is_scaled(keys) {
                keys.data_mut().iter_mut().for_each(|k| *k *= head.scale);
            }
        }
    }
}

/// Whether packed keys are multiplied by the scale already.
fn is_scaled(keys: &PackedF32) -> bool {
    !keys.rounded()
}

/// What is known of a block of queries.
struct Block {
    /// Rows of `KEYS`: products with a part of the keys, then their weights.
    scores: Vec<f32>,
    /// The largest score of each row.
    most: [f32; QUERIES + MAX_LANES],
    /// What weights are multiplied by since a larger score came.
    factors: [f32; QUERIES + MAX_LANES],
    /// Sums of the weights of each row, by lane.
    totals: [[f32; MAX_LANES]; QUERIES],
    /// Sums of weighted values.
    sums: Vec<f32>,
    /// The same before the part that is being added.
    carried: Vec<f32>,
    size: usize,
}

impl Block {
    fn new(size: usize) -> Self {
        Self {
            scores: vec![0.0; QUERIES * KEYS],
            most: [0.0; _],
            factors: [0.0; _],
            totals: [[0.0; _]; _],
            sums: vec![0.0; QUERIES * size],
            carried: vec![0.0; QUERIES * size],
            size,
        }
    }

    fn clear(&mut self) {
        // A finite number: scores of minus infinity are to weigh nothing.
        self.most.fill(f32::MIN);
        self.totals = [[0.0; _]; _];
        self.sums.fill(0.0);
    }
}

/// How products become scores.
struct Among<'a> {
    rows: usize,
    keys: usize,
    scale: f32,
    by_key: Option<&'a [f32]>,
    pairs: Option<&'a [f32]>,
    pairs_row: usize,
    /// Keys that the first row sees, of all keys (each further row sees one more), and the first
    /// key of the part.
    seen: Option<(usize, usize)>,
}

/// Makes weights of a block's products, and corrects its sums.
struct Weigh<'a, 'b>(&'a mut Block, &'a Among<'b>);

impl Body for Weigh<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(block, among) = self;
        let keys = among.keys;
        let before = block.most;
        let rows = block.scores.chunks_exact_mut(KEYS).zip(&mut block.most);
        for (i, (row, most)) in rows.enumerate().take(among.rows) {
            *most = among.score(s, i, &mut row[..keys], *most);
        }
        for i in (0..among.rows).step_by(S::LANES) {
            // SAFETY: the arrays are a vector longer than there are rows.
            unsafe {
                let now = s.load(block.most.as_ptr().add(i));
                let x = s.sub(s.load(before.as_ptr().add(i)), now);
                s.store(block.factors.as_mut_ptr().add(i), exp_below(s, x));
            }
        }
        let carried = block.carried.chunks_exact_mut(block.size);
        let sums = block.sums.chunks_exact(block.size).zip(carried);
        let rows = block.scores.chunks_exact_mut(KEYS).zip(&mut block.totals);
        for (i, ((row, total), (sums, carried))) in rows.zip(sums).enumerate().take(among.rows) {
            let factor = block.factors[i];
            let row = row.as_mut_ptr();
            // SAFETY: a row of the block has so many scores.
            unsafe {
                weigh(s, row, keys, block.most[i], factor, total, |at, y, n| {
                    if n == S::LANES {
                        s.store(row.add(at), y);
                    } else {
                        s.store_n(row.add(at), y, n);
                    }
                });
            }
            for (to, sum) in carried.iter_mut().zip(sums) {
                *to = sum * factor;
            }
        }
    }
}

impl Among<'_> {
    /// Makes scores of the products of query `i`: `row * scale + keys + pairs`, and those it does
    /// not see as small as can be. The largest of them and `first`.
    #[inline(always)]
    fn score<S: Simd>(&self, s: S, i: usize, row: &mut [f32], first: f32) -> f32 {
        let n = row.len();
        let pairs = self.pairs.map(|p| &p[i * self.pairs_row..][..n]);
        let keys = self.by_key.map(|k| &k[..n]);
        let seen = self
            .seen
            .map_or(n, |(seen, begin)| (seen + i).saturating_sub(begin).min(n));
        let scale = s.splat(self.scale);
        let (mut most, mut rest) = (s.splat(first), first);
        let mut at = 0;
        let is_score = self.scale == 1.0 && keys.is_none() && pairs.is_none();
        if is_score && n.is_multiple_of(S::LANES) && seen == n {
            for row in row.chunks_exact(S::LANES) {
                // SAFETY: the chunk is a vector.
                most = s.max(most, unsafe { s.load(row.as_ptr()) });
            }
            return s.largest(most);
        }
        // SAFETY: `step` elements from `at` on lie in all slices.
        unsafe {
            while at < seen {
                let step = (seen - at).min(S::LANES);
                let to = row.as_mut_ptr().add(at);
                let load = |p: *const f32| {
                    if step == S::LANES {
                        s.load(p)
                    } else {
                        s.load_n(p, step)
                    }
                };
                let mut y = s.mul(load(to), scale);
                if let Some(keys) = keys {
                    y = s.add(y, load(keys.as_ptr().add(at)));
                }
                if let Some(pairs) = pairs {
                    y = s.add(y, load(pairs.as_ptr().add(at)));
                }
                if step == S::LANES {
                    s.store(to, y);
                    most = s.max(most, y);
                } else {
                    s.store_n(to, y, step);
                    rest = row[at..seen].iter().fold(rest, |rest, &x| rest.max(x));
                }
                at += step;
            }
        }
        row[seen..].fill(f32::MIN);
        s.largest(most).max(rest)
    }
}

/// `y = exp(row - most)` of `n` scores, and `total = total * factor + y` by lane. `put` takes where
/// each vector starts, and how many lanes count.
///
/// # Safety
/// The scores are readable until they were put, and `put` may be called.
#[inline(always)]
unsafe fn weigh<S: Simd>(
    s: S,
    row: *const f32,
    n: usize,
    most: f32,
    factor: f32,
    total: &mut [f32; MAX_LANES],
    mut put: impl FnMut(usize, S::F, usize),
) {
    let whole = n / S::LANES * S::LANES;
    let most = s.splat(most);
    // SAFETY: the caller's promise; the total holds a vector.
    unsafe {
        let mut sum = s.mul(s.load(total.as_ptr()), s.splat(factor));
        for at in (0..whole).step_by(S::LANES) {
            let y = exp_below(s, s.sub(s.load(row.add(at)), most));
            put(at, y, S::LANES);
            sum = s.add(sum, y);
        }
        if whole < n {
            let y = exp_below(s, s.sub(s.load_n(row.add(whole), n - whole), most));
            let mut lanes = [0.0; MAX_LANES];
            s.store_n(lanes.as_mut_ptr(), y, n - whole);
            put(whole, y, n - whole);
            sum = s.add(sum, s.load(lanes.as_ptr()));
        }
        s.store(total.as_mut_ptr(), sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, close, contexts};

    fn plain(shape: &Shape, [q, k, v]: [Rows; 3], scores: &Scores) -> Vec<f32> {
        let mut y = Vec::new();
        for b in 0..shape.batch {
            for i in 0..shape.queries {
                for n in 0..shape.heads {
                    let score = |j: usize| -> f64 {
                        let products = (0..shape.size).map(|e| {
                            f64::from(q.of(b, n).f32()[i * q.row + e])
                                * f64::from(k.of(b, n).f32()[j * k.row + e])
                        });
                        let mut s = products.sum::<f64>() * f64::from(scores.scale);
                        s += scores
                            .keys
                            .map_or(0.0, |m| f64::from(m[b * shape.keys + j]));
                        s += scores.pairs.map_or(0.0, |(d, [x, z])| {
                            f64::from(d[b * x + n * z + i * shape.keys + j])
                        });
                        let hidden = scores.causal.is_some_and(|past| j > past + i);
                        if hidden { f64::from(f32::MIN) } else { s }
                    };
                    let all: Vec<f64> = (0..shape.keys).map(score).collect();
                    let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = all.iter().map(|s| (s - most).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for e in 0..shape.value_size {
                        let of = |j: usize| f64::from(v.of(b, n).f32()[j * v.row + e]);
                        let total: f64 = (0..shape.keys).map(|j| weights[j] * of(j)).sum();
                        y.push((total / sum) as f32);
                    }
                }
            }
        }
        y
    }

    /// All contexts, of f32 and of BF16, and how near results are to the definition.
    fn contexts_and_tolerances() -> Vec<(Ctx, f32)> {
        let all = contexts().into_iter();
        let rounds = |ctx: &Ctx| ctx.isa().multiplies_bf16();
        let bf16 = (contexts().into_iter().filter(rounds)).map(|ctx| (ctx.with_bf16(true), 0.02));
        all.map(|ctx| (ctx, 1e-4)).chain(bf16).collect()
    }

    /// Numbers that BF16 has.
    fn exact(mut x: Vec<f32>) -> Vec<f32> {
        x.iter_mut()
            .for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
        x
    }

    #[test]
    fn rounded_rows_give_what_their_numbers_give() {
        let mut random = Random::new(7);
        for (queries, keys, size) in [(1, 1, 16), (5, 10, 32), (70, 140, 33), (49, 129, 64)] {
            let shape = Shape {
                batch: 2,
                heads: 3,
                queries,
                keys,
                size,
                value_size: 20,
            };
            let narrow = |x: &f32| half::bf16::from_f32(*x);
            let data: Vec<_> = random.floats(2 * 140 * 3 * 64).iter().map(narrow).collect();
            let wide: Vec<f32> = data.iter().map(|x| x.to_f32()).collect();
            for threads in [1, 2] {
                let ctx = Ctx::new(crate::Isa::Amx, crate::Threads::new(threads)).with_bf16(true);
                if !takes_rounded(&ctx, &shape) {
                    continue;
                }
                let [y, z] = [Floats::F32(&wide), Floats::Bf16(&data)].map(|data| {
                    let rows = Rows {
                        data,
                        batch: 140 * 3 * 64,
                        head: 64,
                        row: 3 * 64,
                    };
                    let scores = Scores {
                        scale: 0.2,
                        ..Scores::default()
                    };
                    let mut y = vec![f32::NAN; 2 * queries * 3 * 20];
                    attention(&ctx, shape, [rows; 3], scores, &mut y);
                    y
                });
                assert_eq!(y, z, "{shape:?}");
            }
        }
    }

    #[test]
    fn keys_hidden_by_infinity_weigh_nothing_wherever_they_stand() {
        let mut random = Random::new(6);
        let shape = Shape {
            batch: 1,
            heads: 1,
            queries: 2,
            keys: 300,
            size: 17,
            value_size: 17,
        };
        let data: [Vec<f32>; 3] = [2, 300, 300].map(|n| exact(random.floats(n * 17)));
        let operands = [0, 1, 2].map(|i| Rows {
            data: Floats::F32(&data[i]),
            batch: 0,
            head: 0,
            row: 17,
        });
        for seen in [0..130, 130..300, 7..8, 270..280] {
            let keys: Vec<f32> = (0..300)
                .map(|j| {
                    if seen.contains(&j) {
                        0.0
                    } else {
                        f32::NEG_INFINITY
                    }
                })
                .collect();
            let scores = Scores {
                scale: 0.5,
                keys: Some(&keys),
                ..Scores::default()
            };
            let want = plain(&shape, operands, &scores);
            for (ctx, tolerance) in contexts_and_tolerances() {
                let mut y = vec![f32::NAN; want.len()];
                attention(&ctx, shape, operands, scores, &mut y);
                close(&y, &want, tolerance, &format!("{seen:?}"));
            }
        }
    }

    #[test]
    fn equals_the_definition_on_odd_shapes_with_every_mask() {
        let mut random = Random::new(5);
        let sizes = [1, 2, 3, 7, 8, 16, 33];
        for round in 0..64 {
            let pick = |r: &mut Random| r.pick(&sizes);
            let shape = Shape {
                batch: random.pick(&[1, 2, 3]),
                heads: random.pick(&[1, 2, 3]),
                queries: if round == 7 { 130 } else { pick(&mut random) },
                keys: match round % 8 {
                    5 => random.pick(&[127, 128, 129, 257, 300, 600]),
                    _ => pick(&mut random),
                },
                size: pick(&mut random),
                value_size: pick(&mut random),
            };
            let (row, value_row) = (shape.heads * shape.size, shape.heads * shape.value_size + 1);
            let mut rows =
                |count: usize, row: usize| exact(random.floats(shape.batch * count * row));
            let data = [
                rows(shape.queries, row),
                rows(shape.keys, row),
                rows(shape.keys, value_row),
            ];
            let of = |i: usize, count: usize, row: usize, head: usize| Rows {
                data: Floats::F32(&data[i]),
                batch: count * row,
                head,
                row,
            };
            let operands = [
                of(0, shape.queries, row, shape.size),
                of(1, shape.keys, row, shape.size),
                of(2, shape.keys, value_row, shape.value_size),
            ];
            let keys = random.floats(shape.batch * shape.keys);
            let matrix = shape.queries * shape.keys;
            let pairs = random.floats(shape.heads * matrix);
            let scores = Scores {
                scale: 0.7,
                keys: (round % 2 == 0).then_some(&keys[..]),
                pairs: (round % 3 == 0).then_some((&pairs[..], [0, matrix])),
                causal: (round % 4 == 0).then_some(round % 3),
            };
            let want = plain(&shape, operands, &scores);
            for (ctx, tolerance) in contexts_and_tolerances() {
                let mut y = vec![f32::NAN; want.len()];
                attention(&ctx, shape, operands, scores, &mut y);
                close(&y, &want, tolerance, &format!("{shape:?}"));
            }
        }
    }
}

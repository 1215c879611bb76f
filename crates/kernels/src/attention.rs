//! Attention by head: softmax of the scaled products of queries and keys, times the values.
//!
//! A task takes one head of one sentence, in blocks of queries, so that scores stay in the cache;
//! no result depends on threads.

use crate::Ctx;
use crate::gemm::{Epilogue, Order, PackedF32, gemm};
use crate::norm::softmax;
use crate::threads::{Shared, Threads};

/// Queries whose scores are held at once.
const BLOCK: usize = 64;

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
    /// The elements.
    pub data: &'a [f32],
    /// From one sentence to the next.
    pub batch: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one place to the next.
    pub row: usize,
}

impl<'a> Rows<'a> {
    fn of(&self, b: usize, n: usize) -> &'a [f32] {
        &self.data[b * self.batch + n * self.head..]
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
    let serial = Ctx {
        isa: ctx.isa(),
        threads: Threads::new(1),
    };
    ctx.threads().parallel_for(batch * heads, |task| {
        let (b, n) = (task / heads, task % heads);
        let head = Head::pack(
            &serial,
            &shape,
            [k.of(b, n), v.of(b, n)],
            [k.row, v.row],
            scores.scale,
        );
        let mut room = Room::new(&shape);
        for first in (0..queries).step_by(BLOCK) {
            let rows = (queries - first).min(BLOCK);
            let epilogue = Epilogue {
                bias: scores.keys.map(|m| &m[b * keys..][..keys]),
                residual: scores.pairs.map(|(data, [step_b, step_n])| {
                    &data[b * step_b + n * step_n + first * keys..][..rows * keys]
                }),
                ..Epilogue::default()
            };
            let queries_of = &q.of(b, n)[first * q.row..];
            let out = head.block(
                &serial,
                rows,
                (queries_of, q.row),
                &epilogue,
                |scores_of| {
                    if let Some(past) = scores.causal {
                        for (i, row) in scores_of.chunks_exact_mut(keys).enumerate() {
                            row[(first + i + past + 1).min(keys)..].fill(f32::MIN);
                        }
                    }
                },
                &mut room,
            );
            for (i, row) in out.chunks_exact(value_size.max(1)).enumerate() {
                let at = ((b * queries + first + i) * heads + n) * value_size;
                // SAFETY: these elements belong to this head of this sentence alone.
                unsafe { shared.slice(at..at + value_size) }.copy_from_slice(row);
            }
        }
    });
}

/// The keys and values of one head, packed.
struct Head {
    keys: PackedF32,
    values: PackedF32,
}

/// Scratch for one block.
struct Room {
    scores: Vec<f32>,
    weights: Vec<f32>,
    out: Vec<f32>,
}

impl Room {
    fn new(shape: &Shape) -> Self {
        let rows = shape.queries.min(BLOCK);
        Self {
            scores: vec![0.0; rows * shape.keys],
            weights: vec![0.0; rows * shape.keys],
            out: vec![0.0; rows * shape.value_size],
        }
    }
}

impl Head {
    /// The keys are multiplied by the scale here, once for all queries.
    fn pack(
        ctx: &Ctx,
        shape: &Shape,
        [k, v]: [&[f32]; 2],
        [k_row, v_row]: [usize; 2],
        scale: f32,
    ) -> Self {
        let dense = |data: &[f32], row: usize, size: usize, factor: f32| -> Vec<f32> {
            let mut dense = Vec::with_capacity(shape.keys * size);
            for i in 0..shape.keys {
                dense.extend(data[i * row..][..size].iter().map(|x| x * factor));
            }
            dense
        };
        let keys = dense(k, k_row, shape.size, scale);
        let values = dense(v, v_row, shape.value_size, 1.0);
        Self {
            keys: PackedF32::new(ctx, &keys, Order::NK, shape.size, shape.keys),
            values: PackedF32::new(ctx, &values, Order::KN, shape.keys, shape.value_size),
        }
    }

    /// The result of `rows` queries; `hide` changes their scores before the softmax.
    fn block<'r>(
        &self,
        ctx: &Ctx,
        rows: usize,
        (q, q_row): (&[f32], usize),
        epilogue: &Epilogue,
        hide: impl Fn(&mut [f32]),
        room: &'r mut Room,
    ) -> &'r [f32] {
        let keys = self.keys.n();
        let scores = &mut room.scores[..rows * keys];
        gemm(ctx, rows, q, q_row, &self.keys, scores, keys, epilogue);
        hide(scores);
        let weights = &mut room.weights[..rows * keys];
        softmax(ctx, scores, keys, weights);
        let size = self.values.n();
        let out = &mut room.out[..rows * size];
        let plain = Epilogue::default();
        gemm(ctx, rows, weights, keys, &self.values, out, size, &plain);
        out
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
                            f64::from(q.of(b, n)[i * q.row + e])
                                * f64::from(k.of(b, n)[j * k.row + e])
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
                        let of = |j: usize| f64::from(v.of(b, n)[j * v.row + e]);
                        let total: f64 = (0..shape.keys).map(|j| weights[j] * of(j)).sum();
                        y.push((total / sum) as f32);
                    }
                }
            }
        }
        y
    }

    #[test]
    fn equals_the_definition_on_odd_shapes_with_every_mask() {
        let mut random = Random::new(5);
        let sizes = [1, 2, 3, 7, 8, 16, 33];
        for round in 0..40 {
            let pick = |r: &mut Random| r.pick(&sizes);
            let shape = Shape {
                batch: random.pick(&[1, 2, 3]),
                heads: random.pick(&[1, 2, 3]),
                queries: if round == 7 { 130 } else { pick(&mut random) },
                keys: pick(&mut random),
                size: pick(&mut random),
                value_size: pick(&mut random),
            };
            let (row, value_row) = (shape.heads * shape.size, shape.heads * shape.value_size + 1);
            let mut rows = |count: usize, row: usize| random.floats(shape.batch * count * row);
            let data = [
                rows(shape.queries, row),
                rows(shape.keys, row),
                rows(shape.keys, value_row),
            ];
            let of = |i: usize, count: usize, row: usize, head: usize| Rows {
                data: &data[i],
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
            for ctx in contexts() {
                let mut y = vec![f32::NAN; want.len()];
                attention(&ctx, shape, operands, scores, &mut y);
                close(&y, &want, 1e-4, &format!("{shape:?}"));
            }
        }
    }
}

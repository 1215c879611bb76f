//! Products of matrices that are both computed, one or many of the same size.

use std::ops::Range;

use super::{DEPTH, Epilogue, PackedF32, Share, Target, fits, rows_in_cache};
use crate::Ctx;
use crate::arena::with_scratch;
use crate::floats::Floats;
use crate::gemm::left::{Columns, Steps};
use crate::gemm::{Cut, Order};

/// One side of products: matrices one after another.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Elements from a matrix to the next; 0: the same for all products.
    pub step: usize,
    /// Whether rows and columns are swapped in memory: `[K, M]` on the left, `[N, K]` on the right.
    pub turned: bool,
}

/// `C = act(alpha A B + bias + residual)` for each of `count` products of `[m, k]` and `[k, n]`;
/// the matrices of `c` and of a residual stand one after another.
pub fn products(
    ctx: &Ctx,
    count: usize,
    [m, k, n]: [usize; 3],
    [a, b]: [Side; 2],
    alpha: f32,
    c: &mut [f32],
    epilogue: &Epilogue,
) {
    assert_eq!(c.len(), count * m * n, "a matrix for each product");
    if c.is_empty() {
        return;
    }
    let last = |side: Side, size: usize| (count - 1) * side.step + size <= side.data.len();
    assert!(
        last(a, m * k) && last(b, k * n),
        "matrices lie in their side"
    );
    let all = Products {
        size: [m, k, n],
        a,
        b,
        alpha,
    };
    if count > 1 && b.step == 0 && !a.turned && a.step == m * k {
        // The rows of all are those of one.
        let all = Products {
            size: [count * m, k, n],
            ..all
        };
        let b = all.packed(ctx, 0, None);
        all.multiply(ctx, 0..1, &b, c, epilogue);
        return;
    }
    let apart = count >= 2 * ctx.threads().count();
    let alone = ctx.on_one_thread();
    let inner = if apart { &alone } else { ctx };
    let shared = (b.step == 0).then(|| all.packed(ctx, 0, None));
    let work = |range: Range<usize>, c: &mut [f32]| {
        let mut own = None;
        for (i, c) in range.zip(c.chunks_exact_mut(m * n)) {
            let b = match &shared {
                Some(b) => b,
                None => {
                    let place = own.take();
                    own.insert(all.packed(inner, i, place))
                }
            };
            let residual = epilogue.residual.map(|r| r.skip(i * m * n));
            let epilogue = Epilogue {
                residual,
                ..*epilogue
            };
            all.multiply(inner, i..i + 1, b, c, &epilogue);
        }
    };
    if !apart {
        return work(0..count, c);
    }
    let step = count.div_ceil(ctx.threads().count() * 3);
    ctx.threads().parallel_chunks(c, step * m * n, |i, c| {
        work(i * step..count.min((i + 1) * step), c);
    });
}

struct Products<'a> {
    size: [usize; 3],
    a: Side<'a>,
    b: Side<'a>,
    alpha: f32,
}

impl Products<'_> {
    /// B of product `i` times alpha, in the place of another where there is one.
    fn packed(&self, ctx: &Ctx, i: usize, place: Option<PackedF32>) -> PackedF32 {
        let ([_, k, n], b) = (self.size, self.b);
        // A that is turned, and numbers that are scaled, are not rounded.
        let plain = ctx.clone().with_bf16(false);
        let exact = self.a.turned || self.alpha != 1.0;
        let ctx = if exact { &plain } else { ctx };
        let (order, stride) = if b.turned {
            (Order::NK, k)
        } else {
            (Order::KN, n)
        };
        let data = Floats::F32(&b.data[i * b.step..][..k * n]);
        let mut packed = match place {
            Some(mut packed) => {
                packed.again(ctx, data, stride, order);
                packed
            }
            None => PackedF32::of_rows(ctx, data, stride, order, k, n),
        };
        if self.alpha != 1.0 {
            packed.data_mut().iter_mut().for_each(|x| *x *= self.alpha);
        }
        packed
    }

    /// Product `i`, the only one of the range.
    fn multiply(
        &self,
        ctx: &Ctx,
        i: Range<usize>,
        b: &PackedF32,
        c: &mut [f32],
        epilogue: &Epilogue,
    ) {
        let [m, k, n] = self.size;
        let a = &self.a.data[i.start * self.a.step..];
        if !self.a.turned {
            return super::gemm(ctx, m, a, k, b, c, n, epilogue);
        }
        assert!(fits(k, m, m, a.len()), "A has k rows of m elements");
        let target = Target::new(m, n, c, n, epilogue);
        let rows_of_tile = b.tile_rows();
        let most = rows_in_cache([k, n], rows_of_tile);
        let threads = ctx.threads().count();
        let cut = Cut::new(threads, m, b.panel_count(), rows_of_tile, most);
        ctx.threads().parallel_for(cut.tasks(), |task| {
            let (rows, panels) = cut.task(task);
            // An odd number of lines apart: not all in the same sets of a cache.
            let stride = (rows.len().div_ceil(LINE) | 1) * LINE;
            with_scratch(stride * DEPTH.min(k), |columns: &mut [f32]| {
                let mut start = 0;
                while start == 0 || start < k {
                    let of_k = start..k.min(start + DEPTH);
                    let lines = columns.chunks_exact_mut(stride);
                    for (line, to) in of_k.clone().zip(lines) {
                        let from = &a[line * m + rows.start..line * m + rows.end];
                        to[..rows.len()].copy_from_slice(from);
                    }
                    let share = Share {
                        left: Columns {
                            a: columns.as_ptr(),
                            stride,
                        },
                        steps: Steps {
                            lines: 1,
                            run: of_k.len(),
                            stride: 0,
                        },
                        of_k,
                    };
                    // SAFETY: the scratch has a line of all rows for each of K; tasks write
                    // disjoint parts of C, which `Target::new` checked.
                    unsafe {
                        target.multiply_share(rows.clone(), share, b, panels.clone(), 0);
                    }
                    start += DEPTH;
                }
            });
        });
    }
}

/// Floats of a line of a cache.
const LINE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::testing::{Random, close, contexts};

    fn turned(x: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
        (0..x.len())
            .map(|i| x[i % rows * columns + i / rows])
            .collect()
    }

    #[test]
    fn products_equal_the_plain_sum_however_their_sides_stand() {
        let mut random = Random::new(51);
        let sizes = [1, 2, 5, 12, 13, 16, 31, 33, 64];
        for round in 0..160 {
            let [m, n] = [random.pick(&sizes), random.pick(&sizes)];
            let k = if round % 9 == 0 {
                0
            } else {
                random.pick(&[1, 3, 17, 200, 401])
            };
            let count = random.pick(&[1, 2, 3, 9]);
            let [own_a, own_b] = [0; 2].map(|_| random.below(2) == 0 || count == 1);
            let [turn_a, turn_b] = [0; 2].map(|_| random.below(2) == 0);
            let alpha = random.pick(&[1.0, 1.0, -0.5]);
            let of = |random: &mut Random, own: bool, size: usize| {
                random.floats(size * if own { count } else { 1 })
            };
            let (a, b) = (of(&mut random, own_a, m * k), of(&mut random, own_b, k * n));
            let (bias, residual) = (random.floats(n), random.floats(count * m * n));
            let ep = Epilogue {
                bias: (round % 2 == 0).then_some(&bias[..]),
                residual: (round % 3 == 0).then_some(residual[..].into()),
                activation: Activation::LeakyRelu { alpha: 0.5 },
            };
            let mut want = Vec::new();
            for i in 0..count * m * n {
                let (p, row, column) = (i / (m * n), i / n % m, i % n);
                let (pa, pb) = (
                    if own_a { p * m * k } else { 0 },
                    if own_b { p * k * n } else { 0 },
                );
                let one =
                    |j: usize| f64::from(a[pa + row * k + j]) * f64::from(b[pb + j * n + column]);
                let mut y = (f64::from(alpha) * (0..k).map(one).sum::<f64>()) as f32;
                y += ep.bias.map_or(0.0, |bias| bias[column]);
                y += ep.residual.map_or(0.0, |_| residual[i]);
                want.push(if y < 0.0 { y * 0.5 } else { y });
            }
            let each = |x: &[f32], turn: bool, size: [usize; 2]| -> Vec<f32> {
                let whole = (size[0] * size[1]).max(1);
                let each = x.chunks(whole).flat_map(|x| match turn {
                    true => turned(x, size),
                    false => x.to_vec(),
                });
                each.collect()
            };
            let (ta, tb) = (each(&a, turn_a, [m, k]), each(&b, turn_b, [k, n]));
            let side = |data, own: bool, size: usize, turned| Side {
                data,
                step: if own { size } else { 0 },
                turned,
            };
            let sides = [
                side(&ta, own_a, m * k, turn_a),
                side(&tb, own_b, k * n, turn_b),
            ];
            let mut last: Option<(crate::Isa, Vec<f32>)> = None;
            for ctx in contexts() {
                let mut c = vec![f32::NAN; count * m * n];
                products(&ctx, count, [m, k, n], sides, alpha, &mut c, &ep);
                close(&c, &want, 1e-4, &format!("{count} of {m} {k} {n}"));
                match &last {
                    Some((isa, one)) if *isa == ctx.isa() => assert_eq!(&c, one, "threads"),
                    _ => last = Some((ctx.isa(), c)),
                }
            }
        }
    }
}

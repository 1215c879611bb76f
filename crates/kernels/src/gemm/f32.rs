//! Float matrix product `C = act(A B + bias + residual)` with packed B.
//!
//! Every element of C is one sum over K from first to last, so neither the cut into tiles nor
//! the number of threads changes a bit of it.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
mod few;
#[cfg(target_arch = "x86_64")]
pub(crate) mod mixed;
mod packed;
mod products;
mod single;
mod sizes;
mod store;

#[cfg(target_arch = "x86_64")]
pub(crate) use mixed::AnyStore;
pub use packed::PackedF32;
pub use products::{Side, products};
pub(crate) use sizes::rows_in_cache;
use sizes::{DEPTH, depth_of};
pub(crate) use store::{Put, Store, load_row, store_row};

use super::left::{Even, Left, Rows, Steps, Windows};
use super::{Cut, Order, tile_rows};
use crate::Ctx;
use crate::activation::Activation;
use crate::floats::{Floats, FloatsMut};
use crate::simd::{Ahead, Body, Simd, dispatch};
use crate::threads::Shared;

/// What happens to a product before it is stored: `act(product + bias + residual)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One number for each column.
    pub bias: Option<&'a [f32]>,
    /// A matrix laid out like C; rounded only for matrices that are ([`PackedF32::rounded`]).
    pub residual: Option<Floats<'a>>,
    /// The last thing that happens.
    pub activation: Activation,
}

/// `C[m, n] = act(A[m, k] B + bias + residual)`. Row `r` of A starts at `a[r * a_stride]`, that
/// of C (and of the residual) at `c[r * c_stride]`.
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
pub fn gemm(
    ctx: &Ctx,
    m: usize,
    a: &[f32],
    a_stride: usize,
    b: &PackedF32,
    c: &mut [f32],
    c_stride: usize,
    epilogue: &Epilogue,
) {
    gemm_mixed(ctx, m, a.into(), a_stride, b, c.into(), c_stride, epilogue);
}

/// [`gemm`] of rows that may be rounded already, to rows that may be rounded, where B is
/// ([`PackedF32::rounded`]).
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
pub fn gemm_mixed(
    ctx: &Ctx,
    m: usize,
    a: Floats,
    a_stride: usize,
    b: &PackedF32,
    c: FloatsMut,
    c_stride: usize,
    epilogue: &Epilogue,
) {
    assert!(
        fits(m, b.k, a_stride, a.len()),
        "A has m rows of k elements"
    );
    let target = Target::new(m, b.n(), c, c_stride, epilogue);
    let rows_of_tile = b.tile_rows();
    let most = rows_in_cache([b.k, b.n()], rows_of_tile);
    let cut = Cut::new(
        ctx.threads().count(),
        m,
        b.panels.count(),
        rows_of_tile,
        most,
    );
    ctx.threads().parallel_for(cut.tasks(), |i| {
        let (rows, panels) = cut.task(i);
        // SAFETY: the assertions above cover every row of A and C; tasks write disjoint parts.
        unsafe {
            target.multiply_floats(
                rows.clone(),
                (a, rows.start * a_stride),
                a_stride,
                b,
                panels,
                0,
            )
        };
    });
}

/// [`gemm`] with a right side that is packed for this one call: `b` has `b.len() = k * n`
/// elements in the given order.
pub fn matmul(
    ctx: &Ctx,
    [m, k, n]: [usize; 3],
    a: &[f32],
    b: &[f32],
    order: Order,
    c: &mut [f32],
    epilogue: &Epilogue,
) {
    let b = PackedF32::new(ctx, b, order, k, n);
    gemm(ctx, m, a, k, &b, c, n, epilogue);
}

/// Whether `rows` rows of `columns` elements, `stride` apart, lie in `len` elements.
pub(crate) fn fits(rows: usize, columns: usize, stride: usize, len: usize) -> bool {
    rows == 0 || columns == 0 || (rows - 1) * stride + columns <= len
}

/// Where a product goes, and what happens to it on the way.
pub(crate) struct Target<'a> {
    c: SharedFloats<'a>,
    stride: usize,
    bias: Option<&'a [f32]>,
    residual: Option<Floats<'a>>,
    activation: Activation,
}

enum SharedFloats<'a> {
    F32(Shared<'a, f32>),
    #[cfg(target_arch = "x86_64")]
    Bf16(Shared<'a, half::bf16>),
}

impl<'a> Target<'a> {
    /// Checks that C, bias and residual fit `rows` x `columns`.
    pub(crate) fn new(
        rows: usize,
        columns: usize,
        c: impl Into<FloatsMut<'a>>,
        stride: usize,
        epilogue: &Epilogue<'a>,
    ) -> Self {
        let c = c.into();
        assert!(stride >= columns || rows < 2, "rows of C do not overlap");
        assert!(
            fits(rows, columns, stride, c.len()),
            "C has m rows of n elements"
        );
        assert!(
            epilogue.bias.is_none_or(|b| b.len() == columns),
            "bias has n elements"
        );
        let residual = epilogue.residual;
        assert!(
            residual.is_none_or(|r| r.len() >= c.len()),
            "residual is as long as C"
        );
        let (bias, activation) = (epilogue.bias, epilogue.activation);
        let c = match c {
            FloatsMut::F32(c) => SharedFloats::F32(Shared::new(c)),
            #[cfg(target_arch = "x86_64")]
            FloatsMut::Bf16(c) => SharedFloats::Bf16(Shared::new(c)),
            #[cfg(not(target_arch = "x86_64"))]
            FloatsMut::Bf16(_) => unreachable!("no kernel here rounds"),
        };
        Self {
            c,
            stride,
            bias,
            residual,
            activation,
        }
    }

    /// With a bias that begins with the same and goes on behind the last column.
    pub(crate) fn with_bias(self, bias: Option<&'a [f32]>) -> Self {
        Self { bias, ..self }
    }

    /// Stores from element `at` of C, which belongs to column `offset`. All floats are f32.
    pub(crate) fn store(&self, at: usize, offset: usize) -> Store {
        let c = match &self.c {
            SharedFloats::F32(c) => c.pointer(at),
            #[cfg(target_arch = "x86_64")]
            SharedFloats::Bf16(_) => panic!("this kernel does not round"),
        };
        let residual = self.residual.map(|residual| residual.f32()[at..].as_ptr());
        Store {
            c,
            bias: self.bias.map(|bias| bias[offset..].as_ptr()),
            residual,
            bounds: self
                .activation
                .bounds()
                .unwrap_or((f32::NEG_INFINITY, f32::INFINITY)),
        }
    }

    /// As [`Target::store`], of floats of either kind, for kernels of a CPU with BF16.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn any_store(&self, at: usize, offset: usize) -> AnyStore {
        AnyStore {
            c: match &self.c {
                SharedFloats::F32(c) => mixed::Written::F32(c.pointer(at)),
                SharedFloats::Bf16(c) => mixed::Written::Bf16(c.pointer(at)),
            },
            bias: self.bias.map(|bias| bias[offset..].as_ptr()),
            residual: self.residual.map(|r| mixed::Read::of(r, at)),
            activation: self.activation,
        }
    }

    /// The activation that is left to do after storing.
    pub(crate) fn then(&self) -> Option<Activation> {
        self.activation
            .bounds()
            .is_none()
            .then_some(self.activation)
    }

    /// Multiplies `rows` (of C; `a` is the first of them) with `panels` of B, and stores at
    /// column `offset` and on.
    ///
    /// # Safety
    /// `rows` rows of `b.k` floats are readable at `a`, `a_stride` apart. Rows and columns lie
    /// in what `new` checked, and no other thread writes them.
    pub(crate) unsafe fn multiply(
        &self,
        rows: Range<usize>,
        a: *const f32,
        a_stride: usize,
        b: &PackedF32,
        panels: Range<usize>,
        offset: usize,
    ) {
        #[cfg(target_arch = "x86_64")]
        if b.bf16 {
            // SAFETY: the caller's promise.
            unsafe {
                self.multiply_rounded(rows, (mixed::Read::F32(a), a_stride), b, panels, offset)
            };
            return;
        }
        let left = Even { a, a_stride };
        let steps = Steps {
            lines: 1,
            run: b.k,
            stride: 0,
        };
        // SAFETY: the caller's promise.
        unsafe { self.multiply_left(rows, left, steps, b, panels, offset) };
    }

    /// As [`Target::multiply`], from element `a.1` of `a.0` on.
    ///
    /// # Safety
    /// As there; A is rounded only where B is.
    pub(crate) unsafe fn multiply_floats(
        &self,
        rows: Range<usize>,
        a: (Floats, usize),
        a_stride: usize,
        b: &PackedF32,
        panels: Range<usize>,
        offset: usize,
    ) {
        match a.0 {
            // SAFETY: the caller's promise.
            Floats::F32(x) => unsafe {
                self.multiply(rows, x[a.1..].as_ptr(), a_stride, b, panels, offset);
            },
            #[cfg(target_arch = "x86_64")]
            Floats::Bf16(x) => {
                assert!(b.bf16, "B is rounded as A is");
                let a = mixed::Read::Bf16(x[a.1..].as_ptr());
                // SAFETY: the caller's promise.
                unsafe { self.multiply_rounded(rows, (a, a_stride), b, panels, offset) };
            }
            #[cfg(not(target_arch = "x86_64"))]
            Floats::Bf16(_) => unreachable!("no kernel here reads BF16"),
        }
    }

    /// As [`Target::multiply`], where each row of A is a few lines of neighbours, and rows may
    /// overlap: a row has `steps.lines` runs, `steps.stride` apart, from its address in `a` on.
    ///
    /// # Safety
    /// As for [`Target::multiply`]; `a` has an address for each row.
    pub(crate) unsafe fn multiply_windows(
        &self,
        rows: Range<usize>,
        a: &[*const f32],
        steps: Steps,
        b: &PackedF32,
        panels: Range<usize>,
        offset: usize,
    ) {
        assert_eq!(
            (a.len(), steps.lines * steps.run),
            (rows.len(), b.k),
            "rows of windows"
        );
        // SAFETY: the caller's promise.
        unsafe { self.multiply_left(rows, Windows { rows: a }, steps, b, panels, offset) };
    }

    /// # Safety
    /// As for [`Target::multiply`].
    unsafe fn multiply_left<L: Left<f32>>(
        &self,
        rows: Range<usize>,
        left: L,
        steps: Steps,
        b: &PackedF32,
        panels: Range<usize>,
        offset: usize,
    ) {
        let block = Share {
            left,
            steps,
            of_k: 0..b.k,
        };
        // SAFETY: the caller's promise.
        unsafe { self.multiply_share(rows, block, b, panels, offset) };
    }

    /// As [`Target::multiply`], of a part of K only: what C holds is added to, unless the part
    /// begins K, and bias, residual and activation follow where it ends K.
    ///
    /// # Safety
    /// As for [`Target::multiply`], of this part.
    unsafe fn multiply_share<L: Left<f32>>(
        &self,
        rows: Range<usize>,
        share: Share<L>,
        b: &PackedF32,
        panels: Range<usize>,
        offset: usize,
    ) {
        if rows.is_empty() || panels.is_empty() {
            return;
        }
        let at = rows.start * self.stride + offset;
        let block = Block {
            rows: rows.len(),
            share,
            b,
            panels,
            to: self.store(at, offset),
            c_stride: self.stride,
            then: self.then(),
        };
        dispatch(b.isa, block);
    }
}

/// Rows of A, and the part of K that they hold.
struct Share<L> {
    left: L,
    steps: Steps,
    of_k: Range<usize>,
}

/// A part of a product that one thread computes.
struct Block<'a, L> {
    rows: usize,
    share: Share<L>,
    b: &'a PackedF32,
    panels: Range<usize>,
    to: Store,
    c_stride: usize,
    then: Option<Activation>,
}

impl<L: Left<f32>> Body for Block<'_, L> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (k, of_k) = (self.b.k, self.share.of_k.clone());
        if self.rows == 1 && self.share.steps.lines == 1 && of_k.len() == k {
            // SAFETY: `Target::multiply` promises the memory.
            unsafe { self.single_row(s) };
            return;
        }
        let data = self.b.data.typed::<f32>();
        let mut start = of_k.start;
        while start == of_k.start || start < of_k.end {
            let (offset, steps) = self
                .share
                .steps
                .part(start - of_k.start, depth_of(S::LANES, self.rows));
            let depth = steps.lines * steps.run;
            for p in self.panels.clone() {
                let (first, columns, vectors) = self.b.panels.panel(p);
                let next = if p + 1 < self.panels.end {
                    self.b.panels.part(p + 1, k, start..start + depth)
                } else {
                    let end = of_k.end.min(start + 2 * depth);
                    self.b.panels.part(self.panels.start, k, start + depth..end)
                };
                let tile = Tile {
                    next: &data[next],
                    offset,
                    steps,
                    b: data[first * k + start * vectors * S::LANES..].as_ptr(),
                    columns,
                    opens: start == 0,
                    closes: start + depth >= k,
                };
                // SAFETY: `Target::multiply` promises the memory.
                unsafe { self.panel(s, first, vectors, &tile) };
            }
            start += depth.max(1);
        }
    }
}

/// One panel's share of K.
struct Tile<'a> {
    /// What is needed after it.
    next: &'a [f32],
    offset: usize,
    steps: Steps,
    b: *const f32,
    columns: usize,
    opens: bool,
    closes: bool,
}

impl<L: Left<f32>> Block<'_, L> {
    /// All rows of one panel, a tile at a time.
    ///
    /// # Safety
    /// As for `Target::multiply`.
    #[inline(always)]
    unsafe fn panel<S: Simd>(&self, s: S, first: usize, vectors: usize, t: &Tile) {
        // Tiles of even height: a last one of few rows would wait for its own sums.
        let tiles = self.rows.div_ceil(tile_rows::<S>(vectors));
        let (least, more) = (self.rows / tiles, self.rows % tiles);
        let depth = t.steps.lines * t.steps.run;
        let mut row = 0;
        for tile in 0..tiles {
            let ahead = Ahead::new(t.next, depth, tile, tiles);
            let rows = least + usize::from(tile < more);
            // SAFETY: the row and the panel lie in the block.
            unsafe {
                let at = row * self.c_stride + first;
                crate::gemm::by_rows!(S, rows, vectors, tile(self, s, t, ahead, row, at, first));
            }
            row += rows;
        }
    }

    /// A tile of `M` rows from `row` on and `V` vectors; `at` is its place in C, `first` its first
    /// column.
    ///
    /// # Safety
    /// As for `Target::multiply`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        t: &Tile,
        mut ahead: Ahead,
        row: usize,
        at: usize,
        first: usize,
    ) {
        let mut sums = [[s.splat(0.0); V]; M];
        // SAFETY: the steps of M rows are readable, as many rows of V vectors at `b`, and M rows
        // of `columns` elements are writable at `c`.
        unsafe {
            let c = self.to.c.add(at);
            let last = t.columns - (V - 1) * S::LANES;
            if !t.opens {
                for (i, row) in sums.iter_mut().enumerate() {
                    load_row(s, row, c.add(i * self.c_stride), last);
                }
            }
            for line in 0..t.steps.lines {
                let at = t.offset + line * t.steps.stride;
                let a = self.share.left.rows::<M>(row, at);
                let b = t.b.add(line * t.steps.run * V * S::LANES);
                for k in 0..t.steps.run {
                    if V > 1 {
                        ahead.step();
                    }
                    let b = b.add(k * V * S::LANES);
                    let b: [S::F; V] = s.load_all(b);
                    for i in 0..M {
                        let a = s.splat(*a.at(i, k));
                        for v in 0..V {
                            sums[i][v] = s.fma(a, b[v], sums[i][v]);
                        }
                    }
                }
            }
            if t.closes {
                self.to.put(s, sums, at, self.c_stride, first, last);
                if let Some(then) = self.then {
                    // What a tile stored lies in the nearest cache.
                    then.map_rows(S::ISA, c, c, [M, self.c_stride], t.columns);
                }
            } else {
                for (i, row) in sums.iter().enumerate() {
                    store_row(s, row, c.add(i * self.c_stride), last);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{Random, close, contexts};

    fn expected(m: usize, k: usize, n: usize, a: &[f32], b: &[f32], ep: &Epilogue) -> Vec<f32> {
        let mut c = vec![0.0; m * n];
        for i in 0..m * n {
            let products =
                (0..k).map(|p| f64::from(a[i / n * k + p]) * f64::from(b[p * n + i % n]));
            let mut y = products.sum::<f64>() as f32 + ep.bias.map_or(0.0, |bias| bias[i % n]);
            y += ep.residual.map_or(0.0, |r| r.f32()[i]);
            c[i] = match ep.activation {
                Activation::Relu => y.max(0.0),
                Activation::HardSwish => y * (y / 6.0 + 0.5).clamp(0.0, 1.0),
                _ => y,
            };
        }
        c
    }

    #[test]
    fn equals_the_plain_sum_on_edges_of_tiles() {
        let mut random = Random::new(1);
        let sizes = [
            0, 1, 2, 3, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 24, 31, 32, 33, 47, 130,
        ];
        for round in 0..150 {
            let (m, n) = (random.pick(&sizes), random.pick(&sizes));
            let k = if round % 10 == 0 {
                500 + round * 5
            } else {
                random.pick(&sizes)
            };
            let (a, b) = (random.floats(m * k), random.floats(k * n));
            let (bias, residual) = (random.floats(n), random.floats(m * n));
            let ep = Epilogue {
                bias: (round % 2 == 0).then_some(&bias[..]),
                residual: (round % 3 == 0).then_some(residual[..].into()),
                activation: random.pick(&[
                    Activation::None,
                    Activation::Relu,
                    Activation::HardSwish,
                ]),
            };
            let want = expected(m, k, n, &a, &b, &ep);
            let transposed: Vec<f32> = (0..k * n)
                .map(|i| b[i % k.max(1) * n + i / k.max(1)])
                .collect();
            let mut first: Option<(Isa, Vec<f32>)> = None;
            for ctx in contexts() {
                let mut c = vec![f32::NAN; m * n];
                matmul(&ctx, [m, k, n], &a, &b, Order::KN, &mut c, &ep);
                close(
                    &c,
                    &want,
                    2e-5 * (k as f32).sqrt().max(1.0),
                    &format!("{m} {k} {n}"),
                );
                let mut d = vec![f32::NAN; m * n];
                matmul(&ctx, [m, k, n], &a, &transposed, Order::NK, &mut d, &ep);
                assert_eq!(c, d, "both orders of B give the same");
                match &first {
                    Some((isa, one)) if *isa == ctx.isa() => assert_eq!(&c, one, "threads"),
                    _ => first = Some((ctx.isa(), c)),
                }
            }
        }
    }

    #[test]
    fn blocks_of_many_rows_equal_the_plain_sum() {
        let mut random = Random::new(4);
        for [m, k, n] in [[530, 384, 33], [1100, 200, 17], [260, 400, 20]] {
            let (a, b, bias) = (random.floats(m * k), random.floats(k * n), random.floats(n));
            let ep = Epilogue {
                bias: Some(&bias),
                ..Epilogue::default()
            };
            let want = expected(m, k, n, &a, &b, &ep);
            for ctx in contexts() {
                let mut c = vec![f32::NAN; m * n];
                matmul(&ctx, [m, k, n], &a, &b, Order::KN, &mut c, &ep);
                close(&c, &want, 2e-5 * (k as f32).sqrt(), &format!("{m} {k} {n}"));
            }
        }
    }

    #[test]
    fn strides_leave_the_gaps_alone() {
        let mut random = Random::new(2);
        let (m, k, n) = (13, 9, 21);
        let (a, b) = (random.floats(m * 11 + 1), random.floats(k * n));
        for ctx in contexts() {
            let packed = PackedF32::new(&ctx, &b, Order::KN, k, n);
            let mut c = vec![7.0; m * 25];
            gemm(
                &ctx,
                m,
                &a[1..],
                11,
                &packed,
                &mut c,
                25,
                &Epilogue::default(),
            );
            for row in 0..m {
                let a = &a[1 + row * 11..][..k];
                let want = expected(1, k, n, a, &b, &Epilogue::default());
                close(&c[row * 25..][..n], &want, 1e-5, "row");
                assert!(c[row * 25 + n..row * 25 + 25].iter().all(|x| *x == 7.0));
            }
        }
    }

    #[test]
    fn nan_and_infinity_go_through() {
        for ctx in contexts() {
            let mut c = [0.0; 3];
            let a = [f32::NAN, f32::INFINITY, -1.0];
            let relu = Epilogue {
                activation: Activation::Relu,
                ..Epilogue::default()
            };
            matmul(&ctx, [3, 1, 1], &a, &[1.0], Order::KN, &mut c, &relu);
            assert!(c[0].is_nan() && c[1] == f32::INFINITY && c[2] == 0.0);
        }
    }
}

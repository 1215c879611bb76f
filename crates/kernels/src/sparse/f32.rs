//! Products of floats with lists of weights: `C = act(A B + bias + residual)`.

mod tile;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::break_even::{Form, choose};
use super::cut::Cut;
use super::lists::{FOUR, Lists, Size};
use super::{name, told};
use crate::arena::{Buffer, with_scratch};
use crate::gemm::f32::{Epilogue, PackedF32, Target, fits, gemm};
use crate::gemm::{Order, shape};
use crate::simd::dispatch;
use crate::threads::Shared;
use crate::{Ctx, Isa};

/// A matrix `[K, N]` of which most is zero, as lists for the kernel of one instruction set.
#[derive(Clone, Debug)]
pub struct SparseF32 {
    lists: Lists,
    isa: Isa,
}

impl SparseF32 {
    /// The lists of `b`, which has `k * n` elements in the given order, where products of `m` rows
    /// with them are quicker than with dense weights, and the context takes lists
    /// ([`Ctx::with_sparse`]).
    pub fn new(ctx: &Ctx, m: usize, b: &[f32], order: Order, k: usize, n: usize) -> Option<Self> {
        Self::of(ctx, order, [m, k, n], || Cow::Borrowed(b))
    }

    /// As [`SparseF32::new`], of a matrix that is read only where it is not stored.
    pub(crate) fn of<'a>(
        ctx: &Ctx,
        order: Order,
        [m, k, n]: [usize; 3],
        b: impl FnOnce() -> Cow<'a, [f32]>,
    ) -> Option<Self> {
        if !ctx.sparse() || ctx.bf16() {
            return None;
        }
        if ctx.has_stored() {
            let (lists, isa) = (Lists::stored(ctx, [k, n], 1, 4)?, ctx.isa());
            return Some(Self { lists, isa });
        }
        let b = b();
        assert_eq!(b.len(), k * n, "the matrix has k * n elements");
        let form = choose(ctx, 4, [m, k, n], order, |i| b[i] == 0.0)?;
        Some(Self::in_form(ctx, &b, order, [k, n], form))
    }

    /// The lists of `b` in this form, whatever is quicker. At most 65 536 rows.
    pub fn in_form(ctx: &Ctx, b: &[f32], order: Order, [k, n]: [usize; 2], form: Form) -> Self {
        let size = Size::new([k, n], form.rows(), 1, 4);
        let at = |o: usize, i: usize| match order {
            Order::KN => b[i * n + o],
            Order::NK => b[o * k + i],
        };
        let put = |to: &mut [u8], x: f32| to.copy_from_slice(&x.to_ne_bytes());
        let (lists, isa) = (Lists::new(size, at, put), ctx.isa());
        Self { lists, isa }
    }

    /// The form of the lists.
    pub fn form(&self) -> Form {
        match self.lists.size().rows {
            1 => Form::Rows,
            _ => Form::Blocks,
        }
    }

    /// Their form, and how much is left, for people.
    pub fn told(&self) -> String {
        told(self.form(), self.lists.size().share())
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub fn parts(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(self.lists.part())
    }

    /// Size of the lists.
    pub fn bytes(&self) -> usize {
        self.lists.part().len()
    }

    /// The name of the kernel.
    pub fn kernel_name(&self) -> &'static str {
        name(self.isa, 4, self.form(), false)
    }

    /// `C[m, n] = act(A[m, k] B + bias + residual)`. Row `r` of A starts at `a[r * a_stride]`, that of
    /// C (and of the residual) at `c[r * c_stride]`.
    #[allow(clippy::too_many_arguments, reason = "the operands of a product")]
    pub fn run(
        &self,
        ctx: &Ctx,
        m: usize,
        a: &[f32],
        a_stride: usize,
        c: &mut [f32],
        c_stride: usize,
        epilogue: &Epilogue,
    ) {
        let &Size { k, n, .. } = self.lists.size();
        assert!(fits(m, k, a_stride, a.len()), "A has m rows of k elements");
        let finite = AtomicBool::new(true);
        let (lanes, _) = shape(self.isa);
        let tile = lanes * tile::vectors(self.isa);
        let target = Target::new(m, n, &mut *c, c_stride, epilogue);
        let cut = Cut::new(ctx.threads().count(), m, tile, n.div_ceil(FOUR));
        ctx.threads().parallel_for(cut.tasks(), |i| {
            let (rows, fours) = cut.task(i);
            let scratch = tile::scratch(self.isa, k, &fours);
            with_scratch(scratch, |scratch: &mut [f32]| {
                let at = rows.start * c_stride;
                let block = tile::Block {
                    lists: &self.lists,
                    ends: self.lists.ends(),
                    a: &a[(rows.start * a_stride).min(a.len())..],
                    a_stride,
                    rows: rows.len(),
                    fours,
                    to: target.store(at, 0),
                    c_stride,
                    then: target.then(),
                    scratch: Shared::new(scratch),
                };
                if !dispatch(self.isa, block) {
                    finite.store(false, Ordering::Relaxed);
                }
            });
        });
        if !finite.into_inner() {
            gemm(ctx, m, a, a_stride, &self.dense(ctx), c, c_stride, epilogue);
        }
    }

    /// The matrix with its zeros.
    fn dense(&self, ctx: &Ctx) -> PackedF32 {
        let &Size { k, n, .. } = self.lists.size();
        let mut b = vec![0.0; n * k];
        self.lists.each(|o, i, w: f32| b[o * k + i] += w);
        let ctx = ctx.without_stored().with_isa(self.isa);
        PackedF32::new(&ctx, &b, Order::NK, k, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::testing::{Random, contexts};

    /// A matrix `[K, N]` of which about this share of blocks, and of weights in them, is not zero.
    fn some_matrix(random: &mut Random, [k, n]: [usize; 2], share: f32) -> Vec<f32> {
        let fours = n.div_ceil(FOUR);
        let kept: Vec<bool> = (0..k * fours)
            .map(|_| random.float().abs() < share)
            .collect();
        let dense = random.below(2) == 0;
        (0..k * n)
            .map(|i| {
                let block = kept[i / n * fours + i % n / FOUR];
                let one = dense || random.float().abs() < share;
                if block && one { random.float() } else { 0.0 }
            })
            .collect()
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        // One NaN is as good as another.
        let one = |x: &f32| if x.is_nan() { u32::MAX } else { x.to_bits() };
        x.iter().map(one).collect()
    }

    #[test]
    fn gives_the_bits_of_the_dense_kernel_on_edges_of_tiles() {
        let mut random = Random::new(31);
        let rows = [
            0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 47, 49, 63, 64, 65, 66, 81, 130,
        ];
        let sizes = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 20, 31, 33, 64, 67];
        for round in 0..160 {
            let (m, n) = (random.pick(&rows), random.pick(&sizes));
            let k = if round % 9 == 0 {
                300
            } else {
                random.pick(&sizes)
            };
            let share = random.pick(&[0.0, 0.1, 0.4, 1.0]);
            let b = some_matrix(&mut random, [k, n], share);
            let (gap, more) = (random.below(3), random.below(3));
            let (wide, stride) = (k + gap, n + more);
            let mut a = random.floats(m * wide);
            if round % 7 == 0 && !a.is_empty() {
                let at = random.below(a.len());
                a[at] = random.pick(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
            }
            let (bias, residual) = (random.floats(n), random.floats(m * stride));
            let ep = Epilogue {
                bias: (round % 2 == 0).then_some(&bias[..]),
                residual: (round % 3 == 0).then_some(residual[..].into()),
                activation: random.pick(&[
                    Activation::None,
                    Activation::Relu,
                    Activation::HardSwish,
                    Activation::Sigmoid,
                ]),
            };
            for ctx in contexts() {
                let packed = PackedF32::new(&ctx, &b, Order::KN, k, n);
                let mut want = vec![7.0; m * stride];
                gemm(&ctx, m, &a, wide, &packed, &mut want, stride, &ep);
                for form in Form::ALL {
                    let sparse = SparseF32::in_form(&ctx, &b, Order::KN, [k, n], form);
                    let mut c = vec![7.0; m * stride];
                    sparse.run(&ctx, m, &a, wide, &mut c, stride, &ep);
                    let what = format!("{m} {k} {n} {form:?} {:?}", ctx.isa());
                    assert_eq!(bits(&c), bits(&want), "{what}");
                }
            }
        }
    }

    #[test]
    fn both_orders_and_stored_lists_give_the_same() {
        let mut random = Random::new(32);
        for ctx in contexts() {
            let (k, n) = (37, 22);
            let b = some_matrix(&mut random, [k, n], 0.3);
            let turned: Vec<f32> = (0..k * n).map(|i| b[i % k * n + i / k]).collect();
            for form in Form::ALL {
                let one = SparseF32::in_form(&ctx, &b, Order::KN, [k, n], form);
                let other = SparseF32::in_form(&ctx, &turned, Order::NK, [k, n], form);
                assert_eq!(one.lists.part().bytes(), other.lists.part().bytes());
                let stored = ctx.with_stored(vec![one.lists.part().clone()]);
                let again =
                    SparseF32::of(&stored, Order::KN, [9, k, n], || unreachable!()).unwrap();
                assert_eq!(again.form(), form);
                assert!(!stored.has_stored(), "nothing is left");
                let other = ctx.with_stored(vec![one.lists.part().clone()]);
                let none = SparseF32::of(&other, Order::KN, [9, k, n + 4], || unreachable!());
                assert!(none.is_none() && other.has_stored());
            }
        }
    }

    #[test]
    fn stored_lists_that_leave_the_matrix_are_not_taken() {
        let mut random = Random::new(33);
        let ctx = Ctx::serial();
        let (k, n) = (19, 12);
        let b = some_matrix(&mut random, [k, n], 0.5);
        let good = SparseF32::in_form(&ctx, &b, Order::KN, [k, n], Form::Blocks);
        let takes = |part: Buffer| {
            let ctx = ctx.with_stored(vec![part]);
            SparseF32::of(&ctx, Order::KN, [9, k, n], || unreachable!()).is_some()
        };
        let part = good.lists.part();
        assert!(takes(part.clone()));
        // A magic number, a size, where a list begins, an input.
        for (at, byte) in [(0, 1), (8, 99), (28, 3), (64 + 4, 200), (128, 77)] {
            let mut bad = part.clone();
            bad.bytes_mut()[at] ^= byte;
            assert!(!takes(bad), "byte {at}");
        }
        assert!(!takes(Buffer::zeroed(40)));
    }
}

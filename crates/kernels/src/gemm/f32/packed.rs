//! Packed matrices of floats.

use std::borrow::Cow;

#[cfg(target_arch = "x86_64")]
use super::bf16;
use crate::arena::Buffer;
use crate::floats::Floats;
use crate::gemm::{Order, Panels, kernel, shape, tasks_of};
use crate::{Ctx, Isa, rows};

/// A matrix `[K, N]`, laid out for the micro-kernel of one instruction set; rounded to BF16 where
/// the context lets it be.
#[derive(Clone, Debug)]
pub struct PackedF32 {
    pub(super) k: usize,
    pub(super) panels: Panels,
    pub(super) isa: Isa,
    pub(super) bf16: bool,
    pub(super) data: Buffer,
}

impl PackedF32 {
    /// Packs `b`, which has `k * n` elements in the given order.
    pub fn new(ctx: &Ctx, b: &[f32], order: Order, k: usize, n: usize) -> Self {
        Self::of(ctx, order, [k, n], || Cow::Borrowed(b))
    }

    /// As [`PackedF32::new`], of a matrix that is made only where it is not stored.
    pub(crate) fn of<'a>(
        ctx: &Ctx,
        order: Order,
        [k, n]: [usize; 2],
        b: impl FnOnce() -> Cow<'a, [f32]>,
    ) -> Self {
        let (layout, bytes) = Self::layout(ctx, k, n);
        if let Some([data]) = ctx.stored([bytes]) {
            return Self { data, ..layout };
        }
        let b = b();
        assert_eq!(b.len(), k * n, "the matrix has k * n elements");
        let stride = if order == Order::KN { n } else { k };
        Self::of_rows(ctx, Floats::F32(&b), stride, order, k, n)
    }

    /// A matrix of zeros, not rounded to BF16.
    pub(crate) fn empty(ctx: &Ctx, size: [usize; 2]) -> Self {
        let bytes = Self::layout(&ctx.clone().with_bf16(false), size[0], size[1]).1;
        Self::of_data(ctx, size, Buffer::zeroed(bytes))
    }

    /// A matrix that is laid out in `data`, not rounded to BF16.
    pub(crate) fn of_data(ctx: &Ctx, [k, n]: [usize; 2], data: Buffer) -> Self {
        let (layout, bytes) = Self::layout(&ctx.clone().with_bf16(false), k, n);
        assert_eq!(bytes, data.len(), "the bytes of the matrix");
        Self { data, ..layout }
    }

    /// The elements as they are laid out.
    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        self.data.typed_mut()
    }

    /// How a matrix is laid out, without the matrix, and the bytes that it takes.
    fn layout(ctx: &Ctx, k: usize, n: usize) -> (Self, usize) {
        let panels = Panels {
            n,
            lanes: shape(ctx.isa()).0,
        };
        let (bf16, bytes) = match () {
            #[cfg(target_arch = "x86_64")]
            () if ctx.bf16() && bf16::suits(k) => (true, bf16::bytes(k, panels)),
            () => (false, k * panels.padded() * 4),
        };
        let layout = Self {
            k,
            panels,
            isa: ctx.isa(),
            bf16,
            data: Buffer::zeroed(0),
        };
        (layout, bytes)
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub fn parts(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(&self.data)
    }

    /// As [`PackedF32::new`], from rows that are `stride` elements apart.
    pub(crate) fn of_rows(
        ctx: &Ctx,
        b: Floats,
        stride: usize,
        order: Order,
        k: usize,
        n: usize,
    ) -> Self {
        let (layout, bytes) = Self::layout(ctx, k, n);
        #[cfg(target_arch = "x86_64")]
        if layout.bf16 {
            // SAFETY: a context has BF16 only where the CPU has it, and AVX-512.
            let data = unsafe { bf16::pack(b, stride, order, k, layout.panels) };
            return Self { data, ..layout };
        }
        let data = Buffer::zeroed(bytes);
        let mut packed = Self { data, ..layout };
        packed.lay(b, stride, order);
        packed
    }

    /// Packs another matrix of the same size in the place of this one, as [`PackedF32::of_rows`].
    pub(crate) fn again(&mut self, ctx: &Ctx, b: Floats, stride: usize, order: Order) {
        if self.bf16 {
            *self = Self::of_rows(ctx, b, stride, order, self.k, self.n());
        } else {
            self.lay(b, stride, order);
        }
    }

    /// Lays out a matrix that is not rounded.
    fn lay(&mut self, b: Floats, stride: usize, order: Order) {
        let (k, n, panels) = (self.k, self.panels.n, self.panels);
        if k == 0 {
            return;
        }
        let (rows, columns) = if order == Order::KN { (k, n) } else { (n, k) };
        let b = b.widened(rows.saturating_sub(1) * stride + if rows > 0 { columns } else { 0 });
        let out = self.data.typed_mut::<f32>();
        for p in 0..panels.count() {
            let (first, columns, vectors) = panels.panel(p);
            let width = vectors * panels.lanes;
            let out = &mut out[first * k..][..width * k];
            match order {
                Order::KN => rows::copy(self.isa, &b[first..], stride, columns, out, width),
                Order::NK => transpose_panel(&b[first * stride..], stride, columns, out, width),
            }
        }
    }

    /// Whether it is rounded to BF16: products with it take and give floats of either kind.
    pub fn rounded(&self) -> bool {
        self.bf16
    }

    /// Rows of the matrix.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the matrix.
    pub fn n(&self) -> usize {
        self.panels.n
    }

    /// Size of the packed matrix.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn panel_count(&self) -> usize {
        self.panels.count()
    }

    /// An element of a matrix that was not rounded to BF16.
    pub(crate) fn element(&self, k: usize, n: usize) -> f32 {
        let (first, _, vectors) = self.panels.panel(n / (2 * self.panels.lanes));
        let width = vectors * self.panels.lanes;
        self.data.typed::<f32>()[first * self.k + k * width + n - first]
    }

    /// The name of the micro-kernel that it is packed for.
    pub fn kernel_name(&self) -> &'static str {
        kernel(self.isa, if self.bf16 { 2 } else { 4 }).name
    }

    /// Rows of which tasks of a product have multiples.
    pub(crate) fn tile_rows(&self) -> usize {
        if self.bf16 {
            tasks_of(self.isa)
        } else {
            shape(self.isa).1
        }
    }
}

/// The first elements of `columns` columns, `stride` apart in `from`, as rows of `width`.
fn transpose_panel(from: &[f32], stride: usize, columns: usize, out: &mut [f32], width: usize) {
    /// Rows whose lines stay in the first cache while every column is put in them.
    const ROWS: usize = 128;
    for (block, out) in out.chunks_mut(ROWS * width).enumerate() {
        for c in 0..columns {
            let column = &from[c * stride + block * ROWS..][..out.len() / width];
            for (row, &x) in out.chunks_exact_mut(width).zip(column) {
                row[c] = x;
            }
        }
    }
}

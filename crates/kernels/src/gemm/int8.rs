//! Byte matrix product with packed signed weights: exact 32-bit sums, then one of three outputs.
//!
//! `sum = bias + Σ (a - a_zero) (b - b_zero)` over K. Activations are unsigned or signed bytes.
//! Sums wrap at 32 bits; nothing saturates at 16.

use std::ops::Range;

use super::{Cut, Order, Panels};
use crate::activation::{Activation, map_with};
use crate::arena::{Buffer, with_scratch};
use crate::gemm::f32::{fits, load_row, store_row};
use crate::simd::{Dot, Simd, Widen};
use crate::threads::Shared;
use crate::{Ctx, Isa};

/// Unsigned or signed bytes.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'a> {
    /// 0 to 255
    U8(&'a [u8]),
    /// -128 to 127
    I8(&'a [i8]),
}

impl<'a> Bytes<'a> {
    /// The bytes as they are in memory, and whether they are signed.
    pub fn raw(self) -> (&'a [u8], bool) {
        match self {
            Bytes::U8(data) => (data, false),
            Bytes::I8(data) => (bytemuck::cast_slice(data), true),
        }
    }
}

/// Quantised activations: `real = scale (q - zero)`.
#[derive(Clone, Copy, Debug)]
pub struct Input8<'a> {
    /// The bytes.
    pub data: Bytes<'a>,
    /// The zero point.
    pub zero: i32,
}

/// From 32-bit sums to bytes: `clamp(round(sum * mult[c]) + zero, lo, hi)`, ties to even,
/// which is the arithmetic of ONNX Runtime's `QLinearConv`.
#[derive(Clone, Copy, Debug)]
pub struct Requant<'a> {
    /// `input scale * weight scale / output scale` of each column.
    pub mult: &'a [f32],
    /// Output zero point.
    pub zero: i32,
    /// Least output; at least that of the byte type, more where a Relu is fused.
    pub lo: i32,
    /// Largest output.
    pub hi: i32,
}

/// Where sums go.
#[derive(Debug)]
pub enum Output8<'a> {
    /// As they are.
    I32(&'a mut [i32]),
    /// To bytes of either signedness, by `lo` and `hi`.
    Bytes(&'a mut [u8], Requant<'a>),
    /// To floats: `act(sum * scale[c] + bias[c])`.
    F32 {
        /// The floats.
        y: &'a mut [f32],
        /// `input scale * weight scale` of each column.
        scale: &'a [f32],
        /// One number for each column.
        bias: Option<&'a [f32]>,
        /// The last thing that happens.
        activation: Activation,
    },
}

/// A matrix `[K, N]` of signed bytes, laid out for the micro-kernel of one instruction set.
#[derive(Clone, Debug)]
pub struct PackedI8 {
    k: usize,
    groups: usize,
    panels: Panels,
    isa: Isa,
    data: Buffer,
    sums: Vec<i32>,
    zeros: Option<Vec<i32>>,
}

impl PackedI8 {
    /// Packs `b`, which has `k * n` elements in the given order. `zeros` is its zero point:
    /// nothing for 0, one number, or one for each column. Unsigned weights are shifted to
    /// signed; where a zero point is left then, products also need the sums of the rows of A,
    /// which costs a little time.
    pub fn new(ctx: &Ctx, b: Bytes, order: Order, k: usize, n: usize, zeros: &[i32]) -> Self {
        let (b, signed) = b.raw();
        assert_eq!(b.len(), k * n, "the matrix has k * n elements");
        assert!(
            matches!(zeros.len(), 0 | 1) || zeros.len() == n,
            "no zero point, one, or n"
        );
        let flip = if signed { 0 } else { 0x80 };
        let panels = Panels {
            n,
            lanes: super::shape(ctx.isa()).0,
        };
        let group = group(ctx.isa());
        let groups = k.div_ceil(group);
        let mut data = Buffer::zeroed(groups * group * panels.padded());
        let mut sums = vec![0; panels.padded()];
        let out = data.typed_mut::<i8>();
        for p in 0..panels.count() {
            let (first, columns, vectors) = panels.panel(p);
            let width = vectors * panels.lanes;
            let out = &mut out[first * groups * group..];
            for (column, sum) in (0..columns).zip(&mut sums[first..]) {
                for row in 0..k {
                    let weight = (b[order.at(row, first + column, (k, n))] ^ flip) as i8;
                    out[(row / group * width + column) * group + row % group] = weight;
                    *sum += i32::from(weight);
                }
            }
        }
        let zero = |c: usize| {
            zeros
                .get(if zeros.len() == 1 { 0 } else { c })
                .copied()
                .unwrap_or(0)
        };
        let zeros: Vec<i32> = (0..panels.padded())
            .map(|c| if c < n { zero(c) - i32::from(flip) } else { 0 })
            .collect();
        let zeros = zeros.iter().any(|z| *z != 0).then_some(zeros);
        Self {
            k,
            groups,
            panels,
            isa: ctx.isa(),
            data,
            sums,
            zeros,
        }
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
        self.data.len() + self.sums.len() * 4
    }

    /// The name of the micro-kernel that it is packed for.
    pub fn kernel_name(&self) -> &'static str {
        super::kernel(self.isa, 1).name
    }

    /// Bytes in a row of activations that is laid out for the micro-kernel.
    pub(crate) fn row_bytes(&self) -> usize {
        self.groups * 4
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    pub(crate) fn panel_count(&self) -> usize {
        self.panels.count()
    }

    /// Whether rows of activations need not be copied.
    pub(crate) fn reads_as_is(&self, row: Row8) -> bool {
        !row.wide && !row.signed && self.k.is_multiple_of(4) && self.zeros.is_none()
    }

    /// What sums start from, with everything that does not depend on the activations.
    pub(crate) fn start(&self, bias: Option<&[i32]>, input: &Row8) -> Vec<i32> {
        assert!(
            bias.is_none_or(|b| b.len() == self.n()),
            "bias has n elements"
        );
        let zero = input.zero;
        let at = |c: usize| {
            let weight_zero = self.zeros.as_ref().map_or(0, |z| z[c]);
            let sum = self.sums[c].wrapping_sub(weight_zero.wrapping_mul(self.k as i32));
            let bias = bias.and_then(|b| b.get(c)).copied().unwrap_or(0);
            bias.wrapping_sub(sum.wrapping_mul(zero))
        };
        (0..self.panels.padded()).map(at).collect()
    }

    /// The sums of rows of activations, where the weights' zero point needs them.
    pub(crate) fn row_sums(&self, rows: usize, panel: &[u8]) -> Vec<i32> {
        if self.zeros.is_none() {
            return Vec::new();
        }
        let row = |r: usize| {
            let row = &panel[r * self.row_bytes()..][..self.row_bytes()];
            match group(self.isa) {
                4 => row[..self.k].iter().map(|b| i32::from(*b)).sum(),
                _ => row
                    .chunks_exact(2)
                    .take(self.k)
                    .map(|b| i32::from(i16::from_ne_bytes([b[0], b[1]])))
                    .sum(),
            }
        };
        (0..rows).map(row).collect()
    }
}

/// Neighbours along K that the instruction set multiplies in one step.
pub(crate) fn group(isa: Isa) -> usize {
    if matches!(isa, Isa::AvxVnni | Isa::Avx512Vnni) {
        4
    } else {
        2
    }
}

/// How rows of activations are laid out for a micro-kernel: as 16-bit integers, or as unsigned
/// bytes; signed bytes are then shifted by 128, and their zero point too.
#[derive(Clone, Copy)]
pub(crate) struct Row8 {
    wide: bool,
    signed: bool,
    pub zero: i32,
}

impl Row8 {
    pub(crate) fn new(isa: Isa, signed: bool, zero: i32) -> Self {
        let wide = group(isa) == 2;
        Self {
            wide,
            signed,
            zero: zero + if signed && !wide { 128 } else { 0 },
        }
    }

    /// Writes `from` at element `at` of the row `to`.
    #[inline(always)]
    pub(crate) fn put(self, to: &mut [u8], at: usize, from: &[u8]) {
        if self.wide {
            let to = &mut to[at * 2..][..from.len() * 2];
            let to = to.as_chunks_mut::<2>().0.iter_mut().zip(from);
            if self.signed {
                to.for_each(|(to, from)| *to = i16::from(*from as i8).to_ne_bytes());
            } else {
                to.for_each(|(to, from)| *to = i16::from(*from).to_ne_bytes());
            }
        } else {
            let to = &mut to[at..][..from.len()];
            if self.signed {
                to.iter_mut()
                    .zip(from)
                    .for_each(|(to, from)| *to = from ^ 0x80);
            } else {
                to.copy_from_slice(from);
            }
        }
    }

    /// Lays out `rows` of `k` elements, `stride` apart in `from`, `pitch` bytes apart in `to`.
    pub(crate) fn copy(
        self,
        to: &mut [u8],
        pitch: usize,
        from: &[u8],
        rows: Range<usize>,
        stride: usize,
        k: usize,
    ) {
        if stride == k && pitch == k << usize::from(self.wide) {
            self.put(to, 0, &from[rows.start * k..rows.end * k]);
            return;
        }
        for (r, to) in rows.zip(to.chunks_exact_mut(pitch.max(1))) {
            self.put(to, 0, &from[r * stride..][..k]);
            self.finish(to, k);
        }
    }

    /// Writes `n` zero points at element `at` of the row `to`.
    #[inline(always)]
    pub(crate) fn pad(self, to: &mut [u8], at: usize, n: usize) {
        if self.wide {
            let zero = (self.zero as i16).to_ne_bytes();
            to[at * 2..][..n * 2].as_chunks_mut::<2>().0.fill(zero);
        } else {
            to[at..][..n].fill(self.zero as u8);
        }
    }

    /// Clears what follows `k` elements in the row.
    #[inline(always)]
    pub(crate) fn finish(self, to: &mut [u8], k: usize) {
        to[k << usize::from(self.wide)..].fill(0);
    }
}

/// `out = A[m, k] B + bias`. Row `r` of A starts at element `r * a_stride`, that of the output
/// at `r * c_stride`.
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
pub fn gemm8(
    ctx: &Ctx,
    m: usize,
    a: Input8,
    a_stride: usize,
    b: &PackedI8,
    bias: Option<&[i32]>,
    out: Output8,
    c_stride: usize,
) {
    let (data, signed) = a.data.raw();
    assert!(
        fits(m, b.k, a_stride, data.len()),
        "A has m rows of k elements"
    );
    let row = Row8::new(b.isa, signed, a.zero);
    let start = b.start(bias, &row);
    let target = Target8::new(m, b.n(), out, c_stride);
    let tile_rows = super::shape(b.isa).1;
    let most = rows_in_cache(b.row_bytes(), tile_rows);
    let cut = Cut::new(ctx.threads().count(), m, b.panels.count(), tile_rows, most);
    let direct = b.reads_as_is(row);
    ctx.threads().parallel_for(cut.tasks(), |i| {
        let (rows, panels) = cut.task(i);
        if direct {
            let a = data[rows.start * a_stride..].as_ptr();
            // SAFETY: the assertions above cover A and the output; tasks are disjoint.
            unsafe { target.multiply(rows, (a, a_stride), b, &start, &[], panels, 0) };
            return;
        }
        let pitch = b.row_bytes();
        with_scratch(rows.len() * pitch, |panel: &mut [u8]| {
            row.copy(panel, pitch, data, rows.clone(), a_stride, b.k);
            let sums = b.row_sums(rows.len(), panel);
            let a = (panel.as_ptr(), pitch);
            // SAFETY: the panel has these rows; the output as above.
            unsafe { target.multiply(rows, a, b, &start, &sums, panels, 0) };
        });
    });
}

/// Rows of A such that a block of them stays in the L2 cache.
pub(crate) fn rows_in_cache(row_bytes: usize, tile_rows: usize) -> usize {
    (128 * 1024 / row_bytes.max(1)).clamp(tile_rows * 2, 240)
}

enum Shared8<'a> {
    I32(Shared<'a, i32>),
    Bytes(Shared<'a, u8>, Requant<'a>),
    F32(Shared<'a, f32>, &'a [f32], Option<&'a [f32]>, Activation),
}

/// Where a byte product goes.
pub(crate) struct Target8<'a> {
    c: Shared8<'a>,
    stride: usize,
}

impl<'a> Target8<'a> {
    /// Checks that the output and its numbers fit `rows` x `columns`.
    pub(crate) fn new(rows: usize, columns: usize, out: Output8<'a>, stride: usize) -> Self {
        assert!(
            stride >= columns || rows < 2,
            "rows of the output do not overlap"
        );
        let fit = |len: usize| assert!(fits(rows, columns, stride, len), "output has m rows");
        let c = match out {
            Output8::I32(c) => {
                fit(c.len());
                Shared8::I32(Shared::new(c))
            }
            Output8::Bytes(c, to) => {
                fit(c.len());
                assert_eq!(to.mult.len(), columns, "one multiplier for each column");
                assert!(
                    -128 <= to.lo && to.lo <= to.hi && to.hi <= 255,
                    "bounds of a byte"
                );
                Shared8::Bytes(Shared::new(c), to)
            }
            Output8::F32 {
                y,
                scale,
                bias,
                activation,
            } => {
                fit(y.len());
                assert_eq!(scale.len(), columns, "one scale for each column");
                assert!(
                    bias.is_none_or(|b| b.len() == columns),
                    "bias has n elements"
                );
                Shared8::F32(Shared::new(y), scale, bias, activation)
            }
        };
        Self { c, stride }
    }

    /// Stores from element `at` of the output, which belongs to column `offset`.
    pub(crate) fn store(&self, at: usize, offset: usize) -> Store8 {
        match &self.c {
            Shared8::I32(c) => Store8::I32(c.pointer(at)),
            Shared8::Bytes(c, to) => Store8::Bytes {
                c: c.pointer(at),
                mult: to.mult[offset..].as_ptr(),
                lo: (to.lo - to.zero) as f32,
                hi: (to.hi - to.zero) as f32,
                zero: to.zero,
            },
            Shared8::F32(c, scale, bias, activation) => Store8::F32 {
                c: c.pointer(at),
                scale: scale[offset..].as_ptr(),
                bias: bias.map(|bias| bias[offset..].as_ptr()),
                bounds: activation
                    .bounds()
                    .unwrap_or((f32::NEG_INFINITY, f32::INFINITY)),
                then: activation.bounds().is_none().then_some(*activation),
            },
        }
    }

    /// Multiplies `rows` (of the output; `a` is the first of them, laid out for the kernel, and
    /// the distance of rows in bytes) with `panels` of B, and stores at column `offset` and on.
    ///
    /// # Safety
    /// `rows` rows of `b.row_bytes()` are readable at `a`. Rows and columns lie in what `new`
    /// checked, and no other thread writes them.
    #[allow(clippy::too_many_arguments, reason = "the operands of a product")]
    pub(crate) unsafe fn multiply(
        &self,
        rows: Range<usize>,
        (a, a_stride): (*const u8, usize),
        b: &PackedI8,
        start: &[i32],
        row_sums: &[i32],
        panels: Range<usize>,
        offset: usize,
    ) {
        if rows.is_empty() || panels.is_empty() {
            return;
        }
        let at = rows.start * self.stride + offset;
        let to = self.store(at, offset);
        let rows = rows.len();
        let block = Block {
            rows,
            a,
            a_stride,
            b,
            start,
            row_sums,
            panels,
            to,
            c_stride: self.stride,
        };
        dispatch(b.isa, &block);
    }
}

/// Where sums go, for a kernel.
#[derive(Clone, Copy)]
pub(crate) enum Store8 {
    I32(*mut i32),
    Bytes {
        c: *mut u8,
        mult: *const f32,
        lo: f32,
        hi: f32,
        zero: i32,
    },
    F32 {
        c: *mut f32,
        scale: *const f32,
        bias: Option<*const f32>,
        bounds: (f32, f32),
        then: Option<Activation>,
    },
}

impl Store8 {
    /// Stores a tile of sums at `at` in the output, rows `stride` apart, which belongs to
    /// `column` and on; the last vector of a row has `last` elements.
    ///
    /// # Safety
    /// These elements of the output and of what belongs to columns are there.
    #[inline(always)]
    pub(crate) unsafe fn put<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        sums: [[S::I; V]; M],
        at: usize,
        stride: usize,
        column: usize,
        last: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match *self {
                Store8::I32(c) => {
                    for (i, row) in sums.into_iter().enumerate() {
                        for (v, sum) in row.into_iter().enumerate() {
                            let n = if v + 1 == V { last } else { S::LANES };
                            let lanes = s.lanes_i(sum);
                            let c = c.add(at + i * stride + v * S::LANES);
                            std::ptr::copy_nonoverlapping(lanes.as_ptr(), c, n);
                        }
                    }
                }
                Store8::Bytes {
                    c,
                    mult,
                    lo,
                    hi,
                    zero,
                } => {
                    let mut mults = [s.splat(0.0); V];
                    load_row(s, &mut mults, mult.add(column), last);
                    let (lo, hi, zero) = (s.splat(lo), s.splat(hi), s.splat_i(zero));
                    for (i, row) in sums.into_iter().enumerate() {
                        let c = c.add(at + i * stride);
                        for v in 0..V {
                            let y = s.clamp(s.mul(s.to_float(row[v]), mults[v]), lo, hi);
                            let y = s.add_i(s.to_int(y), zero);
                            let c = c.add(v * S::LANES);
                            if v + 1 < V || last == S::LANES {
                                s.store_bytes(c, y);
                            } else {
                                s.store_bytes_n(c, y, last);
                            }
                        }
                    }
                }
                Store8::F32 {
                    c,
                    scale,
                    bias,
                    bounds,
                    ..
                } => {
                    let (mut scales, mut biases) = ([s.splat(0.0); V], [s.splat(0.0); V]);
                    load_row(s, &mut scales, scale.add(column), last);
                    if let Some(bias) = bias {
                        load_row(s, &mut biases, bias.add(column), last);
                    }
                    let (lo, hi) = (s.splat(bounds.0), s.splat(bounds.1));
                    for (i, row) in sums.into_iter().enumerate() {
                        let y = std::array::from_fn(|v| {
                            let y = s.mul(s.to_float(row[v]), scales[v]);
                            s.clamp(s.add(y, biases[v]), lo, hi)
                        });
                        store_row::<S, V>(s, &y, c.add(at + i * stride), last);
                    }
                }
            }
        }
    }

    /// Applies the activation that is left, if any, to `n` elements at `at`.
    ///
    /// # Safety
    /// As for `put`.
    #[inline(always)]
    pub(crate) unsafe fn finish<S: Simd>(&self, s: S, at: usize, n: usize) {
        if let Store8::F32 {
            c,
            then: Some(activation),
            ..
        } = *self
        {
            // SAFETY: the caller's promise.
            unsafe { map_with(s, activation, c.add(at), c.add(at), n) };
        }
    }
}

/// Runs `block` with the kernel of `isa`, which this CPU has.
fn dispatch(isa: Isa, block: &Block) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a matrix is packed only for sets that this CPU has.
        Isa::AvxVnni => unsafe { x86::avx_vnni(block) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512Vnni => unsafe { x86::avx512_vnni(block) },
        _ => crate::simd::dispatch(isa, Widened(block)),
    }
}

struct Widened<'a, 'b>(&'a Block<'b>);

impl crate::simd::Body for Widened<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.run::<S, Widen>(s);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Block;
    use crate::simd::avx2::{Avx2, Vnni256};
    use crate::simd::avx512::{Avx512, Vnni512};

    /// # Safety
    /// The CPU has AVX2, FMA, F16C and AVX-VNNI.
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(super) unsafe fn avx_vnni(block: &Block) {
        // SAFETY: the caller's promise.
        block.run::<Avx2, Vnni256>(unsafe { Avx2::prove() });
    }

    /// # Safety
    /// The CPU has AVX-512 F, BW, VL, DQ and VNNI.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn avx512_vnni(block: &Block) {
        // SAFETY: the caller's promise.
        block.run::<Avx512, Vnni512>(unsafe { Avx512::prove() });
    }
}

/// A part of a product that one thread computes.
struct Block<'a> {
    rows: usize,
    a: *const u8,
    a_stride: usize,
    b: &'a PackedI8,
    start: &'a [i32],
    row_sums: &'a [i32],
    panels: Range<usize>,
    to: Store8,
    c_stride: usize,
}

impl Block<'_> {
    #[inline(always)]
    fn run<S: Simd, D: Dot<S>>(&self, s: S) {
        let data = self.b.data.typed::<i8>();
        for p in self.panels.clone() {
            let (first, columns, vectors) = self.b.panels.panel(p);
            let b = data[first * self.b.groups * D::GROUP..].as_ptr();
            let mut row = 0;
            while row < self.rows {
                let rows = (self.rows - row).min(S::ROWS);
                // SAFETY: `Target8::multiply` promises the memory.
                unsafe {
                    let place = (row, first, columns);
                    if vectors == 2 {
                        self.rows_of::<S, D, 2>(s, rows, b, place);
                    } else {
                        self.rows_of::<S, D, 1>(s, rows, b, place);
                    }
                }
                row += rows;
            }
        }
        let (first, _, _) = self.b.panels.panel(self.panels.start);
        let (last, columns, _) = self.b.panels.panel(self.panels.end - 1);
        for row in 0..self.rows {
            // SAFETY: these are the elements that the tiles stored.
            unsafe {
                self.to
                    .finish(s, row * self.c_stride + first, last + columns - first)
            };
        }
    }

    /// # Safety
    /// As for `Target8::multiply`.
    #[inline(always)]
    unsafe fn rows_of<S: Simd, D: Dot<S>, const V: usize>(
        &self,
        s: S,
        rows: usize,
        b: *const i8,
        place: (usize, usize, usize),
    ) {
        macro_rules! rows {
            ($($m:literal)*) => {
                match rows {
                    // SAFETY: the caller's promise.
                    $($m if $m <= S::ROWS => unsafe { self.tile::<S, D, $m, V>(s, b, place) },)*
                    _ => {}
                }
            };
        }
        rows!(12 11 10 9 8 7 6 5 4 3 2 1);
    }

    /// A tile of `M` rows and `V` vectors at (row, column), of which `columns` are real.
    ///
    /// # Safety
    /// As for `Target8::multiply`.
    #[inline(always)]
    unsafe fn tile<S: Simd, D: Dot<S>, const M: usize, const V: usize>(
        &self,
        s: S,
        b: *const i8,
        (row, first, columns): (usize, usize, usize),
    ) {
        // SAFETY: M rows of groups are readable at `a`, groups of V vectors at `b`; `start`
        // covers whole panels; M rows of `columns` elements are writable in the output.
        unsafe {
            let start = self.start.as_ptr().add(first);
            let start: [S::I; V] = std::array::from_fn(|v| s.load_i(start.add(v * S::LANES)));
            let mut sums = [start; M];
            let a = self.a.add(row * self.a_stride);
            for k in 0..self.b.groups {
                let b = b.add(k * V * S::LANES * D::GROUP);
                let b: [S::I; V] =
                    std::array::from_fn(|v| D::weights(s, b.add(v * S::LANES * D::GROUP)));
                for i in 0..M {
                    let a = a.add(i * self.a_stride + k * 4).cast::<i32>();
                    let a = s.splat_i(a.read_unaligned());
                    for v in 0..V {
                        sums[i][v] = D::dot(s, sums[i][v], a, b[v]);
                    }
                }
            }
            if let Some(zeros) = &self.b.zeros {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let row_sum = s.splat_i(self.row_sums[row + i].wrapping_neg());
                    for v in 0..V {
                        let zero = s.load_i(zeros.as_ptr().add(first + v * S::LANES));
                        sums[v] = s.add_i(sums[v], s.mul_i(zero, row_sum));
                    }
                }
            }
            let last = columns - (V - 1) * S::LANES;
            self.to.put(
                s,
                sums,
                row * self.c_stride + first,
                self.c_stride,
                first,
                last,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, contexts};

    #[test]
    #[allow(
        clippy::too_many_lines,
        reason = "the reference stands beside what it checks"
    )]
    fn equals_exact_sums_for_both_signs_and_zero_points() {
        let mut random = Random::new(3);
        let sizes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16, 17, 24, 31, 33, 65];
        for round in 0..200 {
            let [m, k, n] = [(); 3].map(|()| random.pick(&sizes));
            let (a, b) = (random.bytes(m * k), random.bytes(k * n));
            let bias: Vec<i32> = (0..n).map(|_| random.below(2000) as i32 - 1000).collect();
            let (a_signed, b_signed) = (round % 2 == 0, round % 3 == 0);
            let bytes = |signed, data| {
                if signed {
                    Bytes::I8(bytemuck::cast_slice(data))
                } else {
                    Bytes::U8(data)
                }
            };
            let value = |signed, byte: u8| {
                if signed {
                    i32::from(byte as i8)
                } else {
                    i32::from(byte)
                }
            };
            let zero = if a_signed { -7 } else { 131 };
            let zeros: Vec<i32> = match round % 4 {
                0 => vec![],
                1 => vec![if b_signed { 0 } else { 128 }],
                2 => vec![5],
                _ => (0..n).map(|_| random.below(100) as i32).collect(),
            };
            let zb = |c: usize| {
                if zeros.len() == 1 {
                    zeros[0]
                } else {
                    zeros.get(c).copied().unwrap_or(0)
                }
            };
            let mut want = vec![0; m * n];
            for (i, w) in want.iter_mut().enumerate() {
                let (r, c) = (i / n, i % n);
                *w = bias[c]
                    + (0..k)
                        .map(|p| {
                            (value(a_signed, a[r * k + p]) - zero)
                                * (value(b_signed, b[p * n + c]) - zb(c))
                        })
                        .sum::<i32>();
            }
            let mult: Vec<f32> = (0..n).map(|c| 0.001 + c as f32 * 1e-5).collect();
            let to = Requant {
                mult: &mult,
                zero: 3,
                lo: -100,
                hi: 90,
            };
            let bytes_want: Vec<u8> = want
                .iter()
                .enumerate()
                .map(|(i, w)| {
                    ((*w as f32 * mult[i % n]).round_ties_even() as i32 + 3).clamp(-100, 90) as u8
                })
                .collect();
            for ctx in contexts() {
                let packed = PackedI8::new(&ctx, bytes(b_signed, &b), Order::KN, k, n, &zeros);
                let input = Input8 {
                    data: bytes(a_signed, &a),
                    zero,
                };
                let mut c = vec![1; m * n];
                gemm8(
                    &ctx,
                    m,
                    input,
                    k,
                    &packed,
                    Some(&bias),
                    Output8::I32(&mut c),
                    n,
                );
                assert_eq!(c, want, "{:?} {m} {k} {n}", ctx.isa());
                let mut c = vec![1; m * n];
                gemm8(
                    &ctx,
                    m,
                    input,
                    k,
                    &packed,
                    Some(&bias),
                    Output8::Bytes(&mut c, to),
                    n,
                );
                assert_eq!(c, bytes_want);
                let mut y = vec![1.0; m * n];
                let f = Output8::F32 {
                    y: &mut y,
                    scale: &mult,
                    bias: None,
                    activation: Activation::Relu,
                };
                gemm8(&ctx, m, input, k, &packed, Some(&bias), f, n);
                assert!(
                    y.iter()
                        .enumerate()
                        .all(|(i, y)| *y == (want[i] as f32 * mult[i % n]).max(0.0))
                );
            }
        }
    }

    #[test]
    fn the_largest_products_do_not_saturate() {
        for ctx in contexts() {
            let packed = PackedI8::new(&ctx, Bytes::I8(&[-128; 64 * 9]), Order::KN, 64, 9, &[]);
            let mut c = [0; 9];
            let input = Input8 {
                data: Bytes::U8(&[255; 64]),
                zero: 0,
            };
            gemm8(&ctx, 1, input, 64, &packed, None, Output8::I32(&mut c), 9);
            assert_eq!(c, [-128 * 255 * 64; 9]);
        }
    }
}

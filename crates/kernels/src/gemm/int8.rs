//! Byte matrix product with packed signed weights: exact 32-bit sums, then one of three outputs.
//!
//! `sum = bias + Σ (a - a_zero) (b - b_zero)` over K. Activations are unsigned or signed bytes.
//! Sums wrap at 32 bits; nothing saturates at 16.

mod output;
mod pack;
mod tile;

use std::borrow::Cow;
use std::ops::Range;

pub use output::{Output8, Requant};
pub(crate) use output::{Store8, Target8};
use pack::{Pack, Spill};

use super::{Cut, Order, Panels};
use crate::arena::{Buffer, with_scratch};
use crate::gemm::f32::fits;
use crate::simd::{Body, Simd, dispatch, takes_signed};
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

/// A matrix `[K, N]` of signed bytes, laid out for the micro-kernel of one instruction set.
#[derive(Clone, Debug)]
pub struct PackedI8 {
    k: usize,
    /// Neighbours along K that are multiplied in one step: bytes in fours, else widened in pairs.
    group: usize,
    groups: usize,
    panels: Panels,
    isa: Isa,
    data: Buffer,
    /// For each panel, where products of pairs would saturate.
    spills: Vec<Spill>,
    /// Of each column, as 32-bit integers.
    sums: Buffer,
    zeros: Option<Vec<i32>>,
}

impl PackedI8 {
    /// Packs `b`, which has `k * n` elements in the given order. `zeros` is its zero point:
    /// nothing for 0, one number, or one for each column. Unsigned weights are shifted to
    /// signed; where a zero point is left then, products also need the sums of the rows of A,
    /// which costs a little time.
    pub fn new(ctx: &Ctx, b: Bytes, order: Order, k: usize, n: usize, zeros: &[i32]) -> Self {
        let (b, signed) = b.raw();
        Self::of(ctx, signed, order, [k, n], zeros, || Cow::Borrowed(b))
    }

    /// As [`PackedI8::new`], of bytes, signed or not, that are made only where they are not
    /// stored.
    pub(crate) fn of<'a>(
        ctx: &Ctx,
        signed: bool,
        order: Order,
        [k, n]: [usize; 2],
        zeros: &[i32],
        b: impl FnOnce() -> Cow<'a, [u8]>,
    ) -> Self {
        assert!(
            matches!(zeros.len(), 0 | 1) || zeros.len() == n,
            "no zero point, one, or n"
        );
        let flip = if signed { 0 } else { 0x80 };
        let isa = isa_for(ctx.isa(), k, k);
        let panels = Panels {
            n,
            lanes: super::shape(isa).0,
        };
        let mut group = group(isa);
        let padded = panels.padded();
        let bytes = [groups(isa, k, group) * group * padded, padded * 4];
        // How bytes are laid out that may saturate depends on what they are.
        let stored = if saturates(isa) {
            None
        } else {
            ctx.stored(bytes)
        };
        let mut spills = Vec::new();
        let (data, sums) = match stored {
            Some([data, sums]) => (data, sums),
            None => {
                let b = b();
                assert_eq!(b.len(), k * n, "the matrix has k * n elements");
                let pack = Pack {
                    isa,
                    panels,
                    order,
                    k,
                    flip,
                    b: &b,
                };
                let (mut data, mut sums) = pack.by(group);
                if saturates(isa) {
                    match Spill::of_panels(panels, data.typed_mut()) {
                        Some(all) => spills = all,
                        None => {
                            group = 2;
                            (data, sums) = pack.by(group);
                        }
                    }
                }
                (data, sums)
            }
        };
        let groups = groups(isa, k, group);
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
            group,
            groups,
            panels,
            isa,
            data,
            spills,
            sums,
            zeros,
        }
    }

    /// What is packed, for [`Ctx::with_stored`]; nothing where it is not stored.
    pub fn parts(&self) -> impl Iterator<Item = &Buffer> {
        let parts = (!saturates(self.isa)).then_some([&self.data, &self.sums]);
        parts.into_iter().flatten()
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
        let spilt: usize = self.spills.iter().map(|s| s.data.len()).sum();
        self.data.len() + spilt + self.sums.len()
    }

    /// The name of the micro-kernel that it is packed for.
    pub fn kernel_name(&self) -> &'static str {
        super::kernel(self.isa, 1).name
    }

    /// Bytes in a row of activations that is laid out for the micro-kernel.
    pub(crate) fn row_bytes(&self) -> usize {
        self.groups * GROUP_BYTES
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    pub(crate) fn panel_count(&self) -> usize {
        self.panels.count()
    }

    /// Whether `rows` rows of activations, `stride` apart in `a`, need not be copied. Each is read
    /// to the end of its last group, where the weights are 0.
    pub(crate) fn reads_as_is(&self, row: Row8, rows: usize, stride: usize, a: &[u8]) -> bool {
        let bytes = row.is_plain() && self.zeros.is_none();
        bytes && fits(rows, self.row_bytes(), stride, a.len())
    }

    /// Whether rows of activations are bytes in fours, and nothing else is needed of them.
    pub(crate) fn takes_bytes(&self) -> bool {
        self.group == 4 && self.zeros.is_none()
    }

    /// What sums start from, with everything that does not depend on the activations.
    pub(crate) fn start(&self, bias: Option<&[i32]>, input: &Row8) -> Vec<i32> {
        assert!(
            bias.is_none_or(|b| b.len() == self.n()),
            "bias has n elements"
        );
        let (zero, sums) = (input.zero, self.sums.typed::<i32>());
        let at = |c: usize| {
            let weight_zero = self.zeros.as_ref().map_or(0, |z| z[c]);
            let sum = sums[c].wrapping_sub(weight_zero.wrapping_mul(self.k as i32));
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
            match self.group {
                4 if takes_signed(self.isa) => {
                    row[..self.k].iter().map(|b| i32::from(*b as i8)).sum()
                }
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

/// Neighbours along K that the instruction set multiplies in one step at best.
pub(crate) fn group(isa: Isa) -> usize {
    match isa {
        Isa::AvxVnni | Isa::Avx512Vnni | Isa::Amx | Isa::NeonDot | Isa::NeonI8mm => 4,
        _ if saturates(isa) => 4,
        _ => 2,
    }
}

/// The instruction set that multiplies `k` rows of bytes best, which take `steps` bytes in whole
/// steps: tiles are not worth it where they are short, or much of them is empty.
pub(crate) fn isa_for(isa: Isa, k: usize, steps: usize) -> Isa {
    match isa {
        Isa::Amx if k < 64 || steps.next_multiple_of(64) * 2 > k * 3 => Isa::Avx512Vnni,
        _ => isa,
    }
}

/// Groups along K that `k` rows are packed in: whole steps of the instruction set.
fn groups(isa: Isa, k: usize, group: usize) -> usize {
    k.div_ceil(group)
        .next_multiple_of(super::step_bytes(isa) / GROUP_BYTES)
}

/// Whether the instruction set takes bytes in fours, whatever the weights.
pub(crate) fn takes_any_bytes(isa: Isa) -> bool {
    group(isa) == 4 && !saturates(isa)
}

/// Whether the instruction set adds products of pairs in 16 bits that saturate.
fn saturates(isa: Isa) -> bool {
    isa == Isa::Avx2
}

/// How rows of activations are laid out for a micro-kernel: as 16-bit integers, or as bytes of
/// the sign that the instruction set takes; bytes of the other one are then shifted by 128, and
/// their zero point too.
#[derive(Clone, Copy)]
pub(crate) struct Row8 {
    isa: Isa,
    wide: bool,
    signed: bool,
    shifted: bool,
    pub zero: i32,
}

impl Row8 {
    pub(crate) fn new(b: &PackedI8, signed: bool, zero: i32) -> Self {
        let wide = b.group == 2;
        let shifted = !wide && signed != takes_signed(b.isa);
        Self {
            isa: b.isa,
            wide,
            signed,
            shifted,
            zero: zero + if shifted { shift(signed) } else { 0 },
        }
    }

    /// Whether bytes stay as they are.
    pub(crate) fn is_plain(self) -> bool {
        !self.wide && !self.shifted
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
            if self.shifted {
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
        if stride == k && pitch == self.bytes_of(k) {
            self.lay_out(&from[rows.start * k..rows.end * k], to);
            return;
        }
        for (r, to) in rows.zip(to.chunks_exact_mut(pitch.max(1))) {
            self.put(to, 0, &from[r * stride..][..k]);
            self.finish(to, k);
        }
    }

    /// Lays out `from` at the beginning of `to`.
    pub(crate) fn lay_out(self, from: &[u8], to: &mut [u8]) {
        if self.is_plain() {
            to[..from.len()].copy_from_slice(from);
        } else {
            let row = self;
            dispatch(self.isa, LayOut { row, from, to });
        }
    }

    pub(crate) fn isa(self) -> Isa {
        self.isa
    }

    /// Bytes of `k` elements as they are laid out.
    #[inline(always)]
    pub(crate) fn bytes_of(self, k: usize) -> usize {
        k << usize::from(self.wide)
    }

    /// Elements that [`Row8::chunk`] lays out.
    #[inline(always)]
    pub(crate) fn chunk_len<S: Simd>(self) -> usize {
        S::LANES * if self.wide { 2 } else { 4 }
    }

    /// Lays out as many elements as take a vector.
    ///
    /// # Safety
    /// `chunk_len` bytes are readable at `from`, and a vector is writable at `to`.
    #[inline(always)]
    pub(crate) unsafe fn chunk<S: Simd>(self, s: S, to: *mut u8, from: *const u8) {
        // SAFETY: the caller's promise.
        unsafe {
            let x = match (self.wide, self.signed) {
                (true, true) => s.load_i8_pairs(from.cast()),
                (true, false) => s.load_u8_pairs(from),
                _ if self.shifted => s.xor_i(s.load_i(from.cast()), s.splat_i(FLIP)),
                _ => s.load_i(from.cast()),
            };
            s.store_i(to.cast(), x);
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
        to[self.bytes_of(k)..].fill(0);
    }
}

/// Bytes of a group of activations.
pub(crate) const GROUP_BYTES: usize = 4;

/// What is added to the zero point of signed bytes that become unsigned, or the other way.
pub(crate) fn shift(signed: bool) -> i32 {
    if signed { 128 } else { -128 }
}

/// Shifts four bytes by 128.
pub(crate) const FLIP: i32 = 0x8080_8080_u32 as i32;

/// Lays out neighbouring rows that need no padding.
struct LayOut<'a> {
    row: Row8,
    from: &'a [u8],
    to: &'a mut [u8],
}

impl Body for LayOut<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (row, step) = (self.row, self.row.chunk_len::<S>());
        let whole = self.from.len() / step * step;
        assert!(
            row.bytes_of(whole) <= self.to.len(),
            "rows fit where they are laid out"
        );
        for at in (0..whole).step_by(step) {
            // SAFETY: the chunk lies in both slices.
            unsafe {
                let to = self.to.as_mut_ptr().add(row.bytes_of(at));
                row.chunk(s, to, self.from.as_ptr().add(at));
            }
        }
        row.put(self.to, whole, &self.from[whole..]);
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
    let row = Row8::new(b, signed, a.zero);
    let start = b.start(bias, &row);
    let target = Target8::new(m, b.n(), out, c_stride);
    let tile_rows = super::tasks_of(b.isa);
    let most = rows_in_cache(b.row_bytes(), tile_rows);
    let cut = Cut::new(ctx.threads().count(), m, b.panels.count(), tile_rows, most);
    ctx.threads().parallel_for(cut.tasks(), |i| {
        let (rows, panels) = cut.task(i);
        let a = &data[(rows.start * a_stride).min(data.len())..];
        if b.reads_as_is(row, rows.len(), a_stride, a) {
            let a = (a.as_ptr(), a_stride);
            // SAFETY: rows of A are read as asked; the output as asserted; tasks are disjoint.
            unsafe { target.multiply(rows, a, b, &start, &[], panels, 0) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
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
            let (a_signed, b_signed) = (round % 2 == 0, round % 3 == 0);
            let a = random.bytes(m * k);
            let b = if round % 5 < 2 {
                random.bytes(k * n)
            } else {
                let flip = if b_signed { 0 } else { 0x80 };
                random.mild(k * n).iter().map(|&b| b as u8 ^ flip).collect()
            };
            let bias: Vec<i32> = (0..n).map(|_| random.below(2000) as i32 - 1000).collect();
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

    #[test]
    fn bytes_saturate_at_both_ends_whatever_the_sums() {
        let (m, n) = (7, 32);
        let bias: Vec<i32> = (0..n)
            .map(|c| match c % 4 {
                0 => i32::MAX - 600,
                1 => i32::MIN + 600,
                2 => 7 * c as i32,
                _ => -7 * c as i32,
            })
            .collect();
        let a: Vec<u8> = (0..m as u8).collect();
        for (zero, lo, hi) in [
            (0, 0, 255),
            (255, 3, 255),
            (-128, -128, 127),
            (127, -9, 127),
        ] {
            for scale in [0.5, 1.5, 1e6] {
                let mult = vec![scale; n];
                let want: Vec<u8> = (0..m * n)
                    .map(|i| (a[i / n] as i32 + bias[i % n]) as f32 * scale)
                    .map(|y| {
                        (y.round_ties_even() as i32)
                            .saturating_add(zero)
                            .clamp(lo, hi) as u8
                    })
                    .collect();
                for ctx in contexts() {
                    let b = PackedI8::new(&ctx, Bytes::I8(&vec![1; n]), Order::KN, 1, n, &[]);
                    let (mut c, mult) = (vec![1; m * n], &mult[..]);
                    let a = Input8 {
                        data: Bytes::U8(&a),
                        zero: 0,
                    };
                    let to = Requant { mult, zero, lo, hi };
                    gemm8(
                        &ctx,
                        m,
                        a,
                        1,
                        &b,
                        Some(&bias),
                        Output8::Bytes(&mut c, to),
                        n,
                    );
                    assert_eq!(c, want, "{:?} {zero} {lo} {hi} {scale}", ctx.isa());
                }
            }
        }
    }

    #[test]
    fn pairs_that_would_saturate_are_added_in_two_halves() {
        let (k, n) = (400, 20);
        let mut weights = vec![1i8; k * n];
        for (row, weight) in [(0, 127), (1, 127), (6, -128), (7, -128)] {
            weights[row * n + 17] = weight;
        }
        for ctx in contexts() {
            let packed = PackedI8::new(&ctx, Bytes::I8(&weights), Order::KN, k, n, &[]);
            if saturates(ctx.isa()) {
                let spilt: Vec<&[u32]> = packed.spills.iter().map(|s| &s.groups[..]).collect();
                assert_eq!(spilt, [&[][..], &[0, 1]]);
            }
            let input = Input8 {
                data: Bytes::U8(&[255; 400]),
                zero: 0,
            };
            let mut sums = vec![0; n];
            gemm8(&ctx, 1, input, k, &packed, None, Output8::I32(&mut sums), n);
            let mut want = vec![400 * 255; n];
            want[17] = (396 + 254 - 256) * 255;
            assert_eq!(sums, want, "{:?}", ctx.isa());
        }
    }

    #[test]
    fn weights_of_which_many_pairs_saturate_are_widened() {
        for ctx in contexts() {
            let (mild, all) = (vec![64i8; 64 * 8], vec![127i8; 64 * 8]);
            for (weights, least) in [(mild, group(ctx.isa())), (all, 2)] {
                let packed = PackedI8::new(&ctx, Bytes::I8(&weights), Order::KN, 64, 8, &[]);
                assert!(packed.group >= least, "{:?}", ctx.isa());
                assert!(packed.group == least || !saturates(ctx.isa()));
            }
        }
    }
}

//! Products of bytes with lists of signed weights: exact 32-bit sums, and the outputs of the dense kernel.

mod tile;
#[cfg(target_arch = "x86_64")]
mod window;

use std::ops::Range;

use super::break_even::{Form, choose};
use super::cut::Cut;
use super::lists::{FOUR, Lists, Size};
use super::windows::{LANES, Windows, rows_of_tile};
use super::{name, told};
use crate::arena::{Buffer, with_scratch};
use crate::gemm::f32::fits;
use crate::gemm::int8::{Bytes, Input8, Output8, Target8, shift, takes_any_bytes};
use crate::gemm::{Order, shape};
use crate::simd::{Body, Simd, dispatch, takes_signed};
use crate::threads::Shared;
use crate::{Ctx, Isa};

/// A matrix `[K, N]` of signed bytes of which most are zero, as lists for the kernel of one instruction
/// set.
#[derive(Clone, Debug)]
pub struct SparseI8 {
    kept: Kept,
    isa: Isa,
    /// Of the weights of each output.
    sums: Vec<i32>,
    /// How far A takes a sum from its start at most, where that matters.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "no other set picks bytes")
    )]
    reach: u32,
}

/// How weights are kept.
#[derive(Clone, Debug)]
enum Kept {
    /// For rows of A that are turned to columns.
    Columns(Lists),
    /// For rows as they are, of which bytes are picked ([`Isa::picks_bytes`]).
    Windows(Windows),
}

/// Inputs that the instruction set multiplies in one step.
fn taps(isa: Isa) -> usize {
    if takes_any_bytes(isa) { 4 } else { 2 }
}

/// Bytes of a weight: those of pairs are widened.
fn width(isa: Isa) -> usize {
    if takes_any_bytes(isa) { 1 } else { 2 }
}

impl SparseI8 {
    /// The lists of `b`, which has `k * n` elements in the given order, where products of `m` rows with
    /// them are quicker than with dense weights, the context takes lists ([`Ctx::with_sparse`]), and
    /// `zeros`, its zero points, are the bytes that stand for 0 in signed bytes: no zero point and zeros,
    /// or 128 of unsigned ones.
    pub fn new(
        ctx: &Ctx,
        m: usize,
        b: Bytes,
        order: Order,
        k: usize,
        n: usize,
        zeros: &[i32],
    ) -> Option<Self> {
        let (raw, signed) = b.raw();
        let zero = if signed { 0 } else { 128 };
        let plain = zeros.iter().all(|z| *z == zero) && (signed || !zeros.is_empty());
        if !ctx.sparse() || !plain {
            return None;
        }
        let isa = ctx.isa();
        if ctx.has_stored() {
            return Some(if isa.picks_bytes() {
                Self::of_windows(Windows::stored(ctx, [k, n])?, isa)
            } else {
                Self::of(Lists::stored(ctx, [k, n], taps(isa), width(isa))?, isa)
            });
        }
        assert_eq!(raw.len(), k * n, "the matrix has k * n elements");
        let form = choose(ctx, 1, [m, k, n], order, |i| i32::from(raw[i]) == zero)?;
        Some(Self::in_form(ctx, b, order, [k, n], form))
    }

    /// The lists of `b` in this form, whatever is quicker; unsigned bytes have the zero point 128. At
    /// most 65 536 rows.
    pub fn in_form(ctx: &Ctx, b: Bytes, order: Order, [k, n]: [usize; 2], form: Form) -> Self {
        if ctx.isa().picks_bytes() {
            let windows = Windows::new([k, n], form.rows(), weight(b, order, [k, n]));
            return Self::of_windows(windows, ctx.isa());
        }
        Self::in_columns(ctx, b, order, [k, n], form)
    }

    /// [`SparseI8::in_form`], for rows that are turned to columns.
    fn in_columns(ctx: &Ctx, b: Bytes, order: Order, [k, n]: [usize; 2], form: Form) -> Self {
        let isa = ctx.isa();
        let size = Size::new([k, n], form.rows(), taps(isa), width(isa));
        let put = |to: &mut [u8], w: i8| match to {
            [to] => *to = w as u8,
            _ => to.copy_from_slice(&i16::from(w).to_ne_bytes()),
        };
        Self::of(Lists::new(size, weight(b, order, [k, n]), put), isa)
    }

    fn of(lists: Lists, isa: Isa) -> Self {
        let mut sums = vec![0i32; lists.size().n];
        if width(isa) == 1 {
            lists.each(|o, _, w: i8| sums[o] += i32::from(w));
        } else {
            lists.each(|o, _, w: i16| sums[o] += i32::from(w));
        }
        let kept = Kept::Columns(lists);
        Self {
            kept,
            isa,
            sums,
            reach: 0,
        }
    }

    fn of_windows(windows: Windows, isa: Isa) -> Self {
        let (sums, reach) = windows.sums();
        let kept = Kept::Windows(windows);
        Self {
            kept,
            isa,
            sums,
            reach,
        }
    }

    fn size(&self) -> &Size {
        match &self.kept {
            Kept::Columns(lists) => lists.size(),
            Kept::Windows(lists) => lists.size(),
        }
    }

    /// The form of the lists.
    pub fn form(&self) -> Form {
        match self.size().rows {
            1 => Form::Rows,
            _ => Form::Blocks,
        }
    }

    /// Their form, and how much is left, for people.
    pub fn told(&self) -> String {
        told(self.form(), self.size().share())
    }

    /// What is packed, for [`Ctx::with_stored`].
    pub fn parts(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(self.part())
    }

    fn part(&self) -> &Buffer {
        match &self.kept {
            Kept::Columns(lists) => lists.part(),
            Kept::Windows(lists) => lists.part(),
        }
    }

    /// Size of the lists.
    pub fn bytes(&self) -> usize {
        self.part().len()
    }

    /// The name of the kernel.
    pub fn kernel_name(&self) -> &'static str {
        let picks = matches!(self.kept, Kept::Windows(_));
        name(self.isa, 1, self.form(), picks)
    }

    /// `out = A[m, k] B + bias`. Row `r` of A starts at element `r * a_stride`, that of the output at
    /// `r * c_stride`.
    #[allow(clippy::too_many_arguments, reason = "the operands of a product")]
    pub fn run(
        &self,
        ctx: &Ctx,
        m: usize,
        a: Input8,
        a_stride: usize,
        bias: Option<&[i32]>,
        out: Output8,
        c_stride: usize,
    ) {
        let &Size { k, n, rows, .. } = self.size();
        let (data, signed) = a.data.raw();
        assert!(
            fits(m, k, a_stride, data.len()),
            "A has m rows of k elements"
        );
        assert!(bias.is_none_or(|b| b.len() == n), "bias has n elements");
        let shifted = signed != takes_signed(self.isa);
        let zero = a.zero + if shifted { shift(signed) } else { 0 };
        let (tile, across) = match self.kept {
            Kept::Columns(_) => (FOUR * shape(self.isa).0, FOUR),
            Kept::Windows(_) => (rows_of_tile(rows), LANES * rows),
        };
        let starts = self.starts(bias, zero, across);
        let product = Product {
            a: data,
            a_stride,
            flip: if shifted { 0x80 } else { 0 },
            starts: &starts,
            target: Target8::new(m, n, out, c_stride),
            c_stride,
        };
        let cut = Cut::new(ctx.threads().count(), m, tile, n.div_ceil(across));
        ctx.threads()
            .parallel_for(cut.tasks(), |i| self.part_of(&product, cut.task(i)));
    }

    /// What the sum of each output starts from, for outputs in groups of `across`: a bias, and what a zero
    /// point adds to all of A.
    fn starts(&self, bias: Option<&[i32]>, zero: i32, across: usize) -> Vec<i32> {
        struct Starts<'a>(&'a mut [i32], &'a [i32], i32);
        impl Body for Starts<'_> {
            type Out = ();
            #[inline(always)]
            fn run<S: Simd>(self, _: S) {
                for (start, sum) in self.0.iter_mut().zip(self.1) {
                    *start = start.wrapping_sub(sum.wrapping_mul(self.2));
                }
            }
        }
        let n = self.sums.len();
        let mut starts = Vec::with_capacity(n.next_multiple_of(across));
        starts.extend_from_slice(bias.unwrap_or_default());
        starts.resize(n.next_multiple_of(across), 0);
        dispatch(self.isa, Starts(&mut starts, &self.sums, zero));
        starts
    }

    /// Some rows and outputs of a product, these in fours or in tiles of windows.
    fn part_of(&self, product: &Product, (rows, across): (Range<usize>, Range<usize>)) {
        let &Product {
            a_stride,
            flip,
            starts,
            c_stride,
            ..
        } = product;
        let a = &product.a[(rows.start * a_stride).min(product.a.len())..];
        let (rows, to) = (rows.len(), product.target.store(rows.start * c_stride, 0));
        match &self.kept {
            Kept::Columns(lists) => {
                let room = tile::scratch(self.isa, lists.size().k);
                with_scratch(room, |scratch: &mut [u8]| {
                    let block = tile::Block {
                        lists,
                        a,
                        a_stride,
                        flip,
                        rows,
                        fours: across,
                        starts,
                        to,
                        c_stride,
                        scratch: Shared::new(scratch),
                    };
                    tile::run(self.isa, &block);
                });
            }
            #[cfg(not(target_arch = "x86_64"))]
            Kept::Windows(_) => unreachable!("no other set picks bytes"),
            #[cfg(target_arch = "x86_64")]
            Kept::Windows(lists) => {
                with_scratch(window::scratch(lists.size().k), |scratch: &mut [u8]| {
                    let block = window::Block {
                        lists,
                        a,
                        a_stride,
                        flip,
                        rows,
                        tiles: across,
                        starts,
                        reach: self.reach,
                        to,
                        c_stride,
                        scratch: Shared::new(scratch),
                    };
                    window::run(self.isa, &block);
                });
            }
        }
    }
}

/// The operands of a product but for the weights.
struct Product<'a> {
    a: &'a [u8],
    a_stride: usize,
    /// Bits of A that are changed.
    flip: u8,
    /// What the sum of each output starts from.
    starts: &'a [i32],
    target: Target8<'a>,
    c_stride: usize,
}

/// The weight, in signed bytes, of an output and an input.
fn weight(b: Bytes<'_>, order: Order, [k, n]: [usize; 2]) -> impl Fn(usize, usize) -> i8 + '_ {
    let (raw, signed) = b.raw();
    let flip = if signed { 0 } else { 0x80 };
    move |o, i| match order {
        Order::KN => (raw[i * n + o] ^ flip) as i8,
        Order::NK => (raw[o * k + i] ^ flip) as i8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::gemm::{PackedI8, Requant, gemm8};
    use crate::testing::{Random, contexts};

    /// A matrix `[K, N]` of which about this part of 100 blocks is not zero.
    fn some_matrix(random: &mut Random, [k, n]: [usize; 2], share: usize) -> Vec<i8> {
        let fours = n.div_ceil(FOUR);
        let kept: Vec<bool> = (0..k * fours).map(|_| random.below(100) < share).collect();
        let one = |i: usize, byte: i8| {
            let block = kept[i / n * fours + i % n / FOUR];
            if block && byte % 3 != 0 { byte } else { 0 }
        };
        let bytes = random.signed(k * n);
        bytes.iter().enumerate().map(|(i, b)| one(i, *b)).collect()
    }

    fn scaled<'a>(
        y: &'a mut [f32],
        (scale, bias, activation): (&'a [f32], &'a [f32], Activation),
    ) -> Output8<'a> {
        let bias = Some(bias);
        Output8::F32 {
            y,
            scale,
            bias,
            activation,
        }
    }

    #[test]
    fn gives_the_bytes_of_the_dense_kernel_on_edges_of_tiles() {
        let mut random = Random::new(41);
        let rows = [
            0, 1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 47, 49, 63, 64, 65, 81, 130,
        ];
        let sizes = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 20, 31, 33, 64, 67];
        for round in 0..150 {
            let (m, n) = (random.pick(&rows), random.pick(&sizes));
            let k = match round % 9 {
                0 => random.pick(&[96, 130, 300]),
                _ => random.pick(&sizes),
            };
            let share = random.pick(&[0, 10, 40, 100]);
            let b = some_matrix(&mut random, [k, n], share);
            let (wide, stride) = (k + random.below(3), n + random.below(3));
            let (a, signed) = (random.bytes(m * wide), round % 2 == 0);
            let zero = if signed { -7 } else { 131 };
            let data = match signed {
                true => Bytes::I8(bytemuck::cast_slice(&a)),
                false => Bytes::U8(&a),
            };
            let input = Input8 { data, zero };
            // To where sums are no exact floats.
            let most = random.pick(&[1000, 1000, 9_000_000]);
            let bias = (0..n).map(|_| random.below(2 * most) as i32 - most as i32);
            let bias: Vec<i32> = bias.collect();
            let bias = (round % 3 > 0).then_some(&bias[..]);
            // Up to what leaves 32 bits.
            let scales = random.pick(&[[0.003, 0.01], [1e-5, 2e-5], [0.003, 0.9], [0.003, 3e6]]);
            let scale: Vec<f32> = (0..n).map(|_| random.pick(&scales)).collect();
            let add = random.floats(n);
            let (zero, lo, hi) = random.pick(&[
                (10, 10, 240),
                (3, 3, 255),
                (120, 0, 255),
                (0, 0, 255),
                (-5, -128, 127),
                (-128, -128, 100),
            ]);
            let requant = Requant {
                mult: &scale,
                zero,
                lo,
                hi,
            };
            let unsigned: Vec<u8> = b.iter().map(|b| *b as u8 ^ 0x80).collect();
            for ctx in contexts() {
                let dense = PackedI8::new(&ctx, Bytes::I8(&b), Order::KN, k, n, &[]);
                let (mut sums, mut bytes) = (vec![7; m * stride], vec![7; m * stride]);
                let mut floats = vec![7.0; m * stride];
                let product = |out: Output8| gemm8(&ctx, m, input, wide, &dense, bias, out, stride);
                let activation = random.pick(&[Activation::Relu, Activation::Sigmoid]);
                product(Output8::I32(&mut sums));
                product(Output8::Bytes(&mut bytes, requant));
                let more = (&scale[..], &add[..], activation);
                let mut wanted = floats.clone();
                product(scaled(&mut wanted, more));
                for (i, form) in [0, 1, 2, 3].map(|i| (i, Form::ALL[i % 2])) {
                    let weights = match i % 2 {
                        0 => Bytes::U8(&unsigned),
                        _ => Bytes::I8(&b),
                    };
                    let sparse = match i / 2 {
                        0 => SparseI8::in_form(&ctx, weights, Order::KN, [k, n], form),
                        _ => SparseI8::in_columns(&ctx, weights, Order::KN, [k, n], form),
                    };
                    let run = |out: Output8| sparse.run(&ctx, m, input, wide, bias, out, stride);
                    let name = sparse.kernel_name();
                    let what = format!("{m} {k} {n} {name} {signed} {:?}", ctx.isa());
                    let (mut y, mut z) = (vec![7; m * stride], vec![7; m * stride]);
                    run(Output8::I32(&mut y));
                    assert_eq!(y, sums, "{what}");
                    run(Output8::Bytes(&mut z, requant));
                    assert_eq!(z, bytes, "{what}");
                    run(scaled(&mut floats, more));
                    assert_eq!(floats, wanted, "{what}");
                    floats.fill(7.0);
                }
            }
        }
    }

    #[test]
    fn sums_at_the_edge_of_exact_floats_become_the_bytes_of_the_dense_kernel() {
        let mut random = Random::new(44);
        let (m, k, n) = (9, 40, 96);
        for round in 0..80 {
            let b = some_matrix(&mut random, [k, n], 30);
            let a = random.bytes(m * k);
            // Before the edge, within the reach of A of it, and beyond.
            let most: i32 = 1 << random.pick(&[20, 22, 23, 23, 23, 24, 30]);
            let span = most as usize >> random.pick(&[3, 4]);
            let bias = (0..n).map(|i| {
                let near = most - (most >> 4) + random.below(span) as i32;
                near * [1, -1][i % 2]
            });
            let bias: Vec<i32> = bias.collect();
            let mult = vec![200.0 / most as f32; n];
            let requant = Requant {
                mult: &mult,
                zero: 7,
                lo: 7,
                hi: 255,
            };
            let input = Input8 {
                data: Bytes::U8(&a),
                zero: 0,
            };
            for ctx in contexts() {
                let dense = PackedI8::new(&ctx, Bytes::I8(&b), Order::KN, k, n, &[]);
                let (mut want, mut bytes) = (vec![0; m * n], vec![1; m * n]);
                let out = Output8::Bytes(&mut want, requant);
                gemm8(&ctx, m, input, k, &dense, Some(&bias), out, n);
                let lists =
                    SparseI8::in_form(&ctx, Bytes::I8(&b), Order::KN, [k, n], Form::ALL[round % 2]);
                let out = Output8::Bytes(&mut bytes, requant);
                lists.run(&ctx, m, input, k, Some(&bias), out, n);
                assert_eq!(bytes, want, "{most} {:?}", ctx.isa());
            }
        }
    }

    /// What would be read of stored lists, changed in byte `at`.
    fn read_changed(ctx: &Ctx, lists: &SparseI8, at: usize, byte: u8) -> Option<SparseI8> {
        let mut part = lists.part().clone();
        if let Some(to) = part.bytes_mut().get_mut(at) {
            *to = byte;
        }
        let &Size { k, n, .. } = lists.size();
        let weights = vec![0; k * n];
        let stored = ctx.with_stored(vec![part]);
        SparseI8::new(&stored, 9, Bytes::I8(&weights), Order::KN, k, n, &[])
    }

    #[test]
    fn stored_lists_come_back_and_no_change_of_them_leads_out_of_the_inputs() {
        let mut random = Random::new(43);
        for ctx in contexts() {
            for (form, [k, n]) in [
                (Form::Blocks, [150, 70]),
                (Form::Rows, [150, 20]),
                (Form::Blocks, [40, 9]),
            ] {
                let b = some_matrix(&mut random, [k, n], 30);
                let lists = SparseI8::in_form(&ctx, Bytes::I8(&b), Order::KN, [k, n], form);
                let a = random.bytes(9 * k);
                let product = |lists: &SparseI8| {
                    let (mut y, data) = (vec![7; 9 * n], Bytes::U8(&a));
                    let a = Input8 { data, zero: 3 };
                    lists.run(&ctx, 9, a, k, None, Output8::I32(&mut y), n);
                    y
                };
                let whole = lists.part().len();
                let same = read_changed(&ctx, &lists, whole, 0).expect("nothing was changed");
                assert_eq!((same.form(), product(&same)), (form, product(&lists)));
                assert_eq!(same.told(), lists.told());
                // The header, and where lists and windows begin.
                for at in 0..whole.min(64 + 64 + 128) {
                    for byte in [0, 1, 200, 255, random.next() as u8] {
                        if let Some(changed) = read_changed(&ctx, &lists, at, byte) {
                            product(&changed);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn windows_that_end_behind_the_inputs_and_steps_out_of_order_are_not_read() {
        let ctx = Ctx::serial();
        if !ctx.isa().picks_bytes() {
            return;
        }
        let lists = {
            let b = vec![1; 200 * 130];
            SparseI8::in_form(&ctx, Bytes::I8(&b), Order::KN, [200, 130], Form::Blocks)
        };
        let read = |at: usize, byte: u8| read_changed(&ctx, &lists, at, byte).is_some();
        // Starts stand from byte 64 on, windows from 128 on; the last begins at input 136.
        assert!(read(128, 1) && read(128, 136) && !read(128, 137) && !read(129, 1));
        assert!(!read(64, 1) && !read(68, 255) && !read(71, 1));
        assert!(!read(0, 1) && !read(8, 1) && !read(16, 2) && !read(20, 1));
    }

    #[test]
    fn zero_points_that_are_not_the_zero_of_lists_are_left_to_dense_weights() {
        let ctx = Ctx::serial();
        let (k, n) = (320, 320);
        let empty = vec![0u8; k * n];
        let takes =
            |b: Bytes, zeros: &[i32]| SparseI8::new(&ctx, 500, b, Order::KN, k, n, zeros).is_some();
        let signed = Bytes::I8(bytemuck::cast_slice(&empty));
        assert!(takes(signed, &[]) && takes(signed, &[0]) && !takes(signed, &[3]));
        let middle = vec![128u8; k * n];
        assert!(takes(Bytes::U8(&middle), &[128]) && !takes(Bytes::U8(&middle), &[]));
        assert!(!takes(Bytes::U8(&empty), &[128]));
    }
}

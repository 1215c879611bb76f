//! Products with weights of 2, 4 or 8 bits in blocks along K, which stay packed in memory.
//!
//! Few rows of A meet codes that are turned into numbers in registers; more rows meet panels of
//! floats that are made one at a time. Where rows of A may be rounded to bytes, codes are bytes
//! too. Every element of C is one sum in one order, whatever the tiles and threads.

mod dots;
mod floats;
mod pack;
mod rows;
mod tile;

use std::sync::atomic::{AtomicBool, Ordering};

pub use pack::{Blocked, Codes, PackedBits};
pub use rows::take_rows;

use super::f32::{Epilogue, PackedF32, Target, fits};
use super::{Cut, Order, shape};
use crate::arena::with_scratch;
use crate::floats::Floats;
use crate::simd::{Body, Simd, dispatch};
use crate::threads::Shared;
use crate::{Ctx, Isa};
use dots::{Dots, Round};
use floats::Few;
use pack::Zeros;
use tile::Ends;

/// Rows of A from which panels of floats are faster.
const MANY: usize = 16;

/// A micro-kernel: the set, whether it multiplies bytes, and `<arch>-<isa>-<types>-<tile>`.
static KERNELS: &[(Isa, bool, &str)] = &[
    (Isa::Avx512Vnni, true, "x86_64-avx512-vnni-i8bits-8x32"),
    (Isa::AvxVnni, true, "x86_64-avx-vnni-i8bits-4x16"),
    (Isa::Avx2, true, "x86_64-avx2-i8bits-4x16"),
    (Isa::NeonI8mm, true, "aarch64-neon-i8mm-i8bits-8x8"),
    (Isa::NeonDot, true, "aarch64-neon-dotprod-i8bits-8x8"),
    (Isa::Avx512, false, "x86_64-avx512-f32bits-8x32"),
    (Isa::Avx2, false, "x86_64-avx2-f32bits-4x16"),
    (Isa::Neon, false, "aarch64-neon-f32bits-8x8"),
    (Isa::Generic, false, "generic-f32bits-4x8"),
];

impl PackedBits {
    /// The name of the micro-kernel that it is packed for.
    pub fn kernel_name(&self) -> &'static str {
        let fits = |k: &&(Isa, bool, _)| k.1 == self.bytes && self.isa.includes(k.0);
        let found = KERNELS.iter().find(fits);
        found
            .expect("the list ends with a generic kernel, and bytes have sets of their own")
            .2
    }

    /// Whether products round rows of A to bytes.
    pub fn takes_bytes(&self) -> bool {
        self.bytes
    }
}

/// `C[m, n] = act(A[m, k] B + bias + residual)`. Row `r` of A starts at `a[r * a_stride]`, that
/// of C (and of the residual) at `c[r * c_stride]`.
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
pub fn gemm_bits(
    ctx: &Ctx,
    m: usize,
    a: &[f32],
    a_stride: usize,
    b: &PackedBits,
    c: &mut [f32],
    c_stride: usize,
    epilogue: &Epilogue,
) {
    assert!(
        fits(m, b.k(), a_stride, a.len()),
        "A has m rows of k elements"
    );
    let product = Product {
        ctx: &ctx.with_isa(b.isa),
        m,
        a,
        a_stride,
        b,
        target: Target::new(m, b.n(), c, c_stride, epilogue),
        c_stride,
    };
    let done = if b.bytes {
        product.by_dots()
    } else {
        m < MANY && product.few()
    };
    if !done {
        product.by_panels();
    }
}

struct Product<'a> {
    ctx: &'a Ctx,
    m: usize,
    a: &'a [f32],
    a_stride: usize,
    b: &'a PackedBits,
    target: Target<'a>,
    c_stride: usize,
}

impl Product<'_> {
    fn row(&self, r: usize) -> &[f32] {
        &self.a[r * self.a_stride..][..self.b.k]
    }

    fn cut(&self, most_rows: usize) -> Cut {
        let (threads, panels) = (self.ctx.threads().count(), self.b.panels.count());
        Cut::new(threads, self.m, panels, shape(self.b.isa).1, most_rows)
    }

    fn ends(&self, rows: &std::ops::Range<usize>) -> Ends<'_> {
        Ends {
            b: self.b,
            rows: rows.len(),
            store: self.target.store(rows.start * self.c_stride, 0),
            c_stride: self.c_stride,
            then: self.target.then(),
        }
    }

    /// By codes that are turned into floats in registers; `false` where that is not exact: zero
    /// points that differ are taken away from sums, which have to be finite.
    fn few(&self) -> bool {
        let (m, b) = (self.m, self.b);
        let row = if b.reads_as_is() { 0 } else { b.row() };
        let blocks = match b.zeros {
            Zeros::Same => 0,
            _ => b.blocks,
        };
        with_scratch::<f32, _>(m * (row + blocks), |scratch| {
            let (rows, sums) = scratch.split_at_mut(m * row);
            for r in 0..m {
                let a = self.row(r);
                let to = &mut rows[r * row..][..row];
                let sums = &mut sums[r * blocks..][..blocks];
                dispatch(b.isa, LayOut { b, a, to, sums });
            }
            if !sums.iter().all(|x| x.is_finite()) {
                return false;
            }
            let cut = self.cut(usize::MAX);
            self.ctx.threads().parallel_for(cut.tasks(), |i| {
                let (part, panels) = cut.task(i);
                let (a, stride) = match row {
                    0 => (&self.a[part.start * self.a_stride..], self.a_stride),
                    _ => (&rows[part.start * row..], row),
                };
                let left = floats::Left {
                    a: a.as_ptr(),
                    stride,
                    sums: &sums[part.start * blocks..],
                };
                let to = self.ends(&part);
                dispatch(b.isa, Few { left, panels, to });
            });
            true
        })
    }

    /// By rows that are rounded to bytes; `false` where a number is not finite.
    fn by_dots(&self) -> bool {
        let (m, b) = (self.m, self.b);
        let (row, blocks) = (b.row(), b.blocks);
        with_scratch::<u8, _>(m * row, |bytes| {
            with_scratch::<[f32; 2], _>(m * blocks, |scales| {
                with_scratch::<i32, _>(m * blocks, |starts| {
                    if !self.round(bytes, scales, starts) {
                        return false;
                    }
                    let cut = self.cut(usize::MAX);
                    self.ctx.threads().parallel_for(cut.tasks(), |i| {
                        let (part, panels) = cut.task(i);
                        let left = dots::Left {
                            bytes: &bytes[part.start * row..],
                            scales: &scales[part.start * blocks..],
                            starts: &starts[part.start * blocks..],
                        };
                        let to = self.ends(&part);
                        Dots { left, panels, to }.compute();
                    });
                    true
                })
            })
        })
    }

    /// Rounds all rows; whether all are finite.
    fn round(&self, bytes: &mut [u8], scales: &mut [[f32; 2]], starts: &mut [i32]) -> bool {
        let (b, row, blocks) = (self.b, self.b.row(), self.b.blocks);
        let (bytes, scales) = (Shared::new(bytes), Shared::new(scales));
        let (starts, is_finite) = (Shared::new(starts), AtomicBool::new(true));
        self.ctx.threads().parallel_ranges(self.m, 8, |rows| {
            for r in rows {
                let of_row = r * blocks..(r + 1) * blocks;
                // SAFETY: rows of different tasks do not overlap.
                let round = unsafe {
                    Round {
                        b,
                        a: self.row(r),
                        bytes: bytes.slice(r * row..(r + 1) * row),
                        scales: scales.slice(of_row.clone()),
                        starts: starts.slice(of_row),
                    }
                };
                if !dispatch(b.isa, round) {
                    is_finite.store(false, Ordering::Relaxed);
                }
            }
        });
        is_finite.into_inner()
    }

    /// By panels of floats, each of which is made for all rows of a task.
    fn by_panels(&self) {
        /// Elements of A that stay near while panels go by.
        const NEAR: usize = 256 * 1024;
        let b = self.b;
        let cut = self.cut((NEAR / b.k.max(1)).clamp(96, 480));
        let exact = self.ctx.clone().with_bf16(false);
        self.ctx.threads().parallel_for(cut.tasks(), |i| {
            let (rows, panels) = cut.task(i);
            let mut packed = PackedF32::empty(&exact, [b.k, 0]);
            for p in panels {
                let (first, columns, vectors) = b.panels.panel(p);
                let width = vectors * b.panels.lanes;
                if packed.n() != columns || self.ctx.bf16() {
                    packed = PackedF32::empty(&exact, [b.k, columns]);
                }
                floats::expand(b, p, width, packed.data_mut());
                if self.ctx.bf16() {
                    let from = Floats::F32(packed.data_mut());
                    packed = PackedF32::of_rows(self.ctx, from, width, Order::KN, b.k, columns);
                }
                let a = (Floats::F32(self.a), rows.start * self.a_stride);
                // SAFETY: A has all rows and C all columns; tasks write disjoint parts.
                unsafe {
                    let rows = rows.clone();
                    self.target
                        .multiply_floats(rows, a, self.a_stride, &packed, 0..1, first);
                }
            }
        });
    }
}

/// Lays out a row of A in blocks of whole groups, where it is not read as it is, and adds up its
/// blocks, where their sums are wanted.
struct LayOut<'a> {
    b: &'a PackedBits,
    a: &'a [f32],
    to: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Body for LayOut<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut at = 0;
        for block in 0..self.b.blocks {
            let (start, len) = self.b.extent(block);
            let from = &self.a[start..][..len];
            if !self.to.is_empty() {
                let to = &mut self.to[at..][..self.b.groups_of(block) * self.b.group()];
                to[..len].copy_from_slice(from);
                to[len..].fill(0.0);
                at += to.len();
            }
            if let Some(sum) = self.sums.get_mut(block) {
                let mut all = s.splat(0.0);
                for at in (0..len).step_by(S::LANES) {
                    // SAFETY: the elements lie in the slice.
                    let x =
                        unsafe { s.load_up_to(from.as_ptr().add(at), (len - at).min(S::LANES)) };
                    all = s.add(all, x);
                }
                *sum = s.sum(all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::testing::{Random, close, contexts};

    /// A matrix of codes with everything that belongs to it.
    struct Case {
        k: usize,
        n: usize,
        bits: usize,
        block: usize,
        bytes: Vec<u8>,
        order: Order,
        stride: usize,
        high_first: bool,
        signed: bool,
        scales: Vec<f32>,
        zeros: Vec<f32>,
        scale_order: Order,
        book: Option<[f32; 16]>,
    }

    impl Case {
        fn some(random: &mut Random, [k, n]: [usize; 2]) -> Self {
            let bits = random.pick(&[2, 4, 8]);
            let block = random.pick(&[16, 32, 64, 128, 256, k, 24]).clamp(1, k);
            let blocks = k.div_ceil(block);
            let order = random.pick(&[Order::KN, Order::NK]);
            let (rows, columns) = if order == Order::KN { (k, n) } else { (n, k) };
            let stride = columns + random.below(3);
            let signed = random.below(2) == 0;
            let book: Option<[f32; 16]> = (bits == 4 && random.below(4) == 0)
                .then(|| std::array::from_fn(|_| random.float()));
            let (low, range) = if signed {
                (-(1 << (bits - 1)), 1 << bits)
            } else {
                (0, 1 << bits)
            };
            let mut zero = || low as f32 + random.below(range) as f32;
            let zeros = match (&book, n % 3) {
                (Some(_), _) => vec![if signed { -8.0 } else { 0.0 }],
                (None, 0) => vec![zero()],
                (None, 1) => (0..blocks * n).map(|_| zero()).collect(),
                (None, _) => (0..blocks * n).map(|_| zero() + 0.25).collect(),
            };
            let signed = signed && book.is_none();
            let zeros = if book.is_some() { vec![0.0] } else { zeros };
            let mut scales = random.floats(blocks * n);
            let empty = random.below(scales.len());
            scales[empty] = 0.0;
            Self {
                k,
                n,
                bits,
                block,
                bytes: random.bytes((rows * stride * bits).div_ceil(8)),
                order,
                stride,
                high_first: random.below(2) == 0,
                signed,
                scales,
                zeros,
                scale_order: random.pick(&[Order::KN, Order::NK]),
                book,
            }
        }

        fn pack(&self, ctx: &Ctx, bytes: bool) -> PackedBits {
            PackedBits::new(ctx, &self.blocked(), [self.k, self.n], bytes)
        }

        fn blocked(&self) -> Blocked<'_> {
            let codes = Codes {
                bytes: &self.bytes,
                bits: self.bits,
                order: self.order,
                stride: self.stride,
                high_first: self.high_first,
                signed: self.signed,
            };
            Blocked {
                codes,
                block: self.block,
                scales: &self.scales,
                zeros: &self.zeros,
                order: self.scale_order,
                book: self.book.as_ref(),
            }
        }

        /// Code, zero point and scale of a weight, read plainly.
        fn at(&self, k: usize, n: usize) -> (f64, f64, f64) {
            let i = match self.order {
                Order::KN => k * self.stride + n,
                Order::NK => n * self.stride + k,
            };
            let per_byte = 8 / self.bits;
            let within = match self.high_first {
                true => per_byte - 1 - i % per_byte,
                false => i % per_byte,
            };
            let mut code = i64::from(self.bytes[i / per_byte]) >> (within * self.bits);
            code %= 1 << self.bits;
            if self.signed && code >= 1 << (self.bits - 1) {
                code -= 1 << self.bits;
            }
            let (block, blocks) = (k / self.block, self.k.div_ceil(self.block));
            let place = match self.scale_order {
                Order::NK => n * blocks + block,
                Order::KN => block * self.n + n,
            };
            let zero = self.zeros[if self.zeros.len() == 1 { 0 } else { place }];
            let code = match &self.book {
                Some(book) => f64::from(book[code as usize]),
                None => code as f64,
            };
            (code, f64::from(zero), f64::from(self.scales[place]))
        }

        fn product(&self, m: usize, a: &[f32], ep: &Epilogue) -> Vec<f32> {
            let mut c = vec![0.0; m * self.n];
            for (i, c) in c.iter_mut().enumerate() {
                let (row, n) = (i / self.n, i % self.n);
                let mut y = f64::from(ep.bias.map_or(0.0, |b| b[n]));
                for k in 0..self.k {
                    let (code, zero, scale) = self.at(k, n);
                    y += f64::from(a[row * self.k + k]) * ((code - zero) * scale);
                }
                y += f64::from(ep.residual.map_or(0.0, |r| r.f32()[i]));
                *c = match ep.activation {
                    Activation::Relu => y.max(0.0) as f32,
                    Activation::HardSwish => (y * (y / 6.0 + 0.5).clamp(0.0, 1.0)) as f32,
                    _ => y as f32,
                };
            }
            c
        }

        /// `a` as its blocks are rounded.
        fn rounded(&self, a: &[f32]) -> Vec<f32> {
            let blocks = a.chunks(self.k).flat_map(|row| row.chunks(self.block));
            let round = |block: &[f32]| {
                let most = block.iter().fold(0f32, |most, x| most.max(x.abs()));
                let inverse = if most == 0.0 { 0.0 } else { 127.0 / most };
                let one = |x: &f32| (x * inverse).round_ties_even() * (most / 127.0);
                block.iter().map(one).collect::<Vec<_>>()
            };
            blocks.flat_map(round).collect()
        }

        /// What errors are measured by.
        fn size(&self) -> f32 {
            (1 << self.bits) as f32 * (self.k as f32).sqrt()
        }
    }

    const SIZES: [usize; 14] = [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 47, 64, 96];
    const ROWS: [usize; 13] = [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17];

    fn all_ends<'a>(random: &mut Random, bias: &'a [f32], residual: &'a [f32]) -> Epilogue<'a> {
        Epilogue {
            bias: (random.below(2) == 0).then_some(bias),
            residual: (random.below(3) == 0).then_some(residual.into()),
            activation: random.pick(&[Activation::None, Activation::Relu, Activation::HardSwish]),
        }
    }

    #[test]
    fn products_equal_the_plain_sum_of_dequantised_weights() {
        let mut random = Random::new(3);
        for round in 0..200 {
            let k = match round % 5 {
                0 => random.pick(&[130, 256, 300, 520]),
                _ => random.pick(&SIZES),
            };
            let m = if round % 20 == 0 {
                130
            } else {
                random.pick(&ROWS)
            };
            let n = random.pick(&SIZES);
            let case = Case::some(&mut random, [k, n]);
            let (a, bias, residual) =
                (random.floats(m * k), random.floats(n), random.floats(m * n));
            let ep = all_ends(&mut random, &bias, &residual);
            let want = case.product(m, &a, &ep);
            let mut first: Option<(Isa, Vec<f32>)> = None;
            for ctx in contexts() {
                let b = case.pack(&ctx, false);
                let mut c = vec![f32::NAN; m * n];
                gemm_bits(&ctx, m, &a, k, &b, &mut c, n, &ep);
                let what = format!("{:?} {m} {k} {n} {} {}", ctx.isa(), case.bits, case.block);
                close(&c, &want, 2e-6 * case.size(), &what);
                match &first {
                    Some((isa, one)) if *isa == ctx.isa() => assert_eq!(&c, one, "threads"),
                    _ => first = Some((ctx.isa(), c)),
                }
            }
        }
    }

    #[test]
    fn products_of_bytes_equal_the_plain_sum_of_rounded_rows() {
        let mut random = Random::new(4);
        for round in 0..200 {
            let k = match round % 5 {
                0 => random.pick(&[130, 256, 300, 520]),
                _ => random.pick(&SIZES),
            };
            let m = if round % 20 == 0 {
                130
            } else {
                random.pick(&ROWS)
            };
            let n = random.pick(&SIZES);
            let case = Case::some(&mut random, [k, n]);
            let (mut a, bias) = (random.floats(m * k), random.floats(n));
            a[..k.min(case.block)].fill(0.0);
            let ep = all_ends(&mut random, &bias, &[]);
            let ep = Epilogue {
                residual: None,
                ..ep
            };
            let want = case.product(m, &case.rounded(&a), &ep);
            let floats = case.product(m, &a, &ep);
            let mut first: Option<(Isa, Vec<f32>)> = None;
            for ctx in contexts() {
                let b = case.pack(&ctx, true);
                let want = if b.takes_bytes() { &want } else { &floats };
                let mut c = vec![f32::NAN; m * n];
                gemm_bits(&ctx, m, &a, k, &b, &mut c, n, &ep);
                let what = format!("{:?} {m} {k} {n} {} {}", ctx.isa(), case.bits, case.block);
                close(&c, want, 2e-6 * case.size(), &what);
                match &first {
                    Some((isa, one)) if *isa == ctx.isa() => assert_eq!(&c, one, "threads"),
                    _ => first = Some((ctx.isa(), c)),
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_goes_through_in_its_row_alone() {
        let mut random = Random::new(5);
        for round in 0..60 {
            let (k, n) = (random.pick(&[20, 64, 100]), random.pick(&[5, 16, 33, 40]));
            let case = Case::some(&mut random, [k, n]);
            let m = random.pick(&[1, 3, 8, 20]);
            let mut a = random.floats(m * k);
            let value = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][round % 3];
            let at = random.below(a.len());
            a[at] = value;
            let ep = Epilogue::default();
            let want = case.product(m, &a, &ep);
            for ctx in contexts() {
                for bytes in [false, true] {
                    let b = case.pack(&ctx, bytes);
                    let mut c = vec![0.0; m * n];
                    gemm_bits(&ctx, m, &a, k, &b, &mut c, n, &ep);
                    close(
                        &c,
                        &want,
                        2e-6 * case.size(),
                        &format!("{:?} {bytes}", ctx.isa()),
                    );
                }
            }
        }
    }

    #[test]
    fn strides_leave_the_gaps_alone() {
        let mut random = Random::new(6);
        let (k, n) = (40, 21);
        let case = Case::some(&mut random, [k, n]);
        for m in [1, 7, 18] {
            let a = random.floats(m * 50);
            let rows: Vec<f32> = a.chunks(50).flat_map(|row| row[..k].to_vec()).collect();
            let want = case.product(m, &rows, &Epilogue::default());
            for ctx in contexts() {
                let b = case.pack(&ctx, false);
                let mut c = vec![7.0; m * 25];
                gemm_bits(&ctx, m, &a, 50, &b, &mut c, 25, &Epilogue::default());
                for (c, want) in c.chunks(25).zip(want.chunks(n)) {
                    close(&c[..n], want, 2e-6 * case.size(), "row");
                    assert!(c[n..].iter().all(|x| *x == 7.0));
                }
            }
        }
    }

    #[test]
    fn blocks_whose_sums_would_overflow_are_not_multiplied_as_bytes() {
        let (k, n) = (70_000, 1);
        let codes = Codes {
            bytes: &vec![254; k],
            bits: 8,
            order: Order::KN,
            stride: n,
            high_first: false,
            signed: false,
        };
        let b = Blocked {
            codes,
            block: k,
            scales: &[1.0 / 254.0],
            zeros: &[0.0],
            order: Order::KN,
            book: None,
        };
        for ctx in contexts() {
            let b = PackedBits::new(&ctx, &b, [k, n], true);
            let mut c = [0.0];
            gemm_bits(
                &ctx,
                1,
                &vec![1.0; k],
                k,
                &b,
                &mut c,
                n,
                &Epilogue::default(),
            );
            close(&c, &[k as f32], 1e-4, "sum");
        }
    }

    #[test]
    fn packed_weights_take_the_bits_of_their_codes() {
        let mut random = Random::new(7);
        let mut case = Case::some(&mut random, [256, 64]);
        (case.bits, case.block, case.book) = (4, 32, None);
        (case.stride, case.bytes) = (64, random.bytes(256 * 32));
        (case.order, case.signed) = (Order::KN, false);
        case.scales = random.floats(8 * 64);
        for (zeros, more) in [
            (vec![8.0], 0),
            ((0..8 * 64).map(|i| (i % 16) as f32).collect(), 1),
        ] {
            case.zeros = zeros;
            let b = case.pack(&Ctx::serial(), false);
            assert_eq!(b.bytes(), 256 * 64 / 2 + 8 * 64 * (4 + more));
        }
    }

    #[test]
    fn rows_of_a_table_are_its_weights() {
        let mut random = Random::new(9);
        for _ in 0..60 {
            let (k, n) = (random.pick(&[16, 33, 64, 100]), random.pick(&[3, 40]));
            let mut case = Case::some(&mut random, [k, n]);
            (case.order, case.scale_order, case.book) = (Order::NK, Order::NK, None);
            case.stride = k + random.below(2);
            case.bytes = random.bytes((n * case.stride * case.bits).div_ceil(8));
            let places: Vec<_> = (0..40)
                .map(|i| (i % 7 > 0).then(|| random.below(n)))
                .collect();
            let weight = |row: usize, k: usize| {
                let (code, zero, scale) = case.at(k, row);
                ((code - zero) * scale) as f32
            };
            let row = |place: &Option<usize>| -> Vec<f32> {
                (0..k)
                    .map(|k| place.map_or(0.0, |row| weight(row, k)))
                    .collect()
            };
            let want: Vec<f32> = places.iter().flat_map(row).collect();
            for ctx in contexts() {
                let mut y = vec![f32::NAN; places.len() * k];
                take_rows(&ctx, &case.blocked(), [n, k], &places, &mut y);
                close(&y, &want, 1e-6, "rows");
            }
        }
    }

    #[test]
    fn rounding_of_panels_to_bf16_is_that_of_products_of_floats() {
        let mut random = Random::new(8);
        let (m, k, n) = (20, 96, 40);
        let case = Case::some(&mut random, [k, n]);
        let a = random.floats(m * k);
        let want = case.product(m, &a, &Epilogue::default());
        for ctx in contexts() {
            let ctx = ctx.with_bf16(true);
            let b = case.pack(&ctx, false);
            let mut c = vec![0.0; m * n];
            gemm_bits(&ctx, m, &a, k, &b, &mut c, n, &Epilogue::default());
            let tolerance = if ctx.bf16() { 1e-3 } else { 2e-6 };
            close(&c, &want, tolerance * case.size(), "bf16");
        }
    }
}

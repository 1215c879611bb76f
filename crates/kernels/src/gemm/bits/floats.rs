//! Codes that are turned into floats in registers, or a panel of them into floats in memory.

use std::ops::Range;

use super::pack::{PackedBits, Zeros};
use super::tile::{Ends, Shape, columns, each_tile};
use crate::simd::{Body, Simd, dispatch};

/// Rows of A and where they stand; blocks of a row are whole groups of codes.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub a: *const f32,
    pub stride: usize,
    /// The sums of blocks, by row; empty where zero points do not differ.
    pub sums: &'a [f32],
}

/// A part of a product that one thread computes.
pub(super) struct Few<'a> {
    pub left: Left<'a>,
    pub panels: Range<usize>,
    pub to: Ends<'a>,
}

/// Runs `$f::<S, BITS, TABLE>` for the bits of a matrix: its table is looked up where that is one
/// instruction, or codes are no integers.
macro_rules! by_codes {
    ($S:ty, $b:expr, $f:ident($($arg:expr),*)) => {
        match ($b.bits, <$S>::LOOKS_UP || $b.is_book) {
            (4, true) => $f::<$S, 4, true>($($arg),*),
            (4, false) => $f::<$S, 4, false>($($arg),*),
            (2, true) if <$S>::LOOKS_UP => $f::<$S, 2, true>($($arg),*),
            (2, _) => $f::<$S, 2, false>($($arg),*),
            _ => $f::<$S, 8, false>($($arg),*),
        }
    };
}

impl Body for Few<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        by_codes!(S, self.to.b, few(s, &self));
    }
}

#[inline(always)]
fn few<S: Simd, const BITS: usize, const TABLE: bool>(s: S, this: &Few) {
    let floats = Floats::<BITS, TABLE>(this);
    each_tile(s, &this.to, this.panels.clone(), &floats);
}

struct Floats<'a, const BITS: usize, const TABLE: bool>(&'a Few<'a>);

impl<S: Simd, const BITS: usize, const TABLE: bool> Shape<S> for Floats<'_, BITS, TABLE> {
    #[inline(always)]
    unsafe fn tile<const M: usize, const V: usize>(
        &self,
        s: S,
        rows: [usize; M],
        panel: usize,
    ) -> [[S::F; V]; M] {
        let (b, left) = (self.0.to.b, self.0.left);
        let codes = columns::<u32, V>(b.codes.typed(), panel, b.groups(), S::LANES);
        let decode = Decode::<BITS, TABLE>::new(b);
        let scales = Scales::new::<S>(b, panel);
        let mut a = [left.a; M];
        let mut a_sums = [left.sums.as_ptr(); M];
        for i in 0..M {
            a[i] = left.a.wrapping_add(rows[i] * left.stride);
            a_sums[i] = a_sums[i].wrapping_add(rows[i] * b.blocks);
        }
        let mut totals = [[s.splat(0.0); V]; M];
        let mut at = 0;
        for block in 0..b.blocks {
            let groups = at..at + b.groups_of(block);
            at = groups.end;
            // SAFETY: the groups of a panel are there, and as many elements of each row; each
            // block of a panel has a vector of scales and one of zero points, and each row a sum.
            unsafe {
                let sums = decode.sums(s, a, codes, groups);
                for v in 0..V {
                    let of_block = scales.of(s, block, v);
                    for i in 0..M {
                        let mut sum = sums[i][v];
                        if let Some(zero) = of_block.zero {
                            sum = s.fma(zero, s.splat(-*a_sums[i].add(block)), sum);
                        }
                        totals[i][v] = s.fma(sum, of_block.scale, totals[i][v]);
                    }
                }
            }
        }
        totals
    }
}

/// The place along K of the code that comes out `i`-th.
#[inline(always)]
pub(super) fn place<const BITS: usize>(i: usize) -> usize {
    let in_byte = 8 / BITS;
    i % in_byte * 4 + i / in_byte
}

/// What turns codes into numbers, less the zero point that all have.
struct Decode<'a, const BITS: usize, const TABLE: bool> {
    table: &'a [f32; 16],
    middle: f32,
}

impl<'a, const BITS: usize, const TABLE: bool> Decode<'a, BITS, TABLE> {
    #[inline(always)]
    fn new(b: &'a PackedBits) -> Self {
        Self {
            table: &b.table,
            middle: b.middle as f32,
        }
    }

    /// The sums of `M` rows at `a` with the groups `groups` of columns at `codes`.
    ///
    /// # Safety
    /// They are there.
    #[inline(always)]
    unsafe fn sums<S: Simd, const M: usize, const V: usize>(
        &self,
        s: S,
        a: [*const f32; M],
        codes: [*const u32; V],
        groups: Range<usize>,
    ) -> [[S::F; V]; M] {
        let mut sums = [[s.splat(0.0); V]; M];
        for at in groups {
            // SAFETY: the caller's promise.
            unsafe {
                let mut words = [s.splat_i(0); V];
                for v in 0..V {
                    words[v] = s.load_i(codes[v].add(at * 2 * S::LANES).cast());
                }
                for code in 0..32 / BITS {
                    let k = at * (32 / BITS) + place::<BITS>(code);
                    let mut x = [s.splat(0.0); V];
                    for v in 0..V {
                        x[v] = self.run(s, words[v]);
                        words[v] = s.shift_down(words[v], BITS as i32);
                    }
                    for i in 0..M {
                        let a = s.splat(*a[i].add(k));
                        for v in 0..V {
                            sums[i][v] = s.fma(a, x[v], sums[i][v]);
                        }
                    }
                }
            }
        }
        sums
    }

    /// The numbers of the lowest codes of all lanes.
    #[inline(always)]
    fn run<S: Simd>(&self, s: S, words: S::I) -> S::F {
        if TABLE {
            return s.look_up_16(self.table, words);
        }
        let code = s.and_i(words, s.splat_i((1 << BITS) - 1));
        s.sub(s.to_float(code), s.splat(self.middle))
    }
}

/// What belongs to one block of a vector of columns.
pub(super) struct Of<F> {
    pub scale: F,
    /// The zero points, less that of all; `None` where they do not differ.
    pub zero: Option<F>,
}

/// Scales and zero points of a panel and those after it.
pub(super) struct Scales {
    blocks: usize,
    middle: f32,
    scales: *const f32,
    zeros: Points,
}

#[derive(Clone, Copy)]
enum Points {
    Same,
    Codes(*const u8),
    Floats(*const f32),
}

impl Scales {
    /// Those from panel `panel` on.
    #[inline(always)]
    pub(super) fn new<S: Simd>(b: &PackedBits, panel: usize) -> Self {
        let at = panel * b.blocks * 2 * S::LANES;
        Self {
            blocks: b.blocks,
            middle: b.middle as f32,
            scales: b.scales.typed::<f32>()[at..].as_ptr(),
            zeros: match &b.zeros {
                Zeros::Same => Points::Same,
                Zeros::Codes(zeros) => Points::Codes(zeros.bytes()[at..].as_ptr()),
                Zeros::Floats(zeros) => Points::Floats(zeros.typed::<f32>()[at..].as_ptr()),
            },
        }
    }

    /// That of a block of vector `v` of the columns.
    ///
    /// # Safety
    /// It is there.
    #[inline(always)]
    pub(super) unsafe fn of<S: Simd>(&self, s: S, block: usize, v: usize) -> Of<S::F> {
        let at = (v / 2 * self.blocks + block) * 2 * S::LANES + v % 2 * S::LANES;
        let middle = s.splat(self.middle);
        // SAFETY: the caller's promise.
        unsafe {
            Of {
                scale: s.load(self.scales.add(at)),
                zero: match self.zeros {
                    Points::Same => None,
                    Points::Codes(zeros) => {
                        Some(s.sub(s.to_float(s.load_u8(zeros.add(at))), middle))
                    }
                    Points::Floats(zeros) => Some(s.sub(s.load(zeros.add(at)), middle)),
                },
            }
        }
    }
}

/// Turns a panel into rows of floats, `width` apart, one or two vectors.
pub(super) fn expand(b: &PackedBits, panel: usize, width: usize, out: &mut [f32]) {
    assert!(
        out.len() >= b.k * width && width <= 2 * b.panels.lanes && panel < b.panels.count(),
        "the panel fits"
    );
    let body = Expand {
        b,
        panel,
        width,
        out,
    };
    dispatch(b.isa, body);
}

struct Expand<'a> {
    b: &'a PackedBits,
    panel: usize,
    width: usize,
    out: &'a mut [f32],
}

impl Body for Expand<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        by_codes!(S, self.b, expand_codes(s, self));
    }
}

#[inline(always)]
fn expand_codes<S: Simd, const BITS: usize, const TABLE: bool>(s: S, this: Expand) {
    let Expand {
        b,
        panel,
        width,
        out,
    } = this;
    let decode = Decode::<BITS, TABLE>::new(b);
    let scales = Scales::new::<S>(b, panel);
    let group = 32 / BITS;
    for v in 0..width / S::LANES {
        let codes = columns::<u32, 2>(b.codes.typed(), panel, b.groups(), S::LANES)[v];
        let mut at = 0;
        for block in 0..b.blocks {
            let (start, len) = b.extent(block);
            // SAFETY: a panel has a vector of scales and zero points for each block, and codes
            // for each group; rows below `len` of the block are rows of `out`.
            unsafe {
                let of_block = scales.of(s, block, v);
                let zero = match of_block.zero {
                    Some(zero) => zero,
                    None => s.splat(0.0),
                };
                let mut from = 0;
                while from < len {
                    let mut words = s.load_i(codes.add(at * 2 * S::LANES).cast());
                    for code in 0..group {
                        let x = s.mul(s.sub(decode.run(s, words), zero), of_block.scale);
                        words = s.shift_down(words, BITS as i32);
                        let k = from + place::<BITS>(code);
                        if k < len {
                            let to = (start + k) * width + v * S::LANES;
                            s.store(out.as_mut_ptr().add(to), x);
                        }
                    }
                    at += 1;
                    from += group;
                }
            }
        }
    }
}
